"""What the agent costs a node while nothing happens: processor time and resident memory, beside FRR's bfdd.

The agent watches four members: first without probes, then with five targets each at an interval of 100 ms (a failure
detection time of 700 ms), in one family and in both. bfdd holds twenty sessions that send every 100 ms. Both count by
what the kernel charges the process; the packets are counted, too, since the two do not send equally many.

Then the agent runs as in a pod, with an API server, beside the agent of another commit (--beside) if one is named: both
start in turn, and start-up is from the beginning of the program until its group is in the kernel.

Needs root, nftables and frr (apt-get install nftables frr). Run: python benchmarks/footprint.py
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a file, it finds its neighbours all the same

from benchmarks import machine
from benchmarks.peers import bfdd, pod
from tests.lab import Agent, Lab, group_manifest
from tests.lab.scene import link_local
from tests.sources import sources

if TYPE_CHECKING:
    from collections.abc import Callable

MEMBERS = ("nic0", "nic1", "nic2", "nic3")
TARGETS = 5
SESSIONS = len(MEMBERS) * TARGETS
INTERVAL = 100  # milliseconds
DETECTION_TIME = 7 * INTERVAL
WARM_UP = 6.0  # seconds: targets found, memory settled, garbage frozen
ADDRESSES = ["198.18.0.100/24", "198.18.0.101/24"]
TEST_POOL = {"name": "tests", "ranges": ["198.18.0.41-198.18.0.60"], "prefixLength": 24}
SETTLED = 8.0
"""Seconds after which an agent in a pod has frozen what lives, watches its node group and has told its status; it was
asked for its metrics once."""


@dataclass(frozen=True)
class Cost:
    """What one process cost: share of a core, MiB resident, packets a second sent."""

    name: str
    cpu: float
    resident: float
    packets: float


def processor_time(pid: int) -> float:
    """Seconds that all threads of a process have run."""
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def resident(pid: int) -> float:
    """MiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)[1]) / 1024  # type: ignore[index]


def watch(name: str, pid: int, seconds: float, sent: Callable[[], float]) -> Cost:
    """Watch a process for this long."""
    time.sleep(WARM_UP)
    began, ran, had = time.monotonic(), processor_time(pid), sent()
    time.sleep(seconds)
    elapsed = time.monotonic() - began
    cost = Cost(name, (processor_time(pid) - ran) / elapsed, resident(pid), (sent() - had) / elapsed)
    print(f"{name}: {cost.cpu * 100:.2f} % of a core, {cost.resident:.1f} MiB", flush=True)
    return cost


def probes_sent(agent: Agent) -> float:
    """Probes so far, of all members."""
    found = re.findall(r"^ipmp_probes_sent_total\{.*\} (\S+)$", agent.metrics(), re.MULTILINE)
    return sum(map(float, found))


def agents(seconds: float) -> list[Cost]:
    """The agent in each of its states."""
    quiet = {"probes": {"method": "Disabled", "targets": {}}, "testAddresses": {"ipv6": "Disabled"}}
    pool = {"ipv4": {"pool": TEST_POOL}}
    kinds: dict[str, dict[str, Any]] = {
        "agent, no probes": quiet,
        "agent, 4x5 targets IPv4": {"testAddresses": pool | {"ipv6": "Disabled"}},
        "agent, 4x5 targets IPv4 + 4x5 IPv6": {"testAddresses": pool},
    }
    costs = []
    with Lab(MEMBERS, peers=TARGETS) as lab:
        peers = [lab.peer(i) for i in range(TARGETS)]
        targets = [peer.ipv4 for peer in peers] + [link_local(peer.only) for peer in peers]
        for name, spec in kinds.items():
            manifest = group_manifest(
                interfaces=MEMBERS, addresses=ADDRESSES, targets=targets, milliseconds=DETECTION_TIME, **spec
            )
            with Agent(lab, manifest) as agent:
                costs.append(watch(name, agent.running.pid, seconds, partial(probes_sent, agent)))
    return costs


@dataclass(frozen=True)
class Start:
    """An agent in a pod: until its group was in the kernel, by the clock and of a core; MiB when it had settled."""

    seconds: float
    processor: float
    resident: float


