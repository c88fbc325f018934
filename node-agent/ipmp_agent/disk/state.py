"""The state file: what the agent knew, so that the next one takes over instead of starting anew.

One JSON document, replaced as a whole by a rename. It is not synced: after a power cut the kernel is empty too, and
the file only saves time. What cannot be read of it, by a broken disk or because a newer agent wrote it, is left out
with a message, and nothing else with it; the file is kept beside. It never stops the agent.

It says which boot of the host it is of. What the kernel had is forgotten after another one: the host has laid its
addresses, routes and settings anew, perhaps others, and none of ours are there. What people and probes said of the
members stays true.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipmp_agent
from ipmp_agent.core.events import SavedInterface, SavedMoves, StateRestored
from ipmp_agent.disk.codec import decode, encode, salvage
from ipmp_agent.publication import PastFailover  # noqa: TC001
from ipmp_api.types import NodeGroup  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

VERSION = 1
FILE_NAME = "state.json"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_DIGITS = 30
_SHOWN = 5

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SavedGroup:
    """What is remembered of one group."""

    configuration: NodeGroup
    interfaces: tuple[SavedInterface, ...] = ()
    kernel: dict[str, Any] | None = None  # what linux/ remembers; opaque here
    history: tuple[PastFailover, ...] = ()
    detection_time: float | None = None  # raised to this, seconds
    moves: tuple[SavedMoves, ...] = ()

    def restored(self) -> StateRestored:
        """What the core is told of it first."""
        return StateRestored(self.interfaces, self.detection_time, self.moves)

    def of_another_boot(self) -> SavedGroup:
        """What is still true of it: not what the kernel had; the clock and the links began anew."""
        interfaces = tuple(replace(i, link_ups=(), held_until=None, answered=False) for i in self.interfaces)
        return replace(self, kernel=None, interfaces=interfaces, moves=())


@dataclass(frozen=True, slots=True)
class Change:
    """A configuration of a group, and what it came after."""

    wanted: NodeGroup
    before: NodeGroup | None = None  # None: nothing of the group was in the kernel


@dataclass(frozen=True, slots=True)
class SavedTrial:
    """Changes that have not proven themselves yet."""

    changes: dict[str, Change]  # by group
    reached: tuple[str, ...]  # who answered before them
    attempts: int  # trials of them, with this one
    rebooted: bool = False  # the host was started anew meanwhile


@dataclass(frozen=True, slots=True)
class Refusal:
    """Changes that were undone together."""

    changes: dict[str, Change]  # by group
    lost: tuple[str, ...]  # who answered before them, and not after; empty: the agent did not live to see it
    attempts: int
    final: bool  # the changes were to blame: they are not tried again
    found: tuple[str, ...] = ()  # what stood in their way on this host just then


@dataclass(frozen=True, slots=True)
class SavedState:
    """What is remembered of all groups, by group name."""

    groups: dict[str, SavedGroup] = field(default_factory=dict)
    trial: SavedTrial | None = None
    refusals: tuple[Refusal, ...] = ()

    def wanted(self) -> tuple[NodeGroup, ...]:
        """The configurations as they were wanted, also where another one is in force, or none yet."""
        refused = {name: change.wanted for refusal in self.refusals for name, change in refusal.changes.items()}
        return tuple(({name: group.configuration for name, group in self.groups.items()} | refused).values())


def this_boot() -> str | None:
    """What names the boot of the host that this is; None: the kernel does not say."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return None


def dump(state: SavedState, boot: str | None) -> str:
    """The state file's text, written in this boot of the host."""
    document = {"version": VERSION, "agentVersion": ipmp_agent.__version__, "bootId": boot, **encode(state)}
    return json.dumps(document, separators=(",", ":")) + "\n"


def parse(text: str, boot: str | None, lost: Callable[[str], object] | None = None) -> SavedState:
    """The state in a file's text, read in this boot of the host.

    Args:
        text: of the file.
        boot: names this boot; None: nobody knows.
        lost: told of every part that cannot be read and is left out; None: there may be none.

    Raises:
        ValueError: it is no state file of this version.
    """
    document = json.loads(text, parse_int=_number)
    if not isinstance(document, dict) or not isinstance(document.get("groups"), dict):
        raise ValueError("not a state file: no groups")  # noqa: TRY004 - all wrong input is a ValueError
    if document.get("version") != VERSION:
        raise ValueError(f"version {document.get('version')!r}, and this agent reads version {VERSION}")
    state = decode(SavedState, document) if lost is None else salvage(SavedState, document, lost)
    written = document.get("bootId")  # agents before it was kept did not write one
    if None not in (written, boot) and written != boot:
        log.info("the host was started anew since the state file was written: what its kernel had is forgotten")
        state = replace(state, groups={name: group.of_another_boot() for name, group in state.groups.items()})
        if state.trial is not None:
            state = replace(state, trial=replace(state.trial, rebooted=True))
    return state


