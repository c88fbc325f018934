"""Nexthop objects for IPv6 prefixes on the link, one for each member and one group over those that carry.

The kernel takes no IPv6 route that leaves by several interfaces without a gateway, but by a nexthop group. It takes a
leg out by itself when its interface loses the carrier, and never brings it back. All other twins have their legs in the
route: routing daemons take nexthop objects of others for their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_agent.linux.messages import routes
from ipmp_agent.linux.messages.routes import Leg

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ipmp_agent.linux.messages.routes import Nexthop
    from ipmp_agent.linux.shared.identifiers import Identifiers


class DeviceLegs:
    """The nexthop objects of one group of members.

    Args:
        identifiers: shared by all groups.
        carriers: members that may carry outbound traffic now, by IP version, as interface indexes.
    """

    def __init__(self, identifiers: Identifiers, carriers: Callable[[int], list[int]]) -> None:
        self._identifiers = identifiers
        self._carriers = carriers
        self._legs: dict[int, int] = {}  # by interface index
        self._group: int | None = None
        # What is believed to be in the kernel; the comparison with it puts errors right.
        self._laid: set[int] = set()
        self._members: frozenset[int] = frozenset()  # of the group; empty: it is not there

    @property
    def group(self) -> int | None:
        """The identifier of the group, if routes can use it now."""
        return self._group if self._members else None

    def read(self, present: Mapping[int, Nexthop], indexes: set[int]) -> list[int]:
        """Take what is in the kernel: what is ours on interfaces of ours is kept in use, if it can be.

        An identifier that somebody else has now is never used again. Returns identifiers of ours that nobody needs,
        groups first.
        """
        ours = {i: n for i, n in present.items() if n.owned}
        self._legs = {index: i for index, i in self._legs.items() if i not in present or i in ours}
        if self._group in present and self._group not in ours:
            self._group = None
        self._laid, self._members = set(), frozenset()
        unknown = []
        mine = {i: n.leg for i, n in ours.items() if n.leg is not None and n.leg.index in indexes}
        for identifier, leg in mine.items():
            on_link = leg.gateway is None and ours[identifier].version == 6
            if on_link and self._legs.setdefault(leg.index, identifier) == identifier:
                self._laid.add(identifier)
            else:
                unknown.append(identifier)
        for identifier, nexthop in ours.items():
            if not nexthop.members or not mine.keys() >= set(nexthop.members):
                continue
            if self._laid >= set(nexthop.members) and self._group in (None, identifier):
                self._group, self._members = identifier, frozenset(nexthop.members)
            else:
                unknown.insert(0, identifier)
        return unknown

    def lost(self, index: int) -> None:
        """An interface lost its carrier or is gone: the kernel took its leg out of the group."""
        gone = {self._legs[index]} if index in self._legs else set()
        self._laid -= gone
        self._members -= gone

    def uses(self, index: int) -> bool:
        """Whether the group has a leg on an interface: it may be the last one, for no other member carries."""
        return self._legs.get(index) in self._members

    def leave(self, index: int) -> list[int]:
        """The identifier of the leg on an interface that is no member any more; it is forgotten."""
        identifier = self._legs.pop(index, None)
        if identifier is None or identifier not in self._laid:
            return []
        self._laid.discard(identifier)
        self._members -= {identifier}
        return [identifier]

    def differences(self) -> list[bytes]:
        """Requests that give the group its legs. It is never emptied: then it stays as it is."""
        requests: list[bytes] = []
        wanted = []
        for index in self._carriers(6):
            if index not in self._legs:
                self._legs[index] = self._identifiers.take()
            wanted.append(self._legs[index])
            if self._legs[index] not in self._laid:
                requests.append(routes.add_leg(self._legs[index], Leg(index), 6))
                self._laid.add(self._legs[index])
        members = frozenset(wanted)
        if members and members != self._members:
            if self._group is None:
                self._group = self._identifiers.take()
            requests.append(routes.set_group(self._group, sorted(members)))
            self._members = members
        return requests

    def drop(self) -> list[int]:
        """Identifiers of all that is there, the group first; it is needed no more."""
        found = [self._group] if self._group is not None and self._members else []
        found += sorted(self._laid)
        self._laid, self._members = set(), frozenset()
        return found