def pods(commit: str | None, starts: int) -> dict[str, list[Start]]:
    """Start the agent as in a pod, in turn with that of another commit."""
    names = {"this tree": None} | ({commit: commit} if commit else {})
    found: dict[str, list[Start]] = {name: [] for name in names}
    with ExitStack() as stack:
        roots = {name: stack.enter_context(sources(source)) for name, source in names.items()}
        lab = stack.enter_context(Lab(MEMBERS, peers=TARGETS))
        targets = [lab.peer(i).ipv4 for i in range(TARGETS)]
        spec: dict[str, Any] = {"testAddresses": {"ipv4": {"pool": TEST_POOL}}, "milliseconds": DETECTION_TIME}
        manifest = group_manifest(interfaces=MEMBERS, addresses=ADDRESSES, targets=targets, **spec)
        url, account = stack.enter_context(pod.api_server(lab, manifest))
        for _ in range(starts + 1):
            for name, root in roots.items():
                with pod.PodAgent(lab, root, url, account) as agent:
                    seconds, ran = agent.start_up(), processor_time(agent.running.pid)
                    agent.metrics()
                    time.sleep(SETTLED)
                    found[name].append(Start(seconds, ran, resident(agent.running.pid)))
                    agent.stop()
                    agent.withdraw()
    return {name: measured[1:] for name, measured in found.items()}  # the first ones fill the caches


def show_pods(found: dict[str, list[Start]]) -> None:
    """Print medians, and ratios to the other commit."""
    fields = {"seconds": "start, s", "processor": "CPU, s", "resident": "MiB"}
    print(f"\n{'in a pod, medians':<36}" + "".join(f" {words:>10} {'ratio':>9}" for words in fields.values()))
    medians = {
        name: [median(getattr(one, field) for one in measured) for field in fields] for name, measured in found.items()
    }
    peer = list(medians.values())[-1]
    for name, values in medians.items():
        print(
            f"{name:<36}"
            + "".join(f" {value:>10.3f} {value / of:>9.2f}" for value, of in zip(values, peer, strict=True))
        )


def sessions(seconds: float) -> Cost:
    """Watch bfdd."""
    pairs = [(f"198.18.0.{101 + i}", f"198.18.0.{201 + i}") for i in range(SESSIONS)]
    with Lab(("eth0",), hosts=("near", "far"), peers=0) as lab:
        near, far = lab.hosts["near"], lab.hosts["far"]
        near.namespace.batch(f"address add {here}/24 dev eth0" for here, _ in pairs)
        far.namespace.batch(f"address add {there}/24 dev eth0" for _, there in pairs)
        with bfdd.Sessions(near, far, pairs, INTERVAL) as running:
            return watch(
                f"FRR bfdd, {SESSIONS} sessions",
                running.near.process.pid,
                seconds,
                lambda: near.namespace.ip_json("-statistics", "link", "show", "eth0")[0]["stats64"]["tx"]["packets"],
            )


def row(cost: Cost, peer: Cost) -> str:
    """One line of the table; the ratio is to the peer."""
    each = cost.cpu / cost.packets * 1e6 if cost.packets >= 1 else float("nan")
    return (
        f"{cost.name:<36} {cost.cpu * 100:>10.2f} {cost.cpu / peer.cpu:>9.2f} {cost.packets:>10.0f} {each:>11.0f}"
        f" {cost.resident:>10.1f}"
    )


def main() -> int:
    """Watch them one after the other and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to watch each (default %(default)g)")
    parser.add_argument("--short", action="store_true", help="5 seconds each: does it work, not how well")
    parser.add_argument("--beside", metavar="COMMIT", help="another commit, to run as in a pod in turn with this one")
    parser.add_argument("--starts", type=int, default=10, help="starts of each in a pod (default %(default)d)")
    parser.add_argument("--pod", action="store_true", help="only as in a pod")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to this file")
    arguments = parser.parse_args()
    missing = [name for name in ("ip", "nft", str(bfdd.PROGRAM)) if not shutil.which(name)]
    if missing or os.geteuid() != 0:
        parser.error(f"needs root, and: {', '.join(missing) or 'nothing more'}")
    seconds = 5.0 if arguments.short else arguments.seconds
    print(
        f"{machine.described()}; {seconds:g} s each",
        flush=True,
    )
    if arguments.pod:
        show_pods(pods(arguments.beside, arguments.starts))
        return 0
    peer = sessions(seconds)
    costs = [*agents(seconds), peer]
    print(f"\n{'':<36} {'% of a core':>10} {'ratio':>9} {'packets/s':>10} {'us/packet':>11} {'MiB':>10}")
    for cost in costs:
        print(row(cost, peer))
    print("ratio: processor time against bfdd; us/packet: processor time for each packet sent, its answer included")
    show_pods(pods(arguments.beside, 1 if arguments.short else arguments.starts))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(cost) for cost in costs]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
