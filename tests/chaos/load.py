"""Failover under load beside a quiet run: `python -m tests.chaos.load`.

For each load a host with eight NICs and an agent of its own: the holder of a data address loses its cable, NIC after
NIC, while a neighbour pings the address. What counts is that each failover happens; the outages stand beside those of
the quiet run of the same minute, since machines differ.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import socket
import statistics
import sys
import threading
import time
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from ipmp_agent.disk.directories import SOCKET_NAME
from tests.chaos.wires import pause
from tests.chaos.world import size
from tests.lab import Agent, Lab, NotInTimeError, PingTrain, wait_for
from tests.lab.agent import METRICS_ADDRESS, group_manifest
from tests.lab.scene import TEST_POOL, V4
from tests.lab.status import group_view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MEMBERS = 8
QUIET = 1.3
"""Seconds between pulls: more than the second for which the kernel holds link events back."""
SPACING = 0.005
FLOODER = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(("eth0", 0))
kind, target = sys.argv[1], socket.inet_aton(sys.argv[2])
source = b"\\x02\\0\\0\\0\\x66\\x66"
if kind == "arp":
    arp = b"\\0\\1\\x08\\0\\6\\4\\0\\1" + source + socket.inet_aton("198.18.0.250") + bytes(6) + target
    frame = b"\\xff" * 6 + source + b"\\x08\\x06" + arp
elif kind == "icmp":
    echo = b"\\0\\0\\xff\\xff" + bytes(4)
    head = b"\\x45\\0\\0\\x1c\\0\\1\\0\\0\\x40\\1\\0\\0" + socket.inet_aton("198.18.0.250") + target
    frame = b"\\xff" * 6 + source + b"\\x08\\0" + head + echo
else:
    frame = b"\\xff" * 6 + source + b"\\x88\\xb5"
frame = frame.ljust(60, b"\\0")
while True:
    try:
        s.send(frame)
    except OSError:
        pass
"""


@contextlib.contextmanager
def _flood(lab: Lab, agent: Agent, kind: str) -> Iterator[str]:
    flooder = lab.peer(1).namespace.popen([sys.executable, "-c", FLOODER, kind, V4])
    counter = "/sys/class/net/eth0/statistics/tx_packets"
    try:
        began, before = time.monotonic(), _count(lab, counter)
        pause(1)
        yield f"{(_count(lab, counter) - before) / (time.monotonic() - began):.0f} frames/s"
    finally:
        flooder.kill()
        flooder.wait()


def _count(lab: Lab, counter: str) -> int:
    script = f"mount -t sysfs sysfs /sys && cat {counter}"
    return int(lab.peer(1).namespace.run("unshare", "--mount", "--propagation", "private", "sh", "-c", script))


@contextlib.contextmanager
def _lines(lab: Lab, form: str, count: int, *, before: tuple[str, ...] = (), strict: bool = True) -> Iterator[str]:
    """Run `ip` lines numbered 0 to count - 1 on the host."""
    lines = [*before, *(form.format(a=i >> 8, b=i & 255, i=i) for i in range(count))]
    lab.host.namespace.run("ip", *(() if strict else ("-force",)), "-batch", "-", text="\n".join(lines), check=strict)
    yield str(count)


@contextlib.contextmanager
def _links(lab: Lab, agent: Agent) -> Iterator[str]:
    """Interfaces of pods come and go, 500 a minute of each."""
    ending = threading.Event()
    made = [0]

    def churn() -> None:
        while not ending.wait(60 / 500):
            lab.host.namespace.batch(["link add churn0 up type veth peer name churn1", "link del churn0"])
            made[0] += 1

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        yield "500 a minute"
    finally:
        ending.set()
        thread.join()


@contextlib.contextmanager
def _slow_clients(lab: Lab, agent: Agent) -> Iterator[str]:
    """64 clients of each port, which begin a question and say no more."""
    host, _, port = METRICS_ADDRESS.rpartition(":")
    clients = []
    for family, place in ((socket.AF_INET, (host, int(port))), (socket.AF_UNIX, None)):
        for _ in range(64):
            one = lab.host.namespace.socket(family, socket.SOCK_STREAM)
            clients.append(one)
            one.settimeout(0.5)
            with contextlib.suppress(OSError):
                one.connect(place or str(agent.runtime_directory / SOCKET_NAME))
                one.send(b"G")
    try:
        yield "64 on each port"
    finally:
        for one in clients:
            one.close()


