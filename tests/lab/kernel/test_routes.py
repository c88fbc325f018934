"""Twins in a real kernel: the host's own routes are never edited, and follow the members that work."""

from __future__ import annotations

import asyncio
import json
import time
from functools import partial
from ipaddress import IPv4Interface, ip_address, ip_interface
from operator import eq, le
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core.actions import Announce, Move, MoveAddresses, SetOutbound
from ipmp_agent.core.events import Family, InterfaceVanished, LinkChanged, RoutersChanged
from ipmp_agent.core.reasons import Reason
from ipmp_api.types import InterfaceMatch, Member
from tests.lab import CommandFailedError, Lab, PingTrain, wait_for
from tests.lab.kernel.running import GROUP, kernel_group, where

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab.kernel.running import RunningKernel

NODE4, NODE6 = ip_interface("198.18.0.50/24"), ip_interface("2001:db8:0:1::50/64")
BOTH = ("nic0", "nic1")
OURS = "73"  # 0x49 as `ip` prints a protocol without a name


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A host with its address and its default routes on nic0, as an installer would leave it, and a router."""
    addresses = {"nic0": (str(NODE4), str(NODE6))}
    with Lab(router=True, nic_addresses=addresses) as running:
        running.host.namespace.batch(
            ["route add default via 198.18.0.1 dev nic0", "route add default via 2001:db8:0:1::1 dev nic0"]
        )
        yield running


@pytest.fixture
def group(lab: Lab, kernel: RunningKernel) -> RunningKernel:
    """A group that has taken over: both members carry, IPv4 test addresses on both."""
    kernel.configure(configuration())
    for nic in BOTH:
        kernel.await_test_address(nic, Family.IPV4)
    kernel.perform(SetOutbound(BOTH, BOTH))
    wait_for(lambda: twin(lab, "default"), lambda legs: legs == set(BOTH), what="twin of the default route")
    return kernel


def configuration(**changes: Any) -> Any:
    tests = [
        Member(InterfaceMatch(name=n), test_ipv4=IPv4Interface(f"198.18.0.{101 + i}/24")) for i, n in enumerate(BOTH)
    ]
    return kernel_group(*tests, **({"addresses": (NODE4, NODE6)} | changes))


def listed(lab: Lab, destination: str, family: str = "-4", protocol: str | None = None) -> list[dict[str, Any]]:
    words = ["protocol", protocol] if protocol else []
    return lab.host.namespace.ip_json(family, "route", "show", destination, "table", "main", *words)


def twin(lab: Lab, destination: str, family: str = "-4", table: str = OURS) -> set[str]:
    """The members that our twin of a destination leaves by."""
    try:
        found = lab.host.namespace.ip_json(family, "route", "show", destination, "table", table)
    except CommandFailedError:
        return set()  # the kernel makes a table with its first route
    assert len(found) <= 1
    return {hop["dev"] for route in found for hop in route.get("nexthops", [route])}


def chosen(lab: Lab, target: str) -> dict[str, Any]:
    """What the kernel would do with a packet of a program that chooses nothing."""
    return lab.host.namespace.ip_json("route", "get", target)[0]


def move(source: str, destination: str, *addresses: Any) -> MoveAddresses:
    return MoveAddresses(tuple(Move(a, source, destination, Reason.FAILOVER) for a in addresses or (NODE4, NODE6)))


def fail(kernel: RunningKernel, failed: str = "nic0", other: str = "nic1") -> None:
    """What the core orders when a member fails."""
    kernel.perform(move(failed, other), SetOutbound((other,), (other,)), Announce(other, (NODE4, NODE6)))


def repair(kernel: RunningKernel) -> None:
    kernel.perform(move("nic1", "nic0"), SetOutbound(BOTH, BOTH), Announce("nic0", (NODE4, NODE6)))


def reaches(lab: Lab, target: str) -> bool:
    with PingTrain(lab.host.namespace, target, spacing=0.02) as train:
        time.sleep(0.1)
    return train.report().lost < len(train.report().sent)


# -- what is laid -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["-4", "-6"])
@pytest.mark.parametrize("destination", ["default", "prefix"])
def test_every_route_by_a_member_has_a_twin_over_all(
    lab: Lab, group: RunningKernel, family: str, destination: str
) -> None:
    prefix = {"-4": "198.18.0.0/24", "-6": "2001:db8:0:1::/64"}[family]
    assert wait_for(lambda: twin(lab, destination.replace("prefix", prefix), family)) == set(BOTH)


def test_only_ipv4_gateways_are_taken_to_be_on_the_link_and_legs_are_in_the_route(
    lab: Lab, group: RunningKernel
) -> None:
    wait_for(lambda: twin(lab, "default", "-6"), lambda legs: legs == set(BOTH))
    gateways = []
    for family in ("-4", "-6"):
        (route,) = lab.host.namespace.ip_json(family, "route", "show", "default", "table", OURS)
        assert route["protocol"] == OURS
        gateways += [(hop["gateway"], hop["dev"], hop["flags"]) for hop in route["nexthops"]]
    expected = [("198.18.0.1", nic, ["onlink"]) for nic in BOTH] + [("2001:db8:0:1::1", nic, []) for nic in BOTH]
    assert sorted(gateways) == sorted(expected)
    # The kernel takes no IPv6 route by several interfaces without a gateway but by a nexthop group.
    found = lab.host.namespace.ip_json("nexthop", "show")
    assert sorted((n.get("dev", ""), n["protocol"]) for n in found) == [("", OURS), ("nic0", OURS), ("nic1", OURS)]


def test_the_foreign_routes_stand_untouched_beside(lab: Lab, group: RunningKernel) -> None:
    assert [r["dev"] for r in listed(lab, "default") if r["protocol"] == "boot"] == ["nic0"]
    assert [r["dev"] for r in listed(lab, "198.18.0.0/24") if r["protocol"] == "kernel"] == ["nic0"]


@pytest.mark.parametrize("target", ["198.19.0.2", "2001:db8:0:2::2", "198.18.0.201"])
def test_the_source_address_of_the_node_stays(lab: Lab, group: RunningKernel, target: str) -> None:
    node = str((NODE6 if ":" in target else NODE4).ip)
    wait_for(lambda: chosen(lab, target), lambda route: route["prefsrc"] == node)
    fail(group)
    wait_for(lambda: chosen(lab, target), lambda route: (route["dev"], route["prefsrc"]) == ("nic1", node))


def test_traffic_through_the_router_survives_a_silent_failure_and_the_repair(lab: Lab, group: RunningKernel) -> None:
    remote = lab.hosts["remote"]
    for target in (remote.ipv4, remote.ipv6):
        wait_for(partial(reaches, lab, target))
    lab.host.nic("nic0").silence()
    fail(group)
    for target in (remote.ipv4, remote.ipv6):
        wait_for(partial(reaches, lab, target))
    lab.host.nic("nic0").restore()
    repair(group)
    wait_for(lambda: twin(lab, "default"), lambda legs: legs == set(BOTH))
    for target in (remote.ipv4, remote.ipv6):
        wait_for(partial(reaches, lab, target))


def test_a_failed_cable_heals_outbound_and_the_leg_comes_back_with_the_member(lab: Lab, group: RunningKernel) -> None:
    lab.host.nic("nic0").unplug()
    group.await_event(LinkChanged)
    # The kernel drops the leg by itself, a moment after the driver has said so.
    wait_for(lambda: twin(lab, "default"), partial(eq, {"nic1"}))
    fail(group)
    lab.host.nic("nic0").plug()
    group.await_event(LinkChanged, lambda e: e.up)
    assert twin(lab, "default") == {"nic1"}, "and does not bring it back"
    repair(group)
    for destination, family in (("default", "-4"), ("default", "-6"), ("198.18.0.0/24", "-4")):
        wait_for(partial(twin, lab, destination, family), lambda legs: legs == set(BOTH))


def test_the_hosts_own_routes_are_back_after_the_repair(lab: Lab, group: RunningKernel) -> None:
    def read() -> dict[str, Any]:
        return {f: [r for r in listed(lab, "default", f) if r["protocol"] == "boot"] for f in ("-4", "-6")}

    before = read()
    fail(group)
    repair(group)
    wait_for(read, lambda now: now == before)


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_all_routes_follow_when_a_carrier_returns_after_every_one_was_lost(
    lab: Lab, group: RunningKernel, family: str
) -> None:
    prefix = {"-4": "198.18.0.0/24", "-6": "2001:db8:0:1::/64"}[family]
    wait_for(lambda: twin(lab, "default", family), lambda legs: legs == set(BOTH))
    for nic in BOTH:
        lab.host.nic(nic).unplug()
        group.await_event(LinkChanged, partial(eq, LinkChanged(nic, up=False)))
    lab.host.nic("nic1").plug()
    for destination in (prefix, "default"):
        wait_for(partial(twin, lab, destination, family), partial(eq, {"nic1"}))


def test_a_member_without_an_ipv4_address_carries_no_ipv4(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=(NODE4, NODE6)))
    kernel.perform(SetOutbound(BOTH, BOTH))
    assert wait_for(lambda: twin(lab, "default")) == {"nic0"}
    wait_for(lambda: twin(lab, "default", "-6"), lambda legs: legs == set(BOTH))
    kernel.perform(move("nic0", "nic1"))
    wait_for(lambda: twin(lab, "default"), lambda legs: legs == {"nic1"})


def test_a_member_carries_as_soon_as_its_test_address_is_there(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(configuration())
    kernel.perform(SetOutbound(BOTH, BOTH))  # the core is faster than the check for duplicates
    assert twin(lab, "default") <= {"nic0"}
    wait_for(lambda: twin(lab, "default"), lambda legs: legs == set(BOTH), deadline=5)


def test_a_member_without_a_link_local_address_carries_no_ipv6_while_another_has_one(
    lab: Lab, group: RunningKernel
) -> None:
    """NetworkManager takes it away from a device for which it has no profile."""
    host = lab.host
    for nic in ("nic1", "nic0"):
        host.namespace.ip("address", "add", "2001:db8:0:3::" + nic[-1], "dev", nic, "nodad")
        host.namespace.ip("-6", "address", "flush", "dev", nic, "scope", "link")
        left = {"nic0"} if nic == "nic1" else set(BOTH)
        wait_for(lambda: twin(lab, "default", "-6"), partial(eq, left), what=f"legs {left}")
    for nic in BOTH:
        host.namespace.ip("address", "add", "fe80::1:" + nic[-1], "dev", nic)
    wait_for(lambda: host.namespace.ip_json("-6", "address", "show", "scope", "link", "tentative"), lambda a: not a)
    wait_for(lambda: twin(lab, "default", "-6"), lambda legs: legs == set(BOTH))
    assert reaches(lab, "2001:db8:0:2::2")


def test_an_empty_order_leaves_the_groups_as_they_are(lab: Lab, group: RunningKernel) -> None:
    group.perform(SetOutbound((), ()))
    group.run(lambda k: k.reconcile(GROUP))
    assert twin(lab, "default") == set(BOTH)


def test_addresses_of_ours_alone_bring_their_prefix_with_them(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.namespace.batch(["address flush dev nic0 scope global"])
    kernel.configure(kernel_group(addresses=(NODE4, NODE6)))
    kernel.perform(*(MoveAddresses((Move(a, None, "nic0", Reason.ADDRESS_ADDED),)) for a in (NODE4, NODE6)))
    kernel.perform(SetOutbound(BOTH, BOTH))
    wait_for(lambda: twin(lab, "198.18.0.0/24"), lambda legs: legs == {"nic0"})
    wait_for(lambda: twin(lab, "2001:db8:0:1::/64", "-6"), lambda legs: legs == set(BOTH))
    assert chosen(lab, "198.18.0.201")["prefsrc"] == str(NODE4.ip)
    kernel.perform(*(MoveAddresses((Move(a, "nic0", None, Reason.ADDRESS_REMOVED),)) for a in (NODE4, NODE6)))
    wait_for(lambda: twin(lab, "198.18.0.0/24"), lambda legs: not legs)


# -- other ways out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "metrics"), [("-4", (100, 200)), ("-6", (512, 2048))])
def test_a_better_route_by_another_interface_stays_better(
    lab: Lab, kernel: RunningKernel, family: str, metrics: tuple[int, int]
) -> None:
    net = {"-4": "198.19.9.0/24", "-6": "2001:db8:9::/48"}[family]
    better, worse = metrics
    lab.host.namespace.batch(
        [
            "link add name mgmt type veth peer name mgmt-far",
            "link set mgmt up",
            "link set mgmt-far up",
            f"{family[1:] and ''}route add {net} dev mgmt metric {better}",
            f"route add {net} dev nic0 metric {worse}",
        ]
    )
    kernel.configure(configuration())
    kernel.perform(SetOutbound(BOTH, BOTH))
    wait_for(lambda: twin(lab, net, family))
    target = {"-4": "198.19.9.9", "-6": "2001:db8:9::9"}[family]
    assert chosen(lab, target)["dev"] == "mgmt"
    lab.host.namespace.ip("route", "del", net, "dev", "mgmt")
    assert chosen(lab, target)["table"] == OURS
    assert lab.host.namespace.ip_json(family, "route", "show", net, "table", OURS)[0]["metric"] == worse


def test_multipath_routes_over_members_have_twins_with_all_their_gateways(lab: Lab, group: RunningKernel) -> None:
    lab.host.namespace.ip(
        "route", "add", "198.19.8.0/24",
        "nexthop", "via", "198.18.0.201", "dev", "nic0", "nexthop", "via", "198.18.0.202", "dev", "nic0",
    )  # fmt: skip
    wait_for(lambda: twin(lab, "198.19.8.0/24"), lambda legs: legs == set(BOTH))
    (route,) = lab.host.namespace.ip_json("route", "show", "198.19.8.0/24", "table", OURS)
    assert {(hop["gateway"], hop["dev"]) for hop in route["nexthops"]} == {
        (gateway, nic) for gateway in ("198.18.0.201", "198.18.0.202") for nic in BOTH
    }


def test_tables_that_no_rule_leads_to_and_other_interfaces_are_left_alone(lab: Lab, group: RunningKernel) -> None:
    lab.host.namespace.batch(
        [
            "route add 198.19.5.0/24 dev nic0 table 77",
            "link add name mgmt type veth peer name mgmt-far",
            "link set mgmt up",
            "route add 198.19.6.0/24 dev mgmt",
            "route add blackhole 198.19.7.0/24",
        ]
    )
    group.run(lambda k: k.reconcile(GROUP))
    assert [twin(lab, f"198.19.{n}.0/24") for n in (5, 6, 7)] == [set(), set(), set()]


# -- live changes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "route"),
    [("-4", "198.19.9.0/24 via 198.18.0.201 dev nic0"), ("-6", "2001:db8:9::/48 via 2001:db8:0:1::201 dev nic0")],
)
def test_a_foreign_route_takes_its_twin_with_it(lab: Lab, group: RunningKernel, family: str, route: str) -> None:
    net = route.split(maxsplit=1)[0]
    lab.host.namespace.ip("route", "add", *route.split(), "proto", "bird")
    wait_for(lambda: twin(lab, net, family), lambda legs: legs == set(BOTH))
    lab.host.namespace.ip("route", "del", *route.split(), "proto", "bird")
    wait_for(lambda: twin(lab, net, family), lambda legs: not legs)


def test_a_default_route_replaced_by_its_owner_is_followed(lab: Lab, group: RunningKernel) -> None:
    for _ in range(2):  # the second time nothing changes, and nothing is refused
        lab.host.namespace.ip("route", "replace", "default", "via", "198.18.0.202", "dev", "nic0")
        wait_for(lambda: ways(lab, "default"), lambda now: now == {("198.18.0.202", nic) for nic in BOTH})
        assert [(route["protocol"], route["gateway"]) for route in listed(lab, "default")] == [("boot", "198.18.0.202")]


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("-4", ""),
        ("-4", "via 198.18.0.1"),
        ("-4", "dev nic0"),
        ("-6", ""),
        ("-6", "via 2001:db8:0:1::1 dev nic0"),
        ("-6", "proto boot"),
    ],
)
def test_a_deletion_takes_the_owners_route_whatever_words_it_uses(
    lab: Lab, group: RunningKernel, family: str, words: str
) -> None:
    wait_for(lambda: twin(lab, "default", family), lambda legs: legs == set(BOTH))
    lab.host.namespace.ip(family, "route", "del", "default", *words.split())
    assert listed(lab, "default", family) == []
    wait_for(lambda: twin(lab, "default", family), lambda legs: not legs)
    assert group.call(lambda k: k.counters["foreign_changes"]) == 0


def ways(lab: Lab, destination: str, family: str = "-4", table: str = OURS) -> set[tuple[str, str]]:
    """Gateways and members of our twin."""
    found = lab.host.namespace.ip_json(family, "route", "show", destination, "table", table)
    return {(hop["gateway"], hop["dev"]) for route in found for hop in route.get("nexthops", [route])}


@pytest.mark.parametrize(
    ("family", "others"), [("-4", ("198.18.0.1", "198.18.0.202")), ("-6", ("2001:db8:0:1::1", "2001:db8:0:1::202"))]
)
def test_several_routers_of_one_metric_are_all_of_them_ways(
    lab: Lab, group: RunningKernel, family: str, others: tuple[str, str]
) -> None:
    lab.host.namespace.ip(family, "route", "append", "default", "via", others[1], "dev", "nic0")
    wait_for(lambda: ways(lab, "default", family), lambda now: now == {(via, nic) for via in others for nic in BOTH})
    lab.host.namespace.ip(family, "route", "del", "default", "via", others[0], "dev", "nic0")
    wait_for(lambda: ways(lab, "default", family), lambda now: now == {(others[1], nic) for nic in BOTH})


def test_what_somebody_removes_of_ours_is_back(lab: Lab, group: RunningKernel) -> None:
    host = lab.host.namespace
    wait_for(lambda: twin(lab, "default", "-6"), lambda legs: legs == set(BOTH))
    before = [host.run("ip", family, "rule", "show") for family in ("-4", "-6")]
    for count, commands in enumerate(
        (
            [f"route del {net} table {OURS}" for net in ("default", "198.18.0.0/24")],
            ["nexthop flush"],
            [
                f"route flush table {OURS}",
                *(f"-6 route del {d} table {OURS}" for d in ("default", "2001:db8:0:1::/64")),
            ],
            [f"{family} rule flush protocol {OURS}" for family in ("-4", "-6")],
            ["-6 rule del pref 32765"],  # one of four
            ["link set nic0 group default"],
        ),
        1,
    ):
        for command in commands:
            host.ip(*command.split())
        for family, prefix in (("-4", "198.18.0.0/24"), ("-6", "2001:db8:0:1::/64")):
            for destination in ("default", prefix):
                wait_for(partial(twin, lab, destination, family), partial(eq, set(BOTH)))
        now = lambda: [host.run("ip", family, "rule", "show") for family in ("-4", "-6")]  # noqa: E731
        wait_for(now, lambda rules: rules == before, what=f"rules after {commands}")
        if "link" not in commands[0]:
            wait_for(lambda: group.call(lambda k: k.counters["foreign_changes"]), partial(le, min(count, 3)))
    group.run(lambda k: k.reconcile(GROUP))
    assert [host.ip_json("link", "show", "dev", nic)[0]["group"] for nic in BOTH] == [OURS, OURS]


def test_routers_are_told_and_kept_while_their_member_is_down(lab: Lab, kernel: RunningKernel) -> None:
    told = [e for e in kernel.configure(configuration()) if isinstance(e, RoutersChanged)]
    routers = {ip_address("198.18.0.1"), ip_address("2001:db8:0:1::1")}
    assert set(told[-1].routers) == routers
    lab.host.namespace.ip("link", "set", "nic0", "down")
    kernel.await_event(LinkChanged)
    kernel.run(lambda k: k.reconcile(GROUP))
    assert set(kernel.events(RoutersChanged)[-1].routers) == routers
    lab.host.namespace.ip("link", "set", "nic0", "up")
    kernel.await_event(LinkChanged, lambda e: e.up)
    lab.host.namespace.ip("route", "replace", "default", "via", "198.18.0.202", "dev", "nic0")
    kernel.await_event(RoutersChanged, lambda e: ip_address("198.18.0.202") in e.routers)


@pytest.mark.parametrize("carrier", [True, False])
@pytest.mark.parametrize("family", ["-4", "-6"])
def test_somebody_may_lay_a_gateway_by_a_member_that_carries_nothing(
    lab: Lab, group: RunningKernel, family: str, *, carrier: bool
) -> None:
    """As a network daemon does that starts during an outage: the prefix first, for which it has the address.

    The prefix goes behind that of the address where it is now, as the kernel appends the connected route of an address.
    """
    host = lab.host.namespace
    fail(group)
    if not carrier:
        lab.host.nic("nic0").unplug()
        group.await_event(LinkChanged)
    if family == "-4":
        target, gateway = "198.19.7.0/24", "198.18.0.1"
        host.ip("route", "append", "198.18.0.0/24", "dev", "nic0")
    else:
        target, gateway = "2001:db8:7::/48", "2001:db8:0:1::1"
        host.ip("route", "add", "2001:db8:0:1::/64", "dev", "nic0")
    host.ip("route", "add", target, "via", gateway, "dev", "nic0")
    wait_for(lambda: twin(lab, target, family), lambda legs: legs == {"nic1"})


def test_an_adopted_ipv4_address_has_its_connected_route_wherever_it_is(lab: Lab, group: RunningKernel) -> None:
    """Routing daemons go by it. It is nobody's to put back once the address has left."""

    def connected() -> set[str]:
        return {route["dev"] for route in listed(lab, str(NODE4.network), "-4", "kernel")}

    assert connected() == {"nic0"}
    for _ in range(2):
        fail(group)
        wait_for(connected, partial(eq, {"nic1"}))
        group.run(lambda k: k.reconcile(GROUP))
        repair(group)
        wait_for(connected, partial(eq, {"nic0"}))
        group.run(lambda k: k.reconcile(GROUP))
    remembered = group.call(lambda k: k.memory(GROUP))
    assert "nic1" not in str(remembered["routes"])


