"""Events of events.k8s.io/v1 about objects without a namespace: each thing once, or as a series that counts it."""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ipmp_service.api_server import ApiError

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ipmp_service.api_server import ApiServer, Object

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")

# The API server keeps events about cluster-scoped objects here and nowhere else.
PATH = "/apis/events.k8s.io/v1/namespaces/default/events"

NOTE_LIMIT = 1024
"""Characters that the API server takes of a note."""

SERIES_SECONDS = 360.0
"""The same thing within this time belongs to the same event."""

REMEMBERED = 4096
"""Events of which it is known that they were posted."""

log = logging.getLogger(__name__)


class Reference(NamedTuple):
    """An object; without a uid, whichever has the name."""

    api_version: str
    kind: str
    name: str
    uid: str = ""

    def manifest(self) -> Object:
        """An ObjectReference."""
        manifest = {"apiVersion": self.api_version, "kind": self.kind, "name": self.name}
        return manifest | {"uid": self.uid} if self.uid else manifest


@dataclass(frozen=True, slots=True)
class Event:
    """Something people are told of; `time` is in seconds since the epoch."""

    regarding: Reference
    action: str
    reason: str
    note: str
    warning: bool = True
    related: Reference | None = None
    time: float = field(default_factory=time.time)


class _Poster:
    """Posts events in the name of one reporter."""

    def __init__(self, api: ApiServer, controller: str, instance: str) -> None:
        self._api = api
        self._controller = controller
        self._instance = instance[:128]

    def _create(self, event: Event) -> str:
        """Post an event; returns its name. Raises ApiError."""
        note, name = event.note, f"{event.regarding.name[:200]}.{os.urandom(8).hex()}"
        manifest = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": "default"},
            "eventTime": _micro_time(event.time),
            "reportingController": self._controller,
            "reportingInstance": self._instance,
            "type": "Warning" if event.warning else "Normal",
            "action": event.action,
            "reason": event.reason,
            "note": note if len(note) <= NOTE_LIMIT else f"{note[: NOTE_LIMIT - 1]}…",
            "regarding": event.regarding.manifest(),
        }
        if event.related is not None:
            manifest["related"] = event.related.manifest()
        self._api.create(PATH, manifest)
        return name


class EventsOnce(_Poster):
    """Posts an event unless it is the last one of its object and action. Safe from any thread."""

    def __init__(self, api: ApiServer, controller: str, instance: str) -> None:
        super().__init__(api, controller, instance)
        self._last: dict[tuple[str, str], tuple[str, str]] = {}
        self._lock = threading.Lock()

    def post(self, event: Event) -> None:
        """Post it, if it is news. A refusal is logged, no more."""
        key, said = (event.regarding.uid, event.action), (event.reason, event.note)
        with self._lock:
            if self._last.get(key) == said:
                return
            _remember(self._last, key, said)
        try:
            self._create(event)
        except ApiError as error:
            regarding = event.regarding
            log.warning("event %s on %s %s was not posted: %s", event.reason, regarding.kind, regarding.name, error)


@dataclass(slots=True)
class _Posted:
    """An event that may become a series."""

    name: str
    count: int
    last: float  # seconds since the epoch


class EventSeries(_Poster):
    """Posts events, and counts in a series what repeats itself. Used by one thread."""

    def __init__(self, api: ApiServer, controller: str, instance: str) -> None:
        super().__init__(api, controller, instance)
        self._posted: dict[tuple[str, str, str], _Posted] = {}

    def post(self, event: Event) -> None:
        """Post one occurrence. Raises ApiError, and then the same call may be tried again."""
        key = (event.regarding.uid, event.reason, event.note)
        known = self._posted.get(key)
        if known is None or event.time - known.last > SERIES_SECONDS or not self._count(known, event.time):
            _remember(self._posted, key, _Posted(self._create(event), 1, event.time))

    def _count(self, known: _Posted, moment: float) -> bool:
        """Make a series of a posted event; False when that has expired meanwhile."""
        series = {"count": known.count + 1, "lastObservedTime": _micro_time(moment)}
        try:
            self._api.merge(f"{PATH}/{known.name}", {"series": series})
        except ApiError as error:
            if error.not_found:
                return False
            raise
        known.count += 1
        known.last = moment
        return True


def _remember(memory: dict[K, V], key: K, value: V) -> None:
    if key not in memory and len(memory) >= REMEMBERED:
        del memory[next(iter(memory))]
    memory[key] = value


def _micro_time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
