"""What a failover and a comparison with the kernel cost as a node grows, and whether that is linear.

The decision is the core's alone, in virtual time: from the loss of a carrier to the orders. The move is the kernel side
carrying these orders out on real interfaces: addresses, routes and the first announcements. The adoption is the
processor time of a start that finds addresses of the host on a member. The comparison reads the whole kernel, with
foreign routes that leave by a member, and finds nothing to do; its peer is `ip -json` reading the same tables. Growth
is the exponent between the two largest sizes: 1 is linear, 2 quadratic. Last, how long the loop of a whole agent is
busy at a stretch: `turns.py`.

Needs root and nftables. Run: python benchmarks/growth.py
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from ipaddress import IPv4Interface, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a file, it finds its neighbours all the same

from benchmarks import machine, turns
from ipmp_agent.core.actions import Announce, Move, MoveAddresses, SetOutbound
from ipmp_agent.core.events import AddressAdopted, Family, InterfaceFound, KernelRead, LinkChanged, TestAddressChanged
from ipmp_agent.core.multipathing import Multipathing
from ipmp_agent.core.reasons import Reason
from ipmp_api.types import Existing
from tests.lab import Lab
from tests.lab.kernel.running import GROUP, RunningKernel, kernel_group
from tests.node_groups import node_group

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ipmp_agent.linux.kernel import Kernel

ADDRESSES = (10, 100, 1000, 4000)
ADOPTED = (1500, 3000, 6000)
MEMBERS = (2, 4, 8, 16, 32)
TARGETS = (1, 2, 4, 8)
ROUTES = (100, 1000, 10000)
REPEATS = 5


@dataclass(frozen=True)
class Point:
    """Seconds for one size; the peer's too, where there is one."""

    name: str
    size: int
    ours: float
    peer: float | None = None


def numbered(count: int) -> tuple[IPv4Interface, ...]:
    """This many data addresses."""
    return tuple(IPv4Interface((int(ip_address("198.19.0.1")) + i, 32)) for i in range(count))


def best(work: Callable[[], float], repeats: int = REPEATS) -> float:
    """The shortest of several runs: noise only adds."""
    return min(work() for _ in range(repeats))


# -- the core ----------------------------------------------------------------------------------------------------------


def decide(members: int, addresses: int, targets: int) -> float:
    """Seconds from a lost carrier to the orders."""
    names = [f"nic{i}" for i in range(members)]
    group = node_group(
        GROUP, names, addresses=numbered(addresses), targets=[f"198.18.0.{201 + i}" for i in range(targets)]
    )
    core = Multipathing(group, seed=1)
    for i, name in enumerate(names):
        core.handle(InterfaceFound(name, name, 2 + i, f"02:00:00:00:00:{i:02x}", link=True), 0.0)
        core.handle(TestAddressChanged(name, Family.IPV4, ip_address(f"198.18.0.{11 + i}")), 0.0)
    core.handle(KernelRead(), 0.0)
    core.tick(0.5)
    began = time.perf_counter()
    orders = core.handle(LinkChanged(names[0], up=False), 1.0)
    took = time.perf_counter() - began
    if not any(isinstance(order, MoveAddresses) for order in orders):
        raise SystemExit(f"no failover was ordered: {orders}")
    return took


# -- the kernel side ---------------------------------------------------------------------------------------------------


def perform(kernel: RunningKernel, orders: Sequence[Any]) -> float:
    """Seconds to carry out orders, in the façade's own loop."""

    def work(facade: Kernel) -> float:
        began = time.perf_counter()
        for order in orders:
            facade.perform(GROUP, order)
        return time.perf_counter() - began

    return kernel.call(work)


def fail_over(kernel: RunningKernel, addresses: tuple[IPv4Interface, ...]) -> float:
    """Seconds to move everything from the first NIC to the second and announce the first of it; then it goes back."""

    def orders(source: str | None, destination: str) -> list[Any]:
        moves = tuple(Move(address, source, destination, Reason.LINK_DOWN) for address in addresses)
        carriers = (destination,)
        return [MoveAddresses(moves), Announce(destination, addresses), SetOutbound(carriers, carriers)]

    took = perform(kernel, orders("nic0", "nic1"))
    perform(kernel, orders("nic1", "nic0"))
    return took


def moving(counts: Sequence[int]) -> list[Point]:
    """Failovers of more and more addresses on real interfaces."""
    points = []
    for count in counts:
        addresses = numbered(count)
        with Lab(peers=0) as lab:
            # Found on a member, they need no check for a duplicate.
            lab.host.namespace.batch(f"address add {address} dev nic0" for address in addresses)
            kernel = RunningKernel(lab.host.namespace)
            try:
                kernel.configure(kernel_group(addresses=addresses))
                perform(kernel, [SetOutbound(("nic0",), ("nic0",))])
                took = best(partial(fail_over, kernel, addresses))
            finally:
                kernel.close()
        points.append(told(Point("move, by addresses", count, took)))
    return points


