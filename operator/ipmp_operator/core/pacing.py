"""When the status of a group is written while it keeps changing.

A switch that fails changes it thousands of times in a minute. What changes alone is written at once; what goes on is
written again and again, ever more rarely, and once more as soon as nothing has changed for a moment. Time is an
argument (monotonic seconds).
"""

from __future__ import annotations

QUIET = 1.5
"""Seconds without a change that end a burst: the newest state is written, and the next change begins another burst."""

FIRST = 0.5
"""Seconds from one write to the next while the status keeps changing; they double with each."""

LAST = 4.5
"""The same at most: people who watch an outage see numbers that are that old."""


class Pace:
    """One status. Whoever is about to write asks `wait`, and tells of it by `written`."""

    def __init__(self) -> None:
        self._spacing = 0.0
        self._written = float("-inf")
        self._changed = float("-inf")

    def changed(self, now: float) -> None:
        """Take note that there is something else to write than before."""
        if now >= self._changed + QUIET:
            self._spacing = 0.0
        self._changed = now

    def wait(self, now: float) -> float:
        """Seconds until it may be written, 0 for now."""
        if now >= self._written + self._spacing:
            return 0.0
        return max(0.0, min(self._written + self._spacing, self._changed + QUIET) - now)

    def written(self, now: float) -> None:
        """Take note that it is being written."""
        self._spacing = min(LAST, max(FIRST, 2 * self._spacing))
        self._written = now
