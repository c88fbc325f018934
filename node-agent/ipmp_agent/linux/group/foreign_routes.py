"""The routes of others in one table that leave by the members of one group: those there, and those to be put back.

A host may have ten thousand routes, and the table is read again and again: what did not change since costs next to
nothing.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from ipmp_agent.linux.messages import netlink, routes
from ipmp_agent.linux.messages.routes import RTPROT_BOOT, RTPROT_DHCP, RTPROT_KERNEL, RTPROT_RA, RTPROT_STATIC
from ipmp_agent.linux.shared.slices import AT_ONCE, parts

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

    from ipmp_agent.linux.messages.routes import Prefix, Route
    from ipmp_agent.linux.shared.members import HostMember
    from ipmp_api.types import Address


T = TypeVar("T")

CONFIGURED = frozenset({RTPROT_KERNEL, RTPROT_BOOT, RTPROT_STATIC, RTPROT_RA, RTPROT_DHCP})
"""Who lays a route with its interface and does not look after it. All others compute routes anew from what they see."""

ROUTER_WAIT = 1800.0
"""Seconds at most that the route of a router that was not heard is followed after its member is back."""

OWNER_WAIT = 5.0
"""Seconds that a routing daemon has to lay a route anew after its member is back; then it does not want it any more."""


class RouteSurroundings(Protocol):
    """What routes need to know of the rest of the group."""

    def carries(self, key: str, version: int) -> bool:
        """Whether a member carries outbound traffic of this IP version."""

    def member(self, key: str) -> HostMember | None:
        """A member of the group."""

    def key_of(self, index: int) -> str | None:
        """The member that an interface is, if it is one of this group."""

    def has_address(self, key: str, version: int) -> bool:
        """Whether a member has any address of this IP version."""

    def is_home(self, key: str, version: int) -> bool:
        """Whether the host had an address of this IP version on a member, that may be moved from there."""

    def was_moved(self, key: str, address: Address) -> bool:
        """Whether this is a data address that is on another member than this one."""


class _Key(NamedTuple):
    """What makes one route among others, whatever index its interface has."""

    destination: Prefix
    metric: int
    legs: tuple[tuple[str, bytes | None], ...]
    source: bytes | None
    protocol: int


_READS = 2
"""Looks at the table after an address was let go that heed it: the first may have begun before."""


@dataclass(slots=True, eq=False)
class _Foreign:
    """One route."""

    route: Route
    members: dict[int, str]  # by interface index when it was read
    key: _Key
    missing: bool = False  # gone with its member or its source address, and to be put back with them
    rank: int = 0  # order of appearance: of equal routes the kernel takes the first
    until: float | None = None  # monotonic seconds: when it expires, if nobody renews it
    awaited: bool = False  # missing, and its owner's or its router's to bring back: never put back by us
    patience: float | None = None  # monotonic seconds: what is awaited is given up then

    def lives(self) -> bool:
        """Whether its lifetime, if it has one, is not over."""
        return self.until is None or monotonic() < self.until


def _foreign(route: Route, members: dict[int, str], *, missing: bool = False) -> _Foreign:
    legs = tuple((members[leg.index], leg.gateway) for leg in route.legs)
    key = _Key(route.destination, route.metric, legs, route.source, route.protocol)
    until = monotonic() + route.expires if route.expires is not None else None
    return _Foreign(route, members, key, missing, until=until)


class ForeignRoutes:
    """Follows one table."""

    def __init__(self, around: RouteSurroundings) -> None:
        self._around = around
        self._by_members: dict[Prefix, list[_Foreign]] = {}  # equal ones in the order of the kernel
        self._elsewhere: dict[
            Prefix, dict[int, int]
        ] = {}  # of routes that leave otherwise: rank of the first by metric
        self._gateways: dict[bytes, int] = {}  # how many legs use each, in the order of appearance
        self._returned: set[Prefix] = set()  # destinations of routes that were missing and are back
        self._rank = itertools.count()
        self._left: set[str] = set()  # members that addresses left since the last look at the table
        self._moved: set[bytes] = set()
        self._left_since: set[str] = set()  # the same, since the table that is being read was read
        self._moved_since: set[bytes] = set()
        self._heard: set[Prefix] = set()  # destinations heard of since then
        self.undecided: set[str] = set()  # members of which it is not known yet whether an address was given up
        self._disowned: dict[tuple[str, bytes], int] = {}  # members and addresses let go, for so many more looks
        self._members_of: dict[tuple[int, ...], dict[int, str] | None] = {}  # by the interfaces of a route

    # -- memory -------------------------------------------------------------------------------------------------------

    def memory(self) -> list[dict[str, Any]]:
        """The routes that are to be put back, and those that will be when an address of the host moves: JSON."""
        at_stake = self._at_stake()
        mappings = {id(each.members): each.members for each in at_stake}
        texts = {number: {str(i): key for i, key in members.items()} for number, members in mappings.items()}
        return [
            {"members": texts[id(each.members)], "message": each.route.body.hex(), "missing": each.missing}
            | ({"until": each.until} if each.until is not None else {})
            for each in at_stake
        ]

    def at_stake(self) -> list[bytes]:
        """The routes that the memory holds, as messages."""
        return [each.route.body for each in self._at_stake()]

    def _at_stake(self) -> list[_Foreign]:
        from_home: dict[tuple[int, int], bool] = {}  # routes by the same interfaces share one mapping of members
        found = []
        for each in self._all():
            if not _comes_back(each.route):
                continue
            version = 4 if len(each.route.destination) == 5 else 6
            kind = id(each.members), version
            if kind not in from_home:
                from_home[kind] = any(self._around.is_home(key, version) for key in each.members.values())
            # IPv6 routes stay when an address goes; one that names it loses it. All of them go with the interface, and
            # a node without its default route cannot be reached: that one is known though the agent is killed then.
            is_default = each.route.destination[-1] == 0
            if each.missing or (from_home[kind] and (version == 4 or each.route.source is not None or is_default)):
                found.append(each)
        return found

    def remember(self, memory: Iterable[Mapping[str, Any]]) -> None:
        """Take over what an earlier run remembered."""
        for each in memory:
            route = routes.decode(bytes.fromhex(each["message"]))
            members = {int(index): str(key) for index, key in each["members"].items()}
            if route is not None and _comes_back(route) and {leg.index for leg in route.legs} <= set(members):
                known = _foreign(route, members, missing=bool(each.get("missing", True)))
                known.until = each.get("until", known.until)
                self._add(known)

    def _all(self) -> Iterator[_Foreign]:
        return (each for known in self._by_members.values() for each in known)

    def _add(self, each: _Foreign) -> None:
        each.rank = next(self._rank)
        self._by_members.setdefault(each.route.destination, []).append(each)
        self._count(each, 1)

    def _count(self, each: _Foreign, change: int) -> None:
        """Count the gateways of a route that came (1) or went (-1)."""
        for leg in each.route.legs:
            if leg.gateway is not None:
                count = self._gateways.get(leg.gateway, 0) + change
                if count:
                    self._gateways[leg.gateway] = count
                else:
                    del self._gateways[leg.gateway]

    def endanger(self, members: set[str], addresses: set[Address]) -> None:
        """Addresses left these members: the kernel takes routes along without telling."""
        moved = {address.packed for address in addresses}
        self._left |= members
        self._moved |= moved
        self._left_since |= members
        self._moved_since |= moved

    def disown(self, member: str, address: Address) -> set[Prefix]:
        """Forget the routes that went with an address that its owner took off a member; returns the destinations."""
        self._disowned[member, address.packed] = _READS
        left = [each for each in self._all() if each.missing and self._is_disowned(each)]
        for each in left:
            self._remove(self._by_members[each.route.destination], each)
        return {each.route.destination for each in left}

    def _is_disowned(self, each: _Foreign) -> bool:
        """Whether a route went with an address of its own, or with the last IPv4 one of its member, that was let go."""
        return any(
            each.route.version == (4 if len(address) == 4 else 6)
            and member in each.members.values()
            and (each.route.source == address or (each.route.source is None and len(address) == 4))
            for member, address in self._disowned
        )

    # -- what the kernel has ------------------------------------------------------------------------------------------

    def begin_reading(self) -> None:
        """What is heard from now on is newer than what is read."""
        self._heard, self._left_since, self._moved_since = set(), set(), set()

    def read(self, found: Iterable[Route], changed: set[Prefix]) -> Generator[None, None, None]:
        """Take all foreign routes of the table as the truth; of destinations that are heard of meanwhile the news.

        Args:
            found: the routes.
            changed: takes the destinations that changed.
        """
        fresh: dict[Prefix, list[Route]] = {}
        for some in parts(found, 8 * AT_ONCE):
            for route in some:
                fresh.setdefault(route.destination, []).append(route)
            yield
        disowned = set(self._disowned)
        changed |= self._forget_interfaces()
        gone = (self._by_members.keys() | self._elsewhere.keys()) - fresh.keys()
        for part in parts(itertools.chain(fresh, gone)):
            went_along = self._went_along()
            for destination in part:
                if destination not in self._heard and self._read_one(
                    destination, fresh.get(destination, ()), went_along
                ):
                    changed.add(destination)
            yield
        self._left, self._moved = self._left_since, self._moved_since
        self._disowned = {
            each: reads - (each in disowned)
            for each, reads in self._disowned.items()
            if reads > 1 or each not in disowned
        }

    def _read_one(self, destination: Prefix, found: Iterable[Route], went_along: Callable[[_Foreign], bool]) -> bool:
        """Take the routes to one destination as the whole truth; returns whether anything changed."""
        before = self._by_members.get(destination, [])
        now: list[_Foreign] = []
        elsewhere: list[Route] = []
        changed = False
        for route in found:
            members = self._members(route)
            if members is None:
                elsewhere.append(route)
                continue
            same = (o for o in before if o.route.body == route.body and o.members is members and not o.missing)
            each = next(same, None)
            if each is None:
                each = self._take(_foreign(route, members), before)
                changed = True
            now.append(each)
        if len(now) != len(before) or any(old is not new for old, new in zip(before, now, strict=True)):
            changed |= self._keep_missing(before, now, went_along)
            for new in now:
                self._count(new, 1)
            for old in before:
                self._count(old, -1)
            _put(self._by_members, destination, now)
        return self._read_elsewhere(destination, elsewhere) or changed

    def _read_elsewhere(self, destination: Prefix, found: Iterable[Route]) -> bool:
        """Take the routes to one destination that leave otherwise; returns whether anything changed."""
        before = self._elsewhere.get(destination, {})
        ranks: dict[int, int] = {}
        for route in found:
            if route.metric not in ranks:
                ranks[route.metric] = before[route.metric] if route.metric in before else next(self._rank)
        if ranks == before:
            return False
        _put(self._elsewhere, destination, ranks)
        return True

    def _note_elsewhere(self, elsewhere: dict[Prefix, dict[int, int]], route: Route) -> None:
        ranks = elsewhere.setdefault(route.destination, {})
        if route.metric not in ranks:
            known = self._elsewhere.get(route.destination, {})
            ranks[route.metric] = known[route.metric] if route.metric in known else next(self._rank)

    def _take(self, each: _Foreign, before: Iterable[_Foreign]) -> _Foreign:
        """Give a route that is new, or back, its place in the order."""
        same = next((old for old in before if old.key == each.key), None)
        if same is None:
            each.rank = next(self._rank)
        else:
            each.rank = same.rank
            if same.missing:
                self._returned.add(each.route.destination)
        return each

    def _keep_missing(
        self, before: list[_Foreign], now: list[_Foreign], went_along: Callable[[_Foreign], bool]
    ) -> bool:
        """Keep what is gone and is to come back among what is there; returns whether anything of it is news."""
        changed = False
        keys = {each.key for each in now}
        were = {each.key for each in before}
        fresh = [each for each in now if each.key not in were]
        for gone in before:
            if gone.key in keys:
                continue
            was_missing = gone.missing
            went = was_missing or (went_along(gone) and not self._is_disowned(gone))
            gone.missing = went and not _is_replaced(gone, fresh)
            if was_missing and gone.missing:
                gone.missing = self._is_followed(gone)
            if not (was_missing and gone.missing):
                changed = True
            if gone.missing:
                now.append(gone)
        return changed

    def _is_followed(self, gone: _Foreign) -> bool:
        """Whether a route that is missing is still to be followed: what others bring back for a while only."""
        if gone.lives() and not gone.awaited:
            return True
        if all(self._around.carries(key, gone.route.version) for key in gone.members.values()):
            wait = OWNER_WAIT if gone.awaited else min(ROUTER_WAIT, gone.route.expires or 0.0)
            gone.patience = gone.patience or monotonic() + wait
        else:
            gone.patience = None
        return gone.patience is None or monotonic() < gone.patience

    @property
    def is_settled(self) -> bool:
        """Whether nothing waits for the next look at the table, or for time to pass."""
        waits = self._returned or self._left or self._moved or self._disowned or self.undecided
        return not waits and not any(each.missing or each.until is not None for each in self._all())

    @property
    def awaits(self) -> bool:
        """Whether the owner of a route has a while to bring it back."""
        return any(each.awaited and each.patience is not None for each in self._all())

    def _members(self, route: Route) -> dict[int, str] | None:
        """The members that a route leaves by; None if it is none of our business."""
        if routes.is_of_the_link(route.destination):
            return None
        indexes = tuple(leg.index for leg in route.legs)
        if indexes not in self._members_of:
            keys = {index: self._around.key_of(index) for index in indexes}
            members = {index: key for index, key in keys.items() if key is not None}
            self._members_of[indexes] = members if members and len(members) == len(keys) else None
        return self._members_of[indexes]

    def _forget_interfaces(self) -> set[Prefix]:
        """Look anew at which interfaces are members; returns the destinations if that changed."""
        known, self._members_of = self._members_of, {}
        for indexes, members in known.items():
            now = {index: key for index in indexes if (key := self._around.key_of(index)) is not None}
            if members != (now if now and len(now) == len(set(indexes)) else None):
                return set(self._by_members) | set(self._elsewhere)
        self._members_of = known
        return set()

    def heard(self, kind: int, flags: int, route: Route, *, by_somebody: bool) -> bool:
        """Take one change; returns whether only a comparison tells what it was.

        Args:
            kind: RTM_NEWROUTE or RTM_DELROUTE.
            flags: of the message.
            route: as the message tells it.
            by_somebody: whether a process asked for it, and not the kernel by itself.
        """
        self._forget_interfaces()
        self._heard.add(route.destination)
        replaces = bool(flags & netlink.NLM_F_REPLACE)
        members = self._members(route)
        if members is None:
            if kind == netlink.RTM_NEWROUTE:
                self._note_elsewhere(self._elsewhere, route)
            else:
                self._elsewhere.get(route.destination, {}).pop(route.metric, None)
            beside = bool(self._by_members.get(route.destination))
            return beside and (replaces or (kind == netlink.RTM_DELROUTE and route.destination[-1] == 0))
        each = _foreign(route, members)
        known = self._by_members.setdefault(route.destination, [])
        same = next((old for old in known if old.key == each.key), None)
        if kind == netlink.RTM_NEWROUTE:
            self._take(each, known)
            out = [same] if same is not None else [old for old in known if old.missing and _is_replaced(old, [each])]
            if replaces and same is None:
                # It replaced the first of its metric, and no deletion is told.
                out += [old for old in known if old.route.metric == route.metric and not old.missing][:1]
            for old in out:
                self._remove(known, old)
            known.append(each)
            self._count(each, 1)
        elif same is not None:
            if self._went_along(by_somebody=by_somebody)(same):
                same.missing = True
            else:
                self._remove(known, same)
        # IPv6 tells of one leg of several that was taken away, and of all that are there after one was added.
        return replaces or (route.version == 6 and (same is None or len(route.legs) > 1))

    def _remove(self, known: list[_Foreign], each: _Foreign) -> None:
        known.remove(each)
        self._count(each, -1)

    def _went_along(self, *, by_somebody: bool = False) -> Callable[[_Foreign], bool]:
        """Whether a route that is gone went with its member or its address, and not by the will of its owner.

        A network manager that takes away what it laid on an interface without a carrier means the interface; a person
        and a routing daemon mean the route. What a daemon laid and a link or a nexthop object took along the daemon
        lays anew: it is awaited, and not put back. The notification of a route may come before that of its link, so
        links are asked now, each once.
        """
        links: dict[str, bool] = {}

        def link_went(key: str) -> bool:
            if key not in links:
                member = self._around.member(key)
                links[key] = (
                    member is None or member.index is None or member.carrier is None or member.carrier.is_lost()
                )
            return links[key]

        def address_went(key: str, version: int, source: bytes | None) -> bool:
            # With its last IPv4 address an interface loses all its IPv4 routes.
            last = version == 4 and (key in self._left or not self._around.has_address(key, 4))
            return last or (source is not None and (source in self._moved or self._was_moved(key, source)))

        def went(each: _Foreign) -> bool:
            route = each.route
            computed = route.protocol not in CONFIGURED
            if by_somebody and (computed or route.protocol == RTPROT_BOOT):
                return False
            keys = set(each.members.values())
            if not route.nexthop_id and any(address_went(key, route.version, route.source) for key in keys):
                return True
            # No router is heard on a member that does not work, and nobody renews what it told.
            expired = not each.lives() and any(not self._around.carries(key, route.version) for key in keys)
            each.awaited = bool(computed or route.nexthop_id)
            return expired or any(link_went(key) for key in keys)

        return went

    def _was_moved(self, key: str, source: bytes) -> bool:
        return self._around.was_moved(key, routes.address_of(source))

    # -- what follows from it -----------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many routes by members there are, those to be put back included."""
        return sum(map(len, self._by_members.values()))

    def destinations(self) -> list[Prefix]:
        """Where routes by members lead."""
        return [destination for destination, known in self._by_members.items() if known]

    def to(self, destination: Prefix) -> list[Route]:
        """The routes by members to a destination, the preferred ones first."""
        known = self._by_members.get(destination, ())
        if len(known) == 1:
            return [known[0].route]
        ordered = sorted(known, key=lambda each: (each.route.metric, -each.route.preference, each.missing))
        return [each.route for each in ordered]

    def is_better_elsewhere(self, destination: Prefix) -> bool:
        """Whether the host prefers a way to this destination that does not leave by members."""
        elsewhere = self._elsewhere.get(destination)
        known = self._by_members.get(destination)
        if not elsewhere or not known:
            return bool(elsewhere)
        return min(elsewhere.items()) < min((each.route.metric, each.rank) for each in known)

    def routers(self) -> tuple[Address, ...]:
        """The gateways on the link, in the order of appearance."""
        return tuple(routes.address_of(gateway) for gateway in self._gateways)

    def leave(self, member: str) -> tuple[list[bytes], set[Prefix]]:
        """Forget the routes by a member that is one no more.

        Args:
            member: its key.

        Returns:
            Requests that put back those that are missing, and the destinations of all.
        """
        left = [each for each in self._all() if member in each.members.values()]
        requests = self.restore({}, left)
        for each in left:
            self._drop(each)
        return requests, {each.route.destination for each in left}

    def inherit(self, member: str, heir: str) -> set[Prefix]:
        """Have another member get what went with one that is gone for good, as soon as the kernel takes it there.

        Returns:
            The destinations of the routes that the member had.
        """
        left = [each for each in self._all() if member in each.members.values()]
        for each in left:
            self._drop(each)
            each.missing = True  # with the interface, whether that was heard or not
            new = _foreign(each.route, {i: heir if key == member else key for i, key in each.members.items()})
            known = self._by_members.setdefault(each.route.destination, [])
            if self._may_be_put_back(each) and all(other.key != new.key for other in known):
                new.missing, new.rank, new.until = True, each.rank, each.until
                known.append(new)
                self._count(new, 1)
        return {each.route.destination for each in left}

    def _drop(self, each: _Foreign) -> None:
        self._remove(self._by_members[each.route.destination], each)

    @staticmethod
    def _may_be_put_back(each: _Foreign) -> bool:
        """Whether a route is missing and ours to put back. The kernel lays connected routes with their address."""
        return each.missing and not each.awaited and each.route.protocol != RTPROT_KERNEL and each.lives()

    def restorations(self) -> Iterator[list[bytes]]:
        """Requests that put back what went along with something that is back, a few at a time."""
        for part in parts([each for each in self._all() if each.missing]):
            there = [each for each in part if each in self._by_members.get(each.route.destination, ())]
            yield self.restore(None, there)

    def restore(self, refuges: Mapping[str, str] | None = None, among: Iterable[_Foreign] | None = None) -> list[bytes]:
        """Requests that put back what went along with something that is back.

        Args:
            refuges: for the last time, everything that a member takes is put back; these take what was on others.
            among: these only.
        """
        requests = []
        ready: dict[tuple[str, int], bool] = {}
        for each in self._all() if among is None else among:
            if not self._may_be_put_back(each):
                continue
            if refuges is None and not self.undecided.isdisjoint(each.members.values()):
                continue
            keys = {index: (refuges or {}).get(key, key) for index, key in each.members.items()}
            members = {index: self._around.member(key) for index, key in keys.items()}
            now = {index: m.index for index, m in members.items() if m is not None and m.index is not None}
            if len(now) == len(members) and (refuges is not None or self._is_back(each, ready)):
                lifetime = each.until - monotonic() if each.until is not None else None
                requests += [routes.delete(twin.route.body) for twin in self._without_source(each)]
                requests.append(routes.restore(each.route.body, now, lifetime))
        return requests

    def _without_source(self, each: _Foreign) -> list[_Foreign]:
        """What the kernel made of an IPv6 route whose source address went: the same route, without it."""
        if each.route.version == 4 or each.route.source is None:
            return []
        key = each.key._replace(source=None)
        return [other for other in self._by_members[each.route.destination] if other.key == key and not other.missing]

    def _is_back(self, each: _Foreign, ready: dict[tuple[str, int], bool]) -> bool:
        version, source = each.route.version, each.route.source
        for key in each.members.values():
            if (key, version) not in ready:
                member = self._around.member(key)
                up = member is not None and member.up is not False
                ready[key, version] = up and (version == 6 or self._around.has_address(key, 4))
            if not ready[key, version] or (source is not None and self._was_moved(key, source)):
                return False
        return True

    @property
    def are_to_be_reordered(self) -> bool:
        """Whether anything came back since the last time."""
        return bool(self._returned)

    def reorder(self, at_most: int | None = None) -> list[bytes]:
        """Requests that put what came back where it was among equals.

        The kernel appends a connected route when its address returns, and takes the first of equal routes. Only IPv4
        has an order among them.

        Args:
            at_most: destinations to look at now; the others are left for the next time.
        """
        requests: list[bytes] = []
        returned = set(itertools.islice(self._returned, at_most))
        self._returned -= returned
        for destination in returned:
            present = [each for each in self._by_members.get(destination, ()) if not each.missing]
            for metric in {each.route.metric for each in present} if routes.version_of(destination) == 4 else ():
                moved = _out_of_order([each for each in present if each.route.metric == metric])
                for each in moved:
                    requests += [routes.delete(each.route.body), routes.prepend(each.route.body)]
        return requests


def _put(known: dict[Prefix, T], destination: Prefix, found: T) -> None:
    if found:
        known[destination] = found
    else:
        known.pop(destination, None)


def _comes_back(route: Route) -> bool:
    """Whether a route is put back that went along with something.

    With its nexthop object it goes for good, and a routing daemon lays its own anew.
    """
    return not route.nexthop_id and route.protocol in CONFIGURED


def _is_replaced(gone: _Foreign, by: Iterable[_Foreign]) -> bool:
    """Whether the owner of a route that is missing has laid another instead. The kernel's own come by themselves."""
    mine = gone.key.metric, gone.key.protocol
    bare = gone.key._replace(source=None)  # what the kernel leaves of an IPv6 route whose source address goes
    return mine[1] != RTPROT_KERNEL and any(
        (each.key.metric, each.key.protocol) == mine and each.key != bare for each in by
    )


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