def test_a_member_that_vanishes_and_returns_gets_its_routes_back(lab: Lab, group: RunningKernel) -> None:
    lab.host.nic("nic0").remove()
    group.await_event(InterfaceVanished)
    group.perform(
        MoveAddresses(tuple(Move(a, None, "nic1", Reason.FAILOVER) for a in (NODE4, NODE6))),
        SetOutbound(("nic1",), ("nic1",)),
    )
    wait_for(lambda: (twin(lab, "default"), where(lab, NODE4)), lambda seen: seen == ({"nic1"}, ["nic1"]))
    nic = lab.host.nic("nic0")
    nic.addresses = ()
    nic.insert(index=91)
    group.await_event(LinkChanged, lambda e: e.up)
    repair(group)
    wait_for(lambda: twin(lab, "default"), lambda legs: legs == set(BOTH))

    def booted(family: str) -> list[tuple[str, str]]:
        return [(r["dev"], r["gateway"]) for r in listed(lab, "default", family) if r["protocol"] == "boot"]

    for family, gateway in (("-4", "198.18.0.1"), ("-6", "2001:db8:0:1::1")):
        wait_for(partial(booted, family), partial(eq, [("nic0", gateway)]))


# -- restart and withdrawal -------------------------------------------------------------------------------------------


def everything(lab: Lab) -> str:
    run = lab.host.namespace.run
    looks = (
        *([family, what] for what in ("route", "rule") for family in ("-4", "-6")),
        *([family, "route", "show", "table", "all", "protocol", OURS] for family in ("-4", "-6")),
        ["nexthop"],
        ["-br", "address"],
        ["-br", "link", "show", "group", OURS],
    )
    return "\n".join(run("ip", *words) for words in looks)


