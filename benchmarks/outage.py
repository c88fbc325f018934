"""An outage as a user sees it: pings lost, the longest gap, and how long a TCP stream stands still.

One host with two NICs on two switches, the first preferred, the second in reserve; a neighbour pings its address every
2 ms and streams to it. The first NIC fails (its cable is pulled, or frames vanish while the carrier stays), comes back,
and the address falls back to it. The same is done by kernel bonding (active-backup, MII and ARP monitoring) and by
teamd (active-backup, its ethtool and arp_ping watches), in the same run, on the same topology, one after the other; and
by BGP on the host with BFD (FRR), where the two switches are leaf routers and the NICs share no link.

What each costs at rest is processor time of its processes, on the host and on the routers that it needs.

The settings that are called fastest are found by trial: the fastest that gives no NIC up on a busy machine.

It runs under Debian's user-mode kernel, which has bonding and team whatever the running kernel has, and can touch
nothing outside. With --here it runs on this kernel; --contenders "IPMP|BGP" leaves those out that it lacks.

Needs root and packages (python -m tests.prerequisites lab bench). Run: python benchmarks/outage.py
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a file, it finds its neighbours all the same

from benchmarks.failover import SPACING, pause, percentile
from benchmarks.peers import bonding, teamd
from benchmarks.peers.bgp import Bgp
from benchmarks.peers.process import processor_seconds
from benchmarks.stability import failures
from tests.lab import Agent, Lab, PingTrain, TcpStream, uml, wait_for
from tests.lab.load import busy_machine
from tests.lab.scene import usual_group
from tests.lab.waiting import NotInTimeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType


ADDRESSES = {"IPv4": "198.18.0.100/24", "IPv6": "2001:db8:0:1::100/64"}
# By BGP an address is no part of the neighbours' link: there, whoever has no other way would ask for it by ARP.
ROUTED = {"IPv4": "198.19.0.100/32", "IPv6": "2001:db8:0:2::100/128"}
TARGETS = ("198.18.0.201", "198.18.0.202")  # the neighbours of the lab, one on each switch
PREFERRED, RESERVE = "nic0", "nic1"
SETTLED = 50  # pings answered in a row
CALM = 0.25  # seconds of service after which an outage is over
LOOK = 0.5  # seconds between looks at who is active: a look costs the one processor 0.1 s
PATIENCE = 90.0
STABLE_FOR = 10.0
CANDIDATES = (10, 20, 50, 100, 200, 300, 500)  # milliseconds
UNTRIED = 100  # milliseconds, where nothing was tried
SHORTEST_DETECTION_TIME = 100  # of the API
ARP_USUAL = 1000  # milliseconds: what guides to ARP monitoring propose
BFD_USUAL, BFD_SHORTEST = 300, 10  # milliseconds: FRR's default, and the least that it takes
REST = 10.0  # seconds over which processor time is taken
RUN_LIMIT, TRIAL_LIMIT = 25.0, 1200.0  # seconds: of one run, of all trials for stability
RESULT = "outage.json"


class Fault(StrEnum):
    """What befalls the preferred NIC."""

    CABLE = "cable pulled"
    SILENT = "frames dropped, carrier up"


class Contender(Protocol):
    """Whatever moves the traffic to the NIC in reserve and back, while its context is open."""

    def __enter__(self) -> Self:
        """Wait until it is in service."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the host as it was."""

    def active(self) -> str:
        """The NIC that carries the traffic."""

    def failures(self) -> int:
        """How often it gave a NIC up."""

    def pids(self) -> tuple[list[int], list[int]]:
        """Its processes on the host, and on other machines."""


@dataclass(frozen=True)
class Outage:
    """What a user saw of one move: pings lost, and seconds without an answered ping and without stream data."""

    lost: int
    gap: float
    stream: float


@dataclass(frozen=True)
class Setting:
    """One contender in one configuration; `make` gives it for a lab, as a context manager."""

    name: str
    make: Callable[[Lab], Contender]
    life: int = 10  # failures before it begins anew
    returns: bool = True  # to the preferred NIC
    addresses: Mapping[str, str] = field(default_factory=lambda: ADDRESSES)


class Ipmp:
    """Our agent, with the second NIC as a standby or as good as the first."""

    def __init__(self, lab: Lab, milliseconds: int, standby: tuple[str, ...]) -> None:
        self.host = lab.host
        spec = {"standby": standby, "addresses": tuple(ADDRESSES.values()), "milliseconds": milliseconds}
        self.agent = Agent(lab, usual_group(lab, **spec))

    def __enter__(self) -> Self:
        self.agent.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.agent.__exit__(kind, error, trace)

    def active(self) -> str:
        """The NIC that holds both addresses."""
        homes = {tuple(self.host.holders(address)) for address in ADDRESSES.values()}
        return homes.pop()[0] if len(homes) == 1 and all(homes) else ""

    def failures(self) -> int:
        """How often it gave a NIC up."""
        return failures(self.agent)

    def pids(self) -> tuple[list[int], list[int]]:
        """The agent."""
        return [self.agent.process.pid] if self.agent.process else [], []


