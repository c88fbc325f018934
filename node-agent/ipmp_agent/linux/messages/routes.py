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
from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ipmp_api.types import Address, Network

RT_TABLE_DEFAULT, RT_TABLE_MAIN, RT_TABLE_LOCAL = 253, 254, 255
RTPROT_KERNEL, RTPROT_BOOT, RTPROT_STATIC, RTPROT_RA, RTPROT_DHCP = 2, 3, 4, 9, 16
RTN_UNICAST, RTN_LOCAL = 1, 2
RT_SCOPE_NOWHERE = 255
RTM_F_CLONED = 0x200
RTNH_F_ONLINK = 4

RTA_DST, RTA_SRC, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS, RTA_MULTIPATH = 1, 2, 4, 5, 6, 7, 8, 9
RTA_FLOW, RTA_CACHEINFO, RTA_TABLE, RTA_VIA, RTA_PREF = 11, 12, 15, 18, 20
RTA_ENCAP_TYPE, RTA_ENCAP, RTA_EXPIRES, RTA_NH_ID = 21, 22, 23, 30
NHA_ID, NHA_GROUP, NHA_GROUP_TYPE, NHA_OIF, NHA_GATEWAY = 1, 2, 3, 5, 6

TWINS = netlink.OWNER
"""Our table beside `main`; one beside another table of the host is OTHER_TWINS more than that."""
OTHER_TWINS = 730_000_000
TABLES_MAXIMUM = 100_000_000
"""Tables of the host from this number on get no twins."""

_ROUTE_MESSAGE = struct.Struct("=BBBBBBBBI")  # family, dst len, src len, tos, table, protocol, scope, type, flags
_NEXTHOP_MESSAGE = struct.Struct("=BBBxI")  # family, scope, protocol, flags
_NEXTHOP_OF_ROUTE = struct.Struct("=HBBi")  # struct rtnexthop: length, flags, hops, interface index
_GROUP_ENTRY = struct.Struct("=IBBH")  # struct nexthop_grp: id, weight - 1, and reserved
_CACHE_INFORMATION = struct.Struct("=IIi")  # struct rta_cacheinfo begins: references, last use, expires
_TICKS = 100
"""Kernel ticks of a lifetime in a second: USER_HZ."""
ROUTES_PER_TURN = 256
"""Routes worked on before the loop may do something else: about a millisecond."""

_SAME: Mapping[int, int] = MappingProxyType({})
_ADDRESS_BYTES = {socket.AF_INET: 4, socket.AF_INET6: 16}
_OF_THE_ROUTE = (RTA_METRICS, RTA_PREF)  # what a twin has from its route, whichever way it leaves
_OF_THE_LEG = (RTA_FLOW, RTA_ENCAP_TYPE, RTA_ENCAP)
_PREFERENCES = {1: 2, 0: 1, 3: 0}  # RTA_PREF of RFC 4191: high, medium, low


Prefix = bytes
"""A destination: the packed network address, and one byte of prefix length. A host may have very many of them."""


@frozen
class Leg:
    """One way out: an interface, and a packed gateway address or none."""

    index: int
    gateway: bytes | None = None
    weight: int = 1
    details: bytes = b""  # attributes of this leg alone, packed: encapsulation, realm


@dataclass(slots=True, eq=False)
class Route:
    """One unicast route; `body` restores it bit for bit, but for a lifetime."""

    destination: Prefix
    metric: int
    legs: tuple[Leg, ...]
    source: bytes | None
    protocol: int
    nexthop_id: int
    body: bytes
    table: int = RT_TABLE_MAIN
    details: bytes = b""  # attributes that a twin has, too, packed: metrics such as the MTU, router preference
    preference: int = 1  # among IPv6 routes of one metric the greatest is taken
    expires: float | None = None  # seconds it still lives; None: for ever

    @property
    def owned(self) -> bool:
        """Whether this agent put it there."""
        return self.protocol == netlink.OWNER

    @property
    def version(self) -> int:
        """IP version."""
        return version_of(self.destination)


@frozen
class ParticularRoute:
    """A unicast route for some packets only."""

    route: Route
    type_of_service: int  # 0: of any
    source: str  # the prefix that they come from, of IPv6; empty: any


def prefix_of(network: Network) -> Prefix:
    """Turn a network into the short form."""
    return network.network_address.packed + bytes([network.prefixlen])


