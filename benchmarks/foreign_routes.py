"""What very many routes of others cost the agent: resident memory, and how long a pulled cable cuts a host off.

A host has so many routes by one member, as a routing daemon with a full feed of a site lays them. The agent gives each
a twin. Then the cable of that member is pulled while a neighbour pings the host's address, in turn with one route and
with many: the figure for the pull is the ratio of the two. With --beside COMMIT another build does the same in turn; of
several rounds the medians are told.

Needs root and nftables. Run: python benchmarks/foreign_routes.py
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a file, it finds its neighbours all the same

from benchmarks import machine
from benchmarks.peers.build import BuildAgent
from tests.lab import Lab, PingTrain, group_manifest, wait_for
from tests.lab.status import group_view
from tests.sources import sources

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNTS = (1, 10_000, 50_000)
SHORT = (1, 1_000)
NODE, ROUTER = "198.18.0.11", "198.18.0.1"
SETTLED = 5.0
SPACING = 0.005
PATIENCE = 600.0
TEST_POOL = {"name": "tests", "ranges": ["198.18.0.41-198.18.0.60"], "prefixLength": 24}


@dataclass(frozen=True)
class Cost:
    """Of one number of routes: MiB at rest, MiB at most, seconds until all have twins, seconds without an answer."""

    build: str
    routes: int
    resident: float
    peak: float
    laid: float
    pulled: float


def memory(pid: int, field: str) -> float:
    """A field of the process' status in MiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)[1]) / 1024  # type: ignore[index]


def destinations(count: int) -> Iterator[str]:
    """So many prefixes."""
    return (f"10.{n >> 8 & 255}.{n & 255}.{n >> 16 << 4}/28" for n in range(count))


def measure(build: str, root: Path, count: int) -> Cost:
    """Measure a build with so many routes."""
    with Lab(router=True, nic_addresses={"nic0": (f"{NODE}/24",)}) as lab:
        by_nic0 = f"via {ROUTER} dev nic0 proto bird"
        lab.host.namespace.batch(f"route add {prefix} {by_nic0}" for prefix in destinations(count))

        def twins() -> int:
            lines = lab.host.namespace.run("ip", "-4", "route", "show", "table", "all", "protocol", "73").splitlines()
            return sum(line.startswith("10.") for line in lines)  # before the twin table they were in `main`

        manifest = group_manifest(addresses=(), testAddresses={"ipv4": {"pool": TEST_POOL}})
        began = time.monotonic()
        with BuildAgent(lab, manifest, root) as agent:
            wait_for(lambda: group_view(agent.status()).state, "ok".__eq__, deadline=PATIENCE, interval=0.2)
            wait_for(twins, lambda found: found >= count, deadline=PATIENCE, interval=0.5)
            laid = time.monotonic() - began
            time.sleep(SETTLED)
            resident = memory(agent.running.pid, "VmRSS")
            with PingTrain(lab.peer(1).namespace, NODE, SPACING) as train:
                train.wait_answered()
                lab.host.nic("nic0").unplug()
                wait_for(partial(lab.host.holders, NODE), ["nic1"].__eq__, deadline=PATIENCE)
                train.wait_answered()
                time.sleep(SETTLED)
                pulled = max(SPACING, train.stop().longest_outage)  # less is not seen
            peak = memory(agent.running.pid, "VmHWM")
    print(f"{build} {count}: {resident:.0f} MiB, {peak:.0f} at most, cut off {pulled * 1e3:.0f} ms", flush=True)
    return Cost(build, count, resident, peak, laid, pulled)


def typical(costs: list[Cost], build: str, count: int) -> Cost:
    """The medians of what was measured of a build with so many routes."""
    some = [cost for cost in costs if (cost.build, cost.routes) == (build, count)]
    figures = [median(each) for each in zip(*((c.resident, c.peak, c.laid, c.pulled) for c in some), strict=True)]
    return Cost(build, count, *figures)


def main() -> int:
    """Measure each number and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="few routes: does it work, not how well")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="routes (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="times that each is measured (default %(default)s)")
    parser.add_argument("--beside", metavar="COMMIT", help="another commit's agent, to run in turn with this one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to this file")
    arguments = parser.parse_args()
    print(machine.described())
    counts = SHORT if arguments.short else arguments.counts
    costs: list[Cost] = []
    with contextlib.ExitStack() as stack:
        builds = {"ipmp": stack.enter_context(sources(None))}
        if arguments.beside:
            builds[arguments.beside] = stack.enter_context(sources(arguments.beside))
        for _ in range(arguments.rounds):
            costs += [measure(build, root, count) for count in counts for build, root in builds.items()]
    print(f"\n{'':10} {'routes':>8} {'MiB':>8} {'at most':>8} {'laid, s':>8} {'cut off, ms':>12} {'ratio':>7}")
    for build in builds:
        first = typical(costs, build, counts[0])
        for count in counts:
            cost = typical(costs, build, count)
            print(
                f"{build:10} {count:>8} {cost.resident:>8.0f} {cost.peak:>8.0f} {cost.laid:>8.1f}"
                f" {cost.pulled * 1e3:>12.0f} {cost.pulled / first.pulled:>7.1f}"
            )
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(cost) for cost in costs], indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
