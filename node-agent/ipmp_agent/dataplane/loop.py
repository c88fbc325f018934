"""The data-plane loop: feeds the core, carries out what it orders, and shows the result. Nothing else runs in it.

Everything goes through one queue. Events that come while actions are carried out wait for their turn, so the core is
never entered twice; replies that wait in the sockets are drained before a tick may call them lost. Another
thread uses `call`, or reads the last publication.
"""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections import deque
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ipmp_agent.core.actions import (
    Announce,
    InterfaceVerdict,
    MoveAddresses,
    Notify,
    ProbeClosed,
    SendProbe,
)
from ipmp_agent.core.words import LinkWord
from ipmp_agent.dataplane.running import RunningGroup, tell
from ipmp_agent.disk.recording import Started, Stopped
from ipmp_agent.disk.state import SavedState
from ipmp_agent.publication import Publication

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from ipmp_agent.core.actions import Action, Order
    from ipmp_agent.core.events import Event, StateRestored
    from ipmp_agent.core.findings import Finding, NotAdopted
    from ipmp_agent.dataplane.running import Core
    from ipmp_agent.disk.recording import Entry
    from ipmp_agent.measurements import Measurements
    from ipmp_agent.publication import Occurrence
    from ipmp_api.types import Address, InterfaceAddress, NodeGroup

T = TypeVar("T")

REFRESH = 1.0
"""Seconds between publications while nothing happens: counters and round trips move on."""

SAVE_DELAY = 0.05
"""Seconds from a change to the writing of the state file, so that a burst of changes is written once."""

SECURING = 1.0
"""Seconds to wait for the disk before the first change to the kernel: one that hangs must not stop a group.

As long as it hangs it is not waited for again: groups start one after the other, and one that waits sees no failure.
"""

ERROR_PAUSE = 0.1
"""Seconds until a core that failed in a tick is ticked again: a fault must not become a busy loop."""

log = logging.getLogger(__name__)


class KernelPort(Protocol):
    """What the loop needs of `ipmp_agent.linux`."""

    async def open(self, memories: Mapping[str, Mapping[str, Any] | None]) -> None:
        """Open sockets. Members of groups in `memories` are no other group's until theirs lets go. Raises OSError."""

    async def configure(
        self, group: NodeGroup, memory: Mapping[str, Any] | None, secure: Callable[[], Awaitable[bool]]
    ) -> None:
        """Read what is there, sink it as events, KernelRead last, and put the group's own into place.

        `secure` has `memory` written to disk, and returns whether it is there: awaited before the first change of what
        was found. What cannot be remembered is not adopted.
        """

    def perform(self, group: str, action: Order) -> None:
        """Carry out one order, without waiting."""

    def drain(self) -> None:
        """Sink everything that waits in the sockets."""

    async def reconcile(self, group: str) -> None:
        """Make the kernel what it should be. Raises OSError where it cannot be read."""

    def memory(self, group: str) -> dict[str, Any]:
        """What a restart must know; plain JSON values."""

    async def withdraw(self, group: str, *, restore: bool = False) -> None:
        """Remove what was added, and restore what was found, by the group's deletion policy or whatever that says.

        Raises OSError where the kernel cannot be read. The group is looked after no more, however far this came.
        """

    async def gateways(self) -> frozenset[Address]:
        """The gateways of the host's own routes."""

    async def answering(self, targets: Iterable[Address]) -> frozenset[Address]:
        """Who of these answers this host by its ordinary routes, within a second or so. Raises OSError."""

    async def cut_off(self, targets: Iterable[Address]) -> dict[Address, tuple[str, ...]]:
        """Whom of these, who answer, a member that carries does not reach, with its name. Raises OSError."""

    def findings(self, group: str) -> tuple[Finding, ...]:
        """What people should know of the kernel's part."""

    def not_adopted(self, group: str) -> tuple[NotAdopted, ...]:
        """The addresses that the host has on the members and that the group leaves alone."""

    def arriving(self, group: str) -> tuple[InterfaceAddress, ...]:
        """The data addresses that have a place on a member and are not there yet: they are checked for duplicates."""

    @property
    def counters(self) -> dict[str, int]:
        """What happened so far, by the name of the counter."""

    async def close(self) -> None:
        """Close sockets; everything stays in the kernel."""


