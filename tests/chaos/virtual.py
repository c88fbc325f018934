"""Random histories in virtual time: `python -m tests.chaos.virtual --steps N --seed N`.

The state machines of the core's and the plan's property tests, with other seeds than theirs and as many steps as are
asked for: everything that can happen to a group on a node, and to groups on a cluster, each step followed by all that
must hold. A history that breaks something is shrunk and printed as lines of Python.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.chaos.core import Group
from tests.chaos.plan import Cluster

MACHINES: dict[str, type[RuleBasedStateMachine]] = {"core": Group, "plan": Cluster}
LENGTH, HISTORIES = 50, 100
"""Steps of a history at most, and histories of one seed."""


def run(machine: type[RuleBasedStateMachine], number: int) -> int:
    """Run the histories of one seed; returns how many steps they had. Raises what broke, after shrinking."""
    steps = 0

    def check_invariants(self: RuleBasedStateMachine, *arguments: Any) -> None:
        nonlocal steps
        steps += 1
        machine.check_invariants(self, *arguments)

    counted = type(machine.__name__, (machine,), {"check_invariants": check_invariants})
    chosen = settings(
        max_examples=HISTORIES,
        stateful_step_count=LENGTH,
        phases=[Phase.generate, Phase.shrink],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(seed(number)(counted), settings=chosen)
    return steps


def main() -> int:
    """Run blocks of histories until there were enough steps; 1 when something did not hold."""
    parser = argparse.ArgumentParser(
        "python -m tests.chaos.virtual", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20_000, help="of each machine (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--machine", choices=MACHINES, action="append", help="this one only")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    parser.add_argument("--block", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.block is not None:
        (name,) = options.machine
        print(f"steps: {run(MACHINES[name], options.block)}")
        return 0
    results = [_enough(name, options) for name in options.machine or MACHINES]
    return 0 if all(results) else 1


def _enough(name: str, options: argparse.Namespace) -> bool:
    """Run one machine, a process for each block: what Hypothesis remembers would grow."""
    began, steps, blocks = time.monotonic(), 0, 0
    with ThreadPoolExecutor(options.jobs) as pool:
        while steps < options.steps:
            numbers = [options.seed * 1_000_000 + blocks + i for i in range(options.jobs)]
            blocks += len(numbers)
            for number, done in zip(numbers, pool.map(lambda n: _block(name, n), numbers), strict=True):
                if done.returncode:
                    print(f"{name}: does not hold: --machine {name} --block {number}\n{done.stdout}{done.stderr}")
                    return False
                steps += int(done.stdout.rpartition(":")[2])
            if blocks % (10 * options.jobs) == 0:
                print(f"{name}: {steps} steps, {time.monotonic() - began:.0f} s", flush=True)
    print(f"{name}: {steps} steps of {blocks * HISTORIES} histories in {time.monotonic() - began:.0f} s: all held")
    return True


def _block(name: str, number: int) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tests.chaos.virtual", "--machine", name, "--block", str(number)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    sys.exit(main())
