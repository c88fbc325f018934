"""A recording of an agent, run through the core again: the same events at the same times give the same decisions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ipmp_agent import recording
from ipmp_agent.core.events import KernelRead, ProbeAnswered, ProbeKind
from ipmp_agent.core.multipathing import Multipathing
from ipmp_agent.recording import Handled, Started, Stopped, Ticked
from ipmp_agent.simulate.files import InputError
from ipmp_agent.simulate.summary import Summary
from ipmp_agent.simulate.timeline import ROUTINE, Witness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from ipmp_agent.core.actions import Action
    from ipmp_agent.recording import Entry as Recorded
    from ipmp_agent.simulate.timeline import Entry


class _Group:
    """One group of the recording."""

    def __init__(self, started: Started) -> None:
        self.core = Multipathing(started.configuration, seed=started.seed)
        self.summary = Summary([member.key for member in started.configuration.members], truth=False)
        self._name = started.group
        self._witness = Witness()
        self._taken_over = False  # before that, states are halves of what the kernel holds

    def handle(self, entry: Handled | Ticked, at: float) -> Iterator[Entry]:
        """Feed one entry to the core."""
        if isinstance(entry, Ticked):
            actions, routine = self.core.tick(entry.time), True
        else:
            event = entry.event
            actions = self.core.handle(event, entry.time)
            routine = type(event) is ProbeAnswered and event.kind is not ProbeKind.DISCOVERY
            self._taken_over = self._taken_over or type(event) is KernelRead
        yield from self._witnessed(actions, at, routine=routine)

    def _witnessed(self, actions: list[Action], at: float, *, routine: bool) -> Iterator[Entry]:
        if routine and all(type(action) in ROUTINE for action in actions):
            return
        yield from self._witness.told(at, self._name, actions)
        if self._taken_over:
            yield from self._witness.changed(at, self.core.snapshot())


def play(path: Path, show: Callable[[Entry], None], write: Callable[[str], None] | None) -> int:
    """Show the timeline of a recording and write its tables; times count from its first entry. Raises InputError."""
    groups: dict[str, _Group] = {}
    begin = None
    at = 0.0
    for entry in _entries(path):
        begin = entry.time if begin is None else begin
        at = entry.time - begin
        if isinstance(entry, Started):
            groups[entry.group] = _Group(entry)
        elif isinstance(entry, Stopped):
            _finish(groups.pop(entry.group, None), at, write)
        elif entry.group not in groups:
            raise InputError(f"{path}: group {entry.group} is in the recording without its start")
        else:
            group = groups[entry.group]
            for told in group.handle(entry, at):
                group.summary.take(told)
                show(told)
    for group in groups.values():
        _finish(group, at, write)
    return 0


def _entries(path: Path) -> Iterable[Recorded]:
    try:
        with path.open(encoding="utf-8") as lines:
            yield from recording.read(lines)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not a recording: a line is not JSON ({error})") from error
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _finish(group: _Group | None, at: float, write: Callable[[str], None] | None) -> None:
    if group is not None and write is not None:
        for line in ("", *group.summary.lines(at, group.core.snapshot())):
            write(line)