def text_of(prefix: Prefix) -> str:
    """Turn a prefix into what `ip` prints."""
    return f"{address_of(prefix[:-1])}/{prefix[-1]}"


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


@frozen
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


def get_request(family: int, table: int = 0) -> bytes:
    """Body of RTM_GETROUTE: one table, or all."""
    head = _ROUTE_MESSAGE.pack(family, 0, 0, 0, min(table, 255), 0, 0, 0, 0)
    return head + netlink.u32(RTA_TABLE, table) if table else head


def table_of_twins(table: int) -> int:
    """Our table beside one of the host."""
    return TWINS if table == RT_TABLE_MAIN else OTHER_TWINS + table


def table_of_host(table: int) -> int:
    """The host's table that one of ours stands beside."""
    return RT_TABLE_MAIN if table == TWINS else table - OTHER_TWINS


def is_table_of_twins(table: int) -> bool:
    """Whether a table is one of ours."""
    return table == TWINS or OTHER_TWINS <= table < OTHER_TWINS + TABLES_MAXIMUM


def lookup_request(address: Address) -> bytes:
    """Body of RTM_GETROUTE: how the host would reach an address."""
    head = _ROUTE_MESSAGE.pack(netlink.FAMILIES[address.version], 8 * len(address.packed), 0, 0, 0, 0, 0, 0, 0)
    return head + netlink.attribute(RTA_DST, address.packed)


def is_local(answer: bytes) -> bool:
    """Whether a looked up address is one of the host's own."""
    return bool(_ROUTE_MESSAGE.unpack_from(answer)[7] == RTN_LOCAL)


def decode(body: bytes) -> Route | None:
    """Read the body of an RTM_NEWROUTE or RTM_DELROUTE message; None unless unicast, of any table.

    None as well for what a twin cannot stand for: source routing, types of service, cached copies.
    """
    _, _, source_length, tos, _, _, _, kind, flags = _ROUTE_MESSAGE.unpack_from(body)
    return None if kind != RTN_UNICAST or source_length or tos or flags & RTM_F_CLONED else _decode(body)


def decode_particular(body: bytes) -> ParticularRoute | None:
    """Read the body of an RTM_NEWROUTE message about a unicast route for some packets only; None: it is about none."""
    _, _, source_length, tos, _, _, _, kind, flags = _ROUTE_MESSAGE.unpack_from(body)
    route = None
    if kind == RTN_UNICAST and (source_length or tos) and not flags & RTM_F_CLONED:
        route = _decode(body)
    if route is None:
        return None
    source = netlink.attributes(body, _ROUTE_MESSAGE.size).get(RTA_SRC)
    prefix = f"{address_of(source)}/{source_length}" if source_length and source is not None else ""
    return ParticularRoute(route, tos, prefix)


def _decode(body: bytes) -> Route | None:
    family, length, _, _, table, protocol, _, _, _ = _ROUTE_MESSAGE.unpack_from(body)
    size = _ADDRESS_BYTES.get(family)
    if size is None:
        return None
    found = netlink.attributes(body, _ROUTE_MESSAGE.size)
    how = tuple(found.get(kind, b"") for kind in _HOW)
    if how not in _legs_known:
        if len(_legs_known) >= WAYS_KNOWN:
            _legs_known.clear()
        _legs_known[how] = _legs(found)
    lifetime = _CACHE_INFORMATION.unpack_from(found[RTA_CACHEINFO])[2] if RTA_CACHEINFO in found else 0
    return Route(
        destination=found.get(RTA_DST, bytes(size)) + bytes((length,)),
        metric=netlink.number(found.get(RTA_PRIORITY, b"")),
        legs=_legs_known[how],
        source=found.get(RTA_PREFSRC),
        protocol=protocol,
        nexthop_id=netlink.number(found.get(RTA_NH_ID, b"")),
        body=body,
        table=netlink.number(found[RTA_TABLE]) if RTA_TABLE in found else table,
        details=_pack(found, _OF_THE_ROUTE),
        preference=_PREFERENCES.get(netlink.number(found.get(RTA_PREF, b"")), 1),
        expires=lifetime / _TICKS if lifetime else None,
    )