class Observer(Protocol):
    """Who is told of everything. Called in the loop: must not block, and does its work elsewhere."""

    def published(self, publication: Publication) -> None:
        """A new state of all groups."""

    def occurred(self, occurrence: Occurrence) -> None:
        """Something people are told of."""


class DataPlane:
    """The loop's owner. Made in the thread that runs it; of its methods, other threads may use `call` only."""

    def __init__(
        self,
        *,
        make_kernel: Callable[[Callable[[str, Event], None], Callable[[Callable[[], object]], None]], KernelPort],
        make_core: Callable[[NodeGroup, int], Core],
        measurements: Measurements,
        seed: int,
        save: Callable[[SavedState], None],
        written: Callable[[float], bool] = lambda _timeout: True,
        record: Callable[[Entry], None] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.kernel = make_kernel(self.sink, self.hear)
        self.groups: dict[str, RunningGroup] = {}
        self.observers: list[Observer] = []
        self.host_findings: list[Callable[[], tuple[Finding, ...]]] = []  # of every group, beside what the kernel has
        self.watchers: set[Callable[[str, ProbeClosed], None]] = set()  # of probes, live
        self.publication = Publication(0.0, wall())
        self.configured = False
        self.measurements = measurements
        self.written = written  # waits until what was saved is on disk; not for the loop
        self._make_core = make_core
        self._seed = seed
        self._save = save
        self._record = record
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[RunningGroup, Event, float]] = deque()
        self._turning = False
        self._turn_scheduled = False
        self._stopped = False  # what happens while the kernel's side is being closed is the next agent's business
        self._timer: asyncio.TimerHandle | None = None
        self._save_timer: asyncio.TimerHandle | None = None
        self._refresh_timer: asyncio.TimerHandle | None = None
        self._changed = False
        self._told: list[Occurrence] = []  # in this turn
        self._safe = True  # what was last to be secured is on disk
        self._known_when_saved: dict[str, StateRestored] = {}
        self._unfinished: SavedState = SavedState()  # groups that are still to be withdrawn, as they were saved
        self.trouble: set[str] = set()  # groups in which the kernel refused something since the last reconcile
        self.trouble_noticed = asyncio.Event()

    # --- from any thread

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Run a function in the loop; the future has its result, or RuntimeError once the loop has ended."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function())
            except Exception as error:  # noqa: BLE001 - it belongs to the caller
                future.set_exception(error)

        try:
            self._loop.call_soon_threadsafe(run)
        except RuntimeError:
            future.set_exception(RuntimeError("the agent is stopping"))
        return future

    # --- events in

    def sink(self, name: str, event: Event) -> None:
        """Take an event from the kernel's side. It is handled soon, never here."""
        group = self.groups.get(name)
        if group is None:
            return  # withdrawn while the event was under way
        if group.hold(event):
            return
        self._queue.append((group, event, self._loop.time()))
        if not self._turning and not self._turn_scheduled:
            self._turn_scheduled = True
            self._loop.call_soon(self._turn)

    def hear(self, read: Callable[[], object]) -> None:
        """Have the kernel's side read a socket, and handle what it sinks in the same wake-up."""
        self._turning = True
        try:
            read()
        finally:
            self._turning = False
            if self._queue:
                self._turn()

    def submit(self, group: RunningGroup, *events: Event) -> tuple[Occurrence, ...]:
        """Handle these events now, after those that wait; return what people were told meanwhile.

        Must not be used while actions are carried out.
        """
        now = self._loop.time()
        self._queue.extend((group, event, now) for event in events)
        self._turn()
        return tuple(self._told)

    # --- the turn

    def _turn(self, *, drained: bool = False) -> None:
        """Handle what is queued, tick who is due if the sockets have been drained, and show what changed."""
        self._turn_scheduled = False
        if self._stopped:
            return
        self._turning = True
        self._told.clear()
        try:
            self._handle_queue()
            if drained:
                self._tick_due()
        finally:
            self._turning = False
        self._arm()
        if self._changed:
            self._changed = False
            self.save_soon()
            self.publish()

    def _handle_queue(self) -> None:
        while self._queue:
            group, event, arrived = self._queue.popleft()
            if self.groups.get(group.name) is not group:
                continue
            try:
                actions = group.handle(event, self._loop.time())
            except Exception:
                self.measurements.errors["core"] += 1
                log.exception("the core refused %r; going on without it", event, extra={"group": group.name})
                continue
            self._carry_out(group, actions, arrived)

    def _tick_due(self) -> None:
        for group in tuple(self.groups.values()):
            deadline = group.next_deadline()
            now = self._loop.time()
            if deadline is None or now < deadline:
                continue
            try:
                actions = group.tick(now)
            except Exception:
                self.measurements.errors["core"] += 1
                group.pause(now + ERROR_PAUSE)
                log.exception("the core failed in a tick; going on", extra={"group": group.name})
                continue
            self._carry_out(group, actions, now)
            self._handle_queue()

    def _carry_out(self, group: RunningGroup, actions: list[Action], began: float) -> None:
        """Perform in order; count, log and tell afterwards, so that nothing stands before the announcement."""
        announced = began
        for action in actions:
            if isinstance(action, ProbeClosed):
                self._close_probe(group, action)
            elif isinstance(action, SendProbe):
                group.measurements.probe_sent(action.interface)
                self._perform(group, action)
            else:
                self._changed = True
                if not isinstance(action, Notify | InterfaceVerdict):
                    self._perform(group, action)
                if isinstance(action, MoveAddresses | Announce):
                    announced = self._loop.time()
        if self._changed:
            self._tell(group.account(actions, began, announced, self._wall()))

    def _perform(self, group: RunningGroup, order: Order) -> None:
        try:
            self.kernel.perform(group.name, order)
        except Exception:
            # One refused action spoils no other; the reconciliation that follows puts right what it can.
            log.exception("could not carry out %r: reconciling the kernel", order, extra={"group": group.name})
            self._notice_trouble(group)

    def tell(self, group: str, notice: Notify) -> None:
        """Tell people of something that is no core's decision."""
        self._tell([tell(group, notice, self._wall())])

    def _tell(self, occurrences: list[Occurrence]) -> None:
        self._told.extend(occurrences)
        for occurrence in occurrences:
            for observer in self.observers:
                observer.occurred(occurrence)

    def _close_probe(self, group: RunningGroup, probe: ProbeClosed) -> None:
        group.measurements.probe_closed(probe.interface, answered=probe.rtt is not None)
        for watcher in tuple(self.watchers):  # the control thread adds and removes them
            watcher(group.name, probe)

    def _notice_trouble(self, group: RunningGroup) -> None:
        self.measurements.errors["kernel"] += 1
        self.trouble.add(group.name)
        self.trouble_noticed.set()

    # --- the clock

    def _arm(self) -> None:
        """Wake at the earliest deadline."""
        deadlines = [d for group in self.groups.values() if (d := group.next_deadline()) is not None]
        earliest = min(deadlines, default=None)
        if self._timer is not None:
            if earliest == self._timer.when():
                return
            self._timer.cancel()
            self._timer = None
        if earliest is not None:
            self._timer = self._loop.call_at(earliest, self._wake, earliest)

    def _wake(self, deadline: float) -> None:
        """Replies first: what has arrived is not lost, however late this process is."""
        self._timer = None
        self._turning = True
        self.measurements.lag.observe(max(0.0, self._loop.time() - deadline))
        try:
            self.kernel.drain()
        except Exception:
            self.measurements.errors["drain"] += 1
            log.exception("could not read waiting replies")
        self._turn(drained=True)

    # --- groups, for the configuration

    def add(self, configuration: NodeGroup, history: tuple[Any, ...] = ()) -> RunningGroup:
        """Make a group whose events are held back until `release`."""
        name = configuration.group_name
        seed = self._seed ^ zlib.crc32(name.encode())
        if self._record:
            self._record(Started(name, self._loop.time(), seed, configuration))
        group = RunningGroup(
            configuration,
            self._make_core(configuration, seed),
            self.measurements.group(name),
            record=self._record,
            history=history,
        )
        self.groups[name] = group
        return group

    def release(self, group: RunningGroup, first: Event) -> None:
        """Let a group's events go: `first`, then those held back."""
        self.submit(group, first, *group.release_events())

    def remove(self, name: str) -> None:
        """Forget a group; its events go nowhere from now on."""
        if self.groups.pop(name, None) is not None:
            if self._record:
                self._record(Stopped(name, self._loop.time()))
            self._arm()

    def unplugged(self, name: str) -> bool:
        """Whether every member of a group that is here is without a link."""
        group = self.groups.get(name)
        members = [i for i in group.core.snapshot().interfaces if i.present] if group and group.released else []
        return bool(members) and all(member.link is LinkWord.DOWN for member in members)

    def unfinished(self, state: SavedState) -> None:
        """What to keep in the state file beside the groups that run, such as those not taken over or withdrawn yet."""
        self._unfinished = state
        self.save_soon()

    # --- what others see

    def refresh(self) -> None:
        """Publish at once and then every second; save what the cores have learned without giving an order."""
        self._refresh_timer = self._loop.call_later(REFRESH, self.refresh)
        if self._known() != self._known_when_saved:
            self.save_soon()
        self.publish()

    def publish(self) -> Publication:
        """Show the state of all groups now."""
        now, wall = self._loop.time(), self._wall()
        of_host = [finding for find in self.host_findings for finding in find()]
        for group in self.groups.values():
            if group.released:
                try:
                    found = (*self.kernel.findings(group.name), *of_host)
                    group.found(found, self.kernel.not_adopted(group.name))
                except Exception:  # what was found last stays
                    self.measurements.errors["kernel"] += 1
                    log.exception("cannot say what stands against it", extra={"group": group.name})
        self.publication = Publication(
            monotonic=now,
            time=wall,
            groups=tuple(group.view(now, wall) for group in self.groups.values()),
            pending=tuple(sorted(self._unfinished.groups)),
            configured=self.configured,
        )
        for observer in self.observers:
            observer.published(self.publication)
        return self.publication

    def _known(self) -> dict[str, StateRestored]:
        return {group.name: group.core.saved() for group in self.groups.values() if group.released}

    def save_soon(self) -> None:
        """Have the state written shortly."""
        if self._save_timer is None:
            self._save_timer = self._loop.call_later(SAVE_DELAY, self.save_now)

    def save_now(self) -> None:
        """Hand the state to its writer."""
        if self._save_timer is not None:
            self._save_timer.cancel()
            self._save_timer = None
        self._known_when_saved = self._known()
        saved = {
            group.name: group.to_save(self.kernel.memory(group.name))
            for group in self.groups.values()
            if group.released
        }
        # A group that is held back has not taken over yet: what was saved of it is still the truth.
        self._save(replace(self._unfinished, groups={**self._unfinished.groups, **saved}))

    async def secure(self) -> bool:
        """Have the state written now, and wait for the disk, yet not forever; returns whether it is on disk."""
        self.save_now()
        safe = await asyncio.to_thread(self.written, SECURING)
        if not safe and self._safe:
            log.warning("the disk takes nothing: if this agent is killed now, the next one cannot put everything back")
        self._safe = safe
        return safe

    def stop(self) -> None:
        """Do nothing more; the kernel stays as it is."""
        for timer in (self._timer, self._refresh_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._refresh_timer = None
        if self.configured or self._save_timer is not None:
            self.save_now()
        self._stopped = True
