"""Addresses in the kernel: how they are added, deleted and read, and which of them may be data addresses."""

from __future__ import annotations

import asyncio
import socket
import struct
from ipaddress import IPv4Interface, IPv6Interface
from typing import TYPE_CHECKING

from ipmp_agent.linux.messages import netlink
from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipmp_api.types import InterfaceAddress

IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_CACHEINFO, IFA_FLAGS, IFA_RT_PRIORITY, IFA_PROTO = 1, 2, 3, 6, 8, 9, 11
IFA_F_NODAD, IFA_F_DADFAILED, IFA_F_TENTATIVE, IFA_F_PERMANENT = 0x02, 0x08, 0x40, 0x80
IFA_F_SECONDARY = 0x01  # of IPv4
IFA_F_TEMPORARY, IFA_F_MANAGETEMPADDR, IFA_F_NOPREFIXROUTE = 0x01, 0x100, 0x200
IFAPROT_KERNEL_RA, IFAPROT_KERNEL_LL, IFAPROT_KEEPALIVED = 2, 3, 18

_ADDRESS_MESSAGE = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
BORROWED = netlink.OWNER + 1
"""Protocol of an adopted address away from its home: an agent never deletes one whose home it does not know."""

ADDRESSES_PER_TURN = 256
"""Addresses read before the loop may do something else: a few milliseconds."""

_OWNED = netlink.attribute(IFA_PROTO, bytes([netlink.OWNER]))
_BORROWED = netlink.attribute(IFA_PROTO, bytes([BORROWED]))
# NODAD: the previous member may still have the address when it is added on the next, and duplicate detection would take
# that for another host.
_FLAGS = {4: 0, 6: IFA_F_NODAD}


@frozen
class InstalledAddress:
    """One address on one interface, as the kernel has it; `body` restores it bit for bit."""

    index: int
    address: InterfaceAddress
    scope: int
    flags: int
    protocol: int
    body: bytes

    @property
    def owned(self) -> bool:
        """Whether this agent put it there, and it is the host's in no way."""
        return self.protocol == netlink.OWNER

    @property
    def borrowed(self) -> bool:
        """Whether this agent put it there, and the host had it elsewhere."""
        return self.protocol == BORROWED

    @property
    def has_peer(self) -> bool:
        """Whether it is one end of a point-to-point link."""
        found = netlink.attributes(self.body, _ADDRESS_MESSAGE.size)
        return IFA_LOCAL in found and found.get(IFA_ADDRESS, found[IFA_LOCAL]) != found[IFA_LOCAL]

    @property
    def label(self) -> str:
        """The label of an IPv4 address; empty for IPv6, which has none."""
        found = netlink.attributes(self.body, _ADDRESS_MESSAGE.size).get(IFA_LABEL, b"")
        return found.partition(b"\0")[0].decode(errors="replace")

    @property
    def duplicate(self) -> bool:
        """Found to be another host's by the kernel's duplicate detection."""
        return bool(self.flags & IFA_F_DADFAILED)

    @property
    def usable(self) -> bool:
        """Neither tentative nor found to be a duplicate."""
        return not self.flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)

    @property
    def secondary(self) -> bool:
        """Whether an IPv4 address came into the prefix of another one of its interface."""
        return self.address.version == 4 and bool(self.flags & IFA_F_SECONDARY)

    @property
    def leased(self) -> bool:
        """Given for a time by DHCP or a router: its owner would put it back where it was."""
        return self.by_router or not self.flags & IFA_F_PERMANENT

    @property
    def by_router(self) -> bool:
        """Made from a router advertisement. For IPv4 the kernel calls a secondary address what is temporary here."""
        derived = self.flags & (IFA_F_TEMPORARY | IFA_F_MANAGETEMPADDR)
        return self.address.version == 6 and (self.protocol == IFAPROT_KERNEL_RA or bool(derived))


def add(index: int, address: InterfaceAddress, *, scope: int = netlink.RT_SCOPE_UNIVERSE) -> bytes:
    """Request that puts an address of ours on an interface; one that is there already is taken over.

    It brings no connected route: those are ours to lay.
    """
    return _add(index, address, scope, IFA_F_NOPREFIXROUTE, _OWNED)


def lend(index: int, address: InterfaceAddress, body: bytes) -> bytes:
    """Request that puts an address of the host on another interface than its home.

    It brings its connected route along, of the same metric, if it has one at home: routing daemons go by it.

    Args:
        index: of the interface.
        address: what is laid.
        body: what it is at home, as it was read.
    """
    found = netlink.attributes(body, _ADDRESS_MESSAGE.size)
    flags = netlink.number(found[IFA_FLAGS]) if IFA_FLAGS in found else 0
    if address.version == 6:  # the kernel leaves the route there while another address of the prefix is
        flags = IFA_F_NOPREFIXROUTE
    metric = netlink.attribute(IFA_RT_PRIORITY, found[IFA_RT_PRIORITY]) if IFA_RT_PRIORITY in found else b""
    return _add(index, address, netlink.RT_SCOPE_UNIVERSE, flags & IFA_F_NOPREFIXROUTE, metric + _BORROWED)


