"""A cache of one collection, kept by list and watch.

A list replaces the whole cache: what was deleted while nobody watched is gone from it afterwards. As long as the server
gives no list that can be read, the cache stays as it is.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from ipmp_service.api_server import ApiError
from ipmp_service.backoff import Backoff
from ipmp_service.threads import kept

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from ipmp_service.api_server import ApiServer, Object

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")

WATCH_SECONDS = (240, 300)
"""A range, so that the watches of many caches, in a whole cluster, do not end together."""
SHORTEST_WATCH = 1.0
"""Seconds; a watch that ends sooner with nothing to say is a failure, not an invitation to a busy loop."""

log = logging.getLogger(__name__)


class Reflector(Generic[K, V]):
    """Keeps `project(object)` for every object of a collection; calls `changed` after each change.

    An object that `project` cannot read keeps the value it had, if it had one, and holds up no other.

    Args:
        api: where the collection is.
        path: of the collection.
        what: its objects in words, for the log.
        project: returns a key and a value, or None for an object that does not matter.
        changed: called in the thread of the cache. What it raises leads to a new list.
        query: selectors.
        metadata_only: whether objects come without spec and status.
        longest: seconds between attempts to reach a server that is away.
    """

    def __init__(
        self,
        api: ApiServer,
        path: str,
        what: str,
        project: Callable[[Object], tuple[K, V] | None],
        changed: Callable[[], None],
        *,
        query: Mapping[str, str] | None = None,
        metadata_only: bool = False,
        longest: float | None = None,
    ) -> None:
        self._api = api
        self._path = path
        self._what = what
        self._project = project
        self._changed = changed
        self._query = dict(query or {})
        self._metadata_only = metadata_only
        self._lock = threading.Lock()
        self._items: dict[K, V] = {}
        self._keys: dict[tuple[str, str], K] = {}  # by namespace and name: under what an object is in _items
        self._backoff = Backoff(longest)
        self._stopping = threading.Event()
        self.synced = threading.Event()
        self._thread = kept(self._run, f"reflect {path}")

    def start(self) -> None:
        """Begin to list and watch, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End at the next event or timeout; the cache stays, and a request that hangs is left behind."""
        self._stopping.set()

    def snapshot(self) -> dict[K, V]:
        """A copy of the cache."""
        with self._lock:
            return dict(self._items)

    def get(self, key: K) -> V | None:
        """One object's value."""
        with self._lock:
            return self._items.get(key)

    def _run(self) -> None:
        version = ""
        while not self._stopping.is_set():
            version, progress, fault = self._follow(version)
            if self._stopping.is_set():
                return
            if progress:
                if self._backoff.failing:
                    log.info("watching %s works again", self._what)
                self._backoff.success()
            if fault is not None:
                delay = self._backoff.failure(fault.retry_after)
                if self._backoff.first and not fault.gone:
                    log.warning("watching %s failed (%s): trying on", self._what, fault)
                self._stopping.wait(delay)

    def _follow(self, version: str) -> tuple[str, bool, ApiError | None]:
        """List if need be, then watch.

        Returns:
            Where to go on (empty: with a list), whether the watch brought anything, and what went wrong.
        """
        start = version
        try:
            start = version = version or self._list()
            began = time.monotonic()
            seconds = random.randint(*WATCH_SECONDS)  # noqa: S311 - jitter
            events = self._api.watch(self._path, self._query, version, seconds, metadata_only=self._metadata_only)
            with contextlib.closing(events):
                for kind, obj in events:
                    self._observe(kind, obj)
                    version = str(obj["metadata"]["resourceVersion"])
                    if self._stopping.is_set():
                        break
        except ApiError as error:
            return ("" if error.gone else version), version != start, error
        except Exception as error:
            log.exception("could not take in a change of %s: reading all of them again", self._what)
            return "", False, ApiError(0, "Fault", str(error))
        if version == start and time.monotonic() - began < SHORTEST_WATCH:
            return version, False, ApiError(0, "WatchEnded", "the server ends every watch at once")
        return version, True, None

    def _list(self) -> str:
        items: dict[K, V] = {}
        keys: dict[tuple[str, str], K] = {}
        version = ""
        pages = self._api.pages(self._path, self._query, metadata_only=self._metadata_only)
        for page, version in pages:  # noqa: B007 - that of the last page counts
            page.reverse()
            while page:  # what was read is let go: a cache is small beside its objects
                obj = page.pop()
                entry = self._read(obj)
                if entry is not None:
                    items[entry[0]] = entry[1]
                    keys[_identity(obj)] = entry[0]
        with self._lock:
            same = items == self._items and self.synced.is_set()
            self._items, self._keys = items, keys
        self.synced.set()
        if not same:
            self._changed()
        return version

    def _observe(self, kind: str, obj: Object) -> None:
        if kind not in ("ADDED", "MODIFIED", "DELETED"):
            return  # a bookmark
        entry = None if kind == "DELETED" else self._read(obj)
        with self._lock:
            identity = _identity(obj)
            known = self._keys.get(identity)
            before = None if known is None else (known, self._items[known])
            if known is not None and (entry is None or entry[0] != known):
                del self._keys[identity], self._items[known]
            if entry is not None:
                self._keys[identity] = entry[0]
                self._items[entry[0]] = entry[1]
        if entry != before:
            self._changed()

    def _read(self, obj: Object) -> tuple[K, V] | None:
        """An object's key and value; those of before, or None, for one that cannot be read."""
        try:
            return self._project(obj)
        except Exception:
            namespace, name = _identity(obj)
            log.exception("cannot read %s: it counts as it was", "/".join(filter(None, (self._what, namespace, name))))
            with self._lock:
                key = self._keys.get((namespace, name))
                return None if key is None else (key, self._items[key])


def _identity(obj: Object) -> tuple[str, str]:
    metadata = obj["metadata"]
    return str(metadata.get("namespace") or ""), str(metadata["name"])
