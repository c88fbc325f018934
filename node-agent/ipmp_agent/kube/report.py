"""Tells the API server what the agent sees: statuses when they change, and events.

A thread of its own with a slot for the newest publication: what came in between while the server did not answer is
skipped, and nobody waits for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import ipmp_agent
from ipmp_agent.core.actions import Severity
from ipmp_agent.kube.watch import PATH
from ipmp_api.status import Condition, NodeGroupStatus, from_dict, to_dict
from ipmp_api.types import API_GROUP, API_VERSION, GROUP_KIND, NODE_GROUP_KIND
from ipmp_service.api_server import ApiError
from ipmp_service.backoff import Backoff
from ipmp_service.damper import Damper
from ipmp_service.events import Event, EventSeries, Reference
from ipmp_service.threads import kept

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipmp_agent.publication import GroupView, Occurrence, Publication
    from ipmp_service.api_server import ApiServer, Object

SPACING = 1.0
"""Seconds between two writes of one status: what changes faster is told as it is then."""

EVENT_BACKLOG = 256
"""Events that may wait for the server; the oldest are dropped."""

EVENT_ROUND = 8
"""Events posted between two looks at the statuses."""

EVENT_ATTEMPTS = 5
"""Times that one event is tried."""

NODE_SETTLE = 2.0
"""Seconds that the members of a group are otherwise before the Node has an Event of it."""

NODE_SPACING = 60.0
"""Seconds between two Events of one group on the Node: a flapping cable must not hide what else is said there."""

FAULT_PAUSE = 1.0
"""Seconds after a fault of our own: it must not become a busy loop."""

API = f"{API_GROUP}/{API_VERSION}"
CONTROLLER = f"{API_GROUP}/node-agent"

WELL = ("", "")
"""What a Node needs no Event of: no member is unusable."""

UNDATED = datetime.min.replace(tzinfo=UTC)
"""Transition time of a condition before its time is set."""

log = logging.getLogger(__name__)


class Describe(Protocol):
    """`ipmp_agent.views.status`, handed in so that this room does not know that one."""

    def build(
        self, view: GroupView, *, now: float, previous: tuple[Condition, ...] = (), generation: int = 0
    ) -> NodeGroupStatus:
        """The status of one group."""

    def with_times(
        self, new: tuple[Condition, ...], *, now: float, previous: tuple[Condition, ...], generation: int
    ) -> tuple[Condition, ...]:
        """Conditions with their transition times."""


@dataclass(slots=True)
class _Reported:
    """One node group: what the server has of it."""

    uid: str
    status: Object
    not_before: float = 0.0  # monotonic seconds
    backoff: Backoff = field(default_factory=Backoff)
    on_node: Damper[tuple[str, str]] = field(  # reason and message of Degraded, as the Node's Events say it
        default_factory=lambda: Damper(WELL, settle=NODE_SETTLE, spacing=NODE_SPACING)
    )


class Reporter:
    """Writes statuses and events. `published`, `occurred` and `observed` may be called from any thread."""

    def __init__(self, api: ApiServer, node_name: str, describe: Describe) -> None:
        self._api = api
        self._describe = describe
        self._events = EventSeries(api, CONTROLLER, node_name)
        # As the kubelet names it: `kubectl describe node` looks for this, and agents may not read Nodes.
        self._node = Reference("v1", "Node", node_name, node_name)
        self._wake = threading.Condition()
        self._publication: Publication | None = None
        self._objects: dict[str, Object] = {}
        self._invalid: dict[str, str] = {}
        self._listed = False
        self._waiting: deque[Occurrence | Event] = deque(maxlen=EVENT_BACKLOG)
        self._news = False
        self._closing = False
        self._reported: dict[str, _Reported] = {}
        self._current_as_of = time.monotonic()  # a float is read whole by any thread
        self._attempts = 0
        self._events_not_before = 0.0
        self._event_backoff = Backoff()
        self._thread = kept(self._run, "kube-report")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self, timeout: float = 2.0) -> None:
        """Write what is still to be written, for at most `timeout` seconds."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout)

    # --- from other threads

    def published(self, publication: Publication) -> None:
        """Take the newest state."""
        with self._wake:
            self._publication = publication
            self._news = True
            self._wake.notify()

    def occurred(self, occurrence: Occurrence) -> None:
        """Take something people are told of."""
        with self._wake:
            self._waiting.append(occurrence)
            self._wake.notify()

    def observed(self, objects: dict[str, Object], invalid: dict[str, str]) -> None:
        """Take the node groups as the server has them, and why some of them cannot be used."""
        with self._wake:
            self._objects = objects
            self._invalid = invalid
            self._listed = True
            self._news = True
            self._wake.notify()

    def lag(self) -> float:
        """Seconds since the API server had all that there was to report."""
        return time.monotonic() - self._current_as_of

    # --- the thread

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._news or self._closing or self._events_due(), self._patience())
                self._news = False
                publication, objects, invalid = self._publication, self._objects, self._invalid
                closing = self._closing
                current = self._listed and publication is not None and publication.configured
                began = time.monotonic()
            try:
                for name, status in self._statuses(publication, objects, invalid):
                    current &= self._write(name, objects[name], status)
                    self._tell_node(name, _group_name(objects[name]), status)
                if current:
                    self._current_as_of = began
                self._post_events(objects)
            except Exception:
                log.exception("could not report to the API server; going on")
                with self._wake:
                    self._wake.wait_for(lambda: self._closing, FAULT_PAUSE)
            if closing:
                return

    def _events_due(self) -> bool:
        return bool(self._waiting) and time.monotonic() >= self._events_not_before

    def _patience(self) -> float | None:
        """Seconds until something that was put off is due; None: nothing was."""
        due = [reported.not_before for reported in self._reported.values() if reported.not_before]
        if self._waiting:
            due.append(self._events_not_before)
        return max(0.0, min(due) - time.monotonic()) if due else None

    # --- statuses

    def _statuses(
        self, publication: Publication | None, objects: dict[str, Object], invalid: dict[str, str]
    ) -> Iterator[tuple[str, NodeGroupStatus]]:
        """What each node group's status should be now."""
        self._reported = {name: known for name, known in self._reported.items() if name in objects}
        now = time.monotonic()
        for known in self._reported.values():
            if known.not_before <= now:
                known.not_before = 0.0  # due now: wait for it no longer, whatever becomes of it
        if publication is None or not publication.configured:
            return
        for name, obj in objects.items():
            known = self._known(name, obj)
            previous = _previous(known.status)
            generation = int(obj["metadata"].get("generation") or 0)
            group = _group_name(obj)
            view = publication.group(group)
            new: tuple[Condition, ...] = ()
            if view is not None:
                obeyed = generation if view.ready and name not in invalid else previous.observed_generation
                status = self._describe.build(
                    view, now=publication.time, previous=previous.conditions, generation=obeyed
                )
                if name in invalid:
                    new = (_condition("Programmed", "False", "InvalidSpec", invalid[name]),)
            elif obj["metadata"].get("deletionTimestamp"):
                if group in publication.pending:
                    continue
                status = previous
                new = (_condition("Withdrawn", "True", "Withdrawn", "nothing of the group is in the kernel"),)
            elif name in invalid:
                status = previous
                new = (
                    _condition("Programmed", "False", "InvalidSpec", invalid[name]),
                    _condition("Ready", "False", "InvalidSpec", invalid[name]),
                )
            else:
                continue  # on its way to the data plane
            yield name, self._with(status, new, previous, publication.time, generation)

    def _with(
        self,
        status: NodeGroupStatus,
        new: tuple[Condition, ...],
        previous: NodeGroupStatus,
        now: float,
        generation: int,
    ) -> NodeGroupStatus:
        """The status with these conditions in place of its own of the same type."""
        if not new:
            return status
        dated = self._describe.with_times(new, now=now, previous=previous.conditions, generation=generation)
        types = {condition.type for condition in dated}
        kept = tuple(condition for condition in status.conditions if condition.type not in types)
        return replace(status, conditions=(*kept, *dated), agent_version=ipmp_agent.__version__)

    def _known(self, name: str, obj: Object) -> _Reported:
        known = self._reported.get(name)
        if known is None or known.uid != obj["metadata"]["uid"]:
            known = _Reported(obj["metadata"]["uid"], obj.get("status") or {})
            self._reported[name] = known
        return known

    def _write(self, name: str, obj: Object, status: NodeGroupStatus) -> bool:
        """Write a status if it is another one, and may be written yet; whether the server has it."""
        known = self._reported[name]
        wanted = to_dict(status)
        now = time.monotonic()
        if wanted == known.status:
            known.not_before = 0.0
            return True
        if now < known.not_before and not self._closing:
            return False
        try:
            self._api.replace_status(f"{PATH}/{name}", obj["metadata"]["uid"], wanted)
        except ApiError as error:
            known.not_before = now + known.backoff.failure(error.retry_after)
            if known.backoff.first:
                log.warning("could not write the status of %s (%s): trying on", name, error)
            return False
        known.backoff.success()
        known.status = wanted
        known.not_before = now + SPACING
        return True

    # --- events

    def _tell_node(self, name: str, group: str, status: NodeGroupStatus) -> None:
        """Say on the Node which members of a group are unusable: not each change of it, but what lasts."""
        degraded = next((one for one in status.conditions if one.type == "Degraded" and one.status == "True"), None)
        state = (degraded.reason, degraded.message) if degraded else WELL
        if not self._reported[name].on_node.take(state, time.monotonic()):
            return
        reason, message = state if degraded else ("GroupOk", "every interface is usable")
        event = Event(
            regarding=self._node,
            action="Multipathing",
            reason=reason,
            note=f"IPMP group {group}: {message}",
            warning=degraded is not None,
            related=Reference(API, GROUP_KIND, group),
        )
        with self._wake:
            self._waiting.append(event)

    def _post_events(self, objects: dict[str, Object]) -> None:
        """Post some of what waits; a status that changes meanwhile comes before the rest."""
        by_group = {_group_name(obj): obj for obj in objects.values()}
        for _ in range(EVENT_ROUND):
            if not self._events_due():
                return
            waiting = self._waiting[0]
            event = waiting if isinstance(waiting, Event) else _event(waiting, by_group.get(waiting.group))
            if event is not None:
                try:
                    self._events.post(event)
                except ApiError as error:
                    if not self._give_up(error):
                        return
                else:
                    self._event_backoff.success()
            self._attempts = 0
            with self._wake:
                if self._waiting and self._waiting[0] is waiting:
                    self._waiting.popleft()

    def _give_up(self, error: ApiError) -> bool:
        """Whether this event is not worth another attempt."""
        self._events_not_before = time.monotonic() + self._event_backoff.failure(error.retry_after)
        if self._event_backoff.first:
            log.warning("could not post an event (%s)", error)
        self._attempts += 1
        return not error.away or (error.status != 0 and self._attempts >= EVENT_ATTEMPTS)


def _group_name(obj: Object) -> str:
    """The group of a node group, also of one whose spec cannot be used."""
    spec = obj.get("spec")
    name = spec.get("groupName") if isinstance(spec, dict) else None
    return str(name or obj["metadata"]["name"].partition(".")[0])


def _event(occurrence: Occurrence, regarding: Object | None) -> Event | None:
    """What the node group is told; None: it is gone."""
    if regarding is None:
        return None
    metadata = regarding["metadata"]
    return Event(
        regarding=Reference(API, NODE_GROUP_KIND, metadata["name"], metadata["uid"]),
        action="Multipathing",
        reason=occurrence.reason.value,
        note=occurrence.message,
        warning=occurrence.severity is not Severity.INFO,
        related=Reference(API, GROUP_KIND, occurrence.group),
        time=occurrence.time,
    )


def _previous(status: Object) -> NodeGroupStatus:
    """The status last written; an empty one where there is none that can be read."""
    try:
        return from_dict(NodeGroupStatus, status)
    except (ValueError, TypeError, AttributeError):
        return NodeGroupStatus(state="failed")


def _condition(kind: str, status: str, reason: str, message: str) -> Condition:
    return Condition(kind, status, reason, UNDATED, message)
