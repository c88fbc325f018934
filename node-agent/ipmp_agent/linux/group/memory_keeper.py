"""Keeps the memory of one group on disk: an adopted address is told of when it is known there how to put it back."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ipmp_agent.core.events import AddressAdopted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ipmp_agent.core.events import Event
    from ipmp_agent.linux.group.data_addresses import GroupDataAddresses
    from ipmp_agent.linux.group.twins import Twins

log = logging.getLogger(__name__)

MEMORY_PAUSE = 1.0
"""Seconds between writings of the memory while routes keep changing."""

MEMORY_PAUSE_MAXIMUM = 16.0
"""Seconds between attempts to have the memory written, where no disk takes it."""


class MemoryKeeper:
    """Has the memory written when there is more to be remembered.

    Args:
        group: its name.
        sink: takes each event.
        observing: whether the kernel is only looked at: then there is nothing to put back.
    """

    def __init__(self, group: str, sink: Callable[[Event], None], observing: Callable[[], bool]) -> None:
        self._group = group
        self._sink = sink
        self._observing = observing
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._kept: list[bytes] = []  # routes that the memory holds
        self._unkept = False  # whether it holds addresses that were given up
        self._untold: list[AddressAdopted] = []  # until the memory is safe
        self.secure: Callable[[], Awaitable[bool]]
        """Has the memory written; returns whether it is on disk."""

    def of(self, data: GroupDataAddresses, twins: Twins) -> None:
        """Take note of whose memory it is."""
        self._data = data
        self._twins = twins

    @property
    def writing(self) -> bool:
        """Whether the memory is being written, or is to be written again."""
        return self._task is not None

    def tell(self, event: Event) -> None:
        """Tell of an address that may be moved once it is known on disk how to put it back."""
        if isinstance(event, AddressAdopted) and not self._observing():
            self._untold.append(event)
        else:
            self._sink(event)

    async def keep(self) -> bool:
        """Have the memory written, and tell of what may be moved now; returns whether it is on disk."""
        untold, self._untold, self._unkept = self._untold, [], False
        kept = self._twins.at_stake()
        if not await self.secure():
            # Whoever cannot be put back is not taken care of yet.
            self._untold, self._unkept = untold + self._untold, True
            self.keep_soon()
            return False
        self._kept = kept
        for event in untold:
            if self._data.adopts(event.address):
                self._sink(event)
        return True

    def keep_soon(self, *, changed: bool = False) -> None:
        """Have it written beside other work; `changed`: also if no route at stake did."""
        self._unkept = self._unkept or changed
        if self._task is None and not self._observing() and self._data.adoption.enabled:
            self._task = self._loop.create_task(self._keep_while_it_changes())
            self._task.add_done_callback(self._done)

    async def _keep_while_it_changes(self) -> None:
        pause = MEMORY_PAUSE
        while self._untold or self._unkept or self._kept != self._twins.at_stake():
            pause = MEMORY_PAUSE if await self.keep() else min(2 * pause, MEMORY_PAUSE_MAXIMUM)
            await asyncio.sleep(pause)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: what the host had could not be saved", self._group, exc_info=error)

    async def close(self) -> None:
        """Write no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
