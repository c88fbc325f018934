"""Histories of faults: drawn from a seed, written as text, read back, and reduced to the shortest that still fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

REST = "rest"
"""The step at which every fault is mended, and everything has to be well again."""


@dataclass(frozen=True)
class Step:
    """One fault of a history; what the kind leaves open is drawn from `number`, so that any part can be replayed."""

    kind: str
    host: int
    number: int

    def __str__(self) -> str:
        return f"{self.kind} {self.host} {self.number}"

    @classmethod
    def read(cls, line: str) -> Step:
        """Read what `str` wrote.

        Raises:
            ValueError: it is no step.
        """
        kind, host, number = line.split()
        return cls(kind, int(host), int(number))


def draw(
    chance: random.Random, length: int, kinds: Sequence[str], weights: Sequence[int], harmless: Sequence[str]
) -> list[Step]:
    """Draw a history of `length` faults.

    It comes in rounds: a rest, some faults that must move nothing, then some of every kind.
    """
    steps: list[Step] = []
    faults = 0
    while faults < length:
        calm = chance.choices(harmless, k=chance.randrange(8))
        round_ = [*calm, *chance.choices(kinds, weights, k=chance.randrange(15, 45))][: length - faults]
        faults += len(round_)
        steps += [Step(kind, chance.randrange(2), chance.randrange(10**6)) for kind in (REST, *round_)]
    return steps


def write(path: Path, steps: Iterable[Step], **header: object) -> None:
    """Write a history that `read` reads: what it ran in, then a step a line."""
    lines = [f"# {name}: {value}" for name, value in header.items()]
    path.write_text("\n".join([*lines, *(str(step) for step in steps)]) + "\n", encoding="utf-8")


def read(path: Path) -> tuple[dict[str, str], list[Step]]:
    """Read a history: its header, and its steps.

    Raises:
        ValueError: a line is neither a comment nor a step.
    """
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    comments = [line[1:].partition(":") for line in lines if line.startswith("#")]
    header = {name.strip(): value.strip() for name, _, value in comments}
    return header, [Step.read(line) for line in lines if line and not line.startswith("#")]


def shortest(
    steps: Sequence[Step], fails: Callable[[Sequence[Step]], bool], left: Callable[[], bool] = lambda: True
) -> list[Step]:
    """Return the shortest history found that still fails (delta debugging, after Zeller and Hildebrandt 2002).

    The end of a history is tried first, since what breaks seldom needs all that was before.

    Args:
        steps: a history that fails.
        fails: runs a history from its beginning.
        left: whether there is time left to try; without it the shortest so far is returned.
    """
    found = list(steps)
    length = 1
    while length < len(found) and left():
        if fails(found[-length:]):
            found = found[-length:]
            break
        length *= 2
    parts = 2
    while len(found) > 1 and left():
        size = -(-len(found) // parts)
        for start in range(0, len(found), size):
            rest = found[:start] + found[start + size :]
            if left() and rest and fails(rest):
                found, parts = rest, max(parts - 1, 2)
                break
        else:
            if size == 1:
                break
            parts = min(parts * 2, len(found))
    return found
