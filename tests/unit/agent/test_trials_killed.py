"""An agent that is killed at any moment of a trial leaves a node that the next one brings back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core import timers
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
