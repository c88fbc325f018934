"""What the Linux kernel does with routes and nexthops that one might not expect.

Shown without the agent, which is built on these facts: a kernel that differs must fail here first.
"""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.linux.messages import addresses, netlink, routes
from ipmp_agent.linux.messages.routes import Leg
from tests.lab import CommandFailedError, wait_for
from tests.lab.carrier import Carrier
from tests.lab.kernel.bare import Notifications, send

if TYPE_CHECKING:
    from tests.lab import Lab, Namespace

GATEWAY, OTHER_GATEWAY = "198.18.0.201", "198.18.0.202"
DEFAULT = routes.prefix_of(ip_network("0.0.0.0/0"))
PREFIX, PREFIX6 = "198.18.0.0/24", "2001:db8:0:1::/64"
OURS = "73"  # 0x49 as `ip` prints a protocol without a name
LEGS, GROUP = (1, 2), 10
ON_LINK_LEGS, ON_LINK_GROUP = (3, 4), 11


@pytest.fixture
def host(lab: Lab) -> Namespace:
    """A host as an installer leaves it, with metrics 0, and the nexthops of a shadow of its default route."""
    lab.host.namespace.batch(
        [
            "address add 198.18.0.50/24 dev nic0",
            "address add 198.18.0.51/32 dev nic1",
            "address add 2001:db8:0:1::50/64 dev nic0 nodad",
            f"route add default via {GATEWAY} dev nic0",
        ]
    )
    gateway = ip_address(GATEWAY).packed
    legs = [routes.add_leg(n, Leg(lab.host.nic(f"nic{i}").index, gateway), 4) for i, n in enumerate(LEGS)]
    assert send(lab.host.namespace, *legs, routes.set_group(GROUP, LEGS)) == []
    return lab.host.namespace


def shadow(host: Namespace, metric: int = 0) -> None:
    assert send(host, routes.add_shadow(DEFAULT, metric, GROUP, None, gateway=True)) == []


def listed(host: Namespace, destination: str = "default", family: str = "-4") -> list[dict[str, Any]]:
    return host.ip_json(family, "route", "show", destination, "table", "main")


def protocols(host: Namespace) -> list[str]:
    """Who laid the default routes, in the order in which the kernel takes them."""
    return [route["protocol"] for route in listed(host)]


def nexthops(host: Namespace) -> set[int]:
    return {nexthop["id"] for nexthop in host.ip_json("nexthop", "show")}


# -- equal routes -----------------------------------------------------------------------------------------------------


def test_ipv4_route_made_without_append_or_exclusive_stands_in_front_of_the_equal_one(host: Namespace) -> None:
    shadow(host)
    assert protocols(host) == [OURS, "boot"]
    host.ip("route", "append", "default", "via", OTHER_GATEWAY, "dev", "nic0", "proto", "static")
    assert protocols(host) == [OURS, "boot", "static"]
    with pytest.raises(CommandFailedError, match="File exists"):
        host.ip("route", "add", "default", "via", OTHER_GATEWAY, "dev", "nic0", "proto", "bird")


def test_ipv6_has_no_metric_0_and_prefers_the_smaller_one(host: Namespace) -> None:
    host.batch(["route add 2001:db8:9::/48 dev nic0", "route add 2001:db8:8::/48 dev nic0 metric 0"])
    assert [listed(host, net, "-6")[0]["metric"] for net in ("2001:db8:9::/48", "2001:db8:8::/48")] == [1024, 1024]
    host.ip("-6", "route", "add", "2001:db8:9::/48", "dev", "nic1", "metric", "1023")
    assert host.ip_json("route", "get", "2001:db8:9::9")[0]["dev"] == "nic1"


def test_replacing_a_route_by_itself_is_refused_while_another_stands_in_front(host: Namespace) -> None:
    words = ("default", "via", GATEWAY, "dev", "nic0")
    host.ip("route", "replace", *words)
    shadow(host)
    with pytest.raises(CommandFailedError, match="File exists"):
        host.ip("route", "replace", *words)
    assert protocols(host) == [OURS, "boot"]


def test_replacement_overwrites_the_route_in_front_and_tells_no_deletion(host: Namespace) -> None:
    shadow(host)
    with Notifications(host) as notifications:
        host.ip("route", "replace", "default", "via", OTHER_GATEWAY, "dev", "nic0")
        (told,) = notifications.pending()
    assert (told.kind, told.flags & netlink.NLM_F_REPLACE) == (netlink.RTM_NEWROUTE, netlink.NLM_F_REPLACE)
    assert [(r["protocol"], r["gateway"]) for r in listed(host)] == [("boot", OTHER_GATEWAY), ("boot", GATEWAY)]


