"""Events on cluster-scoped objects: one for each thing that happened, however often it is seen."""

from __future__ import annotations

import logging
import threading
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from ipmp_api.status import cut
from ipmp_operator.kube.client import ApiError

if TYPE_CHECKING:
    from ipmp_operator.kube.client import ApiServer, Object

log = logging.getLogger(__name__)

# The API server keeps events of cluster-scoped objects here and nowhere else.
_PATH = "/apis/events.k8s.io/v1/namespaces/default/events"
_REMEMBERED = 10000


class Regarding(NamedTuple):
    """The object that an event is about."""

    api_version: str
    kind: str
    name: str
    uid: str


class Events:
    """Posts events.k8s.io/v1 events; the same one again only after another of the same object and action."""

    def __init__(self, api: ApiServer, controller: str, instance: str) -> None:
        self._api = api
        self._controller = controller
        self._instance = instance[:128]
        self._last: dict[tuple[str, str], tuple[str, str]] = {}
        self._lock = threading.Lock()

    def post(self, regarding: Regarding, action: str, reason: str, note: str, *, warning: bool) -> None:
        """Post an event unless it is the last one of this object and action. A refusal is logged, no more."""
        key = (regarding.uid, action)
        with self._lock:
            if self._last.get(key) == (reason, note):
                return
            if len(self._last) >= _REMEMBERED:
                self._last.clear()
            self._last[key] = (reason, note)
        try:
            self._api.create(_PATH, self._manifest(regarding, action, reason, note, warning))
        except ApiError as error:
            log.warning("event %s on %s %s was not posted: %s", reason, regarding.kind, regarding.name, error)

    def _manifest(self, regarding: Regarding, action: str, reason: str, note: str, warning: bool) -> Object:
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{regarding.name[:200]}.{uuid.uuid4().hex[:16]}", "namespace": "default"},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": self._controller,
            "reportingInstance": self._instance,
            "type": "Warning" if warning else "Normal",
            "action": action,
            "reason": reason,
            "note": cut(note),
            "regarding": {
                "apiVersion": regarding.api_version,
                "kind": regarding.kind,
                "name": regarding.name,
                "uid": regarding.uid,
            },
        }
