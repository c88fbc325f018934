"""An agent takes over from any release before it, and that one from it: what either leaves behind is read by the other.

State files and recordings of releases are read, and nothing in them is lost; a state file of this agent holds no word
that a release before it does not know.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import ipmp_agent
from ipmp_agent.core.reasons import Reason
from ipmp_agent.disk import codec, recording, state
from ipmp_agent.disk.state import SavedState
from ipmp_agent.simulate.replay import Replay
from tests.sources import has, sources
from tests.unit.agent.releases.words import words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RELEASES = Path(__file__).with_name("releases")
STATES = sorted(RELEASES.glob("*/state*.json"))
WORDS = sorted(RELEASES.glob("*/words.json"))
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
    left = json.loads(text)
    again = json.loads(state.dump(state.parse(text, left["bootId"]), left["bootId"]))
    assert left.pop("agentVersion") != again["agentVersion"] == ipmp_agent.__version__
    assert list(lost(left, again)) == []


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


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything that a document holds."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(each, (*path, key))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def with_reasons(reasons: Sequence[Reason]) -> SavedState:
    """A state that says each of these why a member failed, and why an address was moved."""
    known = state.parse((RELEASES / "d1861ef/state.json").read_text(encoding="utf-8"), None)
    group, (member, *_) = known.groups["lab"], known.groups["lab"].interfaces
    members = tuple(replace(member, failed=True, reason=reason) for reason in reasons)
    moves = tuple(replace(group.history[0], reason=reason) for reason in reasons)
    return replace(known, groups={"lab": replace(group, interfaces=members, history=moves)})


@pytest.mark.parametrize("path", WORDS, ids=lambda path: path.parent.name)
def test_state_file_holds_no_word_that_a_release_before_does_not_know(path: Path) -> None:
    """That one forgets all it knew for one such word, and takes what the agent has set for the host's own."""
    known: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
    reasons = {".groups.interfaces.reason": "interfaces", ".groups.history.reason": "history"}
    for place, ours in words(codec, SavedState).items():
        if place not in reasons and place in known:
            assert set(ours) <= set(known[place]), place
    lab = json.loads(state.dump(with_reasons(list(Reason)), None))["groups"]["lab"]
    for place, part in reasons.items():
        written = [entry["reason"] for entry in lab[part]]
        assert {word for word in written if word is not None} <= set(known[place])
        kept = [each for each, word in zip(Reason, written, strict=True) if each == word]
        assert kept == [each for each in Reason if each.value in known[place]]


def guarding(saved: SavedState) -> SavedState:
    """The same, with an interface that is no member and is guarded."""
    spare = {"index": 9, "name": "spare", "values": {"arp_ignore": 0, "arp_announce": 0}, "others": {"rp_filter": 1}}
    group = saved.groups["lab"]
    return replace(saved, groups={"lab": replace(group, kernel={**(group.kernel or {}), "outsiders": [spare]})})


def test_words_that_a_release_before_does_not_know_are_read_as_they_were() -> None:
    saved = guarding(with_reasons(list(Reason)))
    text = state.dump(saved, None)
    assert state.parse(text, None) == saved


READS = """
import sys
from ipmp_agent import state
found = state.parse(sys.stdin.read(), None)
group = found.groups["lab"]
print(len(group.interfaces), len(group.history), len(group.moves), group.kernel["settings"]["spare"]["values"])
"""


@pytest.mark.parametrize("path", WORDS, ids=lambda path: path.parent.name)
def test_release_before_reads_what_this_agent_remembers(path: Path) -> None:
    """By its own code. A clone without its history has that code not, and the words of the release alone."""
    if not has(path.parent.name):
        return
    saved = guarding(with_reasons(list(Reason)))
    group = replace(saved.groups["lab"], nominee="nic0", carriers=("nic0", "nic1"))
    text = state.dump(replace(saved, groups={"lab": group}), None)
    with sources(path.parent.name) as directory:
        modules = os.pathsep.join(str(directory / part) for part in ("node-agent", "crds", "common"))
        argv, environment = [sys.executable, "-c", READS], os.environ | {"PYTHONPATH": modules}
        done = subprocess.run(argv, env=environment, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    spare = {"rp_filter": 1, "arp_ignore": 0, "arp_announce": 0}
    assert done.stdout == f"{len(Reason)} {len(Reason)} {len(group.moves)} {spare}\n"


JUNK: tuple[object, ...] = ("a word of tomorrow", 10**400, float("nan"), {"new": [None]}, [[]], True)


@pytest.mark.parametrize("junk", JUNK, ids=["word", "huge", "nan", "object", "list", "true"])
@pytest.mark.parametrize("path", STATES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_cannot_be_read_of_a_state_file_costs_nothing_else(path: Path, junk: object) -> None:
    """Whatever in the file is another thing: what a part of it remembers is not lost by what another one does."""
    document = json.loads(path.read_text(encoding="utf-8"))
    boot = document["bootId"]
    whole = state.parse(json.dumps(document), boot)
    for place in places(document):
        if place[0] in ("version", "bootId", "agentVersion") or len(place) < 3:
            continue
        broken = json.loads(json.dumps(document))
        at(broken, place[:-1])[place[-1]] = junk
        lost: list[str] = []
        found = state.parse(json.dumps(broken), boot, lost.append)
        if place[:2] != ("groups", "lab") or place[2] != "kernel":
            assert found.groups.keys() == whole.groups.keys() or place[2] == "configuration", place
            for name, group in found.groups.items():
                assert group.kernel == whole.groups[name].kernel, place
        for name, group in found.groups.items():
            known = whole.groups[name]
            for part in ("configuration", "interfaces", "history", "moves", "detection_time"):
                if part not in place:
                    assert getattr(group, part) == getattr(known, part), place
        if "refusals" not in place:
            assert found.refusals == whole.refusals, place
        assert state.parse(state.dump(found, boot), boot) == found


def test_words_of_a_newer_agent_cost_what_they_are_in_and_no_more(tmp_path: Path) -> None:
    text = (RELEASES / "d1861ef/state.json").read_text(encoding="utf-8")
    whole = state.parse(text, None)
    newer = json.loads(text)
    newer["bootId"] = None
    lab = newer["groups"]["lab"]
    lab["history"][1]["reason"] = "Sunspots"
    lab["interfaces"][0]["reason"] = "Sunspots"
    lab["configuration"]["policies"]["tunnels"] = "Dig"
    lab["configuration"]["members"].append({"match": {"driver": "e1000"}, "role": "Active"})
    lab["configuration"]["members"][0]["match"]["rack"] = 5
    lab["colour"] = "red"
    newer["mood"] = {}
    (tmp_path / state.FILE_NAME).write_text(json.dumps(newer), encoding="utf-8")
    found = state.load(tmp_path)
    group, before = found.groups["lab"], whole.groups["lab"]
    assert group.kernel == before.kernel
    assert group.configuration == before.configuration
    assert group.history == (before.history[0], *before.history[2:])
    assert group.interfaces == (replace(before.interfaces[0], reason=None), *before.interfaces[1:])
    assert (group.moves, found.refusals) == (before.moves, whole.refusals)
    kept = json.loads((tmp_path / "state.json.unreadable").read_text(encoding="utf-8"))
    assert kept == newer
    assert (tmp_path / state.FILE_NAME).exists(), "it is all there is until the next one is written"
