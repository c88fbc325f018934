"""Random faults from a seed against agents on real interfaces: `python -m tests.chaos --minutes N --seed N`.

A run is a row of worlds, each with hosts and agents of its own and a history of faults drawn from the seed and the
world's number. After every fault the invariants of tests/invariants.py must hold; at a world's end its hosts must be
as they were found, and its agents as large as at the start. A history after which something does not hold is reduced
to the shortest found that fails too, kept as a script and printed; `--replay` runs one.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.chaos.history import REST, read, shortest, write
from tests.chaos.kinds import KINDS
from tests.chaos.run import Outcome, Settings, history, play
from tests.chaos.world import SHAPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.history import Step

DIRECTORY = Path(".chaos")
PROGRESS = 20
"""Faults between two lines of progress."""


def main() -> int:
    """Run, replay or list; 1 when an invariant did not hold."""
    options = _options()
    if options.list:
        for one in KINDS.values():
            print(f"{one.name:18} {one.about}{' (nothing may move)' if one.harmless else ''}")
        return 0
    if os.geteuid() != 0:
        raise SystemExit("chaos makes network namespaces: run it as root")
    # Whoever ends it finds namespaces and mounts removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    if options.replay:
        return _replay(options)
    if options.reduce:
        header, steps = read(options.reduce)
        settings = Settings(options.shape or header["shape"], options.old, options.patience)
        _reduce(options, settings, options.reduce, Outcome(header["violated"], steps))
        return 0
    began = time.monotonic()
    end = began + 60 * (options.minutes + 60 * options.hours)
    print(f"seed {options.seed}, {end - began:.0f} s, {len(KINDS)} kinds, {options.length} faults a world", flush=True)
    counts: Counter[str] = Counter()
    slowest: dict[str, float] = {}
    scripts: list[Path] = []
    number = 0
    while time.monotonic() < end and sum(counts.values()) < options.faults:
        number += 1
        shape, steps = history(f"{options.seed}/{number}", options.length, options.without)
        settings = Settings(options.shape or shape, options.old, options.patience)
        start = time.monotonic()
        outcome = play(settings, steps, progress=_Progress(number, verbose=options.verbose), until=end)
        counts += outcome.counts
        for kind, seconds in outcome.slowest.items():
            slowest[kind] = max(seconds, slowest.get(kind, 0.0))
        took = time.monotonic() - start
        result = f"VIOLATED {outcome.violated}" if outcome.violated else "ok"
        faults = sum(outcome.counts.values())
        print(f"world {number} ({settings.shape}): {faults} faults in {took:.0f} s: {result}", flush=True)
        if outcome.violated:
            scripts.append(_keep(options, settings, number, outcome))
    _summary(counts, slowest, time.monotonic() - began, options.seed)
    for script in scripts:
        print(f"does not hold: python -m tests.chaos --replay {script}")
    return 1 if scripts else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=0.0, help="how long, beside --hours")
    parser.add_argument("--hours", type=float, default=0.0, help="how long, beside --minutes")
    parser.add_argument("--faults", type=int, default=10**9, help="end after the world in which this many are reached")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is drawn (default: %(default)s)")
    parser.add_argument("--length", type=int, default=120, help="faults in a world (default: %(default)s)")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="of every world; otherwise drawn")
    parser.add_argument("--old", type=Path, help="source tree of another release, for upgrade and rollback")
    parser.add_argument("--patience", type=float, default=30.0, help="seconds a host may take to agree with itself")
    parser.add_argument(
        "--reduce-minutes", type=float, default=5.0, help="for making one history shorter, 0: not at all"
    )
    parser.add_argument("--replay", type=Path, metavar="SCRIPT", help="run the history of a script, and end")
    parser.add_argument(
        "--without", action="append", default=[], choices=KINDS, help="not this kind; may be given again"
    )
    parser.add_argument("--reduce", type=Path, metavar="SCRIPT", help="make the history of a script shorter, and end")
    parser.add_argument("--list", action="store_true", help="list the kinds of faults, and end")
    parser.add_argument("--verbose", action="store_true", help="print every step")
    return parser.parse_args()


class _Progress:
    """Prints steps, or how many there were."""

    def __init__(self, world: int, *, verbose: bool) -> None:
        self._world, self._verbose = world, verbose
        self._steps = 0
        self._began = time.monotonic()

    def __call__(self, told: str) -> None:
        self._steps += 1
        if self._verbose:
            print(f"  {time.monotonic() - self._began:6.1f} {told}", flush=True)
        elif self._steps % PROGRESS == 0:
            print(f"  world {self._world}: {self._steps} steps, {time.monotonic() - self._began:.0f} s", flush=True)


def _replay(options: argparse.Namespace) -> int:
    header, steps = read(options.replay)
    settings = Settings(options.shape or header["shape"], options.old, options.patience)
    outcome = play(settings, steps, progress=_Progress(0, verbose=True))
    print(outcome.violated or "everything held")
    if outcome.violated:
        print(outcome.log)
    return 1 if outcome.violated else 0


def _keep(options: argparse.Namespace, settings: Settings, number: int, outcome: Outcome) -> Path:
    """Write the history that failed, and the shortest found that does; return the script of the latter."""
    DIRECTORY.mkdir(exist_ok=True)
    whole = DIRECTORY / f"seed-{options.seed}-world-{number}.history"
    violated = outcome.violated.replace("\n", " ")
    write(whole, outcome.done, shape=settings.shape, violated=violated)
    whole.with_suffix(".log").write_text("\n".join([*outcome.told, outcome.violated, outcome.log]), encoding="utf-8")
    return _reduce(options, settings, whole, outcome) if options.reduce_minutes else whole


def _reduce(options: argparse.Namespace, settings: Settings, whole: Path, outcome: Outcome) -> Path:
    """Find a shorter history that breaks the same invariant, print it, and return its script."""
    end = time.monotonic() + 60 * options.reduce_minutes
    invariant = outcome.violated.partition(":")[0]
    told: list[str] = []

    def fails(steps: Sequence[Step]) -> bool:
        again = play(settings, steps, until=end)
        same = again.violated.partition(":")[0] == invariant
        faults = sum(step.kind != REST for step in steps)
        print(f"  reducing: {faults} faults: {again.violated.splitlines()[0] if again.violated else 'ok'}", flush=True)
        if same:
            told[:] = again.told
        return same

    found = shortest(outcome.done, fails, lambda: time.monotonic() < end)
    script = whole.with_suffix(".shortest")
    write(script, found, shape=settings.shape, violated=outcome.violated.replace("\n", " "))
    print(script.read_text(encoding="utf-8") + "".join(f"# {line}\n" for line in told))
    return script


def _summary(counts: Counter[str], slowest: dict[str, float], seconds: float, seed: int) -> None:
    print(f"\n{'kind':18} {'faults':>6} {'slowest':>8}  what")
    for name, one in KINDS.items():
        print(f"{name:18} {counts[name]:6} {slowest.get(name, 0.0):6.1f} s  {one.about}")
    kinds = sum(1 for count in counts.values() if count)
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"{sum(counts.values())} faults of {kinds} kinds in {seconds / 60:.1f} minutes, seed {seed}, load {load}")


if __name__ == "__main__":
    sys.exit(main())
