"""Whether routes are to be compared at all: not where all is as it was when the last comparison had nothing to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipmp_agent.linux.group.reading import Found

COMPARED_ANYWAY = 15
"""Every so many comparisons the routes are compared whatever was seen: about every 5 minutes."""


class Settled:
    """Remembers what was there when nothing was left to be done."""

    def __init__(self) -> None:
        self._seen: tuple[Any, ...] | None = None
        self._left_out = 0

    def is_as_before(self, found: Found, version: tuple[Any, ...]) -> bool:
        """Whether nothing is to be done for what was found now, either.

        Args:
            found: all that the kernel has.
            version: changes with everything else that a comparison depends on.
        """
        self._left_out += 1
        return self._left_out < COMPARED_ANYWAY and self._seen == _sight(found, version)

    def note(self, found: Found, version: tuple[Any, ...], *, settled: bool) -> None:
        """Take note of a comparison of the routes, and whether it found everything as it is to be."""
        self._left_out = 0
        self._seen = _sight(found, version) if settled else None


def _sight(found: Found, version: tuple[Any, ...]) -> tuple[Any, ...]:
    # What did not change since the last reading are the same objects: equal at a glance.
    return version, found.policy, found.nexthops, found.installed, found.table
