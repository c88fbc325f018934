"""Routes of a VRF by members are told: its rule has no place for ours. Not every kernel of a test has VRFs."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, cast

import pytest

from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.group.unfollowed import NAMED, Unfollowed
from ipmp_agent.linux.messages import links, netlink, routes
from ipmp_agent.linux.messages.routes import Leg, ParticularRoute, Route
from ipmp_agent.linux.shared import devices
from ipmp_agent.linux.shared.devices import Devices

if TYPE_CHECKING:
    from ipmp_agent.linux.group.foreign_routes import RouteSurroundings

GATEWAY = IPv4Address("198.18.0.1").packed


class _Around:
    """Interface 2 is the one member."""

    @staticmethod
    def key_of(index: int) -> str | None:
        return {2: "nic0"}.get(index)


def vrf(index: int, name: str, table: int) -> bytes:
    data = netlink.nested(devices.IFLA_INFO_DATA, netlink.u32(devices.IFLA_VRF_TABLE, table))
    kind = netlink.attribute(links.IFLA_INFO_KIND, b"vrf\0")
    head = struct.pack("=BxHiII", 0, links.ARPHRD_ETHER, index, links.IFF_UP, 0)
    name_attribute = netlink.attribute(links.IFLA_IFNAME, name.encode() + b"\0")
    return head + name_attribute + netlink.nested(links.IFLA_LINKINFO, kind, data)


def route(text: str, table: int, *indexes: int) -> Route:
    prefix = IPv4Address(text).packed + b"\x18"
    return Route(prefix, 0, tuple(Leg(index, GATEWAY) for index in indexes), None, 4, 0, b"", table)


def unfollowed(*vrfs: bytes) -> Unfollowed:
    known = Devices()
    known.resync(vrfs)
    return Unfollowed(cast("RouteSurroundings", _Around()), known)


@pytest.mark.parametrize(("table", "index", "told"), [(10, 2, True), (10, 3, False), (11, 2, False)])
def test_routes_of_a_vrf_by_a_member_are_told(table: int, index: int, *, told: bool) -> None:
    watched = unfollowed(vrf(7, "blue", 10))
    watched.read([route("203.0.113.0", table, index)], (), ())
    assert [f.reason for f in watched.findings()] == [Reason.ROUTES_NOT_FOLLOWED] * told
    assert all("table 10 of VRF blue" in f.message for f in watched.findings())
    watched.read([], (), ())
    assert watched.findings() == []


def test_of_very_many_a_few_are_named_and_the_rest_is_counted() -> None:
    watched = unfollowed()
    many: list[Any] = [ParticularRoute(route(f"203.0.{n}.0", 254, 2), 16, "") for n in range(50)]
    watched.read([], many, ())
    (finding,) = watched.findings()
    assert finding.message.count("tos 0x10") == NAMED
    assert f"and {50 - NAMED} more" in finding.message


def test_what_no_rule_leads_to_and_what_no_member_carries_is_nobodys_trouble() -> None:
    watched = unfollowed()
    elsewhere = ParticularRoute(route("203.0.113.0", 254, 3), 16, "")
    unused = ParticularRoute(route("203.0.113.0", 100, 2), 16, "")
    watched.read([route("203.0.113.0", 100, 2, 3), route("203.0.113.0", 254, 3, 4)], [elsewhere, unused], ())
    assert watched.findings() == []


def test_a_route_with_a_type_of_service_or_a_source_is_read_as_one_for_some_packets() -> None:
    head = struct.pack("=BBBBBBBBI", 2, 24, 0, 0x10, 254, 4, 0, routes.RTN_UNICAST, 0)
    body = head + netlink.attribute(routes.RTA_DST, IPv4Address("203.0.113.0").packed)
    body += netlink.u32(routes.RTA_OIF, 2)
    assert routes.decode(body) is None
    found = routes.decode_particular(body)
    assert found is not None
    assert (found.type_of_service, found.source, routes.text_of(found.route.destination)) == (16, "", "203.0.113.0/24")
    assert routes.decode_particular(head[:3] + b"\0" + head[4:]) is None, "of any type"
