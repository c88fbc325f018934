"""Everything that went into the core, with its time: enough to run it again, exactly.

A recording is JSON lines. The first says what it is, and with "clock" what to add to its times for seconds since the
epoch; then, in the order in which the core was fed:
    {"start": GROUP, "seed": N, "t": T, "configuration": {...}}    a core was made
    {"g": GROUP, "t": T, "e": "LinkChanged", "v": {...}}           handle(event, T)
    {"g": GROUP, "t": T}                                           tick(T)
    {"g": GROUP, "t": T, "d": [["Notify", {...}], ...]}            what it ordered then, probes left out
    {"stop": GROUP, "t": T}                                        the group was withdrawn
    {"resume": GROUP, "t": T, "configuration": {...}, "core": ...} the core as it was, where the file before was full
    {"end": WHY, "lost": N}                                        last line; N entries are missing before it
Times are monotonic seconds with full precision. The core draws its jitter from the seed, so a replay takes the same
decisions.

A recording is bounded: a file that is half of it becomes FILE.1, in place of the one before, and another begins. What
an agent finds when it starts becomes FILE.1, too: what led to its end is kept. Each file is a recording of its own.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, TextIO, get_args

import ipmp_agent
from ipmp_agent.core import actions, events
from ipmp_agent.core.actions import ProbeClosed, SendProbe
from ipmp_agent.disk.codec import decode, encode
from ipmp_api.frozen import frozen
from ipmp_api.types import NodeGroup
from ipmp_service.threads import kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from ipmp_agent.core.actions import Action
    from ipmp_agent.core.events import Event

FORMAT = "ipmp-recording"
VERSION = 1
LIMIT = 64 * 1024 * 1024
"""Bytes of a recording, both files together: about a day of four members probed five times a second."""

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


@frozen
class Started:
    """A core was made for this configuration with this seed."""

    group: str
    time: float
    seed: int
    configuration: NodeGroup


@frozen
class Handled:
    """The core was given an event."""

    group: str
    time: float
    event: Event


@frozen
class Ticked:
    """The core was told the time."""

    group: str
    time: float


@frozen
class Decided:
    """What the core ordered at the entry before, without the routine: a replay must order the same."""

    group: str
    time: float
    actions: tuple[Action, ...]


@frozen
class Stopped:
    """The group is no more."""

    group: str
    time: float


@frozen
class Resumed:
    """The recording goes on from here: `core` is what `checkpoint.freeze` made of it in agent `version`."""

    group: str
    time: float
    configuration: NodeGroup
    core: str
    version: str


Entry = Started | Handled | Ticked | Decided | Stopped | Resumed


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
        case Resumed(group, time, configuration, core, version):
            what = {"configuration": encode(configuration), "core": core, "version": version}
            return {"resume": group, "t": time, **what}


def decode_entry(line: dict[str, Any]) -> Entry:
    """The entry of one line. Raises ValueError for anything else."""
    try:
        time = float(line["t"])
        if "start" in line:
            return Started(line["start"], time, int(line["seed"]), decode(NodeGroup, line["configuration"]))
        if "resume" in line:
            core, version = str(line["core"]), str(line["version"])
            return Resumed(line["resume"], time, decode(NodeGroup, line["configuration"]), core, version)
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


class _NextFile:
    """What follows stands in another file."""


def before(path: Path) -> Path:
    """Where a recording goes when another takes its place."""
    return path.with_name(f"{path.name}.1")


class Recorder:
    """Writes a recording from a thread of its own.

    Args:
        path: of the recording; what is there becomes PATH.1.
        failed: told when the disk refuses, which ends the recording.
        limit: bytes of both files together.

    Attributes:
        cores: configuration and core of each group now, asked in the thread that calls `put`.

    Raises:
        OSError: where the file cannot be made.
    """

    def __init__(self, path: Path, failed: Callable[[], None], limit: int = LIMIT) -> None:
        self.cores: Callable[[], Mapping[str, tuple[NodeGroup, object]]] = dict
        self._path = path
        self._failed = failed
        self._limit = limit // 2
        self._entries: queue.Queue[Entry | _NextFile | None] = queue.Queue(BACKLOG)
        self._lost = 0
        self._over = False
        self._full = threading.Event()  # the file is: go on in another
        self._file = self._begin()
        self._thread = kept(self._run, "recording")
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Record one entry. Never blocks: what the disk cannot take is lost, and counted in the last line."""
        if self._over:
            return
        try:
            # Before an event or a tick every core is as the entries so far have made it.
            if self._full.is_set() and isinstance(entry, Handled | Ticked):
                self._go_on(entry.time)
            self._entries.put_nowait(entry)
        except queue.Full:
            # One lost entry makes the rest useless for a replay, and says that the machine has other troubles.
            self._lost += 1
            self._over = True
        except Exception:
            self._over = True
            self._failed()
            log.exception("recording to %s ended: the state of a group cannot be written", self._path)

    def close(self, timeout: float = 5.0) -> None:
        """End the recording, waiting at most `timeout` seconds for the disk."""
        self._over = True
        try:
            self._entries.put(None, timeout=timeout)
        except queue.Full:
            return
        self._thread.join(timeout)

    def _go_on(self, now: float) -> None:
        """Another file from here on, which begins with all cores as they are."""
        from ipmp_agent.disk.checkpoint import freeze  # noqa: PLC0415 - pickle, which no other agent needs

        self._full.clear()
        self._entries.put_nowait(_NextFile())
        for name, (configuration, core) in self.cores().items():
            self._entries.put_nowait(Resumed(name, now, configuration, freeze(core), ipmp_agent.__version__))

    def _begin(self) -> TextIO:
        """Open the file, and keep the one before; a device, a pipe or a link stays where it is."""
        if self._path.is_file() and not self._path.is_symlink():
            self._path.replace(before(self._path))
        file = self._path.open("w", encoding="utf-8")
        head = {
            "format": FORMAT,
            "version": VERSION,
            "agentVersion": ipmp_agent.__version__,
            "clock": time.time() - time.monotonic(),
        }
        file.write(json.dumps(head) + "\n")
        return file

    def _run(self) -> None:
        try:
            going_on = True
            while going_on:
                with self._file as file:
                    going_on = self._record(file)
                    end = "continued" if going_on else "closed"
                    file.write(json.dumps({"end": end, "lost": self._lost}) + "\n")
                if going_on:
                    self._file = self._begin()
        except OSError as error:
            self._over = True
            self._failed()
            log.error("recording to %s ended: %s", self._path, error)  # noqa: TRY400 - the errno says it all

    def _record(self, file: TextIO) -> bool:
        """Write one file; returns whether another comes after it."""
        written = 0  # without the cores at its beginning: a file that they fill would be followed by another at once
        full = False
        while (entry := self._entries.get()) is not None:
            if isinstance(entry, _NextFile):
                return True
            size = file.write(json.dumps(encode_entry(entry), separators=(",", ":")) + "\n")
            written += 0 if isinstance(entry, Resumed) else size
            if self._entries.empty():
                file.flush()
            if written >= self._limit and not full:
                full = True
                self._full.set()
        return False
