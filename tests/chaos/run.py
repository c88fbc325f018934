"""Running a history: fault, look, fault, look; and what came of it."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.chaos import processes, tenants, wires
from tests.chaos.history import REST, Step, draw
from tests.chaos.kinds import KINDS, NothingToDoError
from tests.chaos.world import SHAPES, World
from tests.invariants import ViolatedError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

MODULES = (wires, tenants, processes)
"""Where kinds are registered."""


@dataclass
class Outcome:
    """What came of a history.

    Args:
        violated: the invariant and the evidence; empty if all held.
        done: the steps that were run, the last of them the one after which something did not hold.
        counts: faults by kind.
        slowest: longest time until a host agreed with itself by kind, seconds from the end of the fault.
        told: each step with what it chose.
        log: end of the logs, if something did not hold.
    """

    violated: str = ""
    done: list[Step] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, float] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    log: str = ""


@dataclass(frozen=True)
class Settings:
    """What a history needs besides its steps."""

    shape: str
    old: Path | None = None
    patience: float = 30.0


def history(seed: str, length: int, without: Collection[str] = ()) -> tuple[str, list[Step]]:
    """Draw a shape and a history from a seed."""
    chance = random.Random(seed)
    shape = chance.choice(sorted(SHAPES))
    names = [name for name in KINDS if name not in without]
    harmless = [name for name in names if KINDS[name].harmless]
    return shape, draw(chance, length, names, [KINDS[name].weight for name in names], harmless)


def play(
    settings: Settings,
    steps: Sequence[Step],
    *,
    progress: Callable[[str], None] = lambda _: None,
    until: float = float("inf"),
) -> Outcome:
    """Run a history in a world of its own, until it ends, an invariant does not hold, or it is `until` (monotonic)."""
    outcome = Outcome()
    try:
        with World(settings.shape, settings.old, settings.patience) as world:
            try:
                for step in steps:
                    if time.monotonic() > until:
                        break
                    outcome.done.append(step)
                    _take(world, step, outcome)
                    progress(outcome.told[-1])
                world.end()
            except BaseException:
                outcome.log = "\n".join(f"---- {one.host.name}\n{one.agent.tail()}" for one in world.sides)
                raise
    except ViolatedError as violated:
        outcome.violated = str(violated)
    except AssertionError as failed:
        outcome.violated = f"failed: {failed}"
    return outcome


def _take(world: World, step: Step, outcome: Outcome) -> None:
    if step.kind == REST:
        outcome.told.append(str(step))
        world.rest()
        return
    kind = KINDS[step.kind]
    if not kind.harmless:
        world.disturb()
    side = world.side(step.host)
    outcome.told.append(f"{step} on {side.host.name}")
    try:
        chosen = kind.breaks(world, side, random.Random(step.number))
    except NothingToDoError:
        outcome.told[-1] += ": nothing to do"
        return
    outcome.told[-1] += f": {chosen}" if chosen else ""
    outcome.counts[step.kind] += 1
    began = time.monotonic()
    world.check()
    took = time.monotonic() - began
    outcome.slowest[step.kind] = max(took, outcome.slowest.get(step.kind, 0.0))
