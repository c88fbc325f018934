"""Shadow routes: for every route that leaves by a member, one of ours that is preferred and leaves by all of them.

The host's own routes are never edited. Take the shadows away and its own routing is back.
"""

from __future__ import annotations

import errno
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ipmp_agent.core.events import RoutersChanged
from ipmp_agent.linux.group import foreign_routes
from ipmp_agent.linux.group.foreign_routes import ForeignRoutes
from ipmp_agent.linux.group.legs import Legs, Way
from ipmp_agent.linux.messages import netlink, routes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ipmp_agent.core.events import Event
    from ipmp_agent.linux.messages.routes import Nexthop, Prefix, Route
    from ipmp_agent.linux.shared.host import Host
    from ipmp_api.types import Address, Network

log = logging.getLogger(__name__)

CONNECTED_METRIC = {4: 0, 6: 255}
"""Metric of the shadow of a connected prefix that only we know of: the kernel gives its own 0 and 256."""

# A carrier that goes in this moment takes a leg along; a route that is there already is what was wanted; a gateway is
# unreachable until its address is back. What is missing in the end, the next comparison finds.
TRANSIENT = frozenset({errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EEXIST})


ROUTES_AT_ONCE = 64
"""Routes laid again before the first announcement: about a millisecond. More of them follow it."""


class Surroundings(foreign_routes.Surroundings, Protocol):
    """What shadows need to know of the rest of the group."""

    def carriers(self, version: int) -> list[int]:
        """Interface indexes of the members that carry outbound traffic now."""

    def prefixes(self) -> set[Network]:
        """Prefixes that the group's own addresses make reachable on the link."""

    def sources(self) -> tuple[dict[Network, Address], dict[int, Address]]:
        """The data addresses that packets come from, if they may choose: by prefix, else by IP version."""

    def is_here(self, address: Address) -> bool:
        """Whether the host has this address, as far as the group knows."""


_Identity = tuple[int, int, bytes | None]  # metric, nexthop group, source: what the kernel has of a shadow


class Shadow(NamedTuple):
    """A route of ours."""

    metric: int
    way: Way
    source: bytes | None


class Sources(NamedTuple):
    """Where packets come from, if they may choose."""

    by_prefix: dict[Prefix, bytes]
    by_version: dict[int, bytes]


