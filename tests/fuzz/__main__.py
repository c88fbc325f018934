"""Every parser under coverage-guided fuzzing: `python -m tests.fuzz --minutes N`.

A failure is an exception that is not declared, an input that takes longer than 10 s, memory beyond 2 GiB, and time
that grows by more than eight each of two times that an input is made four times as long. The input is kept, and named
with what happened.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.targets import TARGETS, Target

DIRECTORY = Path(".fuzz")
HANG = 10
"""Seconds after which an input hangs."""
LONGEST = 1 << 16
"""Bytes of one input."""
SLOW, PARTS, FACTOR, STEEP = 0.2, 250, 4, 8.0
"""Seconds below which nothing is called slow; parts of the shortest input, how much longer the next one is, how much
longer it may take. Time that grows with the square grows by 16 both times."""
REPRODUCE = "python -m tests.fuzz --reproduce {target} {path}"


@dataclass(frozen=True)
class Outcome:
    """What came of one target."""

    name: str
    executions: int
    corpus: int
    slowest: int  # seconds, rounded down
    failure: str


def fuzz(target: Target, seconds: float, seed: int) -> Outcome:
    """Run a target under atheris in a process of its own."""
    corpus, crashes = DIRECTORY / target.name / "corpus", DIRECTORY / target.name / "failures"
    for directory in (corpus, crashes):
        directory.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(data)
    argv = [
        *(sys.executable, "-m", "tests.fuzz.run", target.name, str(corpus)),
        *(f"-max_total_time={max(1, int(seconds))}", f"-timeout={HANG}", f"-max_len={LONGEST}", f"-seed={seed}"),
        *("-rss_limit_mb=2048", "-print_final_stats=1", "-verbosity=1", f"-artifact_prefix={crashes}/"),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
    numbers = {name: int(value) for name, value in re.findall(r"stat::(\w+):\s+(\d+)", done.stderr)}
    failure = steepness(target)
    if done.returncode:
        kept = re.search(r"Test unit written to (\S+)", done.stderr)
        said = re.search(r"Uncaught Python exception: ===\n(.+)|(ERROR: libFuzzer: .+)", done.stderr)
        words = next(filter(None, said.groups())) if said else done.stderr.strip()[-200:]
        again = REPRODUCE.format(target=target.name, path=kept[1]) if kept else "no input was kept"
        failure = f"{words} ({again})"
    return Outcome(
        target.name,
        numbers.get("number_of_executed_units", 0),
        sum(1 for _ in corpus.iterdir()),
        numbers.get("slowest_unit_time_sec", 0),
        failure,
    )


def steepness(target: Target) -> str:
    """Say so where a longer input takes longer than in proportion."""
    if target.grow is None:
        return ""
    short, middle, long = (duration(target, target.grow(PARTS * FACTOR**step)) for step in range(3))
    if long > SLOW and middle > STEEP * short and long > STEEP * middle:
        return f"{FACTOR} times the input takes {long / middle:.0f} times as long ({long:.1f} s)"
    return ""


def duration(target: Target, data: bytes) -> float:
    """Seconds of processor time for an input, the best of three."""

    def once() -> float:
        began = time.process_time()
        target(data)
        return time.process_time() - began

    return min(once() for _ in range(3))


def main() -> int:
    """Fuzz, and say what came of it; 1 when something failed."""
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all targets together (default: %(default)s)")
    parser.add_argument("--target", action="append", choices=TARGETS, help="this one only; may be given again")
    parser.add_argument("--seed", type=int, default=1, help="of libFuzzer (default: %(default)s)")
    parser.add_argument("--reproduce", nargs=2, metavar=("TARGET", "FILE"), help="give one input to a target, and end")
    options = parser.parse_args()
    if options.reproduce:
        name, path = options.reproduce
        TARGETS[name](Path(path).read_bytes())
        return 0
    chosen = [TARGETS[name] for name in options.target or TARGETS]
    jobs = os.cpu_count() or 1
    seconds = options.minutes * 60 * min(jobs, len(chosen)) / len(chosen)
    print(f"{len(chosen)} targets, {seconds:.0f} s each, {jobs} at a time, seed {options.seed}", flush=True)
    print(f"{'target':15} {'inputs':>10} {'corpus':>7} {'slowest':>8}  result")
    failed = 0
    with ThreadPoolExecutor(jobs) as pool:
        for outcome in pool.map(lambda target: fuzz(target, seconds, options.seed), chosen):
            failed += bool(outcome.failure)
            result = outcome.failure or "ok"
            columns = f"{outcome.name:15} {outcome.executions:10} {outcome.corpus:7} {outcome.slowest:6} s"
            print(f"{columns}  {result}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
