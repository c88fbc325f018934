"""What the Linux kernel does with routes and nexthops that one might not expect.

Shown without the agent, which is built on these facts: a kernel that differs must fail here first.
"""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.linux.messages import addresses, netlink, routes, rules
from ipmp_agent.linux.messages.routes import Leg
from ipmp_agent.linux.messages.rules import PolicyRule
from tests.lab import CommandFailedError, wait_for
from tests.lab.carrier import Carrier
from tests.lab.kernel.bare import Notifications, send

if TYPE_CHECKING:
    from tests.lab import Lab, Namespace

GATEWAY, OTHER_GATEWAY = "198.18.0.201", "198.18.0.202"
GATEWAY6 = "2001:db8:0:1::201"
DEFAULT, DEFAULT6 = (routes.prefix_of(ip_network(net)) for net in ("0.0.0.0/0", "::/0"))
PREFIX, PREFIX6 = "198.18.0.0/24", "2001:db8:0:1::/64"
OURS = "73"  # our table, and our tag as `ip` prints a protocol without a name
LEGS, GROUP = (1, 2), 10
BOTH = ("nic0", "nic1")


@pytest.fixture
def host(lab: Lab) -> Namespace:
    """A host as an installer leaves it, with metrics 0."""
    lab.host.namespace.batch(
        [
            "address add 198.18.0.50/24 dev nic0",
            "address add 198.18.0.51/32 dev nic1",
            "address add 2001:db8:0:1::50/64 dev nic0 nodad",
            f"route add default via {GATEWAY} dev nic0",
        ]
    )
    return lab.host.namespace


def legs(lab: Lab, gateway: str | None, nics: tuple[str, ...] = BOTH) -> list[Leg]:
    packed = ip_address(gateway).packed if gateway is not None else None
    return [Leg(lab.host.nic(nic).index, packed) for nic in nics]


def twin(lab: Lab, net: str, gateway: str | None, nics: tuple[str, ...] = BOTH) -> list[str]:
    """Lay a route of ours by these members with its legs in it; returns what the kernel says."""
    network = ip_network(net)
    way = routes.pack_legs(network.version, legs(lab, gateway, nics))
    has_gateway = gateway is not None
    request = routes.lay_twin(routes.TWINS, routes.prefix_of(network), 0, way, None, gateway=has_gateway)
    return send(lab.host.namespace, request)


def objects(lab: Lab) -> None:
    """Nexthop objects of an IPv6 prefix on the link, and a route of ours by them."""
    each = [routes.add_leg(n, leg, 6) for n, leg in zip(LEGS, legs(lab, None), strict=True)]
    route = routes.lay_twin(
        routes.TWINS, routes.prefix_of(ip_network(PREFIX6)), 256, routes.by_nexthop(GROUP), None, gateway=False
    )
    assert send(lab.host.namespace, *each, routes.set_group(GROUP, LEGS), route) == []


def our_rules(host: Namespace) -> None:
    """The four rules before the host's own, and the members in our interface group."""
    host.batch(f"link set {nic} group {rules.MEMBER_GROUP}" for nic in BOTH)
    for family in (socket.AF_INET, socket.AF_INET6):
        requests = [
            rules.add(rule) for rule in rules.block(PolicyRule(family, 32766, routes.RT_TABLE_MAIN), routes.TWINS)
        ]
        assert send(host, *requests) == []


def listed(host: Namespace, destination: str = "default", family: str = "-4", table: str = "main") -> list[Any]:
    try:
        return host.ip_json(family, "route", "show", destination, "table", table)
    except CommandFailedError:
        return []  # the kernel makes a table with its first route


def members(host: Namespace, destination: str, family: str) -> dict[str, list[str]]:
    """The interfaces that our route leaves by, with the flags of each leg."""
    found = listed(host, destination, family, OURS)
    return {hop["dev"]: hop["flags"] for route in found for hop in route.get("nexthops", [route])}


def chosen(host: Namespace, target: str, *words: str) -> tuple[str, str]:
    """The interface and the table that a packet takes."""
    (found,) = host.ip_json("route", "get", target, *words)
    return found["dev"], found.get("table", "main")


def nexthops(host: Namespace) -> set[int]:
    return {nexthop["id"] for nexthop in host.ip_json("nexthop", "show")}


