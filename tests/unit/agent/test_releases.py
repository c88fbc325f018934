"""An agent takes over from any release before it: state files and recordings are read, and nothing in them is lost."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core.reasons import Reason
from ipmp_agent.disk import recording, state
from ipmp_agent.simulate.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Iterator

RELEASES = Path(__file__).with_name("releases")
STATES = sorted(RELEASES.glob("*/*.json"))
RECORDINGS = sorted(RELEASES.glob("*/*.jsonl"))


def lost(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Yield what a value holds and another one, which may hold more, does not."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key, value in old.items():
            yield from lost(value, new.get(key), f"{where}.{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for position, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from lost(one, other, f"{where}[{position}]")
    elif old != new:
        yield f"{where}: {old!r} became {new!r}"


@pytest.mark.parametrize("path", STATES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_state_file_of_a_release_is_read_and_nothing_is_lost(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    boot = json.loads(text)["bootId"]
    again = state.dump(state.parse(text, boot), boot)
    assert list(lost(json.loads(text), json.loads(again))) == []


def test_release_remembered_members_moves_a_trial_and_a_refusal() -> None:
    saved = state.parse((RELEASES / "d1861ef/state.json").read_text(encoding="utf-8"), None)
    group = saved.groups["lab"]
    failed = {member.interface: member.reason for member in group.interfaces if member.failed}
    assert failed == {"nic0": Reason.LINK_DOWN, "nic1": Reason.GROUP_FAILED}
    assert [member.interface for member in group.interfaces if member.offline] == ["nic1"]
    assert {each.reason for each in group.history} >= {Reason.LINK_DOWN, Reason.PROBES_LOST, Reason.FAILBACK}
    assert group.kernel is not None
    assert group.moves
    assert saved.refusals[0].changes["lab"].before == group.configuration
    on_trial = state.parse((RELEASES / "d1861ef/state-on-trial.json").read_text(encoding="utf-8"), None)
    assert on_trial.trial is not None
    assert on_trial.trial.reached


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_recording_of_a_release_is_read_and_nothing_is_lost(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    entries = [json.loads(json.dumps(recording.encode_entry(entry))) for entry in recording.read(lines)]
    written = [json.loads(line) for line in lines[1:-1]]
    assert len(entries) == len(written) > 300
    assert list(lost(written, entries)) == []


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_recording_of_a_release_runs_through_the_core(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = Counter(entry.reason for entry in Replay(path).run() if hasattr(entry, "reason"))
    assert told[Reason.LINK_DOWN]
    assert told[Reason.PROBES_LOST]
    assert "Traceback" not in capsys.readouterr().err
