"""One group on a virtual network: the script's faults go in, the timeline comes out.

Time jumps from one thing that happens to the next, so an hour costs as much as its probes cost the core. The same
script gives the same timeline, always: the core's jitter and the network's losses come from its seed.
"""

from __future__ import annotations

import heapq
import random
from ipaddress import IPv6Address
from itertools import count
from math import inf
from typing import TYPE_CHECKING

from ipmp_agent.core import events
from ipmp_agent.core.actions import SendProbe
from ipmp_agent.core.events import Family, ProbeKind
from ipmp_agent.core.multipathing import Multipathing
from ipmp_agent.simulate import script as happening
from ipmp_agent.simulate.network import Network
from ipmp_agent.simulate.timeline import Injected, Passing, Witness, may_change_state, probed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from ipmp_agent.core.actions import Action
    from ipmp_agent.core.events import MacAddress
    from ipmp_agent.core.snapshot import GroupSnapshot
    from ipmp_agent.simulate.script import Fault, FaultScript, Happening, InterfaceHappening
    from ipmp_agent.simulate.timeline import Entry
    from ipmp_api.types import Address, NodeGroup

STEPS_PER_PROGRESS = 10_000

_BEFORE_THE_AGENT = (
    happening.Cable,
    happening.Silent,
    happening.TargetPower,
    happening.Loss,
    happening.Latency,
    happening.Remove,
)
"""At time 0 these are found by the agent when it starts; the others happen to it right after."""


class _Reply:
    """An answer on its way back, or waiting in the socket of an agent that does not run."""

    __slots__ = ("probe", "sent", "target")

    def __init__(self, probe: SendProbe, target: Address | MacAddress, sent: float) -> None:
        self.probe = probe
        self.target = target
        self.sent = sent


class _Wake:
    """The end of a suspension."""


