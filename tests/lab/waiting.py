"""Waiting for a condition, with a deadline, and saying what was seen."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class NotInTimeError(AssertionError):
    """The condition did not come true; the message holds the last thing seen."""


def wait_for(
    look: Callable[[], T],
    holds: Callable[[T], object] = bool,
    *,
    deadline: float = 10.0,
    what: str = "",
    interval: float = 0.02,
) -> T:
    """Look until `holds` is true of what is seen, at most `deadline` seconds; returns the last thing seen.

    Raises:
        NotInTimeError: it never held; says `what` was awaited, how often it looked, and the first and last sight.
    """
    start = time.monotonic()
    looks = 0
    first: T | None = None
    while True:
        seen = look()
        looks += 1
        first = seen if looks == 1 else first
        if holds(seen):
            return seen
        if time.monotonic() - start > deadline:
            raise NotInTimeError(
                f"{what or getattr(holds, '__name__', 'condition')} not within {deadline} s ({looks} looks)\n"
                f"first seen: {first}\nlast seen: {seen}"
            )
        time.sleep(interval)
