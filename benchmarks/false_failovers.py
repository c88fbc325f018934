"""False failovers while nothing is broken, counted over many seeds in virtual time: the goal is none.

Three trials, each on two NICs at a failure detection time of 1 s: ten minutes in which every NIC loses 2 % of its
frames in each direction; an agent that is stopped for 5 s twenty times; and one that gets the processor half of the
time, in slices. All are also tried at once. Each is played with one seed after the other, with IPv4 alone and with both
families. Chance is not ruled out, only made rare: five probes in a row are lost about once in ten million.

--lab plays the same on real interfaces instead, once, beside busy loops on every core: see benchmarks/stability.py.

Run: python benchmarks/false_failovers.py [--short] [--lab]
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import dataclass
from ipaddress import IPv4Interface, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a file, it finds its neighbours all the same

from ipmp_agent.simulate.script import Fault, FaultScript, Loss, PlayedTarget, Suspend
from ipmp_agent.simulate.simulation import Simulation
from ipmp_agent.simulate.timeline import AddressChange, Judged
from ipmp_api.types import (
    FailureDetection,
    InterfaceMatch,
    Member,
    NodeGroup,
    TestAddressIPv6,
)
from tests.node_groups import node_group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NICS = ("nic0", "nic1")
IPV4_TARGETS = (ip_address("198.18.0.1"), ip_address("198.18.0.2"))
IPV6_TARGETS = (ip_address("fe80::1"), ip_address("fe80::2"))
MINUTES = 10
LOSS_PERCENT = 2.0
STOPS, STOP, BREATH = 20, 5.0, 2.0
SLICE = 0.2  # seconds; a starved agent runs and waits for up to this long in turn
RUNS, SHORT_RUNS = 40, 4

Faults = list[Fault]


@dataclass
class Outcome:
    """What came of all runs of one trial."""

    title: str
    runs: int = 0
    hours: float = 0.0
    failures: int = 0
    moves: int = 0
    seeds: tuple[int, ...] = ()


def two_nics(*, both_families: bool) -> NodeGroup:
    """Two NICs with a test address each, two data addresses, FDT 1 s."""
    return node_group(
        "storage",
        [
            Member(InterfaceMatch(name=name), test_ipv4=IPv4Interface(f"198.18.0.{10 + i}/24"))
            for i, name in enumerate(NICS)
        ],
        addresses=[f"198.18.0.{100 + i}/24" for i in range(2)],
        targets=IPV4_TARGETS + IPV6_TARGETS,
        test_ipv6=TestAddressIPv6.LINK_LOCAL if both_families else TestAddressIPv6.DISABLED,
        failure_detection=FailureDetection(1000),
    )


def lossy(_: random.Random) -> Iterator[Fault]:
    """Every NIC loses frames from the start."""
    yield from (Fault(0, Loss(name, LOSS_PERCENT)) for name in NICS)


def standing_still(rng: random.Random) -> Iterator[Fault]:
    """The agent is stopped, again and again, at a moment of the probe interval that differs."""
    at = 10.0
    for _ in range(STOPS):
        yield Fault(at, Suspend(STOP))
        at += STOP + rng.uniform(BREATH, 2 * BREATH)


def starved(rng: random.Random) -> Iterator[Fault]:
    """The agent gets the processor half of the time, in slices."""
    at = 10.0
    while at < MINUTES * 60:
        wait = rng.uniform(0, SLICE)
        yield Fault(at, Suspend(wait))
        at += wait + rng.uniform(0, SLICE)


def all_at_once(rng: random.Random) -> Iterator[Fault]:
    """Loss, stops and starvation together."""
    yield from lossy(rng)
    yield from standing_still(rng)
    yield from starved(rng)


def play(title: str, faults: Callable[[random.Random], Iterator[Fault]], runs: int) -> Outcome:
    """Play one trial with many seeds, half of them with both families."""
    outcome = Outcome(title)
    targets = tuple(PlayedTarget(address, 0.001) for address in IPV4_TARGETS + IPV6_TARGETS)
    for seed in range(runs):
        happening = sorted(faults(random.Random(seed)), key=lambda fault: fault.at)
        script = FaultScript(MINUTES * 60, seed, targets, tuple(f for f in happening if f.at <= MINUTES * 60))
        entries = list(Simulation(two_nics(both_families=bool(seed % 2)), script).run())
        failures = sum(isinstance(entry, Judged) and entry.verdict.failed for entry in entries)
        moves = sum(isinstance(entry, AddressChange) and entry.before is not None for entry in entries)
        outcome.runs += 1
        outcome.hours += MINUTES / 60
        outcome.failures += failures
        outcome.moves += moves
        if failures or moves:
            outcome.seeds += (seed,)
        if sys.stderr.isatty():
            print(f"{title}: {seed + 1} of {runs}  ", end="\r", file=sys.stderr, flush=True)
    return outcome


def virtual(runs: int) -> int:
    """All trials in virtual time; the number of those with a false failover."""
    trials = (
        (f"{LOSS_PERCENT:g} % loss on all members", lossy),
        (f"agent stopped {STOPS} times for {STOP:g} s", standing_still),
        ("agent runs half of the time", starved),
        ("all of it at once", all_at_once),
    )
    began = time.monotonic()
    print(f"{len(trials)} trials of {runs} runs of {MINUTES} minutes ...", flush=True)
    outcomes = [play(title, faults, runs) for title, faults in trials]
    print(f"{'':<34}{'runs':>6}{'hours':>8}{'failures':>10}{'moves':>8}  seeds")
    for one in outcomes:
        seeds = ", ".join(map(str, one.seeds)) or "-"
        print(f"{one.title:<34}{one.runs:>6}{one.hours:>8.1f}{one.failures:>10}{one.moves:>8}  {seeds}")
    hours = sum(one.hours for one in outcomes)
    print(f"{hours:.1f} hours of virtual time in {time.monotonic() - began:.0f} s; the goal is 0 failures, 0 moves")
    return sum(bool(one.seeds) for one in outcomes)


def real(*, short: bool) -> int:
    """The trials on real interfaces; the number of those with a false failover."""
    from benchmarks import stability  # noqa: PLC0415 - the lab needs root; virtual time does not

    seconds, stops = (30, 2) if short else (MINUTES * 60, STOPS)
    trials = (
        (f"{LOSS_PERCENT:g} % loss on all members", stability.lossy(seconds)),
        (f"agent stopped {stops} times for {STOP:g} s", stability.standing_still(stops)),
        ("two busy loops per core", stability.starved(min(seconds, 60))),
    )
    outcomes = []
    for title, work in trials:
        print(f"{title} ...", flush=True)
        outcomes.append(stability.trial(title, 1000, None, work))
    for one in outcomes:
        print(f"{one.title:<34}{one.seconds:>8.0f} s{one.failures:>6} failures{one.moves:>6} moves")
    return sum(bool(one.failures or one.moves) for one in outcomes)


def main() -> int:
    """Run the trials; 1 if there was a false failover."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a tenth of the work, for CI")
    parser.add_argument("--lab", action="store_true", help="on real interfaces; needs root and nftables")
    arguments = parser.parse_args()
    if arguments.lab:
        return bool(real(short=arguments.short))
    return bool(virtual(SHORT_RUNS if arguments.short else RUNS))


if __name__ == "__main__":
    sys.exit(main())
