"""What an administrator of in.mpathd expects to see, played on a virtual network: the cases of its documentation."""

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address

import pytest

from ipmp_agent.core import events
from ipmp_agent.core.multipathing import Multipathing
from ipmp_agent.core.reasons import Reason
from ipmp_agent.simulate.script import (
    Add,
    Cable,
    Happening,
    Latency,
    Online,
    PlayedTarget,
    Remove,
    Silent,
    TakeOffline,
    TargetPower,
)
from ipmp_agent.simulate.timeline import GroupChange, InterfaceChange, Told
from ipmp_api.types import NodeGroup, Switch, TargetSources, TestAddressIPv6
from tests.unit.simulate.playing import NEIGHBOUR, ROUTER, TARGETS, make_group, moves, play, states

Faults = Sequence[tuple[float, Happening]]
SPACING = 5.0  # seconds between the steps of a case: more than a repair takes


def in_use(faults: Faults, group: NodeGroup) -> list[str]:
    """The active, (inactive) and [unusable] members after each step, as ipmpstat -g shows them."""
    entries = play(faults, duration=SPACING * (len(faults) + 1), group=group)
    seen = []
    for step in range(len(faults) + 1):
        now: dict[str, InterfaceChange] = {}
        for entry in entries:
            if isinstance(entry, InterfaceChange) and entry.at < SPACING * (step + 1):
                now[entry.interface] = entry
        active = [key for key, one in now.items() if one.active]
        usable = [key for key, one in now.items() if one.state.value in {"ok", "unknown"}]
        words = (
            active + [f"({key})" for key in usable if key not in active] + [f"[{k}]" for k in now if k not in usable]
        )
        seen.append(" ".join(word.replace("nic", "") for word in words))
    return seen


def steps(*happenings: Happening) -> Faults:
    return [(SPACING * (number + 1), what) for number, what in enumerate(happenings)]


def down(number: int) -> Happening:
    return Cable(f"nic{number}", up=False)


def up(number: int) -> Happening:
    return Cable(f"nic{number}", up=True)


def without_failback(group: NodeGroup) -> NodeGroup:
    return replace(group, policies=replace(group.policies, failback=Switch.DISABLED))


def test_each_failure_activates_one_standby_and_each_repair_releases_one() -> None:
    group = make_group(active=2, standby=2)
    assert in_use(steps(down(0), down(1), down(3), up(0), up(1), up(3)), group) == [
        "0 1 (2) (3)",
        "1 3 (2) [0]",
        "2 3 [0] [1]",
        "2 [0] [1] [3]",
        "0 2 [1] [3]",
        "0 1 (2) [3]",
        "0 1 (2) (3)",
    ]


def test_a_group_of_standbys_only_always_keeps_one_active() -> None:
    assert in_use(steps(down(0), up(0)), make_group(active=0, standby=1)) == ["0", "[0]", "0"]
    assert in_use(steps(down(1), up(1)), make_group(active=0, standby=2))[-1].count("(") == 1


def test_without_failback_a_repaired_interface_waits_until_it_is_needed() -> None:
    group = without_failback(make_group(active=1, standby=1))
    assert in_use(steps(down(0), up(0), down(1)), group) == ["0 (1)", "1 [0]", "1 (0)", "0 [1]"]


def test_without_failback_capacity_is_worth_more_than_quiet() -> None:
    group = without_failback(make_group(active=2, standby=0))
    assert in_use(steps(down(0), up(0)), group) == ["0 1", "1 [0]", "0 1"]


def test_without_failback_the_first_to_come_back_in_a_failed_group_is_used() -> None:
    group = without_failback(make_group(active=1, standby=1))
    assert in_use(steps(down(0), down(1), up(0)), group)[-1] == "0 [1]"


def test_failure_of_an_idle_standby_activates_nobody() -> None:
    assert in_use(steps(down(3)), make_group(active=2, standby=2))[-1] == "0 1 (2) [3]"


def test_offline_activates_a_standby_and_online_ignores_failback() -> None:
    group = without_failback(make_group(active=1, standby=1))
    assert in_use(steps(TakeOffline("nic0"), Online("nic0")), group) == ["0 (1)", "1 [0]", "0 (1)"]


def test_a_missing_interface_is_made_up_for_by_a_standby_and_takes_its_place_when_it_comes() -> None:
    group = make_group(active=2, standby=1)
    faults: Faults = [(0, Remove("nic0")), (10, Add("nic0"))]
    entries = play(faults, group=group, duration=20)
    at_start = {key: states(entries, key)[0][2] for key in ("nic0", "nic1", "nic2")}
    at_end = {key: states(entries, key)[-1][2] for key in ("nic0", "nic1", "nic2")}
    assert at_start == {"nic0": False, "nic1": True, "nic2": True}
    assert at_end == {"nic0": True, "nic1": True, "nic2": False}


def test_placement_spreads_by_count_and_moves_as_few_as_it_can() -> None:
    group = make_group(addresses=4)
    entries = play(steps(down(0), up(0)), group=group, duration=15)
    assert [(address, to) for at, address, to in moves(entries) if at == SPACING] == [
        ("198.18.0.100", "nic1"),
        ("198.18.0.102", "nic1"),
    ]
    back = [(address, to) for at, address, to in moves(entries) if at > SPACING]
    assert back == [("198.18.0.100", "nic0"), ("198.18.0.102", "nic0")]  # the most recently bound to nic1


