"""sd_notify, to a socket that a service manager would have."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from ipmp_service.service_manager import ServiceManager

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as found:
        yield found


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    path = str(tmp_path / "notify")
    name = path if request.param == "path" else f"@{path}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name.replace("@", "\0"))
        receiver.settimeout(30)
        yield receiver, name


def test_words_come_in_one_datagram(listener: tuple[socket.socket, str], stack: contextlib.ExitStack) -> None:
    receiver, name = listener
    manager = ServiceManager.of({"NOTIFY_SOCKET": name})
    assert manager is not None
    stack.callback(manager.close)
    assert manager.watchdog is None
    assert manager.tell("READY=1", "STATUS=lab ok")
    assert receiver.recv(4096) == b"READY=1\nSTATUS=lab ok"
    assert manager.reloading()
    first, second = receiver.recv(4096).decode().splitlines()
    assert first == "RELOADING=1"
    assert second.startswith("MONOTONIC_USEC=")


@pytest.mark.parametrize(
    ("pid", "microseconds", "seconds"),
    [("7", "30000000", 30.0), ("", "1500000", 1.5), ("8", "30000000", None), ("7", "0", None), ("7", "soon", None)],
)
def test_watchdog_is_for_the_process_it_names(
    pid: str, microseconds: str, seconds: float | None, stack: contextlib.ExitStack
) -> None:
    environment = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": microseconds, "WATCHDOG_PID": pid}
    manager = ServiceManager.of(environment, pid=7)
    assert manager is not None
    stack.callback(manager.close)
    assert manager.watchdog == seconds


@pytest.mark.parametrize("path", ["", "relative", "vsock:2:1"])
def test_nobody_is_told_where_nobody_asked_in_a_way_that_is_known(path: str) -> None:
    assert ServiceManager.of({"NOTIFY_SOCKET": path}) is None
    assert ServiceManager.of({}) is None


def test_a_manager_that_is_away_or_full_holds_nobody_up(tmp_path: Path, stack: contextlib.ExitStack) -> None:
    away = ServiceManager(str(tmp_path / "nobody"))
    stack.callback(away.close)
    assert not away.tell("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "slow"))
        manager = ServiceManager(str(tmp_path / "slow"))
        stack.callback(manager.close)
        taken = [manager.tell(f"STATUS={number}") for number in range(10_000)]
        assert taken[0]
        assert not taken[-1]
        receiver.recv(4096)
        assert manager.tell("READY=1"), "what it has room for again"