class Simulation:
    """A script being played. `run` may be called once.

    Args:
        group: what the agent obeys.
        script: what happens.
        progress: told the virtual time now and then.
        probes: tell of each probe, too.
    """

    def __init__(
        self,
        group: NodeGroup,
        script: FaultScript,
        progress: Callable[[float], None] | None = None,
        *,
        probes: bool = False,
    ) -> None:
        self._probes = probes
        self._group = group
        self._script = script
        self._progress = progress
        self._core = Multipathing(group, seed=script.seed)
        rng = random.Random(f"network {script.seed}")  # noqa: S311 - virtual losses; not the core's own sequence
        macs = {
            member.key: member.match.mac_address or f"02:00:00:00:00:{i:02x}" for i, member in enumerate(group.members)
        }
        self.network = Network(macs, script.targets, rng)
        self._witness = Witness()
        self._coming: list[tuple[float, int, Fault | _Reply | _Wake]] = []
        self._order = count()
        self._asleep = False
        self._asleep_until = -inf
        self._inbox: list[tuple[float, events.Event | _Reply]] = []  # arrived while the agent did not run
        self._now = 0.0

    def snapshot(self) -> GroupSnapshot:
        """The group at this moment."""
        return self._core.snapshot()

    def run(self) -> Iterator[Entry]:
        """Everything that happens, in order."""
        for fault in self._script.faults:
            if fault.at == 0 and isinstance(fault.what, _BEFORE_THE_AGENT):
                yield from self._inject(fault.what, tell_agent=False)
            else:
                self._schedule(fault.at, fault)
        yield from self._start()
        for step in count(1):
            if not (yield from self._step()):
                return
            if self._progress and step % STEPS_PER_PROGRESS == 0:
                self._progress(self._now)

    # --- the clock

    def _schedule(self, at: float, what: Fault | _Reply | _Wake) -> None:
        heapq.heappush(self._coming, (at, next(self._order), what))

    def _step(self) -> Generator[Entry, None, bool]:
        """Do the next thing; False when the time is over. Replies come before the tick that would call them lost."""
        deadline = self._core.next_deadline()
        tick_at = inf if deadline is None else max(deadline, self._asleep_until, self._now)
        arrival = self._coming[0][0] if self._coming else inf
        if min(tick_at, arrival) > self._script.duration:
            return False
        if arrival > tick_at:
            self._now = tick_at
            yield from self._witnessed(self._core.tick(tick_at), routine=True)
            return True
        self._now, _, what = heapq.heappop(self._coming)
        if type(what) is _Reply:
            if self.network.passes(what.probe.interface):
                yield from self._deliver(what)
        elif type(what) is _Wake:
            yield from self._wake()
        else:
            yield from self._inject(what.what, tell_agent=True)  # type: ignore[union-attr]
        return True

    # --- the agent

    def _start(self) -> Iterator[Entry]:
        """The agent starts, reads its kernel, and takes over."""
        actions = []
        for key, nic in self.network.nics.items():
            if nic.present:
                for event in self._appearance(key):
                    actions += self._core.handle(event, 0.0)
        routers = tuple(target.address for target in self._script.targets if target.router)
        actions += self._core.handle(events.RoutersChanged(routers), 0.0)
        actions += self._core.handle(events.KernelRead(), 0.0)
        yield from self._witnessed(actions, routine=False)

    def _appearance(self, key: str) -> Iterator[events.Event]:
        nic = self.network.nics[key]
        member = next(member for member in self._group.members if member.key == key)
        number = self._group.members.index(member)
        yield events.InterfaceFound(interface=key, name=key, index=nic.index, mac=nic.mac, link=nic.cable)
        if member.test_ipv4 is not None:
            yield events.TestAddressChanged(key, Family.IPV4, member.test_ipv4.ip)
        yield events.TestAddressChanged(key, Family.IPV6, IPv6Address(f"fe80::ff:fe00:{number:x}"))

    def _deliver(self, arrived: events.Event | _Reply) -> Iterator[Entry]:
        if self._asleep:
            self._inbox.append((self._now, arrived))
        else:
            yield from self._handle(arrived, self._now)

    def _wake(self) -> Iterator[Entry]:
        if self._now < self._asleep_until:
            return  # it was suspended once more meanwhile
        self._asleep = False
        inbox, self._inbox = self._inbox, []
        for arrived_at, arrived in inbox:
            yield from self._handle(arrived, arrived_at)

    def _handle(self, arrived: events.Event | _Reply, arrived_at: float) -> Iterator[Entry]:
        if type(arrived) is _Reply:
            probe = arrived.probe
            event: events.Event = events.ProbeAnswered(
                interface=probe.interface,
                family=probe.family,
                target=arrived.target,
                sequence=probe.sequence,
                kind=probe.kind,
                rtt=self._now - arrived.sent,
                network_rtt=arrived_at - arrived.sent,
            )
            routine = probe.kind is not ProbeKind.DISCOVERY
        else:
            event, routine = arrived, False  # type: ignore[assignment]
        yield from self._witnessed(self._core.handle(event, self._now), routine=routine)

    def _witnessed(self, actions: list[Action], *, routine: bool) -> Iterator[Entry]:
        """Send what is to be sent, and tell what changed. `routine`: nothing did, unless an action says so."""
        for action in actions:
            if type(action) is SendProbe:
                for target, latency in self.network.send(action):
                    self._schedule(self._now + latency, _Reply(action, target, self._now))
            elif may_change_state(action):
                routine = False
        if self._probes:
            yield from probed(self._now, actions, 0.0)
        if not routine:
            yield from self._witness.told(self._now, self._group.group_name, actions)
            yield from self._witness.changed(self._now, self._core.snapshot())

    # --- faults

    def _inject(self, what: Happening, *, tell_agent: bool) -> Iterator[Entry]:
        yield Injected(self._now, what)
        match what:
            case happening.TakeOffline(key):
                yield from self._deliver(events.OfflineRequested(key))
            case happening.Online(key):
                yield from self._deliver(events.OnlineRequested(key))
            case happening.Suspend(seconds):
                self._asleep = True
                self._asleep_until = max(self._asleep_until, self._now + seconds)
                self._schedule(self._asleep_until, _Wake())
            case happening.TargetPower() | happening.Latency():
                self.network.change_target(what)
            case _:
                yield from self._change_interface(what, tell_agent=tell_agent)

    def _change_interface(self, what: InterfaceHappening, *, tell_agent: bool) -> Iterator[Entry]:
        nic = self.network.nics[what.interface]
        passed, present, cable = nic.passes, nic.present, nic.cable
        self.network.change_interface(what)
        if passed is not nic.passes:
            yield Passing(self._now, what.interface, nic.passes)
        news: Iterable[events.Event] = ()
        if nic.present and not present:
            news = self._appearance(what.interface)
        elif present and not nic.present:
            news = [events.InterfaceVanished(what.interface)]
        elif present and nic.cable is not cable:
            news = [events.LinkChanged(what.interface, nic.cable)]
        for event in news if tell_agent else ():
            yield from self._deliver(event)
