"""A trial and the cables: what falls silent because every link is gone is not the change's fault."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from ipmp_agent.core import timers
from ipmp_agent.core.events import LinkChanged, LinksLost
from tests.fake_kernel import present
from tests.unit.agent.building import unprobed_group
from tests.unit.agent.trials import GATEWAY, condition, node, told, view, want

if TYPE_CHECKING:
    from tests.unit.agent.building import Rig

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

NICS = ("nic0", "nic1")


def unplug(rig: Rig) -> None:
    """All cables are pulled: nobody answers."""
    rig.plane.sink("lab", LinksLost(NICS))
    rig.kernel.silent = {GATEWAY}


def plug(rig: Rig) -> None:
    """The cables are in again; whether anybody answers is for the test to say."""
    for name in NICS:
        rig.plane.sink("lab", LinkChanged(name, up=True))


@pytest.mark.parametrize("after", [0.5, 3.0, 9.0])
@pytest.mark.parametrize("seconds", [5.0, 20.0, 200.0])
async def test_change_is_not_undone_for_cables_that_are_pulled_meanwhile(after: float, seconds: float) -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        await asyncio.sleep(after)
        unplug(rig)
        await asyncio.sleep(seconds)
        assert told(rig) == []
        plug(rig)
        rig.kernel.silent = set()
        await asyncio.sleep(timers.TRIAL + 2 * timers.TRIAL_LOOK)
        assert told(rig) == []
        assert condition(rig, "Programmed") == ("True", "Configured")
        assert not view(rig).on_trial


async def test_switch_that_waits_after_its_link_came_up_is_given_its_time() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        unplug(rig)
        await asyncio.sleep(3)
        plug(rig)
        await asyncio.sleep(30)  # spanning tree
        assert told(rig) == []
        rig.kernel.silent = set()
        await asyncio.sleep(2 * timers.TRIAL_LOOK)
        assert not view(rig).on_trial


async def test_who_stays_silent_after_the_cables_are_back_is_lost_by_the_change() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        unplug(rig)
        await asyncio.sleep(3)
        plug(rig)
        await asyncio.sleep(timers.QUIET_PERIOD + (timers.TRIAL_LOOKS + 1) * timers.TRIAL_LOOK)
        assert told(rig) == ["lab"]


async def test_silence_while_one_member_has_a_link_counts() -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        rig.plane.sink("lab", LinkChanged("nic0", up=False))
        rig.kernel.silent = {GATEWAY}
        await asyncio.sleep(timers.TRIAL)
        assert told(rig) == ["lab"]


async def test_change_to_members_that_never_had_a_link_is_undone() -> None:
    async with node() as rig:
        rig.kernel.interfaces["lab"] = tuple(present(name, index, link=False) for index, name in enumerate(NICS, 1))
        await want(rig, unprobed_group())
        rig.kernel.silent = {GATEWAY}
        await asyncio.sleep(timers.TRIAL)
        assert told(rig) == ["lab"]


async def test_change_that_is_refused_for_good_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with node() as rig:
        await want(rig, unprobed_group())
        rig.kernel.silent = {GATEWAY}
        await asyncio.sleep(timers.TRIAL)
        rig.kernel.silent = set()
        await asyncio.sleep(2 * timers.TRIAL_LOOK)
        assert "it is not tried again until a spec changes" in caplog.text
