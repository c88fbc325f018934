"""One IPMP group: events go in, actions come out.

The only object the daemon talks to. Every event is first applied to the members (detection.py judges them), then
`_settle` brings use, placement and outbound traffic in line, in that order. A fact never skips a room.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ipmp_agent.core import consistency, events, hindsight, standby, timers
from ipmp_agent.core.actions import Announce, MoveAddresses, Notify, ProbeClosed, SendProbe, Severity
from ipmp_agent.core.detection import Detection
from ipmp_agent.core.drill import Drills
from ipmp_agent.core.interface import Interface, InterfaceEvent, group_state
from ipmp_agent.core.makeshift import Makeshift
from ipmp_agent.core.offline import Offline, mac_holder
from ipmp_agent.core.outbound import NOTHING, Outbound
from ipmp_agent.core.placement import Placement
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.recovery import Recovery
from ipmp_agent.core.snapshot import take_snapshot
from ipmp_agent.core.words import GroupState
from ipmp_api.types import Existing, Mode, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ipmp_agent.core.actions import Action, Move
    from ipmp_agent.core.findings import Finding
    from ipmp_agent.core.outbound import OutboundOrders
    from ipmp_agent.core.snapshot import GroupSnapshot
    from ipmp_api.types import InterfaceAddress, NodeGroup


class Multipathing:
    """The state of one group. `now` is monotonic seconds and never goes back; `seed` makes the jitter reproducible."""

    def __init__(self, configuration: NodeGroup, *, seed: int) -> None:
        self._configuration = configuration
        self._actions: list[Action] = []
        self._interfaces: dict[str, Interface] = {}
        self._placement = Placement()
        self._detection = Detection(configuration, self._interfaces, random.Random(seed), self)  # noqa: S311 - jitter
        self._offline = Offline(configuration, self._interfaces, self._detection, self)
        self._activations = 0
        self._saved: dict[str, events.SavedInterface] = {}
        self._findings: list[Finding] = []
        self._look_at = 0.0  # when to look for findings again, with the next tick
        self._moved_since: list[tuple[str, str]] = []  # from and to whom, since the memory that was restored
        self._read = False  # the kernel has been read once
        self._state: GroupState | None = None  # as last told; None: nothing yet
        self._recovery = Recovery()
        self._makeshift = Makeshift()
        self._drills = Drills(self._interfaces, self._detection, self)
        self._outbound = Outbound()
        self._configured = False
        self._deadline = timers.NEVER
        self._deadline_known = False

    # --- the contract ---

    def handle(self, event: events.Event, now: float) -> list[Action]:
        """Take one fact; return what is to be done about it, in order."""
        known = self._drills.masked(event, now)
        if known is None:
            return []
        event = known
        deadline_known, self._deadline_known = self._deadline_known, False
        if not self._configured:
            self._configure(self._configuration, now)
        _HANDLERS[type(event)](self, event, now)
        if type(event) is not events.ProbeAnswered:
            self._look_at = now
        elif event.kind is not events.ProbeKind.DISCOVERY and _CLOSING.issuperset(map(type, self._actions)):
            self._deadline_known = deadline_known
            return self._take_actions()  # most events are replies that change nothing: verdicts are for the tick
        self._settle(now)
        return self._take_actions()

    def tick(self, now: float) -> list[Action]:
        """Time has passed: judge, probe, and go on with what waited. Drain all pending replies first."""
        self._deadline_known = False
        if not self._configured:
            self._configure(self._configuration, now)
        self._drills.tick(now)
        self._detection.tick(now)
        if not self._may_skip_settling(now):
            self._settle(now)
        return self._take_actions()

    def _may_skip_settling(self, now: float) -> bool:
        """Whether a tick that did nothing but probe may leave the rest to the next look, within a detection time."""
        if not self._read or now >= min(self._look_at, self._waiting_until):
            return False
        return _PROBING.issuperset(map(type, self._actions))

    def next_deadline(self) -> float | None:
        """When tick wants to be called; None: only an event can change anything."""
        if not self._deadline_known:  # the deadline is asked for far more often than it changes
            self._deadline = min(self._detection.next_deadline(), self._waiting_until)
            self._deadline_known = True
        return self._deadline if self._deadline < timers.NEVER else None

    @property
    def _waiting_until(self) -> float:
        """When addresses may go on that wait for their budget, a group that comes back, or a link to have lasted."""
        return min(self._placement.retry_at, self._recovery.until, self._makeshift.retry_at, self._drills.deadline)

    def snapshot(self) -> GroupSnapshot:
        """The state at this moment."""
        return take_snapshot(
            self._configuration,
            tuple(self._interfaces.values()),
            self._detection.time,
            self._placement,
            self._outbound,
            tuple(self._findings),
            self._drills.result,
        )

    def keeps_offline(self, interface: str) -> bool:
        """Whether anybody keeps a member offline, also one that is not here."""
        return bool(self._interfaces[interface].offline_reasons)

    def saved(self) -> events.StateRestored:
        """What the state file must remember so that a restart changes nothing."""
        interfaces = tuple(
            events.SavedInterface(
                interface=interface.key,
                failed=interface.failed,
                inactive=interface.inactive,
                offline=Reason.OFFLINE in interface.offline_reasons,
                reason=interface.cause,
                heeded=Reason.CONFIGURED in interface.offline_reasons,
                twin=Reason.DUPLICATE_MAC in interface.offline_reasons,
                answered=interface.quiet_until is None and interface.present,
                active_since=interface.active_since,
                claims=interface.key in self._placement.claims,
                link_ups=interface.link.ups,
                held_until=interface.link.release_at if interface.link.held else None,
            )
            for interface in self._interfaces.values()
            if interface.present or Reason.OFFLINE in interface.offline_reasons
        )
        time = self._detection.time
        return events.StateRestored(
            interfaces,
            time.value if time.raised else None,
            self._placement.moved,
            self._outbound.nominee,
            self._outbound.in_use,
        )

    # --- what detection and maintenance ask of their group ---

    def act(self, action: Action) -> None:
        """Order something."""
        self._actions.append(action)

    def tell(
        self, reason: Reason, message: str, interface: Interface | None = None, severity: Severity = Severity.INFO
    ) -> None:
        """Let people know."""
        self._actions.append(Notify(reason, message, severity, interface.name if interface else None))

    def lost(self) -> None:
        """A member that was in use no longer works: one other takes its place."""
        self._note_use(standby.settle(self._members))

    def regained(self, interface: Interface, *, with_group: bool) -> None:
        """A member works again; `with_group`: it had failed with its group only, which comes back."""
        self.gained(interface, reclaim=bool(self._configuration.policies.failback) or with_group)

    def gained(self, interface: Interface, *, reclaim: bool) -> None:
        """A member can be used; `reclaim`: it gets its addresses back."""
        self._note_use(standby.gained(interface, self._members, reclaim=reclaim))
        if interface.active and reclaim:
            self._placement.claims.append(interface.key)
        if interface.inactive and interface.role is Role.ACTIVE:
            self.tell(
                Reason.FAILBACK_DISABLED,
                f"{interface.name} works again and stays inactive, because failback is Disabled",
                interface,
            )

    @property
    def recovering(self) -> bool:
        """Whether a failed group is coming back, one member after the other."""
        return self._recovery.under_way

    # --- members ---

    @property
    def _members(self) -> tuple[Interface, ...]:
        return tuple(self._interfaces.values())

    def _take_actions(self) -> list[Action]:
        actions, self._actions = self._actions, []
        return actions

    def _configure(self, configuration: NodeGroup, now: float) -> None:
        self._drills.end(now, "the configuration has changed")
        self._configured = True
        known = dict(self._interfaces)
        self._interfaces.clear()
        newly_standby = None
        for member in configuration.members:
            interface = known.pop(member.key, None) or Interface(member, now, Reason.INTERFACE_MISSING)
            if interface.member.role is Role.ACTIVE and member.role is Role.STANDBY:
                newly_standby = interface
            interface.member = member
            self._interfaces[member.key] = interface
        self._configuration = self._offline.configuration = configuration
        homes = self._interfaces if configuration.policies.existing is Existing.ADOPT else ()
        withdrawn = self._placement.configure([a.address for a in configuration.data_addresses], homes=homes)
        if configuration.policies.mode is Mode.MANAGE:
            self._move(withdrawn, NOTHING)
        self._detection.configure(configuration, now)
        reclaim = bool(configuration.policies.failback)
        self._note_use(standby.settle(self._members, reclaim=reclaim, first_out=newly_standby))

    def _on_configuration(self, event: events.ConfigurationChanged, now: float) -> None:
        self._configure(event.configuration, now)

    def _on_restored(self, event: events.StateRestored, now: float) -> None:
        self._saved = {saved.interface: saved for saved in event.interfaces}
        self._activations = max((saved.active_since or 0 for saved in event.interfaces), default=0)
        self._detection.time.restore(event.detection_time, now)
        self._placement.restore(event.moves, now)
        self._outbound.restore(event.nominee, event.carriers)

    def _on_kernel_read(self, event: events.KernelRead, now: float) -> None:
        del event
        first_time, self._read = not self._read, True
        for key, saved in self._saved.items():  # of members that are not here
            if saved.offline and key in self._interfaces:
                self._interfaces[key].offline_reasons.add(Reason.OFFLINE)
        self._saved.clear()
        if first_time:
            fail = partial(self._detection.restore_failed, reason=Reason.RESTORED, now=now)
            hindsight.heed(self._moved_since, self._interfaces, self._placement.addresses, fail, now)
            self._moved_since.clear()
            self._detection.all_found(now)
            self._offline.part_duplicates(now)
            self._recovery.begin(now, timers.PROVING * self._detection.time.value)
        self._detection.review_all(now)
        self._note_use(standby.settle(self._members))

    def _on_found(self, event: events.InterfaceFound, now: float) -> None:
        interface = self._interfaces.get(event.interface)
        if interface is None:
            return
        refusal = event.refusal or self._unlike_the_others(interface, event)
        known = interface.facts
        replaced = known is not None and known.index != event.index
        if interface.present and (refusal or replaced):
            self._remove(interface, refusal or Reason.INTERFACE_MISSING, now)
            interface.gone = replaced
        was_present = interface.present
        interface.facts = event if refusal == event.refusal else _refused(event, refusal)
        if refusal:
            if known is None or known.refusal is not refusal:
                interface.reason, interface.since = refusal, now
                self.tell(refusal, f"{event.name} cannot be a member: {_REFUSALS[refusal]}", interface, Severity.ERROR)
            return
        if not was_present:
            self._appear(interface, event.link, now)
            return
        if known is not None and known.mac != event.mac:
            self._mac_changed(interface, now)
        if known is not None and event.ipv6 and not known.ipv6 and interface.active:
            self._placement.claims.append(interface.key)
        interface.link.taken_down = event.taken_down
        if event.link != interface.link.up:
            self._detection.link_changed(interface, event.link, now)

    def _unlike_the_others(self, interface: Interface, event: events.InterfaceFound) -> Reason | None:
        media = {o.facts.media for o in self._members if o is not interface and o.present and o.facts}
        return Reason.MEDIA_MISMATCH if media and event.media not in media else None

    def _appear(self, interface: Interface, link: bool | None, now: float) -> None:
        known = self._saved.pop(interface.key, None)
        unused = interface.role is Role.STANDBY
        saved = known or events.SavedInterface(interface.key, failed=False, inactive=unused, offline=False)
        interface.fire(InterfaceEvent.APPEAR, Reason.INTERFACE_APPEARED, now)
        interface.inactive = True  # until all is known of it
        self._detection.appear(interface, now)
        if interface.gone:
            self._placement.vacate(interface.key)  # the kernel took the addresses away with the interface
            interface.gone = False
        if self._read:
            self.tell(Reason.INTERFACE_APPEARED, f"{interface.name} is here", interface)
        self._offline.find_reasons(interface, known, late=self._read)
        if interface.offline_reasons:
            self._detection.go_offline(interface, next(iter(interface.offline_reasons)), now)
        interface.link.restore(saved.link_ups, saved.held_until, now)
        if saved.answered:
            interface.quiet_until = None
            interface.answered = True
        if saved.failed:
            self._detection.restore_failed(interface, saved.reason or Reason.RESTORED, now)
        if link is not True:
            self._detection.link_changed(interface, link, now)
        if self._read:
            self._detection.await_answer(interface, now)
        if interface.functioning:
            self._take_up(interface, saved)

    def _take_up(self, interface: Interface, saved: events.SavedInterface) -> None:
        """Use a member that has appeared; at the start it is settled who is used when all have been found."""
        if self._read:
            self.gained(interface, reclaim=True)
            return
        interface.inactive = saved.inactive
        interface.active_since = saved.active_since
        if saved.claims:
            self._placement.claims.append(interface.key)

    def _mac_changed(self, interface: Interface, now: float) -> None:
        if self._read and not interface.offline and mac_holder(interface, self._members):
            self.tell(
                Reason.DUPLICATE_MAC,
                f"{interface.name} now has the MAC address of another member and is taken offline",
                interface,
                Severity.ERROR,
            )
            self._offline.take(interface, Reason.DUPLICATE_MAC, now)
        elif addresses := self._placement.addresses(interface.key):
            self.act(Announce(interface.key, tuple(addresses)))

    def _on_vanished(self, event: events.InterfaceVanished, now: float) -> None:
        interface = self._interfaces.get(event.interface)
        if interface is None:
            return
        if interface.present:
            self.tell(Reason.INTERFACE_MISSING, f"{interface.name} is gone from this node", interface, Severity.ERROR)
            self._remove(interface, Reason.INTERFACE_MISSING, now)
        interface.facts = None
        interface.gone = True

    def _remove(self, interface: Interface, reason: Reason, now: float) -> None:
        was_active = interface.active
        self._detection.disappear(interface)
        interface.fire(InterfaceEvent.VANISH, reason, now)
        interface.facts = None
        if was_active:
            self.lost()

    def _note_use(self, changed: Sequence[Interface]) -> None:
        for interface in changed:
            if interface.inactive:
                self.tell(Reason.STANDBY_RELEASED, f"{interface.name} is no longer needed, now inactive", interface)
            else:
                self.tell(Reason.STANDBY_ACTIVATED, f"{interface.name} is activated", interface)

    # --- offline and online ---

    def _on_offline(self, event: events.OfflineRequested, now: float) -> None:
        self._offline.request(event.interface, now, force=event.force)

    def _on_online(self, event: events.OnlineRequested, now: float) -> None:
        self._offline.end(event.interface, now)

    def _on_drill(self, event: events.DrillRequested, now: float) -> None:
        self._drills.request(event, self._configuration, len(self._placement.addresses(event.interface)), now)

    # --- addresses ---

    def _on_address_found(self, event: events.AddressFound, now: float) -> None:
        del now
        self._note_before(event)
        # A former member may have it still, if no member has it.
        if event.interface in (None, *self._interfaces) or self._placement.holder(event.address) is None:
            self._placement.found(event.address, event.interface)

    def _on_address_adopted(self, event: events.AddressAdopted, now: float) -> None:
        del now
        home = self._interfaces.get(event.home)
        if home is None or self._configuration.policies.existing is not Existing.ADOPT:
            return
        self._note_before(event)
        self._placement.adopt(event.address, event.home, event.interface)
        if self._configuration.policies.mode is Mode.MANAGE:
            self.tell(Reason.ADDRESS_ADOPTED, f"{event.address} was found on {home.name} and moves when it fails", home)

    def _note_before(self, event: events.AddressFound | events.AddressAdopted) -> None:
        if self._read or event.before is None or event.interface is None or event.before == event.interface:
            return
        if self._configuration.policies.mode is Mode.MANAGE:  # others move what is only observed
            self._moved_since.append((event.before, event.interface))

    def _on_address_released(self, event: events.AddressReleased, now: float) -> None:
        del now
        if event.given_up and self._placement.is_adopted(event.address):
            words = f"{event.address} was taken away by its owner and is not looked after any more"
            self.tell(Reason.ADDRESS_REMOVED, words, self._interfaces.get(self._placement.holder(event.address) or ""))
        self._placement.release(event.address)

    def _on_address_refused(self, event: events.AddressRefused, now: float) -> None:
        del now
        if event.address not in self._placement.all:
            return
        self._placement.refuse(event.address, event.reason, event.detail)
        self.tell(event.reason, f"{event.address} is not available: {event.detail}", severity=Severity.ERROR)

    def _on_address_cleared(self, event: events.AddressCleared, now: float) -> None:
        del now
        self._placement.refused.pop(event.address, None)

    def _on_address_contested(self, event: events.AddressContested, now: float) -> None:
        del now
        if event.mac is None:
            self.tell(Reason.ADDRESS_CONFLICT, f"{event.address} is claimed by nobody else any more")
            return
        words = f"{event.address} is also claimed by {event.mac}: it stays here and is defended"
        self.tell(Reason.ADDRESS_CONFLICT, words, severity=Severity.ERROR)

    # --- the way down: state, use, placement, outbound ---

    def _settle(self, now: float) -> None:
        refused: list[Finding] = []
        if self._read:
            self._offline.release_duplicates(now)
            refused = self._offline.heed_configuration(now)
            self._drills.watch(now)
            self._detection.release_last_link(now)
        self._detection.arrange_transitive(now)
        active = self._order_active()
        if not self._read:
            return
        self._tell_state(now)
        self._placement.unable = {(i.key, 6) for i in self._members if i.facts is not None and not i.facts.ipv6}
        waiting = self._recovery.waiting(self._members, now)
        unusable = () if active else self._members
        makeshift = self._makeshift.carriers(unusable, now, self._detection.time.value)
        if self._configuration.policies.mode is not Mode.MANAGE:
            self._placement.stop_waiting()
        elif makeshift:
            self._make_do(makeshift, now)
        else:
            moves = self._placement.place(active, now, self._why_left, waiting=waiting)
            self._order(moves, active, [i.key for i in self._members if i.functioning])
        self._placement.keep_vacated()  # in mode Observe until others say otherwise
        if (drilled := self._drills.watched) is not None:
            kept = not self._configuration.policies.failback  # what went stays where it is
            later = self._placement.retry_at < timers.NEVER  # what moved too often comes when its budget allows
            shared = drilled in active and not waiting  # it has its share: none, where others have no more than that
            carries = kept or later or shared or bool(self._placement.addresses(drilled))
            self._drills.observe(self._actions, now, carries=carries)
        if now >= self._look_at or any(each not in self._findings for each in refused):
            self._look_at = min(now + self._detection.time.value, *(i.test_addresses_due for i in self._members))
            self._tell_findings([*refused, *consistency.find(self._configuration, self._members)])

    def _order(
        self, moves: Sequence[Move], carriers: Sequence[str], receiving: Sequence[str], *, makeshift: bool = False
    ) -> None:
        spreading = bool(self._configuration.policies.outbound_spreading)
        self._move(moves, self._outbound.changes(carriers, receiving, spreading=spreading, makeshift=makeshift))

    def _make_do(self, linked: Sequence[str], now: float) -> None:
        """No member works, and these have a link: what others hold goes there, what they hold stays."""
        moves = self._placement.make_do(linked, now, self._why_left, waiting=self._makeshift.waiting)
        if any(move.source is not None for move in moves):
            names = ", ".join(dict.fromkeys(self._interfaces[m.destination].name for m in moves if m.destination))
            message = f"no interface is answered: what is on interfaces without a link goes to {names}"
            self.tell(Reason.LINK_DOWN, message, severity=Severity.WARNING)
        carriers = [key for key in self._outbound.in_use if key in linked] or linked
        self._order(moves, carriers, linked, makeshift=True)

    def _tell_findings(self, findings: list[Finding]) -> None:
        """Each is told once, and once more when it is over, whatever becomes of its words meanwhile."""
        known = {(each.interface, each.reason) for each in self._findings}
        found = {(each.interface, each.reason) for each in findings}
        for each in findings:
            if (each.interface, each.reason) not in known:
                severity = consistency.SEVERITIES.get(each.reason, Severity.ERROR)
                self.tell(each.reason, each.message, self._interfaces.get(each.interface or ""), severity)
        for each in self._findings:
            if (each.interface, each.reason) not in found:
                self.tell(each.reason, f"no longer: {each.message}", self._interfaces.get(each.interface or ""))
        self._findings = findings

    def _order_active(self) -> list[str]:
        for interface in self._members:
            if not interface.active:
                interface.active_since = None
            elif interface.active_since is None:
                self._activations += 1
                interface.active_since = self._activations
        active = [i for i in self._members if i.active_since is not None]
        return [i.key for i in sorted(active, key=lambda i: i.active_since or 0)]

    def _why_left(self, key: str) -> Reason:
        interface = self._interfaces.get(key)
        if interface is None:
            return Reason.CONFIGURED
        if self._drills.drilled == key:
            return Reason.DRILL
        if interface.failed and interface.cause is not None and not interface.offline:
            return interface.cause if interface.link.usable else Reason.LINK_DOWN
        if interface.functioning:
            return Reason.FAILBACK  # it works and is no longer needed
        return interface.reason or Reason.FAILOVER

    def _move(self, moves: Sequence[Move], outbound: OutboundOrders) -> None:
        """Move and announce first. Only where no carrier is left do the carriers come before the announcement.

        The announcement brings packets here, and without a way out nothing would answer them.
        """
        if moves:
            self.act(MoveAddresses(tuple(moves)))
        if outbound.urgent:
            self._actions += outbound.carriers
        self._announce(moves)
        if not outbound.urgent:
            self._actions += outbound.carriers
        self._actions += outbound.nominee

    def _announce(self, moves: Sequence[Move]) -> None:
        arrived: dict[str, list[InterfaceAddress]] = {}
        for move in moves:
            if move.destination is not None:
                arrived.setdefault(move.destination, []).append(move.address)
        for key, addresses in arrived.items():
            self.act(Announce(key, tuple(addresses)))

    def _tell_state(self, now: float) -> None:
        state = group_state(self._members)
        if state is self._state:
            return
        previous, self._state = self._state, state
        if state is GroupState.FAILED:
            self.tell(Reason.GROUP_FAILED, "all interfaces are now unusable", severity=Severity.ERROR)
        elif previous is GroupState.FAILED:
            self._recovery.begin(now, self._detection.time.value)
            self.tell(
                Reason.GROUP_DEGRADED if state is GroupState.DEGRADED else Reason.GROUP_OK,
                "at least 1 interface is now usable",
                severity=Severity.WARNING,
            )
        elif state is GroupState.DEGRADED:
            self.tell(Reason.GROUP_DEGRADED, "some interfaces are unusable", severity=Severity.WARNING)
        elif previous is not None:
            self.tell(Reason.GROUP_OK, "all interfaces are usable")

    # --- detection ---

    def _on_link(self, event: events.LinkChanged, now: float) -> None:
        interface = self._interfaces.get(event.interface)
        if interface and interface.present and interface.link.up is not event.up:
            interface.link.taken_down = event.taken_down
            self._detection.link_changed(interface, event.up, now)

    def _on_links_lost(self, event: events.LinksLost, now: float) -> None:
        """Members in use come last, so that none of the others, which are as dead, is activated in their place."""
        lost = [self._interfaces[key] for key in event.interfaces if key in self._interfaces]
        for interface in sorted(lost, key=lambda each: each.active):
            taken_down = interface.key in event.taken_down
            self._on_link(events.LinkChanged(interface.key, up=False, taken_down=taken_down), now)

    def _on_test_address(self, event: events.TestAddressChanged, now: float) -> None:
        if interface := self._interfaces.get(event.interface):
            self._detection.test_address(interface, event, now)

    def _on_answer(self, event: events.ProbeAnswered, now: float) -> None:
        if interface := self._interfaces.get(event.interface):
            self._detection.answered(interface, event, now)

    def _on_target_heard(self, event: events.TargetHeard, now: float) -> None:
        del now
        if interface := self._interfaces.get(event.interface):
            self._detection.target_heard(interface, event)

    def _on_not_sent(self, event: events.ProbeNotSent, now: float) -> None:
        if interface := self._interfaces.get(event.interface):
            self._detection.not_sent(interface, event, now)

    def _on_routers(self, event: events.RoutersChanged, now: float) -> None:
        self._detection.routers(event.routers, now)


def _refused(event: events.InterfaceFound, refusal: Reason | None) -> events.InterfaceFound:
    return replace(event, refusal=refusal)


_CLOSING = frozenset({ProbeClosed})
_PROBING = frozenset({SendProbe, ProbeClosed})

_REFUSALS = {
    Reason.BOND_MEMBER: "it is a port of a bond or team; make the bond the member, or take it out of the bond",
    Reason.BRIDGE_PORT: "it is a port of a bridge; addresses belong on the bridge",
    Reason.VRF_MEMBER: "it is in a VRF; groups outside a VRF cannot use it",
    Reason.POINT_TO_POINT: "it is point-to-point; IPMP needs a link with broadcast",
    Reason.LOOPBACK: "it is a loopback",
    Reason.PEER_ADDRESS: "it has an address with a peer, for which no ARP request would be answered",
    Reason.UNSUITABLE_DEVICE: "it has no ARP or no multicast, or shares its MAC address with its parent",
    Reason.MEDIA_MISMATCH: "its media type differs from the other members'",
    Reason.INTERFACE_CONFLICT: "it is a member of another group",
}

_HANDLERS: dict[type, Callable[[Multipathing, Any, float], None]] = {
    events.InterfaceFound: Multipathing._on_found,  # noqa: SLF001 - the table belongs to the class
    events.InterfaceVanished: Multipathing._on_vanished,  # noqa: SLF001
    events.LinkChanged: Multipathing._on_link,  # noqa: SLF001
    events.LinksLost: Multipathing._on_links_lost,  # noqa: SLF001
    events.TestAddressChanged: Multipathing._on_test_address,  # noqa: SLF001
    events.ProbeAnswered: Multipathing._on_answer,  # noqa: SLF001
    events.TargetHeard: Multipathing._on_target_heard,  # noqa: SLF001
    events.ProbeNotSent: Multipathing._on_not_sent,  # noqa: SLF001
    events.RoutersChanged: Multipathing._on_routers,  # noqa: SLF001
    events.OfflineRequested: Multipathing._on_offline,  # noqa: SLF001
    events.OnlineRequested: Multipathing._on_online,  # noqa: SLF001
    events.DrillRequested: Multipathing._on_drill,  # noqa: SLF001
    events.AddressFound: Multipathing._on_address_found,  # noqa: SLF001
    events.AddressAdopted: Multipathing._on_address_adopted,  # noqa: SLF001
    events.AddressReleased: Multipathing._on_address_released,  # noqa: SLF001
    events.AddressRefused: Multipathing._on_address_refused,  # noqa: SLF001
    events.AddressContested: Multipathing._on_address_contested,  # noqa: SLF001
    events.AddressCleared: Multipathing._on_address_cleared,  # noqa: SLF001
    events.ConfigurationChanged: Multipathing._on_configuration,  # noqa: SLF001
    events.KernelRead: Multipathing._on_kernel_read,  # noqa: SLF001
    events.StateRestored: Multipathing._on_restored,  # noqa: SLF001
}
