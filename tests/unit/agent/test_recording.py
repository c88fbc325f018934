"""What was recorded can be played again, exactly."""

from __future__ import annotations

import json
import os
import threading
from ipaddress import ip_address, ip_interface
from math import inf
from typing import TYPE_CHECKING

import pytest

from ipmp_agent.core.actions import Move, MoveAddresses
from ipmp_agent.core.events import Family, LinkChanged, ProbeAnswered, ProbeKind
from ipmp_agent.core.multipathing import Multipathing
from ipmp_agent.core.reasons import Reason
from ipmp_agent.disk import recording
from ipmp_agent.disk.recording import ROUTINE, Decided, Handled, Recorder, Resumed, Started, Stopped, Ticked, before
from ipmp_agent.simulate.__main__ import main as simulate
from tests.lab.waiting import wait_for
from tests.unit.agent.building import Rig, unprobed_group
from tests.unit.agent.values import VALUES
from tests.unit.simulate.recorded import SILENCE, incident

if TYPE_CHECKING:
    from pathlib import Path

    from ipmp_agent.core.actions import Action
    from ipmp_agent.disk.recording import Entry
    from ipmp_api.types import NodeGroup

EVENTS = [value for value in VALUES if type(value).__name__ in recording.EVENT_TYPES]
ENTRIES: list[Entry] = [
    Started("lab", 0.1 + 0.2, 2**63, unprobed_group()),
    *(Handled("lab", 1e6 + 1e-9, event) for event in EVENTS),  # type: ignore[arg-type]
    Ticked("lab", 12.25),
    Decided("lab", 12.25, (MoveAddresses((Move(ip_interface("198.18.0.9/32"), "a", None, Reason.OFFLINE),)),)),
    Stopped("lab", 13.0),
    Resumed("lab", 14.0, unprobed_group(), "AAAA", "0.1.0"),
]


def write(path: Path, entries: list[Entry], **options: int) -> list[str]:
    recorder = Recorder(path, lambda: None, **options)
    for entry in entries:
        recorder.put(entry)
    recorder.close(30)
    return path.read_text().splitlines(keepends=True)


def test_entries_come_back_exactly(tmp_path: Path) -> None:
    assert len(EVENTS) >= 5
    assert list(recording.read(write(tmp_path / "r", ENTRIES))) == ENTRIES


def test_recording_cut_by_a_kill_ends_before_the_cut(tmp_path: Path) -> None:
    lines = write(tmp_path / "r", ENTRIES)
    assert list(recording.read([*lines[:-2], lines[-2][:10]])) == ENTRIES[:-1]


def recorded(path: Path, limit: int = recording.LIMIT, full_at: float = inf) -> None:
    """Record an incident; the writer is given time, so that it finds a full file while there is more to come."""
    cores: dict[str, tuple[NodeGroup, Multipathing]] = {}
    recorder = Recorder(path, lambda: None, limit)
    recorder.cores = lambda: cores
    for number, entry in enumerate(incident(cores)):
        if entry.time >= full_at:
            recorder._full.set()
            full_at = inf
        recorder.put(entry)
        if number % 10 == 0:
            wait_for(recorder._entries.empty, deadline=60)
    recorder.close(60)


def test_full_file_becomes_the_one_before_and_each_is_replayed_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r"
    recorded(path, limit=40_000)
    old, new = before(path).read_text().splitlines(), path.read_text().splitlines()
    assert json.loads(old[-1]) == {"end": "continued", "lost": 0}
    assert json.loads(new[-1]) == {"end": "closed", "lost": 0}
    assert json.loads(new[1])["resume"] == "storage"
    assert json.loads(old[0]).keys() == json.loads(new[0]).keys()
    for one in (before(path), path):
        assert simulate(["--replay", str(one)]) == 0, capsys.readouterr().err
        capsys.readouterr()


