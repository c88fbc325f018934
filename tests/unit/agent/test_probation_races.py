"""Trials, refusals and what comes between: a change during a look, a kernel that is slow, an agent that is killed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ipmp_agent import state
from ipmp_agent.core import timers
from ipmp_api.types import Mode
from tests.unit.agent.building import Rig, node_group
from tests.unit.agent.test_probation import GATEWAY, calls, node, undo, view, want

if TYPE_CHECKING:
    from ipmp_agent.state import State

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

ONE, TWO = node_group("one", interfaces=("nic0",)), node_group("two", interfaces=("nic1",))
MENDED = node_group(addresses=("198.18.0.109/24",))


def left_behind(rig: Rig) -> State:
    """What an agent that is killed now leaves on disk."""
    return state.parse(state.dump(rig.saved[-1], "boot"), "boot")


async def test_verdict_that_comes_before_any_configuration_withdraws_nothing() -> None:
    async with node() as rig:
        await want(rig, node_group())
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
        await want(rig, node_group())
        await undo(rig)
        left = left_behind(rig)
    rig = Rig(left)
    rig.kernel.routers = frozenset({GATEWAY})
    assert await rig.apply(*left.wanted())
    assert view(rig).configuration == node_group()
    assert view(rig).undone == ""
    rig.plane.stop()


async def test_routes_that_cannot_be_read_do_not_stop_the_agent() -> None:
    async with node() as rig:
        rig.kernel.faults["gateways"] = [OSError(11, "dump interrupted 5 times")]
        await want(rig, node_group())
        assert view(rig).configuration == node_group()
        await want(rig, MENDED)
        assert view(rig).on_trial


async def test_new_group_that_takes_a_member_of_what_was_there_before_ends_the_refusal() -> None:
    both = node_group("one", addresses=("198.18.0.100/24",))
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