@pytest.mark.parametrize(
    ("words", "left"),
    [("", "boot"), (f"via {GATEWAY}", OURS), ("dev nic0", OURS), ("proto boot", OURS)],
)
@pytest.mark.parametrize("metric", [0, 100])
def test_deletion_without_more_takes_the_first_route_and_with_more_the_one_that_is_meant(
    host: Namespace, words: str, left: str, metric: int
) -> None:
    if metric:
        host.batch(["route del default", f"route add default via {GATEWAY} dev nic0 metric {metric}"])
    shadow(host, max(metric - 1, 0))
    host.ip("route", "del", "default", *words.split())
    assert protocols(host) == [left]


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


# -- nexthops ---------------------------------------------------------------------------------------------------------


def test_nexthop_of_a_dead_carrier_goes_unannounced_and_does_not_come_back(lab: Lab, host: Namespace) -> None:
    shadow(host)
    carrier = Carrier(host)
    with Notifications(host) as notifications:
        lab.host.nic("nic0").unplug()
        wait_for(lambda: carrier.present("nic0"), lambda there: not there)
        assert nexthops(host) == {LEGS[1], GROUP}
        assert listed(host)[0]["dev"] == "nic1", "outbound healed by itself"
        told = {found.kind for found in notifications.pending()}
    assert netlink.RTM_NEWLINK in told
    assert netlink.RTM_DELNEXTHOP not in told
    lab.host.nic("nic0").plug()
    wait_for(lambda: carrier.present("nic0"))
    assert nexthops(host) == {LEGS[1], GROUP}
    assert {route["dev"] for route in listed(host) if route["protocol"] == OURS} == {"nic1"}
    carrier.close()


def test_group_goes_with_its_last_nexthop_and_takes_its_routes_along(lab: Lab, host: Namespace) -> None:
    shadow(host)
    assert send(host, routes.delete_nexthop(LEGS[0])) == []
    assert (nexthops(host), protocols(host)) == ({LEGS[1], GROUP}, [OURS, "boot"])
    assert send(host, routes.delete_nexthop(LEGS[1])) == []
    assert (nexthops(host), protocols(host)) == (set(), ["boot"])


def test_group_may_not_be_emptied(host: Namespace) -> None:
    shadow(host)
    assert len(send(host, routes.set_group(GROUP, ()))) == 1
    assert nexthops(host) == {*LEGS, GROUP}


def on_link(lab: Lab, prefix: str, nics: tuple[str, ...]) -> None:
    """A shadow of a connected prefix, over these members."""
    network = ip_network(prefix)
    legs = [
        routes.add_leg(n, Leg(lab.host.nic(nic).index), network.version)
        for nic, n in zip(nics, ON_LINK_LEGS, strict=False)
    ]
    metric = {4: 0, 6: 255}[network.version]
    way = routes.set_group(ON_LINK_GROUP, ON_LINK_LEGS[: len(nics)])
    route = routes.add_shadow(routes.prefix_of(network), metric, ON_LINK_GROUP, None, gateway=False)
    assert send(lab.host.namespace, *legs, way, route) == []


def test_ipv6_gateway_is_taken_without_onlink_once_its_prefix_is_known_by_that_member(
    lab: Lab, host: Namespace
) -> None:
    gateway = "2001:db8:0:1::201"
    without = routes.add_leg(31, Leg(lab.host.nic("nic1").index, ip_address(gateway).packed), 6)

    def onlink() -> None:
        with pytest.raises(CommandFailedError, match="Nexthop has invalid gateway or device mismatch"):
            host.ip("-6", "nexthop", "add", "id", "32", "via", gateway, "dev", "nic1", "onlink")

    onlink()
    assert len(send(host, without)) == 1
    on_link(lab, PREFIX6, ("nic0", "nic1"))
    onlink()
    assert send(host, without) == []
    assert 31 in nexthops(host)


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ("", "boot"),
        ("via 2001:db8:0:1::201 dev nic0", "boot"),
        ("via 2001:db8:0:1::201 dev nic0 metric 1024", OURS),
        ("proto boot", OURS),
    ],
)
def test_ipv6_deletion_takes_a_route_by_nexthops_whatever_gateway_and_device_it_names(
    lab: Lab, host: Namespace, words: str, left: str
) -> None:
    host.ip("-6", "route", "add", "default", "via", "2001:db8:0:1::201", "dev", "nic0")
    on_link(lab, PREFIX6, ("nic0",))
    gateway = Leg(lab.host.nic("nic0").index, ip_address("2001:db8:0:1::201").packed)
    default = routes.prefix_of(ip_network("::/0"))
    way = (routes.add_leg(41, gateway, 6), routes.set_group(40, (41,)))
    assert send(host, *way, routes.add_shadow(default, 1023, 40, None, gateway=True)) == []
    host.ip("-6", "route", "del", "default", *words.split())
    assert [route["protocol"] for route in listed(host, "default", "-6")] == [left]


def test_link_local_gateway_is_always_taken(lab: Lab, host: Namespace) -> None:
    gateway = ip_address("fe80::201").packed
    assert send(host, routes.add_leg(33, Leg(lab.host.nic("nic1").index, gateway), 6)) == []


