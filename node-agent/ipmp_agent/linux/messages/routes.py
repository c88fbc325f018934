"""Routes and nexthop objects in the kernel: how they are added, deleted and read. Pure functions of bytes."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType
from typing import TYPE_CHECKING

from ipmp_agent.linux.messages import netlink

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ipmp_api.types import Address, Network

RT_TABLE_DEFAULT, RT_TABLE_MAIN = 253, 254
RTPROT_KERNEL = 2
RTN_UNICAST, RTN_LOCAL = 1, 2
RTM_F_CLONED = 0x200
RTNH_F_ONLINK = 4

RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_MULTIPATH = 1, 4, 5, 6, 7, 9
RTA_TABLE, RTA_VIA, RTA_NH_ID = 15, 18, 30
NHA_ID, NHA_GROUP, NHA_GROUP_TYPE, NHA_OIF, NHA_GATEWAY = 1, 2, 3, 5, 6

_ROUTE_MESSAGE = struct.Struct("=BBBBBBBBI")  # family, dst len, src len, tos, table, protocol, scope, type, flags
_NEXTHOP_MESSAGE = struct.Struct("=BBBxI")  # family, scope, protocol, flags
_NEXTHOP_OF_ROUTE = struct.Struct("=HBBi")  # struct rtnexthop: length, flags, hops, interface index
_GROUP_ENTRY = struct.Struct("=IBBH")  # struct nexthop_grp: id, weight - 1, and reserved
ROUTES_PER_TURN = 256
"""Routes worked on before the loop may do something else: about a millisecond."""

_SAME: Mapping[int, int] = MappingProxyType({})
_ADDRESS_BYTES = {socket.AF_INET: 4, socket.AF_INET6: 16}


Prefix = bytes
"""A destination: the packed network address, and one byte of prefix length. A host may have very many of them."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One way out: an interface, and a packed gateway address or none."""

    index: int
    gateway: bytes | None = None


@dataclass(slots=True, eq=False)
class Route:
    """One unicast route of the main table; `body` restores it bit for bit."""

    destination: Prefix
    metric: int
    legs: tuple[Leg, ...]
    source: bytes | None
    protocol: int
    nexthop_id: int
    body: bytes

    @property
    def owned(self) -> bool:
        """Whether this agent put it there."""
        return self.protocol == netlink.OWNER

    @property
    def version(self) -> int:
        """IP version."""
        return version_of(self.destination)


def prefix_of(network: Network) -> Prefix:
    """Turn a network into the short form."""
    return network.network_address.packed + bytes([network.prefixlen])


def version_of(prefix: Prefix) -> int:
    """IP version of a prefix."""
    return 4 if len(prefix) == 5 else 6


def address_of(packed: bytes) -> Address:
    """Turn a packed address into the long form."""
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def is_of_the_link(prefix: Prefix) -> bool:
    """Whether a destination is link-local or multicast: every link has its own."""
    if len(prefix) == 5:
        return prefix[:2] == b"\xa9\xfe" or prefix[0] & 0xF0 == 0xE0
    return (prefix[0] == 0xFE and prefix[1] & 0xC0 == 0x80) or prefix[0] == 0xFF


@dataclass(frozen=True, slots=True)
class Nexthop:
    """One nexthop object: a leg, or a group of others."""

    identifier: int
    protocol: int
    leg: Leg | None
    version: int  # IP version of a leg, 0 of a group
    members: tuple[int, ...] = ()

    @property
    def owned(self) -> bool:
        """Whether this agent put it there."""
        return self.protocol == netlink.OWNER


# -- routes ----------------------------------------------------------------------------------------------------------


def get_request(family: int, table: int = RT_TABLE_MAIN) -> bytes:
    """Body of RTM_GETROUTE: one table."""
    head = _ROUTE_MESSAGE.pack(family, 0, 0, 0, table, 0, 0, 0, 0)
    return head + netlink.u32(RTA_TABLE, table)


