"""One group in the kernel: its addresses and settings, as they are to be and as they are."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import socket
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, assert_never

from ipmp_agent.core.actions import Announce, MoveAddresses, SendProbe, SetNominee, SetOutbound
from ipmp_agent.core.events import AddressAdopted, KernelRead, ProbeAnswered, ProbeNotSent
from ipmp_agent.core.findings import Finding
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.group import settings
from ipmp_agent.linux.group.administrative_state import GroupAdministrativeState
from ipmp_agent.linux.group.data_addresses import GroupDataAddresses
from ipmp_agent.linux.group.departures import Departures
from ipmp_agent.linux.group.fitness import Fitness
from ipmp_agent.linux.group.foreign_routes import OWNER_WAIT
from ipmp_agent.linux.group.membership import Membership
from ipmp_agent.linux.group.memory import VERSION as MEMORY_VERSION
from ipmp_agent.linux.group.multicast import Multicast
from ipmp_agent.linux.group.neighbourhood import Neighbourhood
from ipmp_agent.linux.group.outsiders import GroupOutsiders
from ipmp_agent.linux.group.parts import Parts
from ipmp_agent.linux.group.pinned import Pinned
from ipmp_agent.linux.group.pod_egress import PodEgress
from ipmp_agent.linux.group.reconcile import RETRY, GroupReconciler
from ipmp_agent.linux.group.refresh import AnnouncementRefresh
from ipmp_agent.linux.group.routers import Routers
from ipmp_agent.linux.group.settings import InterfaceSettings
from ipmp_agent.linux.group.surroundings import GroupSurroundings
from ipmp_agent.linux.group.testaddresses import GroupTestAddresses
from ipmp_agent.linux.group.tunnels import GroupTunnels
from ipmp_agent.linux.group.twins import TRANSIENT, Twins, others_in_use
from ipmp_agent.linux.group.unfollowed import Unfollowed
from ipmp_agent.linux.messages import addresses, netlink, routes, rules
from ipmp_agent.linux.messages.routes import RouteTable
from ipmp_agent.linux.shared.host import TRICKLE, Port
from ipmp_api.types import DeletionPolicy, Mode, Tunnels

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

    from ipmp_agent.core.actions import Order
    from ipmp_agent.core.events import Event
    from ipmp_agent.core.findings import NotAdopted
    from ipmp_agent.linux.messages.addresses import InstalledAddress
    from ipmp_agent.linux.messages.links import Link
    from ipmp_agent.linux.messages.routes import Nexthop, Prefix, Route
    from ipmp_agent.linux.messages.rules import PolicyRule
    from ipmp_agent.linux.shared.host import Host
    from ipmp_agent.linux.shared.members import HostMember, Members
    from ipmp_api.types import Address, InterfaceAddress, NodeGroup

log = logging.getLogger(__name__)


ABANDONED, FITNESS, SETTINGS = "interfaces that were members", "fitness of members", "settings"
ADDRESSES, DATA_ADDRESSES, TEST_ADDRESSES = "addresses", "data addresses", "test addresses"
ROUTES, TUNNELS, OUTSIDERS = "routes", "tunnels", "other interfaces on the link"
"""Parts of a comparison, as people are told them."""

MEMORY_PAUSE = 1.0
"""Seconds between writings of the memory while routes keep changing."""

MEMORY_PAUSE_MAXIMUM = 16.0
"""Seconds between attempts to have the memory written, where no disk takes it."""

ECHO = 0.1
"""Seconds in which the notifications of a move of ours are heard."""

READINGS = 3
"""Times that the kernel is read for one comparison while news of it comes; the next one goes on from there."""


class Found(NamedTuple):
    """What the kernel has, all of one moment; None: that could not be read."""

    installed: dict[str, list[InstalledAddress]] | None  # on the members that are present, by key
    nexthops: list[Nexthop]
    table: list[Route]  # all of them
    policy: list[PolicyRule]
    routed: bool  # whether the last three were read
    heard_of: int  # changes of routes before that moment


class GroupInKernel:
    """The kernel state of one group: carries out orders at once, and compares with the kernel when asked.

    Args:
        configuration: the first one; `configure` takes it and every later one.
        host: what all groups share.
        members: of all groups.
        sink: takes the name of the group and an event.
    """

    def __init__(
        self,
        configuration: NodeGroup,
        host: Host,
        members: Members,
        sink: Callable[[str, Event], None],
    ) -> None:
        self.name = configuration.group_name
        self._configuration = configuration
        self._host = host
        self._members = members
        self._tell = partial(sink, self.name)
        self.reconciler = GroupReconciler(self.name, self.reconcile)
        self._parts = Parts(self.name)
        self._looks = Parts(self.name)
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._moved_at = float("-inf")
        self._orders = 0  # that changed the kernel
        self._news = 0  # of what a comparison reads
        self._configured = False
        self._secure: Callable[[], Awaitable[bool]]
        self._keeping: asyncio.Task[None] | None = None
        self._kept: list[bytes] = []  # routes that the memory holds
        self._unkept = False  # whether it holds addresses that were given up
        self._untold: list[AddressAdopted] = []  # until the memory is safe
        self._data = GroupDataAddresses(self.name, host, members, self._tell_safely, self._addresses_changed)
        self._neighbourhood = Neighbourhood(self.name, host, self._data, self._tell, lambda: self.observing)
        self._tests = GroupTestAddresses(self.name, host, members, self._sink)
        self._departures = Departures()
        self._judging: asyncio.TimerHandle | None = None
        self._settings = InterfaceSettings(host.counters, host.guarded.take)
        self._surroundings = GroupSurroundings(self.name, members, self._data, self._tests)
        self._multicast = Multicast()
        self._fitness = Fitness(self.name, host, members, self._data, self._settings)
        self._outsiders = GroupOutsiders(self.name, host, members, self._surroundings)
        self._pinned = Pinned(host, members, self._surroundings)
        self._tunnels = GroupTunnels(host.tunnels, self._surroundings, self._data)
        self._pod_egress = PodEgress(self.name, host.nftables, self._surroundings, self.reconciler)
        self._table = RouteTable()
        self._routers = Routers(self.name, host, self._surroundings, self._ways_changed)
        self._twins = Twins(host, self._surroundings, self._sink, self._routers)
        self._unfollowed = Unfollowed(self._surroundings, host.devices)
        self._membership = Membership()
        self._administrative = GroupAdministrativeState()
        self._refresh = AnnouncementRefresh(self._data.announce_again)
        self._following: asyncio.Task[None] | None = None

    @property
    def observing(self) -> bool:
        """Whether the kernel is only looked at."""
        return self._configuration.policies.mode is Mode.OBSERVE

    # -- life --------------------------------------------------------------------------------------------------------

    async def configure(
        self,
        configuration: NodeGroup,
        memory: Mapping[str, Any] | None,
        secure: Callable[[], Awaitable[bool]],
        *,
        forgotten: bool = False,
    ) -> None:
        """Take a configuration; before this returns, everything that is present has been told.

        `memory` is what `memory.read` made of it; heeded the first time. `forgotten`: routes in it were unreadable.
        """
        self._secure = secure
        async with self._turn:
            self._configuration = configuration
            self._data.configure(configuration)
            self._pod_egress.configure(configuration.policies.pod_egress)
            self._administrative.configure(configuration)
            self._refresh.configure(configuration)
            if not self._configured and memory is not None:
                self._data.remember(memory["addresses"])
                self._settings.remember(memory["settings"])
                self._twins.remember(memory["routes"])
                self._membership.remember(memory["interfaceGroups"])
                self._administrative.remember(memory["administrativeState"])
                self._tunnels.remember(memory["tunnels"])
                self._outsiders.remember(memory["outsiders"])
            obsolete = self._tests.configure(configuration)
            if self.observing:
                await self._rest()
            else:
                self._host.send(obsolete)
            if not self.observing:
                with self._parts.part(ABANDONED):
                    await self._leave_abandoned()
                self._note()  # before another group lets go of what it guarded until now
            with self._parts.part(FITNESS):
                await self._fitness.look()
            found = await self._read()
            if found.installed is None:
                raise OSError(errno.EIO, "the addresses of the members cannot be read")
            self._tests.read(found.installed)
            self._data.find(found.installed)
            if found.routed:
                with self._parts.part(ROUTES):
                    self._twins.read(found.table, found.policy)
                    if not (self._configured or self.observing) and (memory is None or forgotten):
                        self._host.send(self._twins.rescue(found.table), expected=TRANSIENT)
                        self._twins.read(await self._routes(), found.policy)
            self._configured = True
            if not self.observing:
                # All that follows can be undone by another agent, should this one be killed.
                self._note()
                with self._parts.part(TUNNELS):
                    self._tunnels.note()
                await self._keep_memory()
        await self.reconcile()
        self._sink(KernelRead())

    def _note(self) -> bool:
        """Note what members are before anything of them is changed; returns whether any of it is new."""
        present = self._links()
        new = [each.note(present) for each in (self._settings, self._membership, self._administrative)]
        return any(new)

    async def _rest(self) -> None:
        """End what an agent that ends would end: the group may have managed until now."""
        self._routers.close()
        self._data.rest()
        self._tests.rest()
        self._multicast.close()
        await self._pod_egress.close()

    def memory(self) -> dict[str, Any]:
        """What a restarted agent must know of this group: JSON."""
        return {
            "version": MEMORY_VERSION,
            "members": [asdict(member.match) for member in self._members.of(self.name).values()],
            "addresses": self._data.memory(),
            "settings": self._settings.memory(),
            "interfaceGroups": self._membership.memory(),
            "administrativeState": self._administrative.memory(),
            "routes": self._twins.memory(),
            "tunnels": self._tunnels.memory(),
            "outsiders": self._outsiders.memory(),
        }

    def _sink(self, event: Event) -> None:
        self._neighbourhood.told(event)
        self._tell(event)

    def _tell_safely(self, event: Event) -> None:
        """Tell of an address that may be moved once it is known on disk how to put it back."""
        if isinstance(event, AddressAdopted) and not self.observing:
            self._untold.append(event)
        else:
            self._sink(event)

    async def _keep_memory(self) -> bool:
        """Have the memory written, and tell of what may be moved now; returns whether it is on disk."""
        untold, self._untold, self._unkept = self._untold, [], False
        kept = self._twins.at_stake()
        if not await self._secure():
            # Whoever cannot be put back is not taken care of yet.
            self._untold, self._unkept = untold + self._untold, True
            self._keep_memory_soon()
            return False
        self._kept = kept
        for event in untold:
            if self._data.adopts(event.address):
                self._sink(event)
        return True

    def _keep_memory_soon(self, *, changed: bool = False) -> None:
        self._unkept = self._unkept or changed
        if self._keeping is None and not self.observing and self._data.adoption.enabled:
            self._keeping = self._loop.create_task(self._keep_memory_while_it_changes())
            self._keeping.add_done_callback(self._kept_memory)

    async def _keep_memory_while_it_changes(self) -> None:
        pause = MEMORY_PAUSE
        while self._untold or self._unkept or self._kept != self._twins.at_stake():
            pause = MEMORY_PAUSE if await self._keep_memory() else min(2 * pause, MEMORY_PAUSE_MAXIMUM)
            await asyncio.sleep(pause)

    def _kept_memory(self, task: asyncio.Task[None]) -> None:
        self._keeping = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: what the host had could not be saved", self.name, exc_info=error)

    async def reconcile(self) -> int:
        """Compare with the kernel and send the smallest batch that makes it right; returns how many requests.

        What one part meets keeps no other from being done.
        """
        async with self._turn:
            if not self._configured:
                return 0
            repaired = await self._compare()
            wait = self._parts.round()
            if wait is not None:
                self.reconciler.later(wait)
            return repaired

    async def _compare(self) -> int:
        part = self._parts.part
        await self._look_for_changes()
        found = await self._read()
        orders = self._orders
        known = self._take(found)
        if self.observing:
            for member in self._leaving():
                if member.key not in self._settings.noted:  # it never managed it
                    self._let_go(member)
            self._pod_egress.observe()
            await self._look_around()
            return 0
        self._keep_memory_soon()
        requests, twins = self._differences(known)
        with part("requests"):
            self._host.send(requests, expected=TRANSIENT)
            refused = self._twins.refused
            up_to_date = await self._host.trickle(
                twins, lambda: self._orders == orders, expected=TRANSIENT, knows=self._twins.knows
            )
            if not up_to_date or self._twins.heard_of != found.heard_of:
                self.reconciler.soon()
            if self._twins.refused > refused:
                self.reconciler.later(RETRY)
        if self._twins.awaits:
            self.reconciler.later(OWNER_WAIT)
        with part("multicast"):
            self._follow_multicast()
        with part("neighbours"):
            await self._neighbourhood.read(self._surroundings.indexes())
        with part("former members"):
            await self._dismiss()
        repaired = 0
        with part("rules for pods"):
            repaired = await self._pod_egress.reconcile()
        await self._look_around()
        return len(requests) + len(twins) - self._twins.refused + repaired

    async def _look_for_changes(self) -> None:
        """Look at what decides over all else, and keep in mind what is to be changed."""
        part = self._parts.part
        if not self.observing:
            with part(ABANDONED):
                await self._leave_abandoned()
            with part(SETTINGS):
                if self._note():
                    await self._keep_memory()  # of members that came late
        with part(FITNESS):
            await self._fitness.look()
        with part(OUTSIDERS):
            await self._look_outside()

    def _take(self, found: Found) -> Found:
        """Take what the kernel has as the truth; returns what of it could be taken."""
        installed, routed = found.installed, found.routed
        with self._parts.part(ADDRESSES) as addresses_read:
            if installed is not None:
                self._tests.read(installed)
                self._data.find(installed)
        with self._parts.part(ROUTES) as routes_read:
            if routed:
                self._twins.read(found.table, found.policy)
                self._unfollowed.read(found.table, self._table.particular, found.policy)
        return found._replace(installed=installed if addresses_read.done else None, routed=routed and routes_read.done)

    def _differences(self, known: Found) -> tuple[list[bytes], list[bytes]]:
        """Requests that make the kernel what it is to be: those of the routes apart, for they may be very many."""
        part = self._parts.part
        requests: list[bytes] = []
        with part(SETTINGS):
            requests += self._settings.differences(self._links())
        with part(OUTSIDERS):
            requests += self._outsiders.differences()
        with part("interface groups"):
            requests += self._membership.differences(self._links())
        with part("administrative state"):
            requests += self._administrative.differences(self._links())
        if known.installed is not None:
            with part(TEST_ADDRESSES):
                requests += self._tests.differences()
            with part(DATA_ADDRESSES):
                self._notice_missing(known.installed)
                requests += self._data.differences(known.installed)
        with part(TUNNELS):
            requests += self._tunnels_differences()
        twins: list[bytes] = []
        if known.routed:
            with part(ROUTES):
                members = self._surroundings.indexes()
                before, after = self._twins.differences(known.table, known.nexthops, members)
                tables = others_in_use(known.table, members) | self._twins.tables()
                twins = before + self._policy(known.policy, tables) + after
        return requests, twins

    async def _look_around(self) -> None:
        """Look for what on this host stands in the group's way."""
        with self._parts.part("masquerading"):
            await self._host.masquerades.refresh()
        with self._parts.part("what hangs on members"):
            await self._pinned.refresh()

    async def _look_outside(self) -> None:
        """Look for interfaces on the members' link that are no members, and keep what they have before it changes."""
        try:
            await self._host.addresses.refresh()
        except OSError as error:
            log.warning("%s: the addresses of other interfaces are those of the last look: %s", self.name, error)
        if self._outsiders.look() and not self.observing:
            self._outsiders.note()
            await self._keep_memory()

    async def withdraw(self, *, restore: bool = False) -> None:
        """Take out of the kernel what this agent put there, and put back what it moved.

        Args:
            restore: whatever the deletion policy says.
        """
        policies = self._configuration.policies
        restoring = restore or policies.deletion_policy is DeletionPolicy.RESTORE
        if restoring and self.observing and self._settings.noted:
            # It managed before, and only a comparison tells what has become of that.
            self._configuration = self._configuration.in_mode(Mode.MANAGE)
            await self.reconcile()
        await self._close()
        async with self._turn:
            self._data.close()
            self._multicast.close()
            if self.observing or not restoring:
                return
            await self._leave_abandoned()
            await self._pod_egress.withdraw()
            policy = await self._host.rules()
            self._twins.read(await self._routes(), policy)
            self._host.send(self._data.withdraw(await self._installed()), expected=TRANSIENT)
            self._twins.endanger(*self._data.origins())
            table, members = await self._routes(), self._surroundings.indexes()
            self._twins.read(table, policy)
            requests = self._twins.restore(self._data.refuges())
            requests += self._policy(policy, others_in_use(table, members))
            requests += self._twins.withdraw(table, await self._nexthops(), members)
            installed = await self._installed()
            requests += self._tests.withdraw(installed)
            requests += self._membership.restore(self._links())
            requests += self._settings.restore(self._links())
            requests += self._outsiders.restore() + self._tunnels.withdraw()
            requests += self._administrative.restore(self._links(), _in_use(installed.values()))
            self._host.send(requests, expected=TRANSIENT)
            for member in self._leaving():
                await self._put_back(member)
            self._host.send(self._twins.settle(await self._routes()), expected=TRANSIENT)

    async def _close(self) -> None:
        self._routers.close()
        if self._judging is not None:
            self._judging.cancel()
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        self._refresh.close()
        await self.reconciler.close()
        await self._pod_egress.close()

    async def close(self) -> None:
        """Stop what is under way; the kernel stays as it is."""
        await self._close()
        self._neighbourhood.close()
        self._data.close()
        self._multicast.close()

    def _leaving(self) -> list[HostMember]:
        """The former members, once the configuration without them is taken: until then nobody knows their heirs."""
        wanted = {member.key for member in self._configuration.members}
        return [m for m in self._members.of(self.name).values() if m.leaving and m.key not in wanted]

    async def _dismiss(self) -> None:
        """Let former members go, once the core has emptied them and nothing leaves by them."""
        for member in self._leaving():
            in_use = member.index is not None and self._twins.uses(member.index)
            if in_use or member.key in self._data.placement.values():
                continue
            await self._put_back(member)
            if member.leaving:
                self._let_go(member)
                self.reconciler.soon()

    def _let_go(self, member: HostMember) -> None:
        self._members.release(member)
        self.drop_port(member.key)

    async def _put_back(self, member: HostMember) -> None:
        """Make the interface of a former member what it was, unless it is wanted again; a gone one may have an heir."""
        heir = self._data.heirs.pop(member.key, None)
        if member.index is None and heir is not None:
            self._twins.inherit(member.key, heir)
        found = await self._host.addresses_of(member.index) if member.index is not None else []
        if member.index is not None and member.leaving:
            requests = [addresses.delete(each.index, each.address) for each in found if each.owned]
            requests += self._twins.leave(member.key, member.index)
            requests += self._membership.restore({member.key: self._link(member)})
            requests += self._settings.restore({member.key: self._link(member)})
            requests += self._administrative.restore({member.key: self._link(member)}, _in_use([found]))
            self._host.send(requests, expected=TRANSIENT)

    # -- what the kernel has -----------------------------------------------------------------------------------------

    async def _read(self) -> Found:
        """Read everything, again if an order or news makes what was read first untrue."""
        for reading in itertools.count(1):
            orders, news, heard_of = self._orders, self._news, self._twins.heard_of
            installed: dict[str, list[InstalledAddress]] | None = None
            with self._parts.part(ADDRESSES):
                installed = await self._installed()
            found = Found(installed, [], [], [], routed=False, heard_of=heard_of)
            with self._parts.part(ROUTES):
                found = Found(
                    installed,
                    await self._nexthops(),
                    await self._routes(),
                    await self._host.rules(),
                    routed=True,
                    heard_of=heard_of,
                )
            if orders == self._orders and (news == self._news or reading >= READINGS):
                break
        return found

    async def _installed(self) -> dict[str, list[InstalledAddress]]:
        """The addresses of every member that is present, by key."""
        present = {m.key: m.index for m in self._members.of(self.name).values() if m.index is not None}
        return {key: await self._host.addresses_of(index) for key, index in present.items()}

    async def _routes(self) -> list[Route]:
        return await self._host.routes(self._table)

    def _policy(self, found: list[PolicyRule], tables: dict[int, int]) -> list[bytes]:
        """Requests that lay the rules that lead to these tables of twins, by those of the host, and no others."""
        deleted, self._host.deleted_rules = self._host.deleted_rules, set()
        if deleted:
            self.reconciler.soon()  # what the rules of the host lead to may be less now
        return [
            request
            for family in (socket.AF_INET, socket.AF_INET6)
            for request in rules.differences([rule for rule in found if rule.family == family], tables, deleted)
        ]

    async def _nexthops(self) -> list[Nexthop]:
        bodies = await self._host.dumper.dump(netlink.RTM_GETNEXTHOP, routes.get_nexthops_request())
        found = [routes.decode_nexthop(body) for body in bodies]
        self._host.identifiers.note(found)
        return found

    def _links(self) -> dict[str, Link]:
        """Every member that is present and stays, as the kernel describes it now."""
        present = [m for m in self._members.of(self.name).values() if m.index is not None and not m.leaving]
        return {member.key: self._link(member) for member in present}

    def _link(self, member: HostMember) -> Link:
        if member.link is None:
            raise ValueError(f"{member.key} is not present")
        return self._host.link(member.link.index) or member.link

    # -- what happens ------------------------------------------------------------------------------------------------

    def member_changed(self, member: HostMember) -> None:
        """Give a member that is present a port to its link, and take it from one that is not."""
        self._news += 1
        self._retry_refused_soon()
        port = self._host.ports.get((self.name, member.key))
        if port is not None and member.index is not None and member.link is not None:
            before = (port.link.index, port.link.name, port.link.mac)
            if before == (member.link.index, member.link.name, member.link.mac):
                port.link = member.link
                return
        if member.index is None:
            self._abandoned(member.key)
        self.drop_port(member.key)
        if member.index is None:
            return
        try:
            self._host.ports[self.name, member.key] = Port(
                member, self._from_link, self._neighbourhood.claimed, self._neighbourhood.renew, self._host
            )
        except OSError as error:
            # It vanished or was renamed again between the message and now: the next message tells.
            log.warning("%s: no access to its link: %s", member.key, error)
            return
        self._neighbourhood.listen()
        self._tests.regained(member.key)
        if not self.observing:
            self._data.check_again(member.key)
            # Neighbours know these addresses by another MAC address.
            self._data.announce(member.key, [a for a, key in self._data.placement.items() if key == member.key])

    def _from_link(self, event: Event) -> None:
        """A member was answered, or could not ask."""
        if isinstance(event, ProbeAnswered) and self._surroundings.answered(
            event.interface, asyncio.get_running_loop().time()
        ):
            self._follow_multicast()
        self._tell(event)

    def _abandoned(self, key: str) -> None:
        if not self.observing and self._fitness.let_go(key):
            self.reconciler.soon()

    async def _leave_abandoned(self) -> None:
        """Make interfaces that were members, are there and are none any more, what they were before."""
        for key, link, requests in await self._fitness.leave():
            rest = self._membership.restore({key: link}) + self._twins.leave(key, link.index)
            self._host.send(requests + rest, expected=TRANSIENT)
            self._keep_memory_soon(changed=True)

    def drop_port(self, key: str) -> None:
        """Close the sockets of a member."""
        self._tests.lost(key)
        port = self._host.ports.pop((self.name, key), None)
        if port is not None:
            self._host.announcer.leave(port.wire)
            port.close()

    def link_changed(self, member: HostMember) -> None:
        """Take note that a carrier went or came."""
        self._news += 1
        self._retry_refused_soon()
        self._surroundings.link_changed(member.key, up=member.up is not False)
        if member.up is False and member.link is not None:
            self._twins.link_lost(member.link.index)
            link = self._host.link(member.link.index) or member.link
            if not self.observing and self._administrative.wants(member.key, link):
                self.reconciler.soon()

    def route_changed(self, kind: int, flags: int, route: Route, *, by_somebody: bool) -> bool:
        """A route came or went, by somebody or by the kernel itself; returns whether ours are not as they should be."""
        if self.observing:
            return False
        self._news += 1
        changed, unclear = self._twins.heard(kind, flags, route, by_somebody=by_somebody)
        if not route.owned:
            self._keep_memory_soon()
        if unclear:
            self.reconciler.heard()
        return changed

    def address_changed(self, kind: int, each: InstalledAddress, member: HostMember) -> bool:
        """An address of a member came or went; returns whether the kernel is not as it should be."""
        self._news += 1
        stood = self._tests.standing(member.key)
        missing = self._tests.heard(kind, each, member.key)
        taken = self._data.heard(kind, each, member)
        missing = taken or missing
        if kind == netlink.RTM_NEWADDR:
            self._departures.returned(each.address.ip)
            if each.address.ip.is_link_local:  # with it IPv6 works on an interface
                self._retry_refused_soon()
        elif not self.observing:
            self._departed(member.key, each.address.ip, stood, ours=missing)
        if taken and kind == netlink.RTM_DELADDR:
            # It is put back, and the routes that went with it.
            self._twins.endanger({member.key}, {each.address.ip})
        if not self._data.is_data(each.address.ip):
            # A member carries outbound traffic only while it has an address, and may have lost routes with it.
            self.reconciler.heard()
        if missing and kind == netlink.RTM_DELADDR and member.carrier is not None and not member.carrier.ask():
            # An interface that goes down, or away, loses addresses by the kernel's own hand.
            self.reconciler.soon()
            return False
        return missing

    # -- whose address it is -----------------------------------------------------------------------------------------

    def _departed(self, key: str, address: Address, stood: set[Address], *, ours: bool) -> None:
        """Somebody took an address off a member, perhaps we: what is not to be there any more is none's loss."""
        if self._data.is_data(address) and not self._data.is_wanted(key, address):
            return
        adopted = self._data.is_adopted(address)
        if adopted:
            self._twins.endanger({key}, {address})
        ours = ours or address.is_link_local
        self._departures.deleted(key, address, stood, self._loop.time(), ours=ours, adopted=adopted)
        self._judge()

    def _notice_missing(self, installed: Mapping[str, list[InstalledAddress]]) -> None:
        """Have those judged that are gone though nobody told."""
        for key, address in self._data.unexplained(installed):
            if address not in self._data.doubted:
                stood = {each.address.ip for each in installed[key] if each.scope == netlink.RT_SCOPE_UNIVERSE}
                self._departed(key, address, {address, *stood}, ours=False)

    def _judge(self) -> None:
        """Put back what was swept away, and give up what its owner took."""
        for verdict in self._departures.judge(self._loop.time()):
            gone = [each for each in verdict.addresses if self._data.is_wanted(verdict.member, each)]
            if verdict.swept or not self._works(verdict.member):
                for address in gone:
                    self._data.swept(address)
                works = self._works(verdict.member)
                (self.reconciler.changed if works else self.reconciler.soon)()
                continue
            for address in gone:
                log.info("%s: %s was taken off %s by its owner", self.name, address, verdict.member)
                self._data.give_up(address)
                self._twins.disown(verdict.member, address)
            self._keep_memory_soon(changed=True)
            self.reconciler.soon()
        self._data.doubted = self._departures.waiting
        self._twins.wait_for_verdict(self._departures.members)
        if self._judging is not None:
            self._judging.cancel()
        due = self._departures.due
        self._judging = self._loop.call_at(due, self._judge) if due is not None else None

    def _works(self, key: str) -> bool:
        """Whether a member is there and has its link: if not, the kernel takes addresses along."""
        member = self._members.of(self.name).get(key)
        if member is None or member.index is None or member.carrier is None:
            return False
        link = self._host.link(member.index)
        return link is not None and link.carrier and not member.carrier.is_lost()

    @property
    def has_just_moved(self) -> bool:
        """Whether what is told of addresses may be of a move: of IPv6 ones the kernel does not say who asked."""
        return self._loop.time() - self._moved_at < ECHO

    def address_changed_elsewhere(self) -> None:
        """An address of an interface that is no member came or went: the kernel may take now what it refused."""
        if self._twins.refused:
            self.reconciler.heard()

    def _retry_refused_soon(self) -> None:
        self._loop.call_soon(self._data.retry_refused)  # when what changed has been told

    def _addresses_changed(self, left: set[str], addresses: set[Address]) -> None:
        self._twins.endanger(left, addresses)
        if left or addresses:
            self.reconciler.soon()
        else:
            self.reconciler.heard()

    # -- orders ------------------------------------------------------------------------------------------------------

    def perform(self, order: Order) -> None:
        """Carry out one order of the core, now; in mode Observe probes only."""
        if isinstance(order, SendProbe):
            self._probe(order)
        elif self.observing:
            return
        elif isinstance(order, MoveAddresses):
            self._orders += 1
            self._moved_at = self._loop.time()
            self._data.move(order.moves)
            with self._parts.part(TUNNELS):
                self._host.send(self._tunnels_differences(), expected=TRANSIENT)
        elif isinstance(order, Announce):
            self._data.announce(order.interface, order.addresses)
        elif isinstance(order, SetOutbound):
            self._orders += 1
            self._surroundings.outbound = {4: order.ipv4, 6: order.ipv6}
            self._ways_changed()
        elif isinstance(order, SetNominee):
            self._surroundings.nominees = {4: order.ipv4, 6: order.ipv6}
            self._surroundings.receiving = order.receiving
            self._follow_multicast()
        else:
            assert_never(order)

    def _ways_changed(self) -> None:
        """Other members carry, or other routers answer: twins have other ways."""
        refused, later = self._twins.set_outbound()
        if later:
            self._follow_with(later)
        if refused or self._leaving():
            self.reconciler.soon()

    def _follow_with(self, later: list[tuple[int, Prefix]]) -> None:
        """Lay very many twins anew, and let the loop do other things in between."""
        if self._following is not None:
            self._following.cancel()
        self._following = asyncio.get_running_loop().create_task(self._lay_later(later))

    async def _lay_later(self, later: list[tuple[int, Prefix]]) -> None:
        for start in range(0, len(later), TRICKLE):
            self._twins.send(self._twins.requests(later[start : start + TRICKLE]))
            await asyncio.sleep(0)

    def _follow_multicast(self) -> None:
        if self.observing:
            return
        around, now = self._surroundings, asyncio.get_running_loop().time()
        for version, key in around.nominees.items():
            nominee = around.member(key) if key is not None else None
            index = nominee.index if nominee is not None else None
            self._multicast.follow(version, index, around.deaf(now))

    def _tunnels_differences(self) -> list[bytes]:
        """Requests for the tunnels; those of a group that follows no more are put back."""
        following = self._configuration.policies.tunnels is Tunnels.FOLLOW
        return self._tunnels.differences() if following else self._tunnels.withdraw()

    def _probe(self, order: SendProbe) -> None:
        port = self._host.ports.get((self.name, order.interface))
        if port is None:
            self._sink(ProbeNotSent(order.interface, order.family, order.sequence, errno.ENODEV))
        else:
            port.sender.send(order)

    def ways(self, target: Address) -> dict[int, str]:
        """Names of the members that IPv4 packets to somebody on the link may leave by, by index; empty where one does.

        Which leg of a nexthop group takes an IPv6 packet nobody can choose: the kernel heeds no interface there.
        """
        if (
            self.observing
            or target.version == 6
            or not any(target in prefix for prefix in self._surroundings.prefixes())
        ):
            return {}
        carriers = set(self._surroundings.carriers(target.version))
        found = {index: name for name, index in self._surroundings.by_name().items() if index in carriers}
        return found if len(found) > 1 else {}

    @property
    def not_adopted(self) -> tuple[NotAdopted, ...]:
        """The addresses that the host has on the members and that are left alone."""
        return self._data.adoption.left_alone

    @property
    def arriving(self) -> tuple[InterfaceAddress, ...]:
        """The data addresses that have a place and are not in the kernel yet."""
        return () if self.observing else self._data.arriving

    # -- findings ----------------------------------------------------------------------------------------------------

    def findings(self) -> list[Finding]:
        """What stands against this group on this host; what cannot be looked at is among it."""
        found: list[Finding] = []
        for name, look in self._to_look_at():
            with self._looks.part(name):
                found += look()
        self._looks.round()
        return [*found, *self._parts.findings(), *self._looks.findings(), *self.reconciler.findings()]

    def _to_look_at(self) -> Iterator[tuple[str, Callable[[], Iterable[Finding]]]]:
        yield SETTINGS, settings.overridden
        yield "spreading of flows", self._spreading
        if self._configuration.policies.tunnels is Tunnels.FOLLOW:
            yield TUNNELS, self._tunnels.findings
        yield "masquerading", self._masquerading
        yield "what hangs on members", self._pinned.findings
        yield OUTSIDERS, lambda: self._outsiders.findings(observing=self.observing)
        yield "neighbours", self._neighbourhood.findings
        if not self.observing:
            yield ROUTES, self._twins.findings
            yield "routes that cannot follow", self._unfollowed.findings
            yield "interface groups", lambda: self._membership.findings(self._links())
        yield FITNESS, self._fitness.findings
        yield DATA_ADDRESSES, lambda: self._data.adoption.findings
        yield "rules for pods", self._pod_egress.findings

    def _spreading(self) -> Iterator[Finding]:
        for version, carriers in self._surroundings.outbound.items():
            if len(carriers) > 1 and settings.flows_of_two_hosts_stay_together(version):
                message = (
                    f"net.ipv{version}.fib_multipath_hash_policy is 0: all IPv{version} flows between this host and"
                    " another one leave by one member. Set it to 1 to spread them, or spec.outboundSpreading to"
                    " Disabled."
                )
                yield Finding(Reason.MULTIPATH_HASH_POLICY, message)

    def _masquerading(self) -> list[Finding]:
        # Who names the networks of pods says by that of which families they are.
        pods = {int(network.version) for network in self._configuration.policies.pod_egress}
        versions = pods or set(self._surroundings.sources()[1])
        covered = self._pod_egress.covered(observing=self.observing)
        return self._host.masquerades.findings(self._surroundings.names(), covered, versions)


def _in_use(found: Iterable[Iterable[InstalledAddress]]) -> set[int]:
    """Interfaces (by index) on which somebody else than this agent has laid an address."""
    return {
        each.index
        for some in found
        for each in some
        if not each.owned and not each.borrowed and each.scope == netlink.RT_SCOPE_UNIVERSE
    }
