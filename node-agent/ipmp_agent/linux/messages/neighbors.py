"""The kernel's neighbour entries: who is where on a link."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING

from ipmp_agent.linux.messages import netlink
from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from ipmp_api.types import Address

NUD_INCOMPLETE, NUD_REACHABLE, NUD_STALE, NUD_DELAY = 0x01, 0x02, 0x04, 0x08
NUD_PROBE, NUD_FAILED, NUD_NOARP, NUD_PERMANENT = 0x10, 0x20, 0x40, 0x80
NTF_USE, NTF_PROXY, NTF_ROUTER = 0x01, 0x08, 0x80
NDA_DST, NDA_LLADDR, NDA_CACHEINFO, NDA_IFINDEX = 1, 2, 3, 8

NUD_ANSWERED = NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_NOARP | NUD_PERMANENT
"""States of an entry that is used: the neighbour answered, and is not known to be gone."""

_KNOWN = NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # address family, interface index, state, flags, type
_CACHE_INFO = struct.Struct("=III")  # hundredths of a second since confirmed, used, updated
_ETHERNET_BYTES = 6


@frozen
class NeighborEntry:
    """One neighbour whose MAC address is known."""

    address: Address
    mac: bytes
    state: int  # NUD_*
    confirmed: float  # seconds ago

    @property
    def permanent(self) -> bool:
        """Whether somebody laid it by hand."""
        return bool(self.state & NUD_PERMANENT)


def get_request(version: int, index: int) -> bytes:
    """Body of RTM_GETNEIGH: the neighbours of one IP version on one interface."""
    return _NEIGHBOUR.pack(netlink.FAMILIES[version], 0, 0, 0, 0) + netlink.u32(NDA_IFINDEX, index)


def proxies_request(version: int) -> bytes:
    """Body of RTM_GETNEIGH: the addresses of one IP version that this host answers for by entries."""
    return _NEIGHBOUR.pack(netlink.FAMILIES[version], 0, 0, NTF_PROXY, 0)


def decode_proxy(body: bytes) -> tuple[int, Address] | None:
    """Read the body of an RTM_NEWNEIGH message: interface index and address of a proxy entry; None: it is none."""
    _, index, _, flags, _ = _NEIGHBOUR.unpack_from(body)
    packed = netlink.attributes(body, _NEIGHBOUR.size).get(NDA_DST, b"")
    return (index, ip_address(packed)) if flags & NTF_PROXY and len(packed) in (4, 16) else None


def find_request(index: int, address: Address) -> bytes:
    """Body of RTM_GETNEIGH: one neighbour."""
    return _NEIGHBOUR.pack(netlink.FAMILIES[address.version], index, 0, 0, 0) + netlink.attribute(
        NDA_DST, address.packed
    )


def renew(index: int, address: Address, mac: bytes) -> bytes:
    """Say where a neighbour is that the kernel has an entry for; without one it is refused (ENOENT)."""
    body = _NEIGHBOUR.pack(netlink.FAMILIES[address.version], index, NUD_REACHABLE, 0, 0)
    attributes = netlink.attribute(NDA_DST, address.packed) + netlink.attribute(NDA_LLADDR, mac)
    return netlink.message(netlink.RTM_NEWNEIGH, netlink.NLM_F_REPLACE, body, attributes)


def resolve(index: int, address: Address) -> bytes:
    """Have the kernel ask for a neighbour, as if somebody sent something to it."""
    body = _NEIGHBOUR.pack(netlink.FAMILIES[address.version], index, 0, NTF_USE, 0)
    return netlink.message(netlink.RTM_NEWNEIGH, netlink.NLM_F_CREATE, body, netlink.attribute(NDA_DST, address.packed))


def confirm(entry: bytes) -> bytes:
    """Have the kernel ask a neighbour whether it is there still; the entry is used meanwhile.

    Args:
        entry: body of the RTM_NEWNEIGH message that tells it.
    """
    family, index, _, flags, _ = _NEIGHBOUR.unpack_from(entry)
    found = netlink.attributes(entry, _NEIGHBOUR.size)
    body = _NEIGHBOUR.pack(family, index, NUD_PROBE, flags & NTF_ROUTER, 0)
    attributes = [netlink.attribute(kind, found[kind]) for kind in (NDA_DST, NDA_LLADDR) if kind in found]
    return netlink.message(netlink.RTM_NEWNEIGH, 0, body, *attributes)


def state_of(body: bytes) -> int:
    """The state (NUD_*) in the body of an RTM_NEWNEIGH message."""
    return int(_NEIGHBOUR.unpack_from(body)[2])


def decode(body: bytes) -> NeighborEntry | None:
    """Read the body of an RTM_NEWNEIGH message; None unless it tells an Ethernet address that was heard once."""
    _, _, state, _, _ = _NEIGHBOUR.unpack_from(body)
    if not state & _KNOWN:
        return None
    found = netlink.attributes(body, _NEIGHBOUR.size)
    mac, packed, info = found.get(NDA_LLADDR, b""), found.get(NDA_DST, b""), found.get(NDA_CACHEINFO, b"")
    if len(mac) != _ETHERNET_BYTES or len(packed) not in (4, 16) or len(info) < _CACHE_INFO.size:
        return None
    confirmed, _, _ = _CACHE_INFO.unpack_from(info)
    return NeighborEntry(ip_address(packed), mac, state, confirmed / 100)
