import json
from pathlib import Path

import pytest

from ipmp_agent.core import events
from ipmp_agent.core.actions import Action
from ipmp_agent.core.multipathing import Multipathing
from ipmp_agent.disk.recording import (
    Decided,
    Entry,
    Handled,
    Ticked,
)
from ipmp_agent.simulate.__main__ import main
from tests.unit.simulate.playing import make_group
from tests.unit.simulate.recorded import BEGIN, END, HEAD, SILENCE, incident, write


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "incident.jsonl"
    write(path, incident())
    return path


def test_a_replay_decides_as_the_agent_did(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--replay", str(recording)]) == 0
    captured = capsys.readouterr()
    assert "error: failure of nic0 detected: its probes are not answered" in captured.out
    assert "198.18.0.100 nic0 -> nic1" in captured.out
    assert "DEAD NIC" not in captured.out  # a recording does not know what was really so
    assert captured.err == ""


def test_its_times_count_from_the_beginning(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--replay", str(recording), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["at"] == 0
    moved = [line["at"] for line in lines if line.get("address") == "198.18.0.100"]
    assert SILENCE - BEGIN < moved[1] < SILENCE - BEGIN + 1.1


def test_a_decision_that_differs_is_shown_and_ends_with_status_1(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording.write_text(recording.read_text().replace("failure of nic0 detected", "nothing of nic0 detected"))
    assert main(["--replay", str(recording)]) == 1
    error = capsys.readouterr().err
    assert "1 decisions differ from the recorded ones" in error
    assert "nothing of nic0 detected" in error
    assert "failure of nic0 detected" in error


@pytest.mark.parametrize("kept", ["decisions", "all but one decision"])
def test_a_decision_that_only_one_side_made_differs(
    tmp_path: Path, kept: str, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = list(incident())
    if kept == "decisions":  # the agent decided something where the core does not
        position = next(i for i, entry in enumerate(entries) if isinstance(entry, Ticked))
        decided = next(entry for entry in entries if isinstance(entry, Decided))
        entries.insert(position + 1, decided)
    else:
        entries.remove(next(entry for entry in entries if isinstance(entry, Decided)))
    path = tmp_path / "changed.jsonl"
    write(path, iter(entries))
    assert main(["--replay", str(path)]) == 1
    assert "nothing" in capsys.readouterr().err


def test_a_recording_without_decisions_is_played_and_compared_with_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old.jsonl"
    write(path, (entry for entry in incident() if not isinstance(entry, Decided)))
    assert main(["--replay", str(path)]) == 0
    assert "failure of nic0 detected" in capsys.readouterr().out


def test_members_and_addresses_that_came_later_are_in_the_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    larger = make_group(active=3, addresses=4)
    change = events.ConfigurationChanged(larger)
    found = events.InterfaceFound("nic2", "nic2", 9, "02:00:00:00:00:99", link=True)
    path = tmp_path / "changed.jsonl"
    entries = [entry for entry in incident() if not isinstance(entry, Decided)]
    later: list[Entry] = [Handled(larger.group_name, END + 1, change), Handled(larger.group_name, END + 1, found)]
    write(path, iter([*entries[:-1], *later]))
    assert main(["--replay", str(path)]) == 0
    first_words = [line.partition(" ")[0] for line in capsys.readouterr().out.splitlines()]
    assert {"nic2", "198.18.0.103"} <= set(first_words)


def test_a_fault_of_the_core_is_shown_and_the_replay_goes_on_as_the_agent_did(
    recording: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handle = Multipathing.handle

    def faulty(self: Multipathing, event: events.Event, now: float) -> list[Action]:
        if isinstance(event, events.KernelRead):
            raise ZeroDivisionError("a fault of the core")
        return handle(self, event, now)

    monkeypatch.setattr(Multipathing, "handle", faulty)
    assert main(["--replay", str(recording)]) == 1
    captured = capsys.readouterr()
    assert "ZeroDivisionError: a fault of the core" in captured.err
    assert "failure of nic0 detected" in captured.out


def test_a_recording_cut_short_is_played_to_where_it_ends(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = recording.read_text()
    recording.write_text(text[: text.index("failure of nic0") - 20])
    assert main(["--replay", str(recording)]) == 0
    assert "group storage is ok" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a recording"),
        ("kind: FaultScript\n", "not JSON"),
        ('{"format": "ipmp-recording", "version": 99}\n', "not a recording of version"),
        (json.dumps(HEAD) + '\n{"g": "storage", "t": 1}\n', "without its start"),
        (json.dumps(HEAD) + '\n{"g": "storage", "t": 1, "e": "Nonsense", "v": {}}\n', "not an entry"),
        (json.dumps(HEAD) + '\n{"end": "closed", "lost": 3}\n', "3 entries were lost"),
    ],
)
def test_what_is_no_recording_is_refused(
    tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    assert main(["--replay", str(path)]) == 2
    assert words in capsys.readouterr().err
