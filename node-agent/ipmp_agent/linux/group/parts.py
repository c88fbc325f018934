"""The parts of a comparison: what one of them meets keeps no other from being done, and is told."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from ipmp_agent.core.findings import Finding
from ipmp_agent.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

RETRY_MAXIMUM = 60.0
"""Seconds until a part that failed again and again is tried, at the latest."""

log = logging.getLogger(__name__)


class ComparisonPart:
    """One of them, while it is under way and after."""

    def __init__(self) -> None:
        self.done = False


class Parts:
    """Runs the parts of one group's comparison.

    Args:
        group: its name.
        retry: seconds until the first new attempt, doubling.
    """

    def __init__(self, group: str, retry: float = 1.0) -> None:
        self._group = group
        self._retry = retry
        self._wait = retry
        self._failed: dict[str, str] = {}  # by part, what it met in the round before
        self._failing: dict[str, str] = {}  # in this round

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[ComparisonPart]:
        """Do what stands in the block; an exception ends this block only, and is told until the part is done."""
        part = ComparisonPart()
        try:
            yield part
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
            if words not in (self._failed.get(name), self._failing.get(name)):
                log.exception("%s: %s: this part of the comparison failed", self._group, name)
            self._failing[name] = words
        else:
            part.done = True

    def round(self) -> float | None:
        """End a round: seconds until the next is to be, for what failed in this one; None: nothing did."""
        for name in self._failed.keys() - self._failing.keys():
            log.info("%s: %s: this part of the comparison is done again", self._group, name)
        self._failed, self._failing = self._failing, {}
        wait, self._wait = self._wait, min(2 * self._wait, RETRY_MAXIMUM) if self._failed else self._retry
        return wait if self._failed else None

    def findings(self) -> list[Finding]:
        """What could not be compared."""
        return [
            Finding(
                Reason.COMPARISON_INCOMPLETE,
                f"{name} could not be compared with the kernel ({words}), and is tried again; all else is compared. The"
                " agent's log has more: report it",
            )
            for name, words in (self._failed | self._failing).items()
        ]
