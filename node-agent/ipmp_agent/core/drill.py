"""A failure on purpose: one member is treated as if it had failed, for a bounded time, and what happens is measured.

Nothing of the host is touched. What the member's link, or its targets, say is kept from detection, so all that follows
is real: the verdict, the moves, the announcements, the way back. A drill ends by its own clock, and at once when no
other member works, when the configuration changes and when the member goes. It is not saved: an agent that starts again
knows of none, hears the member, and takes it back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from ipmp_agent.core import events, timers
from ipmp_agent.core.actions import MoveAddresses, Severity
from ipmp_agent.core.offline import may_go_offline
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.words import DrillKind
from ipmp_api.frozen import frozen
from ipmp_api.types import Mode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ipmp_agent.core.actions import Action
    from ipmp_agent.core.detection import Detection
    from ipmp_agent.core.interface import Interface
    from ipmp_api.types import NodeGroup

    class GroupPort(Protocol):
        """What is asked of the group whose members these are."""

        def tell(
            self, reason: Reason, message: str, interface: Interface | None = ..., severity: Severity = ...
        ) -> None:
            """Let people know."""


@frozen
class DrillSnapshot:
    """What a drill has come to. Times are seconds after it began; None: not yet, or never."""

    interface: str  # key
    kind: DrillKind
    seconds: float  # how long the member is treated as failed
    limit: float  # seconds within which it must be found to have failed
    addresses: int  # data addresses that it carried
    failed: float | None = None  # it was found to have failed
    moved: float | None = None  # its addresses were ordered elsewhere
    proven: float | None = None  # a probe was answered that one who took over sent after the move
    ended: float | None = None  # it is treated as it is again
    repaired: float | None = None  # it was found to work
    returned: float | None = None  # it is used again: with its share (maybe none), in reserve, or for what moves later
    aborted: str = ""  # why it ended before its time
    over: bool = False

    @property
    def faults(self) -> tuple[str, ...]:
        """What went wrong so far, in words; none when all is over: it passed."""
        found = []
        if self.aborted:
            found.append(f"it ended before its time: {self.aborted}")
        elif self.ended is not None and self.failed is None:
            found.append(f"the failure was not found within {self.seconds:g} s")
        elif self.failed is not None and self.failed > self.limit:
            found.append(f"the failure was found after {self.failed:.2f} s, and {self.limit:.2f} s are permitted")
        if self.failed is not None and self.addresses and self.moved is None:
            found.append("the addresses stayed on the interface")
        if self.moved is not None and self.proven is None and self.ended is not None and not self.aborted:
            found.append("no probe of the interfaces that took over was answered after the move")
        if self.over and self.returned is None and not self.aborted:
            found.append(f"the interface was not used again within {timers.DRILL_RETURN:g} s")
        return tuple(found)


class Drill:
    """One drill of one member of a group."""

    def __init__(
        self, interface: Interface, kind: DrillKind, seconds: float, now: float, *, limit: float, carried: int
    ) -> None:
        self._at = now
        self._ends = now + seconds
        self._took_over: set[str] = set()
        self.link = interface.link.up  # what it really is, while detection is told otherwise
        self.result = DrillSnapshot(interface.key, kind, seconds, limit, carried)

    @property
    def key(self) -> str:
        """Of the member."""
        return self.result.interface

    @property
    def active(self) -> bool:
        """Whether the member is treated as failed now."""
        return self.result.ended is None

    @property
    def deadline(self) -> float:
        """When something is due, monotonic seconds."""
        if self.result.over:
            return timers.NEVER
        return self._ends if self.active else self._ends + timers.DRILL_RETURN

    def give_up(self) -> None:
        """Wait no longer for the member's return."""
        self.result = replace(self.result, over=True)

    # --- what detection may know

    def masked(self, event: events.Event, now: float) -> events.Event | None:
        """The event as the group is to know it; None: not at all."""
        if isinstance(event, events.ProbeAnswered):
            self._heard(event, now)
        if not self.active:
            return event
        if self.result.kind is DrillKind.LINK:
            return self._masked_link(event)
        silent = isinstance(event, events.ProbeAnswered | events.TargetHeard) and event.interface == self.key
        return None if silent else event

    def _masked_link(self, event: events.Event) -> events.Event | None:
        match event:
            case events.LinkChanged(interface=self.key):
                self.link = event.up
                return None
            case events.LinksLost() if self.key in event.interfaces:
                self.link = False
                others = tuple(key for key in event.interfaces if key != self.key)
                return replace(event, interfaces=others) if others else None
            case events.InterfaceFound(interface=self.key):
                self.link = event.link
                return replace(event, link=False)
        return event

    # --- what is measured

    def observe(self, actions: Sequence[Action], interface: Interface, now: float, *, carries: bool) -> None:
        """Note what has become of the member and its addresses.

        Args:
            actions: what is ordered now.
            interface: the member.
            now: monotonic seconds.
            carries: whether it holds its share of the data addresses, or gets none back now.
        """
        if not self.active:
            self._observe_return(interface, now, carries=carries)
            return
        if self.result.failed is None and interface.failed:
            self.result = replace(self.result, failed=now - self._at)
        moves = [move for action in actions if isinstance(action, MoveAddresses) for move in action.moves]
        away = {move.destination for move in moves if move.source == self.key and move.destination is not None}
        self._took_over |= away
        if away and self.result.moved is None:
            self.result = replace(self.result, moved=now - self._at)

    def _observe_return(self, interface: Interface, now: float, *, carries: bool) -> None:
        after = now - self._at
        if interface.functioning and self.result.repaired is None:
            self.result = replace(self.result, repaired=after)
        if interface.functioning and (carries or interface.inactive or not self.result.addresses):
            self.result = replace(self.result, returned=after, over=True)

    def _heard(self, event: events.ProbeAnswered, now: float) -> None:
        """Note the first answer to a probe that one who took over sent after the move."""
        moved = self.result.moved
        if moved is None or self.result.proven is not None or event.interface not in self._took_over:
            return
        if event.kind is events.ProbeKind.DETECTION and now - event.rtt >= self._at + moved:
            self.result = replace(self.result, proven=now - self._at)

    def end(self, now: float, aborted: str) -> None:
        """The member is treated as it is from now on.

        Args:
            now: monotonic seconds.
            aborted: why before its time; "": its time is over.
        """
        self._ends = now
        self.result = replace(self.result, ended=now - self._at, aborted=aborted, over=bool(aborted))