def ipmp(milliseconds: int, *, both: bool = False) -> Setting:
    """Our agent with this failure detection time.

    One failure a life, since failback may not move an address often; none where both NICs are in use, since an address
    is as well off on the other.
    """
    standby = () if both else (RESERVE,)
    name = f"IPMP, {'both in use' if both else 'standby'}, FDT {milliseconds}"
    return Setting(name, lambda lab: Ipmp(lab, milliseconds, standby), life=1, returns=not both)


def bond(monitor: str) -> Setting:
    """A bond with this monitoring."""
    name = " ".join(monitor.split()[:2])  # without the targets
    return Setting(f"bonding, {name}", lambda lab: bonding.Bond(lab.host, tuple(ADDRESSES.values()), monitor))


def arp_bond(milliseconds: int) -> Setting:
    """A bond that asks by ARP at this interval."""
    return bond(bonding.arp(milliseconds, TARGETS))


def team(name: str, watch: dict[str, Any], **options: Any) -> Setting:
    """A team with this link watch."""
    return Setting(f"teamd, {name}", lambda lab: teamd.Team(lab.host, tuple(ADDRESSES.values()), watch, **options))


def arp_team(milliseconds: int, missed: int) -> Setting:
    """A team that asks by ARP at this interval."""
    watch = teamd.arp_ping(milliseconds, missed, source=ADDRESSES["IPv4"].partition("/")[0], target=TARGETS[0])
    return team(f"arp_ping {milliseconds} x {missed}", watch, **teamd.REPEATED)


def bgp(milliseconds: int) -> Setting:
    """BGP with BFD at this interval; three without a word are a failure."""
    name = f"BGP, BFD 3 x {milliseconds}"
    return Setting(name, lambda lab: Bgp(lab, tuple(ROUTED.values()), milliseconds), addresses=ROUTED)


class Meters:
    """The neighbour's pings to one address, and its stream to the same."""

    def __init__(self, lab: Lab, address: str) -> None:
        neighbour = lab.peer(0).namespace
        self.train = PingTrain(neighbour, address, SPACING)
        self._stream = partial(TcpStream, neighbour, lab.host.namespace, address)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.train)
            # Connecting needs service.
            self.train.wait_answered(SETTLED, deadline=PATIENCE)
            self.stream = stack.enter_context(self._stream())
            self.wait_calm()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def wait_calm(self) -> float:
        """Wait until the stream flows and no ping was lost for a while; returns until when all is accounted for."""
        self.train.wait_answered(SETTLED, deadline=PATIENCE)
        self.stream.wait_received(deadline=PATIENCE)
        since = time.monotonic()

        def calm() -> bool:
            now = time.monotonic()
            # The latest pings may still be on their way.
            seen = self.train.report().between(now - 2 * CALM, now - CALM)
            return now - 2 * CALM >= since and not seen.lost

        wait_for(calm, deadline=PATIENCE, what="calm", interval=CALM / 2)
        self.stream.wait_received(deadline=PATIENCE)
        return time.monotonic() - CALM

    def watch(self, happen: Callable[[], object], done: Callable[[], bool] | None = None) -> Outage:
        """Let something happen, wait until it is over, and tell what was seen of it."""
        # A ping just before it may die on the way.
        start = time.monotonic() - 2 * SPACING
        happen()
        if done:
            wait_for(done, deadline=PATIENCE, what="the preferred NIC active", interval=LOOK)
        end = self.wait_calm()
        pings, stream = self.train.report().between(start, end), self.stream.report()
        if stream.error:
            raise AssertionError(f"the stream broke: {stream.error}")
        return Outage(pings.lost, pings.longest_outage, stream.between(start, end).longest_gap)


@contextmanager
def in_service(setting: Setting) -> Iterator[tuple[Lab, Contender]]:
    """A fresh lab whose host is served by this contender, on the preferred NIC."""
    with Lab((PREFERRED, RESERVE)) as lab, setting.make(lab) as contender:
        wait_for(contender.active, lambda nic: nic == PREFERRED, deadline=PATIENCE, interval=LOOK)
        yield lab, contender


