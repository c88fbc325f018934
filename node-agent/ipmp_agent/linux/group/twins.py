"""Twins: for every route of others by a member, one of ours in a table of our own that leaves by all that carry.

The host's own routes are never edited and nothing of ours stands among them. Policy rules right before those of the
host take its own decision as it is, unless it leaves by a member. Take the rules away and its own routing is back.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from ipmp_agent.core.events import RoutersChanged
from ipmp_agent.core.findings import Finding
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.group.device_legs import DeviceLegs
from ipmp_agent.linux.group.table_twins import Sources, TableTwins
from ipmp_agent.linux.messages import netlink, routes, rules
from ipmp_agent.linux.messages.routes import RT_TABLE_DEFAULT, RT_TABLE_MAIN, RTPROT_KERNEL
from ipmp_agent.linux.shared.host import EXPECTED_ERRORS
from ipmp_agent.linux.shared.slices import AT_ONCE, in_slices, parts

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    from ipmp_agent.core.events import Event
    from ipmp_agent.linux.group.routers import Routers
    from ipmp_agent.linux.group.table_twins import Key, TwinSurroundings
    from ipmp_agent.linux.messages.netlink import Failure
    from ipmp_agent.linux.messages.routes import Leg, Nexthop, Prefix, Route
    from ipmp_agent.linux.messages.rules import PolicyRule
    from ipmp_agent.linux.shared.host import Host
    from ipmp_api.types import Address

log = logging.getLogger(__name__)

# A carrier that goes in this moment takes a leg along; a route that is there already is what was wanted; a gateway is
# unreachable until its address is back. What is missing in the end, the next comparison finds.
TRANSIENT = frozenset({errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EEXIST})

PASSING = 2.0
"""Seconds after which a refusal that may have been of the moment is told."""

ROUTES_MEASURED = 50_000
"""Routes of others by members up to which benchmarks/foreign_routes.py holds."""

ROUTES_AT_ONCE = 64
"""Routes laid anew before the first announcement: about a millisecond. More of them follow it."""


class _Sorted(NamedTuple):
    """What is there of this agent, by whose it is."""

    ours: dict[int, dict[Prefix, list[Route]]]  # twins of this group, by table and destination
    occupied: dict[int, set[Key]]  # where another group has its twins, by table
    unneeded: list[bytes]  # requests that delete those that nobody looks after
    tables: dict[int, int]  # where others have theirs, by the host's table
    former: list[bytes]  # requests that delete what a former version of this agent had


class Twins:
    """Keeps the twins of one group."""

    def __init__(self, host: Host, around: TwinSurroundings, sink: Callable[[Event], None], routers: Routers) -> None:
        self._host = host
        self._around = around
        self._sink = sink
        self._of_several = routers
        self._legs = DeviceLegs(host.identifiers, around.carriers)
        self._tables: dict[int, TableTwins] = {}  # by table of the host
        self._main = self._table(RT_TABLE_MAIN)
        self._led_to: frozenset[int] = frozenset({RT_TABLE_MAIN})  # the tables that rules of the host lead to
        self._rules: tuple[PolicyRule, ...] = ()
        self._here: dict[bytes, bool] = {}  # whether the host has a preferred source of a route
        self._routers: tuple[Address, ...] = ()
        self._compared = False  # once: till then nobody knows what an earlier agent left
        self._following: asyncio.Task[None] | None = None
        self._former = False  # what a former version left is still needed
        self.heard_of = 0
        """Changes of foreign routes that were worked in: requests from before one may be out of date."""

    def _table(self, table: int) -> TableTwins:
        if table not in self._tables:
            self._tables[table] = TableTwins(table, self._around, self._legs, self._is_here, self._of_several)
        return self._tables[table]

    def memory(self) -> list[dict[str, Any]]:
        """What a restarted agent must know: JSON."""
        return [entry for twins in self._tables.values() for entry in twins.foreign.memory()]

    def at_stake(self) -> list[bytes]:
        """The routes that the memory holds, as messages."""
        return [body for twins in self._tables.values() for body in twins.foreign.at_stake()]

    def remember(self, memory: Iterable[Mapping[str, Any]]) -> None:
        """Take over what an earlier run remembered."""
        for entry in memory:
            route = routes.decode(bytes.fromhex(entry["message"]))
            if route is not None:
                self._table(route.table).foreign.remember([entry])

    def endanger(self, members: set[str], addresses: set[Address]) -> None:
        """Addresses left these members: the kernel takes routes along without telling."""
        for twins in self._tables.values():
            twins.foreign.endanger(members, addresses)

    def wait_for_verdict(self, members: set[str]) -> None:
        """Of these members it is not known yet whether addresses were given up, and the routes with them."""
        for twins in self._tables.values():
            twins.foreign.undecided = members

    def disown(self, member: str, address: Address) -> None:
        """The owner of an address took it off a member: what went with it is not put back."""
        for twins in self._tables.values():
            twins.doubtful |= twins.foreign.disown(member, address)

    # -- what the kernel has -----------------------------------------------------------------------------------------

    def read(self, found: Sequence[Route], policy: Sequence[PolicyRule]) -> Generator[None, None, None]:
        """Take the routes of others and the rules, and tell which gateways are used."""
        for twins in self._tables.values():
            twins.begin_taking()
        self._rules = tuple(rule for rule in policy if not rule.owned)
        self._led_to = frozenset(rule.table for rule in self._rules if _is_followed(rule.table)) | {RT_TABLE_MAIN}
        by_table: dict[int, list[Route]] = {table: [] for table in self._led_to}
        lent = self._lent()
        for part in parts(found, 8 * AT_ONCE):
            for route in part:
                if not route.owned and route.table in by_table and not lent(route):
                    by_table[route.table].append(route)
            yield
        for table, some in by_table.items():
            if table in self._tables or any(self._is_by_members(route) for route in some):
                yield from self._table(table).read(some)
        self._tables = {table: twins for table, twins in self._tables.items() if table in self._led_to}
        self._tell_routers()

    def _lent(self) -> Callable[[Route], bool]:
        """Whether a route came along with an address of the host that was moved to a member: it goes with it, too.

        IPv4 only, where the kernel tells the address: none of IPv6 brings a route where it is moved to.
        """
        home_of = {address.packed: home for address, home in self._around.homes().items()}

        def lent(route: Route) -> bool:
            if route.protocol != RTPROT_KERNEL or route.source is None or len(route.legs) != 1:
                return False
            key = self._around.key_of(route.legs[0].index)
            return key is not None and home_of.get(route.source, key) != key

        return lent

    def _is_by_members(self, route: Route) -> bool:
        return all(self._around.key_of(leg.index) is not None for leg in route.legs)

    def _watch_routers(self) -> None:
        """Watch the routers of which a route has several."""
        self._of_several.watch(set[bytes]().union(*(twins.sharing for twins in self._tables.values())))

    def _tell_routers(self) -> None:
        routers = self._main.foreign.routers()
        if routers != self._routers:
            self._routers = routers
            self._sink(RoutersChanged(routers))

    def heard(self, kind: int, flags: int, route: Route, *, by_somebody: bool) -> tuple[bool, bool]:
        """Somebody, perhaps we, changed a route.

        Args:
            kind: RTM_NEWROUTE or RTM_DELROUTE.
            flags: of the message.
            route: as it tells it.
            by_somebody: whether a process asked for it, and not the kernel by itself.

        Returns:
            Whether one of ours is gone, and whether only a comparison tells what to do.
        """
        if routes.is_table_of_twins(route.table):
            return any(twins.lost(kind, route) for twins in self._tables.values()), False
        if route.owned or route.table not in self._led_to or (route.protocol == RTPROT_KERNEL and self._lent()(route)):
            return False, False
        twins = self._tables.get(route.table)
        if twins is None:
            return False, self._is_by_members(route)
        self.heard_of += 1
        unclear = twins.foreign.heard(kind, flags, route, by_somebody=by_somebody)
        self._tell_routers()
        if not self._compared:
            twins.doubtful.add(route.destination)
            return False, unclear
        twins.plan([route.destination])
        self._watch_routers()
        refused = self.send(twins.requests([route.destination]))
        return False, unclear or refused

    @property
    def awaits(self) -> bool:
        """Whether others have a while to bring routes back: then a comparison must follow."""
        return any(twins.foreign.awaits for twins in self._tables.values())

    @property
    def is_settled(self) -> bool:
        """Whether nothing waits for the next comparison, or for time to pass."""
        return self._compared and not self._former and all(twins.is_settled for twins in self._tables.values())

    def link_lost(self, index: int) -> None:
        """An interface lost its carrier, or is gone: the kernel may have taken legs and routes along."""
        self._legs.lost(index)
        for twins in self._tables.values():
            twins.link_lost(index)

    def uses(self, index: int) -> bool:
        """Whether twins leave by an interface."""
        return self._legs.uses(index) or any(twins.uses(index) for twins in self._tables.values())

    def leave(self, member: str, index: int) -> list[bytes]:
        """Requests that leave the routes by a member that is one no more to the host, as they were."""
        requests = []
        for twins in self._tables.values():
            restored, destinations = twins.foreign.leave(member)
            twins.plan(destinations)
            requests += restored + twins.requests(destinations)
        return requests + [routes.delete_nexthop(identifier) for identifier in self._legs.leave(index)]

    def inherit(self, member: str, heir: str) -> None:
        """Have the routes by a member that is gone for good put back by another one."""
        for twins in self._tables.values():
            twins.doubtful |= twins.foreign.inherit(member, heir)

    # -- what is wanted ----------------------------------------------------------------------------------------------

    def _is_here(self, source: bytes) -> bool:
        if source not in self._here:
            self._here[source] = self._around.is_here(routes.address_of(source))
        return self._here[source]

    def _plan_what_changed(self) -> Generator[None, None, None]:
        """Decide anew on what may have changed: everything, if our own addresses did."""
        prefixes = frozenset(routes.prefix_of(network) for network in self._around.prefixes())
        by_prefix, by_version = self._around.sources()
        sources = Sources(
            {routes.prefix_of(network): address.packed for network, address in by_prefix.items()},
            {version: address.packed for version, address in by_version.items()},
        )
        here = {packed: self._around.is_here(routes.address_of(packed)) for packed in self._here}
        anew = here != self._here
        self._here = here
        for twins in tuple(self._tables.values()):
            yield from twins.plan_what_changed(sources, prefixes if twins is self._main else frozenset(), anew=anew)

    def tables(self) -> dict[int, int]:
        """Our tables that have, or are to have, twins of this group, by the host's."""
        return {t: twins.ours for t, twins in self._tables.items() if twins.wanted or twins is self._main}

    # -- requests ----------------------------------------------------------------------------------------------------

    def rescue(self, found: Sequence[Route]) -> Generator[None, None, list[bytes]]:
        """Requests that make routes of the host of the twins that have none: for an agent whose memory is lost.

        What went along with an address that was moved is remembered by its twin alone then.

        Args:
            found: all routes, as last given to `read`.
        """
        left = [r for r in found if r.owned and routes.is_table_of_twins(r.table) and not r.nexthop_id]
        if not left:
            return []
        there = set()
        for part in parts(found, 8 * AT_ONCE):
            there |= {(route.table, route.destination, route.metric) for route in part if not route.owned}
            yield
        for table, twins in self._tables.items():  # and what is remembered to be missing
            for destination in twins.foreign.destinations():
                there |= {(table, destination, route.metric) for route in twins.foreign.to(destination)}
        connected = {routes.prefix_of(network) for network in self._around.prefixes()}
        requests = []
        for number, twin in enumerate(left):
            if number % AT_ONCE == 0:
                yield
            table = routes.table_of_host(twin.table)
            leg = self._leg_of_source(twin)
            lost = (table, twin.destination, twin.metric) not in there and twin.destination not in connected
            if lost and leg is not None:
                log.warning(
                    "table %d has no route to %s/%d, which went with an address that was moved by an agent whose memory"
                    " is lost: it is laid as it leaves now",
                    table,
                    routes.address_of(twin.destination[:-1]),
                    twin.destination[-1],
                )
                requests.append(routes.lay_from_twin(table, twin, leg))
        return requests

    def _leg_of_source(self, twin: Route) -> Leg | None:
        """The leg of a twin by the member that has its source address, else its first by a member."""
        keys = [(leg, key) for leg in twin.legs if (key := self._around.key_of(leg.index)) is not None]
        source = routes.address_of(twin.source) if twin.source is not None else None
        right = [leg for leg, key in keys if source is None or not self._around.was_moved(key, source)]
        return next(iter(right or [leg for leg, _ in keys]), None)

    def set_outbound(self) -> bool:
        """Give twins their ways at once, the most important first, and very many others while the loop does more.

        Returns:
            Whether a comparison must follow.
        """
        requests = self._legs.differences() if self._needs_device_legs() else []
        later: list[TableTwins] = []
        for twins in self._tables.values():
            requests += twins.urgent_requests()
            if len(twins.wanted) <= ROUTES_AT_ONCE:
                requests += twins.requests(twins.wanted)
            else:
                later.append(twins)
        refused = self.send(requests)
        if later:
            if self._following is not None:
                self._following.cancel()
            self._following = asyncio.get_running_loop().create_task(in_slices(self._lay_later(later)))
        return refused or self._former

    def _lay_later(self, later: Iterable[TableTwins]) -> Generator[None, None, None]:
        for twins in later:
            for requests in twins.all_requests():
                self.send(requests)
                yield

    async def close(self) -> None:
        """Lay nothing more; the kernel stays as it is."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    def send(self, requests: Sequence[bytes]) -> bool:
        """Send requests of ours; returns whether any was refused."""
        return bool(self._host.send(requests, expected=TRANSIENT, knows=self.knows))

    def knows(self, request: bytes, failure: Failure) -> bool:
        """Take note of a refusal; returns whether it is one that was told already."""
        (message,) = netlink.messages(request)
        route = routes.decode(message.body) if message.kind == netlink.RTM_NEWROUTE else None
        twins = next((t for t in self._tables.values() if route is not None and t.ours == route.table), None)
        if route is None or twins is None:
            return False
        passing = failure.error in TRANSIENT | EXPECTED_ERRORS
        return twins.refused((route.destination, route.metric), str(failure), passing=passing)

    @property
    def refused(self) -> int:
        """How many twins the kernel refuses."""
        return sum(len(twins.refusals) for twins in self._tables.values())

    def _needs_device_legs(self) -> bool:
        return any(twins.has_prefixes_on_ipv6_links() for twins in self._tables.values())

    def compare(
        self,
        found: Sequence[Route],
        nexthops: Sequence[Nexthop],
        indexes: set[int],
        lay_rules: Callable[[dict[int, int]], int],
    ) -> Generator[None, None, int]:
        """Turn our tables and nexthop objects into what is wanted, in the order they need.

        Args:
            found: all routes, as last given to `read`.
            nexthops: all objects.
            indexes: interface indexes of the members.
            lay_rules: called when the twins are there, with our tables, by the host's, that rules are to lead to;
                returns how many requests that took.

        Returns:
            How many requests were sent.
        """
        stale = self._legs.read({nexthop.identifier: nexthop for nexthop in nexthops}, indexes)
        self._compared = True
        sent = 0
        yield from self._plan_what_changed()
        self._watch_routers()
        for twins in tuple(self._tables.values()):
            while twins.foreign.are_to_be_reordered:
                sent += self._lay(twins.foreign.reorder(AT_ONCE))
                yield
        there = yield from self._take(found, indexes)
        sent += self._lay(there.unneeded)
        for twins in self._tables.values():
            twins.settle()
        if self._needs_device_legs():
            sent += self._lay(self._legs.differences())
        else:
            stale += self._legs.drop()
        for twins in tuple(self._tables.values()):
            for requests in twins.all_requests():
                sent += self._lay(requests)
                yield
        sent += lay_rules(there.tables | self.tables())
        for twins in tuple(self._tables.values()):
            for requests in twins.foreign.restorations():
                sent += self._lay(requests)
                yield
        # Twins first, then what a former version of this agent had among the routes of the host. It has to wait until
        # the core has said who carries.
        self._former = bool(there.former) and not all(twins.is_complete() for twins in self._tables.values())
        if not self._former:
            sent += self._lay(there.former + [routes.delete_nexthop(identifier) for identifier in stale])
        return sent

    def _lay(self, requests: Sequence[bytes]) -> int:
        self.send(requests)
        return len(requests)

    def _take(self, found: Sequence[Route], indexes: set[int]) -> Generator[None, None, _Sorted]:
        """Find out which twins are there; returns what there is of this agent."""
        there = _Sorted({twins.ours: {} for twins in self._tables.values()}, {}, [], {}, [])
        for part in parts(found, 2 * AT_ONCE):
            for route in part:
                if route.owned and routes.is_table_of_twins(route.table):
                    self._sort(route, indexes, there)
                elif self._is_of_former_version(route, indexes):
                    there.former.append(routes.delete(route.body))
            yield
        for twins in tuple(self._tables.values()):
            table = twins.ours
            yield from twins.take(there.ours.get(table, {}), there.occupied.get(table, set()))
        return there

    def _sort(self, route: Route, indexes: set[int], there: _Sorted) -> None:
        """Tell whose a route in a table of twins is."""
        by_members = all(leg.index in indexes for leg in route.legs)
        if not by_members:
            there.tables[routes.table_of_host(route.table)] = route.table
        others = [leg.index for leg in route.legs if self._around.is_of_another_group(leg.index)]
        if others and all(self._around.may_take_over(index) for index in others):
            return  # what this group wants to be there is laid in its place
        if others:
            there.occupied.setdefault(route.table, set()).add((route.destination, route.metric))
        elif route.table in there.ours:
            there.ours[route.table].setdefault(route.destination, []).append(route)
        elif by_members:
            there.unneeded.append(routes.delete_twin(route.table, route.destination, route.metric))

    def _is_of_former_version(self, route: Route, indexes: set[int]) -> bool:
        beside = route.owned and route.table in (RT_TABLE_MAIN, RT_TABLE_DEFAULT)
        return beside and all(leg.index in indexes for leg in route.legs)

    def restore(self, refuges: Mapping[str, str]) -> list[bytes]:
        """At the withdrawal: requests that put back what is missing.

        Args:
            refuges: members that take the routes of others that are gone.
        """
        return [request for twins in self._tables.values() for request in twins.foreign.restore(refuges)]

    def withdraw(self, found: Sequence[Route], nexthops: Sequence[Nexthop], indexes: set[int]) -> list[bytes]:
        """Requests that remove everything of this group; the rules that lead to it are gone.

        Args:
            found: all routes.
            nexthops: all objects.
            indexes: interface indexes of the members.
        """
        requests = []
        for route in found:
            ours = route.owned and routes.is_table_of_twins(route.table)
            if ours and all(leg.index in indexes for leg in route.legs):
                requests.append(routes.delete_twin(route.table, route.destination, route.metric))
        requests += [routes.delete(r.body) for r in found if self._is_of_former_version(r, indexes)]
        stale = self._legs.read({nexthop.identifier: nexthop for nexthop in nexthops}, indexes)
        requests += [routes.delete_nexthop(identifier) for identifier in stale + self._legs.drop()]
        for twins in self._tables.values():
            twins.clear()
        return requests

    def settle(self) -> list[bytes]:
        """After the withdrawal, when all was read: requests that put the host's own routes back into their order."""
        return [request for twins in self._tables.values() for request in twins.foreign.reorder()]

    # -- findings ----------------------------------------------------------------------------------------------------

    def findings(self) -> list[Finding]:
        """What is on this host that leaves by members and cannot follow them."""
        found = []
        for rule in self._rules:
            twins = self._tables.get(rule.table)
            if rule.action != rules.FR_ACT_TO_TBL or twins is None or not twins.wanted:
                continue
            why = rules.obstacle(rule, [r for r in self._rules if r.family == rule.family])
            if why is not None:
                message = (
                    f"{rule} leads to table {rule.table}, whose routes leave by members, and they do not follow the"
                    f" members that work: {why}. Give the rule another priority, or take it away."
                )
                found.append(Finding(Reason.ROUTES_NOT_FOLLOWED, message))
        count = sum(len(twins.foreign) for twins in self._tables.values())
        if count > ROUTES_MEASURED:
            message = (
                f"{count} routes leave by members, and the agent is known to keep its pace and its memory limit with"
                f" {ROUTES_MEASURED}: raise the limit (agent.resources), or have the routing daemon lay fewer"
                " (docs/performance.md)."
            )
            found.append(Finding(Reason.MANY_ROUTES, message))
        return found + self._refusals()

    def _refusals(self) -> list[Finding]:
        """The twins that the kernel refuses; those that it may take in the next moment aside."""
        told = [
            (table, destination, metric, refusal)
            for table, twins in self._tables.items()
            for (destination, metric), refusal in twins.refusals.items()
            if not refusal.passing or monotonic() - refusal.since > PASSING
        ]
        if not told:
            return []
        table, destination, metric, refusal = told[0]
        more = f", and {len(told) - 1} more" if len(told) > 1 else ""
        message = (
            f"the route to {routes.text_of(destination)} of metric {metric} in table {table} leaves by a member and"
            f" does not follow the members that work{more}: the kernel refuses its twin: {refusal.text}. It is tried"
            " again when something changes."
        )
        return [Finding(Reason.ROUTES_NOT_FOLLOWED, message)]


def _is_followed(table: int) -> bool:
    """Whether twins can be laid beside a table of the host."""
    return 0 < table < routes.TABLES_MAXIMUM and table != routes.RT_TABLE_LOCAL and not routes.is_table_of_twins(table)


def others_in_use(found: Iterable[Route], indexes: set[int]) -> dict[int, int]:
    """The tables of twins that routes by other interfaces than these are in, by those of the host they stand beside."""
    ours = {
        route.table
        for route in found
        if route.owned and routes.is_table_of_twins(route.table) and any(leg.index not in indexes for leg in route.legs)
    }
    return {routes.table_of_host(table): table for table in ours}