@pytest.mark.parametrize("failed", [False, True])
def test_withdrawal_brings_the_hosts_own_routing_back(lab: Lab, kernel: RunningKernel, *, failed: bool) -> None:
    before = everything(lab)
    kernel.configure(configuration())
    kernel.perform(SetOutbound(BOTH, BOTH))
    wait_for(lambda: twin(lab, "default"))
    if failed:
        fail(kernel)
        wait_for(lambda: twin(lab, "default"), lambda legs: legs == {"nic1"})
    kernel.run(lambda k: k.withdraw(GROUP))
    assert everything(lab) == before


def test_a_restart_while_failed_changes_nothing_and_can_still_restore(
    lab: Lab, start_kernel: Callable[[], RunningKernel]
) -> None:
    before = everything(lab)
    first = start_kernel()
    first.configure(configuration())
    for nic in BOTH:
        first.await_test_address(nic, Family.IPV4)
    first.perform(SetOutbound(BOTH, BOTH))
    wait_for(lambda: twin(lab, "default"), lambda legs: legs == set(BOTH))
    fail(first)
    first.run(lambda k: k.reconcile(GROUP))
    memory = json.loads(json.dumps(first.call(lambda k: k.memory(GROUP))))
    first.close()
    between = everything(lab)
    second = start_kernel()
    second.configure(configuration(), memory)
    second.perform(SetOutbound(("nic1",), ("nic1",)))
    second.run(lambda k: k.reconcile(GROUP))
    assert everything(lab) == between
    second.run(lambda k: k.withdraw(GROUP))
    assert everything(lab) == before