def life(
    setting: Setting, fault: Fault, address: str, times: int, generator: random.Random
) -> list[tuple[Outage, Outage]]:
    """Let the preferred NIC fail and come back in a fresh lab; returns what was seen of each."""
    seen = []
    with in_service(setting) as (lab, contender):
        nic = lab.host.nic(PREFERRED)
        fail, mend = (nic.unplug, nic.plug) if fault is Fault.CABLE else (nic.silence, nic.restore)
        with Meters(lab, address) as meters:
            for _ in range(times):
                pause(generator)
                failed = meters.watch(fail)
                pause(generator)
                done = (lambda: contender.active() == PREFERRED) if setting.returns else None
                seen.append((failed, meters.watch(mend, done)))
    return seen


def measure(setting: Setting, fault: Fault, runs: int, generator: random.Random) -> Iterator[Line]:
    """As many lives as it takes, the two families in turn; yields the lines of the table."""
    seen: dict[str, list[tuple[Outage, Outage]]] = {family: [] for family in ADDRESSES}
    while any(len(found) < runs for found in seen.values()):
        for family, found in seen.items():
            times = min(setting.life, runs - len(found))
            found.extend(life(setting, fault, setting.addresses[family].partition("/")[0], times, generator))
        print(f"{setting.name}, {fault}: {len(found)} of {runs} in either family", flush=True)
    for family, found in seen.items():
        yield Line(fault, setting.name, family, "fails", [failed for failed, _ in found])
        yield Line(fault, setting.name, family, "comes back", [back for _, back in found])


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    fault: Fault
    setting: str
    family: str
    event: str
    outages: list[Outage]

    @property
    def mean_lost(self) -> float:
        """Pings lost in the mean: what the ratio is made of."""
        return sum(one.lost for one in self.outages) / len(self.outages)

    def text(self, base: Line) -> str:
        """The line; the ratio is to this one."""
        words = [f"{self.setting:<30} {self.family} {len(self.outages):>4}"]
        for scale, values in (
            (1, [float(one.lost) for one in self.outages]),
            (1e3, [one.gap for one in self.outages]),
            (1e3, [one.stream for one in self.outages]),
        ):
            words += [
                f"{value * scale:>7.0f}" for value in (percentile(values, 50), percentile(values, 99), max(values))
            ]
        words.append(f"{self.mean_lost / base.mean_lost:>8.3f}" if base.mean_lost else f"{'-':>8}")
        return " ".join(words)


@dataclass(frozen=True)
class Cost:
    """Processor time at rest, in percent of a core: on the host, and on the routers that it needs."""

    setting: str
    host: float
    elsewhere: float

    def text(self) -> str:
        """Its line."""
        return f"{self.setting:<30} {self.host:>8.2f} {self.elsewhere:>10.2f}"


def cost(setting: Setting, seconds: float) -> Cost:
    """Let it rest in service for a while; returns what that took."""
    with in_service(setting) as (_, contender):
        before = [processor_seconds(pids) for pids in contender.pids()]
        time.sleep(seconds)
        after = [processor_seconds(pids) for pids in contender.pids()]
    return Cost(setting.name, *(100 * (b - a) / seconds for a, b in zip(before, after, strict=True)))


def fastest_stable(make: Callable[[int], Setting], lowest: int = 0) -> int:
    """Return the shortest time at which no NIC is given up on a busy machine."""
    for milliseconds in (one for one in CANDIDATES if one >= lowest):
        setting = make(milliseconds)
        try:
            with in_service(setting) as (_, contender):
                before = contender.failures()
                with busy_machine():
                    time.sleep(STABLE_FOR)
                failed = contender.failures() - before
        except NotInTimeError as error:
            print(f"{setting.name}: never in service: {error}", flush=True)
            continue
        print(f"{setting.name}: {failed} false failures in {STABLE_FOR:g} s on a busy machine", flush=True)
        if not failed:
            return milliseconds
    return CANDIDATES[-1]


def settings(only: Fault | None, wanted: re.Pattern[str], *, trials: bool) -> Iterator[tuple[Fault, Setting]]:
    """Every contender for every fault, one after the other; the first of a fault is what the ratios are to."""

    def fastest(make: Callable[[int], Setting], lowest: int = 0) -> Setting:
        tried = trials and wanted.search(make(UNTRIED).name)
        return make(fastest_stable(make, lowest) if tried else UNTRIED)

    def cable() -> Iterator[Setting]:
        yield bond(bonding.mii(100))
        yield bond(bonding.mii(10))
        yield team("ethtool", teamd.ETHTOOL)
        yield team("ethtool, repeated", teamd.ETHTOOL, **teamd.REPEATED)
        yield bgp(BFD_USUAL)
        yield ipmp(1000, both=True)
        yield ipmp(1000)

    def silent() -> Iterator[Setting]:
        yield arp_bond(ARP_USUAL)
        yield fastest(arp_bond)
        yield arp_team(100, 30)
        yield fastest(lambda milliseconds: arp_team(milliseconds, 3))
        yield bgp(BFD_USUAL)
        fast = fastest(bgp)
        yield fast
        if fast.name != bgp(BFD_SHORTEST).name:
            yield bgp(BFD_SHORTEST)
        yield ipmp(1000)
        yield fastest(ipmp, SHORTEST_DETECTION_TIME)

    for fault, contenders in ((Fault.CABLE, cable), (Fault.SILENT, silent)):
        if only in (None, fault):
            yield from ((fault, setting) for setting in contenders() if wanted.search(setting.name))


