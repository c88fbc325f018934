"""A recording of an agent, run through the core again: the same events at the same times give the same decisions."""

from __future__ import annotations

import json
import traceback
from typing import TYPE_CHECKING

import ipmp_agent
from ipmp_agent.core.events import KernelRead, ProbeAnswered, ProbeKind
from ipmp_agent.core.multipathing import Multipathing
from ipmp_agent.disk import recording
from ipmp_agent.disk.checkpoint import thaw
from ipmp_agent.disk.recording import ROUTINE, Decided, Handled, Resumed, Started, Stopped, Ticked
from ipmp_agent.simulate.summary import Summary
from ipmp_agent.simulate.timeline import Witness, may_change_state, probed
from ipmp_service.command import BadInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ipmp_agent.core.actions import Action
    from ipmp_agent.simulate.picture import Picture
    from ipmp_agent.simulate.timeline import Entry
    from ipmp_api.types import NodeGroup


ENTRIES_PER_PROGRESS = 10_000


def _core(started: Started | Resumed) -> Multipathing:
    if isinstance(started, Started):
        return Multipathing(started.configuration, seed=started.seed)
    if started.version != ipmp_agent.__version__:
        raise ValueError(
            f"it goes on from a file that was full, which ipmp-agent {started.version} alone can replay: "
            f"this is {ipmp_agent.__version__}"
        )
    core = thaw(started.core)
    if not isinstance(core, Multipathing):
        raise ValueError(f"not the state of a group: {type(core).__name__}")  # noqa: TRY004 - wrong input, not a fault
    return core


class _Group:
    """One group of the recording."""

    def __init__(self, started: Started | Resumed, begin: float, picture: Picture | None) -> None:
        self.picture = picture
        self._begin = begin
        self.core = _core(started)
        self.summary = Summary([member.key for member in started.configuration.members], truth=False)
        self.decided: tuple[Action, ...] = ()  # not yet found in the recording
        self._name = started.group
        self._witness = Witness()
        self._taken_over = isinstance(started, Resumed)  # before that, states are halves of what the kernel holds

    def found(self, at: float) -> Iterator[Entry]:
        """What is so where the recording goes on."""
        if self._taken_over:
            yield from self._witness.changed(at, self.core.snapshot())

    def feed(self, entry: Handled | Ticked, at: float) -> Iterator[Entry]:
        """Feed one entry to the core."""
        routine = True
        try:
            if isinstance(entry, Ticked):
                actions = self.core.tick(entry.time)
            else:
                event = entry.event
                routine = isinstance(event, ProbeAnswered) and event.kind is not ProbeKind.DISCOVERY
                self._taken_over = self._taken_over or isinstance(event, KernelRead)
                actions = self.core.handle(event, entry.time)
        except Exception as error:  # noqa: BLE001 - the agent logged it and went on, and so does its replay
            traceback.print_exception(error)
            actions = []
        self.decided = tuple(action for action in actions if type(action) not in ROUTINE)
        if self.picture:
            yield from probed(at, actions, self._begin)
        if routine and not any(may_change_state(action) for action in actions):
            return
        yield from self._witness.told(at, self._name, actions)
        if self._taken_over:
            yield from self._witness.changed(at, self.core.snapshot())


class Replay:
    """One recording being played. `run` may be called once.

    Args:
        path: the recording.
        progress: told the time within the recording now and then.
        draw: makes what takes the entries of a group, those of its probes included; None: nobody wants them.

    Attributes:
        differences: decisions that are not those of the recording, one line each; empty also when it holds none.
    """

    def __init__(
        self,
        path: Path,
        progress: Callable[[float], None] | None = None,
        draw: Callable[[NodeGroup, float, float], Picture] | None = None,
    ) -> None:
        self._draw = draw
        self._path = path
        self._progress = progress
        self._groups: dict[str, _Group] = {}
        self._over: list[tuple[float, _Group]] = []
        self._differences: list[str] = []
        self._holds_decisions = False
        self._at = 0.0  # seconds from the first entry
        self._begin: float | None = None
        self._clock: float | None = None

    def run(self) -> Iterator[Entry]:
        """Everything that happened, in order; times count from the first entry. Raises BadInputError."""
        for number, entry in enumerate(self._entries(), start=1):
            begin = self._begin = entry.time if self._begin is None else self._begin
            self._at = entry.time - begin
            if self._progress and number % ENTRIES_PER_PROGRESS == 0:
                self._progress(self._at)
            if isinstance(entry, Started | Resumed):
                picture = self._draw(entry.configuration, self._at, begin) if self._draw else None
                begun = self._groups[entry.group] = self._begun(entry, begin, picture)
                yield from self._told(begun, begun.found(self._at))
                continue
            group = self._groups.get(entry.group)
            if group is None:
                raise BadInputError([f"{self._path}: group {entry.group} is in the recording without its start"])
            if isinstance(entry, Stopped):
                self._over.append((self._at, self._groups.pop(entry.group)))
            elif isinstance(entry, Decided):
                self._holds_decisions = True
                self._compare(group, entry.actions)
            else:
                self._compare(group, ())
                yield from self._told(group, group.feed(entry, self._at))

    def _begun(self, entry: Started | Resumed, begin: float, picture: Picture | None) -> _Group:
        try:
            return _Group(entry, begin, picture)
        except ValueError as error:
            raise BadInputError([f"{self._path}: {error}"]) from error

    def _told(self, group: _Group, entries: Iterator[Entry]) -> Iterator[Entry]:
        for told in entries:
            group.summary.take(told)
            if group.picture:
                group.picture.take(told)
            yield told

    @property
    def began(self) -> float | None:
        """Seconds since the epoch at the first entry; None: the recording does not say, or has none."""
        return None if self._clock is None or self._begin is None else self._begin + self._clock

    @property
    def differences(self) -> list[str]:
        """What was decided otherwise."""
        return self._differences if self._holds_decisions else []

    def tables(self) -> Iterator[str]:
        """What it amounts to, group by group."""
        for at, group in self._all():
            yield ""
            yield from group.summary.lines(at, group.core.snapshot())

    def pictures(self) -> list[Picture]:
        """What was drawn of each group, ended, when `run` is over."""
        ended = []
        for at, group in self._all():
            if group.picture:
                group.picture.end(at)
                ended.append(group.picture)
        return ended

    def _all(self) -> list[tuple[float, _Group]]:
        return [*self._over, *((self._at, group) for group in self._groups.values())]

    def _compare(self, group: _Group, recorded: tuple[Action, ...]) -> None:
        decided, group.decided = group.decided, ()
        if decided != recorded:
            self._differences.append(
                f"{self._at:.6f}: the agent decided {_words(recorded)}, the core {_words(decided)}"
            )

    def _entries(self) -> Iterator[recording.Entry]:
        try:
            with self._path.open(encoding="utf-8") as lines:
                self._clock = recording.read_head(lines)
                yield from recording.read_entries(lines)
        except json.JSONDecodeError as error:
            raise BadInputError([f"{self._path}: not a recording: a line is not JSON: {error}"]) from error
        except ValueError as error:
            raise BadInputError([f"{self._path}: {error}"]) from error
        except OSError as error:
            raise BadInputError([f"{self._path}: {error.strerror}"]) from error


def _words(actions: tuple[Action, ...]) -> str:
    return ", ".join(str(action) for action in actions) or "nothing"