def test_an_order_overtakes_a_comparison_under_way(lab: Lab, group: RunningKernel) -> None:
    nets = [f"198.19.{i // 250 + 16}.{i % 250}/32" for i in range(1000)]
    lab.host.namespace.batch(f"route add {net} via 198.18.0.201 dev nic0 proto bird" for net in nets)
    count = lambda: len(lab.host.namespace.run("ip", "-o", "route", "show", "table", OURS).splitlines())  # noqa: E731
    wait_for(count, lambda n: n >= 1002)
    lab.host.namespace.ip("route", "flush", "table", OURS)

    async def meanwhile(facade: Any) -> None:
        comparing = asyncio.ensure_future(facade.reconcile(GROUP))
        for _ in range(20):
            await asyncio.sleep(0)
        facade.perform(GROUP, SetOutbound(("nic1",), ("nic1",)))
        await comparing

    group.run(meanwhile)
    wait_for(count, lambda n: n >= 1002)
    for destination in ("default", "198.18.0.0/24", "198.19.16.7/32"):
        wait_for(partial(twin, lab, destination), lambda legs: legs == {"nic1"})


def test_a_thousand_routes_have_twins_that_fail_over_together(lab: Lab, group: RunningKernel) -> None:
    nets = [f"198.19.{i // 250 + 16}.{i % 250}/32" for i in range(1000)]
    lab.host.namespace.batch(f"route add {net} via 198.18.0.201 dev nic0 proto bird" for net in nets)
    count = lambda: len(lab.host.namespace.run("ip", "-o", "route", "show", "table", OURS).splitlines())  # noqa: E731
    wait_for(count, lambda n: n >= 1002)
    fail(group)
    time.sleep(0.5)
    wait_for(lambda: chosen(lab, "198.19.17.7"), lambda route: route["dev"] == "nic1")
    repair(group)
    wait_for(
        lambda: len(lab.host.namespace.run("ip", "-o", "route", "show", "protocol", "bird").splitlines()),
        lambda n: n == 1000,
    )
