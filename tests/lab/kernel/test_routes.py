"""Shadow routes in a real kernel: the host's own routing is never edited, and follows the members that work."""

from __future__ import annotations

import asyncio
import json
import time
from functools import partial
from ipaddress import IPv4Interface, ip_address, ip_interface
from operator import eq
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core.actions import Announce, Move, MoveAddresses, SetOutbound
from ipmp_agent.core.events import Family, InterfaceVanished, LinkChanged, RoutersChanged
from ipmp_agent.core.reasons import Reason
from ipmp_api.types import InterfaceMatch, Member
from tests.lab import Lab, PingTrain, wait_for
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
    wait_for(lambda: shadow(lab, "default"), lambda legs: legs == set(BOTH), what="shadow of the default route")
    return kernel


def configuration(**changes: Any) -> Any:
    tests = [
        Member(InterfaceMatch(name=n), test_ipv4=IPv4Interface(f"198.18.0.{101 + i}/24")) for i, n in enumerate(BOTH)
    ]
    return kernel_group(*tests, **({"addresses": (NODE4, NODE6)} | changes))


def listed(lab: Lab, destination: str, family: str = "-4", protocol: str | None = None) -> list[dict[str, Any]]:
    words = ["protocol", protocol] if protocol else []
    return lab.host.namespace.ip_json(family, "route", "show", destination, "table", "main", *words)


def shadow(lab: Lab, destination: str, family: str = "-4") -> set[str]:
    """The members that our shadow of a destination leaves by."""
    found = listed(lab, destination, family, OURS)
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
def test_every_route_by_a_member_has_a_shadow_over_all(
    lab: Lab, group: RunningKernel, family: str, destination: str
) -> None:
    prefix = {"-4": "198.18.0.0/24", "-6": "2001:db8:0:1::/64"}[family]
    assert wait_for(lambda: shadow(lab, destination.replace("prefix", prefix), family)) == set(BOTH)


def test_nexthops_carry_our_tag_and_only_ipv4_gateways_are_taken_to_be_on_the_link(
    lab: Lab, group: RunningKernel
) -> None:
    wait_for(lambda: shadow(lab, "default", "-6"), lambda legs: legs == set(BOTH))
    found = lab.host.namespace.ip_json("nexthop", "show")
    assert {nexthop["protocol"] for nexthop in found} == {OURS}
    gateways = [(n["gateway"], n["dev"], n["flags"]) for n in found if "gateway" in n]
    expected = [("198.18.0.1", nic, ["onlink"]) for nic in BOTH] + [("2001:db8:0:1::1", nic, []) for nic in BOTH]
    assert sorted(gateways) == sorted(expected)


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
    wait_for(lambda: shadow(lab, "default"), lambda legs: legs == set(BOTH))
    for target in (remote.ipv4, remote.ipv6):
        wait_for(partial(reaches, lab, target))


def test_a_failed_cable_heals_outbound_and_the_leg_comes_back_with_the_member(lab: Lab, group: RunningKernel) -> None:
    lab.host.nic("nic0").unplug()
    group.await_event(LinkChanged)
    assert shadow(lab, "default") == {"nic1"}, "the kernel drops the leg by itself"
    fail(group)
    lab.host.nic("nic0").plug()
    group.await_event(LinkChanged, lambda e: e.up)
    assert shadow(lab, "default") == {"nic1"}, "and does not bring it back"
    repair(group)
    for destination, family in (("default", "-4"), ("default", "-6"), ("198.18.0.0/24", "-4")):
        wait_for(partial(shadow, lab, destination, family), lambda legs: legs == set(BOTH))


def test_the_hosts_own_routes_are_back_after_the_repair(lab: Lab, group: RunningKernel) -> None:
    def read() -> dict[str, Any]:
        return {f: [r for r in listed(lab, "default", f) if r["protocol"] == "boot"] for f in ("-4", "-6")}

    before = read()
    fail(group)
    repair(group)
    wait_for(read, lambda now: now == before)


def test_all_routes_come_back_after_every_carrier_was_lost(lab: Lab, group: RunningKernel) -> None:
    for nic in BOTH:
        lab.host.nic(nic).unplug()
        group.await_event(LinkChanged, partial(eq, LinkChanged(nic, up=False)))
    wait_for(lambda: shadow(lab, "default"), lambda legs: not legs)
    lab.host.nic("nic1").plug()
    wait_for(lambda: shadow(lab, "default"), lambda legs: legs == {"nic1"})
    assert shadow(lab, "198.18.0.0/24") == {"nic1"}


