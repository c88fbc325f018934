"""The twins of one group in one table: what each is to be, what is there, and the requests between the two."""

from __future__ import annotations

import itertools
from collections import Counter
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ipmp_agent.linux.group import foreign_routes
from ipmp_agent.linux.group.foreign_routes import ForeignRoutes
from ipmp_agent.linux.group.routers import Exit, Ways
from ipmp_agent.linux.messages import netlink, routes
from ipmp_agent.linux.messages.routes import RT_TABLE_MAIN, Leg
from ipmp_agent.linux.shared.slices import AT_ONCE, parts

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from ipmp_agent.linux.group.device_legs import DeviceLegs
    from ipmp_agent.linux.group.routers import Routers
    from ipmp_agent.linux.messages.routes import Prefix, Route
    from ipmp_api.types import Address, Network

CONNECTED_METRIC = {4: 0, 6: 256}
"""Metric of a prefix on the link that only we know of: what the kernel gives its own."""

PLANS_KNOWN = 1024
"""Plans that are kept to be shared by the destinations that have them."""

_MEDIUM = netlink.attribute(routes.RTA_PREF, b"\0")  # what the kernel tells of an IPv6 route that says nothing


class TwinSurroundings(foreign_routes.RouteSurroundings, Protocol):
    """What twins need to know of the rest of the group."""

    def carriers(self, version: int) -> list[int]:
        """Interface indexes of the members that carry outbound traffic now."""

    def prefixes(self) -> set[Network]:
        """Prefixes that the group's own addresses make reachable on the link."""

    def sources(self) -> tuple[dict[Network, Address], dict[int, Address]]:
        """The data addresses that packets come from, if they may choose: by prefix, else by IP version."""

    def homes(self) -> dict[Address, str]:
        """The addresses that the host had before this group, and the member of each."""

    def is_here(self, address: Address) -> bool:
        """Whether the host has this address, as far as the group knows."""

    def is_ours(self, address: Address) -> bool:
        """Whether this is an address of the group on this host."""

    def may_take_over(self, index: int) -> bool:
        """Whether what leaves by an interface of another group is better off with this one."""

    def is_of_another_group(self, index: int) -> bool:
        """Whether an interface is a member of another group."""


class PairPlan(NamedTuple):
    """What a twin is to be."""

    exits: tuple[Exit, ...]
    source: bytes | None
    details: bytes
    spare: tuple[Exit, ...] = ()  # as in `Ways`

    @property
    def ways(self) -> Ways:
        """How it may be left by."""
        return Ways(self.exits, self.spare)

    @property
    def gateways(self) -> set[bytes]:
        """Everybody who may be sent to."""
        return {each.gateway for each in (*self.exits, *self.spare) if each.gateway is not None}

    @property
    def is_on_the_link(self) -> bool:
        """Whether packets go to the destination itself."""
        return any(each.gateway is None for each in self.exits)


class _Way(NamedTuple):
    """Exits over the members that carry now."""

    legs: tuple[Leg, ...]  # none: by a nexthop object
    nexthop_id: int
    packed: bytes
    has_gateway: bool


class _Laid(NamedTuple):
    """What the kernel has of a twin."""

    legs: tuple[Leg, ...]
    nexthop_id: int
    source: bytes | None
    details: bytes


class RefusedTwin(NamedTuple):
    """What the kernel says to a twin."""

    text: str
    since: float  # monotonic seconds
    passing: bool  # it may be of the moment


class Sources(NamedTuple):
    """Where packets come from, if they may choose."""

    by_prefix: dict[Prefix, bytes]
    by_version: dict[int, bytes]


Key = tuple["Prefix", int]
"""Destination and metric: what makes one route among ours."""