def lookup_request(address: Address) -> bytes:
    """Body of RTM_GETROUTE: how the host would reach an address."""
    head = _ROUTE_MESSAGE.pack(netlink.FAMILIES[address.version], 8 * len(address.packed), 0, 0, 0, 0, 0, 0, 0)
    return head + netlink.attribute(RTA_DST, address.packed)


def is_local(answer: bytes) -> bool:
    """Whether a looked up address is one of the host's own."""
    return bool(_ROUTE_MESSAGE.unpack_from(answer)[7] == RTN_LOCAL)


def decode(body: bytes, wanted: int = RT_TABLE_MAIN) -> Route | None:
    """Read the body of an RTM_NEWROUTE or RTM_DELROUTE message; None unless unicast and of the table wanted.

    None as well for what a shadow cannot stand for: source routing, types of service, cached copies.
    """
    family, length, source_length, tos, table, protocol, _, kind, flags = _ROUTE_MESSAGE.unpack_from(body)
    if kind != RTN_UNICAST or source_length or tos or flags & RTM_F_CLONED:
        return None
    size = _ADDRESS_BYTES.get(family)
    found = netlink.attributes(body, _ROUTE_MESSAGE.size)
    if RTA_TABLE in found:
        table = netlink.number(found[RTA_TABLE])
    if table != wanted or size is None:
        return None
    return Route(
        destination=found.get(RTA_DST, bytes(size)) + bytes((length,)),
        metric=netlink.number(found.get(RTA_PRIORITY, b"")),
        legs=_legs(found),
        source=found.get(RTA_PREFSRC),
        protocol=protocol,
        nexthop_id=netlink.number(found.get(RTA_NH_ID, b"")),
        body=body,
    )


class Table:
    """Reads the main table again and again: what did not change since costs next to nothing."""

    def __init__(self) -> None:
        self._known: dict[bytes, Route | None] = {}

    async def read(self, bodies: Iterable[bytes]) -> list[Route]:
        """Read every message of a dump, without holding up the loop for long."""
        now: dict[bytes, Route | None] = {}
        for fresh, body in enumerate(bodies):
            now[body] = self._known[body] if body in self._known else decode(body)
            if fresh % ROUTES_PER_TURN == ROUTES_PER_TURN - 1:
                await asyncio.sleep(0)
        self._known = now
        return [route for route in now.values() if route is not None]


def _legs(found: dict[int, bytes]) -> tuple[Leg, ...]:
    if RTA_MULTIPATH not in found:
        return (Leg(netlink.number(found.get(RTA_OIF, b"")), _gateway(found)),)
    data = found[RTA_MULTIPATH]
    legs = []
    offset = 0
    while offset + _NEXTHOP_OF_ROUTE.size <= len(data):
        length, _, _, index = _NEXTHOP_OF_ROUTE.unpack_from(data, offset)
        if length < _NEXTHOP_OF_ROUTE.size:
            break
        inner = netlink.attributes(data[offset : offset + length], _NEXTHOP_OF_ROUTE.size)
        legs.append(Leg(index, _gateway(inner)))
        offset += (length + 3) & ~3
    return tuple(legs)


def _gateway(found: dict[int, bytes]) -> bytes | None:
    via = found.get(RTA_VIA)
    # RTA_VIA: address family, then an address that may be of another family than the route.
    return via[2:] if via is not None else found.get(RTA_GATEWAY)


def _shadow(
    destination: Prefix, metric: int, nexthop_id: int, source: bytes | None, *, gateway: bool
) -> tuple[bytes, ...]:
    family = socket.AF_INET if len(destination) == 5 else socket.AF_INET6
    # An IPv4 route by a gateway must have a wider scope than the gateway itself.
    scope = netlink.RT_SCOPE_LINK if family == socket.AF_INET and not gateway else netlink.RT_SCOPE_UNIVERSE
    head = _ROUTE_MESSAGE.pack(family, destination[-1], 0, 0, RT_TABLE_MAIN, netlink.OWNER, scope, RTN_UNICAST, 0)
    return (
        head,
        netlink.attribute(RTA_DST, destination[:-1]),
        netlink.u32(RTA_PRIORITY, metric),
        netlink.u32(RTA_NH_ID, nexthop_id),
        netlink.attribute(RTA_PREFSRC, source) if source is not None else b"",
    )


