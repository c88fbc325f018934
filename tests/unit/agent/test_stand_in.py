"""One agent stands in for another: who has the host and when, with time as an argument, and how it changes hands."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.disk.directories import SOCKET_NAME, InUseError
from ipmp_agent.disk.state import SavedGroup, SavedState
from ipmp_agent.process import handover
from ipmp_agent.process.standin import StandInSource
from ipmp_agent.process.vacancy import PATIENCE, Vacancy
from tests.unit.agent.building import unprobed_group

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ipmp_api.types import NodeGroup


# --- when


@pytest.mark.parametrize(
    ("seen", "taken_over"),
    [
        ([(0, True), (100, True)], None),
        ([(0, False), (PATIENCE - 0.1, False)], None),
        ([(0, False), (PATIENCE, False)], PATIENCE),
        ([(0, True), (7, False), (7 + PATIENCE, False)], 7 + PATIENCE),
        ([(0, False), (4, True), (4.5, False), (6, False), (4.5 + PATIENCE, False)], 4.5 + PATIENCE),
        ([(50, False), (90, False)], 90),
    ],
    ids=["an agent stays", "not yet", "nobody", "it goes for good", "it is replaced", "a sleep"],
)
def test_a_host_is_taken_over_after_a_while_without_an_agent(
    seen: list[tuple[float, bool]], taken_over: float | None
) -> None:
    vacancy = Vacancy(PATIENCE)
    assert next((now for now, taken in seen if vacancy.seen(now, taken=taken)), None) == taken_over


# --- what


class Files:
    """Files with one group."""

    def __init__(self) -> None:
        self.reloads = 0

    def start(self, want: Callable[[tuple[NodeGroup, ...]], None], saved: SavedState) -> None:
        del saved
        want((unprobed_group("of-files"),))

    def reload(self) -> None:
        self.reloads += 1


def wanted(directory: Path, files: Files | None, *saved: str) -> list[str]:
    found: list[str] = []
    source = StandInSource(directory, files)  # type: ignore[arg-type]
    state = SavedState({name: SavedGroup(unprobed_group(name)) for name in saved})
    source.start(lambda groups: found.extend(group.group_name for group in groups), state)
    source.reload()
    return found


def test_files_count_until_an_agent_of_the_api_server_has_been_here(tmp_path: Path) -> None:
    files = Files()
    assert wanted(tmp_path, files, "older") == ["of-files"]
    assert files.reloads == 1
    handover.mark(tmp_path)
    assert wanted(tmp_path, files, "of-the-cluster") == ["of-the-cluster"]
    assert wanted(tmp_path, files) == [], "what was withdrawn from this node stays away"
    assert files.reloads == 1


def test_without_files_the_last_configuration_counts(tmp_path: Path) -> None:
    assert wanted(tmp_path, None, "a", "b") == ["a", "b"]
    assert wanted(tmp_path, None) == []


def test_a_disk_that_takes_nothing_stops_no_agent(tmp_path: Path) -> None:
    handover.mark(tmp_path / "nowhere")
    assert not handover.is_marked(tmp_path / "nowhere")


# --- how


class Other:
    """The control socket of an agent that is here, and that goes when it has answered so often."""

    def __init__(self, directory: Path, answer: dict[str, Any] | None) -> None:
        self.asked: list[dict[str, Any]] = []
        self.gone = threading.Event()
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(directory / SOCKET_NAME))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            with line, line.makefile("rb") as requests:
                self.asked.append(json.loads(requests.readline()))
                line.sendall(b"?\n" if self._answer is None else json.dumps(self._answer).encode() + b"\n")
            if self._answer == {"ok": True}:
                self.gone.set()

    def occupy(self) -> None:
        if not self.gone.is_set():
            raise InUseError("another agent (pid 7) runs here")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(30)


def test_an_agent_that_stands_in_is_asked_once_and_goes(tmp_path: Path) -> None:
    other = Other(tmp_path, {"ok": True})
    handover.obtain(tmp_path, other.occupy)
    other.close()
    assert other.asked == [{"op": "hand over"}]


@pytest.mark.parametrize("answer", [{"ok": False, "error": "this agent hands over to nobody"}, [], None])
def test_an_agent_that_does_not_go_keeps_the_host(tmp_path: Path, answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "PATIENCE", 0.2)
    other = Other(tmp_path, answer)
    with pytest.raises(InUseError, match="pid 7"):
        handover.obtain(tmp_path, other.occupy)
    other.close()


def test_an_agent_that_is_only_starting_is_waited_for(tmp_path: Path) -> None:
    seen = []

    def occupy() -> None:
        seen.append(1)
        if len(seen) < 3:
            raise InUseError("it starts just now, and has no socket yet")

    handover.obtain(tmp_path, occupy)
    assert len(seen) == 3


# --- the process that waits


def test_a_process_that_waits_says_so_and_answers_the_watchdog(tmp_path: Path) -> None:
    script = """
import os, sys
os.environ["IPMP_STANDS_BY"] = "1"
sys.argv[1:] = ["run", "--stand-in"]
from ipmp_agent.process import namespace, vacancy
from ipmp_agent.commands import entry
namespace.NAME = "\\0" + sys.argv[0] + os.environ["HERE"]
lock = namespace.NamespaceLock()
entry.main()
"""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000", "HERE": str(tmp_path)}
        waiting = subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.PIPE, text=True)
        try:
            for _ in range(2):
                said = manager.recv(4096).decode().splitlines()
                assert said[:2] == ["READY=1", "WATCHDOG=1"]
                assert said[2] == f"STATUS=standing by: the agent with pid {waiting.pid} looks after this host"
        finally:
            waiting.send_signal(signal.SIGTERM)
            _, errors = waiting.communicate(timeout=30)
    assert errors == f"ipmp-agent: standing by: the agent with pid {waiting.pid} looks after this host\n"
