"""A group that has failed comes back one member after the other: the first must not empty the others.

When targets come back, every member proves itself anew, each a little later than the one before. For one detection
time after the first, members that failed only together with their group keep their addresses. An agent that starts
has everybody begin with nothing: then it is the time that ten answers take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_agent.core import timers
from ipmp_agent.core.interface import BROKEN
from ipmp_agent.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipmp_agent.core.interface import Interface


class Recovery:
    """Whether the group is coming back, and who has a moment left to come back with it."""

    __slots__ = ("until",)

    def __init__(self) -> None:
        self.until = timers.NEVER  # NEVER: the group is not coming back

    @property
    def under_way(self) -> bool:
        """Whether the group is coming back."""
        return self.until < timers.NEVER

    def begin(self, now: float, grace: float) -> None:
        """The first member works again, and the others have so many seconds."""
        self.until = now + grace

    def waiting(self, interfaces: Iterable[Interface], now: float) -> set[str]:
        """Members that failed with their group only and may still prove themselves. None left: it is over."""
        if not self.under_way:
            return set()
        doubtful = {i.key for i in interfaces if i.state in BROKEN and i.cause is Reason.GROUP_FAILED and i.link.usable}
        if now >= self.until or not doubtful:
            self.until = timers.NEVER
            return set()
        return doubtful
