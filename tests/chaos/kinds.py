"""The register of kinds of faults; the modules that hold them are imported by `tests.chaos.run`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tests.chaos.world import Side, World

    Break = Callable[[World, Side, random.Random], str | None]


class NothingToDoError(Exception):
    """A fault finds nothing to break, such as a NIC that is not there: it does not count."""


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Args:
        name: one word, as scripts of histories have it.
        about: what happens, for people.
        breaks: does it, and returns what it chose, if it had a choice; raises NothingToDoError where it cannot.
        weight: how often it is drawn beside others.
        harmless: whether nothing may move by it.
    """

    name: str
    about: str
    breaks: Break
    weight: int
    harmless: bool


KINDS: dict[str, Kind] = {}


def kind(*, weight: int = 2, harmless: bool = False) -> Callable[[Break], Break]:
    """Register a function as a kind of fault, under its name and with the first line of its docstring."""

    def register(breaks: Break) -> Break:
        name = breaks.__name__.strip("_")
        about = (breaks.__doc__ or "").partition("\n")[0]
        KINDS[name] = Kind(name, about, breaks, weight, harmless)
        return breaks

    return register
