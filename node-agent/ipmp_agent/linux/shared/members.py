"""The members of all groups: which interface each one is now, and what happens to it.

An interface is known by its index; a member by its key, which stays while the interface comes, goes and is renamed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ipmp_agent.core.events import InterfaceFound, InterfaceVanished, LinkChanged, LinksLost
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.messages import links, netlink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ipmp_agent.core.events import Event
    from ipmp_agent.linux.messages.links import Link
    from ipmp_agent.linux.shared.ethtool import Carrier, Ethtool
    from ipmp_api.types import InterfaceMatch, NodeGroup

log = logging.getLogger(__name__)

DEAD_POLLS = 5
"""Of so many polls one asks a link that is down: it costs some drivers 100 microseconds, and nobody is in a hurry."""

STORIES = 4
"""Devices on top of each other that are asked for their carriers."""


@dataclass(slots=True)
class HostMember:
    """One member of one group; `link` is None while it is absent."""

    group: str
    key: str
    match: InterfaceMatch
    link: Link | None = None
    carrier: Carrier | None = None
    up: bool | None = None  # the link; None: the driver does not report
    refusal: Reason | None = None
    barred: Reason | None = None  # by its group, for what is on the interface
    told: InterfaceFound | None = None
    sought: bool = False  # among all interfaces there are, once
    leaving: bool = False  # no member any more; followed until its interface is as it was before

    @property
    def index(self) -> int | None:
        """Interface index of a member that is present and fit, else None."""
        return self.link.index if self.link is not None and self.refusal is None else None


class Members:
    """Follows the interfaces that are members, and tells what becomes of them.

    Args:
        ethtool: asked for carrier, speed and bus addresses.
        describe: asked for an interface by its index.
        sink: takes every event, with the name of its group.
        changed: called before the event of a member that appeared, vanished, or is another interface now.
        link_changed: called before the event of a carrier that went or came.
        failed_changed: called when a group works no more or again, or one that does not changed its ways.
    """

    def __init__(
        self,
        ethtool: Ethtool,
        describe: Callable[[int], Link | None],
        sink: Callable[[str, Event], None],
        changed: Callable[[HostMember], None],
        link_changed: Callable[[HostMember], None],
        failed_changed: Callable[[], None],
    ) -> None:
        self._ethtool = ethtool
        self._describe = describe
        self._sink = sink
        self._changed = changed
        self._link_changed = link_changed
        self.failed_changed = failed_changed
        self.failed: set[str] = set()  # groups of which the core said that no member works
        self._groups: dict[str, dict[str, HostMember]] = {}
        self._owners: dict[int, list[HostMember]] = {}  # by interface index; the first one has it
        self._asked: tuple[tuple[HostMember, Carrier], ...] = ()
        self._polls = 0  # counted by the thread that asks
        self._tokens: list[bytes] = []
        self._candidates: dict[int, Link] = {}
        self.carrier_by_poll = 0
        self.carrier_by_event = 0
        self.carrier_by_count = 0

    def __iter__(self) -> Iterator[HostMember]:
        """Former ones first: what was done to an interface is undone before anybody else has it."""
        everyone = [member for group in self._groups.values() for member in group.values()]
        return iter(sorted(everyone, key=lambda member: not member.leaving))

    def of(self, group: str) -> dict[str, HostMember]:
        """The members of a group by key."""
        return self._groups.get(group, {})

    def owner(self, index: int) -> HostMember | None:
        """The member that an interface is, if any."""
        owners = self._owners.get(index)
        return owners[0] if owners else None

    def expect(self, group: str, former: Iterable[InterfaceMatch]) -> None:
        """Follow what were members of a group in an earlier run: no other group has them before it lets go."""
        members = self._groups.setdefault(group, {})
        for match in former:
            members.setdefault(match.key, HostMember(group, match.key, match, leaving=True))
        self._tokens = [links.token(member.match) for member in self]

    def watch(self, configuration: NodeGroup) -> None:
        """Follow the members of a group. Those that are members no more leave silently. A resync must follow."""
        group = configuration.group_name
        members = self._groups.setdefault(group, {})
        wanted = {member.key: member.match for member in configuration.members}
        for key, member in members.items():
            if member.leaving and key in wanted:
                member.told = None  # by who has forgotten it
            member.leaving = key not in wanted
        for key, match in wanted.items():
            members.setdefault(key, HostMember(group, key, match))
        # Two members may match one interface. The first in the order of the configuration has it.
        self._groups[group] = {key: members[key] for key in [*wanted, *(k for k in members if k not in wanted)]}
        self._tokens = [links.token(member.match) for member in self]

    def release(self, member: HostMember) -> None:
        """Follow a leaving member no more."""
        self._groups[member.group].pop(member.key)
        self._forget([member])

    def note_failed(self, group: str, *, failed: bool) -> None:
        """Take note whether any member of a group works, and tell where that is new."""
        if failed != (group in self.failed):
            (self.failed.add if failed else self.failed.discard)(group)
            self.failed_changed()

    def forget(self, group: str) -> None:
        """Follow a group no more."""
        self.failed.discard(group)
        self._forget(list(self._groups.pop(group, {}).values()))

    def _forget(self, left: Iterable[HostMember]) -> None:
        for member in left:
            if member.link is not None:
                self._release(member, member.link.index)
        self._tokens = [links.token(member.match) for member in self]
        self._list_asked()

    def _release(self, member: HostMember, index: int) -> None:
        owners = self._owners[index]
        was_first = owners[0] is member
        owners.remove(member)
        if not owners:
            del self._owners[index]
        elif was_first:
            self._tell(owners[0])

    def bar(self, member: HostMember, reason: Reason | None) -> None:
        """Take an interface for unfit because of what is on it; None: it is not any more."""
        if member.barred is not reason:
            member.barred = reason
            self._tell(member)
            self._list_asked()

    # -- what the kernel says ----------------------------------------------------------------------------------------

    def resync(self, bodies: Iterable[bytes]) -> None:
        """Take a dump of all links as the whole truth."""
        whole = list(bodies)
        self._candidates = {}
        for body in whole:
            if links.index_of(body) in self._owners or self._may_match(body):
                link = links.decode(body)
                self._candidates[link.index] = link
        self._find_by_bus_address(whole)
        for member in self:
            member.sought = True
            self._resolve(member)
        self._list_asked()

    def _may_match(self, body: bytes) -> bool:
        return any(token in body for token in self._tokens)

    def _find_by_bus_address(self, bodies: list[bytes]) -> None:
        """Ask the drivers where the kernel does not say which device an interface belongs to (virtio, before 5.14)."""
        wanted = {member.match.pci_address.lower() for member in self if member.match.pci_address is not None}
        wanted -= {link.parent for link in self._candidates.values()}
        if not wanted:
            return
        for body in bodies:
            address = self._ethtool.bus_address(links.name_of(body))
            if address in wanted:
                link = links.decode(body)
                self._candidates[link.index] = replace(link, parent=address)

    def heard(self, kind: int, body: bytes) -> None:
        """Take one RTM_NEWLINK or RTM_DELLINK message."""
        if links.family_of(body) != 0:
            return
        index = links.index_of(body)
        if kind == netlink.RTM_DELLINK:
            self._candidates.pop(index, None)
        elif index in self._candidates or self._may_match(body):
            link = links.decode(body)
            known = self._candidates.get(index)
            # A driver that was asked for its bus address need not be asked again.
            parent = known.parent if known and not links.is_bus_address(link.parent) else link.parent
            self._candidates[index] = replace(link, parent=parent)
        else:
            self._find_by_bus_address([body])
            if index not in self._candidates:
                return
        for member in self:
            # A new member waits for the resync: which member has an interface is decided by the order of the
            # configuration, not by which message came first.
            if member.sought and (member.link is None or member.link.index == index):
                if member.link is not None and kind == netlink.RTM_NEWLINK:
                    self._heard_carrier(member, self._candidates[index])
                self._resolve(member)
        self._list_asked()

    def look_again(self, index: int) -> None:
        """Ask the kernel for a member's interface, of which it does not tell all that changes."""
        known, link = self._candidates.get(index), self._describe(index)
        if known is not None and link is not None:
            self._candidates[index] = link = replace(link, parent=known.parent)
            for member in list(self._owners.get(index, ())):
                self._update(member, link)

    def differs(self) -> bool:
        """Whether the carrier of some member is not what was told. May be called in another thread."""
        self._polls += 1
        dead_too = self._polls % DEAD_POLLS == 0
        return any(
            carrier.ask() not in (None, member.up)
            for member, carrier in self._asked
            if dead_too or member.up is not False
        )

    def poll(self) -> None:
        """Ask every member for its carrier."""
        for member, carrier in self._asked:
            up = carrier.ask()
            if up and not member.up and member.link is not None:
                up = self._carrier(member, member.link)
            if up is not None and up != member.up:
                self.carrier_by_poll += 1
                self._set_up(member, up=up)

    def lost(self) -> bool:
        """Whether a member that was told up lost its carrier, may it be back. May be called in another thread."""
        return any(carrier.moved() for member, carrier in self._asked if member.up is not False)

    def find_lost(self) -> None:
        """Look which members lost their carriers, by the kernel's counts."""
        for member, carrier in self._asked:
            if member.up is not False and carrier.went():
                self.carrier_by_count += 1
                self._set_up(member, up=False)

    def _list_asked(self) -> None:
        """Note whose carrier is to be asked for: that is done far more often than it changes, and in a thread."""
        self._asked = tuple(
            (member, member.carrier)
            for owners in self._owners.values()
            for member in owners
            if member.carrier is not None and member.refusal is None
        )

    # -- what follows from it ----------------------------------------------------------------------------------------

    def _resolve(self, member: HostMember) -> None:
        """Find out which interface the member is now, and what changed about it."""
        link = None
        if member.link is not None and (now := self._candidates.get(member.link.index)) is not None:
            # It stays what it is as long as it fits: another interface of the same description changes nothing.
            link = links.find(member.match, [now])
        if link is None:
            link = links.find(member.match, self._candidates.values())
        if link is None or (member.link is not None and member.link.index != link.index):
            self._lose(member)
        if link is None:
            return
        if member.link is None:
            member.link = link
            self._owners.setdefault(link.index, []).append(member)
            member.up = None
        self._update(member, link)

    def _lose(self, member: HostMember) -> None:
        if member.link is None:
            return
        index = member.link.index
        member.link = member.carrier = member.up = member.refusal = member.barred = member.told = None
        self._changed(member)
        if not member.leaving:
            self._sink(member.group, InterfaceVanished(member.key))
        self._release(member, index)

    def _update(self, member: HostMember, link: Link) -> None:
        member.link = link
        names = self._names(link)
        if member.carrier is None or member.carrier.names != names:
            member.carrier = self._ethtool.carrier(*names)
        if member.told is None:
            member.up = self._carrier(member, link)
            self._tell(member)
            return
        self._tell(member)
        # What the driver does not report is up unless a message said down.
        up = self._carrier(member, link) is not False
        if up != (member.up is not False):
            self.carrier_by_event += 1
            self._set_up(member, up=up)

    def _heard_carrier(self, member: HostMember, link: Link) -> None:
        """A message that says down is about a moment that was, however short: it is told before asking for now."""
        if not link.carrier and member.up is not False:
            self.carrier_by_event += 1
            self._set_up(member, up=False)

    def _names(self, link: Link) -> tuple[str, ...]:
        """Of an interface and of those that it is stacked on."""
        names = [link.name]
        below: Link | None = link
        while below is not None and below.below and len(names) < STORIES:
            below = self._describe(below.below)
            if below is not None:
                names.append(below.name)
        return tuple(names)

    def _carrier(self, member: HostMember, link: Link) -> bool | None:
        """Whether the link is up now; None if it is up by default, its driver having nothing to say.

        It is down as soon as driver or kernel says so, and up when both do: some drivers read the cable up to 2 s
        before the kernel sends anything, and until then the kernel throws away what is sent.
        """
        asked = member.carrier.ask() if member.carrier is not None else None
        if asked is False:
            return False
        carrier = link.carrier
        if asked and not (carrier and member.up):
            now = self._describe(link.index)
            carrier = now is not None and now.carrier
        return asked if carrier else False

    def _set_up(self, member: HostMember, *, up: bool) -> None:
        """Note what became of a link, and tell it if the member has been told of."""
        told: dict[str, bool] = {}  # by key: whether somebody set it down
        for each in [member] if up else [member, *self._lost_with(member)]:
            each.up = up
            if up and each.carrier is not None:
                each.carrier.note()
            if each.told is not None:
                taken_down = not up and each.carrier is not None and each.carrier.is_taken_down()
                each.told = replace(each.told, link=up, taken_down=taken_down)
                self._link_changed(each)
                if not each.leaving:
                    told[each.key] = taken_down
        if len(told) > 1:
            self._sink(member.group, LinksLost(tuple(told), tuple(key for key in told if told[key])))
        for key in told if len(told) == 1 else ():
            self._sink(member.group, LinkChanged(key, up, told[key]))
        if up and member.told is not None:
            self._tell(member)  # its speed can be had again

    def _lost_with(self, member: HostMember) -> list[HostMember]:
        """The other members of its group that lost their links as well, though nobody told yet.

        A dead switch takes several: asked for now, they are no refuge for what the first one leaves behind.
        """
        return [
            other
            for other in self._groups[member.group].values()
            if other is not member
            and other.told is not None
            and other.up is not False
            and other.refusal is None
            and self._is_lost(other)
        ]

    def _is_lost(self, member: HostMember) -> bool:
        if member.carrier is None or member.link is None:
            return False
        if (went := member.carrier.went()) is not None:
            return went or member.carrier.is_taken_down()  # without waiting for a lock
        if (up := member.carrier.ask()) is not None:
            return not up
        # Its driver does not report. The kernel knows, though it may not tell for a second.
        link = self._describe(member.link.index)
        return link is not None and not link.carrier

    def _tell(self, member: HostMember) -> None:
        """Tell the properties of a member if they are not what was told before."""
        link = member.link
        if link is None:
            return
        member.refusal = link.refusal or member.barred
        if self._owners[link.index][0] is not member:
            member.refusal = Reason.INTERFACE_CONFLICT
        found = InterfaceFound(
            interface=member.key,
            name=link.name,
            index=link.index,
            mac=link.mac,
            link=member.up,
            media=link.media,
            mtu=link.mtu,
            speed_megabits=self._ethtool.speed(link.name) if member.up is not False else None,
            refusal=member.refusal,
            ipv6=link.ipv6,
            taken_down=member.up is False and not link.up,
        )
        if found == member.told:
            return
        member.told = found
        self._changed(member)
        if not member.leaving:
            self._sink(member.group, found)
