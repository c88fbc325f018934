"""Members taken offline: by somebody's command, by spec.offline, or for a MAC address that another member has too.

A member may have several reasons at once, and comes back with the last. Nobody but a command with force takes the last
member that works.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ipmp_agent.core.actions import Severity
from ipmp_agent.core.findings import Finding
from ipmp_agent.core.interface import group_state
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.words import GroupState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ipmp_agent.core.detection import Detection
    from ipmp_agent.core.events import SavedInterface
    from ipmp_agent.core.interface import Interface
    from ipmp_api.types import NodeGroup

    class GroupPort(Protocol):
        """What is asked of the group whose members these are."""

        def tell(
            self, reason: Reason, message: str, interface: Interface | None = ..., severity: Severity = ...
        ) -> None:
            """Let people know."""

        def lost(self) -> None:
            """A member that was in use is offline."""

        def gained(self, interface: Interface, *, reclaim: bool) -> None:
            """A member is back and works; `reclaim`: it gets its addresses back."""


class Offline:
    """Takes the members of one group offline, and brings them back."""

    def __init__(
        self, configuration: NodeGroup, interfaces: dict[str, Interface], detection: Detection, owner: GroupPort
    ) -> None:
        self.configuration = configuration
        self._interfaces = interfaces  # shared with the group
        self._detection = detection
        self._group = owner

    @property
    def _members(self) -> tuple[Interface, ...]:
        return tuple(self._interfaces.values())

    # --- by command ---

    def request(self, name: str, now: float, *, force: bool) -> None:
        """Somebody takes a member out of use."""
        interface = self._find(name)
        if interface is None:
            self._group.tell(Reason.INTERFACE_MISSING, f"{name} is not a member of this group")
        elif Reason.OFFLINE in interface.offline_reasons:
            self._group.tell(Reason.OFFLINE, f"{interface.name} is already offline", interface)
        elif not force and not self._may_go(interface):
            self._group.tell(Reason.MINIMUM_REDUNDANCY, _no_redundancy(interface), interface, Severity.WARNING)
        else:
            self.take(interface, Reason.OFFLINE, now)

    def end(self, name: str, now: float) -> None:
        """Somebody gives a member back."""
        interface = self._find(name)
        if interface is None:
            self._group.tell(Reason.INTERFACE_MISSING, f"{name} is not a member of this group")
        elif interface.offline_reasons == {Reason.DUPLICATE_MAC}:
            self._group.tell(
                Reason.DUPLICATE_MAC,
                f"{interface.name} is offline for its duplicate MAC address and comes back when that is unique",
                interface,
                Severity.WARNING,
            )
        elif Reason.OFFLINE not in interface.offline_reasons:
            why = " here: remove it from spec.offline" if Reason.CONFIGURED in interface.offline_reasons else ""
            self._group.tell(Reason.ONLINE, f"{interface.name} was not taken offline{why}", interface, Severity.WARNING)
        else:
            self._bring_back(interface, Reason.OFFLINE, now)
            if interface.offline_reasons or not interface.present:
                message = f"{interface.name} is not kept offline any more{_until(interface)}"
                self._group.tell(Reason.ONLINE, message, interface)

    def _find(self, name: str) -> Interface | None:
        return self._interfaces.get(name) or next((i for i in self._members if i.name == name), None)

    def _may_go(self, interface: Interface) -> bool:
        return interface.offline or not interface.present or may_go_offline(interface, self._members)

    # --- by configuration ---

    def heed_configuration(self, now: float) -> list[Finding]:
        """Do what spec.offline asks, as soon as redundancy allows. Returns what cannot be done yet."""
        refused: list[Finding] = []
        for interface in self._members:
            if Reason.CONFIGURED in interface.offline_reasons and not self._asked(interface):
                self._bring_back(interface, Reason.CONFIGURED, now)
        for interface in self._members:
            if Reason.CONFIGURED in interface.offline_reasons or not self._asked(interface):
                continue
            if interface.present and self._may_go(interface):
                self.take(interface, Reason.CONFIGURED, now)
            elif interface.present:
                refused.append(Finding(Reason.MINIMUM_REDUNDANCY, _no_redundancy(interface), interface.key))
        return refused

    def _asked(self, interface: Interface) -> bool:
        return interface.key in self.configuration.offline or interface.name in self.configuration.offline

    # --- a member that appears ---

    def find_reasons(self, interface: Interface, saved: SavedInterface | None, *, late: bool) -> None:
        """Take down why a member that has appeared is to be offline.

        Args:
            interface: the member.
            saved: what is remembered of it.
            late: it came when the others were known.
        """
        if saved and saved.offline:
            interface.offline_reasons.add(Reason.OFFLINE)
        heeded = saved.heeded if saved else late and may_go_offline(interface, self._members)
        if heeded and self._asked(interface):
            interface.offline_reasons.add(Reason.CONFIGURED)
        if (saved and saved.twin) or (late and mac_holder(interface, self._members)):
            self._add_duplicate(interface)

    def part_duplicates(self, now: float) -> None:
        """All members have been found: of those with one MAC address leave one online.

        In whatever order they were found, it is the one that an earlier run left online, else the first of the
        configuration.
        """
        for interface in reversed(self._members):
            if interface.present and not interface.offline and mac_holder(interface, self._members):
                self._add_duplicate(interface)
                self._detection.go_offline(interface, Reason.DUPLICATE_MAC, now)

    def _add_duplicate(self, interface: Interface) -> None:
        interface.offline_reasons.add(Reason.DUPLICATE_MAC)
        self._group.tell(
            Reason.DUPLICATE_MAC,
            f"{interface.name} has the MAC address of another member and is taken offline: give it its own",
            interface,
            Severity.ERROR,
        )

    # --- there and back ---

    def take(self, interface: Interface, reason: Reason, now: float) -> None:
        """Take a member offline for one more reason."""
        was_offline, was_active = interface.offline, interface.active
        interface.offline_reasons.add(reason)
        if was_offline or not interface.present:
            where = "" if interface.present else " as soon as it is here"
            self._group.tell(reason, f"{interface.name} is kept offline{where}", interface)
            return
        self._detection.go_offline(interface, reason, now)
        if reason is not Reason.DUPLICATE_MAC:
            self._group.tell(Reason.OFFLINE, f"{interface.name} is offline", interface)
        if was_active:
            self._group.lost()
        self.release_duplicates(now)

    def _bring_back(self, interface: Interface, reason: Reason, now: float) -> None:
        interface.offline_reasons.discard(reason)
        if interface.offline_reasons or not interface.offline:
            return
        if mac_holder(interface, self._members):
            interface.offline_reasons.add(Reason.DUPLICATE_MAC)
            interface.reason = Reason.DUPLICATE_MAC
            return
        self._detection.go_online(interface, now)
        self._group.tell(Reason.ONLINE, f"{interface.name} is online", interface)
        if interface.functioning:
            self._group.gained(interface, reclaim=True)

    def release_duplicates(self, now: float) -> None:
        """Bring back who had the MAC address of another member and has it alone now."""
        for interface in self._members:
            if Reason.DUPLICATE_MAC in interface.offline_reasons and not mac_holder(interface, self._members):
                if interface.present:
                    message = f"the MAC address of {interface.name} is unique now"
                    self._group.tell(Reason.DUPLICATE_MAC, message, interface)
                self._bring_back(interface, Reason.DUPLICATE_MAC, now)


def may_go_offline(interface: Interface, interfaces: Sequence[Interface]) -> bool:
    """Whether at least one other member can do the work; in a failed group every other one that is not offline."""
    others = [other for other in interfaces if other is not interface]
    if group_state(interfaces) is GroupState.FAILED:
        return any(not other.offline and other.present for other in others)
    return any(other.functioning for other in others)


def mac_holder(interface: Interface, interfaces: Sequence[Interface]) -> Interface | None:
    """Another member that has the same MAC address and is online."""
    return next(
        (
            other
            for other in interfaces
            if other is not interface
            and other.present
            and not other.offline
            and other.facts is not None
            and interface.facts is not None
            and other.facts.mac == interface.facts.mac
        ),
        None,
    )


def _no_redundancy(interface: Interface) -> str:
    return f"{interface.name} stays online: no other interface of the group works, so its addresses would be lost"


def _until(interface: Interface) -> str:
    if not interface.present:
        return ", and is not here"
    return f": {', '.join(sorted(interface.offline_reasons))}" if interface.offline_reasons else ""
