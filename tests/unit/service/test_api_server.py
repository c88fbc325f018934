"""The API server as a client meets it, over real HTTP: broken answers, endless ones, and credentials."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from ipmp_service import api_server
from ipmp_service.api_server import ApiError, ApiServer, CredentialsError, Kubeconfig, PlainAccess, ServiceAccount
from tests.unit.agent.api_server import GROUPS, NO_LISTS, FakeApiServer, manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ESTABLISHED, KEEPALIVE_TIMER = "01", "02"


@pytest.fixture
def server() -> Iterator[FakeApiServer]:
    running = FakeApiServer()
    yield running
    running.close()


@pytest.fixture
def api(server: FakeApiServer) -> ApiServer:
    return ApiServer(PlainAccess(server.url), "test/1", "tester")


# --- lists


@pytest.mark.parametrize("answer", NO_LISTS)
def test_what_is_no_list_is_no_empty_list(server: FakeApiServer, api: ApiServer, answer: Any) -> None:
    """Taken for an empty one it would take every address from every node."""
    server.lists = [answer]
    with pytest.raises(ApiError) as caught:
        api.list_all(GROUPS, {})
    assert (caught.value.status, caught.value.reason) == (0, "AnswerBroken")
    assert caught.value.away
    assert api.list_all(GROUPS, {}) == ([], "100"), "an empty list is one"


@pytest.mark.parametrize("answer", [{}, [], None, {"kind": "Status", "status": "Success"}])
def test_what_is_no_object_is_a_broken_answer(server: FakeApiServer, api: ApiServer, answer: Any) -> None:
    server.lists = [answer]
    with pytest.raises(ApiError, match="AnswerBroken"):
        api.get(GROUPS)


def test_long_list_is_read_page_by_page(server: FakeApiServer, api: ApiServer) -> None:
    first, second = (server_page(manifest(name), more) for name, more in (("a", "more"), ("b", "")))
    server.lists = [first, second]
    objects, version = api.list_all(GROUPS, {"fieldSelector": "x"})
    assert [obj["metadata"]["name"] for obj in objects] == ["a.node1", "b.node1"]
    assert version == "7"
    asked = [request[2] for request in server.requests]
    assert [query.get("continue") for query in asked] == [None, "more"]
    assert {query["fieldSelector"] for query in asked} == {"x"}


def server_page(obj: dict[str, Any], more: str) -> dict[str, Any]:
    metadata = {"resourceVersion": "7"} | ({"continue": more} if more else {})
    return {"kind": "IPMPNodeGroupList", "metadata": metadata, "items": [obj]}


def test_page_that_is_late_is_asked_for_again_with_fewer_objects_and_not_the_whole_list(
    server: FakeApiServer, api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_server, "REQUEST_TIMEOUT", 0.3)
    server.lists = [server_page(manifest(name), more) for name, more in (("a", "2nd"), ("b", "3rd"), ("c", ""))]
    server.unanswered = [False, True]
    objects, _ = api.list_all(GROUPS, {})
    assert [obj["metadata"]["name"] for obj in objects] == ["a.node1", "b.node1", "c.node1"]
    asked = [(query["limit"], query.get("continue")) for _, _, query, _, _ in server.requests]
    assert asked == [("250", None), ("250", "2nd"), ("125", "2nd"), ("125", "3rd")]


def test_list_whose_smallest_page_does_not_come_in_time_is_given_up(
    server: FakeApiServer, api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_server, "REQUEST_TIMEOUT", 0.1)
    server.unanswered = [True] * 3
    with pytest.raises(ApiError) as caught:
        api.list_all(GROUPS, {})
    assert (caught.value.late, caught.value.away, len(server.requests)) == (True, True, 2)


def test_list_without_end_is_given_up(server: FakeApiServer, api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_server, "PAGES", 5)
    server.lists = [server_page(manifest(), "more") for _ in range(100)]
    with pytest.raises(ApiError, match="has no end"):
        api.list_all(GROUPS, {})
    assert len(server.requests) == 5


# --- what the server asks for


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("86400", 60.0),
        ("99999999999999", 60.0),
        ("9" * 5000, 60.0),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("1e3", None),
        ("soon", None),
        ("\u0663", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 60.0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0),
        ("Fri, 31 Dec 1999 23:59:59", 0.0),
        ("Fri, 99 Dec 1999 23:59:59 GMT", None),
    ],
)
def test_wait_that_a_server_asks_for_is_bounded(said: str, seconds: float | None) -> None:
    error = api_server._refusal(429, "", said)
    assert error.retry_after == seconds
    assert error.away


def test_wait_is_read_from_the_answer(server: FakeApiServer, api: ApiServer) -> None:
    server.faults["GET"] = [429]
    server.retry_after = "86400"
    with pytest.raises(ApiError) as caught:
        api.list_all(GROUPS, {})
    assert caught.value.retry_after == api_server.RETRY_AFTER_LIMIT


@pytest.mark.parametrize(
    ("status", "away"), [(0, True), (429, True), (500, True), (503, True), (403, False), (404, False), (409, False)]
)
def test_server_that_answers_later_is_away_and_one_that_refuses_is_not(status: int, away: bool) -> None:
    """An API server that has just started says 429 of custom resources: storage is (re)initializing."""
    assert ApiError(status, "", "").away is away


def test_redirection_is_no_success(server: FakeApiServer, api: ApiServer) -> None:
    server.faults["GET"] = [302]
    with pytest.raises(ApiError) as caught:
        api.get(GROUPS)
    assert caught.value.status == 302


# --- answers that do not end


class Trickling:
    """Serves one answer and then a byte every now and then, for ever."""

    def __init__(self, head: bytes, byte: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self._head, self._byte = head, byte
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        connection, _ = self._listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(self._head)
            while not self._over.wait(0.01):
                connection.sendall(self._byte)

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._listener.close()


@pytest.fixture
def trickling() -> Iterator[Callable[[bytes, bytes], ApiServer]]:
    with contextlib.ExitStack() as stack:

        def start(head: bytes, byte: bytes) -> ApiServer:
            running = Trickling(head, byte)
            stack.callback(running.close)
            return ApiServer(PlainAccess(running.url), "test/1")

        yield start


@pytest.mark.parametrize(
    ("head", "byte"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n", b" "),
    ],
)
def test_watch_that_trickles_blanks_ends_soon_after_its_time(
    trickling: Callable[[bytes, bytes], ApiServer], head: bytes, byte: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_server, "WATCH_GRACE", 0.2)
    started = time.monotonic()
    with pytest.raises(ApiError, match="it has no end in time"):
        list(trickling(head, byte).watch(GROUPS, {}, "1", 0))
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("status", [b"200 OK", b"500 Oh"])
def test_answer_that_trickles_is_given_up(
    trickling: Callable[[bytes, bytes], ApiServer], status: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_server, "BODY_TIMEOUT", 0.2)
    with pytest.raises(ApiError, match="it has no end in time"):
        trickling(b"HTTP/1.1 " + status + b"\r\nContent-Length: 1000000\r\n\r\n", b" ").get(GROUPS)


@pytest.mark.parametrize("ask", [lambda api: api.get(GROUPS), lambda api: list(api.watch(GROUPS, {}, "1", 60))])
def test_answer_without_measure_is_given_up(
    trickling: Callable[[bytes, bytes], ApiServer], ask: Callable[[ApiServer], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_server, "BODY_LIMIT", 1 << 20)
    with pytest.raises(ApiError, match="bytes at once"):
        ask(trickling(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536))


def test_silent_server_is_given_up(server: FakeApiServer, api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_server, "REQUEST_TIMEOUT", 0.05)
    monkeypatch.setattr(api_server, "WATCH_SILENCE", 0.05)
    assert not api.connected, "nobody has been asked yet"
    with pytest.raises(ApiError, match="the watch broke"):
        list(api.watch(GROUPS, {}, "1", 60))
    assert not api.connected
    monkeypatch.setattr(api_server, "REQUEST_TIMEOUT", 15.0)
    api.list_all(GROUPS, {})
    assert api.connected
    monkeypatch.setattr(api_server, "REQUEST_TIMEOUT", 0.05)
    server.hanging.set()
    with pytest.raises(ApiError) as caught:
        api.list_all(GROUPS, {})
    assert caught.value.status == 0
    assert not api.connected


def test_server_that_refuses_is_connected(server: FakeApiServer, api: ApiServer) -> None:
    server.faults["GET"] = [503]
    with pytest.raises(ApiError):
        api.list_all(GROUPS, {})
    assert api.connected


# --- watches


@pytest.mark.parametrize(
    "event",
    [
        None,
        [],
        {},
        {"type": "ADDED"},
        {"type": "ADDED", "object": None},
        {"type": "ADDED", "object": {"metadata": {"name": "x"}}},
        {"type": "ADDED", "object": {"metadata": {"resourceVersion": "7"}}},
        {"type": "BOOKMARK", "object": {}},
        {"type": "ERROR", "object": {"code": "what"}},
    ],
)
def test_what_is_no_event_breaks_the_watch_and_no_thread(event: Any) -> None:
    with pytest.raises(ApiError) as caught:
        api_server._read_event(json.dumps(event).encode())
    assert caught.value.status == 0


def test_error_in_a_watch_is_the_server_s_own() -> None:
    status = {"code": 410, "reason": "Expired", "message": "too old resource version"}
    with pytest.raises(ApiError, match="Expired: too old") as caught:
        api_server._read_event(json.dumps({"type": "ERROR", "object": status}).encode())
    assert caught.value.gone


# --- connections


def timers_to(server: FakeApiServer) -> list[str]:
    """The kernel's timer of each connection to the server."""
    port = urlsplit(server.url).port
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    ours = [row for row in rows if row[2].endswith(f":{port:04X}") and row[3] == ESTABLISHED]
    return [row[5].partition(":")[0] for row in ours]