# -- rules ------------------------------------------------------------------------------------------------------------


def test_a_route_by_a_member_is_passed_over_and_every_other_is_taken_as_it_is(lab: Lab, host: Namespace) -> None:
    our_rules(host)
    assert twin(lab, PREFIX, None, ("nic1",)) == []
    assert twin(lab, "0.0.0.0/0", GATEWAY, ("nic1",)) == []
    assert chosen(host, "198.18.0.9") == ("nic1", OURS)
    assert chosen(host, "203.0.113.9") == ("nic1", OURS)
    host.batch(
        [
            "link add name pod type veth peer name pod-far",
            "link set pod up",
            "link set pod-far up",
            "route add 198.18.0.9 dev pod",
            "route add 203.0.113.0/26 dev nic0",
        ]
    )
    assert chosen(host, "198.18.0.9")[0] == "pod", "the longest prefix decides as ever"
    assert chosen(host, "203.0.113.9") == ("nic0", "main"), "what has no twin leaves as the host laid it"


def test_a_prefix_that_main_lost_is_found_beside_a_default_route_by_another_interface(
    lab: Lab, host: Namespace
) -> None:
    our_rules(host)
    assert twin(lab, PREFIX, None, ("nic1",)) == []
    host.batch(
        [
            "link add name mgmt type veth peer name mgmt-far",
            "link set mgmt up",
            "link set mgmt-far up",
            "route replace default dev mgmt",
            f"route del {PREFIX}",
        ]
    )
    assert chosen(host, "198.18.0.9") == ("nic1", OURS)
    assert chosen(host, "203.0.113.9")[0] == "mgmt"


def test_a_lookup_bound_to_a_member_that_a_twin_leaves_out_is_answered_by_main(lab: Lab, host: Namespace) -> None:
    our_rules(host)
    assert twin(lab, "0.0.0.0/0", GATEWAY, ("nic1",)) == []
    assert chosen(host, "203.0.113.9", "oif", "nic0") == ("nic0", "main")
    assert chosen(host, "203.0.113.9", "oif", "nic1") == ("nic1", OURS)


def test_only_the_first_leg_of_a_route_says_by_which_group_it_leaves(host: Namespace) -> None:
    our_rules(host)
    host.batch(
        [
            "link add name mgmt type veth peer name mgmt-far",
            "link set mgmt up",
            "link set mgmt-far up",
            "route add 203.0.113.0/26 nexthop dev nic0 nexthop dev mgmt",
            "route add 203.0.113.64/26 nexthop dev mgmt nexthop dev nic0",
        ]
    )
    first = rules.block(PolicyRule(socket.AF_INET, 32766, routes.RT_TABLE_MAIN), routes.TWINS)[0]
    assert send(host, *(rules.delete(first) for _ in range(1))) == []
    assert send(host, rules.add(PolicyRule(socket.AF_INET, 9, 254, suppressed_group=73))) == []
    host.ip("rule", "add", "pref", "10", "blackhole")
    assert chosen(host, "203.0.113.70")[1] == "main"
    with pytest.raises(CommandFailedError):
        chosen(host, "203.0.113.9")


def test_deletion_of_a_rule_takes_the_first_that_it_does_not_rule_out(host: Namespace) -> None:
    # Suppressors that a deletion does not name are not compared: in order, front to back, each deletion of ours takes
    # the rule that is meant.
    our_rules(host)
    block = rules.block(PolicyRule(socket.AF_INET, 32766, routes.RT_TABLE_MAIN), routes.TWINS)
    assert send(host, rules.delete(block[3])) == []
    left = [rule for rule in host.ip_json("-4", "rule", "show") if rule.get("protocol") == OURS]
    assert [rule["table"] for rule in left] == ["main", "main", OURS], "it was the second"


# -- routes that go along ---------------------------------------------------------------------------------------------


