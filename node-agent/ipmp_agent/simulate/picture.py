"""What is drawn of one group: a lane for each interface, and what happened, as values without a plotting library."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Generic, TypeVar

from ipmp_agent.core.actions import Severity
from ipmp_agent.simulate.timeline import (
    ARROW,
    AddressChange,
    GroupChange,
    Injected,
    InterfaceChange,
    Judged,
    LinkChange,
    Probed,
    Told,
)
from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from ipmp_agent.core.actions import InterfaceVerdict
    from ipmp_agent.core.reasons import Reason
    from ipmp_agent.core.words import InterfaceWord
    from ipmp_agent.simulate.timeline import Entry
    from ipmp_api.types import NodeGroup

T = TypeVar("T")

NOWHERE = ""
"""The lane of addresses that are on no interface."""


@dataclass(slots=True)
class Span(Generic[T]):
    """What was so from a moment to another, seconds from the beginning."""

    value: T
    begin: float
    end: float = inf


class Spans(list[Span[T]]):
    """What was so, one after the other, without overlaps; there may be gaps."""

    def change(self, at: float, value: T | None) -> None:
        """It is so from now on; None: nothing is."""
        if self and self[-1].end == inf:
            self[-1].end = at
            if self[-1].begin == at:
                self.pop()
        if value is not None:
            self.append(Span(value, at))

    def close(self, at: float) -> None:
        """End what still is so."""
        self.change(at, None)


@frozen
class Standing:
    """State of an interface, whether it may carry addresses, and why."""

    word: InterfaceWord
    active: bool
    reason: Reason | None

    def __str__(self) -> str:
        use = "active" if self.active else "not active"
        return f"{self.word.value}, {use}" + (f" ({self.reason.value})" if self.reason else "")


@dataclass(slots=True)
class Lane:
    """Everything of one interface."""

    interface: str
    role: str = ""
    states: Spans[Standing] = field(default_factory=Spans)
    links: Spans[str] = field(default_factory=Spans)  # up, down, unknown or absent
    answered: list[Probed] = field(default_factory=list)
    lost: list[Probed] = field(default_factory=list)
    addresses: dict[str, Spans[str]] = field(default_factory=dict)  # what each was here for: the interface's key


@frozen
class DrawnMove:
    """An address went from one interface to another."""

    at: float
    address: str
    source: str
    destination: str


@frozen
class Happened:
    """One line of the table. `mark` is what it has in the picture; empty: nothing."""

    at: float
    kind: str  # fault, verdict, change, move or log
    text: str
    mark: str = ""


@frozen
class DrawnVerdict:
    """An interface was found to have failed, or to work again."""

    at: float
    verdict: InterfaceVerdict
    first_loss: float | None  # seconds from the beginning


class Picture:
    """Takes the entries of one group and keeps what a page shows of it.

    Args:
        group: as it was at the beginning.
        begin: when it began, seconds from the beginning of the recording.
        clock: the core's clock at the beginning of the recording.
    """

    def __init__(self, group: NodeGroup, begin: float, clock: float) -> None:
        self.group = group.group_name
        self.node = group.node_name
        self.begin, self.over = begin, begin
        self._clock = clock
        self.lanes = {member.key: Lane(member.key, member.role.value.lower()) for member in group.members}
        self.lanes[NOWHERE] = Lane(NOWHERE)
        self.moves: list[DrawnMove] = []
        self.happened: list[Happened] = []
        self.found: list[DrawnVerdict] = []

    def take(self, entry: Entry) -> None:
        """Keep one entry."""
        match entry:
            case Probed(_, interface, _, _, rtt):
                lane = self._lane(interface)
                (lane.lost if rtt is None else lane.answered).append(entry)
            case InterfaceChange(at, interface, state, active, reason):
                standing = Standing(state, active, reason)
                self._lane(interface).states.change(at, standing)
                self._note(at, "change", f"{interface} is {standing}")
            case LinkChange(at, interface, link, present):
                self._lane(interface).links.change(at, link.value if present else "absent")
            case AddressChange():
                self._moved(entry)
            case Judged(at, _, verdict):
                since = verdict.since
                self.found.append(DrawnVerdict(at, verdict, None if since is None else since - self._clock))
                word = "has failed" if verdict.failed else "works again"
                text = f"{verdict.interface} {word} ({verdict.reason.value})"
                self._note(at, "verdict", text, str(len(self.found)))
            case GroupChange(at, group, state, time):
                self._note(at, "change", f"group {group} is {state.value}, failure detection time {time * 1000:.0f} ms")
            case Injected(at, what):
                faults = sum(one.kind == "fault" for one in self.happened)
                self._note(at, "fault", str(what), _letters(faults))
            case Told(at, _, notice):
                self._note(at, "log" if notice.severity is Severity.INFO else notice.severity.value, notice.message)

    def end(self, at: float) -> None:
        """Nothing comes after this moment."""
        self.over = at
        for lane in self.lanes.values():
            lane.states.close(at)
            for spans in (lane.links, *lane.addresses.values()):
                spans.close(at)

    def _lane(self, interface: str) -> Lane:
        """The lane of an interface; of one that came later, before that of addresses that are nowhere."""
        if interface not in self.lanes:
            nowhere = self.lanes.pop(NOWHERE)
            self.lanes[interface] = Lane(interface)
            self.lanes[NOWHERE] = nowhere
        return self.lanes[interface]

    def _moved(self, change: AddressChange) -> None:
        for lane in self.lanes.values():
            if change.address in lane.addresses:
                lane.addresses[change.address].close(change.at)
        here = change.interface or NOWHERE
        lane = self._lane(here)
        lane.addresses.setdefault(change.address, Spans()).change(change.at, here)
        if change.before is not None and change.interface is not None:
            self.moves.append(DrawnMove(change.at, change.address, change.before, change.interface))
        text = f"{change.address} {change.before or 'nowhere'} {ARROW} {change.interface or 'nowhere'}"
        self._note(change.at, "move", text)

    def _note(self, at: float, kind: str, text: str, mark: str = "") -> None:
        self.happened.append(Happened(at, kind, text, mark))


def _letters(number: int) -> str:
    """A, B, ... Z, AA, AB: the marks of faults, apart from the numbers of verdicts."""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("A") + rest) + text
    return text
