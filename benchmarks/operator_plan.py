"""How long the operator plans, and how that grows: `python benchmarks/operator_plan.py [--nodes N]`.

Two groups on every node: data addresses of both families from pools, a test address for each member, peers, and one
interface that both claim. Times are CPU seconds of one core. "first" gives everybody addresses, "at rest" plans again
what is there already, "one more" adds a node. Linear growth shows as a constant last column.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ipmp_operator.core.model import InterfaceReport, Node, NodeGroupReport
from ipmp_operator.process import GC_THRESHOLDS
from tests.unit.operator.build import World, api_group

if TYPE_CHECKING:
    from collections.abc import Callable


def world(count: int) -> World:
    """Return two groups and `count` nodes, nothing planned yet."""
    v4, v6 = {"name": "v4", "ranges": ["10.0.0.0/14"]}, {"name": "v6", "ranges": ["2001:db8::/64"], "perNode": 2}
    test_pool = {"ipv4": {"pool": {"ranges": ["10.8.0.0/14"], "prefixLength": 14}}}
    first = api_group("first", dataAddresses={"pools": [v4, v6]}, testAddresses=test_pool)
    second = api_group("second", interfaces=[{"name": "eth2"}, {"name": "eth3"}], dataAddresses={"pools": [v4]})
    result = World([first, second])
    result.add_nodes(Node(f"node-{number:05}", {"kubernetes.io/os": "linux"}) for number in range(count))
    return result


def report(cluster: World) -> None:
    """Let every agent report."""
    for at, (holder, seen) in enumerate(list(cluster.there.items())):
        members = tuple(
            InterfaceReport(f"eth{n}", f"52:54:00:{at >> 8 & 255:02x}:{at & 255:02x}:{n:02x}") for n in range(2)
        )
        status = NodeGroupReport("ok", "", seen.generation, False, members, present=seen.held)
        cluster.there[holder] = replace(seen, status=status)
    cluster.agents = frozenset(cluster.nodes)


def best(repeat: int, work: Callable[[], object]) -> float:
    """Return the shortest of several runs, in seconds of CPU time."""
    times = []
    for _ in range(repeat):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def main() -> None:
    """Print one row for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=5000, help="largest cluster (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="runs, of which the best counts (default: %(default)s)")
    options = parser.parse_args()
    gc.set_threshold(*GC_THRESHOLDS)
    print(f"{'nodes':>7} {'node groups':>12} {'first':>10} {'at rest':>10} {'one more':>10} {'at rest, per node':>18}")
    for nodes in sorted({max(1, options.nodes // divisor) for divisor in (10, 5, 2, 1)}):
        first = best(options.repeat, lambda: world(nodes).plan())  # noqa: B023 - called at once
        cluster = world(nodes)
        cluster.step()
        report(cluster)
        cluster.settle()
        rest = best(options.repeat, cluster.plan)
        cluster.add_nodes([Node("a-new-node")])
        more = best(1, cluster.plan)
        print(
            f"{nodes:>7} {len(cluster.there):>12} {first * 1e3:>7.0f} ms {rest * 1e3:>7.0f} ms {more * 1e3:>7.0f} ms"
            f" {rest / nodes * 1e6:>15.1f} us"
        )


if __name__ == "__main__":
    main()
