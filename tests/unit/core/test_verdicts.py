"""Failure of a NIC, of a target, of the group; and repair."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from ipmp_agent.core import events, timers
from ipmp_agent.core.actions import InterfaceVerdict, SendProbe
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.words import GroupState, InterfaceWord, TargetState
from ipmp_api.types import Address, Mode, ProbeMethod
from tests.virtual_node import VirtualNode, numbered_group

if TYPE_CHECKING:
    from collections.abc import Callable

T1, T2, T3, T4, T5 = (f"198.18.0.{n}" for n in range(1, 6))
INTERVAL = 0.142


def running(active: int = 2, standby: int = 0, *, link_local: bool = False, **fields: object) -> VirtualNode:
    node = VirtualNode(numbered_group(active, standby, **fields), link_local=link_local)  # type: ignore[arg-type]
    node.start()
    node.run(3)
    return node


def working(node: VirtualNode, key: str) -> Callable[[], bool]:
    return lambda: node.interface(key).usable


def broken(node: VirtualNode, key: str) -> Callable[[], bool]:
    return lambda: not node.interface(key).usable


# --- failure


def test_five_losses_fail_and_four_do_not() -> None:
    node = running()
    node.remember_probes = True
    node.silence("nic0")
    assert node.run(1.0, broken(node, "nic0"))
    lost = [row for _, row in node.closed if row.interface == "nic0" and row.rtt is None]
    assert len(lost) == 5


def test_failure_is_told_with_its_reason() -> None:
    node = running()
    node.silence("nic0")
    node.run(1.0)
    assert [v for _, v in node.verdicts] == [InterfaceVerdict("nic0", failed=True, reason=Reason.PROBES_LOST)]
    assert node.told(Reason.PROBES_LOST) == ["failure of nic0 detected: its probes are not answered"]
    assert node.interface("nic0").reason is Reason.PROBES_LOST
    assert node.snapshot().state is GroupState.DEGRADED
    assert {move.reason for _, move in node.failovers} == {Reason.PROBES_LOST}


def test_verdict_says_when_the_first_loss_was() -> None:
    """Of a silent interface when the first probe was sent that nobody answered; of a cable when it was pulled."""
    node = running()
    node.remember_probes = True
    node.silence("nic0")
    node.run(1.0)
    first = min(row.sent_at for _, row in node.closed if row.interface == "nic0" and row.rtt is None)
    assert [v.since for _, v in node.verdicts] == [first]
    node = running()
    node.link("nic0", up=False)
    node.run(0.1)
    assert [v.since for _, v in node.verdicts] == [at for at, _ in node.verdicts]


def test_losses_count_across_all_targets() -> None:
    node = running(pins=(T1, T2, T3, T4, T5))
    node.silence("nic0")
    assert node.run(1.0, broken(node, "nic0"))
    assert node.told(Reason.TARGET_DEAD) == []


@pytest.mark.parametrize("count", [2, 3, 5])
def test_five_losses_of_one_target_are_a_dead_target_and_no_failure(count: int) -> None:
    node = running(pins=(T1, T2, T3, T4, T5)[:count])
    node.target(T1, up=False)
    node.run(20)
    assert node.verdicts == []
    assert node.failovers == []
    assert len(node.told(Reason.TARGET_DEAD)) == 2  # once for each member
    for key in ("nic0", "nic1"):
        states = {str(t.address): t.state for t in node.interface(key).probers[0].targets}
        assert states[T1] is TargetState.DEAD


def test_dead_target_is_found_after_five_of_its_own_probes() -> None:
    node = running(pins=(T1, T2))
    node.remember_probes = True
    node.target(T1, up=False)
    node.run(5, lambda: bool(node.told(Reason.TARGET_DEAD)))
    first = next(n.interface for _, n in node.notices if n.reason is Reason.TARGET_DEAD)
    assert sum(row.rtt is None and row.interface == first for _, row in node.closed) == 5


def test_only_target_that_dies_is_group_failure_and_moves_nothing() -> None:
    node = running()
    node.target(T1, up=False)
    assert node.run(1.5, lambda: node.failed)
    node.run(30)
    assert node.failovers == []
    assert node.told(Reason.PROBES_LOST) == []  # no word of single interfaces


def test_group_failure_marks_every_member_and_clears_inactive() -> None:
    node = running(1, 2)
    node.offline("nic2")
    node.all_targets(up=False)
    node.run(1.5, lambda: node.failed)
    for interface in node.snapshot().interfaces:
        assert (interface.failed, interface.inactive, interface.active) == (True, False, False)
    assert node.interface("nic2").offline


def test_a_single_member_always_group_fails() -> None:
    node = running(1)
    node.silence("nic0")
    assert node.run(1.0, lambda: node.failed)
    assert node.held_by("nic0") == [1, 2]


def test_one_healthy_family_keeps_the_interface_up() -> None:
    node = running(pins=(T1, "fe80::99"), link_local=True)
    node.target(T1, up=False)
    node.run(30)
    assert node.verdicts == []
    node.target("fe80::99", up=False)
    node.run(2)
    assert node.failed


@pytest.mark.parametrize("dead", [4, 6])
def test_interface_fails_only_when_both_families_are_silent(dead: int) -> None:
    node = running(pins=(T1, "fe80::99"), link_local=True)
    node.reaches = lambda key, address: not (key == "nic0" and address.version == dead)
    node.run(30)
    assert node.verdicts == []
    node.reaches = lambda key, _: key != "nic0"
    assert node.run(1.0, broken(node, "nic0"))
    assert node.active == ["nic1"]


def test_one_family_suffices_to_repair() -> None:
    node = running(pins=(T1, "fe80::99"), link_local=True)
    node.silence("nic0")
    node.run(2)
    node.reaches = lambda key, address: key != "nic0" or address.version == 6
    node.silence("nic0", on=False)
    assert node.run(2.5, working(node, "nic0"))
    node.run(20)
    assert node.interface("nic0").usable


def test_family_that_has_no_target_has_no_say() -> None:
    node = running(pins=(T1,), link_local=True)
    node.silence("nic0")
    assert node.run(1.0, broken(node, "nic0"))


def test_late_reply_breaks_a_streak_of_losses() -> None:
    node = running(adaptive=False)
    node.delay = lambda probe: 3.5 * INTERVAL if probe.interface == "nic0" else 0.0
    node.run(20)
    assert node.verdicts == []


def test_proof_must_be_newer_than_the_first_loss_by_half_an_interval() -> None:
    """When all targets die, the answer of another member may still be under way, or have been the last one."""
    for seed in range(20):
        node = VirtualNode(numbered_group(3), seed=seed, latency=0.01)
        node.start()
        node.run(2 + seed * 0.01)
        node.all_targets(up=False)
        node.run(5)
        assert node.failed, f"seed {seed}"
        assert node.failovers == [], f"seed {seed}"


def test_member_that_no_probe_can_judge_is_trusted_as_proof_while_its_link_is_up() -> None:
    node = VirtualNode(numbered_group(2, test_addresses=["198.18.2.1/24"], probe_method=ProbeMethod.ICMP))
    node.start()
    node.run(3)
    assert node.interface("nic1").probers[0].sent == 0
    node.silence("nic0")
    assert node.run(1.0, broken(node, "nic0"))
    assert node.active == ["nic1"]
    node.silence("nic0", on=False)
    node.run(5)
    node.link("nic1", up=False)
    node.silence("nic0")
    node.run(1.5)
    assert node.failed


def test_offline_member_is_no_proof_that_the_link_works() -> None:
    node = running()
    node.offline("nic1")
    node.silence("nic0")
    node.run(2)
    assert node.failed
    assert node.told(Reason.PROBES_LOST) == []


def test_offline_member_that_no_probe_can_judge_is_no_proof_either() -> None:
    node = VirtualNode(numbered_group(2, test_addresses=["198.18.2.1/24"], probe_method=ProbeMethod.ICMP))
    node.start()
    node.run(3)
    node.offline("nic1")
    node.silence("nic0")
    node.run(2)
    assert node.failed
    assert node.told(Reason.PROBES_LOST) == []


def test_failed_member_is_no_proof() -> None:
    node = running(3)
    node.link("nic1", up=False)
    node.link("nic2", up=False)
    node.silence("nic0")
    node.run(2)
    assert node.failed


def test_two_members_that_fail_at_once_of_three() -> None:
    node = running(3)
    node.silence("nic0")
    node.silence("nic1")
    node.run(1.0)
    assert node.active == ["nic2"]
    assert node.held_by("nic2") == [1, 2]


def test_failure_of_an_offline_member_shows_when_it_returns() -> None:
    node = running()
    node.offline("nic0")
    node.link("nic0", up=False)
    interface = node.interface("nic0")
    assert (interface.offline, interface.failed, interface.state.value) == (True, True, "offline")
    node.online("nic0")
    assert node.interface("nic0").state.value == "failed"


# --- quiet period


@pytest.mark.parametrize("seed", range(2))
def test_losses_are_ignored_for_forty_seconds_after_a_member_appears(seed: int) -> None:
    node = VirtualNode(numbered_group(2), seed=seed)
    node.all_targets(up=False)
    node.start()
    assert not node.run(39.9, broken(node, "nic0"))
    assert node.run(1.2, broken(node, "nic0"))


@pytest.mark.parametrize("seed", range(4))
def test_member_silent_from_the_start_holds_no_share_while_another_is_answered(seed: int) -> None:
    """It is too new to have failed, but everything on it would be lost."""
    node = VirtualNode(numbered_group(2), seed=seed)
    node.silence("nic0")
    node.start()
    assert node.held_by("nic0")
    assert node.run(1.0, lambda: node.held_by("nic1") == [1, 2])
    assert (node.interface("nic0").state, node.interface("nic0").reason) == (InterfaceWord.UNKNOWN, Reason.NOT_HEARD)
    assert node.told(Reason.NOT_HEARD) == ["nic0 is not answered yet, and others are: it is not used until it is"]
    assert node.verdicts == []
    node.run(timers.QUIET_PERIOD)
    assert [v.reason for _, v in node.verdicts] == [Reason.PROBES_LOST]
    assert node.interface("nic0").state is InterfaceWord.FAILED


def test_first_answer_gives_a_new_member_its_share() -> None:
    node = VirtualNode(numbered_group(2))
    node.silence("nic0")
    node.start()
    node.run(30)
    node.silence("nic0", on=False)
    assert node.run(0.3, lambda: len(node.held_by("nic0")) == 1)
    assert node.verdicts == []


def test_first_reply_ends_the_quiet_period_for_both_families() -> None:
    node = VirtualNode(numbered_group(2, pins=(T1, "fe80::99")), link_local=True)
    node.target("fe80::99", up=False)
    node.start()
    node.run(5)
    node.silence("nic0")
    assert node.run(1.0, broken(node, "nic0"))


def test_quiet_period_begins_anew_for_a_member_that_was_replugged() -> None:
    node = running()
    node.silence("nic0")
    node.remove("nic0")
    node.add("nic0")
    node.run(39.9)
    assert node.verdicts == []
    assert node.run(1.2, lambda: bool(node.verdicts))


# --- a member that returns


@pytest.mark.parametrize("how", ["replugged", "online"])
def test_member_that_returns_is_used_when_it_has_been_heard_once_if_it_had_been_before(how: str) -> None:
    node = running()
    (node.remove if how == "replugged" else node.offline)("nic0")
    node.silence("nic0")
    (node.add if how == "replugged" else node.online)("nic0")
    assert node.held_by("nic1") == [1, 2]
    assert node.interface("nic0").reason is Reason.NOT_HEARD
    node.run(0.5)
    assert node.held_by("nic1") == [1, 2]
    node.silence("nic0", on=False)
    assert node.run(0.3, working(node, "nic0"))
    assert len(node.held_by("nic0")) == 1
    assert node.verdicts == []
    assert node.told(Reason.PROBES_ANSWERED) == ["nic0 is answered: it is used"]


def test_member_that_returns_from_maintenance_and_is_not_answered_has_failed() -> None:
    node = running()
    node.offline("nic0")
    node.silence("nic0")
    node.online("nic0")
    assert node.run(1.0, lambda: bool(node.verdicts))
    assert node.told(Reason.PROBES_LOST) == ["failure of nic0 detected: its probes are not answered"]
    assert node.held_by("nic0") == []
    node.silence("nic0", on=False)
    node.run(1.3)
    assert not node.interface("nic0").usable  # ten answers, as after any failure


def test_member_that_returns_to_a_group_where_no_other_works_is_used_at_once() -> None:
    node = running()
    node.link("nic1", up=False)
    node.remove("nic0")
    node.add("nic0")
    assert node.held_by("nic0") == [1, 2]


def test_member_that_returns_where_nobody_can_be_asked_is_used_at_once() -> None:
    node = VirtualNode(numbered_group(2, probe_method=ProbeMethod.DISABLED))
    node.start()
    node.run(3)
    node.offline("nic0")
    node.online("nic0")
    assert len(node.held_by("nic0")) == 1


def test_member_that_waits_for_its_answer_fails_and_returns_with_its_group() -> None:
    node = running(3, addresses=3)
    node.offline("nic0")
    node.all_targets(up=False)
    node.online("nic0")
    assert node.run(2, lambda: node.failed)
    node.all_targets(up=True)
    node.run(4)
    assert [len(node.held_by(key)) for key in ("nic0", "nic1", "nic2")] == [1, 1, 1]
    assert not node.failed


def test_link_loss_counts_in_the_quiet_period() -> None:
    node = VirtualNode(numbered_group(2))
    node.start()
    node.link("nic0", up=False)
    assert node.active == ["nic1"]


# --- repair


def test_repair_takes_ten_answers_in_a_row() -> None:
    node = running()
    node.silence("nic0")
    node.run(2)
    node.silence("nic0", on=False)
    node.remember_probes = True
    assert node.run(3, working(node, "nic0"))
    answered = [row for _, row in node.closed if row.interface == "nic0" and row.rtt is not None]
    assert len(answered) == 10
    assert node.told(Reason.PROBES_ANSWERED) == ["repair of nic0 detected"]


def test_one_loss_begins_the_count_anew() -> None:
    node = running()
    node.silence("nic0")
    node.run(2)
    node.silence("nic0", on=False)
    answers = []

    def ninth_is_lost(probe: SendProbe) -> float:
        if probe.interface == "nic0":
            answers.append(probe)
        return 1e6 if len(answers) == 9 and probe.interface == "nic0" else 0.0

    node.delay = ninth_is_lost
    node.run(5, working(node, "nic0"))
    assert len(answers) in (19, 20)


def test_one_dead_target_among_several_cannot_block_repair() -> None:
    node = running(pins=(T1, T2, T3, T4, T5))
    node.silence("nic0")
    node.run(2)
    node.silence("nic0", on=False)
    node.target(T5, up=False)
    assert node.run(50 * INTERVAL * 1.1, working(node, "nic0"))


def test_repaired_member_gives_back_and_takes_back() -> None:
    node = running(addresses=4)
    before = (node.held_by("nic0"), node.held_by("nic1"))
    node.silence("nic0")
    node.run(2)
    assert node.held_by("nic1") == [1, 2, 3, 4]
    node.silence("nic0", on=False)
    node.run(3)
    assert (node.held_by("nic0"), node.held_by("nic1")) == before
    assert [move.reason for _, move in node.failovers] == [Reason.PROBES_LOST] * 2 + [Reason.FAILBACK] * 2


# --- recovery of a group


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("standby", [0, 1])
def test_nothing_moves_when_all_targets_come_back(seed: int, standby: int) -> None:
    node = VirtualNode(numbered_group(2, standby, addresses=4), seed=seed)
    node.start()
    node.run(2)
    placed = {address: set(holders) for address, holders in node.kernel.items()}
    node.all_targets(up=False)
    node.run(10)
    assert node.failed
    node.all_targets(up=True)
    node.run(10)
    assert node.snapshot().state is GroupState.OK
    assert node.kernel == placed
    assert node.failovers == []


def test_member_that_does_not_come_back_with_its_group_loses_its_addresses_after_one_detection_time() -> None:
    node = running(addresses=4)
    node.all_targets(up=False)
    node.run(3)
    node.silence("nic0")
    node.all_targets(up=True)
    assert node.run(3, working(node, "nic1"))
    revived = node.now
    assert node.held_by("nic0") == [1, 3]
    node.run(5, lambda: not node.held_by("nic0"))
    assert node.now - revived == pytest.approx(1.0, abs=1e-6)
    assert node.held_by("nic1") == [1, 2, 3, 4]


def test_member_whose_link_is_down_gets_no_grace_when_its_group_comes_back() -> None:
    node = running(addresses=4)
    node.all_targets(up=False)
    node.run(3)
    node.link("nic0", up=False)
    node.all_targets(up=True)
    assert node.run(3, working(node, "nic1"))
    assert node.held_by("nic1") == [1, 2, 3, 4]


def test_group_that_is_revived_overrides_failback_disabled() -> None:
    node = running(1, 1, failback=False)
    node.all_targets(up=False)
    node.run(3)
    node.all_targets(up=True)
    node.run(5)
    assert node.active == ["nic0"]


def test_answers_from_before_a_group_failure_do_not_revive_it() -> None:
    node = running(2)
    node.silence("nic0")
    node.run(2)
    node.offline("nic1", force=True)
    assert node.failed
    node.online("nic1")
    assert node.active == ["nic1"]


@pytest.mark.parametrize("seed", [0, 1, 64, 81, 135, 142])  # one in twenty shows it, the last four among them
def test_every_member_proves_itself_anew_after_a_group_failure(seed: int) -> None:
    """A member that had lost fewer than five probes must not be revived by what its targets answered before."""
    node = VirtualNode(numbered_group(2, pins=(T1, T2, T3, T4, T5)), seed=seed)
    node.start()
    node.run(10)
    node.all_targets(up=False)
    assert node.run(1.5, lambda: node.failed)
    node.all_targets(up=True)
    assert not node.run(8.5 * INTERVAL, lambda: not node.failed), f"seed {seed}"
    assert node.run(4 * INTERVAL, lambda: not node.failed), f"seed {seed}"


def test_group_state_is_told_once_per_change() -> None:
    node = running()
    node.link("nic0", up=False)
    node.link("nic1", up=False)
    node.link("nic1", up=True)
    node.run(3)
    node.link("nic0", up=True)
    node.run(3)
    groups = [n.reason for _, n in node.notices if n.interface is None]
    assert groups == [Reason.GROUP_DEGRADED, Reason.GROUP_FAILED, Reason.GROUP_DEGRADED, Reason.GROUP_OK]


def test_observing_judges_and_tells_and_orders_nothing() -> None:
    group = numbered_group(2)
    node = VirtualNode(dataclasses.replace(group, policies=dataclasses.replace(group.policies, mode=Mode.OBSERVE)))
    for address, key in zip([a.address for a in group.data_addresses], ("nic0", "nic1"), strict=True):
        node.kernel[address].add(key)
    actions = node.start()
    node.run(3)
    node.silence("nic0")
    node.run(10)
    node.all_targets(up=False)
    node.run(10)
    node.all_targets(up=True)
    node.run(10)
    node.configure(dataclasses.replace(node.configuration, data_addresses=()))
    node.run(10)
    assert node.moves == []
    assert len(node.verdicts) >= 2
    assert {type(action).__name__ for action in actions} <= {"SendProbe", "Notify"}


def test_replies_of_an_earlier_life_are_ignored() -> None:
    node = running()
    node.remember_probes = True
    node.run(1.0)
    old = [probe for _, probe in node.sent]
    node.restart()
    before = [p.answered for i in node.snapshot().interfaces for p in i.probers]
    for probe in old:
        node.handle(
            events.ProbeAnswered(probe.interface, probe.family, probe.target, probe.sequence, probe.kind, 1.0, 1.0)
        )
    assert [p.answered for i in node.snapshot().interfaces for p in i.probers] == before


def test_reachability_is_by_interface_and_target() -> None:
    """The scene itself: what `reaches` denies is not answered."""
    node = running()

    def nobody(_key: str, _address: Address) -> bool:
        return False

    node.reaches = nobody
    assert node.run(1.5, lambda: node.failed)