def load(directory: Path) -> SavedState:
    """What was saved in this directory; nothing when there is no file. A broken file is set aside, and said so."""
    path = directory / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return SavedState()
    except (OSError, UnicodeDecodeError) as error:
        _set_aside(path, error)
        return SavedState()
    lost: list[str] = []
    try:
        found = parse(text, this_boot(), lost.append)
    except (ValueError, RecursionError) as error:
        _set_aside(path, error)
        return SavedState()
    if lost and found == SavedState():
        _set_aside(path, ValueError("; ".join(lost[:_SHOWN])))
    elif lost:
        _keep_beside(path, lost)
    return found


def _number(digits: str) -> int | float:
    """An integer of JSON; what no field of ours holds is infinite, and refused with the field only."""
    return int(digits) if len(digits) < _DIGITS else float(digits)


def _keep_beside(path: Path, lost: Sequence[str]) -> None:
    beside = path.with_suffix(".json.unreadable")
    try:
        shutil.copy2(path, beside)
        kept = f"kept as {beside}"
    except OSError as error:
        kept = f"not kept: {error}"
    shown = "; ".join(lost[:_SHOWN]) + (f"; and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else "")
    log.warning("parts of the state file %s cannot be read and are forgotten (%s); it is %s", path, shown, kept)


def _set_aside(path: Path, error: Exception) -> None:
    aside = path.with_suffix(".json.unreadable")
    try:
        path.replace(aside)
    except OSError as rename_error:
        log.warning("starting without the state file %s (%s), which cannot be set aside: %s", path, error, rename_error)
        return
    log.warning("starting without the state file %s (%s), which is kept as %s", path, error, aside)


def save(directory: Path, state: SavedState) -> None:
    """Replace the state file. Raises OSError, and then the old file is still there."""
    path = directory / FILE_NAME
    partial = path.with_suffix(".json.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(dump(state, this_boot()))
    partial.replace(path)


class StateWriter:
    """Writes the newest state in a thread of its own: a disk that hangs delays no failover.

    States that come while one is being written replace each other. A failed write is said once and tried again.
    """

    RETRY = 5.0
    """Seconds until a failed write is tried again."""

    def __init__(self, directory: Path, failed: Callable[[], None]) -> None:
        self._directory = directory
        self._failed = failed
        self._newest: SavedState | None = None
        self._closing = False
        self._complaining = False
        self._behind_since: float | None = None  # monotonic: the disk has taken nothing since, though it was to
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="state", daemon=True)
        self._thread.start()

    def put(self, state: SavedState) -> None:
        """Have this written soon. Never blocks on the disk."""
        with self._wake:
            self._newest = state
            self._wake.notify_all()

    def written(self, timeout: float) -> bool:
        """Wait until all that was put is on disk; False if it is not. From any thread.

        Args:
            timeout: seconds to wait at most. A disk that has taken nothing for so long hangs, and is not waited for
                anew: many who come one after the other wait once.
        """
        end = time.monotonic() + timeout
        with self._wake:
            while self._newest is not None or self._behind_since is not None:
                given_up = end if self._behind_since is None else min(end, self._behind_since + timeout)
                remaining = given_up - time.monotonic()
                if remaining <= 0:
                    return False
                self._wake.wait(remaining)
            return True

    def close(self, timeout: float = 5.0) -> None:
        """Write what is still to be written, waiting at most `timeout` seconds for the disk."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join(timeout)
        if self._thread.is_alive():
            log.error("the state file in %s could not be written within %.0f s", self._directory, timeout)

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._newest is not None or self._closing)
                state, self._newest = self._newest, None
                if state is not None and self._behind_since is None:
                    self._behind_since = time.monotonic()
                last_attempt = self._closing
            if state is None:
                return
            done = self._write(state)
            if not done and last_attempt:
                return
            if not done:
                self._wait_to_retry(state)
                continue
            with self._wake:
                self._behind_since = None
                self._wake.notify_all()

    def _write(self, state: SavedState) -> bool:
        try:
            save(self._directory, state)
        except OSError as error:
            self._failed()
            if not self._complaining:
                log.error("cannot write the state file in %s: %s; will go on trying", self._directory, error)  # noqa: TRY400 - the errno says it all
            self._complaining = True
            return False
        if self._complaining:
            log.info("the state file in %s is written again", self._directory)
        self._complaining = False
        return True

    def _wait_to_retry(self, state: SavedState) -> None:
        """Put a state back that could not be written, unless a newer one has come; the end cuts the wait short."""
        until = time.monotonic() + self.RETRY
        with self._wake:
            self._wake.wait_for(lambda: self._closing, timeout=until - time.monotonic())
            if self._newest is None:
                self._newest = state