def add_shadow(
    destination: Prefix, metric: int, nexthop_id: int, source: bytes | None, *, gateway: bool, replace: bool = False
) -> bytes:
    """Request that adds a route of ours by a nexthop group; before an IPv4 route of the same metric, if there is one.

    Args:
        destination: where it leads.
        metric: its preference; the kernel turns 0 of an IPv6 route into 1024.
        nexthop_id: of the group.
        source: preferred source address.
        gateway: whether the group's legs have gateways.
        replace: take the place of the first route with this destination and metric.
    """
    flags = netlink.NLM_F_CREATE | (netlink.NLM_F_REPLACE if replace else 0)
    parts = _shadow(destination, metric, nexthop_id, source, gateway=gateway)
    return netlink.message(netlink.RTM_NEWROUTE, flags, *parts)


def delete_shadow(destination: Prefix, metric: int, nexthop_id: int, source: bytes | None, *, gateway: bool) -> bytes:
    """Request that deletes exactly the route that `add_shadow` adds."""
    parts = _shadow(destination, metric, nexthop_id, source, gateway=gateway)
    return netlink.message(netlink.RTM_DELROUTE, 0, *parts)


def add_byway(destination: Prefix, index: int) -> bytes:
    """Request that lays an IPv4 prefix on the link by one interface, in the table `default`.

    The metric is the index: each interface has a route of its own.
    """
    head = _ROUTE_MESSAGE.pack(
        socket.AF_INET, destination[-1], 0, 0, RT_TABLE_DEFAULT, netlink.OWNER, netlink.RT_SCOPE_LINK, RTN_UNICAST, 0
    )
    target = netlink.attribute(RTA_DST, destination[:-1])
    way = netlink.u32(RTA_OIF, index), netlink.u32(RTA_PRIORITY, index)
    return netlink.message(netlink.RTM_NEWROUTE, netlink.NLM_F_CREATE, head, target, *way)


def delete(body: bytes) -> bytes:
    """Request that deletes exactly the route that was read as this."""
    return netlink.message(netlink.RTM_DELROUTE, 0, _clean(body))


def restore(body: bytes, indexes: Mapping[int, int]) -> bytes:
    """Request that puts back a foreign route exactly as it was read, behind ours of the same metric.

    Args:
        body: what was read.
        indexes: interface indexes of now, by those of then.
    """
    flags = netlink.NLM_F_CREATE | netlink.NLM_F_APPEND
    return netlink.message(netlink.RTM_NEWROUTE, flags, _clean(body, indexes))


def prepend(body: bytes) -> bytes:
    """Request that puts a route, exactly as it was read, in front of all of the same metric."""
    return netlink.message(netlink.RTM_NEWROUTE, netlink.NLM_F_CREATE, _clean(body))


def _clean(body: bytes, indexes: Mapping[int, int] = _SAME) -> bytes:
    """A route as a request: without the flags that tell its state, which the kernel refuses to be told."""
    *head, flags = _ROUTE_MESSAGE.unpack_from(body)
    found = netlink.attributes(body, _ROUTE_MESSAGE.size)
    if RTA_NH_ID in found:
        # The nexthop object says how; the kernel tells both and takes only one.
        for kind in (RTA_OIF, RTA_GATEWAY, RTA_VIA, RTA_MULTIPATH):
            found.pop(kind, None)
    if RTA_MULTIPATH in found:
        found[RTA_MULTIPATH] = _clean_multipath(found[RTA_MULTIPATH], indexes)
    if RTA_OIF in found:
        index = netlink.number(found[RTA_OIF])
        found[RTA_OIF] = indexes.get(index, index).to_bytes(4, sys.byteorder)
    attributes = b"".join(netlink.attribute(kind, payload) for kind, payload in found.items())
    return _ROUTE_MESSAGE.pack(*head, flags & RTNH_F_ONLINK) + attributes