def test_address_that_is_elsewhere_already_takes_no_route_along_when_it_goes(lab: Lab, host: Namespace) -> None:
    address = ip_interface("198.18.0.99/32")
    add = {nic: addresses.add(lab.host.nic(nic).index, address) for nic in ("nic0", "nic1")}
    delete = {nic: addresses.delete(lab.host.nic(nic).index, address) for nic in ("nic0", "nic1")}
    route = ("198.19.5.0/24", "via", GATEWAY, "dev", "nic0", "src", "198.18.0.99")
    assert send(host, add["nic0"]) == []
    host.ip("route", "add", *route)
    assert send(host, add["nic1"], delete["nic0"]) == []
    assert listed(host, "198.19.5.0/24"), "added first, then deleted: the route stays"
    with Notifications(host) as notifications:
        assert send(host, delete["nic1"]) == []
        told = [found.kind for found in notifications.pending()]
    assert not listed(host, "198.19.5.0/24")
    assert netlink.RTM_DELADDR in told


def test_interface_loses_its_ipv4_routes_with_its_last_ipv4_address_and_nothing_is_told(host: Namespace) -> None:
    host.batch(["route add 198.19.5.0/24 dev nic1", "route add 198.19.6.0/24 via 198.18.0.202 dev nic1 onlink"])
    with Notifications(host) as notifications:
        host.ip("address", "del", "198.18.0.51/32", "dev", "nic1")
        told = [routes.decode(m.body) for m in notifications.pending() if m.kind == netlink.RTM_DELROUTE]
    assert not listed(host, "198.19.5.0/24")
    assert not listed(host, "198.19.6.0/24")
    assert [route for route in told if route is not None] == []


def test_ipv6_route_stays_without_its_source_when_that_address_goes(host: Namespace) -> None:
    host.ip("-6", "route", "add", "2001:db8:9::/48", "dev", "nic1", "src", "2001:db8:0:1::50")
    host.ip("address", "del", "2001:db8:0:1::50/64", "dev", "nic0")
    (route,) = listed(host, "2001:db8:9::/48", "-6")
    assert "prefsrc" not in route


def test_connected_route_comes_back_behind_its_equals(host: Namespace) -> None:
    host.batch(["address add 198.18.0.52/24 dev nic1"])
    assert [route["dev"] for route in listed(host, PREFIX)] == ["nic0", "nic1"]
    host.batch(["address del 198.18.0.50/24 dev nic0", "address add 198.18.0.50/24 dev nic0"])
    assert [route["dev"] for route in listed(host, PREFIX)] == ["nic1", "nic0"]


def test_bound_socket_needs_a_route_by_its_interface_for_ipv6_and_none_for_ipv4(host: Namespace) -> None:
    def send_by(family: int, target: str) -> int:
        with host.socket(family, socket.SOCK_DGRAM) as program:
            program.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"nic1")
            return program.connect_ex((target, 9))

    assert send_by(socket.AF_INET, GATEWAY) == 0
    assert send_by(socket.AF_INET6, "2001:db8:0:1::201") == errno.ENETUNREACH


# -- legs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "net", "gateway"), [("-4", "0.0.0.0/0", GATEWAY), ("-4", PREFIX, None), ("-6", "::/0", "fe80::201")]
)
def test_legs_in_a_route_stay_with_a_dead_carrier_and_live_again_with_it(
    lab: Lab, host: Namespace, family: str, net: str, gateway: str | None
) -> None:
    assert twin(lab, net, gateway) == []
    lab.host.nic("nic0").unplug()
    wait_for(lambda: members(host, net, family)["nic0"], lambda flags: "linkdown" in flags)
    lab.host.nic("nic0").plug()
    wait_for(lambda: members(host, net, family), lambda found: all("linkdown" not in f for f in found.values()))
    host.ip("link", "set", "nic0", "down")
    wait_for(lambda: members(host, net, family)["nic0"], lambda flags: "dead" in flags)
    host.ip("link", "set", "nic0", "up")
    wait_for(lambda: members(host, net, family), lambda found: all("dead" not in f for f in found.values()))


def test_ipv4_route_by_several_interfaces_goes_with_any_of_them_and_nothing_is_told(lab: Lab, host: Namespace) -> None:
    assert twin(lab, "0.0.0.0/0", GATEWAY) == []
    assert twin(lab, "::/0", "fe80::201") == []
    with Notifications(host) as notifications:
        lab.host.nic("nic0").remove()
        told = [routes.decode(m.body) for m in notifications.pending() if m.kind == netlink.RTM_DELROUTE]
    assert members(host, "default", "-4") == {}
    assert [route for route in told if route is not None and route.version == 4 and route.owned] == []
    assert set(members(host, "default", "-6")) == {"nic1"}