class TableTwins:
    """Keeps the twins of one table of the host.

    Args:
        table: the host's.
        around: the rest of the group.
        legs: for prefixes on IPv6 links.
        is_here: whether the host has a source address, packed.
        routers: says which of several routers answer.
    """

    def __init__(
        self,
        table: int,
        around: TwinSurroundings,
        legs: DeviceLegs,
        is_here: Callable[[bytes], bool],
        routers: Routers,
    ) -> None:
        self.ours = routes.table_of_twins(table)
        self.foreign = ForeignRoutes(around)
        self.wanted: dict[Prefix, dict[int, PairPlan]] = {}  # by metric
        self.installed: dict[Prefix, dict[int, _Laid]] = {}
        self.occupied: set[Key] = set()  # by twins of another group
        self.refusals: dict[Key, RefusedTwin] = {}  # of twins that are wanted, until they are seen to be there
        self.doubtful: set[Prefix] = set()  # destinations to be decided on anew
        self._is_main = table == RT_TABLE_MAIN
        self._around = around
        self._legs = legs
        self._is_here = is_here
        self._routers = routers
        self._sharing: dict[Prefix, set[bytes]] = {}  # the gateways, where a route has several
        self.sharing: Counter[bytes] = Counter()  # how many routes of several each gateway is of
        # Very many twins are like each other but for their destination: each of these is there once.
        self._plans: dict[tuple[tuple[int, PairPlan], ...], dict[int, PairPlan]] = {}
        self._laid: dict[_Laid, _Laid] = {}
        self._touched: set[Prefix] = set()  # destinations whose twins changed since what is there was read
        self._stale_since: set[_Laid] = set()
        self._stale: set[_Laid] = set()  # of those: what the kernel may have taken legs out of
        self._urgent: dict[Prefix, None] = {}  # prefixes on the link and default routes that are wanted, in order
        self._prefixes: frozenset[Prefix] = frozenset()
        self._sources = Sources({}, {})

    # -- what the kernel has -----------------------------------------------------------------------------------------

    def read(self, found: Iterable[Route]) -> Generator[None, None, None]:
        """Take the routes of others in the table."""
        yield from self.foreign.read(found, self.doubtful)

    def begin_taking(self) -> None:
        """What becomes of twins from now on is newer than what is taken."""
        self._touched, self._stale_since = set(), set()
        self.foreign.begin_reading()

    def take(self, found: Mapping[Prefix, Sequence[Route]], occupied: set[Key]) -> Generator[None, None, None]:
        """Take what there is of ours as the truth; of destinations that were touched meanwhile what is believed.

        Args:
            found: the routes, by destination.
            occupied: where twins of another group are.
        """
        self.occupied = occupied
        in_use: dict[_Laid, _Laid] = {}
        for part in parts(itertools.chain(found, self.installed.keys() - found.keys())):
            for destination in part:
                if destination in self._touched:
                    continue
                laid = {}
                for route in found.get(destination, ()):
                    legs = () if route.nexthop_id else _sorted(route.legs)
                    each = _Laid(legs, route.nexthop_id, route.source, route.details)
                    each = self._laid.setdefault(each, each)
                    laid[route.metric] = in_use[each] = each
                if laid:
                    self.installed[destination] = laid
                else:
                    self.installed.pop(destination, None)
            yield
        self._stale = self._stale_since
        newer = (each for destination in self._touched for each in self.installed.get(destination, {}).values())
        self._laid = in_use | {each: each for each in newer}

    def settle(self) -> None:
        """Forget the refusals of twins that are there as they are to be, or are wanted no more."""
        for destination, metric in list(self.refusals):
            plan = self.wanted.get(destination, {}).get(metric)
            way = self._way(routes.version_of(destination), plan.ways) if plan is not None else None
            laid = self.installed.get(destination, {}).get(metric)
            if plan is None or (way is not None and laid == _Laid(way.legs, way.nexthop_id, plan.source, plan.details)):
                del self.refusals[destination, metric]

    def refused(self, key: Key, text: str, *, passing: bool) -> bool:
        """Take note that the kernel refused a twin: it is tried again; returns whether that is known."""
        destination, metric = key
        self._touched.add(destination)
        self.installed.get(destination, {}).pop(metric, None)
        before = self.refusals.get(key)
        self.refusals[key] = RefusedTwin(text, before.since if before is not None else monotonic(), passing)
        return before is not None and before.text == text

    def clear(self) -> None:
        """Want nothing, and believe nothing to be there."""
        self.installed, self._laid, self._stale, self._stale_since = {}, {}, set(), set()
        self.occupied = set()
        self.refusals = {}
        self.wanted, self._urgent = {}, {}
        self._sharing, self.sharing = {}, Counter()

    def lost(self, kind: int, route: Route) -> bool:
        """Somebody changed a route in our table; returns whether a twin is not as it was."""
        laid = self.installed.get(route.destination, {})
        if route.table != self.ours or route.metric not in laid:
            return False
        if kind == netlink.RTM_DELROUTE and route.owned:
            # IPv6 tells of each leg that is taken out of a route.
            self._touched.add(route.destination)
            del laid[route.metric]
            return True
        return kind == netlink.RTM_NEWROUTE and not route.owned

    def link_lost(self, index: int) -> None:
        """An interface lost its carrier, or is gone: a route by several may be gone with it, or have dead legs."""
        no_group = self._legs.group is None
        stale = {
            each
            for each in self._laid
            if any(leg.index == index for leg in each.legs) or (no_group and each.nexthop_id)
        }
        self._stale |= stale
        self._stale_since |= stale

    def uses(self, index: int) -> bool:
        """Whether a twin leaves by an interface; those by a nexthop object aside."""
        by_it = {each for each in self._laid if any(leg.index == index for leg in each.legs)} - self._stale
        return bool(by_it) and any(each in by_it for laid in self.installed.values() for each in laid.values())

    # -- what is wanted ----------------------------------------------------------------------------------------------

    def plan_what_changed(
        self, sources: Sources, prefixes: frozenset[Prefix], *, anew: bool
    ) -> Generator[None, None, None]:
        """Decide anew on what may have changed.

        Args:
            sources: the group's own addresses.
            prefixes: what they make reachable on the link.
            anew: everything may have changed.
        """
        if anew or (sources, prefixes) != (self._sources, self._prefixes):
            self.doubtful.update(self.wanted, self.foreign.destinations(), prefixes)
        self._sources, self._prefixes = sources, prefixes
        while self.doubtful:
            some = set(itertools.islice(self.doubtful, AT_ONCE))
            self.doubtful -= some
            self.plan(some)
            yield

    def plan(self, destinations: Iterable[Prefix]) -> None:
        """Decide anew on these destinations."""
        for destination in destinations:
            plans = self._decide(destination)
            self._note_sharing(destination, plans)
            if plans:
                kind = tuple(plans.items())
                if len(self._plans) >= PLANS_KNOWN:
                    self._plans.clear()
                self.wanted[destination] = self._plans.setdefault(kind, plans)
                if destination[-1] == 0 or any(plan.is_on_the_link for plan in plans.values()):
                    self._urgent[destination] = None
                else:
                    self._urgent.pop(destination, None)
            else:
                self.wanted.pop(destination, None)
                self._urgent.pop(destination, None)

    def _note_sharing(self, destination: Prefix, plans: dict[int, PairPlan]) -> None:
        gateways = set[bytes]().union(*(plan.gateways for plan in plans.values() if len(plan.gateways) > 1))
        before = self._sharing.pop(destination, set())
        if gateways:
            self._sharing[destination] = gateways
        if gateways != before:
            self.sharing.update(gateways)
            self.sharing.subtract(before)
            self.sharing = +self.sharing

    def _decide(self, destination: Prefix) -> dict[int, PairPlan]:
        found = self.foreign.to(destination)
        version = routes.version_of(destination)
        if not found:
            if destination not in self._prefixes:
                return {}
            details = _MEDIUM if version == 6 else b""
            return {CONNECTED_METRIC[version]: PairPlan((Exit(None, 1, b""),), self._source(destination), details)}
        if destination[-1] == 0 and self._is_main and self.foreign.is_better_elsewhere(destination):
            # Of what our rules ask, only the last looks at default routes: it takes what is in our table.
            return {}
        plans: dict[int, PairPlan] = {}
        for route in found:
            before = plans.get(route.metric)
            if before is None:
                usable = route.source is not None and self._is_here(route.source)
                source = route.source if usable else self._source(destination)
                plans[route.metric] = PairPlan(self._exits(route), source, route.details)
                continue
            more = tuple(each for each in self._exits(route) if each not in (*before.exits, *before.spare))
            if before.details == route.details:
                # Several routers of one metric: all of them are ways.
                plans[route.metric] = before._replace(exits=before.exits + more)
            else:
                plans[route.metric] = before._replace(spare=before.spare + more)
        return plans

    def _exits(self, route: Route) -> tuple[Exit, ...]:
        exits = (Exit(self._gateway(leg.gateway), leg.weight, leg.details) for leg in route.legs)
        return tuple(dict.fromkeys(exits))

    def _gateway(self, gateway: bytes | None) -> bytes | None:
        """A gateway that is an address of this host means that the destination is on the link."""
        own = gateway is not None and self._around.is_ours(routes.address_of(gateway))
        return None if own else gateway

    def _source(self, destination: Prefix) -> bytes | None:
        by_version = self._sources.by_version.get(routes.version_of(destination))
        return self._sources.by_prefix.get(destination, by_version)

    def has_prefixes_on_ipv6_links(self) -> bool:
        """Whether the nexthop objects are needed."""
        return any(
            routes.version_of(destination) == 6 and any(plan.is_on_the_link for plan in plans.values())
            for destination in self._urgent
            if (plans := self.wanted[destination])
        )

    def urgent_requests(self) -> list[bytes]:
        """Requests that bring prefixes on the link and default routes to what is wanted."""
        return self.requests(list(self._urgent))

    def all_requests(self) -> Iterator[list[bytes]]:
        """Requests that bring all from what is there to what is wanted, a few at a time, the urgent ones first."""
        yield self.urgent_requests()
        others = [destination for destination in self.wanted if destination not in self._urgent]
        for part in parts(itertools.chain(others, self.installed.keys() - self.wanted.keys())):
            yield self.requests(part)

    @property
    def is_settled(self) -> bool:
        """Whether nothing waits for the next comparison, or for time to pass."""
        return not (self.doubtful or self.refusals or self._stale) and self.foreign.is_settled

    def is_complete(self) -> bool:
        """Whether every twin that is wanted is there."""
        return all(plans.keys() <= self.installed.get(d, {}).keys() for d, plans in self.wanted.items())

    # -- requests ----------------------------------------------------------------------------------------------------

    def requests(self, destinations: Iterable[Prefix]) -> list[bytes]:
        """Requests that bring these destinations from what is there to what is wanted, prefixes on the link first.

        Without a member that carries, a twin stays as it is.
        """
        ways: dict[tuple[int, Ways], _Way | None] = {}
        on_link: list[bytes] = []
        others: list[bytes] = []
        for destination in dict.fromkeys(destinations):
            plans, laid = self.wanted.get(destination, {}), self.installed.get(destination, {})
            version = routes.version_of(destination)
            for metric, plan in plans.items():
                kind = version, plan.ways
                if kind not in ways:
                    ways[kind] = self._way(*kind)
                way = ways[kind]
                if way is None or (destination, metric) in self.occupied:
                    continue
                new = _Laid(way.legs, way.nexthop_id, plan.source, plan.details)
                new = self._laid.setdefault(new, new)
                if laid.get(metric) == new and new not in self._stale:
                    continue
                self._touched.add(destination)
                laid = self.installed.setdefault(destination, {})
                laid[metric] = new
                request = routes.lay_twin(
                    self.ours,
                    destination,
                    metric,
                    way.packed,
                    plan.source,
                    gateway=way.has_gateway,
                    details=plan.details,
                )
                (others if way.has_gateway else on_link).append(request)
            for metric in [metric for metric in laid if metric not in plans]:
                del laid[metric]
                self._touched.add(destination)
                others.append(routes.delete_twin(self.ours, destination, metric))
            if not laid:
                self.installed.pop(destination, None)
        return on_link + others

    def _way(self, version: int, ways: Ways) -> _Way | None:
        """The way that leaves by these exits now; None: no member carries."""
        exits = self._routers.usable(ways)
        if version == 6 and any(each.gateway is None for each in exits):
            group = self._legs.group
            return _Way((), group, routes.by_nexthop(group), has_gateway=False) if group is not None else None
        indexes = self._around.carriers(version)
        if not indexes:
            return None
        legs = _sorted([Leg(index, each.gateway, each.weight, each.details) for index in indexes for each in exits])
        has_gateway = any(each.gateway is not None for each in exits)
        return _Way(legs, 0, routes.pack_legs(version, legs), has_gateway)


def _sorted(legs: Sequence[Leg]) -> tuple[Leg, ...]:
    """Legs in an order of their own. The kernel does not tell the weight of a single one."""
    if len(legs) == 1:
        return (Leg(legs[0].index, legs[0].gateway, details=legs[0].details),)
    return tuple(sorted(legs, key=lambda leg: (leg.index, leg.gateway or b"", leg.weight, leg.details)))
