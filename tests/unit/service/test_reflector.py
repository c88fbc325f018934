"""A cache of a collection, over real HTTP: what neither a confused server nor a confused object may do to it."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_service import backoff, reflector, threads
from ipmp_service.api_server import ApiServer, PlainAccess
from ipmp_service.reflector import Reflector
from tests.unit.agent.api_server import GROUPS, NO_LISTS, FakeApiServer, manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Object = dict[str, Any]


@pytest.fixture
def server() -> Iterator[FakeApiServer]:
    running = FakeApiServer()
    yield running
    running.close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "MINIMUM", 0.001)
    monkeypatch.setattr(backoff, "MAXIMUM", 0.01)


def until(holds: Callable[[], Any]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        threading.Event().wait(0.002)


class Cache:
    """A reflector of generations by name, and how often it said that something changed."""

    def __init__(self, server: FakeApiServer) -> None:
        self.changes = 0
        self.fault: Exception | None = None
        api = ApiServer(PlainAccess(server.url), "test/1")
        self.reflector: Reflector[str, int] = Reflector(api, GROUPS, "node groups", self.read, self.changed)
        self.reflector.start()

    @staticmethod
    def read(obj: Object) -> tuple[str, int] | None:
        generation = int(obj["metadata"]["generation"])
        return (obj["metadata"]["name"], generation) if generation else None

    def changed(self) -> None:
        self.changes += 1
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault

    @property
    def seen(self) -> dict[str, int]:
        return self.reflector.snapshot()


@pytest.fixture
def start(server: FakeApiServer) -> Iterator[Callable[[], Cache]]:
    caches: list[Cache] = []

    def begin() -> Cache:
        caches.append(Cache(server))
        return caches[-1]

    yield begin
    for cache in caches:
        cache.reflector.stop()
    server.close()
    for cache in caches:
        cache.reflector._thread.join(20)
        assert not cache.reflector._thread.is_alive()


def put(server: FakeApiServer, name: str, generation: Any, kind: str = "MODIFIED") -> None:
    server.put(manifest(name, metadata={"generation": generation}), kind)


def lists(server: FakeApiServer) -> int:
    return len([request for request in server.requests if "watch" not in request[2]])


def test_list_that_breaks_off_half_way_leaves_the_cache_as_it_was(
    server: FakeApiServer, start: Callable[[], Cache]
) -> None:
    put(server, "a", 1)
    cache = start()
    until(lambda: cache.seen == {"a.node1": 1} and server.watches)
    half = {"kind": "IPMPNodeGroupList", "metadata": {"resourceVersion": "7", "continue": "more"}, "items": []}
    server.lists = [half, {"kind": "Status", "status": "Success"}]
    server.send({"type": "ERROR", "object": {"code": 410, "reason": "Expired"}})
    until(lambda: lists(server) >= 4)
    assert cache.seen == {"a.node1": 1}
    assert cache.changes == 1


def test_collection_is_followed(server: FakeApiServer, start: Callable[[], Cache]) -> None:
    put(server, "a", 1)
    cache = start()
    until(lambda: cache.seen == {"a.node1": 1} and server.watches)
    put(server, "b", 1, "ADDED")
    until(lambda: cache.seen == {"a.node1": 1, "b.node1": 1})
    put(server, "a", 2)
    until(lambda: cache.seen == {"a.node1": 2, "b.node1": 1})
    server.delete("b.node1")
    until(lambda: cache.seen == {"a.node1": 2})
    assert cache.changes == 4
    put(server, "a", 2)
    put(server, "a", 0)
    until(lambda: cache.seen == {})
    assert cache.changes == 5, "what changes nothing that matters is no change"
    assert lists(server) == 1


@pytest.mark.parametrize("answer", NO_LISTS)
def test_what_is_known_is_kept_while_the_server_gives_no_list(
    server: FakeApiServer, start: Callable[[], Cache], answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    put(server, "a", 1)
    cache = start()
    until(lambda: cache.seen and server.watches)
    server.lists = [answer] * 3
    server.send({"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}})
    until(lambda: lists(server) == 5 and server.watches)
    assert cache.changes == 1
    assert cache.seen == {"a.node1": 1}
    assert "Traceback" not in caplog.text


def test_nothing_is_known_before_the_first_list(server: FakeApiServer, start: Callable[[], Cache]) -> None:
    put(server, "a", 1)
    server.lists = [{}] * 3
    cache = start()
    until(lambda: len(server.requests) >= 3)
    assert cache.changes == len(cache.seen)
    until(lambda: cache.changes)


def test_object_that_cannot_be_read_holds_up_no_other(
    server: FakeApiServer, start: Callable[[], Cache], caplog: pytest.LogCaptureFixture
) -> None:
    put(server, "broken", "nonsense")
    put(server, "a", 1)
    cache = start()
    until(lambda: cache.seen == {"a.node1": 1} and server.watches)
    put(server, "b", "nonsense", "ADDED")
    put(server, "c", 1, "ADDED")
    until(lambda: cache.seen == {"a.node1": 1, "c.node1": 1})
    assert "cannot read node groups/b.node1" in caplog.text
    put(server, "b", 3)
    until(lambda: cache.seen == {"a.node1": 1, "c.node1": 1, "b.node1": 3})
    assert lists(server) == 1


def test_object_that_cannot_be_read_any_more_counts_as_it_was(
    server: FakeApiServer, start: Callable[[], Cache]
) -> None:
    """Absent it would be deleted: what it held would be given to others."""
    put(server, "a", 1)
    cache = start()
    until(lambda: cache.seen and server.watches)
    put(server, "a", "nonsense")
    put(server, "b", 1, "ADDED")
    until(lambda: len(cache.seen) == 2)
    assert cache.seen == {"a.node1": 1, "b.node1": 1}
    server.send({"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}})
    until(lambda: lists(server) == 2 and server.watches)
    assert cache.seen == {"a.node1": 1, "b.node1": 1}
    server.delete("a.node1")
    until(lambda: cache.seen == {"b.node1": 1})


def test_fault_of_who_is_told_leads_to_a_new_list(server: FakeApiServer, start: Callable[[], Cache]) -> None:
    cache = start()
    until(lambda: server.watches)
    cache.fault = RuntimeError("confused")
    put(server, "a", 1, "ADDED")
    until(lambda: lists(server) == 2 and server.watches)
    assert cache.seen == {"a.node1": 1}


@pytest.mark.parametrize("said", ["99999999999999", "9" * 400, "-1", "nan", "soon", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_no_wait_that_a_server_asks_for_ends_the_thread(
    server: FakeApiServer, start: Callable[[], Cache], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ipmp_service.api_server.RETRY_AFTER_LIMIT", 0.01)
    server.faults["GET"] = [429] * 3
    server.retry_after = said
    put(server, "a", 1)
    cache = start()
    until(lambda: cache.seen)


def test_server_that_fails_is_told_of_once_and_so_is_its_return(
    server: FakeApiServer, start: Callable[[], Cache], caplog: pytest.LogCaptureFixture
) -> None:
    server.faults["GET"] = [503] * 5
    with caplog.at_level(logging.INFO):
        start()
        until(lambda: server.watches)
        put(server, "a", 1, "ADDED")
        server.end_watches()
        until(lambda: "works again" in caplog.text)
    assert caplog.text.count("watching node groups failed") == 1


def test_watch_that_ends_after_news_goes_on_at_once(
    server: FakeApiServer, start: Callable[[], Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = start()
    until(lambda: server.watches)
    monkeypatch.setattr(backoff, "MINIMUM", 3600.0)
    monkeypatch.setattr(backoff, "MAXIMUM", 3600.0)
    monkeypatch.setattr(reflector, "SHORTEST_WATCH", 3600.0)
    put(server, "a", 1, "ADDED")
    until(lambda: cache.seen)
    server.end_watches()
    until(lambda: len(server.requests) == 3 and server.watches)
    assert server.requests[-1][2]["resourceVersion"] == "101"


def test_server_that_ends_every_watch_at_once_meets_patience(
    server: FakeApiServer, start: Callable[[], Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    start()
    until(lambda: server.watches)
    monkeypatch.setattr(backoff, "MINIMUM", 3600.0)
    monkeypatch.setattr(backoff, "MAXIMUM", 3600.0)
    monkeypatch.setattr(reflector, "SHORTEST_WATCH", 3600.0)
    server.end_watches()
    until(lambda: not server.watches)
    count = len(server.requests)
    threading.Event().wait(0.1)
    assert len(server.requests) == count


def test_thread_that_meets_a_fault_of_its_own_begins_anew(
    server: FakeApiServer, start: Callable[[], Cache], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(threads, "PAUSE", 0.001)
    faults = iter([OverflowError("timestamp too large"), MemoryError()])
    honest = backoff.Backoff.failure

    def failure(self: backoff.Backoff, asked: float | None = None) -> float:
        for fault in faults:
            raise fault
        return honest(self, asked)

    monkeypatch.setattr(backoff.Backoff, "failure", failure)
    server.faults["GET"] = [503] * 3
    put(server, "a", 1)
    cache = start()
    until(lambda: cache.seen)
    assert caplog.text.count("met a fault and begins anew") == 2
