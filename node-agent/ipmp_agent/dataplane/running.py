"""One group while it runs: its core, what is counted and remembered of it, and how others see it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from ipmp_agent.core.actions import InterfaceVerdict, MoveAddresses, Notify, Severity
from ipmp_agent.core.events import ConfigurationChanged, ProbeAnswered
from ipmp_agent.core.reasons import Reason
from ipmp_agent.disk.recording import ROUTINE, Decided, Handled, Ticked
from ipmp_agent.disk.state import SavedGroup
from ipmp_agent.measurements import UNFORCED, Example
from ipmp_agent.publication import GroupView, Occurrence, PastFailover, remembered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from ipmp_agent.core.actions import Action, Move
    from ipmp_agent.core.events import Event, StateRestored
    from ipmp_agent.core.findings import Finding, NotAdopted
    from ipmp_agent.core.snapshot import GroupSnapshot
    from ipmp_agent.disk.recording import Entry
    from ipmp_agent.measurements import GroupMeasurements
    from ipmp_api.types import NodeGroup

LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.ERROR: logging.ERROR}

log = logging.getLogger(__name__)


def tell(group: str, notice: Notify, wall: float) -> Occurrence:
    """Log what people are told; returns it for those who tell them."""
    log.log(
        LEVELS[notice.severity],
        notice.message,
        extra={"group": group, "reason": notice.reason.value, "interface": notice.interface},
    )
    return Occurrence(wall, group, notice.reason, notice.message, notice.severity, notice.interface)


class Core(Protocol):
    """The core of one group, `ipmp_agent.core.multipathing.Multipathing`."""

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take a fact; return what is to be done."""

    def tick(self, now: float) -> list[Action]:
        """Take the time; return what is to be done."""

    def next_deadline(self) -> float | None:
        """When to tick next, monotonic seconds."""

    def snapshot(self) -> GroupSnapshot:
        """The state now."""

    def keeps_offline(self, interface: str) -> bool:
        """Whether anybody keeps a member offline, also one that is not here."""

    def saved(self) -> StateRestored:
        """What a restart should know."""


