"""What is to be done and when: keys that coalesce, one worker per key, and a delay that grows with each failure.

Of what is due, the lowest rank comes first: thousands of writes that drain must not hold up what is told meanwhile.

Time is an argument (monotonic seconds); `ipmp_operator.workqueue` adds the waiting.
"""

from __future__ import annotations

import heapq
from operator import itemgetter
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

K = TypeVar("K", bound="Hashable")

FIRST_RETRY = 0.5
"""Seconds until a key is tried again after its first failure; the time doubles with each further one."""

LAST_RETRY = 60.0
"""Seconds between the attempts at one key, at most."""

LAST_RECONNECT = 8.0
"""The same while the server cannot be reached: waiting does not spare it, and all is late once it is back."""


class Backlog(Generic[K]):
    """A set of keys with due times; of several times for one key the earliest counts.

    Args:
        rank: of a key; keys of one rank come in the order in which they are due.
    """

    def __init__(self, rank: Callable[[K], int] = lambda _: 0) -> None:
        self._rank = rank
        self._due: dict[K, float] = {}
        self._heaps: dict[int, list[tuple[float, int, K]]] = {}  # by rank; may hold outdated entries: _due decides
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
        for heap in self._ready():
            due, _, key = heap[0]
            if due <= now:
                heapq.heappop(heap)
                del self._due[key]
                self._busy.add(key)
                return key
        return None

    def next_due(self) -> float | None:
        """When the next key that nobody works on is due."""
        return min((heap[0][0] for heap in self._ready()), default=None)

    def _ready(self) -> Iterator[list[tuple[float, int, K]]]:
        """The heaps, lowest rank first, that begin with a key that counts and that nobody works on."""
        for _, heap in sorted(self._heaps.items(), key=itemgetter(0)):
            while heap and (heap[0][2] in self._busy or self._due.get(heap[0][2]) != heap[0][0]):
                heapq.heappop(heap)
            if heap:
                yield heap

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
        heapq.heappush(self._heaps.setdefault(self._rank(key), []), (due, self._count, key))
