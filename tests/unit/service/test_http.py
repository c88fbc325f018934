"""The health pages: what no client, and no kernel, may do to them."""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.registry import Collector

from ipmp_service import http
from ipmp_service.http import HealthServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

LOCAL = ("127.0.0.1", 0)


class Pages:
    """What a server answers, for a test to change."""

    def __init__(self) -> None:
        self.alive = (True, "alive")
        self.ready = (False, "filling the caches")
        self.registry = CollectorRegistry()


@pytest.fixture
def pages() -> Pages:
    return Pages()


@pytest.fixture
def server(pages: Pages) -> Iterator[HealthServer]:
    with closing(HealthServer(LOCAL, lambda: pages.registry, lambda: pages.alive, lambda: pages.ready)) as running:
        yield running


def fetch(server: HealthServer, path: str, timeout: float = 30) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.address[1]}{path}", timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def connect(server: HealthServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.address[1]), timeout=30)


def until(holds: Callable[[], Any]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        threading.Event().wait(0.002)


def test_pages_say_how_it_is(server: HealthServer, pages: Pages) -> None:
    Gauge("some_gauge", "A gauge.", registry=pages.registry).set(7)
    assert fetch(server, "/healthz") == (200, "alive\n")
    assert fetch(server, "/readyz?verbose") == (503, "filling the caches\n")
    assert "some_gauge 7.0" in fetch(server, "/metrics")[1]
    assert fetch(server, "/") == (404, "try /metrics, /healthz or /readyz\n")


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n", b"200"),
        (b"GET /healthz HTTP/1.1\nHost: h\n\n", b"200"),
        (b"POST /healthz HTTP/1.1\r\n\r\n", b"501"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/9.9\r\n\r\n", b"505"),
        (b"\r\n\r\n", b""),
        (b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"431"),
        (b"GET /healthz HTTP/1.1\r\nX: ".ljust(http.REQUEST_LIMIT, b"x"), b"200"),
        (b"GET /healthz HTTP/1.1\r\nHo", b""),
    ],
)
def test_whatever_is_asked_gets_one_answer(server: HealthServer, request_text: bytes, status: bytes) -> None:
    with connect(server) as client:
        client.sendall(request_text)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := client.recv(4096):
            answer += piece
    assert status in answer[:400]
    assert fetch(server, "/healthz")[0] == 200


@pytest.mark.parametrize("clients", [16, http.PLACES, 4 * http.PLACES])
def test_slow_clients_do_not_keep_health_checks_out(server: HealthServer, clients: int) -> None:
    """A tenant's pod that holds connections open would have the kubelet kill every agent."""
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(server)) for _ in range(clients)]
        for _ in range(20):
            for client in slow:
                try:
                    client.sendall(b"G")
                except OSError:
                    continue  # it lost its place
            assert fetch(server, "/healthz", timeout=5) == (200, "alive\n")


def test_clients_from_elsewhere_take_no_place_of_this_host(
    server: HealthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(server) as patient:  # as a kubelet that is slow to ask
        patient.sendall(b"GET /healthz HTTP/1.1\r\n")
        until(lambda: server._places[True])
        monkeypatch.setattr(http, "_is_local", lambda _: False)
        with ExitStack() as stack:
            for _ in range(4 * http.PLACES):
                stack.enter_context(connect(server))
            until(lambda: len(server._places[False]) == http.PLACES)
            patient.sendall(b"\r\n")
            assert patient.recv(4096).startswith(b"HTTP/1.0 200")


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("fe80::1%eth0", False),
    ],
)
def test_this_host_is_told_from_others(peer: str, local: bool) -> None:
    assert http._is_local(peer) is local


def test_idle_clients_hold_no_threads(server: HealthServer) -> None:
    before = threading.active_count()
    with ExitStack() as stack:
        for _ in range(64):
            stack.enter_context(connect(server))
        assert fetch(server, "/healthz")[0] == 200
        assert threading.active_count() <= before
        assert len(server._places[True]) <= http.PLACES


