"""The routes of others that leave by the members of one group: those that are there, and those to be put back."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ipmp_agent.linux import netlink, routes
from ipmp_agent.linux.routes import RTPROT_KERNEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ipmp_agent.linux.members import Member
    from ipmp_agent.linux.routes import Route
    from ipmp_api.types import Address, Network


class Surroundings(Protocol):
    """What routes need to know of the rest of the group."""

    def member(self, key: str) -> Member | None:
        """A member of the group."""

    def key_of(self, index: int) -> str | None:
        """The member that an interface is, if it is one of this group."""

    def has_address(self, key: str, version: int) -> bool:
        """Whether a member has any address of this IP version."""

    def was_moved(self, key: str, address: Address) -> bool:
        """Whether this is a data address that is on another member than this one."""


class _Key(NamedTuple):
    """What makes one route among others, whatever index its interface has."""

    destination: Network
    metric: int
    legs: tuple[tuple[str, Address | None], ...]
    source: Address | None
    protocol: int


@dataclass(slots=True)
class _Foreign:
    """One route."""

    route: Route
    members: dict[int, str]  # by interface index when it was read
    missing: bool = False  # gone with its member or its source address, and to be put back with them
    rank: int = 0  # order of appearance: of equal routes the kernel takes the first
    returned: bool = False  # was missing, and may be behind others that were behind it

    @property
    def key(self) -> _Key:
        route = self.route
        legs = tuple((self.members[leg.index], leg.gateway) for leg in route.legs)
        return _Key(route.destination, route.metric, legs, route.source, route.protocol)


class ForeignRoutes:
    """Follows the main table."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._by_members: dict[Network, dict[_Key, _Foreign]] = {}
        self._elsewhere: dict[Network, set[int]] = {}  # metrics of routes that leave otherwise
        self._rank = itertools.count()
        self._left: set[str] = set()  # members that addresses left since the last look at the table
        self._moved: set[Address] = set()

    # -- memory ------------------------------------------------------------------------------------------------------

    def memory(self) -> list[dict[str, Any]]:
        """The routes that are to be put back: JSON."""
        return [
            {"members": {str(i): key for i, key in each.members.items()}, "message": each.route.body.hex()}
            for each in self._all()
            if each.missing
        ]

    def remember(self, memory: Iterable[Mapping[str, Any]]) -> None:
        """Take over what an earlier run remembered."""
        for each in memory:
            route = routes.decode(bytes.fromhex(each["message"]))
            members = {int(index): str(key) for index, key in each["members"].items()}
            if route is not None and {leg.index for leg in route.legs} <= set(members):
                self._add(_Foreign(route, members, missing=True))

    def _all(self) -> list[_Foreign]:
        return [each for known in self._by_members.values() for each in known.values()]

    def _add(self, each: _Foreign, before: _Foreign | None = None) -> None:
        each.rank = next(self._rank) if before is None else before.rank
        each.returned = before is not None and (before.returned or (before.missing and not each.missing))
        self._by_members.setdefault(each.route.destination, {})[each.key] = each

    def endanger(self, members: set[str], addresses: set[Address]) -> None:
        """Addresses left these members: the kernel takes routes along without telling."""
        self._left |= members
        self._moved |= addresses

    # -- what the kernel has -----------------------------------------------------------------------------------------

    def read(self, found: Iterable[Route]) -> None:
        """Take all foreign routes of the main table as the whole truth."""
        before = self._by_members
        self._by_members = {}
        self._elsewhere = {}
        for route in found:
            members = self._members(route)
            if members is None:
                self._elsewhere.setdefault(route.destination, set()).add(route.metric)
            else:
                each = _Foreign(route, members)
                self._add(each, before.get(route.destination, {}).get(each.key))
        for destination, known in before.items():
            for key, gone in known.items():
                if key not in self._by_members.get(destination, {}) and (gone.missing or self._went_along(gone)):
                    gone.missing = True
                    self._add(gone, gone)
        self._left.clear()
        self._moved.clear()

    def _members(self, route: Route) -> dict[int, str] | None:
        """The members that a route leaves by; None if it is none of our business."""
        if route.destination.is_link_local or route.destination.is_multicast:
            return None
        keys = {leg.index: self._around.key_of(leg.index) for leg in route.legs}
        members = {index: key for index, key in keys.items() if key is not None}
        return members if members and len(members) == len(keys) else None

    def heard(self, kind: int, route: Route) -> None:
        """Take one change that somebody made."""
        members = self._members(route)
        if members is None:
            metrics = self._elsewhere.setdefault(route.destination, set())
            (metrics.add if kind == netlink.RTM_NEWROUTE else metrics.discard)(route.metric)
            return
        each = _Foreign(route, members)
        known = self._by_members.get(route.destination, {})
        if kind == netlink.RTM_NEWROUTE:
            self._add(each, known.get(each.key))
        elif each.key in known:
            if self._went_along(each):
                known[each.key].missing = True
            else:
                del known[each.key]

    def _went_along(self, each: _Foreign) -> bool:
        """Whether a route that is gone went with its member or its address, and not by the will of its owner."""
        version = each.route.destination.version
        for key in each.members.values():
            if key in self._left and (version == 4 or each.route.source in self._moved):
                return True
            member = self._around.member(key)
            # The notification of the route may come before that of the link, so the link is asked now.
            if member is None or member.index is None or member.carrier is None or member.carrier.ask() is False:
                return True
            # With its last IPv4 address an interface loses all its IPv4 routes.
            if version == 4 and not self._around.has_address(key, 4):
                return True
            if each.route.source is not None and self._around.was_moved(key, each.route.source):
                return True
        return False

    def replaced(self, route: Route) -> list[Route]:
        """The routes of the same owner that a replacement of the first of its key was meant to replace."""
        found = []
        known = self._by_members.get(route.destination, {})
        for key, each in list(known.items()):
            if key.metric == route.metric and key.protocol == route.protocol and not each.missing:
                found.append(each.route)
                del known[key]
        return found

    # -- what follows from it ----------------------------------------------------------------------------------------

    def destinations(self) -> list[Network]:
        """Where routes by members lead."""
        return [destination for destination, known in self._by_members.items() if known]

    def best(self, destination: Network) -> Route | None:
        """The preferred route by members to a destination."""
        known = self._by_members.get(destination)
        return min(known.values(), key=lambda each: each.route.metric).route if known else None

    def metrics_elsewhere(self, destination: Network) -> set[int]:
        """Metrics of the routes to a destination that do not leave by members."""
        return self._elsewhere.get(destination, set())

    def routers(self) -> tuple[Address, ...]:
        """The gateways on the link, in table order."""
        legs = (leg for each in self._all() for leg in each.route.legs)
        return tuple(dict.fromkeys(leg.gateway for leg in legs if leg.gateway is not None))

    def restore(self, *, everything: bool = False) -> list[bytes]:
        """Requests that put back what went along with something that is back; or everything that a member takes."""
        requests = []
        for each in self._all():
            members = {index: self._around.member(key) for index, key in each.members.items()}
            # Connected routes come back with their address, by the kernel's own hand.
            if not each.missing or each.route.protocol == RTPROT_KERNEL:
                continue
            now = {index: m.index for index, m in members.items() if m is not None and m.index is not None}
            if len(now) == len(members) and (everything or self._is_back(each)):
                requests.append(routes.restore(each.route.body, now))
        return requests

    def reorder(self) -> tuple[list[bytes], set[Network]]:
        """Requests that put what came back where it was among equals, and the destinations they are about.

        The kernel appends a connected route when its address returns, and takes the first of equal routes. Only IPv4
        has an order among them.
        """
        requests: list[bytes] = []
        destinations = set()
        for destination, known in self._by_members.items():
            if not any(each.returned for each in known.values()):
                continue
            present = [each for each in known.values() if not each.missing]  # in the order of the kernel
            for metric in {each.route.metric for each in present} if destination.version == 4 else ():
                moved = _out_of_order([each for each in present if each.route.metric == metric])
                for each in moved:
                    requests += [routes.delete(each.route.body), routes.prepend(each.route.body)]
                    destinations.add(destination)
            for each in known.values():
                each.returned = False
        return requests, destinations

    def _is_back(self, each: _Foreign) -> bool:
        for key in each.members.values():
            member = self._around.member(key)
            if member is None or member.up is False:
                return False
            if each.route.destination.version == 4 and not self._around.has_address(key, 4):
                return False
            if each.route.source is not None and self._around.was_moved(key, each.route.source):
                return False
        return True


def _out_of_order(present: list[_Foreign]) -> list[_Foreign]:
    """Those to be put in front, one after the other, to make the order of equal routes what it was."""
    wanted = sorted(present, key=lambda each: each.rank)
    position = len(present)
    while wanted:
        position = next((i for i in range(position - 1, -1, -1) if present[i] is wanted[-1]), -1)
        if position < 0:
            break
        wanted.pop()
    return wanted[::-1]
