"""One group in the kernel: its addresses and settings, as they are to be and as they are."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import socket
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, assert_never

from ipmp_agent.core.actions import Announce, MoveAddresses, SendProbe, SetNominee, SetOutbound
from ipmp_agent.core.events import KernelRead, ProbeAnswered, ProbeNotSent
from ipmp_agent.linux.group.address_owners import AddressOwners
from ipmp_agent.linux.group.features import (
    DATA_ADDRESSES,
    FITNESS,
    FULL_FRAMES,
    OUTSIDERS,
    SETTINGS,
    TEST_ADDRESSES,
    TUNNELS,
    Features,
    Listeners,
)
from ipmp_agent.linux.group.foreign_routes import OWNER_WAIT
from ipmp_agent.linux.group.former_members import FormerMembers, in_use
from ipmp_agent.linux.group.memory import VERSION as MEMORY_VERSION
from ipmp_agent.linux.group.memory_keeper import MemoryKeeper
from ipmp_agent.linux.group.parts import Parts
from ipmp_agent.linux.group.ports import GroupPorts
from ipmp_agent.linux.group.reading import ADDRESSES, ROUTES, GroupReading
from ipmp_agent.linux.group.reconcile import RETRY, GroupReconciler
from ipmp_agent.linux.group.settled import Settled
from ipmp_agent.linux.group.twins import TRANSIENT, others_in_use
from ipmp_agent.linux.messages import netlink, rules
from ipmp_agent.linux.shared.slices import in_slices
from ipmp_api.types import DeletionPolicy, Mode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ipmp_agent.core.actions import Order
    from ipmp_agent.core.events import Event
    from ipmp_agent.core.findings import Finding, NotAdopted
    from ipmp_agent.linux.group.reading import Found
    from ipmp_agent.linux.messages.addresses import InstalledAddress
    from ipmp_agent.linux.messages.routes import Route
    from ipmp_agent.linux.messages.rules import PolicyRule
    from ipmp_agent.linux.shared.host import Host
    from ipmp_agent.linux.shared.members import HostMember, Members
    from ipmp_api.types import Address, InterfaceAddress, NodeGroup

log = logging.getLogger(__name__)


ABANDONED = "interfaces that were members"
"""A part of a comparison, as people are told it."""

ECHO = 0.1
"""Seconds in which the notifications of a move of ours are heard."""


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
        self._configured = False
        self._memory = MemoryKeeper(self.name, self._sink, lambda: self.observing)
        self._features = Features(
            self.name,
            host,
            members,
            self.reconciler,
            Listeners(self._sink, self._tell, self._memory.tell, self._addresses_changed, self._ways_changed),
            lambda: self.observing,
        )
        data, twins = self._features.data, self._features.twins
        self._memory.of(data, twins)
        self._ports = GroupPorts(self.name, host, self._features.neighbourhood, self._from_link)
        self._reading = GroupReading(self.name, host, members, self._parts, lambda: twins.heard_of)
        gave_up = partial(self._memory.keep_soon, changed=True)
        self._owners = AddressOwners(self.name, host, members, data, twins, self.reconciler, gave_up)
        self._settled = Settled()
        self._former = FormerMembers(host, members, self._features)

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
        features, self._memory.secure = self._features, secure
        async with self._turn:
            self._configuration = configuration
            obsolete = features.configure(configuration)
            self._former.configure(configuration)
            if not self._configured and memory is not None:
                features.remember(memory)
            if self.observing:
                await features.rest()
            else:
                self._host.send(obsolete)
            if not self.observing:
                with self._parts.part(ABANDONED):
                    await self._leave_abandoned()
                features.note()  # before another group lets go of what it guarded until now
            with self._parts.part(FITNESS):
                await features.fitness.look()
            found = await self._reading.everything()
            if found.installed is None:
                raise OSError(errno.EIO, "the addresses of the members cannot be read")
            features.tests.read(found.installed)
            features.data.find(found.installed)
            if found.routed:
                with self._parts.part(ROUTES):
                    await in_slices(features.twins.read(found.table, found.policy))
                    if not (self._configured or self.observing) and (memory is None or forgotten):
                        rescued = await in_slices(features.twins.rescue(found.table))
                        if rescued:
                            self._host.send(rescued, expected=TRANSIENT)
                            await in_slices(features.twins.read(await self._reading.routes(), found.policy))
            self._configured = True
            if not self.observing:
                # All that follows can be undone by another agent, should this one be killed.
                features.note()
                with self._parts.part(TUNNELS):
                    features.tunnels.note()
                await self._memory.keep()
        await self.reconcile()
        self._sink(KernelRead())

    def memory(self) -> dict[str, Any]:
        """What a restarted agent must know of this group: JSON."""
        return {
            "version": MEMORY_VERSION,
            "members": [asdict(member.match) for member in self._members.of(self.name).values()],
            **self._features.memory(),
        }

    def _sink(self, event: Event) -> None:
        self._features.neighbourhood.told(event)
        self._tell(event)

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
        features, part = self._features, self._parts.part
        await self._look_for_changes()
        found = await self._reading.everything()
        orders = self._reading.orders
        installed = self._take_addresses(found)
        requests = [] if self.observing else self._differences(installed)
        version = self._version()
        as_before = not requests and features.twins.is_settled and self._settled.is_as_before(found, version)
        routed = not as_before and await self._take_routes(found)
        if self.observing:
            for member in self._former.leaving():
                if member.key not in features.settings.noted:  # it never managed it
                    self._let_go(member)
            features.pod_egress.observe()
            await self._look_around()
            return 0
        self._memory.keep_soon()
        refused, sent = features.twins.refused, len(requests)
        with part("requests"):
            if self._reading.orders == orders:
                self._host.send(requests, expected=TRANSIENT)
                taken_off, addresses = features.data.taken_off()
                if taken_off:  # and routes with it, which is not told
                    features.twins.endanger(taken_off, addresses)
                    self.reconciler.soon()
        with part(ROUTES):
            if routed:
                sent += await self._compare_routes(found)
                self._settled.note(found, version, settled=sent == 0 and version == self._version())
        if self._reading.orders != orders or features.twins.heard_of != found.heard_of:
            self.reconciler.soon()
        if features.twins.refused > refused:
            self.reconciler.later(RETRY)
        if features.twins.awaits:
            self.reconciler.later(OWNER_WAIT)
        with part("multicast"):
            self._follow_multicast()
        with part("neighbours"):
            await features.neighbourhood.read(features.surroundings.indexes())
        with part("former members"):
            await self._dismiss()
        repaired = 0
        with part("rules for pods"):
            repaired = await features.pod_egress.reconcile()
        await self._look_around()
        return sent - features.twins.refused + repaired

    def _version(self) -> tuple[Any, ...]:
        """What changes with everything that twins depend on and the kernel's tables do not show."""
        members = frozenset((each.group, each.key, each.index, each.leaving) for each in self._members)
        deleted = bool(self._host.deleted_rules)
        reading = self._reading
        failed = frozenset(self._members.failed)
        return reading.orders, reading.news, reading.particular, id(self._configuration), members, deleted, failed

    async def _look_for_changes(self) -> None:
        """Look at what decides over all else, and keep in mind what is to be changed."""
        part = self._parts.part
        if not self.observing:
            with part(ABANDONED):
                await self._leave_abandoned()
            with part(SETTINGS):
                if self._features.note():
                    await self._memory.keep()  # of members that came late
        with part(FITNESS):
            await self._features.fitness.look()
        with part(OUTSIDERS):
            await self._look_outside()

    def _take_addresses(self, found: Found) -> dict[str, list[InstalledAddress]] | None:
        """Take the addresses that the kernel has as the truth; returns them, if they could be taken."""
        with self._parts.part(ADDRESSES) as taken:
            if found.installed is not None:
                self._features.tests.read(found.installed)
                if self.observing:
                    self._features.data.follow(found.installed)
                self._features.data.find(found.installed)
        return found.installed if taken.done else None

    async def _take_routes(self, found: Found) -> bool:
        """Take the routes that the kernel has as the truth; returns whether they could be taken."""
        with self._parts.part(ROUTES) as taken:
            if found.routed:
                await in_slices(self._features.twins.read(found.table, found.policy))
                self._features.unfollowed.read(found.table, self._reading.particular, found.policy)
        return found.routed and taken.done

    def _differences(self, installed: dict[str, list[InstalledAddress]] | None) -> list[bytes]:
        """Requests that make all but routes in the kernel what it is to be: those may be very many."""
        features, part = self._features, self._parts.part
        requests: list[bytes] = []
        with part(SETTINGS):
            requests += features.settings.differences(features.links())
        with part(OUTSIDERS):
            requests += features.outsiders.differences()
        with part("interface groups"):
            requests += features.membership.differences(features.links())
        with part("administrative state"):
            requests += features.administrative.differences(features.links())
        if installed is not None:
            with part(TEST_ADDRESSES):
                requests += features.tests.differences()
            with part(DATA_ADDRESSES):
                self._owners.notice_missing(installed)
                requests += features.data.differences(installed)
        with part(TUNNELS):
            requests += features.tunnels.differences()
        return requests

    async def _compare_routes(self, found: Found) -> int:
        """Make twins and the rules that lead to them what they are to be; returns how many requests that took."""
        twins, members = self._features.twins, self._features.surroundings.indexes()

        def lay_rules(tables: dict[int, int]) -> int:
            requests = self._policy(found.policy, tables)
            self._host.send(requests, expected=TRANSIENT)
            return len(requests)

        return await in_slices(twins.compare(found.table, found.nexthops, members, lay_rules))

    async def _look_around(self) -> None:
        """Look for what on this host stands in the group's way."""
        with self._parts.part("masquerading"):
            await self._host.masquerades.refresh()
        with self._parts.part("what hangs on members"):
            await self._features.pinned.refresh()
        with self._parts.part(FULL_FRAMES):
            self._features.full_frames.look()

    async def _look_outside(self) -> None:
        """Look for interfaces on the members' link that are no members, and keep what they have before it changes."""
        try:
            await self._host.addresses.refresh()
        except OSError as error:
            log.warning("%s: the addresses of other interfaces are those of the last look: %s", self.name, error)
        if self._features.outsiders.look() and not self.observing:
            self._features.outsiders.note()
            await self._memory.keep()

    async def withdraw(self, *, restore: bool = False) -> None:
        """Take out of the kernel what this agent put there, and put back what it moved.

        Args:
            restore: whatever the deletion policy says.
        """
        features, policies = self._features, self._configuration.policies
        restoring = restore or policies.deletion_policy is DeletionPolicy.RESTORE
        if restoring and self.observing and features.settings.noted:
            # It managed before, and only a comparison tells what has become of that.
            self._configuration = self._configuration.in_mode(Mode.MANAGE)
            await self.reconcile()
        await self._close()
        async with self._turn:
            features.data.close()
            features.multicast.close()
            if self.observing or not restoring:
                return
            await self._leave_abandoned()
            await features.pod_egress.withdraw()
            policy = await self._host.rules()
            await in_slices(features.twins.read(await self._reading.routes(), policy))
            self._host.send(features.data.withdraw(await self._reading.installed()), expected=TRANSIENT)
            features.twins.endanger(*features.data.origins())
            table, members = await self._reading.routes(), features.surroundings.indexes()
            await in_slices(features.twins.read(table, policy))
            requests = features.twins.restore(features.data.refuges())
            requests += self._policy(policy, others_in_use(table, members))
            requests += features.twins.withdraw(table, await self._reading.nexthops(), members)
            installed = await self._reading.installed()
            requests += features.tests.withdraw(installed)
            requests += features.membership.restore(features.links())
            requests += features.settings.restore(features.links())
            requests += features.outsiders.restore() + features.tunnels.withdraw()
            requests += features.administrative.restore(features.links(), in_use(installed.values()))
            await self._host.trickle(requests, expected=TRANSIENT)
            for member in self._former.leaving():
                await self._former.put_back(member)
            await in_slices(features.twins.read(await self._reading.routes(), policy))
            await self._host.trickle(features.twins.settle(), expected=TRANSIENT)

    async def _close(self) -> None:
        self._host.guarded.of_members.pop(self.name, None)
        self._features.routers.close()
        self._owners.close()
        await self._memory.close()
        await self._features.twins.close()
        self._features.refresh.close()
        await self.reconciler.close()
        await self._features.pod_egress.close()

    async def close(self) -> None:
        """Stop what is under way; the kernel stays as it is."""
        await self._close()
        self._features.neighbourhood.close()
        self._features.data.close()
        self._features.multicast.close()
        self._features.full_frames.close()

    async def _dismiss(self) -> None:
        """Let former members go, once the core has emptied them and nothing leaves by them."""
        async for member in self._former.dismiss():
            self._let_go(member)
            self.reconciler.soon()

    def _let_go(self, member: HostMember) -> None:
        self._members.release(member)
        self.drop_port(member.key)

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

    # -- what happens ------------------------------------------------------------------------------------------------

    def member_changed(self, member: HostMember) -> None:
        """Give a member that is present a port to its link, and take it from one that is not."""
        self._reading.news += 1
        self._retry_refused_soon()
        if self._ports.keep(member):
            return
        if member.index is None:
            self._abandoned(member.key)
            if member.leaving and not self.observing:
                self._former.gather(member)
                self.reconciler.soon()
        self.drop_port(member.key)
        if member.index is None or not self._ports.open(member):
            return
        self._features.tests.regained(member.key)
        if not self.observing:
            data = self._features.data
            data.check_again(member.key)
            # Neighbours know these addresses by another MAC address.
            data.announce(member.key, [a for a, key in data.placement.items() if key == member.key])

    def _from_link(self, event: Event) -> None:
        """A member was answered, or could not ask."""
        if isinstance(event, ProbeAnswered):
            first = self._features.surroundings.answered(event.interface, self._loop.time())
            if first:
                self._follow_multicast()
        self._tell(event)

    def _abandoned(self, key: str) -> None:
        if not self.observing and self._features.fitness.let_go(key):
            self.reconciler.soon()

    async def _leave_abandoned(self) -> None:
        """Make interfaces that were members, are there and are none any more, what they were before."""
        for key, link, requests in await self._features.fitness.leave():
            rest = self._features.membership.restore({key: link}) + self._features.twins.leave(key, link.index)
            self._host.send(requests + rest, expected=TRANSIENT)
            self._memory.keep_soon(changed=True)

    def drop_port(self, key: str) -> None:
        """Close the sockets of a member."""
        self._features.tests.lost(key)
        self._ports.drop(key)

    def link_changed(self, member: HostMember) -> None:
        """Take note that a carrier went or came."""
        self._reading.news += 1
        self._retry_refused_soon()
        self._features.surroundings.link_changed(member.key, up=member.up is not False)
        if member.up is False and member.link is not None:
            self._features.twins.link_lost(member.link.index)
            link = self._host.link(member.link.index) or member.link
            if not self.observing and self._features.administrative.wants(member.key, link):
                self.reconciler.soon()

    def route_changed(self, kind: int, flags: int, route: Route, *, by_somebody: bool) -> bool:
        """A route came or went, by somebody or by the kernel itself; returns whether ours are not as they should be."""
        if self.observing:
            return False
        self._reading.news += 1
        changed, unclear = self._features.twins.heard(kind, flags, route, by_somebody=by_somebody)
        if not route.owned:
            self._memory.keep_soon()
        if unclear:
            self.reconciler.heard()
        return changed

    def address_changed(self, kind: int, each: InstalledAddress, member: HostMember) -> bool:
        """An address of a member came or went; returns whether the kernel is not as it should be."""
        self._reading.news += 1
        stood = self._features.tests.stands(member.key, each.address.ip)
        missing = self._features.tests.heard(kind, each, member.key)
        taken = self._features.data.heard(kind, each, member)
        missing = taken or missing
        if kind == netlink.RTM_NEWADDR:
            self._owners.returned(each.address.ip)
            if each.address.ip.is_link_local:  # with it IPv6 works on an interface
                self._retry_refused_soon()
        elif self.observing:
            self.reconciler.heard()
        else:
            standing = self._features.tests.standing(member.key)  # not looked through but at the first of many
            before = itertools.chain((each.address.ip,), standing) if stood else standing
            self._owners.departed(member.key, each.address, before, ours=missing)
        if taken and kind == netlink.RTM_DELADDR:
            # It is put back, and the routes that went with it.
            self._features.twins.endanger({member.key}, {each.address.ip})
        if not self._features.data.is_data(each.address.ip):
            # A member carries outbound traffic only while it has an address, and may have lost routes with it.
            self.reconciler.heard()
        if missing and kind == netlink.RTM_DELADDR and member.carrier is not None and not member.carrier.ask():
            # An interface that goes down, or away, loses addresses by the kernel's own hand.
            self.reconciler.soon()
            return False
        return missing

    @property
    def has_just_moved(self) -> bool:
        """Whether what is told of addresses may be of a move: of IPv6 ones the kernel does not say who asked."""
        return self._loop.time() - self._moved_at < ECHO

    def address_changed_elsewhere(self) -> None:
        """An address of an interface that is no member came or went: the kernel may take now what it refused."""
        if self._features.twins.refused:
            self.reconciler.heard()

    def _retry_refused_soon(self) -> None:
        self._loop.call_soon(self._features.data.retry_refused)  # when what changed has been told

    def _addresses_changed(self, left: set[str], addresses: set[Address]) -> None:
        self._reading.news += 1
        self._features.twins.endanger(left, addresses)
        if left or addresses:
            self.reconciler.soon()
        else:
            self.reconciler.heard()

    # -- orders ------------------------------------------------------------------------------------------------------

    def perform(self, order: Order) -> None:
        """Carry out one order of the core, now; in mode Observe probes only."""
        if isinstance(order, SendProbe):
            if not self._ports.probe(order):
                self._sink(ProbeNotSent(order.interface, order.family, order.sequence, errno.ENODEV))
        elif self.observing:
            return
        elif isinstance(order, MoveAddresses):
            self._reading.orders += 1
            self._moved_at = self._loop.time()
            self._features.data.move(order.moves)
            with self._parts.part(TUNNELS):
                self._host.send(self._features.tunnels.differences(), expected=TRANSIENT)
        elif isinstance(order, Announce):
            self._features.data.announce(order.interface, order.addresses)
        elif isinstance(order, SetOutbound):
            self._reading.orders += 1
            self._features.surroundings.outbound = {4: order.ipv4, 6: order.ipv6}
            self._ways_changed()
            if self.name in self._members.failed:
                self._members.failed_changed()  # another group may have taken over what this order is about
        elif isinstance(order, SetNominee):
            self._features.surroundings.nominees = {4: order.ipv4, 6: order.ipv6}
            self._features.surroundings.receiving = order.receiving
            self._members.note_failed(self.name, failed=order.makeshift or not order.receiving)
            self._follow_multicast()
        else:
            assert_never(order)

    def _ways_changed(self) -> None:
        """Other members carry, or other routers answer: twins have other ways."""
        if self._features.twins.set_outbound() or self._former.leaving():
            self.reconciler.soon()

    def _follow_multicast(self) -> None:
        if self.observing:
            return
        around, now = self._features.surroundings, self._loop.time()
        for version, key in around.nominees.items():
            nominee = around.member(key) if key is not None else None
            index = nominee.index if nominee is not None else None
            self._features.multicast.follow(version, index, around.deaf(now))

    def ways(self, target: Address) -> dict[int, str]:
        """Names of the members that packets to somebody on the link may leave by: see `GroupSurroundings.ways`."""
        return {} if self.observing else self._features.surroundings.ways(target)

    @property
    def not_adopted(self) -> tuple[NotAdopted, ...]:
        """The addresses that the host has on the members and that are left alone."""
        return self._features.data.adoption.left_alone

    @property
    def arriving(self) -> tuple[InterfaceAddress, ...]:
        """The data addresses that have a place and are not in the kernel yet."""
        return () if self.observing else self._features.data.arriving

    # -- findings ----------------------------------------------------------------------------------------------------

    def findings(self) -> list[Finding]:
        """What stands against this group on this host; what cannot be looked at is among it."""
        found: list[Finding] = []
        for name, look in self._features.to_look_at():
            with self._looks.part(name):
                found += look()
        self._looks.round()
        return [*found, *self._parts.findings(), *self._looks.findings(), *self.reconciler.findings()]
