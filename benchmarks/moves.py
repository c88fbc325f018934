"""Moving addresses from one NIC to another, beside `ip -batch` doing the same in the same namespace.

Ours packs the requests, sends them in one batch and reads what the kernel refused. The peer is one `ip -batch` with
the same requests in the same order and with the same flags (IPv6 without duplicate detection); its figure contains the
start of the process, which is what a script would pay. Both are the best of several runs, taken in turn.

Needs root and iproute2. Run: python benchmarks/moves.py
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a file, it finds its neighbours all the same

from benchmarks import machine
from ipmp_agent.linux.messages import addresses
from ipmp_agent.linux.messages.netlink import Channel
from tests.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ipmp_api.types import InterfaceAddress

COUNTS = (1, 10, 100, 1000, 4000)
COUNTS_SHORT = (1, 100)
REPEATS, REPEATS_SHORT = 5, 2
LARGE = 2000  # the kernel walks lists of addresses: of this many one round takes seconds, and noise is small
NICS = ("nic0", "nic1")


@dataclass(frozen=True)
class Result:
    """Seconds to move this many addresses."""

    family: str
    count: int
    ours: float
    peer: float


def numbered(family: str, count: int) -> list[InterfaceAddress]:
    """This many addresses."""
    if family == "IPv4":
        first = int(IPv4Interface("198.19.0.1").ip)
        return [IPv4Interface(first + i) for i in range(count)]
    first = int(IPv6Interface("2001:db8:0:9::1").ip)
    return [IPv6Interface(first + i) for i in range(count)]


def move(channel: Channel, moved: Sequence[InterfaceAddress], source: str, destination: str) -> float:
    """Move addresses as the agent does; returns the seconds it took."""
    began = time.perf_counter()
    here, there = socket.if_nametoindex(source), socket.if_nametoindex(destination)
    requests = [addresses.add(there, address) for address in moved]
    requests += [addresses.delete(here, address) for address in moved]
    failures = channel.send(requests)
    took = time.perf_counter() - began
    if failures:
        raise SystemExit(f"the kernel refused {len(failures)} requests, the first: {failures[0]}")
    return took


def move_by_ip(moved: Sequence[InterfaceAddress], source: str, destination: str) -> float:
    """Move addresses with `ip -batch`; returns the seconds it took."""
    flags = {4: "noprefixroute", 6: "noprefixroute nodad"}
    lines = [f"address add {each} dev {destination} {flags[each.version]}" for each in moved]
    lines += [f"address del {each} dev {source}" for each in moved]
    with tempfile.NamedTemporaryFile("w", encoding="ascii", suffix=".batch") as script:
        script.write("\n".join(lines) + "\n")
        script.flush()
        began = time.perf_counter()
        subprocess.run(["ip", "-batch", script.name], check=True)
        return time.perf_counter() - began


def measure(family: str, count: int, repeats: int) -> Result:
    """Both in turn, in the namespace of the caller: there by ours, back by the peer, and the other way round."""
    moved = numbered(family, count)
    channel = Channel()
    near, far = NICS
    channel.send([addresses.add(socket.if_nametoindex(near), address) for address in moved])
    ours: list[float] = []
    peer: list[float] = []
    for _ in range(1 if count >= LARGE else repeats):
        ours.append(move(channel, moved, near, far))
        peer.append(move_by_ip(moved, far, near))
        peer.append(move_by_ip(moved, near, far))
        ours.append(move(channel, moved, far, near))
    channel.send([addresses.delete(socket.if_nametoindex(near), address) for address in moved])
    channel.close()
    return Result(family, count, min(ours), min(peer))


def row(result: Result) -> str:
    """One line of the table."""
    each = result.ours / result.count * 1e6
    ratio = result.ours / result.peer
    times = f"{result.ours * 1e3:>9.2f} {result.peer * 1e3:>13.2f} {ratio:>7.2f} {each:>11.1f}"
    return f"{result.family:<6} {result.count:>9} {times}"


def run(measured: Callable[[str, int], Result], counts: Sequence[int]) -> list[Result]:
    """Every size in both families, each printed as it is done."""
    head = f"{'family':<6} {'addresses':>9} {'ours, ms':>9} {'ip -batch, ms':>13} {'ratio':>7} {'us/address':>11}"
    print(head, flush=True)
    results = []
    for family in ("IPv4", "IPv6"):
        for count in counts:
            results.append(measured(family, count))
            print(row(results[-1]), flush=True)
    return results


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="few addresses, two rounds: does it work, not how well")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to this file")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root: it makes network namespaces")
    counts, repeats = (COUNTS_SHORT, REPEATS_SHORT) if arguments.short else (COUNTS, REPEATS)
    print(
        f"{machine.described()}; best of {2 * repeats}, of 2 from {LARGE} addresses",
        flush=True,
    )
    with Lab(NICS, peers=0) as lab:
        inside = lab.host.namespace
        results = run(lambda family, count: inside.call(measure, family, count, repeats), counts)
    print("ratio: ours against ip -batch, below 1 is faster")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(result) for result in results]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
