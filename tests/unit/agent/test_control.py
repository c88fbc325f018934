"""The control socket over a real Unix socket, with the data plane in a loop of its own, as in the agent."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import socket
import threading
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.commands import ipmpadm, ipmpstat
from ipmp_agent.commands.client import AgentRefusedError, Client, UnreachableError
from ipmp_agent.core.actions import ProbeClosed
from ipmp_agent.core.events import Family
from ipmp_agent.process import control
from ipmp_agent.process.control import ControlSocket
from tests.unit.agent.building import Rig, unprobed_group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Agent:
    """A data plane in a thread, and its control socket."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.rig = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        self.socket = ControlSocket(directory, self.rig.plane, self.rig.configurator)

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    async def _start(self) -> Rig:
        rig = Rig()
        await rig.apply(unprobed_group())
        return rig

    def close(self) -> None:
        self.socket.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)

    def hang(self, event: threading.Event) -> None:
        """Stop the data plane until the event is set."""
        self._loop.call_soon_threadsafe(event.wait)

    def probe(self, number: int) -> None:
        """Have the data plane close a probe."""
        probe = ProbeClosed("nic0", Family.IPV4, ip_address("198.18.0.1"), number, time.monotonic(), 0.1, 0.1, 0.1, 0.1)
        self._loop.call_soon_threadsafe(lambda: [watch("lab", probe) for watch in list(self.rig.plane.watchers)])


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    running = Agent(tmp_path)
    yield running
    running.close()


def raw(agent: Agent) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(30)
    connection.connect(str(agent.socket.path))
    return connection


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def test_socket_is_for_its_owner_and_group(agent: Agent) -> None:
    assert agent.socket.path.stat().st_mode & 0o777 == 0o660


def test_ping_and_snapshot(agent: Agent) -> None:
    with Client(agent.directory) as client:
        assert client.ask(op="ping")["ok"]
        groups = client.ask(op="snapshot")["publication"]["groups"]
    assert [group["snapshot"]["group"] for group in groups] == ["lab"]


def test_snapshot_of_a_data_plane_that_hangs_is_the_last_one(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "FRESHNESS", 0.05)
    release = threading.Event()
    agent.hang(release)
    try:
        with Client(agent.directory) as client:
            assert client.ask(op="snapshot")["publication"]["groups"]
            with pytest.raises(AgentRefusedError, match="does not answer"):
                client.ask(op="offline", interface="nic0", group=None, force=False)
    finally:
        release.set()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"\n", "one JSON object"),
        (b"{\n", "one JSON object"),
        (b"[]\n", 'with an "op"'),
        (b'{"op": 7}\n', 'with an "op"'),
        (b'{"op": "reboot"}\n', "unknown request 'reboot'"),
        (b'{"op": "offline"}\n', "unknown request 'offline'"),
        (b'{"op": "offline", "interface": "nic0", "group": ["lab"]}\n', "by its name"),
        (b'{"op": "drill", "interface": "nic0", "kind": "fire", "seconds": 5}\n', "DrillKind"),
        (b'{"op": "drill", "interface": "nic0", "kind": "link", "seconds": NaN}\n', "1 to 300 s"),
        (b'{"op": "online", "interface": "nic0", "group": {}}\n', "by its name"),
        (b"[" * 30_000 + b"\n", "one JSON object"),
        (b'{"op": ' * 8_000 + b"\n", "one JSON object"),
        (b"\xff\xfe\n", "one JSON object"),
    ],
)
def test_nonsense_is_answered_with_what_is_wrong(agent: Agent, line: bytes, words: str) -> None:
    with raw(agent) as connection, connection.makefile("rb") as lines:
        connection.sendall(line)
        answer = json.loads(lines.readline())
        assert not answer["ok"]
        assert words in answer["error"]
        connection.sendall(b'{"op": "ping"}\n')
        assert json.loads(lines.readline())["ok"]


def test_endless_request_is_cut_off(agent: Agent) -> None:
    with raw(agent) as connection:
        try:
            connection.sendall(b"x" * (control.LINE_LIMIT * 4))
            assert connection.recv(1) == b""
        except OSError:
            pass  # reset while sending: cut off as well
    with Client(agent.directory) as client:
        assert client.ask(op="ping")["ok"]


def test_one_client_too_many_is_closed_and_the_others_go_on(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "CLIENTS", 2)
    with Client(agent.directory) as first, Client(agent.directory) as second:
        first.ask(op="ping")
        second.ask(op="ping")
        with Client(agent.directory) as third, pytest.raises(UnreachableError):
            third.ask(op="ping")
        assert first.ask(op="ping")["ok"]


