"""What a history runs in: a lab, one host or two with an agent each, the faults that last, and the look after each."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml

from ipmp_agent.commands.client import UnreachableError
from tests import invariants
from tests.chaos.kinds import NothingToDoError
from tests.invariants import ViolatedError
from tests.lab import Agent, Lab, group_manifest, wait_for
from tests.lab.dump import KernelDump
from tests.lab.filters import Direction, PortFilter
from tests.lab.scene import link_local
from tests.lab.status import group_status, group_view
from tests.lab.waiting import NotInTimeError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Collection

    from tests.lab.topology import Host, Nic, Switch

    Moved = dict[str, Any]

LAUNCH = Path(__file__).with_name("launch.py")
OWN = ("198.18.0.11/24", "2001:db8:0:1::11/64")
"""What the first host has itself on its first NIC; a group adopts it."""
ROUTES = ("default via 198.18.0.1 dev nic0 proto static metric 100",)
UNFORCED = {"Failback", "Rebalance"}
AT_MOST = 4
"""Faults that last at the same time; the oldest is mended before there are more."""
WELL = 180.0
"""Seconds until a host is well again after all is mended: the repair of a cable that flapped takes a minute."""
DETECTIONS = 6
"""Failure detection times that a silent NIC may stay in use: it is raised, twofold at a time, while all lose probes."""
WORKERS = min(32, (os.cpu_count() or 1) + 4)
"""Threads that asyncio starts one by one, when there is something to wait for, and keeps."""
EVERYTHING = PortFilter(drop=frozenset(Direction))


@dataclass(frozen=True)
class Shape:
    """Which hosts there are, and who else is on their link."""

    hosts: tuple[str, ...]
    nics: tuple[str, ...] = ("nic0", "nic1")
    standby: tuple[str, ...] = ()
    peers: int = 2
    adoption: str = "Start"


SHAPES = {
    "one": Shape(("left",), ("nic0", "nic1", "nic2"), ("nic2",), adoption="Always"),
    "two": Shape(("left", "right")),
    "twins": Shape(("left", "right"), peers=0),
}
"""One host with a standby; two hosts that probe peers and each other; two that have nobody but each other."""


class TriedAgent(Agent):
    """An agent whose wall clock can be set, and that can be run from the source tree of another release."""

    FIRST_ANSWER = 120.0  # whatever else is done to the host

    tree: Path | None = None

    @property
    def argv(self) -> list[str]:
        """The command line."""
        clock = self.directory / "clock"
        if not clock.exists():
            self.set_clock(0.0)
        tree = str(self.tree) if self.tree else ""
        return [sys.executable, "-P", str(LAUNCH), str(clock), tree, *super().argv[1:]]

    def set_clock(self, seconds: float) -> None:
        """Set its wall clock so many seconds before (-) or after the right time."""
        # In place: the agent has it mapped.
        with os.fdopen(os.open(self.directory / "clock", os.O_WRONLY | os.O_CREAT), "wb") as clock:
            clock.write(struct.pack("<d", seconds))


@dataclass
class Side:
    """One host under test: its number, its agent, and how far its log has been read."""

    number: int
    host: Host
    agent: TriedAgent
    manifest: dict[str, Any]
    read: int = 0
    settled: list[Moved] | None = None
    """What it had moved at the last rest, if nothing but harmless faults came since."""
    guests: set[str] = field(default_factory=set)
    """Addresses that their owner took away, and takes away once more when all is well.

    One that goes from a NIC without a link is put back: see docs/design/0014-whose-address.md.
    """

    @property
    def moves(self) -> list[Moved]:
        """What the agent says that it moved from one member to another, as far back as it knows."""
        history: list[Moved] = self.agent.status()["groups"][0]["history"]
        return [one for one in history if one["source"] and one["destination"] and one["source"] != one["destination"]]

    @property
    def nics(self) -> list[Nic]:
        """Its NICs."""
        return list(self.host.nics.values())

    def forget(self, addresses: Collection[str]) -> None:
        """Take single host addresses away wherever they are, until there is none.

        The agent may have moved them, and may do so now; what is swept away in a crowd may be put back at first.
        """

        def gone() -> bool:
            # One that moves while interfaces are looked at one after the other is seen on none of them.
            return self.sweep(addresses) and self.sweep(addresses)

        wait_for(gone, what="an owner's addresses to be gone", deadline=30, interval=0.2)

    def sweep(self, addresses: Collection[str]) -> bool:
        """Take single host addresses off every interface; returns whether there was none."""
        links = self.host.namespace.ip_json("address")
        found = [(one["local"], link["ifname"]) for link in links for one in link["addr_info"]]
        lines = [f"address del {one}/32 dev {name}" for one, name in found if one in addresses]
        self.host.namespace.run("ip", "-force", "-batch", "-", text="\n".join(lines), check=False)
        return not lines

    def changed(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Give the agent a manifest that differs from the usual one by `change`, which gets the spec."""
        document: dict[str, Any] = yaml.safe_load(yaml.safe_dump(self.manifest))
        change(document["spec"])
        self.agent.write(document)
        self.agent.reload()


