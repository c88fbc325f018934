"""Failover by cable pull, beside keepalived doing the same work in the same run.

Every pull takes the carrier from the NIC that holds the address. A neighbour pings that address every 2 ms and listens:
the clock stops when the address is announced at another NIC. Ours moves between NICs of one host; keepalived's moves
between two hosts, which is the nearest thing that the package does.

Ours is measured in four scenes: at rest; with a link of the host coming and going, as pods do; with that and ten
network namespaces made and deleted a second, which hold the kernel's lock of network configuration; with every core
kept busy by another cgroup. --beside COMMIT measures that build of ours, too: both in turn, seven pulls at a time.

Needs root, nftables and keepalived (apt-get install nftables keepalived). Run: python benchmarks/failover.py
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import platform
import random
import shutil
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a file, it finds its neighbours all the same

from benchmarks.peers.build import BuildAgent
from benchmarks.peers.keepalived import Pair
from tests.lab import Lab, PingTrain, Sniffer, group_manifest, wait_for
from tests.lab.carrier import Carrier
from tests.lab.load import busy_machine
from tests.sources import sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.lab import Nic

ADDRESS = "198.18.0.100"
SPACING = 0.002
MEMBERS = 8  # each is pulled once in a round and not plugged in again: the flap rule has no part in this
QUIET = (1.1, 1.3)  # seconds between pulls: more than the second for which the kernel holds link events back
ADVERT_DEFAULT = 1.0
ADVERT_CANDIDATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
STABLE_FOR = 10.0
CHURN = 0.1  # seconds between changes of a link that has nothing to do with the group
NAMESPACES = 0.1  # seconds between one network namespace made and deleted and the next
CGROUPS = (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup"))  # of version 1 with its controller, of version 2
SETTLE = 0.1  # service counts as back when pings of this long have been answered


@dataclass(frozen=True)
class Pull:
    """One cable pull: seconds from carrier loss to the first announcement, pings lost, seconds without an answer."""

    announced: float
    lost: int
    outage: float


def percentile(values: list[float], rank: float) -> float:
    """Nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(rank / 100 * len(ordered)) - 1)]


def pull(nic: Nic, train: PingTrain, sniffer: Sniffer, others: set[str]) -> Pull:
    """Pull this NIC's cable and measure until the address is served at one of the other MACs."""
    # Before the pull, not after: the announcement may be out before the call returns.
    pulled = time.monotonic()
    nic.unplug()
    wait_for(
        lambda: [one for one in sniffer.announcements(ADDRESS, since=pulled) if one.mac in others],
        deadline=30,
        what=f"{ADDRESS} announced elsewhere",
        interval=0.005,
    )
    train.wait_answered(int(SETTLE / SPACING), deadline=30)
    first = next(one for one in sniffer.announcements(ADDRESS, since=pulled) if one.mac in others)
    # A ping just before the pull may die on the way; those of the last moment are not answered yet.
    seen = train.report().between(pulled - 2 * SPACING, time.monotonic() - SETTLE / 2)
    return Pull(first.time - pulled, seen.lost, seen.longest_outage)


def pause(generator: random.Random) -> None:
    """Wait so that pulls do not keep step with anybody's polling."""
    time.sleep(generator.uniform(*QUIET))


@contextmanager
def repeated(name: str, interval: float, work: Callable[[], object]) -> Iterator[None]:
    """Do something every `interval` seconds in a thread while the context is open."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(interval):
            work()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def at_rest(_: Lab) -> Iterator[None]:
    """Nothing else."""
    yield


@contextmanager
def churning_links(lab: Lab) -> Iterator[None]:
    """Let a link of the host come and go all the time, as pods do on a node: the kernel then holds link events back."""
    lab.host.namespace.batch(["link add name pod0 up type veth peer name pod1", "link set pod1 up"])
    carrier, states = Carrier(lab.host.namespace), itertools.cycle((False, True))
    try:
        with repeated("churn", CHURN, lambda: carrier.set_up("pod1", up=next(states))):
            yield
    finally:
        carrier.close()


@contextmanager
def pods_come_and_go(lab: Lab) -> Iterator[None]:
    """The same, and network namespaces made and deleted: each end of one holds the kernel's lock for milliseconds."""
    make = ("unshare", "--net", "ip", "link", "add", "name", "eth0", "type", "veth")
    with churning_links(lab), repeated("namespaces", NAMESPACES, lambda: subprocess.run(make, check=True)):
        yield


