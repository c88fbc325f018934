"""What a simulation tells: every change of state, who has which address, and what people were told, each with its time.

Changes are found by comparing snapshots, so the timeline says what status and ipmpstat would have said.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ipmp_agent.core.actions import InterfaceVerdict, Notify, ProbeClosed
from ipmp_agent.core.events import Family
from ipmp_agent.disk.recording import ROUTINE
from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ipmp_agent.core.actions import Action
    from ipmp_agent.core.reasons import Reason
    from ipmp_agent.core.snapshot import GroupSnapshot
    from ipmp_agent.core.words import GroupState, InterfaceWord, LinkWord
    from ipmp_agent.simulate.script import Happening

ARROW = "->"


@frozen
class Injected:
    """The script did something."""

    at: float
    what: Happening


@frozen
class Passing:
    """The truth: frames pass an interface, or none does."""

    at: float
    interface: str
    passes: bool


@frozen
class Told:
    """What the log says."""

    at: float
    group: str
    notice: Notify


@frozen
class Judged:
    """An interface failed or was repaired, as it is counted."""

    at: float
    group: str
    verdict: InterfaceVerdict


@frozen
class InterfaceChange:
    """State, use or reason of an interface changed."""

    at: float
    interface: str
    state: InterfaceWord
    active: bool
    reason: Reason | None


@frozen
class LinkChange:
    """What the driver says of a link changed, or the interface came or went."""

    at: float
    interface: str
    link: LinkWord
    present: bool


@frozen
class Probed:
    """A probe was answered or given up; told only where somebody wants to draw it."""

    at: float
    interface: str
    target: str
    sent: float  # when, on the clock of `at`
    rtt: float | None  # seconds; None: lost


@frozen
class AddressChange:
    """A data address is somewhere else; None: nowhere."""

    at: float
    address: str
    interface: str | None
    before: str | None


@frozen
class GroupChange:
    """State or failure detection time of the group changed."""

    at: float
    group: str
    state: GroupState
    detection_time: float  # seconds


Entry = Injected | Passing | Told | Judged | InterfaceChange | LinkChange | Probed | AddressChange | GroupChange


def may_change_state(action: Action) -> bool:
    """Whether a snapshot after this action may differ from the one before it."""
    if type(action) is ProbeClosed:
        # A member without targets is ok while the other members hear it, and unknown when they do not.
        return action.family not in (Family.IPV4, Family.IPV6)
    return type(action) not in ROUTINE


def probed(at: float, actions: Iterable[Action], begin: float) -> Iterator[Probed]:
    """The probes that were answered or given up. `begin`: where `at` began, on the core's clock."""
    for action in actions:
        if type(action) is ProbeClosed:
            yield Probed(at, action.interface, str(action.target), action.sent_at - begin, action.rtt)


class Witness:
    """Turns what the core of one group does into entries."""

    def __init__(self) -> None:
        self._interfaces: dict[str, tuple[Any, ...]] = {}
        self._links: dict[str, tuple[Any, ...]] = {}
        self._addresses: dict[str, str | None] = {}
        self._group: tuple[Any, ...] = ()

    def told(self, at: float, group: str, actions: Iterable[Action]) -> Iterator[Entry]:
        """What people are told and what is counted."""
        for action in actions:
            if type(action) is Notify:
                yield Told(at, group, action)
            elif type(action) is InterfaceVerdict:
                yield Judged(at, group, action)

    def changed(self, at: float, snapshot: GroupSnapshot) -> Iterator[Entry]:
        """What differs from the snapshot before."""
        for interface in snapshot.interfaces:
            now = (interface.state, interface.active, interface.reason)
            if self._interfaces.get(interface.interface) != now:
                self._interfaces[interface.interface] = now
                yield InterfaceChange(at, interface.interface, *now)
            link = (interface.link, interface.present)
            if self._links.get(interface.interface) != link:
                self._links[interface.interface] = link
                yield LinkChange(at, interface.interface, *link)
        for gone in self._interfaces.keys() - {interface.interface for interface in snapshot.interfaces}:
            del self._interfaces[gone], self._links[gone]
        yield from self._moved(at, snapshot)
        state = (snapshot.state, snapshot.detection_time)
        if self._group != state:
            self._group = state
            yield GroupChange(at, snapshot.group, *state)

    def _moved(self, at: float, snapshot: GroupSnapshot) -> Iterator[Entry]:
        holders = {str(address.address.ip): address.interface for address in snapshot.addresses}
        for address in [known for known in self._addresses if known not in holders]:
            if (before := self._addresses.pop(address)) is not None:
                yield AddressChange(at, address, None, before)
        for address, holder in holders.items():
            before = self._addresses.get(address)
            if address not in self._addresses or before != holder:
                self._addresses[address] = holder
                yield AddressChange(at, address, holder, before)


def to_json(entry: Entry) -> str | None:
    """One line for programs; None for what only people are told. Times are seconds, whole microseconds."""
    at = round(entry.at, 6)
    line: dict[str, Any]
    match entry:
        case InterfaceChange(_, interface, state, active, reason):
            line = {
                "at": at,
                "interface": interface,
                "state": state.value,
                "active": active,
                "reason": reason.value if reason else None,
            }
        case AddressChange(_, address, interface):
            line = {"at": at, "address": address, "interface": interface}
        case GroupChange(_, group, state, time):
            milliseconds = round(time * 1000)
            line = {"at": at, "group": group, "state": state.value, "failureDetectionTimeMilliseconds": milliseconds}
        case _:
            return None
    return json.dumps(line)


def to_text(entry: Entry) -> str | None:
    """One line for people."""
    match entry:
        case Injected(_, what):
            text = f"==> {what}"
        case Told(_, group, notice):
            text = f"    {notice.severity.value}: {notice.message}" + ("" if notice.interface else f" (group {group})")
        case InterfaceChange(_, interface, state, active, reason):
            use = "active" if active else "not active"
            text = f"    {interface} is {state.value}, {use}" + (f" ({reason.value})" if reason else "")
        case AddressChange(_, address, interface, before):
            text = f"    {address} {before or 'nowhere'} {ARROW} {interface or 'nowhere'}"
        case GroupChange(_, group, state, time):
            text = f"    group {group} is {state.value}, failure detection time {time * 1000:.0f} ms"
        case _:
            return None
    return f"{entry.at:11.3f} {text}"
