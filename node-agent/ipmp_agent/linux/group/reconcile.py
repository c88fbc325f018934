"""When a group is compared with the kernel: soon after somebody changed what is ours, yet never in a fight."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from ipmp_agent.core import timers
from ipmp_agent.core.findings import Finding
from ipmp_agent.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

WINDOW = 60.0
"""Seconds over which foreign changes are counted."""

REPAIRS_AT_ONCE = 3
"""Foreign changes within the window that are put right at once; from then on it is said, and waits grow.

A change that takes two repairs within timers.REPAIR_FOREIGN counts as one.
"""

RETRY = 1.0
"""Seconds until a comparison that failed is made again."""

KERNELS_OWN = 0.5
"""Seconds within which the kernel takes along what belongs to a link or interface that goes."""

LONGEST_WAIT = 10.0
"""Seconds between repairs of what somebody keeps undoing."""


class GroupReconciler:
    """Runs the comparison of one group, one at a time.

    Args:
        group: its name.
        compare: compares and repairs; returns how much it had to do.
    """

    def __init__(self, group: str, compare: Callable[[], Awaitable[int]]) -> None:
        self._group = group
        self._compare = compare
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._suspicious = False
        self._excused_until = float("-inf")
        self._repairs: deque[float] = deque()
        self._in_two_parts = False
        self.foreign_changes = 0

    def soon(self) -> None:
        """Compare at the next opportunity: by our own doing, or a link's, something is to be done that cannot wait."""
        self._schedule(0.0)

    def later(self, wait: float) -> None:
        """Compare in so many seconds at the latest."""
        self._schedule(wait)

    def heard(self) -> None:
        """Somebody changed what may concern us: compare at once, and in a fight not before the next repair."""
        over = self._recent() - REPAIRS_AT_ONCE
        self._schedule(0.0 if over < 0 else min(LONGEST_WAIT, timers.REPAIR_FOREIGN * 2.0**over))

    def changed(self) -> None:
        """Somebody changed what is ours: compare within timers.REPAIR_FOREIGN, later if this goes on."""
        if self._loop.time() >= self._excused_until:
            self._suspicious = True
        self.heard()

    def link_changed(self) -> None:
        """A link of the group came or went, or an interface went: what is missing now, the kernel took along."""
        self._suspicious = False
        self._excused_until = self._loop.time() + KERNELS_OWN

    def findings(self) -> list[Finding]:
        """Whether somebody works against us."""
        recent = self._recent()
        if recent < REPAIRS_AT_ONCE:
            return []
        message = (
            f"another program removed what this group put into the kernel {recent} times within a minute."
            " Tell it to leave foreign addresses and routes alone (networkd: KeepConfiguration=yes in the .network file"
            " of each interface; NetworkManager: unmanaged-devices; Talos, Flatcar and others that hold the network to"
            " a machine configuration: no addresses of the members in it; docs/host.md)."
        )
        return [Finding(Reason.FOREIGN_CHANGE, message)]

    async def close(self) -> None:
        """Compare no more; a comparison under way is broken off."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _recent(self) -> int:
        horizon = self._loop.time() - WINDOW
        while self._repairs and self._repairs[0] < horizon:
            self._repairs.popleft()
        return len(self._repairs)

    def _schedule(self, wait: float) -> None:
        if self._closed:
            return
        due = self._loop.time() + wait
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._start)

    def _start(self) -> None:
        self._timer = None
        if self._task is not None:
            self._schedule(timers.REPAIR_FOREIGN / 10)
            return
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(self._done)

    async def _run(self) -> None:
        suspicious, self._suspicious = self._suspicious, False
        try:
            repaired = await self._compare()
        except Exception:
            log.exception("%s: comparing with the kernel failed; it is tried again", self._group)
            self._suspicious = self._suspicious or suspicious
            self._schedule(RETRY)
            return
        if repaired and (suspicious or self._suspicious):  # what came while it was read is repaired, too
            self._suspicious = False
            self.foreign_changes += 1
            self._count_repair(self._loop.time())
            log.warning("%s: another program changed what is ours; %d requests put it right", self._group, repaired)

    def _count_repair(self, now: float) -> None:
        """Count it, unless it is the second part of one: a daemon that configures a link takes its time over that."""
        recent = bool(self._repairs) and now - self._repairs[-1] < timers.REPAIR_FOREIGN
        self._in_two_parts = recent and not self._in_two_parts
        if not self._in_two_parts:
            self._repairs.append(now)

    def _done(self, _: asyncio.Task[None]) -> None:
        self._task = None
