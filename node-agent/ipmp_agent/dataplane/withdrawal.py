"""Removes from the kernel what a stopped agent left there."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ipmp_agent.disk import state
from ipmp_agent.disk.state import SavedState
from ipmp_agent.linux.kernel import Kernel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ipmp_agent.core.events import Event
    from ipmp_agent.dataplane.loop import KernelPort as KernelSide

log = logging.getLogger(__name__)


def _unheard(_group: str, _event: Event) -> None:
    """Nobody decides anything during a withdrawal."""


async def _saved_already() -> bool:
    """What the state file says stays there until all is withdrawn."""
    return True


async def withdraw(
    directory: Path,
    make_kernel: Callable[[Callable[[str, Event], None]], KernelSide] = Kernel,
    beside: Path | None = None,
) -> SavedState:
    """Withdraw every group of the state file; return what is left, which stays in the file. Raises OSError.

    Args:
        directory: of the state file.
        make_kernel: makes what withdraws.
        beside: where the agent kept the state if that directory took nothing.
    """
    saved = state.load(directory, beside)
    left = dict(saved.groups)
    kernel = make_kernel(_unheard)
    await kernel.open({name: group.kernel for name, group in saved.groups.items()})
    try:
        for name, group in saved.groups.items():
            try:
                await kernel.configure(group.configuration, group.kernel, _saved_already)
                await kernel.withdraw(name)
            except Exception:
                log.exception("could not withdraw; try again", extra={"group": name})
                continue
            del left[name]
            try:
                state.keep(directory, SavedState(left), beside)
            except OSError as error:
                log.error("the state file still has what was withdrawn: %s", error, extra={"group": name})  # noqa: TRY400
            log.info("withdrawn from the kernel", extra={"group": name})
    finally:
        await kernel.close()
    return SavedState(left)
