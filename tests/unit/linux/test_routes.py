"""Routes and nexthops as bytes, legs and shadows as decisions."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import pytest

from ipmp_agent.linux.group.foreign_routes import _foreign, _out_of_order
from ipmp_agent.linux.group.legs import Legs, Way
from ipmp_agent.linux.group.shadows import _preferred
from ipmp_agent.linux.messages import netlink, routes
from ipmp_agent.linux.messages.routes import Leg, Nexthop, Route
from ipmp_agent.linux.shared.identifiers import FIRST_IDENTIFIER, Identifiers

GATEWAY = IPv4Address("198.18.0.1").packed
OTHER_GATEWAY = IPv4Address("198.18.0.2").packed
LINK_LOCAL = IPv6Address("fe80::1").packed


def body(request: bytes) -> bytes:
    (message,) = netlink.messages(request)
    return message.body


def kind(request: bytes) -> int:
    (message,) = netlink.messages(request)
    return message.kind


# -- bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", ["0.0.0.0/0", "198.18.0.0/24", "2001:db8::/48", "::/0"])
@pytest.mark.parametrize("gateway", [True, False])
def test_a_shadow_reads_back(net: str, *, gateway: bool) -> None:
    destination = routes.prefix_of(ip_network(net))
    source = (ip_network(net).network_address + 5).packed
    read = routes.decode(body(routes.add_shadow(destination, 99, 1234, source, gateway=gateway)))
    assert read is not None
    assert (read.destination, read.metric, read.nexthop_id, read.source) == (destination, 99, 1234, source)
    assert read.owned
    assert routes.version_of(destination) == ip_network(net).version


def test_the_deletion_of_a_shadow_names_exactly_what_was_added() -> None:
    args = (routes.prefix_of(ip_network("198.18.0.0/24")), 0, 77, GATEWAY)
    assert body(routes.add_shadow(*args, gateway=False)) == body(routes.delete_shadow(*args, gateway=False))


def raw(*attributes: bytes, flags: int = 0, **head: int) -> bytes:
    fields = {
        "family": 2,
        "length": 24,
        "source": 0,
        "tos": 0,
        "table": 254,
        "protocol": 3,
        "scope": 0,
        "type": 1,
    } | head
    return struct.pack("=8BI", *fields.values(), flags) + b"".join(attributes)


DESTINATION = netlink.attribute(routes.RTA_DST, bytes([198, 18, 0, 0]))
OUT = netlink.u32(routes.RTA_OIF, 3)


@pytest.mark.parametrize(
    "message",
    [
        raw(DESTINATION, OUT, type=2),
        raw(DESTINATION, OUT, table=255),
        raw(DESTINATION, OUT, netlink.u32(routes.RTA_TABLE, 1000)),
        raw(DESTINATION, OUT, tos=4),
        raw(DESTINATION, OUT, source=8),
        raw(DESTINATION, OUT, flags=routes.RTM_F_CLONED),
        raw(OUT, family=7),
    ],
    ids=["local", "other table", "table beyond 255", "tos", "source routing", "cached", "bridge"],
)
def test_what_a_shadow_cannot_stand_for_is_not_read(message: bytes) -> None:
    assert routes.decode(message) is None


def test_a_gateway_of_the_other_family_is_read() -> None:
    via = netlink.attribute(routes.RTA_VIA, struct.pack("=H", 10) + LINK_LOCAL)
    read = routes.decode(raw(DESTINATION, OUT, via))
    assert read is not None
    assert read.legs == (Leg(3, LINK_LOCAL),)


def hop(index: int, gateway: bytes, flags: int = 0) -> bytes:
    inner = netlink.attribute(routes.RTA_GATEWAY, gateway)
    return struct.pack("=HBBi", 8 + len(inner), flags, 0, index) + inner


def test_a_restored_multipath_route_has_the_indexes_of_now_and_no_dead_legs() -> None:
    dead = 1 | 16  # RTNH_F_DEAD, RTNH_F_LINKDOWN
    hops = hop(3, GATEWAY, dead | routes.RTNH_F_ONLINK) + hop(4, OTHER_GATEWAY)
    restored = body(
        routes.restore(raw(DESTINATION, netlink.attribute(routes.RTA_MULTIPATH, hops), flags=dead), {3: 33})
    )
    read = routes.decode(restored)
    assert read is not None
    assert read.legs == (Leg(33, GATEWAY), Leg(4, OTHER_GATEWAY))
    assert struct.unpack_from("=I", restored, 8) == (0,)
    multipath = netlink.attributes(restored, 12)[routes.RTA_MULTIPATH]
    assert multipath[2] == routes.RTNH_F_ONLINK


def test_a_route_by_a_nexthop_object_is_restored_by_it_alone() -> None:
    restored = body(routes.restore(raw(DESTINATION, OUT, netlink.u32(routes.RTA_NH_ID, 5)), {}))
    assert set(netlink.attributes(restored, 12)) == {routes.RTA_DST, routes.RTA_NH_ID}


@pytest.mark.parametrize(("leg", "version"), [(Leg(3), 4), (Leg(3, GATEWAY), 4), (Leg(3, LINK_LOCAL), 6)])
def test_a_leg_reads_back_and_is_onlink_for_ipv4_gateways_only(leg: Leg, version: int) -> None:
    message = body(routes.add_leg(9, leg, version))
    assert routes.decode_nexthop(message) == Nexthop(9, netlink.OWNER, leg, version)
    onlink = leg.gateway is not None and version == 4
    assert struct.unpack_from("=I", message, 4) == (routes.RTNH_F_ONLINK if onlink else 0,)


def test_a_group_reads_back() -> None:
    assert routes.decode_nexthop(body(routes.set_group(9, [4, 5]))).members == (4, 5)


@pytest.mark.parametrize(
    ("net", "own"),
    [
        ("169.254.0.0/16", True),
        ("224.0.0.0/4", True),
        ("fe80::/64", True),
        ("ff00::/8", True),
        ("0.0.0.0/0", False),
        ("169.253.0.0/16", False),
        ("::/0", False),
        ("fc00::/7", False),
    ],
)
def test_link_local_and_multicast_are_of_every_link_itself(net: str, *, own: bool) -> None:
    assert routes.is_of_the_link(routes.prefix_of(ip_network(net))) is own


async def test_a_table_is_read_again_without_decoding_what_did_not_change() -> None:
    table = routes.Table()
    bodies = [raw(DESTINATION, OUT, netlink.u32(routes.RTA_PRIORITY, metric)) for metric in range(1000)]
    first = await table.read([*bodies, raw(OUT, type=2)])
    assert [route.metric for route in first] == list(range(1000))
    second = await table.read(bodies[500:])
    assert all(again is before for again, before in zip(second, first[500:], strict=True))


# -- legs -------------------------------------------------------------------------------------------------------------


ON_LINK, BY_GATEWAY = Way(4, frozenset({None})), Way(4, frozenset({GATEWAY}))


class Carriers:
    def __init__(self) -> None:
        self.indexes = [3, 4]
        self.legs = Legs(Identifiers(), lambda _: self.indexes)

    def send(self, *ways: Way) -> tuple[list[Leg], list[tuple[int, ...]]]:
        """What the requests make: legs, and the members of groups."""
        read = [routes.decode_nexthop(body(request)) for request in self.legs.differences(ways)]
        return [n.leg for n in read if n.leg], [n.members for n in read if n.members]


def test_legs_are_made_before_the_group_and_once() -> None:
    carriers = Carriers()
    legs, groups = carriers.send(ON_LINK)
    assert legs == [Leg(3), Leg(4)]
    assert len(groups[0]) == 2
    assert carriers.send(ON_LINK) == ([], [])


def test_an_interface_is_used_until_no_group_has_its_leg_and_then_its_legs_go_once() -> None:
    carriers = Carriers()
    carriers.send(ON_LINK, BY_GATEWAY)
    carriers.indexes = [4]
    carriers.send(ON_LINK)
    assert carriers.legs.uses(3), "routes by a gateway still leave by it"
    carriers.send(BY_GATEWAY)
    assert (carriers.legs.uses(3), carriers.legs.uses(4)) == (False, True)
    assert len(carriers.legs.leave(3)) == 2
    assert carriers.legs.leave(3) == []
    assert carriers.send(ON_LINK, BY_GATEWAY) == ([], [])


def test_on_link_comes_before_gateways_however_they_are_asked_for() -> None:
    legs, _ = Carriers().send(BY_GATEWAY, ON_LINK)
    assert [leg.gateway for leg in legs] == [None, None, GATEWAY, GATEWAY]


def test_a_failover_replaces_the_group_and_makes_no_leg() -> None:
    carriers = Carriers()
    carriers.send(ON_LINK)
    carriers.indexes = [4]
    legs, groups = carriers.send(ON_LINK)
    assert (legs, len(groups[0])) == ([], 1)


def test_a_group_is_never_emptied() -> None:
    carriers = Carriers()
    carriers.send(ON_LINK)
    carriers.indexes = []
    assert carriers.send(ON_LINK) == ([], [])
    assert carriers.legs.is_installed(ON_LINK)


def test_a_leg_that_lost_its_carrier_is_made_again_under_its_identifier() -> None:
    carriers = Carriers()
    _, before = carriers.send(ON_LINK)
    carriers.legs.lost(3)
    legs, after = carriers.send(ON_LINK)
    assert (legs, after) == ([Leg(3)], before)


def test_a_group_that_lost_every_leg_is_known_to_be_gone() -> None:
    carriers = Carriers()
    carriers.send(ON_LINK)
    carriers.legs.lost(3)
    assert carriers.legs.is_installed(ON_LINK)
    carriers.legs.lost(4)
    assert not carriers.legs.is_installed(ON_LINK)


def test_objects_of_an_earlier_run_are_taken_over_and_doubles_deleted() -> None:
    ours = [Nexthop(10, netlink.OWNER, Leg(3), 4), Nexthop(11, netlink.OWNER, Leg(4), 4)]
    double = Nexthop(12, netlink.OWNER, Leg(3), 4)
    group = Nexthop(20, netlink.OWNER, None, 0, (10, 11))
    foreign = [Nexthop(30, 0, Leg(3), 4), Nexthop(31, netlink.OWNER, Leg(99), 4)]
    carriers = Carriers()
    present = {n.identifier: n for n in [*ours, double, group, *foreign]}
    assert carriers.legs.read(present, {3, 4}) == [12]
    assert carriers.legs.group(ON_LINK) == 20
    assert carriers.send(ON_LINK) == ([], [])


def test_identifiers_keep_clear_of_those_in_use() -> None:
    identifiers = Identifiers()
    identifiers.note([Nexthop(FIRST_IDENTIFIER, 0, Leg(3), 4)])
    assert [identifiers.take(), identifiers.take()] == [FIRST_IDENTIFIER + 1, FIRST_IDENTIFIER + 2]


def test_what_no_route_needs_any_more_is_deleted_groups_first() -> None:
    carriers = Carriers()
    carriers.send(ON_LINK, BY_GATEWAY)
    group = carriers.legs.group(BY_GATEWAY)
    unused = carriers.legs.unused([ON_LINK])
    assert unused[0] == group
    assert len(unused) == 3
    assert carriers.send(ON_LINK) == ([], [])


# -- shadows ----------------------------------------------------------------------------------------------------------


def route(metric: int, net: str = "198.18.0.0/24", **changes: Any) -> Route:
    values = {"legs": (Leg(3),), "source": None, "protocol": 3, "nexthop_id": 0, "body": b""} | changes
    return Route(routes.prefix_of(ip_network(net)), metric, **values)


@pytest.mark.parametrize(
    ("net", "metric", "elsewhere", "preferred"),
    [
        ("198.18.0.0/24", 0, set(), 0),  # in front of the equal one
        ("198.18.0.0/24", 100, set(), 99),
        ("198.18.0.0/24", 100, {99}, 100),  # not before somebody else's way
        ("2001:db8::/64", 256, set(), 255),
        ("2001:db8::/64", 256, {255}, None),
        ("2001:db8::/64", 1, set(), None),
    ],
)
def test_a_shadow_is_better_than_its_route_and_than_no_other(
    net: str, metric: int, elsewhere: set[int], preferred: int | None
) -> None:
    assert _preferred(route(metric, net), elsewhere) == preferred


@pytest.mark.parametrize(
    ("present", "moved"),
    [
        ("abc", ""),
        ("bca", "a"),  # a came back and was appended
        ("cab", "ba"),
        ("acb", "ba"),
        ("cba", "ba"),
    ],
)
def test_equal_routes_get_their_order_back_with_few_moves(present: str, moved: str) -> None:
    found = [_foreign(route(0), {3: "nic"}) for _ in present]
    for each, name in zip(found, present, strict=True):
        each.rank = ord(name)
    assert "".join(chr(each.rank) for each in _out_of_order(found)) == moved
    order = list(present)
    for name in moved:
        order.remove(name)
        order.insert(0, name)
    assert order == sorted(order)
