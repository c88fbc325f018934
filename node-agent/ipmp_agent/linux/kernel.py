"""The façade of the kernel: all groups of one network namespace, for one event loop."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from ipmp_agent.core import timers
from ipmp_agent.linux.group import memory as memories
from ipmp_agent.linux.group.group import GroupInKernel
from ipmp_agent.linux.group.reconcile import RETRY
from ipmp_agent.linux.messages import addresses, links, netlink, routes, rules
from ipmp_agent.linux.messages.netlink import Dumper
from ipmp_agent.linux.shared import reachability
from ipmp_agent.linux.shared.carriers import CarrierPoll
from ipmp_agent.linux.shared.host import Host
from ipmp_agent.linux.shared.identifiers import FIRST_IDENTIFIER
from ipmp_agent.linux.shared.members import HostMember, Members
from ipmp_agent.linux.shared.monitor import Monitor
from ipmp_agent.linux.shared.outsiders import Listener, may_hear
from ipmp_agent.linux.shared.readers import at_once

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from ipmp_agent.core.actions import Order
    from ipmp_agent.core.events import Event
    from ipmp_agent.core.findings import Finding, NotAdopted
    from ipmp_agent.linux.messages.netlink import Message
    from ipmp_api.types import Address, InterfaceAddress, NodeGroup

log = logging.getLogger(__name__)


async def _nowhere() -> bool:
    """Keep no memory, and let nobody wait for it."""
    return True


class Kernel:
    """Carries out orders, and tells what happens.

    Args:
        sink: takes the name of a group and an event about it; called from within any method and between them.
        hear: called by the loop with each read of a socket there is to do; does it, and may then handle what it sank.
        dumper: called by `open`; makes what reads whole tables of the kernel.
    """

    def __init__(
        self,
        sink: Callable[[str, Event], None],
        hear: Callable[[Callable[[], object]], object] = at_once,
        dumper: Callable[[], Dumper] = Dumper,
    ) -> None:
        self._sink = sink
        self._hear = hear
        self._dumper = dumper
        self._groups: dict[str, GroupInKernel] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._reading_links = asyncio.Lock()
        self._link_news: dict[int, bytes | None] | None = None  # by interface, while all are being read; None: it went

    async def open(self, remembered: Mapping[str, Mapping[str, Any] | None] | None = None) -> None:
        """Open every socket in the network namespace of the calling thread, and start listening.

        Args:
            remembered: what `memory` returned in the last run, by group. Each of these groups must be configured: until
                then its members are no other group's.

        Raises:
            OSError: a capability is missing (NET_ADMIN, NET_RAW).
        """
        self._loop = asyncio.get_running_loop()
        self._host = Host(self._hear, self._dumper)
        self._members = Members(
            self._host.ethtool,
            self._host.link,
            self._sink,
            self._member_changed,
            self._link_changed,
            self._compare_soon,
        )
        self._listener = Listener(self._heard_outside, self._host.readers)
        self._monitor = Monitor(self._heard, self._overrun, self._host.readers)
        self._carrier_poll = CarrierPoll("carrier-poll", timers.CARRIER_POLL, self._members.differs, self._members.poll)
        self._loss_poll = CarrierPoll("loss-poll", timers.LOSS_POLL, self._members.lost, self._members.find_lost)
        self._timers["reconcile"] = self._loop.call_later(timers.RECONCILE, self._reconcile_periodically)
        for name, memory in (remembered or {}).items():
            self._members.expect(name, memories.former_members(memories.read(memory)[0]))

    async def close(self) -> None:
        """Close every socket; the kernel stays as it is."""
        self._monitor.close()
        for timer in self._timers.values():
            timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for group in self._groups.values():
            await group.close()
        self._loss_poll.close()
        self._carrier_poll.close()
        self._listener.close()
        self._host.close()

    @property
    def counters(self) -> dict[str, int]:
        """What happened so far, by name. May be called in another thread."""
        return {
            **self._host.counters,
            "netlink_overruns": self._monitor.overruns,
            "carrier_by_poll": self._members.carrier_by_poll,
            "carrier_by_event": self._members.carrier_by_event,
            "carrier_by_count": self._members.carrier_by_count,
            "foreign_changes": sum(group.reconciler.foreign_changes for group in tuple(self._groups.values())),
        }

    # -- groups ------------------------------------------------------------------------------------------------------

    async def configure(
        self,
        configuration: NodeGroup,
        memory: Mapping[str, Any] | None,
        secure: Callable[[], Awaitable[bool]] = _nowhere,
    ) -> None:
        """Start to look after a group, or take its new configuration.

        Before this returns, every member, test address, router and data address that is present has been told, and
        then KernelRead. In mode Observe nothing is written to the kernel.

        Args:
            configuration: compiled for this node.
            memory: what `memory` returned in the last run; heeded for a group that is new to this one.
            secure: has `memory` written to disk, and returns whether it is there. Awaited before the kernel is changed,
                and whenever there is more that a later agent must know to put everything back; an adopted address is
                told after that, once it is there.
        """
        known = self._groups.get(configuration.group_name)
        group = known or GroupInKernel(configuration, self._host, self._members, self._sink)
        self._groups[group.name] = group
        problems: list[str] = []
        try:
            if known is None:
                memory, problems = memories.read(memory)
                for problem in problems:
                    log.warning("%s: forgotten of what an earlier agent remembered: %s", group.name, problem)
                self._members.expect(group.name, memories.former_members(memory))
            self._members.watch(configuration)
            await self.read_links()
            await group.configure(
                configuration, memory, secure, forgotten=any(each.startswith("routes") for each in problems)
            )
        except BaseException:
            if known is None:
                # The caller discards what was told until now; the next attempt tells everything anew.
                await self._forget(self._groups.pop(group.name))
            raise

    def perform(self, group: str, action: Order) -> None:
        """Carry out one order now. What goes wrong is told as an event."""
        self._groups[group].perform(action)

    def drain(self) -> None:
        """Read all pending probe replies and notifications now."""
        self._host.readers.drain()

    async def reconcile(self, group: str) -> None:
        """Compare a group with the kernel and put right what is wrong."""
        await self._groups[group].reconcile()

    def memory(self, group: str) -> dict[str, Any]:
        """What the state file must remember of a group: JSON."""
        return self._groups[group].memory()

    async def withdraw(self, group: str, *, restore: bool = False) -> None:
        """Take a group out of the kernel, and look after it no more.

        Args:
            group: its name.
            restore: put everything back, whatever the deletion policy says.
        """
        leaving = self._groups.pop(group)
        try:
            await leaving.withdraw(restore=restore)
        finally:
            await self._forget(leaving)
        self._listen_outside()
        for other in self._groups.values():
            other.reconciler.soon()  # what was a member may be on its link still

    async def _forget(self, group: GroupInKernel) -> None:
        await group.close()
        for key in list(self._members.of(group.name)):
            group.drop_port(key)
        self._members.forget(group.name)

    def findings(self, group: str) -> tuple[Finding, ...]:
        """What stands against a group on this host, now."""
        return tuple(self._groups[group].findings())

    def not_adopted(self, group: str) -> tuple[NotAdopted, ...]:
        """The addresses that the host has on the members and that a group leaves alone, now."""
        return self._groups[group].not_adopted

    def arriving(self, group: str) -> tuple[InterfaceAddress, ...]:
        """The data addresses of a group that have a place and are not in the kernel yet, now."""
        return self._groups[group].arriving if group in self._groups else ()

    # -- the host's own view ----------------------------------------------------------------------------------------

    async def gateways(self) -> frozenset[Address]:
        """The gateways of the host's own routes: a few of them, where it has very many."""
        return reachability.gateways(await self._host.routes(routes.RouteTable()))

    async def answering(self, targets: Iterable[Address]) -> frozenset[Address]:
        """Who of these answers this host by its ordinary routes, within a second.

        One whose address is on this host, before or after, answers nobody: its owner cannot be reached.
        """
        heard = await reachability.answering(target for target in targets if not self._is_local(target))
        return frozenset(target for target in heard if not self._is_local(target))

    async def cut_off(self, targets: Iterable[Address]) -> dict[Address, tuple[str, ...]]:
        """Whom of these, who answer, a member that carries does not reach; with the names of such members."""
        ways = {
            reachability.Way(target, index): name
            for target in targets
            for group in self._groups.values()
            for index, name in group.ways(target).items()
        }
        heard = await reachability.answered(ways) if ways else frozenset()
        missing = [way for way in ways if way not in heard]
        return {
            target: tuple(sorted(ways[way] for way in missing if way.target == target))
            for target in {way.target for way in missing}
        }

    def _is_local(self, address: Address) -> bool:
        answer = self._host.channel.ask(netlink.message(netlink.RTM_GETROUTE, 0, routes.lookup_request(address)))
        return answer is not None and routes.is_local(answer)

    # -- what the kernel tells ---------------------------------------------------------------------------------------

    def _heard(self, message: Message) -> None:
        if message.kind in (netlink.RTM_NEWLINK, netlink.RTM_DELLINK):
            self._note_link(message)
            self._members.heard(message.kind, message.body)
            below = self._members.owner(self._host.devices.heard(message.kind, message.body))
            if below is not None and below.group in self._groups:
                self._groups[below.group].reconciler.soon()
            known = links.index_of(message.body) in self._host.tunnels.found
            if self._host.tunnels.heard(message.kind, message.body):
                for group in self._groups.values():  # a new one is its owner's doing, and takes nothing of ours
                    (group.reconciler.changed if known else group.reconciler.heard)()
        elif message.kind in (netlink.RTM_NEWADDR, netlink.RTM_DELADDR):
            self._address_changed(message)
        elif message.kind in (netlink.RTM_NEWROUTE, netlink.RTM_DELROUTE):
            self._route_changed(message)
        elif message.kind in (netlink.RTM_NEWNEXTHOP, netlink.RTM_DELNEXTHOP):
            self._nexthop_changed(message)
        elif message.kind in (netlink.RTM_NEWRULE, netlink.RTM_DELRULE):
            self._rule_changed(message)

    def _route_changed(self, message: Message) -> None:
        if message.port == self._host.channel.port:
            return  # by our own request, whoever's route it was
        route = routes.decode(message.body)
        if route is None:
            return
        for group in self._groups.values():
            by_somebody = message.port != 0
            if group.route_changed(message.kind, message.flags, route, by_somebody=by_somebody):
                (group.reconciler.changed if by_somebody else group.reconciler.soon)()

    def _nexthop_changed(self, message: Message) -> None:
        if message.port == self._host.channel.port:
            return  # by our own request
        nexthop = routes.decode_nexthop(message.body)
        # Whoever deleted ours: the comparison tells. A routing daemon may take it over, the kernel with a link.
        gone = nexthop.owned if message.kind == netlink.RTM_DELNEXTHOP else not nexthop.owned
        if gone and nexthop.identifier >= FIRST_IDENTIFIER:
            for group in self._groups.values():
                (group.reconciler.changed if message.port != 0 else group.reconciler.soon)()

    def _rule_changed(self, message: Message) -> None:
        rule = rules.decode(message.body)
        if rule is None or message.port == self._host.channel.port:
            return
        if rule.owned and message.kind == netlink.RTM_DELRULE:
            self._host.deleted_rules.add(rule)
        for group in self._groups.values():
            if not group.observing:
                (group.reconciler.changed if rule.owned else group.reconciler.heard)()

    def _address_changed(self, message: Message) -> None:
        kind, body = message.kind, message.body
        self._host.addresses.heard()
        member = self._members.owner(addresses.index_of(body))
        if member is None or member.leaving:
            for other in self._groups.values():
                other.address_changed_elsewhere()
            return
        changed = addresses.decode(body)
        if changed is not None and changed.address.ip.is_link_local:
            self._members.look_again(changed.index)  # it comes and goes with IPv6
        group = self._groups.get(member.group)
        if changed is not None and group is not None and group.address_changed(kind, changed, member):
            # A later order of ours may have overtaken what an earlier one did.
            own = message.port == self._host.channel.port or group.has_just_moved
            (group.reconciler.soon if own else group.reconciler.changed)()

    def _listen_outside(self) -> None:
        """Hear members on the interfaces that are none, and on which none was heard yet."""
        devices = {device.link.index: device.link for device in self._host.devices.all()}
        self._host.heard_on = {index: macs for index, macs in self._host.heard_on.items() if index in devices}
        settled = {index for index in devices if self._members.owner(index) is not None} | self._host.heard_on.keys()
        anybody = any(may_hear(link) for index, link in devices.items() if index not in settled)
        macs = {port.wire.mac for port in self._host.ports.values()} if anybody else set()
        try:
            self._listener.listen(macs, settled)
        except OSError as error:
            log.warning("cannot listen for members on other interfaces: %s", error)

    def _heard_outside(self, name: str, mac: bytes) -> None:
        for device in self._host.devices.all():
            if device.link.name == name and self._members.owner(device.link.index) is None:
                self._host.heard_on.setdefault(device.link.index, set()).add(mac)
        for (group, _), port in self._host.ports.items():
            if port.wire.mac == mac and group in self._groups:
                self._groups[group].reconciler.soon()
        self._listen_outside()

    def _member_changed(self, member: HostMember) -> None:
        group = self._groups.get(member.group)
        if group is None:
            return
        if member.index is None:
            group.reconciler.link_changed()
        group.member_changed(member)
        if member.index is not None:
            group.reconciler.soon()

    def _link_changed(self, member: HostMember) -> None:
        group = self._groups.get(member.group)
        if group is not None:
            group.reconciler.link_changed()
            group.link_changed(member)
            if member.up:
                # With the last carrier all routes by members were lost, and probes need them to come back.
                group.reconciler.soon()

    def _overrun(self) -> None:
        self._run(self._resync())

    def _reconcile_periodically(self) -> None:
        self._timers["reconcile"] = self._loop.call_later(timers.RECONCILE, self._reconcile_periodically)
        self._run(self._resync())

    async def _resync(self) -> None:
        await self.read_links()
        self._compare_soon()

    def _compare_soon(self) -> None:
        for group in self._groups.values():
            group.reconciler.soon()

    async def read_links(self) -> None:
        """Read all interfaces anew, and tell what changed. Raises OSError where they never hold still."""
        async with self._reading_links:
            self._link_news = {}
            try:
                dumped = await self._host.dumper.dump(netlink.RTM_GETLINK, links.get_request())
            finally:
                news, self._link_news = self._link_news, None
            # What was heard meanwhile is newer than what was read, or something newer still is on its way.
            bodies = [body for body in dumped if links.index_of(body) not in news]
            bodies += [body for body in news.values() if body is not None]
            self._members.resync(bodies)
            self._host.tunnels.resync(bodies)
            self._host.devices.resync(bodies)
            self._listen_outside()

    def _note_link(self, message: Message) -> None:
        if self._link_news is not None and links.family_of(message.body) == 0:
            gone = message.kind == netlink.RTM_DELLINK
            self._link_news[links.index_of(message.body)] = None if gone else message.body

    def _run(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("comparing with the kernel failed; it is tried again", exc_info=error)
            self._timers["reconcile"].cancel()
            self._timers["reconcile"] = self._loop.call_later(RETRY, self._reconcile_periodically)
