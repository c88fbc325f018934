"""Events as the API server gets them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from ipmp_service import events
from ipmp_service.api_server import ApiError, ApiServer, PlainAccess
from ipmp_service.events import Event, EventSeries, EventsOnce, Reference
from tests.unit.agent.api_server import EVENTS, FakeApiServer

if TYPE_CHECKING:
    from collections.abc import Iterator

THING = Reference("example.org/v1", "Thing", "one", "uid-1")
WALL = 1_700_000_000.0


@pytest.fixture
def server() -> Iterator[FakeApiServer]:
    running = FakeApiServer()
    yield running
    running.close()


@pytest.fixture
def api(server: FakeApiServer) -> ApiServer:
    return ApiServer(PlainAccess(server.url), "test/1")


def event(note: str = "it broke", moment: float = WALL, regarding: Reference = THING) -> Event:
    return Event(regarding, "Watch", "Broken", note, time=moment)


def test_event_says_who_what_and_when(server: FakeApiServer, api: ApiServer) -> None:
    EventsOnce(api, "example.org/watcher", "i" * 200).post(event("n" * 2000))
    (posted,) = server.events
    assert server.seen("POST")[0][1] == EVENTS
    assert posted["metadata"].pop("name").startswith("one.")
    assert posted == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": "default"},
        "eventTime": "2023-11-14T22:13:20.000000Z",
        "reportingController": "example.org/watcher",
        "reportingInstance": "i" * 128,
        "type": "Warning",
        "action": "Watch",
        "reason": "Broken",
        "note": "n" * 1023 + "…",
        "regarding": {"apiVersion": "example.org/v1", "kind": "Thing", "name": "one", "uid": "uid-1"},
    }


def test_same_thing_is_posted_once_until_another_comes(server: FakeApiServer, api: ApiServer) -> None:
    once = EventsOnce(api, "c", "i")
    for note in ("a", "a", "b", "b", "a"):
        once.post(event(note))
    assert [posted["note"] for posted in server.events] == ["a", "b", "a"]


def test_refusal_is_logged_and_not_raised(
    server: FakeApiServer, api: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults["POST"] = [403]
    with caplog.at_level(logging.WARNING):
        EventsOnce(api, "c", "i").post(event())
    assert "event Broken on Thing one was not posted" in caplog.text


def test_repetition_is_counted_in_a_series_and_a_later_one_is_new(server: FakeApiServer, api: ApiServer) -> None:
    series = EventSeries(api, "c", "i")
    for moment in (0, 10, 20, 2000):
        series.post(event(moment=WALL + moment))
    first, second = server.events
    assert first["series"] == {"count": 3, "lastObservedTime": "2023-11-14T22:13:40.000000Z"}
    assert "series" not in second


def test_event_that_expired_meanwhile_is_posted_anew(server: FakeApiServer, api: ApiServer) -> None:
    series = EventSeries(api, "c", "i")
    series.post(event())
    server.events.clear()
    series.post(event(moment=WALL + 1))
    assert len(server.events) == 1


def test_refusal_is_raised_and_the_same_call_may_be_tried_again(server: FakeApiServer, api: ApiServer) -> None:
    series = EventSeries(api, "c", "i")
    server.faults["POST"] = [503]
    with pytest.raises(ApiError):
        series.post(event())
    series.post(event())
    assert len(server.events) == 1


def test_memory_of_what_was_posted_is_bounded(
    server: FakeApiServer, api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "REMEMBERED", 3)
    once, series = EventsOnce(api, "c", "i"), EventSeries(api, "c", "i")
    for number in range(10):
        once.post(event(regarding=Reference("v1", "Thing", "x", str(number))))
        series.post(event(str(number)))
    assert (len(once._last), len(series._posted)) == (3, 3)
