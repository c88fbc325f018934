"""The core on a virtual node: a clock that jumps, interfaces and targets that break, a kernel that obeys.

What the simulator does for people this does for tests: no script, every fault by hand, and after every step the
question whether all that must hold still holds.
"""

from __future__ import annotations

import heapq
import random
from collections import defaultdict
from ipaddress import IPv4Interface, IPv6Address, ip_address, ip_interface
from itertools import count
from math import inf
from typing import TYPE_CHECKING

from ipmp_agent.core import events
from ipmp_agent.core.actions import InterfaceVerdict, Move, MoveAddresses, Notify, ProbeClosed, SendProbe
from ipmp_agent.core.events import Family, ProbeKind
from ipmp_agent.core.multipathing import Multipathing
from ipmp_agent.core.words import GroupState
from ipmp_agent.simulate.network import Network
from ipmp_agent.simulate.script import PlayedTarget
from ipmp_api.types import (
    DataAddress,
    FailureDetection,
    InterfaceMatch,
    Member,
    NodeGroup,
    Role,
    Switch,
    TargetSources,
)
from tests.node_groups import node_group

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from ipmp_agent.core.actions import Action
    from ipmp_agent.core.reasons import Reason
    from ipmp_agent.core.snapshot import GroupSnapshot, InterfaceSnapshot
    from ipmp_api.types import Address, InterfaceAddress

TARGET = "198.18.0.1"
"""The target of a group that names none."""

_TICKS_AT_ONE_MOMENT = 10


def numbered_group(
    active: int = 2,
    standby: int = 0,
    *,
    addresses: int = 2,
    pins: Sequence[str] = (TARGET,),
    detection_time: float = 1.0,
    adaptive: bool = True,
    failback: bool = True,
    discovery: bool = False,
    test_addresses: Sequence[str] = (),
    offline: Sequence[str] = (),
    **policies: Any,
) -> NodeGroup:
    """A group of nic0, nic1, ..., the active ones first, with data addresses 198.18.1.1/32, 198.18.1.2/32, ...

    Times in seconds. `test_addresses` are the IPv4 test addresses of the first members.
    """
    roles = [Role.ACTIVE] * active + [Role.STANDBY] * standby
    tested = {n: IPv4Interface(address) for n, address in enumerate(test_addresses)}
    return node_group(
        "group",
        [Member(InterfaceMatch(name=f"nic{n}"), role, tested.get(n)) for n, role in enumerate(roles)],
        node="node",
        addresses=[data_address(n).address for n in range(1, addresses + 1)],
        targets=TargetSources(
            discovery=Switch.ENABLED if discovery else Switch.DISABLED,
            addresses=tuple(ip_address(pin) for pin in pins),
        ),
        offline=offline,
        failure_detection=FailureDetection(
            round(detection_time * 1000), Switch.ENABLED if adaptive else Switch.DISABLED
        ),
        failback=Switch.ENABLED if failback else Switch.DISABLED,
        **policies,
    )


def data_address(number: int) -> DataAddress:
    """The nth data address of `node_group`."""
    return DataAddress(ip_interface(f"198.18.1.{number}/32"))


def mac(number: int) -> str:
    """The MAC address of the nth interface."""
    return f"02:00:00:00:00:{number:02x}"


