"""Members that are not there, or cannot be members: said in the API, and harmful to no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_api.status import STATUS_TARGETS_MAX
from tests.cluster.product import Applied

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.cluster import Cluster

MANY = STATUS_TARGETS_MAX + 6


def test_members_that_cannot_be_used_are_told_and_the_good_ones_work(
    installed: Cluster, later: Callable[..., object]
) -> None:
    """Whatever there is to tell must pass the API server, which takes a status as a whole or not at all."""
    n1 = installed.network.nodes["n1"].namespace
    twin, again = (installed.network.nic("n1", name).mac for name in ("net0", "net1"))
    n1.batch(
        [
            "link add port0 type veth peer name port0-far",
            "link add bridge0 type bridge",
            "link set port0 master bridge0 up",
            f"link add twin0 address {twin} type veth peer name twin0-far",
            "link set twin0-far up",
            "link set twin0 up",
        ]
    )
    later(n1.batch, ["link del port0", "link del bridge0", "link del twin0"])
    members = [{"name": name} for name in ("net0", "net1", "absent0", "port0", "twin0")] + [{"macAddress": again}]
    selector = {"matchLabels": {"kubernetes.io/hostname": "n1"}}
    spec = {"interfaces": members, "nodeSelector": selector}
    with Applied(installed, "odd", spec, nodes=("n1",), state="degraded") as odd:
        wanted = {
            "absent0": "InterfaceMissing",
            "port0": "BridgePort",
            "twin0": "DuplicateMAC",
            again: "InterfaceConflict",
        }

        def reasons() -> dict[str, str]:
            interfaces = odd.node_group("n1").get("status", {}).get("interfaces", ())
            return {one["name"]: one.get("reason", "") for one in interfaces}

        installed.wait(
            reasons, lambda seen: wanted.items() <= seen.items(), what=f"{wanted} among the reasons of all members"
        )
        # A network of pods may have every node of the cluster for a gateway, and so for a target.
        routes = [f"203.0.113.{number}/32 via 198.18.0.{number} dev net0" for number in range(150, 150 + MANY)]
        n1.batch([f"route add {route} onlink" for route in routes])
        installed.wait(
            lambda: max(len(one.get("targets", ())) for one in odd.node_group("n1")["status"]["interfaces"]),
            lambda count: count == STATUS_TARGETS_MAX,
            what="as many targets as a status holds",
        )
        n1.batch([f"route del {route}" for route in routes])
        states = {one["name"]: one["state"] for one in odd.node_group("n1")["status"]["interfaces"]}
        assert (states["net0"], states["net1"]) == ("ok", "ok")
        address = odd.addresses("n1", 4)[0]
        traffic = odd.ping("n1", address)
        broken = odd.holder("n1", address)
        broken.unplug()
        odd.wait_moved("n1", address, broken)
        traffic.wait_answered(20)
