"""Tunnels: what the kernel's messages say of them, and where each one is to be pinned."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.group.tunnels import GroupTunnels
from ipmp_agent.linux.messages import netlink
from ipmp_agent.linux.messages.tunnel_devices import Tunnel, TunnelTable, decode

if TYPE_CHECKING:
    from ipmp_api.types import Address

V4, V6, REMOTE, GROUP = (ip_address(a) for a in ("198.18.0.100", "2001:db8::100", "198.18.0.110", "239.1.1.1"))


def message(kind: str, *data: bytes, link: int = 0, elsewhere: bool = False, name: str = "over1") -> bytes:
    parts = [netlink.attribute(3, name.encode() + b"\0")]
    parts += [netlink.u32(5, link)] if link else []
    parts += [netlink.u32(37, 0)] if elsewhere else []
    parts += [netlink.nested(18, netlink.attribute(1, kind.encode()), netlink.nested(2, *data))]
    return struct.pack("=BxHiII", 0, 1, 9, 0, 0) + b"".join(parts)


def vxlan(link: int = 2, local: Address = V4, remote: Address | None = None) -> bytes:
    data = [netlink.u32(1, 7), netlink.u32(3, link), netlink.attribute(4 if local.version == 4 else 17, local.packed)]
    data += [netlink.attribute(2, remote.packed)] if remote else []
    return message("vxlan", *data)


class Group:
    """Two members, nic0 (index 2) and nic1 (3), and one data address of either family."""

    def __init__(self, *bodies: bytes) -> None:
        self.table = TunnelTable()
        self.table.resync(bodies)
        self.holder: str | None = "nic0"
        self.former: set[str] = set()
        self.addresses = {V4, V6}
        indexes = {"nic0": 2, "nic1": 3}
        around: Any = SimpleNamespace(
            member=lambda key: None if key in self.former else SimpleNamespace(index=indexes.get(key)),
            key_of=lambda index: next((key for key, i in indexes.items() if i == index), None),
        )
        data: Any = SimpleNamespace(
            holder=lambda address: self.holder if address in self.addresses else None,
            is_data=lambda address: address in self.addresses,
        )
        self.parts = around, data
        self.tunnels = GroupTunnels(self.table, around, data)

    def restarted(self) -> GroupTunnels:
        again = GroupTunnels(self.table, *self.parts)
        again.remember(self.tunnels.memory())
        return again


def links(requests: list[bytes]) -> list[int]:
    """The interfaces that RTM_NEWLINK requests pin devices to."""
    found = []
    for request in requests:
        (got,) = netlink.messages(request)
        if got.kind == netlink.RTM_NEWLINK:
            data = netlink.attributes(netlink.attributes(netlink.attributes(got.body, 16)[18], 0)[2], 0)
            assert set(data) == {3}, "nothing else of the device is changed"
            found.append(netlink.number(data[3]))
    return found


def test_messages_are_read() -> None:
    assert decode(vxlan()) == Tunnel(9, "over1", "vxlan", 2, V4)
    assert decode(vxlan(local=V6, remote=REMOTE)) == Tunnel(9, "over1", "vxlan", 2, V6, REMOTE)
    assert decode(message("gretap", link=2)) == Tunnel(9, "over1", "gretap", 2)
    assert decode(message("gre", link=2, elsewhere=True)) == Tunnel(9, "over1", "gre", 0), "of another namespace"
    assert decode(message("veth", link=2)) is None
    assert decode(message("veth", link=2, name="vxlan-like")) is None


def test_a_device_follows_its_local_address_and_goes_home() -> None:
    group = Group(vxlan())
    assert group.tunnels.differences() == []
    group.holder = "nic1"
    assert links(group.tunnels.differences()) == [3]
    assert group.tunnels.differences() == [], "asked for once"
    group.holder = None
    assert group.tunnels.differences() == [], "an address that is nowhere pulls nothing along"
    assert links(group.tunnels.withdraw()) == [2]
    assert group.tunnels.withdraw() == []


def test_a_device_whose_address_is_none_of_the_group_any_more_goes_home_also_to_a_former_member() -> None:
    group = Group(vxlan())
    group.holder = "nic1"
    assert links(group.tunnels.differences()) == [3]
    group.former.add("nic0")
    group.addresses.clear()
    assert links(group.tunnels.differences()) == [2]
    assert group.tunnels.memory() == []


def test_the_entry_of_the_remote_is_laid_before_the_old_one_goes() -> None:
    group = Group(vxlan(remote=REMOTE))
    group.holder = "nic1"
    requests = [next(iter(netlink.messages(request))) for request in group.tunnels.differences()]
    assert [got.kind for got in requests] == [netlink.RTM_NEWLINK, 28, 29]
    entries = [netlink.attributes(got.body, 12) for got in requests[1:]]
    assert [netlink.number(entry[8]) for entry in entries] == [3, 2]
    assert {entry[1] for entry in entries} == {REMOTE.packed}
    assert {entry[2] for entry in entries} == {bytes(6)}


def test_a_restart_knows_the_home_whenever_the_agent_was_killed() -> None:
    group = Group(vxlan())
    group.tunnels.note()
    saved = group.restarted()
    group.holder = "nic1"
    assert links(saved.differences()) == [3]
    saved.note()  # as at every start
    assert saved.memory() == [{"index": 9, "name": "over1", "member": "nic0", "origin": 2, "link": 3}]
    unsaved = group.restarted()
    unsaved.note()
    assert links(unsaved.withdraw()) == [2], "killed before it had saved where it pinned the device"


def test_what_its_owner_pinned_anew_is_home_there() -> None:
    group = Group(vxlan())
    group.holder = "nic1"
    group.tunnels.differences()
    assert not group.table.heard(netlink.RTM_NEWLINK, vxlan(link=3)), "our own change"
    assert group.table.heard(netlink.RTM_NEWLINK, vxlan(link=2)), "the owner's"
    assert links(group.tunnels.differences()) == [3]
    group.table.heard(netlink.RTM_DELLINK, vxlan(link=3))
    assert group.tunnels.withdraw() == []


def test_a_device_that_is_not_ours_to_move_is_named_and_left_alone() -> None:
    for body, words in (
        (vxlan(remote=GROUP), "239.1.1.1 is a multicast group"),
        (vxlan(local=REMOTE), "198.18.0.110) is no data address"),
        (message("gre", link=2), "a gre tunnel does not follow"),
    ):
        group = Group(body)
        group.holder = "nic1"
        assert group.tunnels.differences() == []
        (finding,) = group.tunnels.findings()
        assert (finding.reason, finding.interface) == (Reason.TUNNEL_PINNED, "nic0")
        assert words in finding.message
    for body in (vxlan(link=0), vxlan(link=77), message("gre")):
        assert Group(body).tunnels.findings() == []
