"""The HTTP servers of agent and operator start without asking anybody, DNS least of all."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from ipmp_agent.health import HealthServer as AgentServer
from ipmp_operator.health import HealthServer as OperatorServer

if TYPE_CHECKING:
    from collections.abc import Callable


def well() -> tuple[bool, str]:
    return True, "ok"


def agent() -> tuple[AgentServer, int]:
    server = AgentServer("127.0.0.1", 0, CollectorRegistry(), well, well)
    return server, server.address[1]


def operator() -> tuple[OperatorServer, int]:
    server = OperatorServer(("127.0.0.1", 0), CollectorRegistry(), well, well)
    return server, server.port


@pytest.mark.parametrize("start", [agent, operator])
def test_start_resolves_no_name(
    start: Callable[[], tuple[AgentServer | OperatorServer, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(name: str = "") -> str:
        raise AssertionError(f"a name for {name!r} was looked up")

    monkeypatch.setattr(socket, "getfqdn", refused)
    monkeypatch.setattr(socket, "gethostbyaddr", refused)
    server, port = start()
    try:
        assert port > 0
    finally:
        server.close()


def test_operator_listens_everywhere_also_where_the_kernel_has_no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    class WithoutIPv6(socket.socket):
        def __init__(self, family: int = -1, *arguments: int, **more: int) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *arguments, **more)

    monkeypatch.setattr(socket, "socket", WithoutIPv6)
    server = OperatorServer(("::", 0), CollectorRegistry(), well, well)
    try:
        with socket.create_connection(("127.0.0.1", server.port), 5):
            pass
    finally:
        server.close()
