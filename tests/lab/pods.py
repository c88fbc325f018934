"""What CNIs lay on a host: a pod behind it, and the device of a VXLAN overlay pinned to a NIC."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from tests.lab import namespaces
from tests.lab.namespaces import Namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.topology import Lab

POD = {4: "198.19.64.2", 6: "2001:db8:0:64::2"}
GATEWAY = {4: "198.19.64.1", 6: "2001:db8:0:64::1"}
SOURCE_CIDRS = ["198.19.64.0/20", "2001:db8:0:64::/64"]

UNDERLAY = {4: ("198.18.0.100", "198.18.0.110"), 6: ("2001:db8:0:1::100", "2001:db8:0:1::110")}
PREFIX = {4: 24, 6: 64}
OVERLAY = ("198.19.1.1", "198.19.1.2")
OVERLAY_MACS = ("02:00:00:00:99:01", "02:00:00:00:99:02")


@contextlib.contextmanager
def pod_behind(lab: Lab) -> Iterator[Namespace]:
    """A namespace that reaches the world through the first host."""
    host, pod = lab.host.namespace, Namespace(f"{lab.tag}-pod")
    namespaces.batch([f"netns add {pod.name}"])
    try:
        host.ip("link", "add", "pod0", "type", "veth", "peer", "name", "eth0", "netns", pod.name)
        for each, device, ends in ((host, "pod0", GATEWAY), (pod, "eth0", POD)):
            each.batch(
                [
                    f"address add {ends[4]}/24 dev {device}",
                    f"address add {ends[6]}/64 dev {device} nodad",
                    f"link set {device} up",
                ]
            )
        pod.batch([f"route add default via {GATEWAY[4]}", f"route add default via {GATEWAY[6]}"])
        host.sysctl({"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1})
        yield pod
    finally:
        namespaces.remove([pod.name])


def lay(namespace: Namespace, side: int, version: int, shape: str) -> None:
    """Make the overlay's device: with one remote, or with forwarding and neighbour entries as flannel lays them.

    The first is bound to its NIC in everything it sends, entries without `via` only in what they do not name.
    """
    mine, theirs = UNDERLAY[version][side], UNDERLAY[version][1 - side]
    remote = f"remote {theirs} " if shape == "remote" else ""
    pinned = f"local {mine} dev nic0"
    namespace.batch(
        [
            f"link add over1 address {OVERLAY_MACS[side]} type vxlan id 1 {remote}{pinned} dstport 8472 nolearning",
            f"address add {OVERLAY[side]}/24 dev over1",
            "link set over1 up",
        ]
    )
    if shape == "entries":
        mac = OVERLAY_MACS[1 - side]
        namespace.run("bridge", "fdb", "append", mac, "dev", "over1", "dst", theirs)
        namespace.ip("neighbour", "replace", OVERLAY[1 - side], "lladdr", mac, "dev", "over1", "nud", "permanent")


def following(side: int, version: int) -> dict[str, Any]:
    """What differs from the usual group: the addresses of this side."""
    first = 32 + 32 * side
    pool = {"ranges": [f"198.18.0.{first}-198.18.0.{first + 7}"], "prefixLength": 24}
    return {
        "addresses": (f"{UNDERLAY[version][side]}/{PREFIX[version]}",),
        "testAddresses": {"ipv4": {"pool": pool}},
    }


def pinned_to(namespace: Namespace, tunnel: str = "over1") -> str:
    """The interface that a tunnel's device is pinned to."""
    (device,) = namespace.ip_json("link", "show", "dev", tunnel)
    return str(device["linkinfo"]["info_data"]["link"])