class Shadows:
    """Keeps the shadows of one group."""

    def __init__(self, host: Host, around: Surroundings, sink: Callable[[Event], None]) -> None:
        self._host = host
        self._around = around
        self._sink = sink
        self._foreign = ForeignRoutes(around)
        self._legs = Legs(host.identifiers, around.carriers)
        self._wanted: dict[Prefix, Shadow] = {}
        self._identities: dict[Prefix, _Identity] = {}  # of the wanted ones
        self._ways: Counter[Way] = Counter()  # how many shadows want each
        self._installed: dict[Prefix, Shadow] = {}
        self._prefixes: set[Prefix] = set()
        self._sources = Sources({}, {})
        self._here: dict[bytes, bool] = {}  # whether the host has a preferred source of a route
        self._doubtful: set[Prefix] = set()  # destinations to be decided on anew
        self._routers: tuple[Address, ...] = ()
        self._compared = False  # once: till then nobody knows which nexthops an earlier agent left
        self.heard_of = 0
        """Changes of foreign routes that were worked in: requests from before one may be out of date."""

    def memory(self) -> list[dict[str, Any]]:
        """What a restarted agent must know: JSON."""
        return self._foreign.memory()

    def at_stake(self) -> list[bytes]:
        """The routes that the memory holds, as messages."""
        return self._foreign.at_stake()

    def remember(self, memory: Iterable[Mapping[str, Any]]) -> None:
        """Take over what an earlier run remembered."""
        self._foreign.remember(memory)

    def endanger(self, members: set[str], addresses: set[Address]) -> None:
        """Addresses left these members: the kernel takes routes along without telling."""
        self._foreign.endanger(members, addresses)

    def wait_for_verdict(self, members: set[str]) -> None:
        """Of these members it is not known yet whether addresses were given up, and the routes with them."""
        self._foreign.undecided = members

    def disown(self, member: str, address: Address) -> None:
        """The owner of an address took it off a member: what went with it is not put back."""
        self._doubtful |= self._foreign.disown(member, address)

    # -- what the kernel has -----------------------------------------------------------------------------------------

    def read(self, found: Sequence[Route]) -> None:
        """Take the foreign routes of the main table, and tell which gateways they use."""
        self._doubtful |= self._foreign.read(route for route in found if not route.owned)
        self._tell_routers()

    def _tell_routers(self) -> None:
        routers = self._foreign.routers()
        if routers != self._routers:
            self._routers = routers
            self._sink(RoutersChanged(routers))

    def heard(self, kind: int, flags: int, route: Route) -> bool:
        """Somebody, perhaps we, changed a route; returns whether one of ours is gone."""
        destination = route.destination
        if route.owned:
            shadow = self._installed.get(destination)
            if kind != netlink.RTM_DELROUTE or shadow is None or self._identity(shadow) != _identity(route):
                return False
            del self._installed[destination]
            return True
        requests = []
        if kind == netlink.RTM_NEWROUTE and flags & netlink.NLM_F_REPLACE:
            requests = self._finish_replacement(route)
        elif kind == netlink.RTM_NEWROUTE and not flags & netlink.NLM_F_APPEND:
            requests = self._step_back(route)
        self.heard_of += 1
        self._foreign.heard(kind, route)
        self._tell_routers()
        if not self._compared:
            self._doubtful.add(destination)
            return False
        self._plan([destination])
        self._host.send(requests + self._apply([destination]), expected=TRANSIENT)
        return False

    def _finish_replacement(self, route: Route) -> list[bytes]:
        """Requests that finish what the owner of a route meant by replacing it.

        The kernel replaces the first route of its key. For IPv4 and metric 0 that was our shadow, no deletion is told,
        and the owner's old route still stands.
        """
        shadow = self._installed.get(route.destination)
        if route.version != 4 or shadow is None or shadow.metric != route.metric:
            return []
        del self._installed[route.destination]
        return [routes.delete(old.body) for old in self._foreign.replaced(route)]

    def _step_back(self, route: Route) -> list[bytes]:
        """Requests that take a shadow away from behind an IPv4 route of its metric that was put in front of it."""
        shadow = self._installed.get(route.destination)
        if route.version != 4 or shadow is None or shadow.metric != route.metric:
            return []
        return [self._delete(route.destination, self._installed.pop(route.destination))]

    def _identity(self, shadow: Shadow) -> _Identity:
        return shadow.metric, self._legs.group(shadow.way), shadow.source

    def link_lost(self, index: int) -> None:
        """An interface lost its carrier, or is gone: with the last leg of a way the kernel drops the routes by it."""
        self._legs.lost(index)
        if not all(self._legs.is_installed(way) for way in self._ways):
            self._installed = {d: s for d, s in self._installed.items() if self._legs.is_installed(s.way)}

    def uses(self, index: int) -> bool:
        """Whether shadows leave by an interface."""
        return self._legs.uses(index)

    def leave(self, member: str, index: int) -> list[bytes]:
        """Requests that leave the routes by a member that is one no more to the host, as they were.

        A shadow of a prefix hides it, and the kernel would refuse what is put back by a gateway.
        """
        restored, destinations = self._foreign.leave(member, {})
        self._plan(destinations)
        requests = self._apply(destinations) + restored
        return requests + [routes.delete_nexthop(identifier) for identifier in self._legs.leave(index)]

    def inherit(self, member: str, heir: str) -> list[bytes]:
        """Requests that lay the routes by a member that is gone by another; the next reading finds them there."""
        restored, _ = self._foreign.leave(member, {member: heir})
        return restored

    # -- what is wanted ----------------------------------------------------------------------------------------------

    def _plan(self, destinations: Iterable[Prefix]) -> None:
        """Decide anew on these destinations."""
        for destination in destinations:
            before, after = self._wanted.pop(destination, None), self._decide(destination)
            if before is not None:
                self._ways[before.way] -= 1
            if after is not None:
                self._wanted[destination] = after
                self._identities[destination] = self._identity(after)
                self._ways[after.way] += 1
            else:
                self._identities.pop(destination, None)
        self._ways = +self._ways

    def _plan_what_changed(self) -> None:
        """Decide anew on what may have changed: everything, if our own addresses did."""
        prefixes = {routes.prefix_of(network) for network in self._around.prefixes()}
        by_prefix, by_version = self._around.sources()
        sources = Sources(
            {routes.prefix_of(network): address.packed for network, address in by_prefix.items()},
            {version: address.packed for version, address in by_version.items()},
        )
        here = {packed: self._around.is_here(routes.address_of(packed)) for packed in self._here}
        if (prefixes, sources, here) != (self._prefixes, self._sources, self._here):
            self._doubtful.update(self._wanted, self._foreign.destinations(), prefixes)
        self._prefixes, self._sources, self._here = prefixes, sources, here
        self._plan(self._doubtful)
        self._doubtful = set()

    def _decide(self, destination: Prefix) -> Shadow | None:
        others = self._foreign.metrics_elsewhere(destination)
        best = self._foreign.best(destination)
        version = routes.version_of(destination)
        if best is not None:
            metric = _preferred(best, others)
            if metric is None:
                return None
            gateways = frozenset(leg.gateway for leg in best.legs)
            usable = best.source is not None and self._is_here(best.source)
            return Shadow(metric, Way(version, gateways), best.source if usable else self._source(destination))
        if destination not in self._prefixes:
            return None
        # Somebody else's way to the same prefix keeps its preference.
        metric = max(others) + 1 if others else CONNECTED_METRIC[version]
        return Shadow(metric, Way(version, frozenset({None})), self._source(destination))

    def _source(self, destination: Prefix) -> bytes | None:
        by_version = self._sources.by_version.get(routes.version_of(destination))
        return self._sources.by_prefix.get(destination, by_version)

    def _is_here(self, source: bytes) -> bool:
        if source not in self._here:
            self._here[source] = self._around.is_here(routes.address_of(source))
        return self._here[source]

    def prefixes(self) -> list[Prefix]:
        """The IPv4 prefixes on the link that have a shadow; single hosts have nobody behind them."""
        return [
            destination
            for destination, shadow in self._wanted.items()
            if shadow.way.version == 4 and not shadow.way.has_gateway and 0 < destination[-1] < 32
        ]

    # -- requests ----------------------------------------------------------------------------------------------------

    def set_outbound(self) -> bool:
        """Give every group its legs at once; returns whether a comparison must follow, since a group is new.

        Where all legs were lost the routes are laid again at once, too, unless they are very many.
        """
        ready = [way for way in self._ways if self._legs.is_installed(way)]
        missing = [d for d in self._wanted if d not in self._installed] if len(ready) < len(self._ways) else []
        requests = self._legs.differences(ready) + (self._apply(missing) if len(missing) <= ROUTES_AT_ONCE else [])
        failures = self._host.send(requests, expected=TRANSIENT)
        return bool(failures) or len(ready) < len(self._ways)

    def differences(self, found: Sequence[Route], nexthops: Sequence[Nexthop], indexes: set[int]) -> list[bytes]:
        """Requests that turn the main table and the nexthop objects into what is wanted, in the order they need.

        Args:
            found: the main table, as last given to `read`.
            nexthops: all objects.
            indexes: interface indexes of the members.
        """
        stale = self._legs.read({nexthop.identifier: nexthop for nexthop in nexthops}, indexes)
        self._compared = True
        self._plan_what_changed()
        requests, behind = self._foreign.reorder()
        requests += self._take_over(found, behind, indexes)
        requests += self._apply(self._wanted, list(self._ways))
        requests += self._foreign.restore()
        unused = stale + self._legs.unused(self._ways)
        return requests + [routes.delete_nexthop(identifier) for identifier in unused]

    def _take_over(self, found: Sequence[Route], behind: set[Prefix], indexes: set[int]) -> list[bytes]:
        """Find out which shadows are installed; requests that delete those that are not as wanted.

        Args:
            found: the main table, in its order: an IPv4 shadow must come before the equal route it stands for.
            behind: destinations whose routes are about to be put in front of ours.
            indexes: of the members.
        """
        self._installed = {}
        requests = []
        foreign: set[tuple[Prefix, int]] = set()
        for route in found:
            destination = route.destination
            if not route.owned:
                if route.metric == 0:
                    foreign.add((destination, 0))
            elif all(leg.index in indexes for leg in route.legs):
                first = destination not in behind and (destination, route.metric) not in foreign
                if first and self._identities.get(destination) == _identity(route):
                    self._installed[destination] = self._wanted[destination]
                else:
                    requests.append(routes.delete(route.body))
        return requests

    def _apply(self, destinations: Iterable[Prefix], ways: Sequence[Way] = ()) -> list[bytes]:
        """Requests that bring these destinations, and these ways, from what is installed to what is wanted.

        Prefixes first: an IPv6 gateway is accepted only where its prefix is known.
        """
        todo = [d for d in destinations if self._wanted.get(d) != self._installed.get(d)]
        requests: list[bytes] = []
        for by_gateway in (False, True):
            now = [d for d in todo if d in self._wanted and self._wanted[d].way.has_gateway is by_gateway]
            needed = {self._wanted[d].way for d in now}
            requests += self._legs.differences(needed.union(w for w in ways if w.has_gateway is by_gateway))
            for destination in now:
                if self._legs.is_installed(self._wanted[destination].way):
                    requests += self._exchange(destination, self._wanted[destination])
        for destination in todo:
            if destination not in self._wanted:
                requests.append(self._delete(destination, self._installed.pop(destination)))
        return requests

    def _exchange(self, destination: Prefix, shadow: Shadow) -> list[bytes]:
        """Requests that install a shadow in place of the one before, if there is one."""
        before = self._installed.get(destination)
        self._installed[destination] = shadow
        if before is None:
            return [self._add(destination, shadow)]
        if routes.version_of(destination) == 6 and before.metric == shadow.metric:
            return [self._add(destination, shadow, replace=True)]
        if before.source is None and before.way == shadow.way:
            # A deletion without a source matches any: it must not find the new one.
            return [self._delete(destination, before), self._add(destination, shadow)]
        return [self._add(destination, shadow), self._delete(destination, before)]

    def _add(self, destination: Prefix, shadow: Shadow, *, replace: bool = False) -> bytes:
        metric, group, source = self._identity(shadow)
        gateway = shadow.way.has_gateway
        return routes.add_shadow(destination, metric, group, source, gateway=gateway, replace=replace)

    def _delete(self, destination: Prefix, shadow: Shadow) -> bytes:
        metric, group, source = self._identity(shadow)
        return routes.delete_shadow(destination, metric, group, source, gateway=shadow.way.has_gateway)

    def withdraw(self, refuges: Mapping[str, str]) -> list[bytes]:
        """Requests that put back what is missing and remove everything of ours.

        A shadow of a prefix hides the prefix on members that it does not leave by: a lookup bound to an interface goes
        no further than the first route of its key. So these go before a route by a gateway is put back.

        Args:
            refuges: members that take the routes of others that are gone.
        """
        by_gateway = {d for d, shadow in self._installed.items() if shadow.way.has_gateway}
        requests = [self._delete(d, s) for d, s in self._installed.items() if d not in by_gateway]
        requests += self._foreign.restore(refuges)
        requests += [self._delete(destination, self._installed[destination]) for destination in by_gateway]
        requests += [routes.delete_nexthop(identifier) for identifier in self._legs.unused(())]
        self._installed.clear()
        self._wanted.clear()
        self._identities.clear()
        self._ways.clear()
        return requests

    def settle(self, found: Sequence[Route]) -> list[bytes]:
        """After the withdrawal: requests that put the host's own routes back into their order."""
        self._foreign.read(found)
        return self._foreign.reorder()[0]


def _identity(route: Route) -> _Identity:
    return route.metric, route.nexthop_id, route.source


def _preferred(route: Route, others: set[int]) -> int | None:
    """Metric of the shadow: better than the route's, yet no better than that of a route that leaves elsewhere.

    IPv4 puts a new route in front of those with an equal metric. IPv6 cannot, and takes 0 for 1024.
    """
    better = route.metric - 1
    if route.version == 4:
        return better if better >= 0 and better not in others else route.metric
    return better if better >= 1 and better not in others else None