@contextmanager
def busy_cores(_: Lab) -> Iterator[None]:
    """Keep every core busy by a cgroup that has as much to ask for as the one with the agent."""
    root = next(path for path in CGROUPS if (path / "cgroup.procs").exists())
    cgroup = root / f"ipmp-bench-{os.getpid()}"
    cgroup.mkdir()
    try:
        with busy_machine() as loops:
            for pid in loops:
                (cgroup / "cgroup.procs").write_text(str(pid))
            yield
    finally:
        wait_for((cgroup / "cgroup.procs").read_text, lambda pids: not pids, what="an empty cgroup")
        cgroup.rmdir()


SCENES = {
    "at rest": at_rest,
    "links churning": churning_links,
    "pods come and go": pods_come_and_go,
    "busy cores": busy_cores,
}


def ours(
    pulls: int, generator: random.Random, milliseconds: int, scene: str, builds: Mapping[str, Path]
) -> dict[str, list[Pull]]:
    """Pull cables of a group of several NICs, one after the other, in as many rounds as it takes; builds in turn."""
    done: dict[str, list[Pull]] = {name: [] for name in builds}
    names = [f"nic{i}" for i in range(MEMBERS)]
    while any(len(each) < pulls for each in done.values()):
        for name, root in builds.items():
            with Lab(names, peers=2) as lab:
                targets = [lab.peer(0).ipv4, lab.peer(1).ipv4]
                manifest = group_manifest(
                    interfaces=names, addresses=[f"{ADDRESS}/24"], targets=targets, milliseconds=milliseconds
                )
                meters = lab.peer(0).namespace
                with (
                    BuildAgent(lab, manifest, root),
                    SCENES[scene](lab),
                    PingTrain(meters, ADDRESS, SPACING) as train,
                    Sniffer(meters) as sniffer,
                ):
                    train.wait_answered(int(SETTLE / SPACING), deadline=30)
                    for _ in range(min(MEMBERS - 1, pulls - len(done[name]))):
                        pause(generator)
                        (holder,) = lab.host.holders(ADDRESS)
                        nic = lab.host.nic(holder)
                        others = {other.mac for other in lab.host.nics.values()} - {nic.mac}
                        done[name].append(pull(nic, train, sniffer, others))
                        progress(f"{name}, {scene}", len(done[name]), pulls)
    return done


@contextmanager
def pair_of_routers(advert: float) -> Iterator[tuple[Lab, Pair]]:
    """Two hosts with one NIC each on two switches, and keepalived on both."""
    with Lab(("eth0",), hosts=("left", "right"), peers=1) as lab:
        for i, name in enumerate(("left", "right")):
            lab.hosts[name].namespace.ip("address", "add", f"198.18.0.{11 + i}/24", "dev", "eth0")
        with Pair(lab, f"{ADDRESS}/24", advert) as pair:
            yield lab, pair


def keepalived(pulls: int, advert: float, generator: random.Random) -> list[Pull]:
    """Pull the master's cable, plug it in again, and so on."""
    done: list[Pull] = []
    with pair_of_routers(advert) as (lab, pair):
        meters = lab.peer(0).namespace
        with PingTrain(meters, ADDRESS, SPACING) as train, Sniffer(meters) as sniffer:
            train.wait_answered(int(SETTLE / SPACING), deadline=30)
            while len(done) < pulls:
                pause(generator)
                nic = pair.master.host.only
                others = {router.host.only.mac for router in pair.routers} - {nic.mac}
                done.append(pull(nic, train, sniffer, others))
                nic.plug()
                pair.wait_ready()
                progress(f"keepalived {advert:g} s", len(done), pulls)
    return done


