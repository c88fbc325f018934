"""Members that are not there, or cannot be members: said in the API, and harmful to no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cluster.product import Applied

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.cluster import Cluster


def test_missing_nic_bridge_port_and_duplicate_mac_are_told_and_the_good_members_work(
    installed: Cluster, later: Callable[..., object]
) -> None:
    n1 = installed.network.nodes["n1"].namespace
    twin = installed.network.nic("n1", "net0").mac
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
    members = [{"name": name} for name in ("net0", "net1", "absent0", "port0", "twin0")]
    selector = {"matchLabels": {"kubernetes.io/hostname": "n1"}}
    spec = {"interfaces": members, "nodeSelector": selector}
    with Applied(installed, "odd", spec, nodes=("n1",), state="degraded") as odd:
        wanted = {"absent0": "InterfaceMissing", "port0": "BridgePort", "twin0": "DuplicateMAC"}

        def reasons() -> dict[str, str]:
            interfaces = odd.node_group("n1").get("status", {}).get("interfaces", ())
            return {one["name"]: one.get("reason", "") for one in interfaces}

        installed.wait(
            reasons, lambda seen: wanted.items() <= seen.items(), what=f"{wanted} among the reasons of all members"
        )
        states = {one["name"]: one["state"] for one in odd.node_group("n1")["status"]["interfaces"]}
        assert (states["net0"], states["net1"]) == ("ok", "ok")
        address = odd.addresses("n1", 4)[0]
        traffic = odd.ping("n1", address)
        broken = odd.holder("n1", address)
        broken.unplug()
        odd.wait_moved("n1", address, broken)
        traffic.wait_answered(20)