def test_one_healthy_family_keeps_the_interface_up() -> None:
    ipv6 = ip_address("fe80::1")
    group = make_group()
    both = replace(
        group.policies, test_ipv6=TestAddressIPv6.LINK_LOCAL, targets=TargetSources(addresses=(ROUTER, NEIGHBOUR, ipv6))
    )
    entries = play(
        [(20, TargetPower(ROUTER, up=False)), (20, TargetPower(NEIGHBOUR, up=False))],
        group=replace(group, policies=both),
        targets=(*TARGETS, PlayedTarget(ipv6, 0.001)),
    )
    assert {state for key in ("nic0", "nic1") for _, state, _ in states(entries, key)} == {"ok"}


def test_a_new_interface_has_forty_seconds_to_get_its_first_answer() -> None:
    from_the_start, later = (play([(at, Silent("nic0", on=True))]) for at in (0, 20))
    assert next(at for at, state, _ in states(from_the_start, "nic0") if state == "failed") >= 40
    assert 20 < next(at for at, state, _ in states(later, "nic0") if state == "failed") < 21


@pytest.mark.parametrize("by", ["routes", "discovery"])
def test_targets_come_from_the_routing_table_or_from_whoever_answers(by: str) -> None:
    group = make_group()
    sources = TargetSources(discovery=Switch.ENABLED)
    group = replace(group, policies=replace(group.policies, targets=sources))
    there = PlayedTarget(ROUTER, 0.001, router=by == "routes", discoverable=by == "discovery")
    entries = play([(20, Silent("nic0", on=True))], group=group, targets=(there, PlayedTarget(NEIGHBOUR, 0.001)))
    failed = [at for at, state, _ in states(entries, "nic0") if state == "failed"]
    assert len(failed) == 1
    assert 20 < failed[0] <= 21


def test_without_any_target_an_interface_is_taken_for_good() -> None:
    group = make_group()
    group = replace(group, policies=replace(group.policies, targets=TargetSources()))
    entries = play([], group=group, targets=())
    assert "failed" not in {state for key in ("nic0", "nic1") for _, state, _ in states(entries, key)}


def test_an_idle_standby_that_nobody_hears_is_found_by_the_other_members() -> None:
    group = make_group(active=2, standby=1)
    group = replace(group, policies=replace(group.policies, targets=TargetSources()))
    entries = play([(20, Silent("nic2", on=True))], group=group, targets=())
    assert states(entries, "nic2")[-1][1] == "failed"
    assert states(entries, "nic0")[-1][1] != "failed"
    assert moves(entries) == []


def test_members_that_are_not_on_one_link_are_told() -> None:
    group = make_group()
    group = replace(group, policies=replace(group.policies, targets=TargetSources()))
    entries = play([(20, Silent("nic1", on=True))], group=group, targets=())
    told = [entry.notice for entry in entries if isinstance(entry, Told)]
    assert [notice.message for notice in told if notice.reason is Reason.NOT_ONE_LINK] == [
        "no frame passes between nic0 and nic1: members must be on one link"
    ]
    assert moves(entries) == []


def test_an_address_that_another_host_has_is_on_no_member_until_that_is_over() -> None:
    group = make_group()
    core = Multipathing(group, seed=1)
    for number, member in enumerate(group.members):
        core.handle(
            events.InterfaceFound(member.key, member.key, number + 2, f"02:00:00:00:00:0{number}", link=True), 0.0
        )
    core.handle(events.KernelRead(), 0.0)
    address = group.data_addresses[0].address
    core.handle(events.AddressRefused(address, Reason.ADDRESS_CONFLICT, "02:00:00:00:00:99 has it"), 1.0)
    refused = core.snapshot().addresses[0]
    assert (refused.interface, refused.refusal) == (None, Reason.ADDRESS_CONFLICT)
    core.handle(events.AddressCleared(address), 2.0)
    assert core.snapshot().addresses[0].interface is not None


def test_activation_and_release_of_a_standby_are_told() -> None:
    entries = play(steps(down(0), up(0)), group=make_group(active=1, standby=1), duration=15)
    reasons = [entry.notice.reason for entry in entries if isinstance(entry, Told)]
    assert reasons.count(Reason.STANDBY_ACTIVATED) == 1
    assert reasons.count(Reason.STANDBY_RELEASED) == 1


def test_the_words_of_the_log_are_those_of_the_original() -> None:
    everything: Faults = [
        (10, Silent("nic0", on=True)),
        (20, Silent("nic0", on=False)),
        (30, TargetPower(ROUTER, up=False)),
        (30, TargetPower(NEIGHBOUR, up=False)),
        (40, TargetPower(ROUTER, up=True)),
        (50, Latency(ROUTER, 400)),
    ]
    said = " / ".join(e.notice.message for e in play(everything, duration=60) if isinstance(e, Told))
    for words in (
        "failure of nic0 detected",
        "repair of nic0 detected",
        "all interfaces are now unusable",
        "at least 1 interface is now usable",
        "failure detection time is now",
    ):
        assert words in said


def test_the_states_of_a_group_are_ok_degraded_and_failed() -> None:
    entries = play(steps(down(0), down(1), up(0), up(1)), duration=30)
    assert [e.state.value for e in entries if isinstance(e, GroupChange)] == [
        "ok",
        "degraded",
        "failed",
        "degraded",
        "ok",
    ]
    assert [at for at, _, _ in moves(entries) if at == 2 * SPACING] == []