def _add(index: int, address: InterfaceAddress, scope: int, flags: int, more: bytes) -> bytes:
    packed = address.packed
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    head = _ADDRESS_MESSAGE.pack(family, address.network.prefixlen, 0, scope, index)
    local, same = netlink.attribute(IFA_LOCAL, packed), netlink.attribute(IFA_ADDRESS, packed)
    kept = netlink.u32(IFA_FLAGS, flags | _FLAGS[address.version])
    return netlink.message(
        netlink.RTM_NEWADDR, netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE, head, local, same, kept, more
    )


def delete(index: int, address: InterfaceAddress) -> bytes:
    """Request that takes an address off an interface."""
    packed = address.packed
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    head = _ADDRESS_MESSAGE.pack(family, address.network.prefixlen, 0, 0, index)
    local, same = netlink.attribute(IFA_LOCAL, packed), netlink.attribute(IFA_ADDRESS, packed)
    return netlink.message(netlink.RTM_DELADDR, 0, head, local, same)


def plain(each: InstalledAddress) -> bytes:
    """What `restore` makes a static address of, as `ip address add` would."""
    family, prefix_length, _, scope, index = _ADDRESS_MESSAGE.unpack_from(each.body)
    packed = each.address.packed
    head = _ADDRESS_MESSAGE.pack(family, prefix_length, 0, scope, index)
    return head + netlink.attribute(IFA_LOCAL, packed) + netlink.attribute(IFA_ADDRESS, packed)


def restore(index: int, body: bytes, label: str | None = None) -> list[bytes]:
    """Requests that put back a foreign address exactly as it was read: lifetimes, label, connected route and all.

    An IPv6 address comes without duplicate detection, which would find the member that has it still, and only then
    gets its own flags.

    Args:
        index: of the interface.
        body: what was read.
        label: instead of the one that was read, which may name another interface.
    """
    # Of a repeated attribute the kernel takes the last.
    if label is not None and body[0] == socket.AF_INET:
        body += netlink.attribute(IFA_LABEL, label.encode() + b"\0")
    family, prefix_length, flags, scope, _ = _ADDRESS_MESSAGE.unpack_from(body)
    replace = netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE
    head = _ADDRESS_MESSAGE.pack(family, prefix_length, flags, scope, index)
    exact = netlink.message(netlink.RTM_NEWADDR, replace, head, body[_ADDRESS_MESSAGE.size :])
    if family == socket.AF_INET:
        return [exact]
    found = netlink.attributes(body, _ADDRESS_MESSAGE.size)
    kept = netlink.number(found[IFA_FLAGS]) if IFA_FLAGS in found else flags
    at_once = netlink.u32(IFA_FLAGS, kept | IFA_F_NODAD)
    return [netlink.message(netlink.RTM_NEWADDR, replace, head, body[_ADDRESS_MESSAGE.size :], at_once), exact]


def get_request(index: int = 0, family: int = socket.AF_UNSPEC) -> bytes:
    """Body of RTM_GETADDR: the addresses of one interface, or all."""
    return _ADDRESS_MESSAGE.pack(family, 0, 0, 0, index)


def index_of(body: bytes) -> int:
    """Interface index in the body of an RTM_*ADDR message."""
    return int(_ADDRESS_MESSAGE.unpack_from(body)[4])


def decode(body: bytes) -> InstalledAddress | None:
    """Read the body of an RTM_NEWADDR or RTM_DELADDR message; None for families that are not IP."""
    family, prefix_length, flags, scope, index = _ADDRESS_MESSAGE.unpack_from(body)
    found = netlink.attributes(body, _ADDRESS_MESSAGE.size)
    packed = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS)
    if packed is None or family not in (socket.AF_INET, socket.AF_INET6):
        return None
    if IFA_FLAGS in found:
        flags = netlink.number(found[IFA_FLAGS])
    address: InterfaceAddress
    if family == socket.AF_INET:
        address = IPv4Interface((packed, prefix_length))
    else:
        address = IPv6Interface((packed, prefix_length))
    protocol = found.get(IFA_PROTO, b"\0")[0]
    return InstalledAddress(index, address, scope, flags, protocol, body)


class AddressTable:
    """Reads the addresses of interfaces, and again only those messages that were not in the dump before."""

    def __init__(self) -> None:
        self._known: dict[int, dict[bytes, InstalledAddress | None]] = {}

    async def read(self, index: int, bodies: Iterable[bytes]) -> list[InstalledAddress]:
        """Read every message of a dump of one interface, without holding up the loop for long."""
        known = self._known.get(index, {})
        now: dict[bytes, InstalledAddress | None] = {}
        for number, body in enumerate(bodies, 1):
            now[body] = known[body] if body in known else decode(body)
            if number % ADDRESSES_PER_TURN == 0:
                await asyncio.sleep(0)
        if now:
            self._known[index] = now
        else:
            self._known.pop(index, None)
        return [found for found in now.values() if found is not None]
