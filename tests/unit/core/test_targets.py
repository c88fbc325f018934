"""Whom to probe: pins, routers, peers, discovered hosts, and their life."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_address

import pytest

from ipmp_agent.core import events, timers
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.targets import TargetOrigin, Targets
from ipmp_agent.core.words import InterfaceWord, TargetMode, TargetState
from ipmp_api.types import NodeGroup, Policies, Switch, TargetSources
from tests.virtual_node import VirtualNode, numbered_group

T = [f"198.18.0.{n}" for n in range(1, 9)]
HOSTS = [f"198.18.0.{n}" for n in range(101, 109)]
TESTED = ["198.18.2.1/24", "198.18.2.2/24", "198.18.2.3/24"]


def states(node: VirtualNode, key: str = "nic0") -> dict[str, TargetState]:
    return {str(t.address): t.state for t in node.interface(key).probers[0].targets}


def active(node: VirtualNode, key: str = "nic0") -> set[str]:
    return {address for address, state in states(node, key).items() if state is TargetState.ACTIVE}


def with_sources(group: NodeGroup, **fields: object) -> NodeGroup:
    targets = dataclasses.replace(group.policies.targets, **fields)  # type: ignore[arg-type]
    return dataclasses.replace(group, policies=dataclasses.replace(group.policies, targets=targets))


def discovering(members: int = 2, hosts: int = 1, **fields: object) -> VirtualNode:
    group = numbered_group(members, pins=(), discovery=True, test_addresses=TESTED[:members], **fields)  # type: ignore[arg-type]
    node = VirtualNode(group, hosts=HOSTS[:hosts])
    node.remember_probes = True
    node.start()
    return node


# --- named targets


def test_pins_come_before_routers_and_routers_before_peers_and_five_are_used() -> None:
    group = dataclasses.replace(numbered_group(1, pins=T[:2]), peers=(ip_address(T[5]), ip_address(T[6])))
    node = VirtualNode(group, routers=T[2:4])
    node.start()
    assert active(node) == set(T[:4]) | {T[5]}
    assert states(node)[T[6]] is TargetState.UNUSED


def test_new_pin_takes_the_place_of_the_least_preferred() -> None:
    node = VirtualNode(dataclasses.replace(numbered_group(1, pins=T[:1]), peers=tuple(map(ip_address, T[1:5]))))
    node.start()
    assert active(node) == set(T[:5])
    node.configure(with_sources(node.configuration, addresses=(ip_address(T[0]), ip_address(T[7]))))
    assert active(node) == {T[0], T[7], *T[1:4]}


@pytest.mark.parametrize("source", ["routers", "peers"])
def test_sources_can_be_switched_off(source: str) -> None:
    group = with_sources(
        dataclasses.replace(numbered_group(1, pins=()), peers=(ip_address(T[1]),)), **{source: Switch.DISABLED}
    )
    node = VirtualNode(group, routers=T[:1])
    node.start()
    assert active(node) == ({T[1]} if source == "routers" else {T[0]})


def test_our_own_addresses_are_never_targets() -> None:
    node = VirtualNode(numbered_group(2, pins=("198.18.1.1", "198.18.2.2", T[0]), test_addresses=TESTED[:2]))
    node.start()
    assert active(node) == {T[0]}


def test_each_family_has_its_own_targets() -> None:
    node = VirtualNode(numbered_group(1, pins=(T[0], "2001:db8::1", "fe80::99")), link_local=True)
    node.start()
    v4, v6 = node.interface("nic0").probers
    assert [str(t.address) for t in v4.targets] == [T[0]]
    assert {str(t.address) for t in v6.targets} == {"2001:db8::1", "fe80::99"}


def test_routers_follow_the_routing_table() -> None:
    node = VirtualNode(numbered_group(2, pins=()), routers=T[:1])
    node.start()
    assert active(node) == {T[0]}
    node.handle(events.RoutersChanged((ip_address(T[1]),)))
    assert active(node, "nic1") == {T[1]}
    node.handle(events.RoutersChanged(()))
    assert active(node) == set()
    assert node.interface("nic0").usable, "nobody to probe: taken for good"


def test_last_target_gone_leaves_a_failed_member_failed_until_it_proves_itself_to_a_new_one() -> None:
    node = VirtualNode(numbered_group(2, pins=()), routers=T[:2])
    node.start()
    node.run(3)
    node.silence("nic0")
    node.run(2)
    node.handle(events.RoutersChanged(()))
    assert node.interface("nic0").state is InterfaceWord.FAILED
    node.handle(events.RoutersChanged((ip_address(T[1]),)))
    assert node.interface("nic0").state is InterfaceWord.FAILED
    node.silence("nic0", on=False)
    node.run(3)
    assert node.interface("nic0").state is InterfaceWord.OK


def test_failed_group_keeps_routers_that_vanish_and_drops_them_when_it_is_back() -> None:
    node = VirtualNode(numbered_group(2, pins=()), routers=T[:2])
    node.start()
    node.run(3)
    node.all_targets(up=False)
    node.run(3)
    assert node.failed
    node.handle(events.RoutersChanged((ip_address(T[0]),)))
    assert active(node) == {T[0], T[1]}
    node.all_targets(up=True)
    node.run(5)
    assert active(node) == {T[0]}


def test_pin_that_people_remove_goes_even_while_the_group_is_failed() -> None:
    node = VirtualNode(numbered_group(2, pins=T[:1]))
    node.start()
    node.run(3)
    node.all_targets(up=False)
    node.run(3)
    node.configure(with_sources(node.configuration, addresses=(ip_address(T[1]),)))
    assert set(states(node)) == {T[1]}


def test_firing_order_begins_with_the_next() -> None:
    node = VirtualNode(numbered_group(1, pins=T[:3]))
    node.remember_probes = True
    node.start()
    node.run(2)
    expected = str(node.interface("nic0").probers[0].targets[0].address)
    node.sent.clear()
    node.run(0.3)
    assert str(node.sent[0][1].target) == expected


# --- life of a named target


def made(count: int) -> Targets:
    targets = Targets()
    targets.offer([(ip_address(address), TargetOrigin.ROUTER) for address in T[:count]], 0.0)
    return targets


def test_dead_target_is_slow_after_a_minute_and_fit_after_two() -> None:
    targets = made(2)
    dead = targets.active[0]
    targets.set_aside(dead, TargetState.DEAD, 100.0)
    for now, state in [
        (160.0, TargetState.DEAD),
        (160.1, TargetState.SLOW),
        (220.1, TargetState.SLOW),
        (220.3, TargetState.ACTIVE),
    ]:
        targets.promote(now)
        assert dead.state is state, now


def test_when_none_is_left_up_to_three_are_used_again_the_best_first() -> None:
    targets = made(5)
    for target, state, now in zip(
        targets.active,
        [TargetState.DEAD, TargetState.SLOW, TargetState.DEAD, TargetState.SLOW, TargetState.DEAD],
        [1.0, 2.0, 3.0, 4.0, 5.0],
        strict=True,
    ):
        targets.set_aside(target, state, now)
    assert [str(target.address) for target in targets.active] == [T[0], T[1], T[3]]
    assert timers.TARGETS_MINIMUM == 3


def test_only_router_that_never_answers_stays_in_use() -> None:
    targets = made(1)
    targets.set_aside(targets.active[0], TargetState.DEAD, 1.0)
    assert len(targets.active) == 1


def test_named_targets_replace_hosts_and_hosts_never_join_them() -> None:
    targets = Targets()

    def mode() -> TargetMode:
        return targets.mode

    assert targets.add_host(ip_address(HOSTS[0]), 0.0)
    assert mode() is TargetMode.MULTICAST
    targets.offer([(ip_address(T[0]), TargetOrigin.ROUTER)], 1.0)
    assert [str(target.address) for target in targets.active] == [T[0]]
    assert mode() is TargetMode.ROUTES
    assert not targets.add_host(ip_address(HOSTS[0]), 2.0)


def test_at_most_five_hosts_are_taken_and_none_twice() -> None:
    targets = Targets()
    assert [targets.add_host(ip_address(host), 0.0) for host in HOSTS] == [True] * 5 + [False] * 3
    assert not targets.add_host(ip_address(HOSTS[0]), 0.0)


# --- discovery


def test_hosts_are_discovered_for_every_member() -> None:
    node = discovering(3, hosts=8)
    node.run(1)
    assert len(active(node)) == 5
    assert active(node, "nic0") == active(node, "nic1") == active(node, "nic2")
    assert node.interface("nic0").probers[0].mode is TargetMode.MULTICAST


@pytest.mark.parametrize(("hosts", "goes_on"), [(0, True), (1, True), (2, False)])
def test_all_hosts_are_asked_at_every_interval_until_two_are_known(hosts: int, goes_on: bool) -> None:
    node = discovering(1, hosts=hosts)
    node.run(2)
    node.sent.clear()
    node.run(1.42)
    assert len(node.discovery_probes) == (pytest.approx(10, abs=1) if goes_on else 0)


def test_nobody_looks_for_hosts_beside_named_targets_or_without_an_address() -> None:
    node = VirtualNode(numbered_group(1, pins=T[:1], discovery=True, test_addresses=TESTED[:1]), hosts=HOSTS[:2])
    node.remember_probes = True
    node.start()
    node.run(3)
    assert node.discovery_probes == []
    node = VirtualNode(numbered_group(1, pins=(), discovery=True), hosts=HOSTS[:2])
    node.remember_probes = True
    node.start()
    node.run(3)
    assert node.discovery_probes == [], "an ARP question to all hosts has no meaning"


def test_our_own_interfaces_hear_the_question_and_are_no_hosts() -> None:
    node = discovering(2, hosts=1)
    node.run(1)
    reply = events.ProbeAnswered(
        "nic0", events.Family.IPV4, ip_address("198.18.2.2"), 1, events.ProbeKind.DISCOVERY, 0.001, 0.001
    )
    node.handle(reply)
    assert active(node) == {HOSTS[0]}


def test_new_member_copies_the_hosts_of_its_siblings() -> None:
    node = discovering(2, hosts=3)
    node.run(1)
    node.remove("nic1")
    node.add("nic1")
    assert active(node, "nic1") == active(node, "nic0")


def test_dead_host_is_dropped_and_another_is_looked_for_at_once() -> None:
    node = discovering(1, hosts=3)
    node.run(2)
    node.sent.clear()
    node.target(HOSTS[0], up=False)
    assert node.run(5, lambda: bool(node.told(Reason.TARGET_DEAD)))
    assert active(node) == {HOSTS[1], HOSTS[2]}
    node.run(1)
    assert len(node.discovery_probes) == 1


def test_group_failure_flushes_hosts_and_finds_new_ones() -> None:
    node = discovering(2, hosts=2)
    node.run(3)
    node.all_targets(up=False)
    assert node.run(2, lambda: node.failed)
    assert states(node) == states(node, "nic1") == {}
    node.link("nic0", up=False)
    node.link("nic0", up=True)
    node.handle(events.RoutersChanged(()))
    assert node.failed, "a link alone proves nothing while somebody is looked for"
    node.all_targets(up=True)
    assert node.run(5, lambda: not node.failed)


def test_without_targets_members_are_taken_for_good_and_said_to_be_unknown() -> None:
    node = VirtualNode(numbered_group(1, pins=()))
    node.start()
    node.run(100)
    assert node.interface("nic0").state is InterfaceWord.UNKNOWN
    assert node.active == ["nic0"]


def test_policies_hold_the_sources() -> None:
    assert Policies(targets=TargetSources(addresses=(ip_address(T[0]),))).targets.discovery is Switch.DISABLED


@pytest.mark.parametrize(("discovery", "mode"), [(False, TargetMode.DISABLED), (True, TargetMode.MULTICAST)])
def test_family_without_targets_is_called_multicast_only_while_hosts_are_looked_for(
    discovery: bool, mode: TargetMode
) -> None:
    node = VirtualNode(numbered_group(2, discovery=discovery), link_local=True)
    node.start()
    ipv4, ipv6 = node.interface("nic0").probers
    assert (ipv4.mode, ipv6.mode) == (TargetMode.ROUTES, mode)
