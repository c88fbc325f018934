"""Which systems one prober asks, and what it thinks of their health.

A target is a system, not an interface: when one of several stops answering, the target is dead and the interface is
not. Targets that were named (pins, gateways, peers) rest and come back; hosts that were discovered are dropped and
looked for again.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from ipmp_agent.core import timers
from ipmp_agent.core.rtt import RoundTrip
from ipmp_agent.core.words import TargetMode, TargetState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipmp_agent.core.events import MacAddress
    from ipmp_api.types import Address


class TargetOrigin(IntEnum):
    """Where a target comes from, in order of preference."""

    PIN = 0
    ROUTER = 1
    PEER = 2
    HOST = 3  # discovered
    MEMBER = 4  # another member of the group, asked at the link layer


_FIT = frozenset({TargetState.ACTIVE, TargetState.UNUSED})
_ASIDE = frozenset({TargetState.SLOW, TargetState.DEAD})


class Target:
    """One system as one prober sees it."""

    __slots__ = ("address", "answered", "by_link_layer", "echoed", "heard", "origin", "rtt", "since", "state")

    def __init__(self, address: Address | MacAddress, origin: TargetOrigin, now: float) -> None:
        self.address = address
        self.origin = origin
        self.state = TargetState.UNUSED
        self.since = now  # when it entered this state
        self.rtt = RoundTrip()
        self.answered = -1.0  # when the newest answered probe to it was sent
        self.echoed = False  # it answered ICMP
        self.by_link_layer = False  # asked by ARP or neighbour discovery: it never answered ICMP
        self.heard = -1.0  # when its newest reply came

    def enter(self, state: TargetState, now: float) -> None:
        """Change the state and stamp it, DEAD included (the original forgets to)."""
        self.state = state
        self.since = now


class Targets:
    """The targets of one prober, at most five of them active."""

    __slots__ = ("_all", "_next", "_next_rtt", "active", "rested_at")

    def __init__(self) -> None:
        self._all: list[Target] = []
        self.active: list[Target] = []  # those being probed, in the order of preference
        self.rested_at = timers.NEVER  # when the first of those set aside may recover
        self._next = 0
        self._next_rtt = 0

    def __bool__(self) -> bool:
        return bool(self.active)

    def __contains__(self, target: Target) -> bool:
        return target in self._all

    def find(self, address: Address | MacAddress) -> Target | None:
        """The target with this address, if it is one."""
        for target in self._all:
            if target.address == address:
                return target
        return None

    @property
    def in_firing_order(self) -> list[Target]:
        """The active ones starting with the next to be probed, then the others."""
        active = self.active
        start = self._next % len(active) if active else 0
        return active[start:] + active[:start] + [t for t in self._all if t.state is not TargetState.ACTIVE]

    @property
    def mode(self) -> TargetMode:
        """Routes while any target was named, transitive between members, else multicast."""
        if not self._all or self._all[0].origin is TargetOrigin.HOST:
            return TargetMode.MULTICAST
        return TargetMode.TRANSITIVE if self._all[0].origin is TargetOrigin.MEMBER else TargetMode.ROUTES

    @property
    def echoing(self) -> bool:
        """Whether any of them answered ICMP."""
        return any(target.echoed for target in self._all)

    @property
    def hosts(self) -> list[Address | MacAddress]:
        """The discovered ones."""
        return [target.address for target in self._all if target.origin is TargetOrigin.HOST]

    def offer(
        self, wanted: Iterable[tuple[Address | MacAddress, TargetOrigin]], now: float, *, keep_routers: bool = False
    ) -> None:
        """Take the complete list of named targets. `keep_routers`: hold on to those that vanished.

        A group that has failed keeps its routers: their routes may be gone because of the failure.
        """
        named = dict(wanted)
        known = {target.address: target for target in self._all}
        for address, origin in named.items():
            if address in known:
                known[address].origin = origin
            else:
                known[address] = Target(address, origin, now)
        named_ones = [known[address] for address in named]
        kept = [t for t in self._all if keep_routers and t.address not in named and t.origin is TargetOrigin.ROUTER]
        hosts = [t for t in known.values() if t.origin is TargetOrigin.HOST]
        self._all = named_ones + kept or hosts  # hosts never join a list of named targets
        self.promote(now)

    def add_host(self, address: Address | MacAddress, now: float) -> bool:
        """Take a discovered host, up to five, and only where no target is named. True when it was taken."""
        if self.find(address) or self.mode is not TargetMode.MULTICAST or len(self._all) >= timers.TARGETS_MAXIMUM:
            return False
        self._all.append(Target(address, TargetOrigin.HOST, now))
        self.promote(now)
        return True

    def flush_hosts(self) -> None:
        """Forget discovered hosts: the group failed, and they may all be behind the same fault."""
        self._all = [target for target in self._all if target.origin is not TargetOrigin.HOST]
        self._list_active()

    def set_aside(self, target: Target, state: TargetState, now: float) -> bool:
        """Stop using a target that is DEAD or SLOW. True when it was a host, now dropped: look for another."""
        if target.origin is TargetOrigin.HOST:
            self._all.remove(target)
            self._list_active()
            return True
        target.enter(state, now)
        self.promote(now)
        return False

    def exchange(self, now: float) -> bool:
        """Set all that are in use aside as DEAD, and use others, also those set aside; False: there are none."""
        if len(self.active) == len(self._all):
            return False
        for target in self.active:
            target.enter(TargetState.DEAD, now)
        self.promote(now)
        return True

    def is_exceptional(self, target: Target, interval: float) -> bool:
        """Whether this one is slow while enough others answer within half an interval: it, not the network, is slow."""
        others = [other for other in self.active if other is not target]
        limit = interval / timers.EXCEPTIONAL_TARGET_FACTOR
        return len(others) >= timers.EXCEPTIONAL_TARGET_OTHERS and all(o.rtt.crtt <= limit for o in others)

    def promote(self, now: float) -> None:
        """Let rested targets recover, and use the first five of those that are fit, in the order of preference."""
        for target in self._all:
            if now - target.since > timers.TARGET_RECOVERY:
                if target.state is TargetState.DEAD:
                    target.enter(TargetState.SLOW, now)
                elif target.state is TargetState.SLOW:
                    target.enter(TargetState.UNUSED, now)
        fit = [target for target in self._all if target.state in _FIT]
        for place, target in enumerate(fit):
            state = TargetState.ACTIVE if place < timers.TARGETS_MAXIMUM else TargetState.UNUSED
            if target.state is not state:
                target.enter(state, now)
        if not fit:
            self._reactivate(now)
        self._list_active()

    def _list_active(self) -> None:
        self.active = [target for target in self._all if target.state is TargetState.ACTIVE]
        resting = [target.since for target in self._all if target.state in _ASIDE]
        self.rested_at = min(resting) + timers.TARGET_RECOVERY if resting else timers.NEVER

    def _reactivate(self, now: float) -> None:
        """Use up to three of the set-aside ones, the best first: they are all there is."""
        rank = {TargetState.SLOW: 0, TargetState.DEAD: 1}
        best = sorted((t for t in self._all if t.state in rank), key=lambda t: (rank[t.state], t.since))
        for target in best[: timers.TARGETS_MINIMUM]:
            target.enter(TargetState.ACTIVE, now)

    def take_next(self) -> Target | None:
        """The next active target, round robin."""
        active = self.active
        if not active:
            return None
        target = active[self._next % len(active)]
        self._next = (self._next + 1) % len(active)
        return target

    def take_next_rtt(self) -> Target | None:
        """The next active target of the separate round of RTT-only probes."""
        active = self.active
        if not active:
            return None
        target = active[self._next_rtt % len(active)]
        self._next_rtt = (self._next_rtt + 1) % len(active)
        return target

    def forget_link_layer(self) -> None:
        """Ask every one as the configuration says."""
        for target in self._all:
            target.by_link_layer = False

    def reset_round_trips(self) -> None:
        """Forget every estimate."""
        for target in self._all:
            target.rtt.reset()
