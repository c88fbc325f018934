"""Nexthop groups over the members that carry outbound traffic: one for each way of leaving.

All routes that leave the same way share one group, so a failover replaces a handful of groups however many routes
there are. The kernel takes a leg out by itself when its interface loses the carrier, and never brings it back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ipmp_agent.linux.messages import routes
from ipmp_agent.linux.messages.routes import Leg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from ipmp_agent.linux.messages.routes import Nexthop
    from ipmp_agent.linux.shared.identifiers import Identifiers


@dataclass(frozen=True, slots=True)
class Way:
    """A way of leaving: IP version of the routes, and their gateways (None: on the link)."""

    version: int
    gateways: frozenset[bytes | None]  # packed

    @property
    def has_gateway(self) -> bool:
        """Whether packets go to a gateway and not to the destination itself."""
        return None not in self.gateways


@dataclass(slots=True)
class _Installed:
    """What is believed to be in the kernel; the comparison with it puts errors right."""

    legs: set[int] = field(default_factory=set)
    groups: dict[int, frozenset[int]] = field(default_factory=dict)


class Legs:
    """The nexthop objects of one group.

    Args:
        identifiers: shared by all groups.
        carriers: members that may carry outbound traffic now, by IP version, as interface indexes.
    """

    def __init__(self, identifiers: Identifiers, carriers: Callable[[int], list[int]]) -> None:
        self._identifiers = identifiers
        self._carriers = carriers
        self._legs: dict[tuple[int, Leg], int] = {}  # by IP version of the gateway and leg
        self._groups: dict[Way, int] = {}
        self._installed = _Installed()

    def group(self, way: Way) -> int:
        """The identifier of the group for a way of leaving."""
        if way not in self._groups:
            self._groups[way] = self._identifiers.take()
        return self._groups[way]

    def is_installed(self, way: Way) -> bool:
        """Whether routes can use the group now."""
        return self._groups.get(way) in self._installed.groups

    def read(self, present: Mapping[int, Nexthop], indexes: set[int]) -> list[int]:
        """Take what is in the kernel: what is ours on interfaces of ours is kept in use.

        Returns identifiers of ours that nobody knows: left over from before, with other addresses or members.
        """
        self._installed = _Installed()
        unknown = []
        mine = {i: n for i, n in present.items() if n.owned and n.leg is not None and n.leg.index in indexes}
        for identifier, nexthop in mine.items():
            if nexthop.leg is not None:
                if self._legs.setdefault((nexthop.version, nexthop.leg), identifier) == identifier:
                    self._installed.legs.add(identifier)
                else:
                    unknown.append(identifier)
        for identifier, nexthop in present.items():
            if not nexthop.owned or not nexthop.members or not mine.keys() >= set(nexthop.members):
                continue
            way = _way_of([mine[member] for member in nexthop.members])
            if self._groups.setdefault(way, identifier) == identifier:
                self._installed.groups[identifier] = frozenset(nexthop.members)
            else:
                unknown.append(identifier)
        return unknown

    def lost(self, index: int) -> None:
        """An interface lost its carrier or is gone: the kernel took its legs out of every group."""
        gone = {identifier for (_, leg), identifier in self._legs.items() if leg.index == index}
        self._installed.legs -= gone
        groups = {identifier: members - gone for identifier, members in self._installed.groups.items()}
        self._installed.groups = {identifier: members for identifier, members in groups.items() if members}

    def uses(self, index: int) -> bool:
        """Whether a group has a leg on an interface: it may be the last one, for no other member carries."""
        used = frozenset[int]().union(*self._installed.groups.values())
        return any(leg.index == index and identifier in used for (_, leg), identifier in self._legs.items())

    def leave(self, index: int) -> list[int]:
        """Identifiers of the legs on an interface that is no member any more; they are forgotten."""
        left = {key: identifier for key, identifier in self._legs.items() if key[1].index == index}
        self._legs = {key: identifier for key, identifier in self._legs.items() if key not in left}
        present = self._installed.legs.intersection(left.values())
        self._installed.legs -= present
        return sorted(present)

    def differences(self, ways: Iterable[Way]) -> list[bytes]:
        """Requests that give the group of each way its legs. A group is never emptied: then it stays as it is.

        Ways on the link come first: an IPv6 gateway is accepted only where its prefix is known.
        """
        requests: list[bytes] = []
        for way in sorted(ways, key=lambda each: each.has_gateway):
            members = frozenset(self._leg(version, leg, requests) for version, leg in self._wanted(way))
            group = self.group(way)
            if members and self._installed.groups.get(group) != members:
                requests.append(routes.set_group(group, sorted(members)))
                self._installed.groups[group] = members
        return requests

    def _wanted(self, way: Way) -> Iterator[tuple[int, Leg]]:
        for index in self._carriers(way.version):
            for gateway in way.gateways:
                yield _version(way, gateway), Leg(index, gateway)

    def _leg(self, version: int, leg: Leg, requests: list[bytes]) -> int:
        """The identifier of a leg; if it is not in the kernel, the request that makes it is added."""
        identifier = self._legs.get((version, leg))
        if identifier is None:
            identifier = self._legs[version, leg] = self._identifiers.take()
        if identifier not in self._installed.legs:
            requests.append(routes.add_leg(identifier, leg, version))
            self._installed.legs.add(identifier)
        return identifier

    def unused(self, ways: Iterable[Way]) -> list[int]:
        """Identifiers that no way needs any more, groups first; they are forgotten."""
        wanted = set(ways)
        groups = [identifier for way, identifier in self._groups.items() if way not in wanted]
        self._groups = {way: identifier for way, identifier in self._groups.items() if way in wanted}
        gateways = {(_version(way, gateway), gateway) for way in wanted for gateway in way.gateways}
        legs = [i for (version, leg), i in self._legs.items() if (version, leg.gateway) not in gateways]
        self._legs = {k: i for k, i in self._legs.items() if (k[0], k[1].gateway) in gateways}
        self._installed.legs.difference_update(legs)
        present = [identifier for identifier in groups if self._installed.groups.pop(identifier, None)]
        return present + legs


def _version(way: Way, gateway: bytes | None) -> int:
    """IP version of a leg: its gateway's, which may be another than that of the routes."""
    if gateway is None:
        return way.version
    return 4 if len(gateway) == 4 else 6


def _way_of(members: list[Nexthop]) -> Way:
    gateways = frozenset(nexthop.leg.gateway for nexthop in members if nexthop.leg is not None)
    return Way(members[0].version, gateways)