_HOW = (RTA_OIF, RTA_GATEWAY, RTA_VIA, RTA_MULTIPATH, *_OF_THE_LEG)
_legs_known: dict[tuple[bytes, ...], tuple[Leg, ...]] = {}  # very many routes leave by very few ways
WAYS_KNOWN = 4096
"""Ways of leaving that are kept to be shared by the routes that leave so."""


class RouteTable:
    """Reads routes again and again: what did not change since costs next to nothing."""

    def __init__(self) -> None:
        self._known: dict[bytes, Route | None] = {}
        self.particular: tuple[ParticularRoute, ...] = ()
        """Those for some packets only, when the table was read last."""

    async def read(self, bodies: Iterable[bytes]) -> list[Route]:
        """Read every message of a dump, without holding up the loop for long."""
        now: dict[bytes, Route | None] = {}
        particular: list[ParticularRoute] = []
        found: list[Route] = []
        for fresh, body in enumerate(bodies):
            if body not in now:
                route = now[body] = self._known[body] if body in self._known else decode(body)
                if route is not None:
                    found.append(route)
                elif (some := decode_particular(body)) is not None:
                    particular.append(some)
            if fresh % ROUTES_PER_TURN == ROUTES_PER_TURN - 1:
                await asyncio.sleep(0)
        self._known, self.particular = now, tuple(particular)
        return found


def _pack(found: dict[int, bytes], kinds: Iterable[int]) -> bytes:
    return b"".join(netlink.attribute(kind, found[kind]) for kind in kinds if kind in found)


def _legs(found: dict[int, bytes]) -> tuple[Leg, ...]:
    if RTA_MULTIPATH not in found:
        return (Leg(netlink.number(found.get(RTA_OIF, b"")), _gateway(found), details=_pack(found, _OF_THE_LEG)),)
    data = found[RTA_MULTIPATH]
    legs = []
    offset = 0
    while offset + _NEXTHOP_OF_ROUTE.size <= len(data):
        length, _, hops, index = _NEXTHOP_OF_ROUTE.unpack_from(data, offset)
        if length < _NEXTHOP_OF_ROUTE.size:
            break
        inner = netlink.attributes(data[offset : offset + length], _NEXTHOP_OF_ROUTE.size)
        legs.append(Leg(index, _gateway(inner), hops + 1, _pack(inner, _OF_THE_LEG)))
        offset += (length + 3) & ~3
    return tuple(legs)


def _gateway(found: dict[int, bytes]) -> bytes | None:
    via = found.get(RTA_VIA)
    # RTA_VIA: address family, then an address that may be of another family than the route.
    return via[2:] if via is not None else found.get(RTA_GATEWAY)


def pack_legs(version: int, legs: Sequence[Leg]) -> bytes:
    """The attribute that makes a route leave by these legs; IPv6 takes none here without a gateway.

    An IPv4 gateway is taken to be on the link. An IPv6 gateway must be known to be: after the route to its prefix.
    """
    return netlink.attribute(RTA_MULTIPATH, b"".join(_leg(version, leg) for leg in legs))


def _leg(version: int, leg: Leg) -> bytes:
    inner = leg.details
    flags = 0
    if leg.gateway is not None and len(leg.gateway) == (4 if version == 4 else 16):
        inner = netlink.attribute(RTA_GATEWAY, leg.gateway) + inner
        flags = RTNH_F_ONLINK if version == 4 else 0
    elif leg.gateway is not None:
        family = netlink.FAMILIES[4 if len(leg.gateway) == 4 else 6]
        inner = netlink.attribute(RTA_VIA, family.to_bytes(2, sys.byteorder) + leg.gateway) + inner
    return _NEXTHOP_OF_ROUTE.pack(_NEXTHOP_OF_ROUTE.size + len(inner), flags, leg.weight - 1, leg.index) + inner


