"""A long, bad time on two real nodes: `python -m tests.chaos.cluster_soak --minutes N --seed N`.

The chart on two real kubelets, every cable of a member losing 2 % of the frames each way. One link of each node flaps
now and then, agents are starved (a quota of their cgroup) and stopped. Nothing else is wrong, so no probe may condemn a
member, and no agent may grow.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.chaos.cluster import GROUP, NODES, Broken, check
from tests.chaos.soak import FALSE, WARM, read_options
from tests.chaos.wires import pause
from tests.chaos.world import Size, size
from tests.cluster.build import build
from tests.cluster.cluster import Cluster, remove_cluster, stale_clusters
from tests.cluster.image import build_image
from tests.cluster.product import MEMBERS, install_chart

if TYPE_CHECKING:
    from collections.abc import Iterator

LOSS = 2.0
"""Percent of the frames, in each direction."""
CPU = Path("/sys/fs/cgroup/cpu")
FAILURES = "ipmp_interface_failures_total"


def main() -> int:
    """Run, and say what came of it; 1 when a member was condemned or a process grew."""
    options = read_options("tests.chaos.cluster_soak", __doc__)
    for tag in stale_clusters():
        remove_cluster(tag)
    build()
    image = build_image()
    with Cluster() as cluster:
        cluster.add_nodes(*NODES)
        cluster.load_image(image)
        install_chart(cluster, image)
        with Broken(cluster, GROUP) as applied:
            applied.wait_kept()
            return _soak(applied, options.minutes, options.seed)


def _soak(applied: Broken, minutes: float, seed: int) -> int:
    chance, did = random.Random(seed), Counter[str]()
    for node in NODES:
        for member in MEMBERS:
            applied.nic(node, member).lose(LOSS)
    began = told = time.monotonic()
    processes = _processes(applied)
    warm: dict[str, Size] = {}
    while time.monotonic() < began + 60 * minutes:
        what = chance.choice(["flap", "stop", "starve", "nothing", "nothing"])
        did[what] += 1
        _do(applied, what, chance)
        if not warm and time.monotonic() > began + min(WARM, 30 * minutes):
            warm = _sizes(processes)
        if time.monotonic() > told + 60:
            told = time.monotonic()
            print(f"{told - began:6.0f} s: {_said(_sizes(processes))}; {_condemned(applied)} condemned", flush=True)
    for node in NODES:
        for member in MEMBERS:
            applied.nic(node, member).restore()
    check(applied)
    now = _sizes(processes)
    grown = [f"{name}: {text}" for name, before in warm.items() if (text := before.grown(now[name]))]
    condemned, flaps = _condemned(applied), sum(applied.metric(node, FAILURES, reason="LinkDown") for node in NODES)
    print(f"{minutes:.0f} minutes, seed {seed}, {dict(did)}, load {os.getloadavg()[1]:.1f}")
    print(f"condemned by probes: {condemned:.0f}, failed by their link: {flaps:.0f}")
    print(
        f"after {WARM:.0f} s: {_said(warm)}; at the end: {_said(now)}; {'; '.join(grown) or 'nothing grew'}", flush=True
    )
    return 1 if condemned or grown else 0


def _processes(applied: Broken) -> dict[str, int]:
    """The agents; one that ends meanwhile ends the run."""
    return {node: pid for node in NODES for pid in applied.cluster.nodes[node].pids("ipmp-agent")}


def _sizes(processes: dict[str, int]) -> dict[str, Size]:
    return {name: size(pid) for name, pid in processes.items()}


def _said(sizes: dict[str, Size]) -> str:
    return ", ".join(
        f"{name} {one.resident / 2**20:.1f} MiB {one.descriptors} fds {one.threads} threads"
        for name, one in sizes.items()
    )


def _condemned(applied: Broken) -> float:
    return sum(applied.metric(node, FAILURES, reason=FALSE) for node in NODES)


def _do(applied: Broken, what: str, chance: random.Random) -> None:
    node = chance.choice(NODES)
    (pid, *_) = applied.cluster.nodes[node].pids("ipmp-agent")
    if what == "flap":
        nic = applied.nic(node, MEMBERS[1])
        for _ in range(chance.randint(1, 3)):
            nic.unplug()
            pause(chance.uniform(0.05, 1))
            nic.plug()
            pause(chance.uniform(0.05, 1))
    elif what == "stop":
        os.kill(pid, signal.SIGSTOP)
        pause(chance.uniform(0.05, 3))
        os.kill(pid, signal.SIGCONT)
    elif what == "starve":
        with _starved(pid, chance.choice([2000, 5000, 10000])):
            pause(chance.uniform(0.5, 4))
    pause(chance.uniform(0.5, 3))


@contextlib.contextmanager
def _starved(pid: int, quota: int) -> Iterator[None]:
    """Give the cgroup of a process so many microseconds of a processor in each 100 ms."""
    lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines()
    (path,) = (path for _, controllers, path in (line.split(":", 2) for line in lines) if controllers == "cpu")
    knob = CPU / path.lstrip("/") / "cpu.cfs_quota_us"
    knob.write_text(str(quota), encoding="ascii")
    try:
        yield
    finally:
        knob.write_text("-1", encoding="ascii")


if __name__ == "__main__":
    sys.exit(main())
