"""Connections to the API server that nobody uses are asked after, by agent and operator: see KEEPALIVE."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from kubernetes import client

from ipmp_agent.kube.api import ApiServer as AgentsApiServer
from ipmp_operator.kube.client import ApiServer as OperatorsApiServer
from tests.unit.agent.api_server import GROUPS, FakeApiServer

if TYPE_CHECKING:
    from collections.abc import Iterator

ESTABLISHED, KEEPALIVE_TIMER = "01", "02"


@pytest.fixture
def server() -> Iterator[FakeApiServer]:
    running = FakeApiServer()
    yield running
    running.close()


def timers_to(server: FakeApiServer) -> list[str]:
    """The kernel's timer of each connection to the server."""
    port = urlsplit(server.url).port
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    ours = [row for row in rows if row[2].endswith(f":{port:04X}") and row[3] == ESTABLISHED]
    return [row[5].partition(":")[0] for row in ours]


def test_kernel_asks_after_idle_connections_of_the_agent(server: FakeApiServer) -> None:
    agents = AgentsApiServer(client.Configuration(host=server.url))
    agents.list(GROUPS, {})
    assert timers_to(server) == [KEEPALIVE_TIMER]


def test_kernel_asks_after_idle_connections_of_the_operator(server: FakeApiServer) -> None:
    operators = OperatorsApiServer(client.Configuration(host=server.url))
    operators.list_all(GROUPS, {})
    assert timers_to(server) == [KEEPALIVE_TIMER]
