"""Trials, refusals and what comes between: a change during a look, a kernel that is slow, an agent that is killed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ipmp_agent.core import timers
from ipmp_agent.dataplane.configurator import RETRY_MINIMUM
from ipmp_agent.disk import state
from ipmp_api.types import Mode
from tests.unit.agent.building import Rig, unprobed_group
from tests.unit.agent.trials import GATEWAY, TARGET, calls, node, told, undo, view, want

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ipmp_agent.disk.state import SavedState
    from ipmp_api.types import NodeGroup

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

ONE, TWO = unprobed_group("one", interfaces=("nic0",)), unprobed_group("two", interfaces=("nic1",))
MENDED = unprobed_group(addresses=("198.18.0.109/24",))


def slow(rig: Rig, seconds: Mapping[str, float]) -> None:
    """Have the kernel take its time for the configuration of some groups."""
    configure = rig.kernel.configure

    async def later(group: NodeGroup, memory: Any, secure: Any) -> None:
        await asyncio.sleep(seconds.get(group.group_name, 0.0))
        await configure(group, memory, secure)

    rig.kernel.configure = later  # type: ignore[method-assign]


def refuse(rig: Rig, name: str) -> None:
    """Have the kernel refuse every configuration of a group."""
    configure = rig.kernel.configure

    async def refusing(group: NodeGroup, memory: Any, secure: Any) -> None:
        if group.group_name == name:
            raise OSError(22, "no")
        await configure(group, memory, secure)

    rig.kernel.configure = refusing  # type: ignore[method-assign]


def left_behind(rig: Rig, boot: str = "boot") -> SavedState:
    """What an agent that is killed now leaves on disk, for one that is started in this boot of the host."""
    return state.parse(state.dump(rig.saved[-1], "boot"), boot)


async def test_change_that_joins_a_trial_is_not_kept_before_it_is_carried_out() -> None:
    async with node() as rig:
        await want(rig, ONE)
        slow(rig, {"two": 4.0})
        await asyncio.sleep(timers.TRIAL - 1)
        await want(rig, ONE, TWO)
        await asyncio.sleep(5)
        assert view(rig, "two").on_trial
        await undo(rig)
        assert sorted(told(rig)) == ["one", "two"]


async def test_correction_during_a_trial_is_not_blamed_for_what_it_corrects() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        rig.kernel.silent = {GATEWAY}
        await asyncio.sleep(timers.TRIAL_LOOK * 2.25)  # two looks have heard nobody
        await want(rig, MENDED)
        await asyncio.sleep(timers.TRIAL_LOOK)  # the NIC comes up
        rig.kernel.silent = set()
        await asyncio.sleep(2 * timers.TRIAL)
        assert told(rig) == []
        assert view(rig).configuration == MENDED


@pytest.mark.parametrize("seconds", [0.7, 1.0, 4.0, 5.5])
async def test_corrections_without_end_do_not_put_off_the_undoing(seconds: float) -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        await asyncio.sleep(2 * timers.TRIAL)
        await want(rig, MENDED)
        rig.kernel.silent = {GATEWAY}
        for number in range(round(2 * timers.TRIAL / seconds)):
            rig.configurator.want([unprobed_group(addresses=(f"198.18.0.{110 + number}/24",))])
            await asyncio.sleep(seconds)
            if told(rig):
                break
        assert told(rig) == ["lab"]
        await asyncio.sleep(1)
        assert view(rig).configuration == unprobed_group()


async def test_slow_network_after_a_reboot_is_not_blamed_on_a_change_whose_trial_it_cut_short() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        left = left_behind(rig, "another boot")
    async with node(left) as rig:
        rig.kernel.silent = {GATEWAY}
        await want(rig, unprobed_group())
        await asyncio.sleep(timers.QUIET_PERIOD / 2)
        assert view(rig).on_trial
        rig.kernel.silent = set()
        await asyncio.sleep(2 * timers.TRIAL_LOOK)
        assert not view(rig).on_trial
        assert told(rig) == []


async def test_change_that_cuts_off_a_node_that_rebooted_meanwhile_is_undone_all_the_same() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        left = left_behind(rig, "another boot")
    async with node(left) as rig:
        rig.kernel.silent = {GATEWAY}
        await want(rig, unprobed_group())
        await asyncio.sleep(timers.QUIET_PERIOD + timers.TRIAL)
        assert told(rig) == ["lab"]
        rig.kernel.silent = set()
        await asyncio.sleep(2 * timers.TRIAL_LOOK)
        (refusal,) = rig.saved[-1].refusals
        assert refusal.final


async def test_news_that_change_nothing_do_not_prolong_a_trial() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        for number in range(1, 8):
            await asyncio.sleep(timers.TRIAL_LOOK)
            await want(rig, replace(unprobed_group(), peers=(TARGET + number,)))
        assert not view(rig).on_trial


async def test_blame_is_looked_for_from_when_a_slow_kernel_has_undone_the_change() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        await asyncio.sleep(2 * timers.TRIAL)
        await want(rig, MENDED)
        slow(rig, {"lab": 2 * timers.TRIAL})
        rig.kernel.silent = {GATEWAY}
        await asyncio.sleep(1)
        await want(rig, unprobed_group(addresses=("198.18.0.110/24",)))  # refused while it is carried out
        await asyncio.sleep(4 * timers.TRIAL)
        assert view(rig).configuration == unprobed_group()
        rig.kernel.silent = set()
        await asyncio.sleep(timers.TRIAL)
        (refusal,) = rig.saved[-1].refusals
        assert refusal.final


async def test_group_that_the_kernel_refuses_for_ever_does_not_keep_another_from_a_second_trial() -> None:
    observing = replace(TWO, policies=replace(TWO.policies, mode=Mode.OBSERVE))
    async with node() as rig:
        refuse(rig, "two")
        await want(rig, ONE, observing)
        await undo(rig, back=False)
        await asyncio.sleep(60)
        assert view(rig, "one").undone
        rig.kernel.silent = set()
        await asyncio.sleep(timers.TRIAL)
        assert view(rig, "one").configuration == ONE


async def test_what_the_kernel_takes_late_is_on_trial_from_then() -> None:
    async with node() as rig:
        configure, busy = rig.kernel.configure, [OSError(16, "busy")] * 4

        async def refusing(group: NodeGroup, memory: Any, secure: Any) -> None:
            await configure(group, memory, secure)
            if busy:
                raise busy.pop()

        rig.kernel.configure = refusing  # type: ignore[method-assign]
        await want(rig, unprobed_group())
        await asyncio.sleep(17)
        assert view(rig).configuration == unprobed_group()
        assert view(rig).on_trial
        await undo(rig)
        assert told(rig) == ["lab"]


async def test_verdict_that_comes_before_any_configuration_withdraws_nothing() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        left = left_behind(rig)
    assert left.trial is not None
    async with node(replace(left, trial=replace(left.trial, attempts=timers.TRIALS))) as rig:
        await asyncio.sleep(60)
        assert calls(rig, "withdraw", "restore") == []
        await want(rig, *left.wanted())
        assert view(rig).configuration.policies.mode is Mode.OBSERVE


async def test_killed_between_withdrawal_and_observation_the_refusal_is_not_forgotten() -> None:
    async with node() as rig:
        await want(rig, ONE)
        await asyncio.sleep(2 * timers.TRIAL)
        await want(rig, ONE, TWO)
        rig.kernel.faults["configure"] = [OSError(5, "killed here")] * 1000
        await undo(rig)
        left = left_behind(rig)
        assert "two" not in left.groups
    async with node(left) as rig:
        await want(rig, *left.wanted())  # no API server yet
        await want(rig, ONE, TWO)
        assert view(rig, "two").configuration.policies.mode is Mode.OBSERVE


async def test_agent_without_trials_refuses_nothing_that_an_earlier_one_refused() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        await undo(rig)
        left = left_behind(rig)
    rig = Rig(left)
    rig.kernel.routers = frozenset({GATEWAY})
    assert await rig.apply(*left.wanted())
    assert view(rig).configuration == unprobed_group()
    assert view(rig).undone == ""
    rig.plane.stop()


async def test_routes_that_cannot_be_read_do_not_stop_the_agent() -> None:
    async with node() as rig:
        rig.kernel.faults["gateways"] = [OSError(11, "dump interrupted 5 times")]
        await want(rig, unprobed_group())
        assert view(rig).configuration == unprobed_group()
        await want(rig, MENDED)
        assert view(rig).on_trial


async def test_new_group_that_takes_a_member_of_what_was_there_before_ends_the_refusal() -> None:
    both = unprobed_group("one", addresses=("198.18.0.100/24",))
    async with node() as rig:
        await want(rig, both)
        await asyncio.sleep(2 * timers.TRIAL)
        await want(rig, ONE)
        await undo(rig)
        assert view(rig, "one").configuration == both
        await want(rig, ONE, TWO)
        assert view(rig, "one").configuration == ONE
        assert view(rig, "two").configuration == TWO
        assert view(rig, "one").on_trial


async def test_unchanged_group_is_taken_over_before_anybody_is_asked_about_another() -> None:
    async with node() as rig:
        await want(rig, ONE)
        await asyncio.sleep(2 * timers.TRIAL)
        left = left_behind(rig)
    async with node(left) as rig:
        await want(rig, ONE, TWO)
        assert calls(rig, "configure", "gateways")[:2] == [("configure", "one"), ("gateways", "")]


async def test_agent_that_finds_a_change_undone_cannot_tell_who_was_to_blame_and_tries_again() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        await undo(rig, back=False)
        await asyncio.sleep(2 * timers.TRIAL)
        left = left_behind(rig)
    async with node(left) as rig:
        await want(rig, unprobed_group())
        await asyncio.sleep(2 * timers.TRIAL_LOOK)
        assert view(rig).configuration.policies.mode is Mode.MANAGE
        await undo(rig)
        (refusal,) = rig.saved[-1].refusals
        assert (refusal.attempts, refusal.final) == (2, True)


async def test_group_that_went_back_to_a_member_has_it_before_the_one_that_only_observes_it() -> None:
    before = unprobed_group("other", addresses=("198.18.0.100/24",))
    after, new = replace(before, members=ONE.members), unprobed_group("new", interfaces=("nic1",), addresses=())
    async with node() as rig:
        await want(rig, before)
        await asyncio.sleep(2 * timers.TRIAL)
        await want(rig, new, after)
        await undo(rig)
        assert sorted(told(rig)) == ["new", "other"]
        left = left_behind(rig)
    async with node(left) as rig:
        await want(rig, new, after)
        assert calls(rig, "configure") == [("configure", "other"), ("configure", "new")]


async def test_targets_of_a_group_that_joins_a_trial_are_missed_too() -> None:
    async with node() as rig:
        await want(rig, ONE)
        await want(rig, ONE, unprobed_group("two", interfaces=("nic1",), targets=(str(TARGET),)))
        rig.kernel.silent = {TARGET}
        await asyncio.sleep(timers.TRIAL)
        assert sorted(told(rig)) == ["one", "two"]
        assert str(TARGET) in view(rig, "two").undone


async def test_trial_that_ends_while_a_joining_group_asks_leaves_it_one_of_its_own() -> None:
    async with node() as rig:
        await want(rig, ONE)
        await asyncio.sleep(timers.TRIAL - 0.6)
        answering = rig.kernel.answering

        async def late(targets: Any) -> Any:
            if TARGET in targets:
                await asyncio.sleep(timers.TRIAL_LOOK / 2)  # the last look at the first group comes meanwhile
            return await answering(targets)

        rig.kernel.answering = late  # type: ignore[method-assign]
        await want(rig, ONE, unprobed_group("two", interfaces=("nic1",), targets=(str(TARGET),)))
        await asyncio.sleep(2 * timers.TRIAL_LOOK)
        assert not view(rig, "one").on_trial
        assert view(rig, "two").on_trial


async def test_undoing_that_fails_is_tried_again_soon_whatever_else_fails_for_long() -> None:
    observing = replace(TWO, policies=replace(TWO.policies, mode=Mode.OBSERVE))
    async with node() as rig:
        refuse(rig, "two")
        await want(rig, ONE, observing)
        await asyncio.sleep(3 * timers.TRIAL_LOOK)
        withdraw, times = rig.kernel.withdraw, []

        async def noting(group: str, *, restore: bool = False) -> None:
            times.append(asyncio.get_running_loop().time())
            await withdraw(group, restore=restore)

        rig.kernel.withdraw = noting  # type: ignore[method-assign]
        rig.kernel.faults["restore"] = [OSError(16, "busy")]
        await undo(rig)
        assert times[1] - times[0] < 1.5 * RETRY_MINIMUM


async def test_trial_asks_the_api_server_eight_times_at_most() -> None:
    async with node() as rig:
        slow(rig, {"lab": 0.5})
        asked = []

        async def ask() -> bool:
            asked.append(asyncio.get_running_loop().time())
            return True

        rig.configurator._trials._api_server = ask
        await want(rig, unprobed_group())
        await asyncio.sleep(60)
        assert not view(rig).on_trial
        assert len(asked) == 8


async def test_group_that_only_observes_a_member_does_not_keep_another_from_going_back_to_it() -> None:
    both = unprobed_group("one", addresses=("198.18.0.100/24",))
    async with node() as rig:
        await want(rig, both)
        await asyncio.sleep(2 * timers.TRIAL)
        await want(rig, ONE, replace(TWO, policies=replace(TWO.policies, mode=Mode.OBSERVE)))
        await undo(rig)
        assert told(rig) == ["one"]
        assert view(rig, "one").configuration == both


async def test_agent_that_ends_during_the_last_of_three_trials_does_not_say_that_it_ended_three_times() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        for _ in range(timers.TRIALS - 1):
            await undo(rig, back=False)
            await asyncio.sleep(2 * timers.TRIAL)
            rig.kernel.silent = set()
            await asyncio.sleep(timers.TRIAL_LOOK + 0.1)
        assert view(rig).on_trial
        left = left_behind(rig)
    async with node(left) as rig:
        await want(rig, unprobed_group())
        await asyncio.sleep(1)
        assert "had 3 trials, and the agent ended before the last of them did" in view(rig).undone
