"""Probing of one member in one family: the schedule, the history, and what the history says.

A prober ticks at base + uniform[0.5, 1.0] x interval, the base strictly periodic. At a tick it gives up what is
overdue; the group judges; then it sends the next probe. Nothing here reads a clock: `now` is an argument.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from itertools import islice, takewhile
from typing import TYPE_CHECKING

from ipmp_agent.core import timers
from ipmp_agent.core.actions import ProbeClosed, ProbeProtocol, SendProbe
from ipmp_agent.core.events import Family, ProbeKind
from ipmp_agent.core.targets import Targets
from ipmp_agent.core.words import TargetMode
from ipmp_api.types import ProbeMethod

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from ipmp_agent.core.events import ProbeAnswered
    from ipmp_agent.core.targets import Target
    from ipmp_api.types import Address

ALL_HOSTS: dict[Family, Address] = {
    Family.IPV4: IPv4Address("224.0.0.1"),
    Family.IPV6: IPv6Address("ff02::1"),
}
_SEQUENCES = 1 << 16


def choose_protocol(
    family: Family, method: ProbeMethod, source: Address | None, *, addressed: bool
) -> tuple[ProbeProtocol | None, str]:
    """How a member is probed in one family, and why, in words. None: it is not.

    `source`: its test address, if it is ready. `addressed`: one is configured.
    """
    if method is ProbeMethod.DISABLED:
        return None, "probes.method is Disabled"
    if family is Family.IPV4:
        if method is ProbeMethod.ARP:
            return ProbeProtocol.ARP, "probes.method is ARP"
        if source is not None:
            return ProbeProtocol.ICMP, "it has an IPv4 test address"
        if method is ProbeMethod.ICMP:
            return None, "its IPv4 test address is not ready" if addressed else "ICMP needs an IPv4 test address"
        return ProbeProtocol.ARP, "its IPv4 test address is not ready" if addressed else "it has no IPv4 test address"
    if source is None:
        return None, "its link-local address is not ready" if addressed else "testAddresses.ipv6 is Disabled"
    if method is ProbeMethod.ARP:
        return ProbeProtocol.NEIGHBOR, "probes.method is ARP"
    return ProbeProtocol.ICMP, "it has a link-local address"


class ProbeState(Enum):
    """What became of a probe."""

    PENDING = "pending"
    ANSWERED = "answered"
    LOST = "lost"


class Probe:
    """One detection probe in the history."""

    __slots__ = ("sent_at", "sequence", "state", "target")

    def __init__(self, sequence: int, target: Target, sent_at: float) -> None:
        self.sequence = sequence
        self.target = target
        self.sent_at = sent_at
        self.state = ProbeState.PENDING


class Prober:
    """Probes of one member in one family."""

    __slots__ = (
        "_base",
        "_failing_since",
        "_history",
        "_random",
        "_sequence",
        "answered_count",
        "choice",
        "discarded_count",
        "duplicates",
        "exchanged",
        "family",
        "key",
        "last_success",
        "look_around",
        "lost_count",
        "measure_at",
        "missed_count",
        "not_sent_count",
        "probe_at",
        "protocol",
        "sent_count",
        "source",
        "targets",
        "want_hosts",
    )

    def __init__(self, key: str, family: Family, now: float, rng: random.Random) -> None:
        self.key = key
        self.family = family
        self.targets = Targets()
        self.protocol: ProbeProtocol | None = None  # None: cannot probe
        self.choice = ""  # why this protocol
        self.source: Address | None = None
        self.want_hosts = False  # look for hosts with discovery probes
        self.exchanged = False  # its targets, since its last answer
        self.look_around = False  # a host was dropped: send one discovery probe
        self.last_success: float | None = None  # when the newest answered probe was sent
        self.probe_at = timers.NEVER  # when the next detection tick is due
        self.measure_at = timers.NEVER  # when the next RTT-only probe is due
        self.sent_count = self.answered_count = self.lost_count = 0
        self.missed_count = self.not_sent_count = self.discarded_count = self.duplicates = 0
        self._random = rng
        self._history: deque[Probe] = deque(maxlen=timers.PROBE_HISTORY)
        self._sequence = 1
        self._base = now
        self._failing_since: float | None = None  # sends refused by the kernel since then

    # --- what it may do ---

    @property
    def enabled(self) -> bool:
        """Has what it needs to send."""
        return self.protocol is not None

    @property
    def capable(self) -> bool:
        """Can judge: may send, and has somebody to ask."""
        return self.protocol is not None and bool(self.targets)

    @property
    def searching(self) -> bool:
        """Looks for hosts: it is to, has an address to be answered at, and nobody named a target."""
        return self.want_hosts and self.source is not None and self.targets.mode is TargetMode.MULTICAST

    @property
    def running(self) -> bool:
        """Is scheduled."""
        return self.probe_at < timers.NEVER

    def use(self, protocol: ProbeProtocol | None, source: Address | None, choice: str) -> bool:
        """Choose how to probe; True when that changed, and with it the history was dropped."""
        self.choice = choice
        if (protocol, source) == (self.protocol, self.source):
            return False
        self.protocol, self.source = protocol, source
        self.forget()
        return True

    def start(self, now: float, interval: float) -> None:
        """Schedule the first probe at a random moment of the interval, so that members do not probe in step."""
        self.probe_at = now + self._random.uniform(0, interval)
        self._base = self.probe_at - timers.JITTER_MAXIMUM * interval
        self.measure_at = timers.NEVER

    def stop(self) -> None:
        """Probe no more."""
        self.probe_at = self.measure_at = timers.NEVER

    def forget(self) -> None:
        """Drop the history: what it says is not about the present."""
        self.discarded_count += self.outstanding
        self._history.clear()
        self._failing_since = None
        self.last_success = None

    def reschedule(self, now: float, interval: float) -> None:
        """The interval changed: count from now."""
        if self.running:
            self._base = now
            self.probe_at = now + self._jitter(interval)

    def hurry(self, now: float, interval: float) -> None:
        """Have the next tick at the earliest moment at which a probe that is sent now can be lost."""
        self.probe_at = min(self.probe_at, now + timers.EARLIEST_LOSS * interval)

    def _jitter(self, interval: float) -> float:
        return self._random.uniform(timers.JITTER_MINIMUM, timers.JITTER_MAXIMUM) * interval

    # --- the tick ---

    def skip_if_late(self, now: float, interval: float) -> float:
        """Skip a tick that comes more than half an interval late; returns by how many seconds, 0.0 if it does not.

        That is our own fault: what is unanswered then may have been answered to a process that did not run, so it is
        missed, not lost.
        """
        late = now - self.probe_at
        if late <= timers.LATEST_TICK * interval:
            return 0.0
        self.missed_count += max(1, int(late / interval))
        self._discard_pending()
        self._base = now
        self.probe_at = now + self._jitter(interval)
        return late

    def begin_tick(self, now: float, interval: float) -> list[ProbeClosed]:
        """Give up what is overdue and schedule the next tick."""
        pending = self._pending()
        closed = self.expire(now, interval) if pending else []
        closed += [self._lose(p) for p in pending if p.state is ProbeState.PENDING and p is not self._history[-1]]
        self._base += interval
        self.probe_at = self._base + self._jitter(interval)
        return closed

    def expire(self, now: float, interval: float) -> list[ProbeClosed]:
        """Give up pending probes whose time is over."""
        return [
            self._lose(probe)
            for probe in self._pending()
            if now >= probe.sent_at + self._patience(probe.target, interval)
        ]

    @staticmethod
    def _patience(target: Target, interval: float) -> float:
        """How long to wait for an answer, seconds."""
        crtt = target.rtt.crtt
        return max(crtt, timers.EARLIEST_LOSS * interval) if crtt else interval

    def _lose(self, probe: Probe) -> ProbeClosed:
        probe.state = ProbeState.LOST
        self.lost_count += 1
        return self.closed(probe)

    def _discard_pending(self) -> None:
        pending = self._pending()
        for probe in pending:
            self._history.remove(probe)
        self.discarded_count += len(pending)

    def send_next(self, now: float) -> Iterator[SendProbe]:
        """The probes of this tick: one to the next target, and one to all hosts while targets are looked for."""
        target = self.targets.take_next()
        if target is not None:
            self._history.append(Probe(self._sequence, target, now))
            self.sent_count += 1
            yield self._send(target, ProbeKind.DETECTION)
            self._sequence = (self._sequence + 1) % _SEQUENCES
        if self.searching and (self.look_around or len(self.targets.hosts) <= 1):
            self.look_around = False
            yield SendProbe(
                self.key, self.family, ALL_HOSTS[self.family], self._sequence, ProbeKind.DISCOVERY, ProbeProtocol.ICMP
            )

    def send_rtt(self, now: float, configured_interval: float, *, raised: bool) -> SendProbe | None:
        """An RTT-only probe at every configured interval while the detection time is raised."""
        if not raised or not self.running:
            self.measure_at = timers.NEVER
            return None
        if now < self.measure_at < timers.NEVER:
            return None
        first = self.measure_at == timers.NEVER
        self.measure_at = now + configured_interval
        target = None if first else self.targets.take_next_rtt()
        return self._send(target, ProbeKind.RTT) if target else None

    def _send(self, target: Target, kind: ProbeKind) -> SendProbe:
        address, protocol = target.address, self.protocol or ProbeProtocol.ICMP
        if target.by_link_layer and protocol is ProbeProtocol.ICMP:
            protocol = ProbeProtocol.ARP if self.family is Family.IPV4 else ProbeProtocol.NEIGHBOR
        if isinstance(address, IPv6Address) and protocol is ProbeProtocol.ICMP and not address.is_link_local:
            protocol = ProbeProtocol.NEIGHBOR  # an echo to a global address needs a route, a solicitation only the link
        return SendProbe(self.key, self.family, address, self._sequence, kind, protocol)

    # --- what comes back ---

    def answered(self, event: ProbeAnswered, interval: float, *, measure: bool) -> Probe | None:
        """Take a reply to a detection probe; late ones count too: they break a streak of losses. None: ignored."""
        probe = self._sent_as(event.sequence)
        known = probe is not None and probe.target.address == event.target and probe.target in self.targets
        if probe is None or not known or probe.state is ProbeState.ANSWERED:
            self.duplicates += 1
            return None
        if probe.state is ProbeState.LOST:
            self.lost_count -= 1
        probe.state = ProbeState.ANSWERED
        self.exchanged = False
        self.answered_count += 1
        self._failing_since = None
        self.last_success = max(self.last_success or probe.sent_at, probe.sent_at)
        sane = 0 <= event.network_rtt <= timers.PROBE_HISTORY * interval
        heard = probe.sent_at + event.rtt
        alone = heard - probe.target.heard >= timers.REPLIES_TOGETHER * interval
        if measure and sane and alone and probe.sent_at > probe.target.answered:
            probe.target.rtt.sample(event.network_rtt, interval)
        probe.target.echoed |= self.protocol is ProbeProtocol.ICMP and not probe.target.by_link_layer
        probe.target.answered = max(probe.target.answered, probe.sent_at)
        probe.target.heard = max(probe.target.heard, heard)
        return probe

    def not_sent(self, sequence: int, now: float) -> None:
        """The kernel refused to send: no loss, unless it goes on for the whole detection time."""
        probe = self._sent_as(sequence)
        if probe is None or probe.state is not ProbeState.PENDING:
            return
        self._history.remove(probe)
        self.sent_count -= 1
        self.not_sent_count += 1
        if self._failing_since is None:
            self._failing_since = now

    def closed(self, probe: Probe, rtt: float | None = None, network_rtt: float | None = None) -> ProbeClosed:
        """What is told of a probe that was answered, or lost."""
        return ProbeClosed(
            interface=self.key,
            family=self.family,
            target=probe.target.address,
            sequence=probe.sequence,
            sent_at=probe.sent_at,
            rtt=rtt,
            network_rtt=network_rtt,
            average=probe.target.rtt.average,
            deviation=probe.target.rtt.deviation,
        )

    # --- what it says ---

    def streak(self, state: ProbeState, target: Target | None = None) -> tuple[int, float]:
        """Newest consecutive probes in this state, and when the oldest of them was sent; of one target, or of all."""
        count, first_at = 0, 0.0
        for probe in reversed(self._history):
            if probe.state is ProbeState.PENDING or (target is not None and probe.target is not target):
                continue
            if probe.state is not state:
                break
            count, first_at = count + 1, probe.sent_at
        return count, first_at

    def newest_judged(self) -> Probe | None:
        """The newest probe that is not pending."""
        for probe in reversed(self._history):
            if probe.state is not ProbeState.PENDING:
                return probe
        return None

    @property
    def losing(self) -> bool:
        """Whether its newest judged probe was lost, or it cannot send: if not, it has nothing against anybody."""
        newest = self.newest_judged()
        return self._failing_since is not None or (newest is not None and newest.state is ProbeState.LOST)

    def lost_by_turns(self, count: int) -> tuple[int, int]:
        """How many of this many of its newest judged probes were lost though their target answered a later one.

        A dead target, and a NIC that broke, answer no more. Returns also how many probes there are.
        """
        judged = (probe for probe in reversed(self._history) if probe.state is not ProbeState.PENDING)
        lost = seen = 0
        answering: list[Target] = []
        for probe in islice(judged, count):
            seen += 1
            if probe.state is ProbeState.ANSWERED:
                answering.append(probe.target)
            elif probe.target in answering:
                lost += 1
        return lost, seen

    def failing(self, now: float, detection_time: float) -> bool:
        """Lost too many probes in a row, or could not send any for the whole detection time."""
        if self._failing_since is not None and now - self._failing_since >= detection_time:
            return True
        return self.streak(ProbeState.LOST)[0] >= timers.PROBE_FAILURES

    def first_loss(self) -> float:
        """When the oldest probe of the present streak of losses was sent."""
        count, first_at = self.streak(ProbeState.LOST)
        if self._failing_since is None:
            return first_at
        return min(first_at, self._failing_since) if count else self._failing_since

    @property
    def refused(self) -> bool:
        """Whether the kernel refused to send the newest probe."""
        return self._failing_since is not None

    def losses(self) -> dict[Target, float]:
        """The targets of the present streak of losses, and when the first of their lost probes was sent."""
        found: dict[Target, float] = {}
        for probe in self._newest_lost():
            found[probe.target] = probe.sent_at
        return found

    def newest_loss(self) -> float:
        """When the newest probe of the present streak of losses was sent; -NEVER: there is none."""
        return next((probe.sent_at for probe in self._newest_lost()), -timers.NEVER)

    def _newest_lost(self) -> Iterator[Probe]:
        """The probes of the present streak of losses, the newest first."""
        judged = (probe for probe in reversed(self._history) if probe.state is not ProbeState.PENDING)
        return takewhile(lambda probe: probe.state is ProbeState.LOST, judged)

    def answered_between(self, since: float, until: float, target: Target | None = None) -> bool:
        """Whether a probe sent after one moment and before another was answered; by one target, or by any."""
        return any(
            probe.state is ProbeState.ANSWERED and since < probe.sent_at < until
            for probe in self._history
            if target is None or probe.target is target
        )

    def dead_target(self) -> Target | None:
        """The target of the newest probe, when it alone stopped answering and is still in use.

        A tick of the other family asks as well, and may come before this one has probed anybody else.
        """
        newest = self.newest_judged()
        if newest is None or newest.state is not ProbeState.LOST or newest.target not in self.targets.active:
            return None
        if self.streak(ProbeState.LOST)[0] >= timers.PROBE_FAILURES:
            return None
        lost, _ = self.streak(ProbeState.LOST, newest.target)
        return newest.target if lost >= timers.PROBE_FAILURES else None

    def repaired(self) -> bool:
        """Ten answers in a row over all targets, or of the newest probe's target; and probes can still be sent."""
        newest = self.newest_judged()
        if newest is None or newest.state is not ProbeState.ANSWERED or self._failing_since is not None:
            return False
        overall, _ = self.streak(ProbeState.ANSWERED)
        of_target, _ = self.streak(ProbeState.ANSWERED, newest.target)
        return max(overall, of_target) >= timers.PROBE_REPAIRS

    @property
    def outstanding(self) -> int:
        """Probes in flight."""
        return len(self._pending())

    def _pending(self) -> list[Probe]:
        """The probes in flight, the oldest first: at each tick all but the newest are given up."""
        newest = list(islice(reversed(self._history), timers.PROBES_OUTSTANDING))
        newest.reverse()
        return [probe for probe in newest if probe.state is ProbeState.PENDING]

    def _sent_as(self, sequence: int) -> Probe | None:
        for probe in reversed(self._history):
            if probe.sequence == sequence:
                return probe
        return None
