"""The node groups of one node, kept by list and watch in a thread of their own."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING

from ipmp_agent.kube.api import ApiError
from ipmp_agent.kube.backoff import Backoff
from ipmp_api.types import API_GROUP, API_VERSION, NODE_GROUP_PLURAL

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipmp_agent.kube.api import ApiServer, Object

PATH = f"/apis/{API_GROUP}/{API_VERSION}/{NODE_GROUP_PLURAL}"
WATCH_SECONDS = (240, 300)
"""A range, so that the watches of a whole cluster do not end together."""
SHORTEST_WATCH = 1.0
"""Seconds; a watch that ends sooner with nothing to say is a failure, not an invitation to a busy loop."""
GONE = 410

log = logging.getLogger(__name__)


class NodeGroupWatch:
    """Calls `changed` with every node group of this node, by name, whenever one of them changed."""

    def __init__(self, api: ApiServer, node_name: str, changed: Callable[[dict[str, Object]], None]) -> None:
        self._api = api
        self._query = {"fieldSelector": f"spec.nodeName={node_name}"}
        self._changed = changed
        self._objects: dict[str, Object] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kube-watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End; a request that hangs is left behind with its daemon thread."""
        self._stopping.set()

    def _run(self) -> None:
        backoff = Backoff()
        version = ""
        while not self._stopping.is_set():
            before, began = version, time.monotonic()
            version, fault = self._follow(version)
            if self._stopping.is_set():
                return
            if version not in ("", before):
                backoff.success()  # it worked for a while
            elif fault is None and time.monotonic() - began < SHORTEST_WATCH:
                fault = ApiError(0, "the server ends every watch at once")
            if fault is not None:
                delay = backoff.failure(fault.retry_after)
                if backoff.first and fault.status != GONE:
                    log.warning("watching node groups failed (%s): trying on", fault)
                self._stopping.wait(delay)

    def _follow(self, version: str) -> tuple[str, ApiError | None]:
        """List if need be, then watch; return where to go on (empty: with a list), and what went wrong."""
        try:
            if not version:
                version = self._list()
            seconds = random.randint(*WATCH_SECONDS)  # noqa: S311 - jitter
            for kind, obj in self._api.watch(PATH, self._query, version, seconds):
                version = str(obj["metadata"]["resourceVersion"])
                self._observe(kind, obj)
                if self._stopping.is_set():
                    break
        except ApiError as error:
            return ("" if error.status == GONE else version), error
        except Exception as error:
            log.exception("could not take in a change of a node group: reading all of them again")
            return "", ApiError(0, str(error))
        return version, None

    def _list(self) -> str:
        """Replace the cache: what was deleted while nobody watched is gone from it afterwards."""
        objects, version = self._api.list(PATH, self._query)
        self._objects = {obj["metadata"]["name"]: obj for obj in objects}
        self._changed(dict(self._objects))
        return version

    def _observe(self, kind: str, obj: Object) -> None:
        name = obj["metadata"].get("name", "")
        if kind in ("ADDED", "MODIFIED"):
            self._objects[name] = obj
        elif kind == "DELETED":
            self._objects.pop(name, None)
        else:
            return  # a bookmark
        self._changed(dict(self._objects))
