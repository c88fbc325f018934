"""The operator and its API server, over real HTTP: what no fault of the server's or of the token's may do."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes import client
from kubernetes.config import incluster_config

from ipmp_operator.kube import reflector
from ipmp_operator.kube.client import ApiError, ApiServer
from ipmp_operator.kube.objects import read_node_group
from ipmp_operator.kube.reflector import Reflector
from tests.unit.agent.api_server import GROUPS, FakeApiServer, manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DEADLINE = 20.0


@pytest.fixture
def server() -> Iterator[FakeApiServer]:
    running = FakeApiServer()
    yield running
    running.close()


def until(holds: Callable[[], Any]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        threading.Event().wait(0.002)


@pytest.fixture
def caching(server: FakeApiServer) -> Iterator[Reflector[Any, Any]]:
    """A cache of node groups that is kept."""
    cache: Reflector[Any, Any] = Reflector(
        ApiServer(client.Configuration(host=server.url)), GROUPS, read_node_group, lambda: None
    )
    cache.start()
    until(lambda: server.watches)
    yield cache
    cache.stop()
    server.close()
    cache._thread.join(DEADLINE)
    assert not cache._thread.is_alive()


def test_server_that_ends_every_watch_at_once_meets_patience(
    server: FakeApiServer, caching: Reflector[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflector, "_BACKOFF_SECONDS", (3600.0, 3600.0))
    monkeypatch.setattr(reflector, "_SHORTEST_WATCH_SECONDS", 3600.0)
    server.end_watches()
    until(lambda: not server.watches)
    count = len(server.requests)
    threading.Event().wait(0.1)
    assert len(server.requests) == count


def test_watch_that_ends_after_news_goes_on_at_once(
    server: FakeApiServer, caching: Reflector[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflector, "_BACKOFF_SECONDS", (3600.0, 3600.0))
    monkeypatch.setattr(reflector, "_SHORTEST_WATCH_SECONDS", 3600.0)
    server.put(manifest())
    until(caching.snapshot)
    server.end_watches()
    until(lambda: len(server.requests) == 3 and server.watches)
    assert server.requests[-1][2]["resourceVersion"] == "101"


def test_token_that_cannot_be_read_for_a_moment_is_a_failed_request(
    server: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that renews the lease lives through those, and through no other exception."""
    token, certificate = tmp_path / "token", tmp_path / "ca.crt"
    for file in (token, certificate):
        file.write_text("something", encoding="ascii")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    configuration = client.Configuration()
    loader = incluster_config.InClusterConfigLoader(str(token), str(certificate))  # type: ignore[no-untyped-call]
    loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
    configuration.host, configuration.ssl_ca_cert = loader.host, loader.ssl_ca_cert = server.url, None
    api = ApiServer(configuration)
    loader.token_expires_at = loader.token_expires_at.min  # a minute later
    token.write_text("", encoding="ascii")
    with pytest.raises(ApiError, match="Token file exists but empty"):
        api.get(GROUPS)
    token.write_text("another", encoding="ascii")
    api.get(GROUPS)
    assert server.requests[-1][3]["authorization"] == "bearer another"
