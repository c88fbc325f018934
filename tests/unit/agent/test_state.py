"""The state file: whole or not at all, and never in the way."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from dataclasses import replace
from ipaddress import ip_interface
from typing import TYPE_CHECKING

import pytest

from ipmp_agent.core.events import SavedInterface, SavedMoves
from ipmp_agent.core.reasons import Reason
from ipmp_agent.disk import state
from ipmp_agent.disk.state import FILE_NAME, SavedGroup, SavedState
from ipmp_agent.disk.writer import StateWriter
from ipmp_agent.publication import HISTORY, HISTORY_ADDRESSES, PastFailover, remembered
from tests.unit.agent.building import unprobed_group

if TYPE_CHECKING:
    from pathlib import Path

SAVED = SavedState(
    {
        "lab": SavedGroup(
            unprobed_group(),
            (SavedInterface("nic0", failed=True, inactive=False, offline=False, reason=Reason.LINK_DOWN),),
            {"version": 1, "addresses": {"placement": {"198.18.0.100/24": "nic0"}}},
            (PastFailover(1.5, "nic0", "nic1", Reason.LINK_DOWN, (), 0.001),),
        )
    }
)


def test_state_comes_back(tmp_path: Path) -> None:
    state.save(tmp_path, SAVED)
    assert state.load(tmp_path) == SAVED
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_after_another_boot_the_kernel_is_forgotten_and_the_members_are_not(caplog: pytest.LogCaptureFixture) -> None:
    group = SAVED.groups["lab"]
    caplog.set_level("INFO")
    assert state.parse(state.dump(SAVED, "one"), "two") == SavedState({"lab": replace(group, kernel=None)})
    assert "started anew" in caplog.text


def test_after_another_boot_clock_and_links_have_begun_anew() -> None:
    ups = {"answered": True, "link_ups": (5.0, 7.0), "held_until": 65.0}
    member = SavedInterface("nic0", failed=True, inactive=False, offline=False, **ups)  # type: ignore[arg-type]
    moves = (SavedMoves(ip_interface("198.18.0.100/24"), (5.0, 7.0)),)
    group = SavedGroup(unprobed_group(), (member,), detection_time=2.0, moves=moves)
    text = state.dump(SavedState({"lab": group}), "one")
    assert state.parse(text, "one").groups["lab"] == group
    forgotten = replace(group, interfaces=(replace(member, answered=False, link_ups=(), held_until=None),), moves=())
    assert state.parse(text, "two").groups["lab"] == forgotten


@pytest.mark.parametrize(("written", "read"), [("one", "one"), (None, "one"), ("one", None), (None, None)])
def test_in_the_same_boot_or_where_nobody_knows_all_is_remembered(written: str | None, read: str | None) -> None:
    assert state.parse(state.dump(SAVED, written), read) == SAVED


def test_file_of_an_agent_that_kept_no_boot_is_believed() -> None:
    document = json.loads(state.dump(SAVED, None))
    del document["bootId"]
    assert state.parse(json.dumps(document), "one") == SAVED


def test_boot_is_the_one_that_the_kernel_names(tmp_path: Path) -> None:
    state.save(tmp_path, SAVED)
    assert json.loads((tmp_path / FILE_NAME).read_text())["bootId"] == state.BOOT_ID.read_text().strip()


def test_no_file_is_no_state(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert state.load(tmp_path) == SavedState()
    assert caplog.text == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        '{"version": 1}',
        '{"version": 1, "groups": []}',
        '{"version": 2, "groups": {}}',
        '{"version": 1, "groups": {"lab": {}}}',
        '{"version": 1, "groups": {"lab": null}}',
        "[" * 100_000,
        b"\xff\xfe",
    ],
    ids=[
        "empty",
        "cut",
        "null",
        "list",
        "no groups",
        "groups a list",
        "newer",
        "cut group",
        "no group",
        "deep",
        "binary",
    ],
)
def test_broken_file_is_set_aside_and_said_so(
    tmp_path: Path, text: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / FILE_NAME).write_bytes(data)
    assert state.load(tmp_path) == SavedState()
    aside = tmp_path / "state.json.unreadable"
    assert aside.read_bytes() == data
    assert not (tmp_path / FILE_NAME).exists()
    assert str(aside) in caplog.text


def test_broken_file_that_cannot_be_set_aside_is_no_fault_either(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE_NAME).mkdir()
    (tmp_path / "state.json.unreadable").write_text("")
    assert state.load(tmp_path) == SavedState()
    assert "cannot be set aside" in caplog.text


def test_killed_while_writing_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state.save(tmp_path, SAVED)
    (tmp_path / "state.json.partial").write_text('{"version": 1, "gro')
    assert state.load(tmp_path) == SAVED
    state.save(tmp_path, SavedState())
    assert state.load(tmp_path) == SavedState()


class _SlowDisk:
    """`save` that waits for the test."""

    def __init__(self) -> None:
        self.saved: list[SavedState] = []
        self.entered = threading.Semaphore(0)
        self.leave = threading.Semaphore(0)

    def __call__(self, directory: Path, value: SavedState, instead_of: str | None = None) -> None:
        del directory, instead_of
        self.entered.release()
        assert self.leave.acquire(timeout=30)
        self.saved.append(value)


def numbered(number: int) -> SavedState:
    return SavedState({str(number): SavedGroup(unprobed_group(str(number)))})


def test_writer_skips_what_became_old_while_the_disk_hung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = _SlowDisk()
    monkeypatch.setattr(state, "save", disk)
    writer = StateWriter(tmp_path, lambda: None)
    writer.put(numbered(0))
    assert disk.entered.acquire(timeout=30)
    for number in range(1, 100):
        writer.put(numbered(number))
    disk.leave.release()
    disk.leave.release()
    writer.close(30)
    assert disk.saved == [numbered(0), numbered(99)]


def test_writer_says_when_what_was_put_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = _SlowDisk()
    monkeypatch.setattr(state, "save", disk)
    writer = StateWriter(tmp_path, lambda: None)
    assert writer.written(0), "nothing was put"
    writer.put(numbered(0))
    assert disk.entered.acquire(timeout=30)
    assert not writer.written(0), "it is being written"
    disk.leave.release()
    assert writer.written(30)
    assert disk.saved == [numbered(0)]
    writer.close(30)


@pytest.mark.parametrize("hangs", [True, False], ids=["hangs", "refuses"])
def test_writer_waits_once_for_a_disk_that_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, hangs: bool
) -> None:
    disk = _SlowDisk()
    refusal = threading.Event()
    monkeypatch.setattr(StateWriter, "RETRY", 0.01)

    def save(directory: Path, value: SavedState, instead_of: str | None = None) -> None:
        if not hangs and not refusal.is_set():
            raise OSError(errno.EROFS, "read-only")
        disk(directory, value)

    monkeypatch.setattr(state, "save", save)
    writer = StateWriter(tmp_path, lambda: None)
    began = time.monotonic()
    for number in range(20):
        writer.put(numbered(number))
        assert not writer.written(0.5)
    assert time.monotonic() - began < 5, "once, and not for each"
    refusal.set()
    for _ in range(3):
        disk.leave.release()
    assert writer.written(30)
    assert disk.saved[-1] == numbered(19)
    writer.put(numbered(20))
    threading.Timer(0.1, disk.leave.release).start()
    assert writer.written(30), "it works again, and is waited for"
    writer.close(30)


def test_writer_says_once_that_it_cannot_write_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(StateWriter, "RETRY", 0.001)
    failures = threading.Semaphore(0)
    directory = tmp_path / "gone"
    writer = StateWriter(directory, failures.release)
    writer.put(SAVED)
    for _ in range(3):
        assert failures.acquire(timeout=30)
    assert caplog.text.count("cannot write the state file") == 1
    directory.mkdir()
    writer.close(30)
    assert state.load(directory) == SAVED


def test_file_says_its_version(tmp_path: Path) -> None:
    state.save(tmp_path, SAVED)
    document = json.loads((tmp_path / FILE_NAME).read_text())
    assert document["version"] == state.VERSION
    assert os.listdir(tmp_path) == [FILE_NAME]  # noqa: PTH208


def test_history_is_bounded_in_length_and_in_what_it_names() -> None:
    def past(moment: float, count: int) -> PastFailover:
        return PastFailover(moment, "nic0", "nic1", Reason.LINK_DOWN, (ip_interface("198.18.0.100/24"),) * count, 0.001)

    many = [past(float(n), 2) for n in range(2 * HISTORY)]
    assert remembered(many) == tuple(many[-HISTORY:])
    large = [past(float(n), HISTORY_ADDRESSES // 4) for n in range(10)]
    assert remembered(large) == tuple(large[-4:])
    huge = past(0.0, 2 * HISTORY_ADDRESSES)
    assert remembered([*many, huge]) == (huge,)
    assert remembered(()) == ()
