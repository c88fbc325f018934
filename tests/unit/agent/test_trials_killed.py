"""An agent that is killed at any moment of a trial leaves a node that the next one brings back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core import timers
from ipmp_agent.dataplane import trials
from ipmp_agent.disk import state
from ipmp_api.types import Mode
from tests.unit.agent.building import Rig, unprobed_group
from tests.unit.agent.trials import GATEWAY, node, told, view, want

if TYPE_CHECKING:
    from ipmp_agent.disk.state import SavedState
    from ipmp_api.types import Address, NodeGroup
    from tests.fake_kernel import FakeGroup

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

GOOD, BAD = unprobed_group(), unprobed_group(addresses=("198.18.0.109/24",))


def is_cut_off(rig: Rig) -> bool:
    """Whether the bad configuration is in the kernel."""
    inside = [group.configuration for group in rig.kernel.groups.values()]
    return any(each == replace(BAD, peers=each.peers) for each in inside)


def cut_off_by_the_bad_group(rig: Rig) -> None:
    async def answering(targets: Any) -> frozenset[Address]:
        return frozenset(targets) - ({GATEWAY} if is_cut_off(rig) else frozenset())

    rig.kernel.answering = answering  # type: ignore[method-assign]


async def moments(*, before: NodeGroup | None) -> list[tuple[SavedState, dict[str, FakeGroup]]]:
    """What is on disk and in the kernel around each writing of the state file, from the bad change to its refusal."""
    seen: list[tuple[SavedState, dict[str, FakeGroup]]] = []
    async with node() as rig:
        cut_off_by_the_bad_group(rig)
        if before is not None:
            await want(rig, before)
            await asyncio.sleep(2 * timers.TRIAL)

        def save(saved: SavedState) -> None:
            inside = {name: replace(group) for name, group in rig.kernel.groups.items()}
            if seen:
                seen.append((seen[-1][0], inside))  # killed just before
            seen.append((saved, inside))

        rig.plane._save = save
        await want(rig, BAD)
        await asyncio.sleep(4 * timers.TRIAL)
        assert told(rig) == ["lab"]
    assert any(saved.trial for saved, _ in seen)
    assert any(saved.refusals for saved, _ in seen)
    return seen


@pytest.mark.parametrize("cluster", [False, True], ids=["file", "cluster"])
@pytest.mark.parametrize("before", [None, GOOD], ids=["new", "changed"])
async def test_next_agent_brings_the_node_back(before: NodeGroup | None, *, cluster: bool) -> None:
    for saved, kernel in await moments(before=before):
        async with node(state.parse(state.dump(saved, "boot"), "boot")) as rig:
            rig.kernel.groups = kernel
            cut_off_by_the_bad_group(rig)
            if cluster:  # at first nobody but the state file says what is wanted
                if saved.wanted():
                    await want(rig, *saved.wanted())
                await asyncio.sleep(timers.TRIAL)
            await want(rig, BAD)
            await asyncio.sleep(4 * timers.TRIAL)
            assert not is_cut_off(rig)
            assert view(rig).undone
            if before is None:
                assert view(rig).configuration.policies.mode is Mode.OBSERVE
            else:
                assert view(rig).configuration == before


def left_by_one_that_was(rig: Rig, *, stopped: bool) -> SavedState:
    """What is on disk when an agent was killed, or was asked to stop."""
    if stopped:
        rig.configurator.stopped()
        rig.plane.stop()
    return state.parse(state.dump(rig.saved[-1], "boot"), "boot")


async def test_ends_that_somebody_asked_for_are_no_proof_against_a_change() -> None:
    """An image is rolled out, a node drained: the agent says goodbye, which no change that kills it lets it do."""
    left = state.SavedState()
    for _ in range(2 * timers.TRIALS):
        async with node(left) as rig:
            await want(rig, GOOD)
            assert view(rig).configuration.policies.mode is Mode.MANAGE
            assert view(rig).on_trial
            left = left_by_one_that_was(rig, stopped=True)
    async with node(left) as rig:
        await want(rig, GOOD)
        await asyncio.sleep(2 * timers.TRIAL)
        assert not view(rig).on_trial
        assert view(rig).undone == ""


async def test_an_agent_without_an_api_server_leaves_open_what_one_with_it_began() -> None:
    """The host's agent stands in for a pod's that is deleted while its group is on trial."""
    async with node() as rig:
        rig.api_server = True
        await want(rig, GOOD)
        left = left_by_one_that_was(rig, stopped=True)
    assert left.trial is not None
    assert trials.API_SERVER in left.trial.reached
    async with node(left) as rig:
        await want(rig, GOOD)
        await asyncio.sleep(3 * timers.TRIAL)
        assert view(rig).on_trial, "whether the API server answers is for the next agent to say"
        assert view(rig).configuration.policies.mode is Mode.MANAGE
        left = left_by_one_that_was(rig, stopped=True)
    for answers in (True, False):
        async with node(left) as rig:
            rig.api_server = answers
            await want(rig, GOOD)
            await asyncio.sleep(2 * timers.TRIAL)
            assert not view(rig).on_trial
            assert bool(view(rig).undone) is not answers


async def test_an_agent_without_an_api_server_undoes_what_cuts_it_off() -> None:
    async with node() as rig:
        rig.api_server = True
        await want(rig, GOOD)
        left = left_by_one_that_was(rig, stopped=True)
    async with node(left) as rig:
        rig.kernel.silent = {GATEWAY}
        await want(rig, GOOD)
        await asyncio.sleep(2 * timers.TRIAL)
        assert str(GATEWAY) in view(rig).undone
        rig.kernel.silent = set()
        await asyncio.sleep(2 * timers.TRIAL)
        assert view(rig).undone, "the API server was lost, too, and this agent cannot ask it"


async def cut_short() -> SavedState:
    """What is left of a change whose agent was killed in each of its trials, once it is refused."""
    left = state.SavedState()
    for _ in range(timers.TRIALS):
        async with node(left) as rig:
            await want(rig, GOOD)
            left = left_by_one_that_was(rig, stopped=False)
    async with node(left) as rig:
        await want(rig, GOOD)
        await asyncio.sleep(1)
        assert told(rig) == ["lab"]
        assert "tried again in 4 hours" in view(rig).undone
        return left_by_one_that_was(rig, stopped=False)


@pytest.mark.parametrize("restarted", [False, True], ids=["same agent", "next agent"])
async def test_what_was_only_cut_short_is_tried_again_hours_later(*, restarted: bool) -> None:
    async with node(await cut_short()) as rig:
        await want(rig, GOOD)
        await asyncio.sleep(trials.RETRY_CUT_SHORT / 2)
        assert view(rig).configuration.policies.mode is Mode.OBSERVE
        left = left_by_one_that_was(rig, stopped=restarted)
        if not restarted:
            await asyncio.sleep(trials.RETRY_CUT_SHORT)
    if restarted:
        async with node(left) as rig:
            await want(rig, GOOD)
            assert view(rig).configuration.policies.mode is Mode.OBSERVE
            await asyncio.sleep(trials.RETRY_CUT_SHORT)
    assert view(rig).undone == ""
    assert view(rig).configuration.policies.mode is Mode.MANAGE


async def test_what_was_only_cut_short_is_tried_again_after_a_reboot() -> None:
    left = state.parse(state.dump(await cut_short(), "boot"), "another boot")
    async with node(left) as rig:
        await want(rig, GOOD)
        assert view(rig).configuration.policies.mode is Mode.MANAGE
        assert view(rig).on_trial
