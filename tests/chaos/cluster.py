"""Random faults of a real Kubernetes around the product: `python -m tests.chaos.cluster --minutes N --seed N`.

Two real nodes, the chart, one group. After every fault each node must come to be well again, in one story with its
kernel and with its own addresses alone, and what touches no cable must move nothing. At the end the group is deleted,
and the nodes must be as they were found. A history after which something does not hold is kept, reduced to the
shortest found that fails too, each tried on a cluster of its own, and printed; `--replay` runs one.
"""

from __future__ import annotations

import argparse
import random
import re
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests import invariants
from tests.chaos.history import Step, read, shortest, write
from tests.chaos.kubernetes import KINDS
from tests.cluster.build import build
from tests.cluster.cluster import Cluster, remove_cluster, stale_clusters
from tests.cluster.image import build_image
from tests.cluster.product import Applied, agent_pod, install_chart
from tests.lab.waiting import NotInTimeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tests.cluster.image import Image
    from tests.lab.dump import KernelDump

NODES = ("n1", "n2")
GROUP = "chaos"
WELL = 240.0
"""Seconds until all is well after a fault: a node boots, the garbage collector looks after a restart."""
DIRECTORY = Path(".chaos")


class Broken(Applied):
    """The group; what the CNI lays for pods, which come and go with the operator, is no part of what is compared."""

    def kernel(self, node: str) -> KernelDump:
        """What the kernel of a node holds besides."""
        dump = super().kernel(node)
        return replace(
            dump, addresses=_hosts(dump.addresses), routes=_hosts(dump.routes), settings=_hosts(dump.settings)
        )


def _hosts(lines: tuple[str, ...]) -> tuple[str, ...]:
    pods = re.compile(r'^(cni|veth)|"dev": "(cni|veth)')
    return tuple(line for line in lines if not pods.search(line))


@dataclass
class ClusterOutcome:
    """What came of a history: what was violated, empty if all held, the steps that were run, and seconds by kind."""

    violated: str = ""
    done: list[Step] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, float] = field(default_factory=dict)


def play(cluster: Cluster, steps: Iterable[Step], outcome: ClusterOutcome) -> None:
    """Run a history on a cluster with the chart installed.

    Raises:
        AssertionError, RuntimeError: something does not hold, or cannot be done.
    """
    began = time.monotonic()
    with Broken(cluster, GROUP) as applied:
        applied.wait_kept()
        for step in steps:
            outcome.done.append(step)
            _take(applied, step, outcome)
            print(f"  {time.monotonic() - began:6.0f} {step}", flush=True)


def _take(applied: Applied, step: Step, outcome: ClusterOutcome) -> None:
    breaks, harmless = KINDS[step.kind]
    before = {node: applied.homes(node) for node in NODES}
    breaks(applied, NODES[step.host], random.Random(step.number))
    outcome.counts[step.kind] += 1
    began = time.monotonic()
    check(applied)
    outcome.slowest[step.kind] = max(outcome.slowest.get(step.kind, 0.0), time.monotonic() - began)
    if harmless:
        for node in NODES:
            invariants.nothing_moved(before[node], applied.homes(node), f"{step} on {node}")


def check(applied: Applied) -> None:
    """Wait until every node is well, and no address is on two.

    Raises:
        NotInTimeError: they are not, with what was seen.
    """
    for node in NODES:
        applied.cluster.wait(partial(_unwell, applied, node), lambda complaint: not complaint, what=node, deadline=WELL)
    every = [address for node in NODES for address in applied.view(node).addresses]
    if twice := invariants.duplicates(every):
        raise NotInTimeError(f"{twice} are given twice")


def _unwell(applied: Applied, node: str) -> str:
    try:
        view = applied.view(node)
        invariants.settled(view, applied.kernel(node))
        if not agent_pod(applied.cluster, node):
            return "no agent"
    except (RuntimeError, AssertionError, ValueError, KeyError) as found:
        return str(found)
    return "" if view.state == "ok" and len(view.addresses) == 4 else f"{view}"


def main() -> int:
    """Bring a cluster up, break it, and look; 1 when something did not hold."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    for tag in stale_clusters():
        remove_cluster(tag)
    build()
    image = build_image()
    if options.replay:
        outcome = _on_a_cluster_of_its_own(image, read(options.replay)[1])
        print(outcome.violated or "everything held")
        return 1 if outcome.violated else 0
    began = time.monotonic()
    outcome = _on_a_cluster_of_its_own(image, _drawn(options, began))
    for name, (breaks, _) in KINDS.items():
        about = (breaks.__doc__ or "").strip()
        print(f"{name:20} {outcome.counts[name]:5} {outcome.slowest.get(name, 0.0):6.1f} s  {about}")
    print(f"{outcome.counts.total()} faults, seed {options.seed}, {time.monotonic() - began:.0f} s", flush=True)
    if not outcome.violated:
        return 0
    print(f"VIOLATED after {', '.join(map(str, outcome.done[-5:]))}\n{outcome.violated}")
    script = _reduce(options, image, outcome)
    print(f"does not hold: python -m tests.chaos.cluster --replay {script}")
    return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.chaos.cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=0.0, help="how long, beside --hours")
    parser.add_argument("--hours", type=float, default=0.0, help="how long, beside --minutes")
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--without", action="append", default=[], choices=KINDS, help="not this kind")
    parser.add_argument("--replay", type=Path, metavar="SCRIPT", help="run the history of a script, and end")
    parser.add_argument(
        "--reduce-minutes", type=float, default=20.0, help="for making a history shorter, 0: not at all"
    )
    return parser.parse_args()


def _drawn(options: argparse.Namespace, began: float) -> Iterator[Step]:
    """Draw steps until the time is over."""
    chance = random.Random(options.seed)
    names = [name for name in KINDS if name not in options.without]
    while time.monotonic() < began + 60 * (options.minutes + 60 * options.hours):
        yield Step(chance.choice(names), chance.randrange(2), chance.randrange(10**6))


def _on_a_cluster_of_its_own(image: Image, steps: Iterable[Step]) -> ClusterOutcome:
    outcome = ClusterOutcome()
    with Cluster() as cluster:
        cluster.add_nodes(*NODES)
        cluster.load_image(image)
        install_chart(cluster, image)
        try:
            play(cluster, steps, outcome)
        except (AssertionError, RuntimeError) as failed:
            outcome.violated = "\n".join([str(failed), *getattr(failed, "__notes__", ())])
    return outcome


def _reduce(options: argparse.Namespace, image: Image, outcome: ClusterOutcome) -> Path:
    """Keep the history that failed, find a shorter one after which anything fails, print it; returns its script."""
    DIRECTORY.mkdir(exist_ok=True)
    script = DIRECTORY / f"cluster-seed-{options.seed}.history"
    violated = outcome.violated.partition("\n")[0]
    write(script, outcome.done, violated=violated)
    script.with_suffix(".log").write_text(outcome.violated, encoding="utf-8")
    if not options.reduce_minutes:
        return script
    end = time.monotonic() + 60 * options.reduce_minutes

    def fails(steps: Sequence[Step]) -> bool:
        again = _on_a_cluster_of_its_own(image, steps).violated
        print(f"  reducing: {len(steps)} faults: {again.partition(chr(10))[0] or 'ok'}", flush=True)
        return bool(again)

    found = shortest(outcome.done, fails, lambda: time.monotonic() < end)
    script = script.with_suffix(".shortest")
    write(script, found, violated=violated)
    print(script.read_text(encoding="utf-8"))
    return script


if __name__ == "__main__":
    sys.exit(main())
