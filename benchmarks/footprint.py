"""What the agent costs a node while nothing happens: processor time and resident memory, beside FRR's bfdd.

The agent watches four members: first without probes, then with five targets each at an interval of 100 ms (a failure
detection time of 700 ms), in one family and in both. bfdd holds twenty sessions that send every 100 ms. Both count by
what the kernel charges the process; the packets are counted, too, since the two do not send equally many.

Needs root, nftables and frr (apt-get install nftables frr). Run: python benchmarks/footprint.py
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a file, it finds its neighbours all the same

from benchmarks.peers import bfdd
from tests.lab import Agent, Lab, group_manifest
from tests.lab.scene import link_local

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
KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "nowhere",
    "clusters": [{"name": "nowhere", "cluster": {"server": "https://127.0.0.1:1"}}],
    "contexts": [{"name": "nowhere", "context": {"cluster": "nowhere", "user": "nobody"}}],
    "users": [{"name": "nobody", "user": {"token": "none"}}],
}


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
        costs.append(with_api_client(lab, manifest, seconds))
    return costs


class ClusterAgent(Agent):
    """An agent that obeys a cluster which does not answer: it goes on with what it knew, and keeps asking."""

    cluster = False

    @property
    def argv(self) -> list[str]:
        """The command line, with a kubeconfig in place of the manifest."""
        words = super().argv
        if self.cluster:
            words[words.index("--file")] = "--kubeconfig"
        return words


def with_api_client(lab: Lab, manifest: dict[str, Any], seconds: float) -> Cost:
    """The last of these once more, with the API client in memory as in a cluster."""
    with ClusterAgent(lab, manifest) as agent:
        agent.stop()
        agent.cluster = True
        agent.manifest.write_text(json.dumps(KUBECONFIG), encoding="utf-8")
        agent.start()
        name = "the same with the API client"
        return watch(name, agent.running.pid, seconds, partial(probes_sent, agent))


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
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to this file")
    arguments = parser.parse_args()
    missing = [name for name in ("ip", "nft", str(bfdd.PROGRAM)) if not shutil.which(name)]
    if missing or os.geteuid() != 0:
        parser.error(f"needs root, and: {', '.join(missing) or 'nothing more'}")
    seconds = 5.0 if arguments.short else arguments.seconds
    print(
        f"Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} cores,"
        f" load {os.getloadavg()[0]:.2f}; {seconds:g} s each",
        flush=True,
    )
    peer = sessions(seconds)
    costs = [*agents(seconds), peer]
    print(f"\n{'':<36} {'% of a core':>10} {'ratio':>9} {'packets/s':>10} {'us/packet':>11} {'MiB':>10}")
    for cost in costs:
        print(row(cost, peer))
    print("ratio: processor time against bfdd; us/packet: processor time for each packet sent, its answer included")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(cost) for cost in costs]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
