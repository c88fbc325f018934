"""How long to wait after a failure: longer each time, and with jitter, so that a cluster does not come back at once."""

from __future__ import annotations

import random

MINIMUM = 0.5
"""Seconds, after the first failure."""
MAXIMUM = 30.0
"""Seconds, unless the user of a Backoff names less."""


class Backoff:
    """Counts failures in a row; `longest` is in seconds."""

    def __init__(self, longest: float | None = None) -> None:
        self._longest = longest
        self._failures = 0

    def success(self) -> None:
        """All is well again."""
        self._failures = 0

    def failure(self, asked: float | None = None) -> float:
        """Seconds to wait now; `asked` is what the server wants at least."""
        most = MAXIMUM if self._longest is None else min(self._longest, MAXIMUM)
        longest = min(most, MINIMUM * float(2**self._failures))
        self._failures = min(self._failures + 1, 16)
        return max(asked or 0.0, longest * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    @property
    def first(self) -> bool:
        """Whether the last failure was the first in a row: the one to tell people of."""
        return self._failures == 1

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed."""
        return self._failures > 0
