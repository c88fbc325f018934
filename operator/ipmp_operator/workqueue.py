"""Worker threads that empty a backlog."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from ipmp_operator.core.backlog import LAST_RECONNECT, LAST_RETRY, Backlog
from ipmp_service.api_server import ApiError
from ipmp_service.threads import kept

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

K = TypeVar("K", bound="Hashable")

log = logging.getLogger(__name__)


class WorkQueue(Generic[K]):
    """Does `work(key)` for every key that is due, in several threads, never one key in two.

    What raises is tried again, later each time; `outcome(key, seconds, error)` hears of every attempt. A key of a lower
    `rank` goes before all others that are due.
    """

    def __init__(
        self,
        work: Callable[[K], None],
        outcome: Callable[[K, float, Exception | None], None],
        threads: int,
        rank: Callable[[K], int] = lambda _: 0,
    ) -> None:
        self._work = work
        self._outcome = outcome
        self._backlog: Backlog[K] = Backlog(rank)
        self._changed = threading.Condition()
        self._stopped = False
        self._threads = [kept(self._run, f"worker {number}") for number in range(threads)]

    def __len__(self) -> int:
        with self._changed:
            return len(self._backlog)

    def start(self) -> None:
        """Start the worker threads."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float) -> bool:
        """Let every worker finish what it has in hand; whether all did within `timeout` seconds."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def add(self, key: K, delay: float = 0.0) -> None:
        """Ask for the key in `delay` seconds; an earlier time that was asked for stays."""
        with self._changed:
            self._backlog.add(key, time.monotonic() + delay)
            self._changed.notify()

    def _run(self) -> None:
        while (key := self._next()) is not None:
            started = time.monotonic()
            try:
                self._work(key)
            except Exception as error:  # noqa: BLE001 - one object's fault must not end the work on the others
                self._failed(key, error, started)
            else:
                with self._changed:
                    self._backlog.settle(key)
                    self._changed.notify()
                self._outcome(key, time.monotonic() - started, None)

    def _next(self) -> K | None:
        with self._changed:
            while not self._stopped:
                now = time.monotonic()
                key = self._backlog.take(now)
                if key is not None:
                    return key
                due = self._backlog.next_due()
                self._changed.wait(None if due is None else max(0.0, due - now))
            return None

    def _failed(self, key: K, error: Exception, started: float) -> None:
        after, longest = None, LAST_RETRY
        if isinstance(error, ApiError):
            after = error.retry_after
            longest = LAST_RECONNECT if error.away else LAST_RETRY
        now = time.monotonic()
        with self._changed:
            delay = self._backlog.retry(key, now, after=after, longest=longest)
            self._changed.notify()
        log.warning(
            "%s failed, again in %.1f s: %s",
            key,
            delay,
            error,
            exc_info=None if isinstance(error, ApiError) else error,
        )
        self._outcome(key, now - started, error)
