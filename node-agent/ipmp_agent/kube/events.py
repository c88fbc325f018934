"""Events about node groups: what happened, once; what repeats itself is counted in a series."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ipmp_agent.core.actions import Severity
from ipmp_agent.kube.api import ApiError
from ipmp_api.status import cut
from ipmp_api.types import API_GROUP, API_VERSION, GROUP_KIND, NODE_GROUP_KIND

if TYPE_CHECKING:
    from ipmp_agent.kube.api import ApiServer, Object
    from ipmp_agent.publication import Occurrence

# The API server keeps events about cluster-scoped objects here and nowhere else.
PATH = "/apis/events.k8s.io/v1/namespaces/default/events"
CONTROLLER = f"{API_GROUP}/node-agent"
SERIES_SECONDS = 360.0
"""The same thing within this time belongs to the same event."""
REMEMBERED = 256
NOT_FOUND = 404


@dataclass(slots=True)
class _Posted:
    """An event that may become a series."""

    name: str
    count: int
    last: float  # seconds since the epoch


class Events:
    """Posts events; used by one thread."""

    def __init__(self, api: ApiServer, node_name: str) -> None:
        self._api = api
        self._node_name = node_name
        self._posted: dict[tuple[str, str, str], _Posted] = {}

    def post(self, occurrence: Occurrence, regarding: Object) -> None:
        """Post one occurrence about a node group. Raises ApiError, and then the same call may be tried again."""
        key = (regarding["metadata"]["uid"], occurrence.reason.value, occurrence.message)
        known = self._posted.get(key)
        if known is not None and occurrence.time - known.last <= SERIES_SECONDS and self._count(known, occurrence):
            return
        event = self._event(occurrence, regarding)
        self._api.create(PATH, event)
        if len(self._posted) >= REMEMBERED:
            del self._posted[next(iter(self._posted))]
        self._posted[key] = _Posted(event["metadata"]["name"], 1, occurrence.time)

    def _count(self, known: _Posted, occurrence: Occurrence) -> bool:
        """Make a series of a posted event; False when that has expired meanwhile."""
        series = {"count": known.count + 1, "lastObservedTime": _micro_time(occurrence.time)}
        try:
            self._api.merge(f"{PATH}/{known.name}", {"series": series})
        except ApiError as error:
            if error.status == NOT_FOUND:
                return False
            raise
        known.count += 1
        known.last = occurrence.time
        return True

    def _event(self, occurrence: Occurrence, regarding: Object) -> Object:
        name = regarding["metadata"]["name"]
        api_version = f"{API_GROUP}/{API_VERSION}"
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{name[:200]}.{uuid.uuid4().hex[:16]}", "namespace": "default"},
            "eventTime": _micro_time(occurrence.time),
            "reportingController": CONTROLLER,
            "reportingInstance": self._node_name[:128],
            "type": "Normal" if occurrence.severity is Severity.INFO else "Warning",
            "action": "Multipathing",
            "reason": occurrence.reason.value,
            "note": cut(occurrence.message),
            "regarding": {
                "apiVersion": api_version,
                "kind": NODE_GROUP_KIND,
                "name": name,
                "uid": regarding["metadata"]["uid"],
            },
            "related": {"apiVersion": api_version, "kind": GROUP_KIND, "name": occurrence.group},
        }


def _micro_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