def lay_twin(
    table: int,
    destination: Prefix,
    metric: int,
    way: bytes,
    source: bytes | None,
    *,
    gateway: bool = True,
    details: bytes = b"",
) -> bytes:
    """Request that lays a route of ours, or gives the one of this destination and metric another way, in one step.

    Args:
        table: one of ours.
        destination: where it leads.
        metric: its preference; the kernel turns 0 of an IPv6 route into 1024.
        way: packed by `pack_legs`, or by `by_nexthop`.
        source: preferred source address.
        gateway: whether its legs have gateways.
        details: as its route has them.
    """
    family = socket.AF_INET if len(destination) == 5 else socket.AF_INET6
    # An IPv4 route by a gateway must have a wider scope than the gateway itself.
    scope = netlink.RT_SCOPE_LINK if family == socket.AF_INET and not gateway else netlink.RT_SCOPE_UNIVERSE
    return netlink.message(
        netlink.RTM_NEWROUTE,
        netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE,
        _ROUTE_MESSAGE.pack(family, destination[-1], 0, 0, min(table, 252), netlink.OWNER, scope, RTN_UNICAST, 0),
        netlink.attribute(RTA_DST, destination[:-1]),
        netlink.u32(RTA_PRIORITY, metric),
        netlink.u32(RTA_TABLE, table),
        netlink.attribute(RTA_PREFSRC, source) if source is not None else b"",
        details,
        way,
    )


def lay_from_twin(table: int, twin: Route, leg: Leg) -> bytes:
    """Request that lays a route of the host as its twin tells it, by one leg; refused where it is there already.

    Args:
        table: the host's.
        twin: of ours; it does not tell the protocol of its route, which becomes static.
        leg: one of the twin's.
    """
    family = netlink.FAMILIES[twin.version]
    scope = netlink.RT_SCOPE_LINK if twin.version == 4 and leg.gateway is None else netlink.RT_SCOPE_UNIVERSE
    length = twin.destination[-1]
    return netlink.message(
        netlink.RTM_NEWROUTE,
        netlink.NLM_F_CREATE | netlink.NLM_F_EXCL,
        _ROUTE_MESSAGE.pack(family, length, 0, 0, min(table, 252), RTPROT_STATIC, scope, RTN_UNICAST, 0),
        netlink.attribute(RTA_DST, twin.destination[:-1]),
        netlink.u32(RTA_PRIORITY, twin.metric),
        netlink.u32(RTA_TABLE, table),
        netlink.attribute(RTA_PREFSRC, twin.source) if twin.source is not None else b"",
        twin.details,
        pack_legs(twin.version, [leg]),
    )


def delete_twin(table: int, destination: Prefix, metric: int) -> bytes:
    """Request that deletes the route of ours with this destination and metric."""
    family = socket.AF_INET if len(destination) == 5 else socket.AF_INET6
    return netlink.message(
        netlink.RTM_DELROUTE,
        0,
        _ROUTE_MESSAGE.pack(family, destination[-1], 0, 0, min(table, 252), netlink.OWNER, RT_SCOPE_NOWHERE, 0, 0),
        netlink.attribute(RTA_DST, destination[:-1]),
        netlink.u32(RTA_PRIORITY, metric),
        netlink.u32(RTA_TABLE, table),
    )


def by_nexthop(identifier: int) -> bytes:
    """The attribute that makes a route leave by a nexthop object."""
    return netlink.u32(RTA_NH_ID, identifier)


def delete(body: bytes) -> bytes:
    """Request that deletes exactly the route that was read as this."""
    return netlink.message(netlink.RTM_DELROUTE, 0, _clean(body))


def restore(body: bytes, indexes: Mapping[int, int], lifetime: float | None = None) -> bytes:
    """Request that puts back a foreign route exactly as it was read, behind those of the same metric.

    Args:
        body: what was read.
        indexes: interface indexes of now, by those of then.
        lifetime: seconds that it still lives; None: for ever.
    """
    flags = netlink.NLM_F_CREATE | netlink.NLM_F_APPEND
    expires = netlink.u32(RTA_EXPIRES, max(1, int(lifetime))) if lifetime is not None else b""
    return netlink.message(netlink.RTM_NEWROUTE, flags, _clean(body, indexes), expires)


def prepend(body: bytes) -> bytes:
    """Request that puts a route, exactly as it was read, in front of all of the same metric."""
    return netlink.message(netlink.RTM_NEWROUTE, netlink.NLM_F_CREATE, _clean(body))


def _clean(body: bytes, indexes: Mapping[int, int] = _SAME) -> bytes:
    """A route as a request: without the flags that tell its state, which the kernel refuses to be told."""
    *head, flags = _ROUTE_MESSAGE.unpack_from(body)
    found = netlink.attributes(body, _ROUTE_MESSAGE.size)
    found.pop(RTA_CACHEINFO, None)
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