@contextlib.contextmanager
def _nothing(lab: Lab, agent: Agent) -> Iterator[str]:
    yield ""


LOADS: dict[str, Callable[[Lab, Agent], contextlib.AbstractContextManager[str]]] = {
    "quiet": _nothing,
    "ARP flood": lambda lab, agent: _flood(lab, agent, "arp"),
    "echo replies": lambda lab, agent: _flood(lab, agent, "icmp"),
    "0x88B5 flood": lambda lab, agent: _flood(lab, agent, "members"),
    "routes": lambda lab, _: _lines(lab, "route add blackhole 10.{a}.{b}.0/24 proto bird", 50_000),
    "neighbours": lambda lab, _: _lines(
        lab, "neigh replace 198.18.{a}.{b} lladdr 02:00:00:00:99:99 nud stale dev nic0", 10_000, strict=False
    ),
    "addresses": lambda lab, _: _lines(
        lab,
        "address add 10.{a}.{b}.1/32 dev load0",
        5_000,
        before=("link add load0 up type veth peer name load1", "link set load1 up"),
    ),
    "links": _links,
    "slow clients": _slow_clients,
    "quiet again": _nothing,
}


def measure(name: str) -> tuple[str, list[float], int]:
    """Return how large the load was, the outage of each failover in seconds, and the agent's resident bytes."""
    lab = Lab([f"nic{i}" for i in range(MEMBERS)])
    with lab:
        wanted = group_manifest(
            interfaces=list(lab.host.nics),
            addresses=[f"{V4}/24"],
            targets=[lab.peer(0).ipv4, lab.peer(1).ipv4],
            testAddresses={"ipv4": {"pool": TEST_POOL}},
        )
        with Agent(lab, wanted) as agent:
            agent.wait_for(lambda status: group_view(status).state == "ok", deadline=60, what="ok")
            wait_for(lambda: lab.host.holders(V4), lambda found: len(found) == 1, deadline=60)
            with LOADS[name](lab, agent) as how_much:
                return how_much, list(_pulls(lab)), size(agent.running.pid).resident


def _pulls(lab: Lab) -> Iterator[float]:
    with PingTrain(lab.peer(0).namespace, V4, SPACING) as train:
        train.wait_answered(deadline=60)
        for _ in range(MEMBERS - 1):
            pause(QUIET)
            (holder,) = lab.host.holders(V4)
            began = lab.host.nic(holder).unplug()
            wait_for(partial(_elsewhere, lab, holder), deadline=60, what=f"{V4} on another NIC than {holder}")
            train.wait_answered(deadline=60)
            outages = train.report().between(began - SPACING, time.monotonic()).outages
            # The last pings may still be on their way.
            yield max((one.seconds for one in outages if one.seconds < inf), default=0.0)


def _elsewhere(lab: Lab, former: str) -> bool:
    return lab.host.holders(V4) not in ([], [former])


def main() -> int:
    """Measure each load; 1 when a failover did not happen."""
    parser = argparse.ArgumentParser(
        "python -m tests.chaos.load", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=LOADS, help="this load only; again for another")
    options = parser.parse_args()
    print(f"Linux {platform.release()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'load':14} {'how much':>18} {'pulls':>5} {'median':>9} {'longest':>9} {'resident':>9}", flush=True)
    failed = False
    for name in options.only or LOADS:
        try:
            how_much, outages, resident = measure(name)
        except NotInTimeError as late:
            failed = True
            print(f"{name:14} no failover: {late}", flush=True)
            continue
        times = f"{statistics.median(outages) * 1e3:6.0f} ms {max(outages) * 1e3:6.0f} ms"
        print(f"{name:14} {how_much:>18} {len(outages):5} {times} {resident >> 20:5} MiB", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