class VirtualNode:
    """One group on a virtual node.

    Args:
        configuration: what the agent obeys; interfaces are those of its members, plus `spares` more.
        seed: of the jitter and of the network's losses.
        latency: round trip to every target, seconds.
        hosts: systems that answer only what is sent to all hosts, and probes afterwards.
        link_local: whether the interfaces have an IPv6 link-local address.
    """

    def __init__(
        self,
        configuration: NodeGroup,
        *,
        seed: int = 0,
        latency: float = 0.0002,
        hosts: Sequence[str] = (),
        routers: Sequence[str] = (),
        link_local: bool = False,
    ) -> None:
        self.configuration = configuration
        self.now = 0.0
        self.random = random.Random(f"node {seed}")
        self.seed = seed
        self.core = Multipathing(configuration, seed=seed)
        targets = [PlayedTarget(address, latency) for address in configuration.policies.targets.addresses]
        targets += [PlayedTarget(address, latency) for address in configuration.peers]
        targets += [PlayedTarget(ip_address(host), latency, discoverable=True) for host in hosts]
        targets += [PlayedTarget(ip_address(router), latency, router=True) for router in routers]
        self.routers = tuple(ip_address(router) for router in routers)
        macs = {member.key: mac(n) for n, member in enumerate(configuration.members)}
        self.network = Network(macs, targets, self.random)
        self.link_local = link_local
        self.kernel: dict[InterfaceAddress, set[str]] = defaultdict(set)  # who has an address, whatever the core thinks
        self.moves: list[tuple[float, Move]] = []
        self.notices: list[tuple[float, Notify]] = []
        self.verdicts: list[tuple[float, InterfaceVerdict]] = []
        self.closed: list[tuple[float, ProbeClosed]] = []
        self.sent: list[tuple[float, SendProbe]] = []
        self.remember_probes = False  # keep `sent` and `closed`
        self.lateness: Callable[[], float] | None = None  # how late each tick comes, seconds
        self.copies = 1  # of every reply
        self.delay: Callable[[SendProbe], float] | None = None  # of a reply, beyond the latency, seconds
        self.reaches: Callable[[str, Address], bool] | None = None  # whether an interface reaches a target
        self.refuse_to_send: int | None = None  # errno
        self.inbox_limit: int | None = None  # replies that the sockets hold while the agent sleeps
        self._inbox: list[tuple[float, events.Event]] = []
        self._asleep_until = -inf
        self._late_for = -inf
        self._coming: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    # --- life of the agent

    def start(
        self, saved: events.StateRestored | None = None, placed: Mapping[InterfaceAddress, str | None] | None = None
    ) -> list[Action]:
        """The agent starts: it remembers, also where addresses were, and reads its kernel."""
        actions = []
        if saved is not None:
            actions += self.handle(saved)
        appearances = [self.appearance(key) for key, nic in self.network.nics.items() if nic.present]
        test_addresses = [event for _, *those in appearances for event in those]
        for event in (*(found for found, *_ in appearances), *test_addresses):
            actions += self.handle(event)
        for address, holders in self.kernel.items():
            for holder in sorted(holders):
                actions += self.handle(events.AddressFound(address, holder, (placed or {}).get(address)))
        if self.routers:
            actions += self.handle(events.RoutersChanged(self.routers))
        actions += self.handle(events.KernelRead())
        return actions

    def memory(self) -> tuple[events.StateRestored, dict[InterfaceAddress, str | None]]:
        """What the agent writes, of itself and of where it has addresses."""
        return self.core.saved(), {each.address: each.interface for each in self.snapshot().addresses}

    def restart(
        self, memory: tuple[events.StateRestored, Mapping[InterfaceAddress, str | None]] | None = None
    ) -> list[Action]:
        """The agent dies and starts again with what it saved, now or then; the kernel keeps what it has."""
        saved, placed = memory if memory is not None else self.memory()
        self.seed += 1
        self.core = Multipathing(self.configuration, seed=self.seed)
        self._inbox.clear()
        return self.start(saved, placed)

    def appearance(self, key: str) -> list[events.Event]:
        """What the agent is told of an interface that is there."""
        nic = self.network.nics[key]
        found: list[events.Event] = [events.InterfaceFound(key, key, nic.index, nic.mac, nic.cable)]
        member = next((m for m in self.configuration.members if m.key == key), None)
        if member is not None and member.test_ipv4 is not None:
            found.append(events.TestAddressChanged(key, Family.IPV4, member.test_ipv4.ip))
        if self.link_local:
            number = int(nic.mac[-2:], 16)
            found.append(events.TestAddressChanged(key, Family.IPV6, IPv6Address(f"fe80::{number + 1:x}")))
        return found

    def handle(self, event: events.Event) -> list[Action]:
        """Feed one event, and do what it leads to."""
        actions = self.core.handle(event, self.now)
        self._perform(actions)
        return actions

    def tick(self) -> list[Action]:
        """Tell the core the time."""
        actions = self.core.tick(self.now)
        self._perform(actions)
        return actions

    # --- faults

    def link(self, key: str, *, up: bool) -> None:
        """The cable of an interface is pulled or plugged in."""
        nic = self.network.nics[key]
        if nic.cable is not up:
            nic.cable = up
            if nic.present:
                self.tell(events.LinkChanged(key, up))

    def lose_links(self, *keys: str) -> None:
        """Several cables are pulled in the same instant."""
        lost = tuple(key for key in keys if self.network.nics[key].cable)
        for key in lost:
            self.network.nics[key].cable = False
        self.tell(events.LinksLost(tuple(key for key in lost if self.network.nics[key].present)))

    def silence(self, key: str, *, on: bool = True) -> None:
        """Frames of an interface vanish, while its link stays up."""
        self.network.nics[key].silent = on

    def target(self, address: str, *, up: bool) -> None:
        """A target dies or comes back."""
        (self.network.dead.discard if up else self.network.dead.add)(ip_address(address))

    def all_targets(self, *, up: bool) -> None:
        """Every target dies or comes back."""
        for address in self.network.latency:
            self.target(str(address), up=up)

    def remove(self, key: str) -> None:
        """An interface vanishes from the node, with its addresses."""
        nic = self.network.nics[key]
        if nic.present:
            nic.present = False
            for holders in self.kernel.values():
                holders.discard(key)
            self.tell(events.InterfaceVanished(key))

    def add(self, key: str) -> None:
        """An interface appears, under another index than before."""
        nic = self.network.nics[key]
        if not nic.present:
            nic.present = True
            nic.index += 100
            for event in self.appearance(key):
                self.tell(event)

    def put_back(self, key: str) -> None:
        """The agent compares: an interface that came back gets again what it had, and what is nowhere else."""
        for address in self.snapshot().addresses:
            if address.interface == key:
                self.kernel[address.address] = {key}

    def wear(self, key: str, other: str) -> None:
        """An interface is given the MAC address that another was made with; the same one: its own again."""
        nic = self.network.nics[key]
        nic.mac = mac(list(self.network.nics).index(other))
        if nic.present and any(member.key == key for member in self.configuration.members):
            for event in self.appearance(key):
                self.tell(event)

    def offline(self, key: str, *, force: bool = False) -> None:
        """Somebody asks for an interface to be taken out of use."""
        self.tell(events.OfflineRequested(key, force))

    def online(self, key: str) -> None:
        """Somebody gives it back."""
        self.tell(events.OnlineRequested(key))

    def configure(self, configuration: NodeGroup) -> None:
        """People change the group."""
        self.configuration = configuration
        self.tell(events.ConfigurationChanged(configuration))

    def suspend(self, seconds: float) -> None:
        """The agent does not run for a while; what arrives waits in its sockets."""
        self._asleep_until = max(self._asleep_until, self.now + seconds)
        self._schedule(self._asleep_until, self._wake)

    def tell(self, event: events.Event) -> None:
        """An event for the agent, now or when it wakes."""
        if self.now < self._asleep_until:
            self._inbox.append((self.now, event))
        else:
            self.handle(event)

    # --- the clock

    def at(self, time: float, what: Callable[[], None]) -> None:
        """Do something at this time."""
        self._schedule(time, what)

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass, at most until `until` holds; returns whether it did."""
        end = self.now + seconds
        ticks, ticked_at = 0, -inf
        while until is None or not until():
            deadline = self.core.next_deadline()
            wake = inf if deadline is None else max(deadline, self._asleep_until, self.now)
            arrival = self._coming[0][0] if self._coming else inf
            if min(wake, arrival) > end:
                self.now = end
                return until is not None and until()
            if arrival <= wake:
                self.now, _, what = heapq.heappop(self._coming)
                what()
                continue
            if self.lateness is not None and deadline is not None and deadline > self._late_for:
                self._late_for = deadline
                self._asleep_until = max(self._asleep_until, deadline + self.lateness())
                self._schedule(self._asleep_until, self._wake)
                continue
            ticks, ticked_at = (ticks + 1 if wake == ticked_at else 0), wake
            if ticks > _TICKS_AT_ONE_MOMENT:
                raise AssertionError(f"busy loop at {self.now}: next deadline {self.core.next_deadline()}")
            self.now = wake
            self.tick()
        return True

    def _schedule(self, at: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._coming, (at, next(self._order), what))

    def _wake(self) -> None:
        if self.now < self._asleep_until:
            return
        inbox, self._inbox = self._inbox[: self.inbox_limit], []
        for arrived, event in inbox:
            if isinstance(event, events.ProbeAnswered):
                late = self.now - arrived
                event = events.ProbeAnswered(  # noqa: PLW2901 - it is the same reply, read later
                    event.interface,
                    event.family,
                    event.target,
                    event.sequence,
                    event.kind,
                    event.rtt + late,
                    event.network_rtt,
                )
            self.handle(event)

    # --- what the agent does

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            kind = type(action)
            if kind is SendProbe:
                self._send(action)  # type: ignore[arg-type]
            elif kind is MoveAddresses:
                for move in action.moves:  # type: ignore[union-attr]
                    self._move(move)
            elif kind is Notify:
                self.notices.append((self.now, action))  # type: ignore[arg-type]
            elif kind is InterfaceVerdict:
                self.verdicts.append((self.now, action))  # type: ignore[arg-type]
            elif kind is ProbeClosed and self.remember_probes:
                self.closed.append((self.now, action))  # type: ignore[arg-type]

    def _move(self, move: Move) -> None:
        self.moves.append((self.now, move))
        holders = self.kernel[move.address]
        if move.destination is not None:
            holders.add(move.destination)
        if move.source is not None:
            holders.discard(move.source)

    def _send(self, probe: SendProbe) -> None:
        if self.remember_probes:
            self.sent.append((self.now, probe))
        if self.refuse_to_send is not None:
            refused = events.ProbeNotSent(probe.interface, probe.family, probe.sequence, self.refuse_to_send)
            self._schedule(self.now, lambda: self.tell(refused))
            return
        for target, latency in self.network.send(probe):
            if self.reaches is not None and not self.reaches(probe.interface, target):  # type: ignore[arg-type]
                continue
            rtt = latency + (self.delay(probe) if self.delay is not None else 0.0)
            answer = events.ProbeAnswered(probe.interface, probe.family, target, probe.sequence, probe.kind, rtt, rtt)
            for _ in range(self.copies):
                self._schedule(self.now + rtt, lambda answer=answer: self._arrive(answer))  # type: ignore[misc]

    def _arrive(self, answer: events.ProbeAnswered) -> None:
        if self.network.passes(answer.interface):
            self.tell(answer)

    # --- questions

    def snapshot(self) -> GroupSnapshot:
        """The group now."""
        return self.core.snapshot()

    def interface(self, key: str) -> InterfaceSnapshot:
        """One member now."""
        return next(interface for interface in self.snapshot().interfaces if interface.interface == key)

    @property
    def active(self) -> list[str]:
        """The members in use, in the order of the configuration."""
        return [interface.interface for interface in self.snapshot().interfaces if interface.active]

    def held_by(self, key: str) -> list[int]:
        """The data addresses that the kernel has on a member, by their number."""
        return sorted(int(str(address.ip).rpartition(".")[2]) for address, h in self.kernel.items() if key in h)

    def told(self, reason: Reason) -> list[str]:
        """What people were told for this reason."""
        return [notice.message for _, notice in self.notices if notice.reason is reason]

    @property
    def failed(self) -> bool:
        """Whether the group has failed."""
        return self.snapshot().state is GroupState.FAILED

    @property
    def failovers(self) -> list[tuple[float, Move]]:
        """Moves from one member to another."""
        return [(at, move) for at, move in self.moves if move.source is not None and move.destination is not None]

    @property
    def discovery_probes(self) -> list[tuple[float, SendProbe]]:
        """Probes to all hosts."""
        return [(at, probe) for at, probe in self.sent if probe.kind is ProbeKind.DISCOVERY]