def refusal(interface: Interface, kind: DrillKind, members: Sequence[Interface], configuration: NodeGroup) -> str:
    """Why there may be no drill of a member now, in words; "" if there may."""
    if configuration.policies.mode is not Mode.MANAGE:
        return "the group observes only, and moves nothing"
    if not interface.functioning:
        return f"it is {interface.word.value} already"
    if not may_go_offline(interface, members):
        return "no other interface of the group works, so its addresses would be lost"
    if broken := [other.name for other in members if other.failed]:
        return f"{', '.join(broken)} failed: repair that first"
    if kind is DrillKind.SILENT and not interface.capable:
        return "it is not probed, so nobody would find that it is silent"
    return ""


class Drills:
    """The drills of one group: one at a time."""

    def __init__(self, interfaces: dict[str, Interface], detection: Detection, owner: GroupPort) -> None:
        self._interfaces = interfaces  # shared with the group
        self._detection = detection
        self._group = owner
        self._drill: Drill | None = None  # the one under way, or the last

    @property
    def _members(self) -> tuple[Interface, ...]:
        return tuple(self._interfaces.values())

    @property
    def result(self) -> DrillSnapshot | None:
        """Of the drill under way, or of the last."""
        return self._drill.result if self._drill is not None else None

    @property
    def drilled(self) -> str | None:
        """The key of the member that is treated as failed; None: there is none."""
        return self._drill.key if self._drill is not None and self._drill.active else None

    @property
    def watched(self) -> str | None:
        """The key of the member of a drill that is not over; None: there is none."""
        if self._drill is None or self._drill.result.over or self._drill.key not in self._interfaces:
            return None
        return self._drill.key

    @property
    def deadline(self) -> float:
        """When something is due, monotonic seconds."""
        return self._drill.deadline if self._drill is not None else timers.NEVER

    def masked(self, event: events.Event, now: float) -> events.Event | None:
        """The event as the group is to know it; None: not at all."""
        return event if self._drill is None else self._drill.masked(event, now)

    def tick(self, now: float) -> None:
        """End the drill whose time is over, or the wait for its member."""
        if self._drill is None or now < self._drill.deadline:
            return
        if self._drill.active:
            self.end(now)
        else:
            self._drill.give_up()

    def observe(self, actions: Sequence[Action], now: float, *, carries: bool) -> None:
        """Note what becomes of the member that is watched, as `Drill.observe` does."""
        if self._drill is not None:
            self._drill.observe(actions, self._interfaces[self._drill.key], now, carries=carries)

    def request(self, event: events.DrillRequested, configuration: NodeGroup, carried: int, now: float) -> None:
        """Somebody wants a member treated as failed; `carried` data addresses are on it."""
        interface = self._interfaces.get(event.interface)
        if interface is None:
            self._group.tell(Reason.DRILL, f"no drill: {event.interface} is not a member of this group")
            return
        why = "the last one is not over yet" if self._drill is not None and not self._drill.result.over else ""
        why = why or refusal(interface, event.kind, self._members, configuration)
        if why:
            self._group.tell(Reason.DRILL, f"no drill of {interface.name}: {why}", interface, Severity.WARNING)
            return
        limit = self._detection.time.value * timers.DRILL_LIMIT
        self._drill = Drill(interface, event.kind, event.seconds, now, limit=limit, carried=carried)
        words = f"drill: {interface.name} is treated as failed ({event.kind.value}) for {event.seconds:g} s"
        self._group.tell(Reason.DRILL, words, interface, Severity.WARNING)
        if event.kind is DrillKind.LINK:
            self._detection.link_changed(interface, up=False, now=now)

    def watch(self, now: float) -> None:
        """End a drill that has become dangerous, or pointless."""
        drill = self._drill
        if drill is None or drill.result.over:
            return
        interface = self._interfaces.get(drill.key)
        if interface is None or not interface.present or interface.offline:
            self.end(now, "the interface is gone, or offline")
        elif not any(other.functioning and other.link.usable for other in self._members if other is not interface):
            self.end(now, "no other interface works any more")

    def end(self, now: float, aborted: str = "") -> None:
        """Treat the member as it is. One that is needed at once is used at once: nothing was wrong with it.

        Args:
            now: monotonic seconds.
            aborted: why before its time; "": its time is over.
        """
        drill = self._drill
        if drill is None or not drill.active:
            return
        drill.end(now, aborted)
        interface = self._interfaces.get(drill.key)
        if interface is None or not interface.present:
            return
        why = f" before its time: {aborted}" if aborted else ""
        self._group.tell(Reason.DRILL, f"drill: {interface.name} is treated as it is again{why}", interface)
        if drill.result.kind is DrillKind.LINK and drill.link is not False:
            ups, interface.link.ups = interface.link.ups, ()  # a link that never went does not flap
            self._detection.link_changed(interface, drill.link, now)
            interface.link.ups = ups
        if aborted and interface.link.usable:
            self._detection.acquit(interface, now)
