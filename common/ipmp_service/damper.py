"""Damps what changes often before people are told: a value that lasts, and not too many of them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

V = TypeVar("V", bound="Hashable")


class Damper(Generic[V]):
    """Lets a value pass when it has differed from the one that passed last for a while, as it is then.

    What comes and goes within `settle` never passes, and in any time T at most 1 + T / `spacing` values do. Times are
    arguments, in seconds of any one clock.

    Args:
        passed: the value that needs no telling.
        settle: seconds that a value differs before it passes.
        spacing: seconds from one that passed to the next.
    """

    def __init__(self, passed: V, *, settle: float, spacing: float) -> None:
        self.passed = passed
        self._settle = settle
        self._spacing = spacing
        self._differs_since: float | None = None
        self._not_before = float("-inf")

    def take(self, value: V, now: float) -> bool:
        """Take the value of now; whether it passes."""
        if value == self.passed:
            self._differs_since = None
            return False
        if self._differs_since is None:
            self._differs_since = now
        due = self.due
        if due is None or now < due:
            return False
        self.passed, self._differs_since, self._not_before = value, None, now + self._spacing
        return True

    @property
    def due(self) -> float | None:
        """When to look again; None: nothing waits to pass."""
        return None if self._differs_since is None else max(self._differs_since + self._settle, self._not_before)


class Dampers(Generic[V]):
    """A damper for each of some names.

    Args:
        passed: the value of a new name that needs no telling.
        settle: as a damper's.
        spacing: as a damper's.
    """

    def __init__(self, passed: V, *, settle: float, spacing: float) -> None:
        self._new = partial(Damper[V], passed, settle=settle, spacing=spacing)
        self._dampers: dict[str, Damper[V]] = {}

    def keep(self, names: Iterable[str]) -> None:
        """Have a damper for each of these, and forget all others."""
        self._dampers = {name: self._dampers.get(name) or self._new() for name in names}

    def take(self, name: str, value: V, now: float) -> bool:
        """Take the value of now of a name that is kept; whether it passes."""
        return self._dampers[name].take(value, now)

    def passed(self) -> dict[str, V]:
        """What passed last, by name."""
        return {name: damper.passed for name, damper in self._dampers.items()}

    @property
    def due(self) -> float | None:
        """When to look again; None: nothing waits to pass."""
        return min((due for damper in self._dampers.values() if (due := damper.due) is not None), default=None)
