"""A cache of one collection, kept by list and watch.

A list replaces the whole cache: what was deleted while nobody watched is gone from it afterwards.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from ipmp_operator.kube.client import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from ipmp_operator.kube.client import ApiServer, Object

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")

log = logging.getLogger(__name__)

_WATCH_SECONDS = (240, 300)  # a range, so that the watches of many caches do not end together
# A watch that ends sooner with nothing to say is a failure, not an invitation to a busy loop.
_SHORTEST_WATCH_SECONDS = 1.0
_BACKOFF_SECONDS = (0.5, 8.0)


class Reflector(Generic[K, V]):
    """Keeps `project(object)` for every object of a collection; calls `changed` after each change.

    `project` returns a key and a small value, or None for an object that does not matter: objects are not kept whole.
    """

    def __init__(
        self,
        api: ApiServer,
        path: str,
        project: Callable[[Object], tuple[K, V] | None],
        changed: Callable[[], None],
        *,
        query: Mapping[str, str] | None = None,
        metadata_only: bool = False,
    ) -> None:
        self._api = api
        self._path = path
        self._project = project
        self._changed = changed
        self._query = dict(query or {})
        self._metadata_only = metadata_only
        self._lock = threading.Lock()
        self._items: dict[K, V] = {}
        self._stop = threading.Event()
        self.synced = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"reflect {path}", daemon=True)

    def start(self) -> None:
        """Begin to list and watch, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End at the next event or timeout; the cache stays as it is."""
        self._stop.set()

    def snapshot(self) -> dict[K, V]:
        """Return a copy of the cache."""
        with self._lock:
            return dict(self._items)

    def get(self, key: K) -> V | None:
        """Return one object's value."""
        with self._lock:
            return self._items.get(key)

    def _run(self) -> None:
        version = ""
        failures = 0
        while not self._stop.is_set():
            try:
                if not version:
                    version = self._list()
                version = self._watch(version)
                failures = 0
            except _Interrupted as interrupted:
                version = interrupted.version
                failures = 1 if interrupted.progress else failures + 1
                self._pause(failures, interrupted.retry_after, interrupted.__cause__)
            except Exception as error:
                version = ""  # what an object that could not be read left out is in the next list
                failures += 1
                log.exception("reading %s failed", self._path)
                self._pause(failures, None, error)

    def _pause(self, failures: int, retry_after: float | None, cause: BaseException | None) -> None:
        low, high = _BACKOFF_SECONDS
        delay = retry_after or min(high, low * 2.0 ** min(failures - 1, 16)) * random.uniform(0.5, 1)  # noqa: S311
        level = logging.WARNING if failures > 1 else logging.INFO  # once is any server's restart
        log.log(level, "watching %s failed (%s); again in %.1f s", self._path, cause, delay)
        self._stop.wait(delay)

    def _list(self) -> str:
        try:
            objects, version = self._api.list_all(self._path, self._query, metadata_only=self._metadata_only)
        except ApiError as error:
            raise _Interrupted("", error.retry_after) from error
        items = dict(entry for entry in map(self._project, objects) if entry is not None)
        with self._lock:
            same = items == self._items and self.synced.is_set()
            self._items = items
        self.synced.set()
        if not same:
            self._changed()
        return version

    def _watch(self, version: str) -> str:
        """Follow the collection from a version on; return the version reached."""
        start, began = version, time.monotonic()
        events = self._api.watch(
            self._path,
            self._query,
            version,
            random.randint(*_WATCH_SECONDS),  # noqa: S311
            metadata_only=self._metadata_only,
        )
        try:
            for kind, obj in events:
                version = str(obj["metadata"]["resourceVersion"])
                if kind != "BOOKMARK":
                    self._observe(kind, obj)
                if self._stop.is_set():
                    break
        except ApiError as error:
            # That a version is too old says that the server is there again.
            progress = error.gone or version != start
            raise _Interrupted("" if error.gone else version, error.retry_after, progress) from error
        if version == start and time.monotonic() - began < _SHORTEST_WATCH_SECONDS:
            raise _Interrupted(version, None) from ApiError(0, "WatchEnded", "the server ends every watch at once")
        return version

    def _observe(self, kind: str, obj: Object) -> None:
        entry = self._project(obj)
        if entry is None:
            return
        key, value = entry
        with self._lock:
            if kind == "DELETED":
                self._items.pop(key, None)
            elif self._items.get(key) == value:
                return
            else:
                self._items[key] = value
        self._changed()


class _Interrupted(Exception):  # noqa: N818 - the ordinary end of a watch, not a fault
    """A list or watch ended early; `version` is where to go on, empty for a new list."""

    def __init__(self, version: str, retry_after: float | None, progress: bool = False) -> None:
        super().__init__(version)
        self.version = version
        self.retry_after = retry_after
        self.progress = progress
