"""What is to be done and when: keys that coalesce, one worker per key, and a delay that grows with each failure.

Time is an argument (monotonic seconds); `ipmp_operator.workqueue` adds the waiting.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

K = TypeVar("K", bound="Hashable")

FIRST_RETRY = 0.5
"""Seconds until a key is tried again after its first failure; the time doubles with each further one."""

LAST_RETRY = 60.0
"""Seconds between the attempts at one key, at most."""

LAST_RECONNECT = 8.0
"""The same while the server cannot be reached: waiting does not spare it, and all is late once it is back."""


class Backlog(Generic[K]):
    """A set of keys with due times; of several times for one key the earliest counts."""

    def __init__(self) -> None:
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []  # may hold outdated entries: _due decides
        self._count = 0
        self._busy: set[K] = set()
        self._failures: dict[K, int] = {}
        self._not_before: dict[K, float] = {}

    def __len__(self) -> int:
        return len(self._due)

    def add(self, key: K, due: float) -> None:
        """Ask for the key at `due`. An earlier time that was asked for stays, and a failed key waits for its retry."""
        due = max(due, self._not_before.get(key, due))
        if due >= self._due.get(key, due + 1):
            return
        self._due[key] = due
        if key not in self._busy:
            self._push(key, due)

    def take(self, now: float) -> K | None:
        """A key that is due, which nobody else gets until it is settled."""
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if key not in self._busy and self._due.get(key) == due:
                del self._due[key]
                self._busy.add(key)
                return key
        return None

    def next_due(self) -> float | None:
        """When the next key that nobody works on is due."""
        while self._heap:
            due, _, key = self._heap[0]
            if key not in self._busy and self._due.get(key) == due:
                return due
            heapq.heappop(self._heap)
        return None

    def settle(self, key: K) -> None:
        """Take note that the key was done; what was added meanwhile is due as asked."""
        self._failures.pop(key, None)
        self._not_before.pop(key, None)
        self._release(key)

    def retry(self, key: K, now: float, *, after: float | None = None, longest: float = LAST_RETRY) -> float:
        """Take note that the key failed; the seconds until it is due again, at least the server's wish `after`."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(longest, FIRST_RETRY * 2.0 ** min(failures - 1, 16))
        delay = max(delay, after or 0.0)
        self._due[key] = self._not_before[key] = now + delay  # what was added meanwhile would fail alike
        self._release(key)
        return delay

    def _release(self, key: K) -> None:
        self._busy.discard(key)
        if key in self._due:
            self._push(key, self._due[key])

    def _push(self, key: K, due: float) -> None:
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, key))