def test_ipv6_takes_no_route_on_the_link_by_several_interfaces_but_by_a_nexthop_group(
    lab: Lab, host: Namespace
) -> None:
    (refusal,) = twin(lab, PREFIX6, None)
    assert "Device only routes can not be added for IPv6 using the multipath API" in refusal
    objects(lab)
    assert set(members(host, PREFIX6, "-6")) == set(BOTH)


def test_a_replacement_gives_a_route_other_legs_in_one_step(lab: Lab, host: Namespace) -> None:
    for net, gateway, family in (("0.0.0.0/0", GATEWAY, "-4"), ("::/0", "fe80::201", "-6")):
        for nics in (BOTH, ("nic1",), BOTH, ("nic0",)):
            assert twin(lab, net, gateway, nics) == []
            assert len(listed(host, "default", family, OURS)) == 1
            assert set(members(host, "default", family)) == set(nics)


def test_nexthop_of_a_dead_carrier_goes_unannounced_and_does_not_come_back(lab: Lab, host: Namespace) -> None:
    objects(lab)
    carrier = Carrier(host)
    with Notifications(host) as notifications:
        lab.host.nic("nic0").unplug()
        wait_for(lambda: carrier.present("nic0"), lambda there: not there)
        assert nexthops(host) == {LEGS[1], GROUP}
        assert set(members(host, PREFIX6, "-6")) == {"nic1"}, "outbound healed by itself"
        told = {found.kind for found in notifications.pending()}
    assert netlink.RTM_NEWLINK in told
    assert netlink.RTM_DELNEXTHOP not in told
    lab.host.nic("nic0").plug()
    wait_for(lambda: carrier.present("nic0"))
    assert nexthops(host) == {LEGS[1], GROUP}
    assert set(members(host, PREFIX6, "-6")) == {"nic1"}
    carrier.close()


def test_group_goes_with_its_last_nexthop_and_takes_its_routes_along(lab: Lab, host: Namespace) -> None:
    objects(lab)
    assert send(host, routes.delete_nexthop(LEGS[0])) == []
    assert (nexthops(host), set(members(host, PREFIX6, "-6"))) == ({LEGS[1], GROUP}, {"nic1"})
    assert send(host, routes.delete_nexthop(LEGS[1])) == []
    assert (nexthops(host), members(host, PREFIX6, "-6")) == (set(), {})


def test_group_may_not_be_emptied(lab: Lab, host: Namespace) -> None:
    objects(lab)
    assert len(send(host, routes.set_group(GROUP, ()))) == 1
    assert nexthops(host) == {*LEGS, GROUP}


def test_ipv6_gateway_is_taken_without_onlink_once_its_own_table_has_its_prefix_by_that_member(
    lab: Lab, host: Namespace
) -> None:
    assert len(twin(lab, "::/0", GATEWAY6)) == 1
    objects(lab)
    assert twin(lab, "::/0", GATEWAY6) == []
    with pytest.raises(CommandFailedError, match="Nexthop has invalid gateway or device mismatch"):
        host.ip("-6", "route", "add", "2001:db8:9::/48", "via", GATEWAY6, "dev", "nic1", "onlink")


def test_link_local_gateway_is_always_taken(lab: Lab, host: Namespace) -> None:
    assert twin(lab, "::/0", "fe80::201") == []


def test_ipv4_gateway_is_taken_onlink_and_refused_without(lab: Lab, host: Namespace) -> None:
    with pytest.raises(CommandFailedError, match="invalid gateway"):
        host.ip("route", "add", "198.19.5.0/24", "via", GATEWAY, "dev", "nic1")
    assert twin(lab, "198.19.5.0/24", GATEWAY, ("nic1",)) == []


def test_ipv6_has_no_metric_0(host: Namespace) -> None:
    host.batch(["route add 2001:db8:9::/48 dev nic0", "route add 2001:db8:8::/48 dev nic0 metric 0"])
    assert [listed(host, net, "-6")[0]["metric"] for net in ("2001:db8:9::/48", "2001:db8:8::/48")] == [1024, 1024]