def test_failover_after_a_full_file_is_decided_in_the_replay_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r"
    recorded(path, full_at=SILENCE + 0.5)
    assert "failure of nic0" not in before(path).read_text()
    assert simulate(["--replay", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "198.18.0.100 nic0 -> nic1" in shown
    assert "nic1 is ok, active" in shown, "what was so at the beginning"


def test_a_recording_is_never_much_larger_than_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "r"
    recorder = Recorder(path, lambda: None, 20_000)
    for number in range(5000):
        recorder.put(Ticked("lab", float(number)))
        if number % 100 == 0:
            wait_for(recorder._entries.empty, deadline=60)
    recorder.close(60)
    sizes = [one.stat().st_size for one in (path, before(path))]
    assert sum(sizes) < 30_000
    assert sorted(one.name for one in tmp_path.iterdir()) == ["r", "r.1"]


def test_recording_of_the_agent_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "r"
    first = write(path, ENTRIES)
    write(path, [])
    assert before(path).read_text().splitlines(keepends=True) == first


def test_what_is_no_file_of_its_own_stays_where_it_is(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    (tmp_path / "there").write_text("old\n")
    link.symlink_to("there")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for path in (pipe, link):
        recorder = Recorder(path, lambda: None)
        recorder.close(30)
    os.close(reader)
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert "ipmp-recording" in (tmp_path / "there").read_text()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["link", "pipe", "there"]


def test_state_that_cannot_be_written_ends_the_recording_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[None] = []
    recorder = Recorder(tmp_path / "r", lambda: failures.append(None), 100)
    recorder.cores = lambda: {"lab": (unprobed_group(), lambda: None)}
    for number in range(100):
        recorder.put(Ticked("lab", float(number)))
        wait_for(recorder._entries.empty, deadline=60)
    recorder.close(30)
    assert failures == [None]
    assert "the state of a group cannot be written" in caplog.text


def test_recording_with_a_gap_is_not_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "BACKLOG", 2)
    hang = threading.Event()
    encode = recording.encode_entry

    def slow(entry: Entry) -> dict[str, object]:
        assert hang.wait(30)
        return encode(entry)

    monkeypatch.setattr(recording, "encode_entry", slow)
    recorder = Recorder(tmp_path / "r", lambda: None)
    for number in range(10):
        recorder.put(Ticked("lab", float(number)))
    hang.set()
    recorder.close(30)
    with pytest.raises(ValueError, match="1 entries were lost"):
        list(recording.read((tmp_path / "r").read_text().splitlines(keepends=True)))


@pytest.mark.parametrize("text", ["", "{}\n", "[]\n", '{"format": "ipmp-recording", "version": 99}\n'])
def test_what_is_no_recording_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a recording"):
        list(recording.read(text.splitlines(keepends=True)))


@pytest.mark.parametrize("line", [{}, {"g": "lab"}, {"t": 1, "g": "lab", "e": "Nonsense", "v": {}}, {"t": 1}])
def test_broken_entry_is_named(line: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not an entry"):
        recording.decode_entry(line)


async def test_replay_decides_what_the_agent_decided() -> None:
    """Drive a data plane, then feed its recording to new cores: every decision is the same."""
    entries: list[Entry] = []
    rig = Rig(record=entries.append)
    await rig.apply(unprobed_group(targets=("198.18.0.1",)))
    group = rig.plane.groups["lab"]
    for event in (LinkChanged("nic0", up=False), LinkChanged("nic0", up=True), LinkChanged("nic1", up=False)):
        rig.plane.submit(group, event)
    target = ip_address("198.18.0.1")
    rig.plane.submit(group, ProbeAnswered("nic0", Family.IPV4, target, 1, ProbeKind.DETECTION, 0.001, 0.001))
    rig.plane.remove("lab")
    cores: dict[str, Multipathing] = {}
    expected: list[Action] = []
    replayed: list[Action] = []
    for entry in map(recording.decode_entry, json.loads(json.dumps(list(map(recording.encode_entry, entries))))):
        match entry:
            case Started(name, _, seed, configuration):
                cores[name] = Multipathing(configuration, seed=seed)
            case Handled(name, time, heard):
                replayed += [a for a in cores[name].handle(heard, time) if type(a) not in ROUTINE]
            case Ticked(name, time):
                replayed += [a for a in cores[name].tick(time) if type(a) not in ROUTINE]
            case Decided(_, _, decided):
                expected += decided
    assert replayed == expected
    assert len(expected) > 5


HEAD = '{"format": "ipmp-recording", "version": 1}\n'


@pytest.mark.parametrize(
    "line",
    [
        '{"g": "lab", "t": 1' + "0" * 400 + "}",
        '{"start": "lab", "t": 0, "seed": 1e999, "configuration": {}}',
        '{"g": "lab", "t": 0, "e": ["x"], "v": {}}',
        '{"g": "lab", "t": 0, "e": "LinkChanged", "v": 5}',
        '{"g": "lab", "t": 0, "d": [5]}',
        '{"g": "lab", "t": null}',
        "5",
        "[]",
        "null",
        "[" * 100_000,
        "1" * 5000,
    ],
    ids=lambda line: line[:40],
)
def test_a_line_that_nobody_wrote_is_a_value_error(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        list(recording.read([HEAD, line + "\n"]))
    with pytest.raises(ValueError, match=r"."):
        list(recording.read([line + "\n"]))