class RunningGroup:
    """One group that the agent works for. All methods belong to the loop of the data plane."""

    def __init__(
        self,
        configuration: NodeGroup,
        core: Core,
        measurements: GroupMeasurements,
        *,
        record: Callable[[Entry], None] | None,
        history: Iterable[PastFailover] = (),
    ) -> None:
        self.name = configuration.group_name
        self.core = core
        self.measurements = measurements
        self._configuration = configuration
        self._held: list[Event] | None = []  # events that wait until the kernel has been read; None: released
        self._ready = False
        self._findings: tuple[Finding, ...] = ()
        self._not_adopted: tuple[NotAdopted, ...] = ()
        self._on_trial = False
        self._undone = ""
        self._not_before = 0.0  # no tick before: the last one failed
        self.history = remembered(history)
        self._record = record
        self._since: dict[str, tuple[float, float]] = {}  # interface -> since on the core's clock, since on the wall
        measurements.watch(member.key for member in configuration.members)

    # --- configuration and life

    @property
    def configuration(self) -> NodeGroup:
        """The configuration that its core has, or is about to be given."""
        return self._configuration

    @property
    def ready(self) -> bool:
        """Whether the kernel obeys this configuration."""
        return self._ready

    @property
    def released(self) -> bool:
        """Whether the kernel has been read: before that, events wait."""
        return self._held is None

    @property
    def on_trial(self) -> bool:
        """Whether its configuration may still be undone."""
        return self._on_trial

    def take(self, configuration: NodeGroup) -> ConfigurationChanged:
        """Have another configuration from now on; returns the event that tells the core."""
        self._configuration = configuration
        self.measurements.watch(member.key for member in configuration.members)
        return ConfigurationChanged(configuration)

    def await_kernel(self) -> None:
        """The kernel does not obey the configuration yet."""
        self._ready = False

    def obeyed(self) -> None:
        """The kernel obeys the configuration."""
        self._ready = True

    def hold(self, event: Event) -> bool:
        """Keep an event until the group is released; False if it has been."""
        if self._held is None:
            return False
        self._held.append(event)
        return True

    def release_events(self) -> list[Event]:
        """Hold events back no longer; returns those that were, in order."""
        held, self._held = self._held or [], None
        return held

    def pause(self, until: float) -> None:
        """Tick no sooner than at this monotonic moment."""
        self._not_before = until

    def put_on_trial(self, undone: str, *, on_trial: bool) -> None:
        """Take what becomes of its configuration.

        Args:
            undone: why another configuration is in force than the wanted one; empty: it is not.
            on_trial: the configuration may still be undone.
        """
        self._undone, self._on_trial = undone, on_trial

    def found(self, findings: tuple[Finding, ...], not_adopted: tuple[NotAdopted, ...]) -> None:
        """Take what the kernel's side has found, and which addresses of the host it leaves alone."""
        self._findings = findings
        self._not_adopted = not_adopted

    # --- the core

    def handle(self, event: Event, now: float) -> list[Action]:
        """Feed one event to the core."""
        if self._record:
            self._record(Handled(self.name, now, event))
        if type(event) is ProbeAnswered:
            histogram = self.measurements.round_trip.get(event.interface)
            if histogram:
                histogram.observe(event.rtt)
        return self._recorded(self.core.handle(event, now), now)

    def tick(self, now: float) -> list[Action]:
        """Tell the core the time."""
        if self._record:
            self._record(Ticked(self.name, now))
        return self._recorded(self.core.tick(now), now)

    def _recorded(self, actions: list[Action], now: float) -> list[Action]:
        if self._record:
            decided = tuple(action for action in actions if type(action) not in ROUTINE)
            if decided:
                self._record(Decided(self.name, now, decided))
        return actions

    def next_deadline(self) -> float | None:
        """When to tick next; None while the group is held back or has nothing to wait for."""
        if not self.released:
            return None
        deadline = self.core.next_deadline()
        return None if deadline is None else max(deadline, self._not_before)

    # --- what happened

    def account(self, actions: list[Action], began: float, announced: float, wall: float) -> list[Occurrence]:
        """Count and remember one batch of actions; return what people are told.

        Args:
            actions: what the core ordered.
            began: when the event arrived, or the tick was due, monotonic seconds.
            announced: when the last move or announcement was handed to the kernel, monotonic seconds.
            wall: now, seconds since the epoch.
        """
        told = []
        lost: dict[str, float] = {}  # when the first loss was, by member that is found to have failed
        dated: dict[str, float] = {}  # the same, in seconds since the epoch
        for action in actions:
            match action:
                case MoveAddresses(moves):
                    self._account_moves(moves, announced - began, wall, dated)
                    self._account_outages(moves, lost, announced, wall)
                case InterfaceVerdict(interface, failed, reason, since):
                    if failed and since is not None:
                        lost[interface] = since
                        dated[interface] = wall - (announced - since)
                    counter = self.measurements.failures if failed else self.measurements.repairs
                    counter[interface, reason] = counter.get((interface, reason), 0) + 1
                case Notify():
                    told.append(self._tell(action, wall))
        return told

    def _account_moves(
        self, moves: tuple[Move, ...], duration: float, wall: float, first_losses: Mapping[str, float]
    ) -> None:
        batches: dict[tuple[str, str, Reason], list[Move]] = {}
        for move in moves:
            self.measurements.moves[move.reason] = self.measurements.moves.get(move.reason, 0) + 1
            if move.source is not None and move.destination is not None:
                batches.setdefault((move.source, move.destination, move.reason), []).append(move)
        forced = next(((source, reason) for source, _, reason in batches if reason not in UNFORCED), None)
        if forced is not None:
            self.measurements.failover.show(Example(duration, wall, *forced))
        past = [
            PastFailover(
                wall, source, destination, why, tuple(m.address for m in batch), duration, first_losses.get(source)
            )
            for (source, destination, why), batch in batches.items()
        ]
        if past:
            self.history = remembered((*self.history, *past))

    def _account_outages(self, moves: tuple[Move, ...], lost: dict[str, float], announced: float, wall: float) -> None:
        """Measure each failure once by which an address had to move: from its first loss to the announcement."""
        for source, reason in dict.fromkeys((move.source, move.reason) for move in moves if move.destination):
            since = lost.pop(source, None) if source is not None else None
            if source is not None and since is not None and reason in self.measurements.outage:
                self.measurements.outage[reason].show(Example(announced - since, wall, source, reason))

    def _tell(self, notice: Notify, wall: float) -> Occurrence:
        if notice.reason is Reason.GROUP_FAILED and notice.interface is None:
            self.measurements.group_failures += 1
        return tell(self.name, notice, wall)

    # --- how others see it

    def view(self, now: float, wall: float) -> GroupView:
        """The group at this moment, with dates that stay the same however often one looks."""
        snapshot = self.core.snapshot()
        since = {}
        for interface in snapshot.interfaces:
            known = self._since.get(interface.interface)
            if known is None or known[0] != interface.since:
                known = (interface.since, wall - (now - interface.since))
                self._since[interface.interface] = known
            since[interface.interface] = known[1]
        return GroupView(
            configuration=self._configuration,
            snapshot=snapshot,
            findings=self._findings,
            not_adopted=self._not_adopted,
            history=self.history,
            since=since,
            ready=self._ready,
            on_trial=self._on_trial,
            undone=self._undone,
        )

    def to_save(self, kernel_memory: dict[str, Any] | None) -> SavedGroup:
        """What the state file keeps of it."""
        saved = self.core.saved()
        return SavedGroup(
            self._configuration,
            saved.interfaces,
            kernel_memory,
            self.history,
            saved.detection_time,
            saved.moves,
            saved.nominee,
            saved.carriers,
        )