def table(found: list[Line]) -> str:
    """The table, a part for each thing that happens."""
    text: list[str] = []
    for fault, event in dict.fromkeys((line.fault, line.event) for line in found):
        chosen = [line for line in found if (line.fault, line.event) == (fault, event)]
        first = {line.family: line for line in reversed(chosen)}
        ranks = f"{'p50':>7} {'p99':>7} {'worst':>7}"
        text += [
            f"\n{fault}; the NIC {event}",
            f"{'':<40} {'pings lost':>23} {'longest ping gap, ms':>23} {'longest TCP gap, ms':>23} {'lost, to':>8}",
            f"{'':<35} {'runs':>4} {ranks} {ranks} {ranks} {'first':>8}",
            *(line.text(first[line.family]) for line in chosen),
        ]
    return "\n".join(text)


def elsewhere(arguments: argparse.Namespace) -> int:
    """Do it under the user-mode kernel; what it writes comes back."""
    with tempfile.TemporaryDirectory(prefix="ipmp-outage-") as name:
        words = [sys.executable, str(Path(__file__)), "--here", "--json", str(uml.SHARE / RESULT)]
        words += ["--runs", str(arguments.runs)]
        words += ["--seed", str(arguments.seed)] if arguments.seed is not None else []
        words += ["--only", arguments.only] if arguments.only else []
        words += ["--contenders", arguments.contenders.pattern]
        words += ["--short"] if arguments.short else []
        print(f"outside: Linux {platform.release()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}", flush=True)
        code = uml.run(words, TRIAL_LIMIT + 20 * arguments.runs * RUN_LIMIT, share=Path(name))
        print(f"outside: load {os.getloadavg()[0]:.2f}", flush=True)
        if code == 0 and arguments.json:
            shutil.copyfile(Path(name, RESULT), arguments.json)
    return code


def main() -> int:
    """Run it, here or there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="failures of each kind and family (default %(default)d)")
    parser.add_argument("--only", choices=[fault.name.lower() for fault in Fault], help="one kind of failure alone")
    parser.add_argument(
        "--contenders", type=re.compile, default=".", metavar="RE", help="those alone whose names match"
    )
    parser.add_argument("--seed", type=int, default=None, help="seed of the pauses between failures (default: random)")
    parser.add_argument("--short", action="store_true", help="one run of each, no trials: does it work, not how well")
    parser.add_argument("--here", action="store_true", help="on this kernel, which must have bonding and team")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every outage to this file")
    arguments = parser.parse_args()
    wanted = ("ip", "nft", "teamd", "teamdctl", *(() if arguments.here else uml.PROGRAMS))
    missing = [name for name in wanted if not shutil.which(name)]
    if missing or os.geteuid() != 0 or arguments.runs < 1:
        parser.error(f"needs root, at least one run, and on the PATH: {', '.join(missing) or 'nothing more'}")
    if not arguments.here:
        return elsewhere(arguments)
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"seed {seed}; Linux {platform.release()}, {os.cpu_count()} cores", flush=True)
    only = Fault[arguments.only.upper()] if arguments.only else None
    runs = 1 if arguments.short else arguments.runs
    found: list[Line] = []
    costs: dict[str, Cost] = {}
    generator = random.Random(seed)
    for fault, setting in settings(only, arguments.contenders, trials=not arguments.short):
        try:
            for line in measure(setting, fault, runs, generator):
                found.append(line)
                lost = [one.lost for one in line.outages]
                print(f"  {line.family}, the NIC {line.event}: pings lost {lost}", flush=True)
            if setting.name not in costs:
                costs[setting.name] = cost(setting, 1.0 if arguments.short else REST)
        except NotInTimeError as error:
            print(f"{setting.name}, {fault}: given up: {error}", flush=True)
    print(table(found))
    print(f"\n{'% of a core at rest':<30} {'host':>8} {'elsewhere':>10}")
    print("\n".join(one.text() for one in costs.values()))
    print(f"pings every {SPACING * 1e3:g} ms, stream data every 5 ms; the ratio is of pings lost in the mean")
    if arguments.json:
        told = {"outages": [asdict(line) for line in found], "costs": [asdict(one) for one in costs.values()]}
        arguments.json.write_text(json.dumps(told), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
