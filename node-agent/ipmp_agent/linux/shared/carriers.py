"""Polls of the carriers: each asks all the time, in a thread, so that the data plane need not wait for the answer.

Drivers answer under the kernel's one lock for all network configuration (RTNL), which others hold for tens of
milliseconds when pods come and go. A caller waits as long; the counts of losses are read without it, in another thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from ipmp_service.threads import kept

if TYPE_CHECKING:
    from collections.abc import Callable

STOP_TIMEOUT = 1.0
"""Seconds to wait for the thread at the end: it may stand in the queue for that lock."""


class CarrierPoll:
    """Calls `differs` in a thread at every interval, and `changed` in the running loop whenever that says so.

    Args:
        name: of the thread.
        interval: seconds.
        differs: whether some carrier is not what the loop believes; asks the kernel.
        changed: looks again, and acts.
    """

    def __init__(self, name: str, interval: float, differs: Callable[[], bool], changed: Callable[[], None]) -> None:
        self._interval = interval
        self._differs = differs
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._thread = kept(self._run, name)
        self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(self._interval)  # a lock that could end the wait costs a third more
            if self._closed:
                return
            if self._differs():
                with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                    self._loop.call_soon_threadsafe(self._changed)

    def close(self) -> None:
        """Ask no more."""
        self._closed = True
        self._thread.join(STOP_TIMEOUT)