def test_a_member_without_an_ipv4_address_carries_no_ipv4(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=(NODE4, NODE6)))
    kernel.perform(SetOutbound(BOTH, BOTH))
    assert wait_for(lambda: shadow(lab, "default")) == {"nic0"}
    wait_for(lambda: shadow(lab, "default", "-6"), lambda legs: legs == set(BOTH))
    kernel.perform(move("nic0", "nic1"))
    wait_for(lambda: shadow(lab, "default"), lambda legs: legs == {"nic1"})


def test_a_member_carries_as_soon_as_its_test_address_is_there(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(configuration())
    kernel.perform(SetOutbound(BOTH, BOTH))  # the core is faster than the check for duplicates
    assert shadow(lab, "default") <= {"nic0"}
    wait_for(lambda: shadow(lab, "default"), lambda legs: legs == set(BOTH), deadline=5)


def test_a_member_without_a_link_local_address_carries_no_ipv6_while_another_has_one(
    lab: Lab, group: RunningKernel
) -> None:
    """NetworkManager takes it away from a device for which it has no profile."""
    host = lab.host
    for nic in ("nic1", "nic0"):
        host.namespace.ip("address", "add", "2001:db8:0:3::" + nic[-1], "dev", nic, "nodad")
        host.namespace.ip("-6", "address", "flush", "dev", nic, "scope", "link")
        left = {"nic0"} if nic == "nic1" else set(BOTH)
        wait_for(lambda: shadow(lab, "default", "-6"), partial(eq, left), what=f"legs {left}")
    for nic in BOTH:
        host.namespace.ip("address", "add", "fe80::1:" + nic[-1], "dev", nic)
    wait_for(lambda: host.namespace.ip_json("-6", "address", "show", "scope", "link", "tentative"), lambda a: not a)
    wait_for(lambda: shadow(lab, "default", "-6"), lambda legs: legs == set(BOTH))
    assert reaches(lab, "2001:db8:0:2::2")


def test_an_empty_order_leaves_the_groups_as_they_are(lab: Lab, group: RunningKernel) -> None:
    group.perform(SetOutbound((), ()))
    group.run(lambda k: k.reconcile(GROUP))
    assert shadow(lab, "default") == set(BOTH)


def test_addresses_of_ours_alone_bring_their_prefix_with_them(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.namespace.batch(["address flush dev nic0 scope global"])
    kernel.configure(kernel_group(addresses=(NODE4, NODE6)))
    kernel.perform(*(MoveAddresses((Move(a, None, "nic0", Reason.ADDRESS_ADDED),)) for a in (NODE4, NODE6)))
    kernel.perform(SetOutbound(BOTH, BOTH))
    wait_for(lambda: shadow(lab, "198.18.0.0/24"), lambda legs: legs == {"nic0"})
    wait_for(lambda: shadow(lab, "2001:db8:0:1::/64", "-6"), lambda legs: legs == set(BOTH))
    assert chosen(lab, "198.18.0.201")["prefsrc"] == str(NODE4.ip)
    kernel.perform(*(MoveAddresses((Move(a, "nic0", None, Reason.ADDRESS_REMOVED),)) for a in (NODE4, NODE6)))
    wait_for(lambda: shadow(lab, "198.18.0.0/24"), lambda legs: not legs)


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
    wait_for(lambda: shadow(lab, net, family))
    target = {"-4": "198.19.9.9", "-6": "2001:db8:9::9"}[family]
    assert chosen(lab, target)["dev"] == "mgmt"
    lab.host.namespace.ip("route", "del", net, "dev", "mgmt")
    assert listed(lab, net, family, OURS)[0]["metric"] == worse - 1


def test_multipath_routes_over_members_are_shadowed_with_all_their_gateways(lab: Lab, group: RunningKernel) -> None:
    lab.host.namespace.ip(
        "route", "add", "198.19.8.0/24",
        "nexthop", "via", "198.18.0.201", "dev", "nic0", "nexthop", "via", "198.18.0.202", "dev", "nic0",
    )  # fmt: skip
    wait_for(lambda: shadow(lab, "198.19.8.0/24"), lambda legs: legs == set(BOTH))
    (route,) = listed(lab, "198.19.8.0/24", "-4", OURS)
    assert {(hop["gateway"], hop["dev"]) for hop in route["nexthops"]} == {
        (gateway, nic) for gateway in ("198.18.0.201", "198.18.0.202") for nic in BOTH
    }


def test_other_tables_and_other_interfaces_are_left_alone(lab: Lab, group: RunningKernel) -> None:
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
    assert [shadow(lab, f"198.19.{n}.0/24") for n in (5, 6, 7)] == [set(), set(), set()]


# -- live changes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "route"),
    [("-4", "198.19.9.0/24 via 198.18.0.201 dev nic0"), ("-6", "2001:db8:9::/48 via 2001:db8:0:1::201 dev nic0")],
)
def test_a_foreign_route_takes_its_shadow_with_it(lab: Lab, group: RunningKernel, family: str, route: str) -> None:
    net = route.split(maxsplit=1)[0]
    lab.host.namespace.ip("route", "add", *route.split(), "proto", "bird")
    wait_for(lambda: shadow(lab, net, family), lambda legs: legs == set(BOTH))
    lab.host.namespace.ip("route", "del", *route.split(), "proto", "bird")
    wait_for(lambda: shadow(lab, net, family), lambda legs: not legs)


def test_a_default_route_replaced_by_its_owner_is_followed(lab: Lab, group: RunningKernel) -> None:
    # Metric 0: the kernel replaces the first route of its key, which is the shadow, and says nothing of it.
    lab.host.namespace.ip("route", "replace", "default", "via", "198.18.0.202", "dev", "nic0")

    def gateways() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for route in listed(lab, "default"):
            hops = route.get("nexthops", [route])
            found.setdefault(route["protocol"], set()).update(hop["gateway"] for hop in hops)
        return found

    wait_for(gateways, lambda now: now == {OURS: {"198.18.0.202"}, "boot": {"198.18.0.202"}})
    assert shadow(lab, "default") == set(BOTH)


@pytest.mark.parametrize(
    ("family", "unclear", "clear"),
    [
        ("-4", "", "via 198.18.0.1"),
        ("-4", "", "dev nic0"),
        ("-6", "via 2001:db8:0:1::1 dev nic0", "via 2001:db8:0:1::1 dev nic0 metric 1024"),
        ("-6", "", "proto boot"),
    ],
)
def test_a_default_route_is_deleted_by_who_names_it_and_by_nobody_else(
    lab: Lab, group: RunningKernel, family: str, unclear: str, clear: str
) -> None:
    # Words that fit the shadow, too, delete the shadow. The agent cannot tell that from a network manager that removes
    # what it does not know, and the node would be cut off if it did the rest.
    wait_for(lambda: shadow(lab, "default", family), lambda legs: legs == set(BOTH))
    lab.host.namespace.ip(family, "route", "del", "default", *unclear.split())
    wait_for(lambda: group.call(lambda k: k.counters["foreign_changes"]), lambda n: n == 1)
    assert shadow(lab, "default", family) == set(BOTH)
    assert [route["protocol"] for route in listed(lab, "default", family)] == [OURS, "boot"]
    lab.host.namespace.ip(family, "route", "del", "default", *clear.split())
    wait_for(lambda: listed(lab, "default", family), lambda routes: not routes)


def test_a_route_that_was_put_in_front_of_a_shadow_gets_behind_it(lab: Lab, group: RunningKernel) -> None:
    lab.host.namespace.ip("route", "prepend", "default", "via", "198.18.0.202", "dev", "nic0")
    wait_for(lambda: [r["protocol"] for r in listed(lab, "default")], lambda seen: seen[0] == OURS)


def test_shadows_and_groups_that_somebody_removes_are_back(lab: Lab, group: RunningKernel) -> None:
    lab.host.namespace.batch([f"route del {net} proto {OURS}" for net in ("default", "198.18.0.0/24")])
    wait_for(lambda: shadow(lab, "default"), lambda legs: legs == set(BOTH))
    lab.host.namespace.ip("nexthop", "flush")
    for family in ("-4", "-6"):
        wait_for(partial(shadow, lab, "default", family), lambda legs: legs == set(BOTH))
    assert group.call(lambda k: k.counters["foreign_changes"]) >= 2


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
    """As a network daemon does that starts during an outage: the prefix first, for which it has the address."""
    host = lab.host.namespace
    fail(group)
    if not carrier:
        lab.host.nic("nic0").unplug()
        group.await_event(LinkChanged)
    if family == "-4":
        target, gateway = "198.19.7.0/24", "198.18.0.1"
    else:
        target, gateway = "2001:db8:7::/48", "2001:db8:0:1::1"
        host.ip("route", "add", "2001:db8:0:1::/64", "dev", "nic0")
    host.ip("route", "add", target, "via", gateway, "dev", "nic0")
    wait_for(lambda: shadow(lab, target, family), lambda legs: legs == {"nic1"})


def test_byways_follow_the_prefixes_and_are_asked_only_where_main_has_no_answer(lab: Lab, group: RunningKernel) -> None:
    def laid() -> set[tuple[str, str]]:
        found = lab.host.namespace.ip_json("route", "show", "table", "default", "protocol", OURS)
        return {(route["dst"], route["dev"]) for route in found}

    prefix = {("198.18.0.0/24", nic) for nic in BOTH}
    wait_for(laid, lambda found: found == prefix)
    fail(group)
    assert chosen(lab, "198.18.0.201")["dev"] == "nic1"
    host = lab.host.namespace
    host.ip("route", "add", "198.19.7.0/24", "dev", "nic0")
    wait_for(laid, lambda found: found == prefix | {("198.19.7.0/24", nic) for nic in BOTH})
    host.ip("route", "del", "198.19.7.0/24", "dev", "nic0")
    wait_for(laid, lambda found: found == prefix)
    host.ip("route", "flush", "table", "default")
    wait_for(laid, lambda found: found == prefix)
    host.ip("link", "set", "nic0", "down")
    wait_for(laid, lambda found: found == {("198.18.0.0/24", "nic1")})
    host.ip("link", "set", "nic0", "up")
    wait_for(laid, lambda found: found == prefix)


def test_a_member_that_vanishes_and_returns_gets_its_routes_back(lab: Lab, group: RunningKernel) -> None:
    lab.host.nic("nic0").remove()
    group.await_event(InterfaceVanished)
    group.perform(
        MoveAddresses(tuple(Move(a, None, "nic1", Reason.FAILOVER) for a in (NODE4, NODE6))),
        SetOutbound(("nic1",), ("nic1",)),
    )
    wait_for(lambda: (shadow(lab, "default"), where(lab, NODE4)), lambda seen: seen == ({"nic1"}, ["nic1"]))
    nic = lab.host.nic("nic0")
    nic.addresses = ()
    nic.insert(index=91)
    group.await_event(LinkChanged, lambda e: e.up)
    repair(group)
    wait_for(lambda: shadow(lab, "default"), lambda legs: legs == set(BOTH))

    def booted(family: str) -> list[tuple[str, str]]:
        return [(r["dev"], r["gateway"]) for r in listed(lab, "default", family) if r["protocol"] == "boot"]

    for family, gateway in (("-4", "198.18.0.1"), ("-6", "2001:db8:0:1::1")):
        wait_for(partial(booted, family), partial(eq, [("nic0", gateway)]))


# -- restart and withdrawal -------------------------------------------------------------------------------------------


def everything(lab: Lab) -> str:
    run = lab.host.namespace.run
    return "\n".join(run("ip", *words) for words in (["-4", "route"], ["-6", "route"], ["nexthop"], ["-br", "address"]))


@pytest.mark.parametrize("failed", [False, True])
def test_withdrawal_brings_the_hosts_own_routing_back(lab: Lab, kernel: RunningKernel, *, failed: bool) -> None:
    before = everything(lab)
    kernel.configure(configuration())
    kernel.perform(SetOutbound(BOTH, BOTH))
    wait_for(lambda: shadow(lab, "default"))
    if failed:
        fail(kernel)
        wait_for(lambda: shadow(lab, "default"), lambda legs: legs == {"nic1"})
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
    wait_for(lambda: shadow(lab, "default"), lambda legs: legs == set(BOTH))
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
    count = lambda: len(lab.host.namespace.run("ip", "-o", "route", "show", "protocol", OURS).splitlines())  # noqa: E731
    wait_for(count, lambda n: n >= 1002)
    lab.host.namespace.ip("nexthop", "flush")  # takes every shadow along

    async def meanwhile(facade: Any) -> None:
        comparing = asyncio.ensure_future(facade.reconcile(GROUP))
        for _ in range(20):
            await asyncio.sleep(0)
        facade.perform(GROUP, SetOutbound(("nic1",), ("nic1",)))
        await comparing

    group.run(meanwhile)
    wait_for(count, lambda n: n >= 1002)
    for destination in ("default", "198.18.0.0/24", "198.19.16.7/32"):
        wait_for(partial(shadow, lab, destination), lambda legs: legs == {"nic1"})


def test_a_thousand_routes_are_shadowed_and_fail_over_together(lab: Lab, group: RunningKernel) -> None:
    nets = [f"198.19.{i // 250 + 16}.{i % 250}/32" for i in range(1000)]
    lab.host.namespace.batch(f"route add {net} via 198.18.0.201 dev nic0 proto bird" for net in nets)
    count = lambda: len(lab.host.namespace.run("ip", "-o", "route", "show", "protocol", OURS).splitlines())  # noqa: E731
    wait_for(count, lambda n: n >= 1002)
    fail(group)
    time.sleep(0.5)
    wait_for(lambda: chosen(lab, "198.19.17.7"), lambda route: route["dev"] == "nic1")
    repair(group)
    wait_for(
        lambda: len(lab.host.namespace.run("ip", "-o", "route", "show", "protocol", "bird").splitlines()),
        lambda n: n == 1000,
    )