def adopting(counts: Sequence[int]) -> list[Point]:
    """Processor time in which more and more addresses that the host has on a member are adopted, at the start."""
    points = []
    for count in counts:
        with Lab(peers=0) as lab:
            lab.host.namespace.batch(f"address add {address} dev nic0" for address in numbered(count))
            kernel = RunningKernel(lab.host.namespace)
            try:
                began = time.process_time()
                found = kernel.configure(kernel_group(existing=Existing.ADOPT))
                took = time.process_time() - began
            finally:
                kernel.close()
        if sum(isinstance(event, AddressAdopted) for event in found) != count:
            raise SystemExit(f"not all {count} addresses were adopted")
        points.append(told(Point("adoption, by addresses", count, took)))
    return points


def compare(kernel: RunningKernel) -> float:
    """Seconds to compare the kernel with what it should be."""
    began = time.perf_counter()
    kernel.run(lambda facade: facade.reconcile(GROUP))
    return time.perf_counter() - began


def read_by_ip(lab: Lab) -> float:
    """Seconds in which `ip` reads the same tables."""
    began = time.perf_counter()
    for words in (["address"], ["route"], ["-6", "route"], ["nexthop"]):
        lab.host.namespace.run("ip", "-json", *words, "show")
    return time.perf_counter() - began


def comparing(counts: Sequence[int]) -> list[Point]:
    """Comparisons and failovers with more and more foreign routes that leave by a member."""
    compared, moved = [], []
    for count in counts:
        with Lab(peers=0, nic_addresses={"nic0": ("198.18.0.11/24",)}) as lab:
            first = int(ip_address("100.64.0.0"))
            lab.host.namespace.batch(
                f"route add {ip_address(first + i)} via 198.18.0.201 dev nic0 metric 100" for i in range(count)
            )
            address = (IPv4Interface("198.18.0.100/32"),)
            lab.host.namespace.batch(["address add 198.18.0.100/32 dev nic0"])
            kernel = RunningKernel(lab.host.namespace)
            try:
                kernel.configure(kernel_group(addresses=address))
                perform(kernel, [SetOutbound(("nic0",), ("nic0",))])
                compare(kernel)  # lays the twins
                took, peer = best(partial(compare, kernel)), best(partial(read_by_ip, lab))
                failover = best(partial(fail_over, kernel, address))
            finally:
                kernel.close()
        compared.append(told(Point("comparison, by foreign routes", count, took, peer)))
        moved.append(told(Point("move, by foreign routes", count, failover)))
    return compared + moved


# -- the table ---------------------------------------------------------------------------------------------------------


def told(point: Point) -> Point:
    """Say how far it is."""
    print(f"{point.name}: {point.size} in {point.ours * 1e3:.2f} ms", flush=True)
    return point


def growth(points: Sequence[Point]) -> float:
    """The exponent between the two largest sizes."""
    small, large = points[-2:]
    return math.log(large.ours / small.ours) / math.log(large.size / small.size)


def rows(points: Sequence[Point]) -> list[str]:
    """The lines of one curve, its exponent in the last."""
    lines = []
    for point in points:
        each = f"{point.ours * 1e3:>10.3f} {point.ours / point.size * 1e6:>10.1f}"
        peer = f"{point.peer * 1e3:>10.2f} {point.ours / point.peer:>7.2f}" if point.peer else " " * 18
        lines.append(f"{point.name:<30} {point.size:>7} {each} {peer}")
    if len(points) > 1:
        lines[-1] += f" {growth(points):>7.2f}"
    return lines


def main() -> int:
    """Measure every curve and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="two small sizes of each: does it work, not how well")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to this file")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root: it makes network namespaces")
    print(
        f"{machine.described()}; best of {REPEATS}",
        flush=True,
    )
    some = 2 if arguments.short else None
    curves = [
        [Point("decision, by addresses", n, best(partial(decide, 4, n, 5))) for n in ADDRESSES[:some]],
        [Point("decision, by members", n, best(partial(decide, n, 100, 5))) for n in MEMBERS[:some]],
        [Point("decision, by targets", n, best(partial(decide, 4, 100, n))) for n in TARGETS[:some]],
        moving(ADDRESSES[:some]),
        adopting(ADOPTED[:some]),
    ]
    routes = comparing(ROUTES[:some])
    curves += [routes[: len(routes) // 2], routes[len(routes) // 2 :]]
    print(f"\n{'':<30} {'size':>7} {'ours, ms':>10} {'us each':>10} {'peer, ms':>10} {'ratio':>7} {'growth':>7}")
    for curve in curves:
        print("\n".join(rows(curve)))
    print("growth: exponent between the two largest sizes, 1 is linear; peer: `ip -json` reading the same tables")
    print(turns.table(turns.curves(short=arguments.short)))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(p) for curve in curves for p in curve]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
