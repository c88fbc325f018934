"""Identifiers of nexthop objects, one space for the whole host."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipmp_agent.linux.messages.routes import Nexthop

FIRST_IDENTIFIER = 0x49504D50
"""Nexthop identifiers are one space for the whole host; routing daemons start near 1."""


class Identifiers:
    """Free nexthop identifiers, for all groups of the host."""

    def __init__(self) -> None:
        self._used: set[int] = set()
        self._next = itertools.count(FIRST_IDENTIFIER)

    def note(self, present: Iterable[Nexthop]) -> None:
        """Take what is in the kernel, whoever put it there."""
        self._used.update(nexthop.identifier for nexthop in present)

    def take(self) -> int:
        """An identifier that nobody uses."""
        return next(identifier for identifier in self._next if identifier not in self._used)