def test_only_an_agent_that_stands_in_hands_over_and_to_root_alone(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    with Client(agent.directory) as client:
        with pytest.raises(AgentRefusedError, match="hands over to nobody: stop it on its host"):
            client.ask(op="hand over")
        agent.socket._hand_over = lambda: asked.append(1)
        assert client.ask(op="hand over")["ok"]
        monkeypatch.setattr(control, "_user", lambda _: 1000)
        with pytest.raises(AgentRefusedError, match="hands over to nobody"):
            client.ask(op="hand over")
    assert asked == [1]


def test_only_root_may_take_an_interface_offline(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_user", lambda _: 1000)
    with Client(agent.directory) as client:
        assert client.ask(op="snapshot")["ok"]
        for operation in ("offline", "online", "drill"):
            with pytest.raises(AgentRefusedError, match="only root"):
                client.ask(op=operation, interface="nic0", kind="link", seconds=5)
    assert not agent.rig.plane.publication.groups[0].snapshot.interfaces[0].offline


def test_peer_is_who_the_kernel_says(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    """The tests run as root, so this is allowed; what is refused above is refused by the same look-up."""
    assert ipmpadm.main(["offline", "nic0", "--runtime-dir", str(agent.directory)]) == 0
    assert capsys.readouterr().out == "nic0 of group lab is offline\n"


def test_ipmpadm_says_what_was_done_or_why_not(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--runtime-dir", str(agent.directory)]
    assert ipmpadm.main(["offline", "nic0", "--group", "lab", *where]) == 0
    assert ipmpadm.main(["offline", "nic1", *where]) == 1
    assert "no other interface of the group works" in capsys.readouterr().err
    assert ipmpadm.main(["online", "nic1", *where]) == 1
    assert capsys.readouterr().err == "ipmpadm: nic1 is not offline\n"
    assert ipmpadm.main(["online", "nic0", *where]) == 0
    assert capsys.readouterr().out == "nic0 of group lab is online\n"
    assert ipmpadm.main(["offline", "eth9", *where]) == 1
    assert "eth9 is not in any group" in capsys.readouterr().err


def test_drill_is_played_and_its_result_said(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--runtime-dir", str(agent.directory)]
    assert ipmpadm.main(["drill", "nic0", "--seconds", "1", "--json", *where]) == 1, "no probe can prove the rest"
    result = json.loads(capsys.readouterr().out)
    assert (result["interface"], result["group"], result["kind"]) == ("nic0", "lab", "link")
    assert result["detected"] == 0
    assert result["faults"] == ["no probe of the interfaces that took over was answered after the move"]
    assert ipmpadm.main(["drill", "nic0", "--kind", "silent", *where]) == 1
    assert "it is not probed" in capsys.readouterr().err
    assert ipmpadm.main(["drill", "nic0", "--seconds", "3600", *where]) == 1
    assert "1 to 300 s" in capsys.readouterr().err
    assert ipmpadm.main(["offline", "nic1", *where]) == 0
    assert ipmpadm.main(["drill", "nic0", *where]) == 1
    assert "no other interface of the group works" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["offline"], ["reboot", "nic0"], ["online", "nic0", "--force"]])
def test_ipmpadm_ends_with_1_for_wrong_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        ipmpadm.main(arguments)
    assert ended.value.code == 1
    assert "usage: ipmpadm" in capsys.readouterr().err


def test_nobody_there_is_said_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ipmpstat.main(["-g", "--runtime-dir", str(tmp_path)]) == 1
    words = capsys.readouterr().err
    assert "is IPMP in use on this node?" in words
    assert str(tmp_path) in words
    assert ipmpadm.main(["online", "nic0", "--runtime-dir", str(tmp_path)]) == 1


def test_socket_left_by_a_killed_agent_is_replaced(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(tmp_path / "agent.sock"))
    left.close()
    with pytest.raises(UnreachableError):
        Client(tmp_path)
    agent = Agent(tmp_path)
    try:
        with Client(tmp_path) as client:
            assert client.ask(op="ping")["ok"]
    finally:
        agent.close()
    assert not agent.socket.path.exists()


def test_probes_are_streamed_as_they_happen(agent: Agent) -> None:
    with Client(agent.directory) as client:
        stream = client.stream(op="probes")
        found: list[dict[str, Any]] = []
        reader = threading.Thread(target=lambda: found.extend(next(stream) for _ in range(3)))
        reader.start()
        until(lambda: agent.rig.plane.watchers, "nobody watches")
        for number in (1, 2, 3):
            agent.probe(number)
        reader.join(30)
    assert [row["probe"]["sequence"] for row in found] == [1, 2, 3]
    assert {row["interface"] for row in found} == {"nic0"}
    until(lambda: not agent.rig.plane.watchers, "still watched after the client went")


def test_reader_that_stands_still_is_dropped_and_holds_nobody_up(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "BACKLOG_LIMIT", 4096)
    with raw(agent) as sleeper:
        sleeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sleeper.sendall(b'{"op": "probes"}\n')
        until(lambda: agent.rig.plane.watchers, "nobody watches")
        number = 0
        deadline = time.monotonic() + 60
        while agent.rig.plane.watchers:
            assert time.monotonic() < deadline, f"still there after {number} probes"
            for _ in range(100):
                number += 1
                agent.probe(number)
            with Client(agent.directory) as other:
                assert other.ask(op="ping")["ok"]


def test_stream_never_waits_for_the_control_thread(agent: Agent) -> None:
    """With the control thread stuck, the data plane hands over so much and then leaves probes out."""
    with Client(agent.directory) as client:
        stream = client.stream(op="probes")
        threading.Thread(target=lambda: next(stream, None), daemon=True).start()
        until(lambda: agent.rig.plane.watchers, "nobody watches")
        release = threading.Event()
        agent.socket._loop.call_soon_threadsafe(release.wait)
        (watch,) = agent.rig.plane.watchers
        stuck = watch.__self__  # type: ignore[attr-defined]
        for number in range(control.HANDOVER_LIMIT + 500):
            agent.probe(number)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), agent._loop).result(30)
        handed = stuck._handed - stuck._taken
        release.set()
        assert handed <= control.HANDOVER_LIMIT


def test_clients_that_no_descriptor_is_left_for_are_mentioned_once(
    agent: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    waiting = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(3)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2, before[1]))
        for client in waiting:
            client.connect(str(agent.socket.path))
        time.sleep(2.5)  # asyncio tries again after a second
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    said = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in said] == [
        "cannot answer on the control socket: [Errno 24] Too many open files"
    ]
    assert not said[0].exc_info
    for client in waiting:
        client.settimeout(30)
        client.sendall(b'{"op": "ping"}\n')
        assert json.loads(client.recv(4096))["ok"]
        client.close()
