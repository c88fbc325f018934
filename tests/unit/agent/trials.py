"""A node whose changes are on trial: over the real core and the fake kernel."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING

from ipmp_agent.core import timers
from ipmp_agent.core.reasons import Reason
from ipmp_agent.views import status
from tests.unit.agent.building import Rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ipmp_agent.disk.state import SavedState
    from ipmp_agent.publication import GroupView
    from ipmp_api.types import NodeGroup

GATEWAY, TARGET = ip_address("198.18.0.1"), ip_address("198.18.0.2")
UNDONE_WITHIN = timers.TRIAL


@asynccontextmanager
async def node(saved: SavedState | None = None) -> AsyncIterator[Rig]:
    """A node whose gateway answers, with the configurator at work."""
    rig = Rig(saved, trials=True)
    rig.kernel.routers = frozenset({GATEWAY})
    work = asyncio.create_task(rig.configurator.run())
    try:
        yield rig
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        rig.plane.stop()


async def want(rig: Rig, *groups: NodeGroup) -> None:
    rig.configurator.want(groups)
    await asyncio.sleep(0.1)


def view(rig: Rig, name: str = "lab") -> GroupView:
    found = rig.plane.publication.group(name)
    assert found is not None
    return found


def condition(rig: Rig, kind: str) -> tuple[str, str]:
    (found,) = [one for one in status.conditions(view(rig)) if one.type == kind]
    return found.status, found.reason


def told(rig: Rig) -> list[str]:
    return [o.group for o in rig.watcher.occurrences if o.reason is Reason.CHANGE_UNDONE]


def calls(rig: Rig, *methods: str) -> list[tuple[str, str]]:
    return [call for call in rig.kernel.calls if call[0] in methods]


async def undo(rig: Rig, *, back: bool = True) -> None:
    """Let the gateway fall silent, and come back once the agent has given in."""
    rig.kernel.silent = {GATEWAY}
    await asyncio.sleep(UNDONE_WITHIN)
    if back:
        rig.kernel.silent = set()
    await asyncio.sleep(2 * timers.TRIAL_LOOK)
