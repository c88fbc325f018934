"""A change that costs the node what it had is undone by the agent alone: over the real core and the fake kernel."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core import timers
from ipmp_agent.core.findings import Finding
from ipmp_agent.core.reasons import Reason
from ipmp_agent.dataplane.trials import API_SERVER
from ipmp_agent.disk import state
from ipmp_agent.disk.state import SavedState
from ipmp_api.types import DeletionPolicy, Mode
from tests.unit.agent.building import Rig, unprobed_group
from tests.unit.agent.trials import GATEWAY, TARGET, UNDONE_WITHIN, calls, condition, node, told, undo, view, want

if TYPE_CHECKING:
    from ipmp_api.types import NodeGroup

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]


async def test_new_group_is_on_trial_and_then_kept() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        assert condition(rig, "Programmed") == ("True", "ChangeOnTrial")
        assert rig.saved[-1].trial is not None
        await asyncio.sleep(timers.TRIAL + timers.TRIAL_LOOK)
        assert condition(rig, "Programmed") == ("True", "Configured")
        assert rig.saved[-1].trial is None
        rig.kernel.silent = {GATEWAY}
        await asyncio.sleep(60)
        assert told(rig) == []


async def test_who_answers_is_asked_before_the_kernel_is_touched() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        asked = [method for method, _ in rig.kernel.calls]
        assert asked.index("gateways") < asked.index("answering") < asked.index("configure")


async def test_trial_is_on_disk_before_the_kernel_is_touched() -> None:
    async with node() as rig:
        configure = rig.kernel.configure
        seen = []

        async def look(group: NodeGroup, memory: Any, secure: Any) -> None:
            seen.append(rig.saved[-1].trial)
            await configure(group, memory, secure)

        rig.kernel.configure = look  # type: ignore[method-assign]
        await want(rig, unprobed_group())
        assert seen[0] is not None
        assert seen[0].reached == (str(GATEWAY),)


async def test_new_group_that_costs_the_gateway_lets_go_of_the_kernel_and_only_observes() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        await undo(rig)
        assert calls(rig, "restore") == [("restore", "lab")]
        assert view(rig).configuration.policies.mode is Mode.OBSERVE
        assert told(rig) == ["lab"]
        assert condition(rig, "Programmed") == ("False", "ChangeUndone")
        assert condition(rig, "Degraded") == ("True", "ChangeUndone")
        assert str(GATEWAY) in view(rig).undone
        assert rig.plane.measurements.group("lab").undone == 1


async def test_new_group_is_taken_out_whatever_its_deletion_policy_says() -> None:
    retaining = unprobed_group()
    retaining = replace(retaining, policies=replace(retaining.policies, deletion_policy=DeletionPolicy.RETAIN))
    async with node() as rig:
        await want(rig, retaining)
        await undo(rig)
        assert calls(rig, "restore", "withdraw") == [("restore", "lab")]


@pytest.mark.parametrize(("seconds", "how"), [(1.0, "restore"), (2 * timers.TRIAL, "withdraw")])
async def test_group_that_is_deleted_before_it_proved_itself_puts_everything_back(seconds: float, how: str) -> None:
    retaining = unprobed_group()
    retaining = replace(retaining, policies=replace(retaining.policies, deletion_policy=DeletionPolicy.RETAIN))
    async with node() as rig:
        await want(rig, retaining)
        await asyncio.sleep(seconds)
        await want(rig)
        assert calls(rig, "restore", "withdraw") == [(how, "lab")]


async def test_change_that_costs_the_gateway_is_undone_to_the_configuration_before() -> None:
    before, after = unprobed_group(), unprobed_group(addresses=("198.18.0.100/24",))
    async with node() as rig:
        await want(rig, before)
        await asyncio.sleep(2 * timers.TRIAL)
        await want(rig, after)
        assert view(rig).configuration == after
        await undo(rig)
        assert view(rig).configuration == before
        assert set(rig.holders) == {"198.18.0.100", "198.18.0.101"}
        assert calls(rig, "restore", "withdraw") == []
        assert told(rig) == ["lab"]


async def test_offline_alone_is_a_change_that_can_be_undone() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        await asyncio.sleep(2 * timers.TRIAL)
        await want(rig, unprobed_group(offline=("nic0",)))
        assert any(member.offline for member in view(rig).snapshot.interfaces)
        await undo(rig)
        assert not any(member.offline for member in view(rig).snapshot.interfaces)


async def test_peers_come_and_go_without_a_trial() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        await asyncio.sleep(2 * timers.TRIAL)
        await want(rig, replace(unprobed_group(), peers=(TARGET,)))
        assert not view(rig).on_trial


async def test_observing_is_not_tried() -> None:
    group = unprobed_group()
    async with node() as rig:
        await want(rig, replace(group, policies=replace(group.policies, mode=Mode.OBSERVE)))
        assert not view(rig).on_trial
        assert calls(rig, "answering") == []


async def test_what_did_not_answer_before_is_not_demanded_after() -> None:
    async with node() as rig:
        rig.kernel.silent = {TARGET}
        await want(rig, unprobed_group(targets=(str(TARGET),)))
        await asyncio.sleep(2 * timers.TRIAL)
        assert told(rig) == []
        assert not view(rig).on_trial


async def test_node_that_reaches_nobody_has_nothing_to_lose() -> None:
    async with node() as rig:
        rig.kernel.silent = {GATEWAY}
        await want(rig, unprobed_group())
        assert not view(rig).on_trial


@pytest.mark.parametrize("hangs", [False, True])
async def test_api_server_is_missed_whether_it_refuses_to_answer_or_hangs(*, hangs: bool) -> None:
    async with node() as rig:
        rig.kernel.routers = frozenset()
        rig.api_server = True
        await want(rig, unprobed_group())
        assert view(rig).on_trial
        rig.api_server = None if hangs else False
        if hangs:
            rig.configurator._trials._api_server = asyncio.Event().wait
        await asyncio.sleep(2 * UNDONE_WITHIN)
        assert API_SERVER in view(rig).undone


async def test_refused_configuration_is_not_tried_again_and_a_new_one_is() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        await undo(rig)
        rig.kernel.calls.clear()
        await want(rig, unprobed_group())
        await asyncio.sleep(600)
        assert view(rig).configuration.policies.mode is Mode.OBSERVE
        assert calls(rig, "configure") == []
        await want(rig, unprobed_group(addresses=("198.18.0.100/24",)))
        assert view(rig).configuration.policies.mode is Mode.MANAGE
        assert view(rig).on_trial
        assert view(rig).undone == ""
        await asyncio.sleep(2 * timers.TRIAL)
        assert rig.saved[-1].refusals == ()


async def test_new_peers_are_no_reason_to_try_again_what_was_refused() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        await undo(rig)
        await want(rig, replace(unprobed_group(), peers=(TARGET,)))
        assert view(rig).configuration.policies.mode is Mode.OBSERVE
        assert view(rig).configuration.peers == (TARGET,)


async def test_groups_that_changed_together_are_undone_together_and_tried_again_together() -> None:
    one, two = unprobed_group("one", interfaces=("nic0",)), unprobed_group("two", interfaces=("nic1",))
    async with node() as rig:
        await want(rig, one, two)
        await undo(rig)
        assert sorted(told(rig)) == ["one", "two"]
        assert "two" in view(rig, "one").undone
        mended = unprobed_group("two", interfaces=("nic1",), addresses=("198.18.0.101/24",))
        await want(rig, one, mended)
        assert {name: view(rig, name).configuration.policies.mode for name in ("one", "two")} == {
            "one": Mode.MANAGE,
            "two": Mode.MANAGE,
        }


async def test_group_that_was_there_before_stays_when_a_new_one_is_undone() -> None:
    one, two = unprobed_group("one", interfaces=("nic0",)), unprobed_group("two", interfaces=("nic1",))
    async with node() as rig:
        await want(rig, one)
        await asyncio.sleep(2 * timers.TRIAL)
        await want(rig, one, two)
        await undo(rig)
        assert told(rig) == ["two"]
        assert view(rig, "one").configuration == one
        assert calls(rig, "restore", "withdraw") == [("restore", "two")]


async def test_what_comes_back_late_was_lost_for_another_reason_and_the_change_is_tried_again() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        await undo(rig, back=False)
        await asyncio.sleep(60)
        assert view(rig).configuration.policies.mode is Mode.OBSERVE
        rig.kernel.silent = set()
        await asyncio.sleep(timers.TRIAL)
        assert view(rig).configuration.policies.mode is Mode.MANAGE
        await asyncio.sleep(2 * timers.TRIAL)
        assert not view(rig).on_trial
        assert view(rig).undone == ""
        assert told(rig) == ["lab"]


async def test_change_is_tried_three_times_at_most() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        for _ in range(5):
            rig.kernel.silent = {GATEWAY}
            await asyncio.sleep(60)
            rig.kernel.silent = set()
            await asyncio.sleep(timers.TRIAL_LOOK * 2)
        assert len(told(rig)) == timers.TRIALS
        assert rig.saved[-1].refusals[0].final
        assert view(rig).configuration.policies.mode is Mode.OBSERVE


async def test_deletion_of_a_group_on_trial_ends_its_trial() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        await want(rig)
        assert rig.plane.groups == {}
        await undo(rig)
        assert told(rig) == []
        assert rig.saved[-1] == SavedState()


async def test_deletion_of_a_refused_group_forgets_the_refusal() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        await undo(rig)
        await want(rig)
        assert rig.saved[-1] == SavedState()
        await want(rig, unprobed_group())
        assert view(rig).configuration.policies.mode is Mode.MANAGE


async def test_change_taken_back_by_hand_is_on_trial_no_more() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        await asyncio.sleep(2 * timers.TRIAL)
        await want(rig, unprobed_group(addresses=("198.18.0.100/24",)))
        await want(rig, unprobed_group())
        assert not view(rig).on_trial
        assert rig.saved[-1].trial is None


async def test_group_that_is_told_to_observe_is_on_trial_no_more() -> None:
    group = unprobed_group()
    async with node() as rig:
        await want(rig, group)
        await want(rig, replace(group, policies=replace(group.policies, mode=Mode.OBSERVE)))
        assert not view(rig).on_trial
        await undo(rig)
        assert told(rig) == []


async def test_second_change_during_a_trial_is_undone_to_what_was_proven() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        await asyncio.sleep(2 * timers.TRIAL)
        await want(rig, unprobed_group(addresses=("198.18.0.100/24",)))
        await want(rig, unprobed_group(addresses=("198.18.0.109/24",)))
        await undo(rig)
        assert view(rig).configuration == unprobed_group()


async def test_killed_during_a_trial_the_next_agent_goes_on_with_it() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        left = state.parse(state.dump(rig.saved[-1], "boot"), "boot")
    async with node(left) as rig:
        await want(rig, unprobed_group())
        assert view(rig).on_trial
        await undo(rig)
        assert told(rig) == ["lab"]
        assert view(rig).configuration.policies.mode is Mode.OBSERVE


async def test_trial_that_is_cut_short_three_times_is_lost() -> None:
    left = SavedState()
    for _ in range(timers.TRIALS):
        async with node(left) as rig:
            await want(rig, unprobed_group())
            assert view(rig).configuration.policies.mode is Mode.MANAGE
            left = state.parse(state.dump(rig.saved[-1], "boot"), "boot")
    async with node(left) as rig:
        await want(rig, unprobed_group())
        await asyncio.sleep(1)
        assert told(rig) == ["lab"]
        assert view(rig).configuration.policies.mode is Mode.OBSERVE
        await asyncio.sleep(600)
        assert view(rig).configuration.policies.mode is Mode.OBSERVE


async def test_restart_remembers_what_was_refused() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        await undo(rig)
        left = state.parse(state.dump(rig.saved[-1], "boot"), "boot")
    assert left.wanted() == (unprobed_group(),)
    async with node(left) as rig:
        await want(rig, *left.wanted())
        await asyncio.sleep(60)
        assert view(rig).configuration.policies.mode is Mode.OBSERVE
        assert condition(rig, "Programmed") == ("False", "ChangeUndone")


async def test_killed_before_a_refused_group_was_withdrawn_the_next_agent_withdraws_it() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        rig.kernel.faults["restore"] = [OSError(5, "killed here")] * 100
        await undo(rig)
        left = state.parse(state.dump(rig.saved[-1], "boot"), "boot")
        assert left.groups["lab"].configuration.policies.mode is Mode.MANAGE
    async with node(left) as rig:
        await want(rig, unprobed_group())
        assert calls(rig, "restore") == [("restore", "lab")]
        assert view(rig).configuration.policies.mode is Mode.OBSERVE


async def test_withdrawal_that_fails_is_tried_again() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        rig.kernel.faults["restore"] = [OSError(16, "busy")]
        await undo(rig)
        await asyncio.sleep(10)
        assert view(rig).configuration.policies.mode is Mode.OBSERVE


async def test_kernel_that_refuses_a_configuration_does_not_stop_the_clock() -> None:
    async with node() as rig:
        rig.kernel.faults["configure"] = [OSError(22, "no")] * 5
        await want(rig, unprobed_group())
        await undo(rig)
        assert told(rig) == ["lab"]


@pytest.mark.parametrize("fault", [OSError(24, "too many open files"), RuntimeError("a fault of ours")])
async def test_that_we_cannot_ask_is_nobodys_silence(fault: Exception) -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        rig.kernel.faults["answering"] = [fault] * 4
        await asyncio.sleep(3 * timers.TRIAL)
        assert told(rig) == []
        assert not view(rig).on_trial


async def test_disabled_every_change_is_kept_at_once() -> None:
    rig = Rig()
    rig.kernel.routers = frozenset({GATEWAY})
    assert await rig.apply(unprobed_group())
    assert calls(rig, "gateways", "answering") == []
    assert not view(rig).on_trial


async def test_who_answers_by_some_members_only_is_lost_and_they_are_named() -> None:
    async with node() as rig:
        rig.kernel.cut = {GATEWAY: ("nic1",)}
        await want(rig, unprobed_group())
        assert not view(rig).on_trial, "what was so before the change is not its fault"
        rig.kernel.cut = {}
        await want(rig, unprobed_group(addresses=("198.18.0.10/24",)))
        assert view(rig).on_trial
        rig.kernel.cut = {GATEWAY: ("nic1",)}
        await asyncio.sleep(timers.TRIAL)
        assert f"{GATEWAY} answers, but not what leaves by nic1" in view(rig).undone


async def test_what_stands_in_the_way_on_this_host_is_said_with_the_loss() -> None:
    async with node() as rig:
        rules, hashes = "rules by interface name nic0 alone.", "the hash policy is 0."
        rig.kernel.found["lab"] = (
            Finding(Reason.FIREWALL_PINNED, rules),
            Finding(Reason.MULTIPATH_HASH_POLICY, hashes),
        )
        await want(rig, unprobed_group())
        rig.kernel.silent = {GATEWAY}
        await asyncio.sleep(timers.TRIAL)
        assert view(rig).undone.endswith(f". On this host: {rules}")
