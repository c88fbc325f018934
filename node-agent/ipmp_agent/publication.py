"""What the data plane lets others see: immutable, replaced as a whole, read from any thread."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from ipmp_agent.core.reasons import Reason
from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipmp_agent.core.actions import Severity
    from ipmp_agent.core.findings import Finding, NotAdopted
    from ipmp_agent.core.snapshot import GroupSnapshot
    from ipmp_api.types import InterfaceAddress, NodeGroup

HISTORY = 50
"""Failovers and failbacks of a group that are remembered; its status shows the last ten."""

HISTORY_ADDRESSES = 4096
"""Addresses that they may name together: of very large moves fewer are remembered, and the last one always is."""


@frozen
class PastFailover:
    """Addresses went from one member to another."""

    time: float  # when they were announced there, seconds since the epoch
    source: str | None
    destination: str | None
    reason: Reason  # why they moved
    addresses: tuple[InterfaceAddress, ...]
    duration: float  # seconds from the event, or the tick, to the first announcement
    first_loss: float | None = None  # of a probe or of the carrier, seconds since the epoch; None: nothing had failed

    @property
    def decided(self) -> float:
        """When the event or the tick came by which it was decided, seconds since the epoch."""
        return self.time - self.duration

    @property
    def outage(self) -> float | None:
        """Seconds from the first loss to the announcement; None: nothing had failed."""
        return None if self.first_loss is None else self.time - self.first_loss


def remembered(history: Iterable[PastFailover]) -> tuple[PastFailover, ...]:
    """As much of a history, in its order, as is kept: its end."""
    kept: list[PastFailover] = []
    room = HISTORY_ADDRESSES
    for one in reversed(tuple(history)):
        room -= len(one.addresses)
        if len(kept) == HISTORY or (kept and room < 0):
            break
        kept.append(one)
    return tuple(reversed(kept))


@frozen
class Occurrence:
    """A `Notify` with its group and its moment: a log line, an Event."""

    time: float  # seconds since the epoch
    group: str
    reason: Reason
    message: str
    severity: Severity
    interface: str | None


@frozen
class Reporting:
    """How far the API server is told what the agent sees."""

    lag: float  # seconds since all that was published last was there
    connected: bool  # it answered the last request, and no watch has broken since


@frozen
class GroupView:
    """One group with what surrounds its snapshot."""

    configuration: NodeGroup
    snapshot: GroupSnapshot
    findings: tuple[Finding, ...] = ()
    not_adopted: tuple[NotAdopted, ...] = ()
    history: tuple[PastFailover, ...] = ()
    since: dict[str, float] = field(default_factory=dict)  # interface key -> seconds since the epoch
    ready: bool = True  # the kernel has been read and obeys this configuration
    on_trial: bool = False  # the configuration is undone if the node loses by it what it reached before
    undone: str = ""  # why another configuration is in force than the wanted one; empty: it is not

    def names(self) -> dict[str, str]:
        """By key, a name of each member that no other has.

        Of members that mean one interface, the one that has it is shown by its name, every other by its key; one that
        is matched by that name gets the key of the one that has it.
        """
        members = sorted(self.snapshot.interfaces, key=lambda member: member.refusal is Reason.INTERFACE_CONFLICT)
        having: dict[str, str] = {}
        for member in members:
            having.setdefault(member.name, member.interface)
        names = {}
        for member in self.snapshot.interfaces:
            key = member.interface
            names[key] = member.name if having[member.name] == key else having.get(key, key)
        return names


@frozen
class Publication:
    """All groups at one moment."""

    monotonic: float  # seconds of the core's clock
    time: float  # seconds since the epoch
    groups: tuple[GroupView, ...] = ()
    pending: tuple[str, ...] = ()  # groups that are in the kernel, and neither taken over nor withdrawn yet
    configured: bool = False  # the first configuration has been applied

    def group(self, name: str) -> GroupView | None:
        """The group of this name, if there is one."""
        return next((view for view in self.groups if view.snapshot.group == name), None)
