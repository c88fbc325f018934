"""Data addresses announced again and again, for neighbours and switches that forget."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ipmp_api.types import Mode

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipmp_api.types import NodeGroup


class AnnouncementRefresh:
    """The clock of one group's announcements.

    Args:
        announce: announces every data address that is here, and nothing of one whose announcement is under way.
    """

    def __init__(self, announce: Callable[[], None]) -> None:
        self._announce = announce
        self._loop = asyncio.get_running_loop()
        self._interval: int | None = None  # seconds
        self._timer: asyncio.TimerHandle | None = None

    def configure(self, configuration: NodeGroup) -> None:
        """Take the interval; the clock of an interval that stays goes on. A group that observes says nothing."""
        policies = configuration.policies
        wanted = policies.announcement_refresh_seconds if policies.mode is Mode.MANAGE else None
        if wanted != self._interval:
            self.close()
            self._interval = wanted
            self._arm()

    def _arm(self) -> None:
        if self._interval is not None:
            self._timer = self._loop.call_later(self._interval, self._due)

    def _due(self) -> None:
        self._arm()
        self._announce()

    def close(self) -> None:
        """Stop the clock."""
        self._interval = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
