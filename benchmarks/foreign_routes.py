"""What very many routes of others cost the agent: resident memory, and how long a pulled cable cuts a host off.

A host has so many routes by one member, as a routing daemon with a full feed of a site lays them. The agent gives each
a twin. Then the cable of that member is pulled while a neighbour pings the host's address, in turn with one route and
with many: the figure for the pull is the ratio of the two.

Needs root and nftables. Run: python benchmarks/foreign_routes.py
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a file, it finds its neighbours all the same

from benchmarks import machine
from tests.lab import Agent, Lab, PingTrain, group_manifest, wait_for
from tests.lab.status import group_view

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


def measure(count: int) -> Cost:
    """Measure with so many routes."""
    with Lab(router=True, nic_addresses={"nic0": (f"{NODE}/24",)}) as lab:
        by_nic0 = f"via {ROUTER} dev nic0 proto bird"
        lab.host.namespace.batch(f"route add {prefix} {by_nic0}" for prefix in destinations(count))

        def twins() -> int:
            return lab.host.namespace.run("ip", "-4", "route", "show", "table", "73").count(f"via {ROUTER}")

        manifest = group_manifest(addresses=(), testAddresses={"ipv4": {"pool": TEST_POOL}})
        began = time.monotonic()
        with Agent(lab, manifest) as agent:
            wait_for(lambda: group_view(agent.status()).state, "ok".__eq__, deadline=PATIENCE, interval=0.2)
            wait_for(twins, lambda found: found >= 2 * count or found == count, deadline=PATIENCE, interval=0.5)
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
            found = [finding["message"] for finding in agent.status()["groups"][0]["findings"]]
    print(f"{count}: {resident:.0f} MiB, {peak:.0f} at most, cut off {pulled * 1e3:.0f} ms; {found}", flush=True)
    return Cost(count, resident, peak, laid, pulled)


def main() -> int:
    """Measure each number and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="few routes: does it work, not how well")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="routes (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to this file")
    arguments = parser.parse_args()
    print(machine.described())
    costs = [measure(count) for count in (SHORT if arguments.short else arguments.counts)]
    print(f"\n{'routes':>8} {'MiB':>8} {'at most':>8} {'laid, s':>8} {'cut off, ms':>12} {'ratio':>7}")
    for cost in costs:
        print(
            f"{cost.routes:>8} {cost.resident:>8.0f} {cost.peak:>8.0f} {cost.laid:>8.1f} {cost.pulled * 1e3:>12.0f}"
            f" {cost.pulled / costs[0].pulled:>7.1f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(cost) for cost in costs], indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
