"""Every device of a network namespace as far as it concerns members: what stands on what, and its XDP program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_agent.linux.messages import links, netlink
from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ipmp_agent.linux.messages.links import Link

IFLA_LINK, IFLA_LINK_NETNSID, IFLA_XDP = 5, 37, 43
IFLA_XDP_ATTACHED = 2
IFLA_INFO_DATA, IFLA_VRF_TABLE = 2, 1

CHILD_KINDS = frozenset({"vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec"})
"""Devices that send and receive by the one device that they were made on."""

_TOKENS = (b"vlan", b"vtap", b"macsec")
_LINK_HEADER_BYTES = 16


@frozen
class Device:
    """One device."""

    link: Link
    below: int  # interface index of the device that it was made on; 0: none in this namespace
    has_program: bool  # of XDP
    table: int = 0  # of a VRF: where its routes are

    @property
    def is_child(self) -> bool:
        """Whether it works only as long as the device below works."""
        return self.link.kind in CHILD_KINDS and self.below != 0


def below_child(body: bytes) -> int:
    """The device below, of an RTM_*LINK message about a device of `CHILD_KINDS`; 0: it is about none."""
    if not any(token in body for token in _TOKENS):
        return 0
    device = decode(body)
    return device.below if device.is_child else 0


def decode(body: bytes) -> Device:
    """Read the body of an RTM_NEWLINK message."""
    found = netlink.attributes(body, _LINK_HEADER_BYTES)
    below = 0 if IFLA_LINK_NETNSID in found else netlink.number(found.get(IFLA_LINK, b""))
    program = netlink.attributes(found.get(IFLA_XDP, b""), 0)
    link = links.decode(body)
    return Device(link, below, any(program.get(IFLA_XDP_ATTACHED, b"")), _table(found) if link.kind == "vrf" else 0)


def _table(found: Mapping[int, bytes]) -> int:
    information = netlink.attributes(found.get(links.IFLA_LINKINFO, b""), 0)
    data = netlink.attributes(information.get(IFLA_INFO_DATA, b""), 0)
    return netlink.number(data.get(IFLA_VRF_TABLE, b""))


class Devices:
    """The devices as the kernel last described them; read only when somebody asks."""

    def __init__(self) -> None:
        self._bodies: dict[int, bytes] = {}
        self._read: dict[int, tuple[bytes, Device]] = {}

    def resync(self, bodies: Iterable[bytes]) -> None:
        """Take a dump of all links as the whole truth."""
        self._bodies = {links.index_of(body): body for body in bodies}
        self._read = {index: known for index, known in self._read.items() if index in self._bodies}

    def heard(self, kind: int, body: bytes) -> int:
        """Take one RTM_NEWLINK or RTM_DELLINK message; returns the device below a child that came, went or changed."""
        if links.family_of(body) != 0:
            return 0
        index = links.index_of(body)
        before = self._bodies.pop(index, None)
        if kind == netlink.RTM_NEWLINK:
            self._bodies[index] = body
        else:
            self._read.pop(index, None)
        return below_child(body) if before is None or kind == netlink.RTM_DELLINK else 0

    def all(self) -> list[Device]:
        """Every device, in the order of their indexes."""
        return [self._device(index) for index in sorted(self._bodies)]

    def _device(self, index: int) -> Device:
        body = self._bodies[index]
        known = self._read.get(index)
        if known is None or known[0] is not body:
            self._read[index] = known = body, decode(body)
        return known[1]