def _is_closed(client: socket.socket) -> bool:
    """Whether the far end takes no more; sends a byte to find out."""
    try:
        client.sendall(b"G")
    except OSError:
        return True
    return False


def test_trickling_request_has_one_deadline(server: HealthServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "DEADLINE", 0.3)
    with connect(server) as client:
        end = time.monotonic() + 30
        while not _is_closed(client):
            assert time.monotonic() < end, "it goes on for ever"
            threading.Event().wait(0.02)


def test_answer_that_nobody_reads_has_a_deadline(
    server: HealthServer, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "DEADLINE", 0.3)
    Gauge("long", "x" * (32 << 20), registry=pages.registry)
    with connect(server) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        until(lambda: server._places[True])
        until(lambda: not server._places[True])
        assert sum(iter(lambda: len(client.recv(1 << 20)), 0)) < 32 << 20


class Hanging(Collector):
    """Metrics that do not come."""

    def __init__(self) -> None:
        self.asked = 0
        self.release = threading.Event()

    def describe(self) -> Iterable[Any]:
        return ()

    def collect(self) -> Iterator[Any]:
        self.asked += 1
        self.release.wait(30)
        return iter(())


def test_metrics_that_hang_hold_up_no_health_check_and_do_not_pile_up(server: HealthServer, pages: Pages) -> None:
    hanging = Hanging()
    pages.registry.register(hanging)
    before = threading.active_count()
    with ExitStack() as stack:
        for _ in range(3 * http.PLACES):
            client = stack.enter_context(connect(server))
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert fetch(server, "/healthz", timeout=5)[0] == 200
        until(lambda: hanging.asked == http.SCRAPES)
        assert threading.active_count() <= before + http.SCRAPES
        hanging.release.set()


def test_fault_of_a_page_is_told_and_ends_nothing(
    server: HealthServer, pages: Pages, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Collector):
        def describe(self) -> Iterable[Any]:
            return ()

        def collect(self) -> Iterator[Any]:
            raise KeyError("gone")

    pages.registry.register(Broken())
    with caplog.at_level(logging.ERROR):
        assert fetch(server, "/metrics") == (500, "look at the log\n")
    assert "cannot answer /metrics" in caplog.text
    assert fetch(server, "/healthz")[0] == 200


def test_start_resolves_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: str = "") -> str:
        raise AssertionError(f"a name for {name!r} was looked up")

    monkeypatch.setattr(socket, "getfqdn", refused)
    monkeypatch.setattr(socket, "gethostbyaddr", refused)
    with closing(HealthServer(LOCAL, CollectorRegistry, lambda: (True, ""), lambda: (True, ""))) as server:
        assert server.address[1] > 0


def test_it_listens_everywhere_also_where_the_kernel_has_no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    class WithoutIPv6(socket.socket):
        def __init__(self, family: int = -1, *arguments: int, **more: int) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *arguments, **more)

    monkeypatch.setattr(socket, "socket", WithoutIPv6)
    with closing(HealthServer(("::", 0), CollectorRegistry, lambda: (True, "ok"), lambda: (True, ""))) as server:
        assert fetch(server, "/healthz") == (200, "ok\n")


def test_it_listens_to_both_families() -> None:
    with closing(HealthServer(("::", 0), CollectorRegistry, lambda: (True, "ok"), lambda: (True, ""))) as server:
        assert fetch(server, "/healthz") == (200, "ok\n")
        with urllib.request.urlopen(f"http://[::1]:{server.address[1]}/healthz", timeout=30) as answer:
            assert answer.read() == b"ok\n"


def test_address_in_use_is_an_error_of_the_start(server: HealthServer) -> None:
    with pytest.raises(OSError, match="in use"):
        HealthServer(("127.0.0.1", server.address[1]), CollectorRegistry, lambda: (True, ""), lambda: (True, ""))


def test_close_ends_it_with_clients_connected(server: HealthServer) -> None:
    with connect(server) as client:
        until(lambda: server._places[True])
        server.close()
        assert not server._thread.is_alive()
        assert client.recv(1) == b""
