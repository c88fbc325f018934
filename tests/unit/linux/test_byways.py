"""Prefixes by each member alone, beside the main table."""

from __future__ import annotations

from ipaddress import ip_network

from ipmp_agent.linux.group import byways
from ipmp_agent.linux.messages import netlink, routes

NIC0, NIC1, OTHER = 2, 3, 4
PREFIX, SECOND = (routes.prefix_of(ip_network(text)) for text in ("198.18.0.0/24", "198.19.0.0/20"))


def laid(*pairs: tuple[bytes, int]) -> list[routes.Route]:
    """The table as the kernel would tell it after these requests."""
    bodies = [routes.add_byway(prefix, index)[netlink.HEADER_BYTES :] for prefix, index in pairs]
    found = [routes.decode(body, routes.RT_TABLE_DEFAULT) for body in bodies]
    return [route for route in found if route is not None]


def test_every_prefix_is_laid_by_every_member_that_is_up() -> None:
    requests = byways.differences([], [PREFIX, SECOND], {NIC0, NIC1}, {NIC1})
    assert requests == [routes.add_byway(prefix, NIC1) for prefix in (PREFIX, SECOND)]


def test_what_is_there_is_left_and_what_is_not_wanted_goes() -> None:
    found = laid((PREFIX, NIC0), (PREFIX, NIC1), (SECOND, NIC1))
    assert not byways.differences(found, [PREFIX, SECOND], {NIC0, NIC1}, {NIC1})[1:]
    assert byways.differences(found, [PREFIX, SECOND], {NIC0, NIC1}, {NIC1}) == [routes.delete(found[0].body)]
    assert byways.differences(found, [], {NIC0, NIC1}, set()) == [routes.delete(route.body) for route in found]


def test_routes_by_other_interfaces_and_of_others_are_left_alone() -> None:
    found = laid((PREFIX, OTHER), (SECOND, NIC0))
    found[1].protocol = routes.RTPROT_KERNEL
    assert not byways.differences(found, [], {NIC0, NIC1}, {NIC0})


def test_they_are_no_routes_of_the_main_table() -> None:
    assert routes.decode(routes.add_byway(PREFIX, NIC0)[netlink.HEADER_BYTES :]) is None