@dataclass(frozen=True)
class Lasting:
    """A fault that stays until it is mended.

    Args:
        down: ports that have no carrier.
        filters: what ports do to frames.
        dead: (side, NIC) that cannot work meanwhile.
        absent: (side, NIC) that are not on the host.
        mend: what else ends the fault.
    """

    down: frozenset[tuple[str, str]] = frozenset()
    filters: tuple[tuple[str, str, PortFilter], ...] = ()
    dead: frozenset[tuple[int, str]] = frozenset()
    absent: frozenset[tuple[int, str]] = frozenset()
    mend: Callable[[], None] | None = None


@dataclass
class World:
    """A context manager: the hosts are made, and their agents run until they are well.

    Args:
        shape: one of SHAPES.
        old: the source tree of another release, for the faults that change the release.
        patience: seconds that a host may take to agree with itself after a fault.
        milliseconds: failure detection time.
    """

    shape: str = "two"
    old: Path | None = None
    patience: float = 30.0
    milliseconds: int = 500
    sides: list[Side] = field(default_factory=list)
    lasting: dict[str, Lasting] = field(default_factory=dict)

    def __enter__(self) -> Self:
        shape = SHAPES[self.shape]
        with contextlib.ExitStack() as stack:
            self.lab = Lab(
                shape.nics,
                hosts=shape.hosts,
                peers=shape.peers,
                router=bool(shape.peers),
                nic_addresses={"nic0": OWN},
            )
            stack.enter_context(self.lab)
            self.stack = stack.enter_context(contextlib.ExitStack())
            if shape.peers:
                self.lay_routes()
            self.before = [KernelDump.take(host.namespace.run) for host in map(self.lab.hosts.get, shape.hosts) if host]
            for number, name in enumerate(shape.hosts):
                host = self.lab.hosts[name]
                agent = TriedAgent(self.lab, self._manifest(number), host=host, node_name=name)
                self._own_disk(agent, stack)
                stack.enter_context(agent)
                self.sides.append(Side(number, host, agent, self._manifest(number)))
            self.rest()
            self.sizes = [size(side.agent.running.pid) for side in self.sides]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(Exception):
            self.mend_all()
        self._stack.close()

    def _manifest(self, number: int) -> dict[str, Any]:
        shape = SHAPES[self.shape]
        name = shape.hosts[number]
        peers = [self.lab.peer(i) for i in range(shape.peers)]
        targets = [peer.ipv4 for peer in peers] + [link_local(peer.only) for peer in peers]
        for other in range(len(shape.hosts)):
            if other != number:
                targets += [address.partition("/")[0] for address in data_addresses(other)]
        low = 32 + 32 * number
        pool = {"ranges": [f"198.18.0.{low}-198.18.0.{low + 31}"], "prefixLength": 24}
        return group_manifest(
            interfaces=shape.nics,
            standby=shape.standby,
            targets=targets,
            milliseconds=self.milliseconds,
            dataAddresses={
                "assigned": [{"nodeName": name, "addresses": list(data_addresses(number))}],
                "adoption": {"when": shape.adoption},
            },
            testAddresses={"ipv4": {"pool": pool}},
        )

    @staticmethod
    def _own_disk(agent: Agent, stack: contextlib.ExitStack) -> None:
        """Give the state a file system of its own, which can be full."""
        where = str(agent.state_directory)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", where], check=True)
        stack.callback(subprocess.run, ["umount", "--lazy", where], check=False)

    def lay_routes(self) -> None:
        """Lay the first host's own routes, where they are missing and can be laid."""
        for route in self.own_routes(0):
            self.lab.host.namespace.run("ip", "route", "add", *route.split(), check=False)

    def own_routes(self, number: int) -> tuple[str, ...]:
        """Return the routes that the host of this number has itself."""
        return ROUTES if number == 0 and SHAPES[self.shape].peers else ()

    # -- faults that last ----------------------------------------------------------------------------------------

    def side(self, number: int) -> Side:
        """Return a host under test, whatever the number."""
        return self.sides[number % len(self.sides)]

    def last(self, key: str, fault: Lasting) -> None:
        """Let a fault last, in place of one with the same key."""
        self.mend(key)
        self.lasting[key] = fault
        while len(self.lasting) > AT_MOST:
            self.mend(next(iter(self.lasting)))
        self.wires()

    def mend(self, key: str) -> None:
        """End a fault that lasts; nothing happens if there is none."""
        fault = self.lasting.pop(key, None)
        if fault is not None:
            if fault.mend is not None:
                fault.mend()
            self.wires()

    def mend_all(self) -> None:
        """End every fault, the newest first."""
        for key in reversed(list(self.lasting)):
            self.mend(key)

    def present(self, side: Side, nic: Nic) -> bool:
        """Whether a NIC is on its host, under its own name."""
        key = (side.number, key_of(side, nic))
        return not any(key in fault.absent for fault in self.lasting.values())

    def require(self, side: Side, nic: Nic) -> None:
        """Demand that a NIC is on its host.

        Raises:
            NothingToDoError: it is not.
        """
        if not self.present(side, nic):
            raise NothingToDoError

    def present_nic(self, side: Side, chance: random.Random) -> Nic:
        """Draw a NIC of a host that is there.

        Raises:
            NothingToDoError: it is not.
        """
        nic = chance.choice(side.nics)
        self.require(side, nic)
        return nic

    def linked(self, side: Side, nic: Nic) -> bool:
        """Whether a NIC is on its host, up, and has a carrier."""
        key, end = (side.number, key_of(side, nic)), (nic.switch.name, nic.port)
        return not any(key in fault.dead or end in fault.down for fault in self.lasting.values())

    def wires(self) -> None:
        """Bring cables and filters into the state that the lasting faults together ask for."""
        for switch in self.lab.switches:
            ports = {nic.port for host in self.lab.hosts.values() for nic in host.nics.values() if nic.switch is switch}
            ports |= {uplink.port for uplink in self.lab.uplinks if switch in (uplink.near, uplink.far)}
            down = {port for fault in self.lasting.values() for where, port in fault.down if where == switch.name}
            for port in ports:
                # The port of a NIC that was taken out is gone with it.
                with contextlib.suppress(OSError):
                    switch.set_ports([port], up=port not in down)
            self._filter(switch, ports)

    def _filter(self, switch: Switch, ports: Collection[str]) -> None:
        filters = dict.fromkeys(ports, PortFilter())
        for fault in self.lasting.values():
            for where, port, wanted in fault.filters:
                if where == switch.name and filters[port] != EVERYTHING:
                    filters[port] = wanted
        if filters != {port: switch.filters.get(port, PortFilter()) for port in ports}:
            switch.set_filters(filters)

    # -- looking -------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Wait until what must hold after every fault holds.

        Raises:
            ViolatedError: it does not within the patience; says what, and where.
        """
        for side in self.sides:
            self._await(side, self.look, max(self.patience, DETECTIONS * self._detection_time(side)))
            self._log(side)
            self._calm(side)

    @staticmethod
    def _detection_time(side: Side) -> float:
        """Return the failure detection time in force, seconds, or 0 if nobody says it."""
        try:
            return float(group_status(side.agent.status())["detection_time"])
        except (UnreachableError, OSError, KeyError, AssertionError):
            return 0.0

    def rest(self) -> None:
        """Mend everything, and wait until every host is well and at home.

        Raises:
            ViolatedError: one is not.
        """
        self.mend_all()
        self.lay_routes()
        for side in self.sides:
            side.agent.write(side.manifest)
            side.agent.reload()
        for side in self.sides:
            self._await(side, self._unwell, WELL)
            self._log(side)
        for side in self.sides:
            side.forget(side.guests)
            side.guests.clear()
            self._await(side, self._unwell, WELL)
        for side in self.sides:
            side.settled = side.moves

    def disturb(self) -> None:
        """From here on things may move, on every host: they probe each other."""
        for side in self.sides:
            side.settled = None

    def end(self) -> None:
        """Stop the agents, and demand that every host is as it was found and no agent has grown.

        Raises:
            ViolatedError: one is not, or has.
        """
        self.rest()
        for side, before in zip(self.sides, self.sizes, strict=True):
            grown = before.grown(size(side.agent.running.pid))
            if grown:
                raise ViolatedError(f"growth: {side.host.name}: {grown}")
        for side, before_dump in zip(self.sides, self.before, strict=True):
            code = side.agent.stop()
            if code:
                raise ViolatedError(f"I7: {side.host.name}: the agent ended with code {code}")
            done = side.agent.withdraw()
            if done.returncode or "Traceback" in done.stderr:
                raise ViolatedError(f"I5: {side.host.name}: withdraw: code {done.returncode}: {done.stderr}")
            invariants.as_it_was_found(before_dump, side.agent.dump())

    def _await(self, side: Side, look: Callable[[Side], str], patience: float) -> None:
        """Look until there is nothing to complain of."""
        try:
            wait_for(lambda: look(side), lambda complaint: not complaint, deadline=patience, interval=0.05)
        except NotInTimeError as late:
            last = str(late).partition("last seen: ")[2]
            raise ViolatedError(f"{last} ({side.host.name}, for {patience:.0f} s)") from late

    def look(self, side: Side) -> str:
        """Say what does not hold on a host at this moment: I1, I3, I6, and that no dead NIC is used."""
        code = side.agent.running.poll()
        if code is not None:
            return f"I7: the agent ended with code {code}"
        try:
            status = side.agent.status()
            view, kernel = group_view(status), addresses_of(side.host)
            if not view.usable:
                # What is new, or was on a NIC that is gone, has no place while no other has a link.
                homed = {a: home for a, home in view.addresses.items() if home or kernel.holders(a)}
                view = replace(view, addresses=homed)
            invariants.settled(view, kernel)
            dead = {key for fault in self.lasting.values() for number, key in fault.dead if number == side.number}
            used = [
                one["interface"]
                for one in group_status(status)["interfaces"]
                if one["interface"] in dead and one["usable"] and view.usable - {one["name"]}
            ]
        except (ViolatedError, UnreachableError) as found:
            return str(found)
        except (ConnectionError, TimeoutError, KeyError, AssertionError) as found:
            return f"I6: no status: {found!r}"
        return f"I1: {used} cannot work and are called usable" if used else ""

    def _unwell(self, side: Side) -> str:
        """Say what is not well on a host that nothing ails."""
        if complaint := self.look(side):
            return complaint
        status = side.agent.status()
        view = group_view(status)
        wanted = {address.partition("/")[0] for address in data_addresses(side.number)}
        if SHAPES[self.shape].adoption == "Always":
            wanted |= {address.partition("/")[0] for address in OWN}
        lost = [one for one in OWN if side.number == 0 and len(side.host.holders(one)) != 1]
        if lost:
            return f"I5: {lost} of the host's own are not there, or twice"
        if view.state != "ok":
            return f"not well: {view}"
        if missing := wanted - view.addresses.keys():
            told = [one for one in group_status(status)["addresses"] if one["refusal"]]
            return f"I1: {sorted(missing)} are not served: {told} {status['groups'][0]['not_adopted']}"
        return ""

    def _log(self, side: Side) -> None:
        """I7, in what the log says since the last look."""
        with side.agent.log_path.open("rb") as log:
            log.seek(side.read)
            text = log.read()
        side.read += len(text)
        invariants.no_unhandled_exception(text.decode(errors="replace"))

    def _calm(self, side: Side) -> None:
        """I2 and I4, in what the agent says that it moved."""
        moves = side.moves
        if side.settled is not None:
            known = [(one["time"], one["addresses"]) for one in side.settled]  # a release writes what it knows of them
            new = [one for one in moves if (one["time"], one["addresses"]) not in known]
            forced = [one for one in new if one["reason"] not in UNFORCED]
            if forced:
                raise ViolatedError(f"I2: {side.host.name}: moved though nothing broke: {forced}")
        times: dict[str, list[float]] = {}
        unforced: dict[str, list[float]] = {}
        for one in moves:
            for address in one["addresses"]:
                times.setdefault(address, []).append(one["time"])
                if one["reason"] in UNFORCED:
                    unforced.setdefault(address, []).append(one["time"])
        invariants.budget_kept(times, unforced)


@dataclass(frozen=True)
class Size:
    """What a process holds: resident bytes, descriptors, threads."""

    resident: int
    descriptors: int
    threads: int

    def grown(self, other: Size) -> str:
        """Say what is more in `other` than a life of faults explains."""
        found = []
        if other.resident > 1.25 * self.resident + 16 * 2**20:
            found.append(f"{self.resident >> 20} -> {other.resident >> 20} MiB resident")
        # Reporting, a client that is there at this moment: some come and go.
        if other.descriptors > self.descriptors + 4:
            found.append(f"{self.descriptors} -> {other.descriptors} descriptors")
        if other.threads > self.threads + WORKERS + 2:
            found.append(f"{self.threads} -> {other.threads} threads")
        return ", ".join(found)


def size(pid: int) -> Size:
    """Measure a process."""
    process = Path(f"/proc/{pid}")
    resident = int(process.joinpath("statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return Size(resident, *(sum(1 for _ in (process / each).iterdir()) for each in ("fd", "task")))


def data_addresses(number: int) -> tuple[str, ...]:
    """Return the data addresses of the host of this number."""
    return tuple(
        form.format(100 + 10 * number + i) for form in ("198.18.0.{}/24", "2001:db8:0:1::{}/64") for i in range(2)
    )


def addresses_of(host: Host) -> KernelDump:
    """Dump the addresses alone, for one program instead of eight."""
    links = host.namespace.ip_json("address", "show")
    found = [{"dev": link["ifname"], **one} for link in links for one in link.get("addr_info", [])]
    return KernelDump(tuple(json.dumps(one) for one in found), (), (), (), (), "")


def key_of(side: Side, nic: Nic) -> str:
    """Return the name that a NIC was made with."""
    return next(key for key, one in side.host.nics.items() if one is nic)