def _clean_multipath(data: bytes, indexes: Mapping[int, int]) -> bytes:
    cleaned = bytearray(data)
    offset = 0
    while offset + _NEXTHOP_OF_ROUTE.size <= len(cleaned):
        length, flags, hops, index = _NEXTHOP_OF_ROUTE.unpack_from(cleaned, offset)
        if length < _NEXTHOP_OF_ROUTE.size:
            break
        _NEXTHOP_OF_ROUTE.pack_into(cleaned, offset, length, flags & RTNH_F_ONLINK, hops, indexes.get(index, index))
        offset += (length + 3) & ~3
    return bytes(cleaned)


# -- nexthop objects -------------------------------------------------------------------------------------------------


def get_nexthops_request() -> bytes:
    """Body of RTM_GETNEXTHOP: all objects."""
    return _NEXTHOP_MESSAGE.pack(socket.AF_UNSPEC, 0, 0, 0)


def decode_nexthop(body: bytes) -> Nexthop:
    """Read the body of an RTM_NEWNEXTHOP or RTM_DELNEXTHOP message."""
    family, _, protocol, _ = _NEXTHOP_MESSAGE.unpack_from(body)
    found = netlink.attributes(body, _NEXTHOP_MESSAGE.size)
    identifier = netlink.number(found.get(NHA_ID, b""))
    if NHA_GROUP in found:
        members = tuple(entry[0] for entry in _GROUP_ENTRY.iter_unpack(found[NHA_GROUP]))
        return Nexthop(identifier, protocol, None, 0, members)
    leg = Leg(netlink.number(found.get(NHA_OIF, b"")), found.get(NHA_GATEWAY))
    version = next((version for version, number in netlink.FAMILIES.items() if number == family), 0)
    return Nexthop(identifier, protocol, leg, version)


def add_leg(identifier: int, leg: Leg, version: int) -> bytes:
    """Request that makes, or makes again, the nexthop object of a leg. Refused while the interface has no carrier.

    An IPv4 gateway is taken to be on the link. An IPv6 gateway must be known to be: after the route to its prefix.
    """
    gateway = netlink.attribute(NHA_GATEWAY, leg.gateway) if leg.gateway is not None else b""
    flags = RTNH_F_ONLINK if leg.gateway is not None and len(leg.gateway) == 4 else 0
    head = _NEXTHOP_MESSAGE.pack(netlink.FAMILIES[version], 0, netlink.OWNER, flags)
    return netlink.message(
        netlink.RTM_NEWNEXTHOP,
        netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE,
        head,
        netlink.u32(NHA_ID, identifier),
        netlink.u32(NHA_OIF, leg.index),
        gateway,
    )


def set_group(identifier: int, members: Sequence[int]) -> bytes:
    """Request that makes a nexthop group, or gives it these members, in one step for all routes that use it."""
    head = _NEXTHOP_MESSAGE.pack(socket.AF_UNSPEC, 0, netlink.OWNER, 0)
    entries = b"".join(_GROUP_ENTRY.pack(member, 0, 0, 0) for member in members)
    return netlink.message(
        netlink.RTM_NEWNEXTHOP,
        netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE,
        head,
        netlink.u32(NHA_ID, identifier),
        netlink.attribute(NHA_GROUP, entries),
    )


def delete_nexthop(identifier: int) -> bytes:
    """Request that deletes a nexthop object; the kernel takes routes by it along."""
    head = _NEXTHOP_MESSAGE.pack(socket.AF_UNSPEC, 0, 0, 0)
    return netlink.message(netlink.RTM_DELNEXTHOP, 0, head, netlink.u32(NHA_ID, identifier))
