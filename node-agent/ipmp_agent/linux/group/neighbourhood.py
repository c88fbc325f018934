"""What one group tells its neighbours on the link, and what it hears from them about its own addresses.

An address that another host has as well is defended, and told: RFC 5227 section 2.4, once in ten seconds.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ipmp_agent.core.events import AddressContested, RoutersChanged
from ipmp_agent.core.findings import Finding
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.messages import frames, links, neighbors, netlink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ipmp_agent.core.events import Event
    from ipmp_agent.linux.group.data_addresses import GroupDataAddresses
    from ipmp_agent.linux.shared.host import Host, Port
    from ipmp_api.types import Address, InterfaceAddress

log = logging.getLogger(__name__)

DEFEND_INTERVAL = 10.0
"""Seconds between two defences of one address, and between two questions whether the other host still has it.
RFC 5227 DEFEND_INTERVAL."""

CONTEST = 35.0
"""Seconds without a word of the other host after which an address is ours alone again: three questions."""


@dataclass(slots=True)
class _Contest:
    """One address that another host has as well."""

    address: InterfaceAddress
    mac: bytes
    heard_at: float
    defended_at: float
    timer: asyncio.TimerHandle


class Neighbourhood:
    """The neighbours of one group.

    Args:
        group: its name.
        host: what all groups share.
        data: its data addresses.
        tell: takes events.
        observing: whether nothing is to be sent.
    """

    def __init__(
        self,
        group: str,
        host: Host,
        data: GroupDataAddresses,
        tell: Callable[[Event], None],
        observing: Callable[[], bool],
    ) -> None:
        self._group = group
        self._host = host
        self._data = data
        self._tell = tell
        self._observing = observing
        self._loop = asyncio.get_running_loop()
        self._contests: dict[Address, _Contest] = {}
        self._looking: asyncio.Task[None] | None = None

    # -- whom to ask -------------------------------------------------------------------------------------------------

    def told(self, event: Event) -> None:
        """The core is told this: the gateways in it are the group's."""
        if isinstance(event, RoutersChanged):
            self._host.neighbors.gateways(self._group, event.routers)

    async def read(self, indexes: Iterable[int]) -> None:
        """Read whom the kernel knows on these interfaces, and listen for who else says to have a data address."""
        self.listen()
        await self._host.neighbors.read(self._group, indexes, self._host.dumper)

    def listen(self) -> None:
        """Have the kernel wake us for what is said about the data addresses of now."""
        addresses = self._data.addresses()
        for (group, _), port in self._host.ports.items():
            if group == self._group:
                port.wire.watch(addresses)

    def renew(self, index: int, address: Address, mac: bytes) -> None:
        """A neighbour that fell silent has this MAC address: have the kernel know it, unless somebody laid another."""
        if self._observing():
            return
        request = netlink.message(netlink.RTM_GETNEIGH, 0, neighbors.find_request(index, address))
        answer = self._host.channel.ask(request)
        if answer is None:
            return  # the kernel has none, and asks when it needs one
        known = neighbors.decode(answer)
        if known is not None and (known.permanent or (known.mac == mac and known.state & neighbors.NUD_REACHABLE)):
            return
        self._host.send([neighbors.renew(index, address, mac)])

    # -- who else has an address -------------------------------------------------------------------------------------

    def claimed(self, address: Address, mac: bytes) -> None:
        """Somebody who is no member of this host says to have an address."""
        port = self._holder(address)
        if port is None or mac == frames.NO_MAC:
            return
        contest = self._contests.get(address)
        if contest is not None:
            contest.mac, contest.heard_at = mac, self._loop.time()
            if contest.heard_at - contest.defended_at >= DEFEND_INTERVAL:
                self._defend(contest, port)
        elif self._looking is None:  # of a flood of claims one is looked into
            self._looking = self._loop.create_task(self._look_into(address, mac))
            self._looking.add_done_callback(self._looked)

    async def _look_into(self, address: Address, mac: bytes) -> None:
        """Believe in a second owner that is none of this host's other interfaces."""
        bodies = await self._host.dumper.dump(netlink.RTM_GETLINK, links.get_request())
        own = {frames.mac_bytes(link.mac) for link in map(links.decode, bodies) if link.mac}
        port, configured = self._holder(address), self._data.configured(address)
        if mac in own or port is None or configured is None or address in self._contests:
            return
        now = self._loop.time()
        timer = self._loop.call_later(DEFEND_INTERVAL, self._ask, address)
        contest = self._contests[address] = _Contest(configured, mac, now, float("-inf"), timer)
        self._tell(AddressContested(configured, frames.mac_text(mac)))
        self._defend(contest, port)

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looking = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: cannot tell who has an address as well", self._group, exc_info=error)

    def _holder(self, address: Address) -> Port | None:
        """The port of the member that has an address now."""
        key = self._data.holder(address) if self._data.is_data(address) else None
        return self._host.ports.get((self._group, key)) if key is not None else None

    def _defend(self, contest: _Contest, port: Port) -> None:
        if self._observing():
            return
        contest.defended_at = self._loop.time()
        port.announce([contest.address], once=True)

    def _ask(self, address: Address) -> None:
        """Ask whether the other host still has an address: an honest one answers, whoever forges claims says more."""
        contest, port = self._contests[address], self._holder(address)
        if port is None or self._loop.time() - contest.heard_at >= CONTEST:
            self._end(address)
            return
        contest.timer = self._loop.call_later(DEFEND_INTERVAL, self._ask, address)
        if self._observing():
            return
        try:
            port.wire.send(frames.who_has(port.wire.mac, address))
        except OSError as error:
            log.debug("%s: asking for %s: %s", port.wire.name, address, error)

    def _end(self, address: Address) -> None:
        contest = self._contests.pop(address)
        contest.timer.cancel()
        self._tell(AddressContested(contest.address, None))

    def findings(self) -> list[Finding]:
        """The addresses that another host has as well."""
        return [
            Finding(
                Reason.ADDRESS_CONFLICT,
                f"{contest.address} is also claimed by {frames.mac_text(contest.mac)}: take it from that host, or from"
                " this group.",
            )
            for contest in self._contests.values()
        ]

    def close(self) -> None:
        """Hear nothing more, and forget them."""
        if self._looking is not None:
            self._looking.cancel()
        for contest in self._contests.values():
            contest.timer.cancel()
        self._contests.clear()
        self._host.neighbors.forget(self._group)