def fastest_stable() -> float:
    """Return the shortest advertisement interval that causes no change of master on a busy machine."""
    for advert in ADVERT_CANDIDATES:
        with pair_of_routers(advert) as (_, pair):
            before = pair.transitions
            with busy_machine():
                time.sleep(STABLE_FOR)
            changes = pair.transitions - before
        print(f"keepalived, advert_int {advert:g} s: {changes} false changes of master in {STABLE_FOR:g} s", flush=True)
        if not changes:
            return advert
    return ADVERT_DEFAULT


def progress(name: str, done: int, total: int) -> None:
    """Say how far it is, ten times in all."""
    if done == total or done % max(1, total // 10) == 0:
        print(f"{name}: {done} of {total} pulls", flush=True)


def row(name: str, pulls: list[Pull], base: list[Pull]) -> str:
    """One line of the table; the ratio is this line's p99 to ours."""
    announced, lost = [one.announced for one in pulls], [float(one.lost) for one in pulls]
    ratio = percentile(announced, 99) / percentile([one.announced for one in base], 99)
    return (
        f"{name:<28} {len(pulls):>5} {percentile(announced, 50) * 1e3:>10.1f} {percentile(announced, 99) * 1e3:>10.1f}"
        f" {percentile(lost, 50):>9.0f} {percentile(lost, 99):>9.0f} {ratio:>9.1f}"
    )


def main() -> int:
    """Run the three and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pulls", type=int, default=100, help="cable pulls of each kind (default 100)")
    parser.add_argument("--seed", type=int, default=None, help="seed of the pauses between pulls (default: random)")
    parser.add_argument("--detection-time", type=int, default=1000, metavar="MS", help="our FDT (default 1000)")
    parser.add_argument("--advert", type=float, default=None, help="keepalived's fast advert_int (default: find it)")
    parser.add_argument("--only", choices=("ipmp", "keepalived"), help="run one side alone")
    parser.add_argument("--scene", choices=SCENES, action="append", help="run these of ours (default: all)")
    parser.add_argument("--beside", metavar="COMMIT", help="another commit's agent, to run in turn with this one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every pull to this file")
    arguments = parser.parse_args()
    missing = [name for name in ("ip", "nft", "keepalived") if not shutil.which(name)]
    if missing or os.geteuid() != 0 or arguments.pulls < 1:
        parser.error(f"needs root, at least one pull, and on the PATH: {', '.join(missing) or 'nothing more'}")
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(2**32)
    generator = random.Random(seed)
    print(f"seed {seed}; Linux {platform.release()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}", flush=True)
    results: dict[str, list[Pull]] = {}
    if arguments.only != "keepalived":
        with ExitStack() as stack:
            builds = {"ipmp": stack.enter_context(sources(None))}
            if arguments.beside:
                builds[arguments.beside] = stack.enter_context(sources(arguments.beside))
            for scene in arguments.scene or SCENES:
                both = ours(arguments.pulls, generator, arguments.detection_time, scene, builds)
                results |= {f"{name}, {scene}": pulls for name, pulls in both.items()}
    if arguments.only != "ipmp":
        results["keepalived 1 s"] = keepalived(arguments.pulls, ADVERT_DEFAULT, generator)
        fast = arguments.advert or fastest_stable()
        results[f"keepalived {fast:g} s"] = keepalived(arguments.pulls, fast, generator)
    print(f"\n{'':<28} {'':>5} {'announced after, ms':>21} {'pings lost':>19} {'p99':>9}")
    print(f"{'':<28} {'pulls':>5} {'p50':>10} {'p99':>10} {'p50':>9} {'p99':>9} {'ratio':>9}")
    base = next(iter(results.values()))
    for name, pulls in results.items():
        print(row(name, pulls, base))
    print(f"pings every {SPACING * 1e3:g} ms; ratio = p99 of the announcement against the first line")
    if arguments.json:
        arguments.json.write_text(json.dumps({name: [vars(one) for one in pulls] for name, pulls in results.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
