"""Routes and nexthops as bytes, and what a twin is to be."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import pytest

from ipmp_agent.linux.group.device_legs import DeviceLegs
from ipmp_agent.linux.group.foreign_routes import _foreign, _out_of_order
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


LEGS = {
    "on the link": (4, (Leg(3), Leg(4))),
    "IPv4 gateway": (4, (Leg(3, GATEWAY), Leg(4, GATEWAY))),
    "weights": (4, (Leg(3, GATEWAY, 3), Leg(4, OTHER_GATEWAY, 200))),
    "IPv6 gateway of IPv4": (4, (Leg(3, LINK_LOCAL), Leg(4, LINK_LOCAL))),
    "IPv6 gateway": (6, (Leg(3, LINK_LOCAL), Leg(4, LINK_LOCAL))),
    "encapsulation": (4, (Leg(3, GATEWAY, details=netlink.attribute(routes.RTA_ENCAP_TYPE, b"\4\0")), Leg(4))),
}


@pytest.mark.parametrize(("version", "legs"), LEGS.values(), ids=LEGS)
@pytest.mark.parametrize("table", [73, routes.OTHER_TWINS + 100])
def test_a_twin_reads_back(version: int, legs: tuple[Leg, ...], table: int) -> None:
    network = ip_network({4: "198.18.0.0/24", 6: "2001:db8::/48"}[version])
    destination = routes.prefix_of(network)
    source = (network.network_address + 5).packed
    details = netlink.attribute(routes.RTA_METRICS, netlink.u32(2, 1400))
    request = routes.lay_twin(
        table, destination, 99, routes.pack_legs(version, legs), source, gateway=True, details=details
    )
    read = routes.decode(body(request))
    assert read is not None
    assert (read.destination, read.metric, read.legs, read.source) == (destination, 99, legs, source)
    assert (read.table, read.details, read.owned, read.version) == (table, details, True, version)


def test_a_twin_by_a_nexthop_object_reads_back() -> None:
    destination = routes.prefix_of(ip_network("2001:db8::/64"))
    read = routes.decode(body(routes.lay_twin(73, destination, 256, routes.by_nexthop(77), None, gateway=False)))
    assert read is not None
    assert (read.destination, read.metric, read.nexthop_id, read.source) == (destination, 256, 77, None)


def test_the_deletion_of_a_twin_names_table_destination_metric_and_owner() -> None:
    destination = routes.prefix_of(ip_network("198.18.0.0/24"))
    message = body(routes.delete_twin(routes.OTHER_TWINS + 5, destination, 9))
    found = netlink.attributes(message, 12)
    assert {kind: netlink.number(found[kind]) for kind in (routes.RTA_PRIORITY, routes.RTA_TABLE)} == {
        routes.RTA_PRIORITY: 9,
        routes.RTA_TABLE: routes.OTHER_TWINS + 5,
    }
    assert (message[1], message[5], found[routes.RTA_DST]) == (24, netlink.OWNER, destination[:-1])


@pytest.mark.parametrize("table", [1, 100, 254, 52, 99_999_999])
def test_each_table_has_one_for_its_twins(table: int) -> None:
    assert routes.is_table_of_twins(routes.table_of_twins(table))
    assert not routes.is_table_of_twins(table)


def test_lifetime_and_preference_are_read_and_a_restored_route_lives_no_longer() -> None:
    lifetime = netlink.attribute(routes.RTA_CACHEINFO, struct.pack("=IIiIIII", 0, 0, 179900, 0, 0, 0, 0))
    pref = netlink.attribute(routes.RTA_PREF, b"\1")
    read = routes.decode(raw(OUT, lifetime, pref, family=10, length=0))
    assert read is not None
    assert (read.expires, read.preference) == (1799.0, 2)
    found = netlink.attributes(body(routes.restore(read.body, {}, 12.7)), 12)
    assert routes.RTA_CACHEINFO not in found
    assert netlink.number(found[routes.RTA_EXPIRES]) == 12
    assert routes.RTA_EXPIRES not in netlink.attributes(body(routes.restore(read.body, {})), 12)


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
        raw(DESTINATION, OUT, tos=4),
        raw(DESTINATION, OUT, source=8),
        raw(DESTINATION, OUT, flags=routes.RTM_F_CLONED),
        raw(OUT, family=7),
    ],
    ids=["local", "tos", "source routing", "cached", "bridge"],
)
def test_what_a_twin_cannot_stand_for_is_not_read(message: bytes) -> None:
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
    table = routes.RouteTable()
    bodies = [raw(DESTINATION, OUT, netlink.u32(routes.RTA_PRIORITY, metric)) for metric in range(1000)]
    first = await table.read([*bodies, raw(OUT, type=2)])
    assert [route.metric for route in first] == list(range(1000))
    second = await table.read(bodies[500:])
    assert all(again is before for again, before in zip(second, first[500:], strict=True))


# -- legs -------------------------------------------------------------------------------------------------------------


class Carriers:
    def __init__(self) -> None:
        self.indexes = [3, 4]
        self.legs = DeviceLegs(Identifiers(), lambda _: self.indexes)

    def send(self) -> tuple[list[Leg], list[tuple[int, ...]]]:
        """What the requests make: legs, and the members of the group."""
        read = [routes.decode_nexthop(body(request)) for request in self.legs.differences()]
        return [n.leg for n in read if n.leg], [n.members for n in read if n.members]


def test_legs_are_made_before_the_group_and_once() -> None:
    carriers = Carriers()
    legs, groups = carriers.send()
    assert legs == [Leg(3), Leg(4)]
    assert len(groups[0]) == 2
    assert carriers.send() == ([], [])


def test_an_interface_is_used_until_the_group_has_not_its_leg_and_then_that_goes_once() -> None:
    carriers = Carriers()
    carriers.send()
    assert carriers.legs.uses(3)
    carriers.indexes = [4]
    carriers.send()
    assert (carriers.legs.uses(3), carriers.legs.uses(4)) == (False, True)
    assert len(carriers.legs.leave(3)) == 1
    assert carriers.legs.leave(3) == []
    assert carriers.send() == ([], [])


def test_a_failover_replaces_the_group_and_makes_no_leg() -> None:
    carriers = Carriers()
    carriers.send()
    carriers.indexes = [4]
    legs, groups = carriers.send()
    assert (legs, len(groups[0])) == ([], 1)


def test_the_group_is_never_emptied() -> None:
    carriers = Carriers()
    carriers.send()
    carriers.indexes = []
    assert carriers.send() == ([], [])
    assert carriers.legs.group is not None


def test_a_leg_that_lost_its_carrier_is_made_again_under_its_identifier() -> None:
    carriers = Carriers()
    _, before = carriers.send()
    carriers.legs.lost(3)
    assert carriers.send() == ([Leg(3)], before)


def test_a_group_that_lost_every_leg_is_known_to_be_gone() -> None:
    carriers = Carriers()
    carriers.send()
    carriers.legs.lost(3)
    assert carriers.legs.group is not None
    carriers.legs.lost(4)
    assert carriers.legs.group is None


def test_objects_of_an_earlier_run_are_taken_over_and_what_is_not_needed_goes_groups_first() -> None:
    ours = [Nexthop(10, netlink.OWNER, Leg(3), 6), Nexthop(11, netlink.OWNER, Leg(4), 6)]
    unneeded = [Nexthop(12, netlink.OWNER, Leg(3), 6), Nexthop(13, netlink.OWNER, Leg(3, GATEWAY), 4)]
    groups = [Nexthop(20, netlink.OWNER, None, 0, (10, 11)), Nexthop(21, netlink.OWNER, None, 0, (13,))]
    foreign = [Nexthop(30, 0, Leg(3), 6), Nexthop(31, netlink.OWNER, Leg(99), 6)]
    carriers = Carriers()
    present = {n.identifier: n for n in [*ours, *unneeded, *groups, *foreign]}
    assert carriers.legs.read(present, {3, 4}) == [21, 12, 13]
    assert carriers.legs.group == 20
    assert carriers.send() == ([], [])


def test_identifiers_that_somebody_took_over_are_not_used_again() -> None:
    identifiers = Identifiers()
    legs = DeviceLegs(identifiers, lambda _: [3, 4])
    first = [routes.decode_nexthop(body(request)) for request in legs.differences()]
    taken = {n.identifier: Nexthop(n.identifier, 11, n.leg, n.version, n.members) for n in first}
    identifiers.note(taken.values())
    assert legs.read(taken, {3, 4}) == []
    again = [routes.decode_nexthop(body(request)) for request in legs.differences()]
    assert len(again) == 3
    assert {n.identifier for n in again}.isdisjoint(taken)


def test_identifiers_keep_clear_of_those_in_use() -> None:
    identifiers = Identifiers()
    identifiers.note([Nexthop(FIRST_IDENTIFIER, 0, Leg(3), 4)])
    assert [identifiers.take(), identifiers.take()] == [FIRST_IDENTIFIER + 1, FIRST_IDENTIFIER + 2]


# -- the routes of others ---------------------------------------------------------------------------------------------


def route(metric: int, net: str = "198.18.0.0/24", **changes: Any) -> Route:
    values = {"legs": (Leg(3),), "source": None, "protocol": 3, "nexthop_id": 0, "body": b""} | changes
    return Route(routes.prefix_of(ip_network(net)), metric, **values)


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