def test_ipv4_gateway_is_taken_onlink_and_refused_without(lab: Lab, host: Namespace) -> None:
    with pytest.raises(CommandFailedError, match="invalid gateway"):
        host.ip("nexthop", "add", "id", "34", "via", GATEWAY, "dev", "nic1")
    host.ip("nexthop", "add", "id", "34", "via", GATEWAY, "dev", "nic1", "onlink")


def test_shadow_of_a_prefix_hides_it_from_a_gateway_on_a_member_that_it_leaves_out(lab: Lab, host: Namespace) -> None:
    on_link(lab, PREFIX, ("nic1",))
    route = ("198.19.5.0/24", "via", OTHER_GATEWAY, "dev", "nic0")
    with pytest.raises(CommandFailedError, match="Nexthop has invalid gateway"):
        host.ip("route", "add", *route)
    host.ip("route", "add", *route, "onlink")
    assert listed(host)[0]["dev"] == "nic0", "and what was laid before stays"


# -- other ways to lay an IPv6 shadow ---------------------------------------------------------------------------------


GATEWAYS6 = ("2001:db8:0:1::201", "2001:db8:0:1::202")
REMOTE6 = "2001:db8:9::1"


@pytest.fixture
def equal(lab: Lab, host: Namespace) -> Namespace:
    """A host whose IPv6 default route has a shadow of the same metric behind it, with the better router preference."""
    on_link(lab, PREFIX6, ("nic0",))
    host.ip("-6", "route", "add", "default", "via", GATEWAYS6[0], "dev", "nic0", "proto", "static")
    host.ip("nexthop", "add", "id", "41", "via", GATEWAYS6[0], "dev", "nic0")
    host.ip("nexthop", "add", "id", "40", "group", "41")
    host.ip("-6", "route", "append", "default", "nhid", "40", "proto", OURS, "metric", "1024", "pref", "high")
    return host


def chosen(host: Namespace) -> str:
    """Who laid the IPv6 route that a packet takes."""
    return str(host.ip_json("-6", "route", "get", REMOTE6)[0]["protocol"])


def test_ipv6_shadow_of_the_same_metric_is_chosen_by_its_preference_and_found_last(equal: Namespace) -> None:
    assert [route["protocol"] for route in listed(equal, "default", "-6")] == ["static", OURS]
    assert chosen(equal) == OURS
    equal.ip("-6", "route", "del", "default", "via", GATEWAYS6[0], "dev", "nic0")
    assert [route["protocol"] for route in listed(equal, "default", "-6")] == [OURS]


def test_second_ipv6_gateway_hides_a_shadow_of_the_same_metric_from_dumps_and_its_deletion_hits_it(
    equal: Namespace,
) -> None:
    equal.ip("-6", "route", "append", "default", "via", GATEWAYS6[1], "dev", "nic0", "proto", "static")
    assert [route["protocol"] for route in listed(equal, "default", "-6")] == ["static"]
    assert chosen(equal) == OURS, "it is there all the same"
    equal.ip("-6", "route", "del", "default", "via", GATEWAYS6[1], "dev", "nic0", "metric", "1024")
    (route,) = listed(equal, "default", "-6")
    assert [leg["gateway"] for leg in route["nexthops"]] == list(GATEWAYS6), "what was meant is still there"
    assert chosen(equal) == "static", "and the shadow is not"


def test_ipv6_shadow_of_the_same_metric_keeps_its_owner_from_laying_the_route_again(equal: Namespace) -> None:
    owners = ("default", "via", GATEWAYS6[0], "dev", "nic0")
    equal.ip("-6", "route", "del", *owners)
    with pytest.raises(CommandFailedError, match="File exists"):
        equal.ip("-6", "route", "add", *owners)


def test_ipv6_shadow_of_the_same_metric_loses_to_a_route_of_high_preference(equal: Namespace) -> None:
    equal.ip("-6", "route", "replace", "default", "via", GATEWAYS6[0], "dev", "nic0", "proto", "ra", "pref", "high")
    assert chosen(equal) == "ra"


def test_ipv6_route_by_nexthops_cannot_be_kept_apart_by_a_source(equal: Namespace) -> None:
    with pytest.raises(CommandFailedError, match="can not be used with source routing"):
        equal.ip("-6", "route", "add", "default", "from", "::/1", "nhid", "40", "proto", OURS)


def test_halves_of_a_prefix_beat_a_route_to_the_whole_whatever_its_metric(equal: Namespace) -> None:
    equal.ip("-6", "route", "add", "default", "dev", "nic1", "metric", "5", "proto", "bird")
    assert chosen(equal) == "bird"
    for half in ("::/1", "8000::/1"):
        equal.ip("-6", "route", "add", half, "nhid", "40", "proto", OURS, "metric", "2000")
    assert chosen(equal) == OURS
