"""Trials, refusals and what comes between: a change during a look, a kernel that is slow, an agent that is killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.agent.building import node_group
from tests.unit.agent.test_probation import node, view, want

if TYPE_CHECKING:
    pass

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

ONE, TWO = node_group("one", interfaces=("nic0",)), node_group("two", interfaces=("nic1",))
MENDED = node_group(addresses=("198.18.0.109/24",))


async def test_routes_that_cannot_be_read_do_not_stop_the_agent() -> None:
    async with node() as rig:
        rig.kernel.faults["gateways"] = [OSError(11, "dump interrupted 5 times")]
        await want(rig, node_group())
        assert view(rig).configuration == node_group()
        await want(rig, MENDED)
        assert view(rig).on_trial
