"""How long the agent's loop is busy at a stretch as a node grows: adopted addresses, foreign routes, groups.

The agent runs as a process with a watch in its loop (`watched_loop.py`). Processor time of the loop's thread counts,
for the start until everything is there, for one comparison at rest, for a pulled cable and for its return.

Needs root and nftables. Run: python benchmarks/turns.py, or benchmarks/growth.py, which has these rows, too.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a file, it finds its neighbours all the same

from benchmarks import machine
from tests.lab import Agent, Lab, group_manifest, wait_for
from tests.lab.status import group_view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUTES, ADDRESSES, GROUPS = (12_500, 25_000, 50_000), (1_500, 3_000, 6_000), (8, 16, 32)
SHORT = (100, 200)
SHORT_GROUPS = (1, 2)
NODE, ROUTER = "198.18.0.11", "198.18.0.1"
COMPARISON = 21.0
"""Seconds in which the kernel is compared once at least."""
PATIENCE = 600.0
PHASES = ("start", "rest", "pull", "return")


@dataclass(frozen=True)
class Turns:
    """Of one size, by phase: the longest turn and all the processor time of the loop, in seconds."""

    name: str
    size: int
    longest: dict[str, float]
    processor: dict[str, float]


class WatchedAgent(Agent):
    """An agent with a watch in its loop."""

    @property
    def figures(self) -> Path:
        """Where the watch writes."""
        return self.directory / "turns.json"

    @property
    def argv(self) -> list[str]:
        """The command line."""
        return [sys.executable, str(Path(__file__).with_name("watched_loop.py")), str(self.figures), *super().argv[1:]]

    def start(self, *, wait: bool = True) -> Self:
        """Start it; very much takes long on a busy machine."""
        super().start(wait=False)
        if wait:
            wait_for(self._answers, deadline=PATIENCE, interval=0.1)
        return self

    def told(self) -> dict[str, Any]:
        """What the watch saw since it was last asked."""
        self.figures.unlink(missing_ok=True)
        self.running.send_signal(signal.SIGUSR1)
        wait_for(self.figures.exists, deadline=PATIENCE)
        found: dict[str, Any] = json.loads(self.figures.read_text(encoding="utf-8"))
        return found


def pool(first: int, count: int) -> dict[str, Any]:
    """Test addresses for members."""
    start = int(ip_address("198.18.0.40")) + first
    ranges = f"{ip_address(start)}-{ip_address(start + count)}"
    return {"ipv4": {"pool": {"name": f"tests{first}", "ranges": [ranges], "prefixLength": 24}}}


@contextmanager
def routes(count: int) -> Iterator[tuple[Lab, list[dict[str, Any]], Callable[[], bool]]]:
    """A host with so many routes of a routing daemon by one member."""
    with Lab(router=True, nic_addresses={"nic0": (f"{NODE}/24",)}) as lab:
        prefixes = (f"10.{n >> 8 & 255}.{n & 255}.{n >> 16 << 4}/28" for n in range(count))
        lab.host.namespace.batch(f"route add {prefix} via {ROUTER} dev nic0 proto bird" for prefix in prefixes)

        def all_there() -> bool:
            return lab.host.namespace.run("ip", "-4", "route", "show", "table", "73").count(f"via {ROUTER}") >= count

        yield lab, [group_manifest(addresses=(), testAddresses=pool(0, 20))], all_there


@contextmanager
def addresses(count: int) -> Iterator[tuple[Lab, list[dict[str, Any]], Callable[[], bool]]]:
    """A host with so many addresses on one member, all of which are adopted."""
    with Lab(router=True) as lab:
        first = int(ip_address("198.19.0.1"))
        lab.host.namespace.batch(f"address add {ip_address(first + n)}/32 dev nic0" for n in range(count))
        yield lab, [group_manifest(addresses=(), testAddresses=pool(0, 20))], lambda: True


@contextmanager
def groups(count: int) -> Iterator[tuple[Lab, list[dict[str, Any]], Callable[[], bool]]]:
    """A host with so many groups of two members."""
    with Lab([f"nic{n}" for n in range(2 * count)], router=True) as lab:
        manifests = [
            group_manifest(
                f"g{n}",
                interfaces=(f"nic{2 * n}", f"nic{2 * n + 1}"),
                addresses=[f"198.18.0.{120 + n}/24"],
                targets=(ROUTER,),
                testAddresses=pool(2 * n, 1),
            )
            for n in range(count)
        ]
        yield lab, manifests, lambda: True


def measure(
    name: str, scene: Callable[[int], Any], size: int, *, settled: float = 5.0, rest: float = COMPARISON
) -> Turns:
    """Run through all phases with so many of something."""
    longest, processor = {}, {}
    with scene(size) as (lab, manifests, all_there), WatchedAgent(lab, manifests) as agent:

        def took(phase: str) -> None:
            told = agent.told()
            longest[phase], processor[phase] = told["longest"], told["processor"]
            print(
                f"{name} {size}, {phase}: {told['longest'] * 1e3:.0f} ms, {told['over']:.0f} turns over 50 ms,"
                f" {told['processor']:.2f} s in all",
                flush=True,
            )

        wait_for(
            lambda: [group_view(agent.status(), m["metadata"]["name"]).state for m in manifests],
            lambda states: set(states) == {"ok"},
            deadline=PATIENCE,
            interval=0.5,
        )
        wait_for(all_there, deadline=PATIENCE, interval=0.5)
        time.sleep(settled)
        took("start")
        time.sleep(rest)
        took("rest")
        lab.host.nic("nic0").unplug()
        time.sleep(2 * settled)
        took("pull")
        lab.host.nic("nic0").plug()
        time.sleep(2 * settled)
        took("return")
    return Turns(name, size, longest, processor)


def growth(small: Turns, large: Turns) -> float:
    """The exponent between two sizes of the processor time of all phases."""
    ratio = sum(large.processor.values()) / sum(small.processor.values())
    return math.log(ratio) / math.log(large.size / small.size)


def curves(*, short: bool = False) -> list[list[Turns]]:
    """Measure every size of everything."""
    scenes = [
        ("foreign routes", routes, ROUTES),
        ("adopted addresses", addresses, ADDRESSES),
        ("groups", groups, GROUPS),
    ]
    run = partial(measure, settled=1.0, rest=1.0) if short else measure
    few = {"groups": SHORT_GROUPS}
    return [
        [run(name, scene, size) for size in (few.get(name, SHORT) if short else sizes)] for name, scene, sizes in scenes
    ]


def table(measured: list[list[Turns]]) -> str:
    """The lines of a table."""
    lines = [
        f"\n{'longest turn, ms':<20} {'size':>7} " + " ".join(f"{p:>7}" for p in PHASES) + f" {'busy, s':>8} growth"
    ]
    for curve in measured:
        for each in curve:
            figures = " ".join(f"{each.longest[phase] * 1e3:>7.0f}" for phase in PHASES)
            lines.append(f"{each.name:<20} {each.size:>7} {figures} {sum(each.processor.values()):>8.2f}")
        lines[-1] += f" {growth(*curve[-2:]):>6.2f}"
    return "\n".join(lines)


def main() -> int:
    """Measure every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="small sizes: does it work, not how well")
    arguments = parser.parse_args()
    print(machine.described(), flush=True)
    print(table(curves(short=arguments.short)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
