"""The state file: what the agent knew, so that the next one takes over instead of starting anew.

One JSON document, replaced as a whole by a rename. It is not synced: after a power cut the kernel is empty too, and
the file only saves time. Where its directory takes nothing it is kept in another one, `beside`, until it does. What
cannot be read of it, by a broken disk or because a newer agent wrote it, is left out with a message, and nothing else
with it; a copy of the file is kept. It never stops the agent.

It says which boot of the host it is of. What the kernel had is forgotten after another one: the host has laid its
addresses, routes and settings anew, perhaps others, and none of ours are there. What people and probes said of the
members stays true.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipmp_agent
from ipmp_agent.core.events import SavedInterface, SavedMoves, StateRestored
from ipmp_agent.disk import rollback
from ipmp_agent.disk.codec import decode, encode, salvage
from ipmp_agent.publication import PastFailover  # noqa: TC001
from ipmp_api.frozen import frozen
from ipmp_api.types import NodeGroup  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

VERSION = 1
FILE_NAME = "state.json"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_DIGITS = 30
_SHOWN = 5

log = logging.getLogger(__name__)


@frozen
class SavedGroup:
    """What is remembered of one group."""

    configuration: NodeGroup
    interfaces: tuple[SavedInterface, ...] = ()
    kernel: dict[str, Any] | None = None  # what linux/ remembers; opaque here
    history: tuple[PastFailover, ...] = ()
    detection_time: float | None = None  # raised to this, seconds
    moves: tuple[SavedMoves, ...] = ()
    nominee: str | None = None
    carriers: tuple[str, ...] = ()

    def restored(self) -> StateRestored:
        """What the core is told of it first."""
        return StateRestored(self.interfaces, self.detection_time, self.moves, self.nominee, self.carriers)

    def of_another_boot(self) -> SavedGroup:
        """What is still true of it: not what the kernel had; the clock and the links began anew."""
        interfaces = tuple(replace(i, link_ups=(), held_until=None, answered=False) for i in self.interfaces)
        return replace(self, kernel=None, interfaces=interfaces, moves=())


@frozen
class Change:
    """A configuration of a group, and what it came after."""

    wanted: NodeGroup
    before: NodeGroup | None = None  # None: nothing of the group was in the kernel


@frozen
class SavedTrial:
    """Changes that have not proven themselves yet."""

    changes: dict[str, Change]  # by group
    reached: tuple[str, ...]  # who answered before them
    attempts: int  # trials of them, with this one
    rebooted: bool = False  # the host was started anew meanwhile
    stopped: bool = False  # the agent was asked to end: no proof against the changes


@frozen
class Refusal:
    """Changes that were undone together."""

    changes: dict[str, Change]  # by group
    lost: tuple[str, ...]  # who answered before them, and not after; empty: the agent did not live to see it
    attempts: int
    final: bool  # the changes were to blame: they are not tried again
    found: tuple[str, ...] = ()  # what stood in their way on this host just then
    until: float | None = None  # monotonic seconds of this boot, then they are tried again


@frozen
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


def dump(state: SavedState, boot: str | None, instead_of: str | None = None) -> str:
    """The state file's text, written in this boot of the host; of one beside, instead of which file it is."""
    document = {"version": VERSION, "agentVersion": ipmp_agent.__version__, "bootId": boot, **encode(state)}
    if instead_of is not None:
        document["insteadOf"] = instead_of
    rollback.for_older(document)
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
    rollback.exact(document)
    state = decode(SavedState, document) if lost is None else salvage(SavedState, document, lost)
    written = document.get("bootId")  # agents before it was kept did not write one
    if None not in (written, boot) and written != boot:
        log.info("the host was started anew since the state file was written: what its kernel had is forgotten")
        state = replace(state, groups={name: group.of_another_boot() for name, group in state.groups.items()})
        if state.trial is not None:
            state = replace(state, trial=replace(state.trial, rebooted=True))
        # What only ended the agent again and again may have done so in that boot alone.
        state = replace(state, refusals=tuple(each for each in state.refusals if each.until is None))
    return state


def load(directory: Path, beside: Path | None = None) -> SavedState:
    """What was saved in this directory, or in the one beside it after that took nothing more.

    Nothing when there is no file. A broken file is set aside, and said so.
    """
    path = directory / FILE_NAME
    if beside is not None and _is_newer(beside / FILE_NAME, path):
        path = beside / FILE_NAME
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


def exists(directory: Path, beside: Path) -> bool:
    """Whether anything was saved."""
    return (directory / FILE_NAME).exists() or (beside / FILE_NAME).exists()


def _identity(path: Path) -> str:
    """What tells one writing of a file from the next; empty: there is none, or it cannot be read."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_ino}:{found.st_mtime_ns}"


def _is_newer(beside: Path, path: Path) -> bool:
    """Whether a file was written instead of another one, that was not written since."""
    try:
        document = json.loads(beside.read_text(encoding="utf-8"), parse_int=_number)
        instead_of = document.get("insteadOf")
    except (OSError, ValueError, AttributeError, RecursionError):
        return False
    return isinstance(instead_of, str) and _identity(path) in ("", instead_of)


def keep(directory: Path, state: SavedState, beside: Path | None) -> OSError | None:
    """Save a state, in the other directory where the first takes nothing.

    Returns:
        Why the first took nothing; None: it did.

    Raises:
        OSError: neither took anything.
    """
    try:
        save(directory, state)
    except OSError as error:
        if beside is None:
            raise
        beside.mkdir(parents=True, exist_ok=True)
        save(beside, state, _identity(directory / FILE_NAME))
        return error
    if beside is not None:
        (beside / FILE_NAME).unlink(missing_ok=True)
    return None


def save(directory: Path, state: SavedState, instead_of: str | None = None) -> None:
    """Replace the state file. Raises OSError, and then the old file is still there."""
    path = directory / FILE_NAME
    partial = path.with_suffix(".json.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(dump(state, this_boot(), instead_of))
    partial.replace(path)