@pytest.mark.parametrize("way", ["plain", "kubeconfig"])
def test_kernel_asks_after_idle_connections(server: FakeApiServer, way: str, tmp_path: Path) -> None:
    """See KEEPALIVE."""
    (tmp_path / "kubeconfig").write_text(server.kubeconfig())
    access = PlainAccess(server.url) if way == "plain" else Kubeconfig(tmp_path / "kubeconfig")
    api = ApiServer(access, "test/1")
    api.list_all(GROUPS, {})
    api.list_all(GROUPS, {})
    assert timers_to(server) == [KEEPALIVE_TIMER]


def test_what_is_written_says_who_writes(server: FakeApiServer, api: ApiServer) -> None:
    server.put(manifest())
    api.replace_status(f"{GROUPS}/lab.node1", "uid-lab", {"state": "ok"})
    method, _, query, headers, _ = server.requests[-1]
    assert (method, query, headers["user-agent"]) == ("PATCH", {"fieldManager": "tester"}, "test/1")


# --- credentials


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a pod finds."""
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "ca.crt").write_text("-")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "198.18.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    return tmp_path


def test_rotated_token_is_read_anew(server: FakeApiServer, account: Path) -> None:
    in_pod = ServiceAccount(account)
    in_pod.url = server.url
    api = ApiServer(in_pod, "test/1")
    api.get(GROUPS)
    (account / "token").write_text("second")
    api.get(GROUPS)
    assert [request[3]["authorization"] for request in server.requests] == ["Bearer first", "Bearer second"]


@pytest.mark.parametrize("spoil", [lambda f: f.write_text(""), lambda f: f.unlink(), lambda f: f.write_text("a\nb")])
def test_token_that_cannot_be_read_for_a_moment_is_a_failed_request(
    server: FakeApiServer, account: Path, spoil: Callable[[Path], Any]
) -> None:
    """The thread that renews a lease lives through those, and through no other exception."""
    in_pod = ServiceAccount(account)
    in_pod.url = server.url
    api = ApiServer(in_pod, "test/1")
    spoil(account / "token")
    with pytest.raises(ApiError) as caught:
        api.get(GROUPS)
    assert caught.value.away
    (account / "token").write_text("another")
    api.get(GROUPS)
    assert server.requests[-1][3]["authorization"] == "Bearer another"


def test_server_of_an_ipv6_cluster_is_in_brackets(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ServiceAccount(account).url == "https://198.18.0.1:6443"
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    assert ServiceAccount(account).url == "https://[fd00::1]:6443"


@pytest.mark.parametrize("name", ["token", "ca.crt"])
def test_account_that_cannot_be_used_is_named(account: Path, name: str) -> None:
    (account / name).write_text("")
    with pytest.raises(CredentialsError, match=rf"/{name} is empty"):
        ServiceAccount(account)
    (account / name).unlink()
    with pytest.raises(CredentialsError, match=rf"No such file.*/{name}"):
        ServiceAccount(account)


def test_outside_a_pod_the_kubeconfig_is_taken(
    server: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
    with pytest.raises(CredentialsError, match=r"no pod \(.*HOST.*\), and no kubeconfig \("):
        api_server.access_from_environment()
    (tmp_path / "config").write_text(server.kubeconfig())
    access = api_server.access_from_environment()
    assert access.url == server.url
    assert access.credentials() == {"authorization": "Bearer secret"}


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.raises(CredentialsError, match="Python package `kubernetes`"):
        Kubeconfig(tmp_path)
