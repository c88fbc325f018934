"""Everything that went into the core, with its time: enough to run it again, exactly.

A recording is JSON lines. The first says what it is, and with "clock" what to add to its times for seconds since the
epoch; then, in the order in which the core was fed:
    {"start": GROUP, "seed": N, "t": T, "configuration": {...}}    a core was made
    {"g": GROUP, "t": T, "e": "LinkChanged", "v": {...}}           handle(event, T)
    {"g": GROUP, "t": T}                                           tick(T)
    {"g": GROUP, "t": T, "d": [["Notify", {...}], ...]}            what it ordered then, probes left out
    {"stop": GROUP, "t": T}                                        the group was withdrawn
    {"end": WHY, "lost": N}                                        last line; N entries are missing before it
Times are monotonic seconds with full precision. The core draws its jitter from the seed, so a replay takes the same
decisions.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import ipmp_agent
from ipmp_agent.core import actions, events
from ipmp_agent.core.actions import ProbeClosed, SendProbe
from ipmp_agent.disk.codec import decode, encode
from ipmp_api.types import NodeGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from ipmp_agent.core.actions import Action
    from ipmp_agent.core.events import Event

FORMAT = "ipmp-recording"
VERSION = 1
LIMIT = 64 * 1024 * 1024
"""Bytes after which a recording ends: about a day of four members probed five times a second."""

BACKLOG = 65536
"""Entries that may wait for the disk."""

EVENT_TYPES: dict[str, type] = {kind.__name__: kind for kind in get_args(events.Event)}
ACTION_TYPES: dict[str, type] = {kind.__name__: kind for kind in get_args(actions.Action)}

_SHOWN = 200
_LATEST = 2.0**36
"""A clock beyond this is none: what comes of it is no date."""

ROUTINE = frozenset({SendProbe, ProbeClosed})
"""Actions that come with every probe; the others are decisions."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Started:
    """A core was made for this configuration with this seed."""

    group: str
    time: float
    seed: int
    configuration: NodeGroup


@dataclass(frozen=True, slots=True)
class Handled:
    """The core was given an event."""

    group: str
    time: float
    event: Event


@dataclass(frozen=True, slots=True)
class Ticked:
    """The core was told the time."""

    group: str
    time: float


@dataclass(frozen=True, slots=True)
class Decided:
    """What the core ordered at the entry before, without the routine: a replay must order the same."""

    group: str
    time: float
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class Stopped:
    """The group is no more."""

    group: str
    time: float


Entry = Started | Handled | Ticked | Decided | Stopped


def encode_entry(entry: Entry) -> dict[str, Any]:
    """The JSON object of one line."""
    match entry:
        case Started(group, time, seed, configuration):
            return {"start": group, "t": time, "seed": seed, "configuration": encode(configuration)}
        case Handled(group, time, event):
            return {"g": group, "t": time, "e": type(event).__name__, "v": encode(event)}
        case Ticked(group, time):
            return {"g": group, "t": time}
        case Decided(group, time, decided):
            return {"g": group, "t": time, "d": [[type(action).__name__, encode(action)] for action in decided]}
        case Stopped(group, time):
            return {"stop": group, "t": time}


def decode_entry(line: dict[str, Any]) -> Entry:
    """The entry of one line. Raises ValueError for anything else."""
    try:
        time = float(line["t"])
        if "start" in line:
            return Started(line["start"], time, int(line["seed"]), decode(NodeGroup, line["configuration"]))
        if "stop" in line:
            return Stopped(line["stop"], time)
        if "e" in line:
            return Handled(line["g"], time, decode(EVENT_TYPES[line["e"]], line["v"]))
        if "d" in line:
            decided: tuple[Action, ...] = tuple(decode(ACTION_TYPES[name], value) for name, value in line["d"])
            return Decided(line["g"], time, decided)
        return Ticked(line["g"], time)
    except (KeyError, OverflowError, TypeError) as error:
        raise ValueError(f"not an entry of a recording: {str(line)[:_SHOWN]}") from error


def read(lines: Iterable[str]) -> Iterator[Entry]:
    """The entries of a recording. Raises ValueError where it is none, or where entries were lost.

    A last line cut short (the agent was killed) ends it like an end.
    """
    rest = iter(lines)
    read_head(rest)
    return read_entries(rest)


def read_head(lines: Iterator[str]) -> float | None:
    """Take the first line; returns what to add to times for seconds since the epoch, or None. Raises ValueError."""
    head = _object(next(lines, "{}"))
    if head.get("format") != FORMAT or head.get("version") != VERSION:
        raise ValueError(f"not a recording of version {VERSION}")
    clock = head.get("clock")
    return float(clock) if isinstance(clock, int | float) and abs(clock) < _LATEST else None


def read_entries(lines: Iterator[str]) -> Iterator[Entry]:
    """The entries after the first line. Raises ValueError as `read` does."""
    for line in lines:
        if not line.endswith("\n"):
            return
        found = _object(line)
        if "end" in found:
            if found.get("lost"):
                raise ValueError(f"{found['lost']} entries were lost: the disk was slower than the events")
            return
        yield decode_entry(found)


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except RecursionError as error:
        raise ValueError("not a recording: a line is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError(f"not a recording: a line is {line[:_SHOWN]!r}")  # noqa: TRY004 - all wrong input is a ValueError
    return found


class Recorder:
    """Writes a recording from a thread of its own; ends it at the limit, and says so."""

    def __init__(self, path: Path, failed: Callable[[], None], limit: int = LIMIT) -> None:
        """Raises OSError where the file cannot be made."""
        self._path = path
        self._failed = failed
        self._limit = limit
        self._file = path.open("w", encoding="utf-8")
        self._entries: queue.Queue[Entry | None] = queue.Queue(BACKLOG)
        self._lost = 0
        self._over = False
        head = {
            "format": FORMAT,
            "version": VERSION,
            "agentVersion": ipmp_agent.__version__,
            "clock": time.time() - time.monotonic(),
        }
        self._written = self._file.write(json.dumps(head) + "\n")
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Record one entry. Never blocks: what the disk cannot take is lost, and counted in the last line."""
        if self._over:
            return
        try:
            self._entries.put_nowait(entry)
        except queue.Full:
            # One lost entry makes the rest useless for a replay, and says that the machine has other troubles.
            self._lost += 1
            self._over = True

    def close(self, timeout: float = 5.0) -> None:
        """End the recording, waiting at most `timeout` seconds for the disk."""
        self._over = True
        try:
            self._entries.put(None, timeout=timeout)
        except queue.Full:
            return
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            with self._file:
                end = self._record_all()
                self._file.write(json.dumps({"end": end, "lost": self._lost}) + "\n")
        except OSError as error:
            self._over = True
            self._failed()
            log.error("recording to %s ended: %s", self._path, error)  # noqa: TRY400 - the errno says it all

    def _record_all(self) -> str:
        while (entry := self._entries.get()) is not None:
            self._written += self._file.write(json.dumps(encode_entry(entry), separators=(",", ":")) + "\n")
            if self._entries.empty():
                self._file.flush()
            if self._written >= self._limit:
                self._over = True
                log.warning("recording to %s ended at its limit of %d bytes", self._path, self._limit)
                return "limit"
        return "closed"
