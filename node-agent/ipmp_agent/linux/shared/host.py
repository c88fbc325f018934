"""What all groups of one network namespace share."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ipmp_agent.core.events import Family
from ipmp_agent.linux.messages import addresses, frames, links, netlink, routes, rules
from ipmp_agent.linux.messages.netlink import Channel, Dumper
from ipmp_agent.linux.messages.nftables import Nftables
from ipmp_agent.linux.messages.tunnel_devices import TunnelTable
from ipmp_agent.linux.shared.announce import Announcer
from ipmp_agent.linux.shared.conflicts import ConflictChecks
from ipmp_agent.linux.shared.devices import Devices
from ipmp_agent.linux.shared.ethtool import Ethtool
from ipmp_agent.linux.shared.host_addresses import HostAddresses
from ipmp_agent.linux.shared.identifiers import Identifiers
from ipmp_agent.linux.shared.interface_rules import InterfaceRules
from ipmp_agent.linux.shared.masquerade import Masquerades
from ipmp_agent.linux.shared.neighbors import Neighbors
from ipmp_agent.linux.shared.outsiders import Guarded
from ipmp_agent.linux.shared.probes import ProbeSender
from ipmp_agent.linux.shared.readers import Readers, at_once
from ipmp_agent.linux.shared.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ipmp_agent.core.events import Event
    from ipmp_agent.linux.messages.addresses import InstalledAddress
    from ipmp_agent.linux.messages.frames import Transitive
    from ipmp_agent.linux.messages.links import Link
    from ipmp_agent.linux.messages.netlink import Failure
    from ipmp_agent.linux.messages.routes import Route, RouteTable
    from ipmp_agent.linux.messages.rules import PolicyRule
    from ipmp_agent.linux.shared.members import HostMember
    from ipmp_agent.linux.shared.neighbors import Neighbor
    from ipmp_api.types import Address, InterfaceAddress

log = logging.getLogger(__name__)

EXPECTED_ERRORS = frozenset({errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENOENT, errno.ESRCH})
"""What a deletion finds gone is as wanted; what vanished with its interface, link events tell."""

TRICKLE = 128
"""Requests sent before the loop may do something else, where nothing hurries: two milliseconds or so."""


def _knows_nothing(_request: bytes, _failure: Failure) -> bool:
    return False


class Port:
    """A member's way to its link: sockets that live as long as the interface stays what it is."""

    def __init__(
        self,
        member: HostMember,
        sink: Callable[[Event], None],
        claimed: Callable[[Address, bytes], None],
        renew: Callable[[int, Address, bytes], None],
        host: Host,
    ) -> None:
        if member.link is None:
            raise ValueError(f"{member.key} is not present")
        self.link = member.link
        self._group = member.group
        self._host = host
        self._claimed = claimed
        self.wire = Wire(member.link, self._heard, self._probed, host.readers)
        self.sender = ProbeSender(
            member.key,
            self.wire,
            sink,
            host.counters,
            host.owns,
            host.readers,
            partial(renew, member.link.index),
        )

    def announce(self, addresses: Iterable[InterfaceAddress], *, once: bool = False) -> None:
        """Tell the link that these addresses are here, the most important first; `once`: not on the whole schedule."""
        asked = partial(self._host.asked, self._group)
        self._host.announcer.announce(self.wire, addresses, router=self.link.forwards_ipv6, asked=asked, once=once)

    def _heard(self, address: Address, mac: bytes) -> None:
        if not self._host.wears(mac):
            self._host.checks.heard(address, mac)
            self._claimed(address, mac)
        self.sender.heard(address, mac)

    def _probed(self, probe: Transitive) -> None:
        """Answer another member of this host; strangers get no answer."""
        if not probe.question and probe.kind == frames.FULL_FRAME:
            if probe.bits in self._host.asked_frames:
                self._host.asked_frames[probe.bits] = True
        elif not probe.question:
            self.sender.answered(probe)
        elif self._host.wears(probe.source):
            answer = replace(probe, source=self.wire.mac, question=False)
            with contextlib.suppress(OSError):  # a link that is down answers nothing
                self.wire.send(frames.transitive(probe.source, answer))

    def close(self) -> None:
        """Give the sockets back."""
        self.sender.close()
        self.wire.close()


class Host:
    """Requests, dumps, announcements and conflict checks of a network namespace: the one of the calling thread.

    Args:
        hear: called by the loop with each read of a socket there is to do, and does it.
        dumper: makes what reads whole tables of the kernel.
    """

    def __init__(
        self, hear: Callable[[Callable[[], object]], object] = at_once, dumper: Callable[[], Dumper] = Dumper
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.readers = Readers(hear)
        self.channel = Channel()
        self.dumper = dumper()
        self.ethtool = Ethtool()
        self.announcer = Announcer(self.counters)
        self.checks = ConflictChecks()
        self.neighbors = Neighbors()
        self.identifiers = Identifiers()
        self.tunnels = TunnelTable()
        self.nftables = Nftables()
        self.masquerades = Masquerades(self.nftables)
        self.interface_rules = InterfaceRules(self.nftables)
        self.devices = Devices()
        self.addresses = HostAddresses(self.dumper)
        self._address_table = addresses.AddressTable()
        self.guarded = Guarded()
        self.heard_on: dict[int, set[bytes]] = {}  # MAC addresses of members, by index of an interface that is none
        self.ports: dict[tuple[str, str], Port] = {}  # by group and member
        self.asked_frames: dict[int, bool] = {}  # frames between members, by their bits: whether each was answered
        self.deleted_rules: set[PolicyRule] = set()  # of ours, by somebody, since rules were compared last

    def close(self) -> None:
        """Give every socket back; the kernel stays as it is."""
        self.announcer.close()
        self.checks.close()
        for port in self.ports.values():
            port.close()
        self.ports.clear()
        self.readers.close()
        self.ethtool.close()
        self.nftables.close()
        self.dumper.close()
        self.channel.close()

    def wears(self, mac: bytes) -> bool:
        """Whether a member has this MAC address."""
        return any(port.wire.mac == mac for port in self.ports.values())

    def owns(self, address: Address) -> bool:
        """Whether this is a test address of a member."""
        return any(port.sender.test_address(Family(address.version)) == address for port in self.ports.values())

    def asked(self, group: str, version: int) -> Sequence[Neighbor]:
        """Whom a group asks something when an address of it has moved, the most important first."""
        targets = [target for key, port in self.ports.items() if key[0] == group for target in port.sender.targets]
        return [each for each in self.neighbors.of(group, version, targets) if not self.owns(each.address)]

    def link(self, index: int) -> Link | None:
        """An interface as the kernel describes it now, without waiting for its notifications."""
        answer = self.channel.ask(netlink.message(netlink.RTM_GETLINK, 0, links.get_request(index)))
        return links.decode(answer) if answer is not None else None

    async def addresses_of(self, index: int) -> list[InstalledAddress]:
        """The addresses of an interface, in the order of the kernel."""
        try:
            bodies = await self.dumper.dump(netlink.RTM_GETADDR, addresses.get_request(index))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return []  # it has just vanished, and we are about to hear of it
        return await self._address_table.read(index, bodies)

    async def rules(self) -> list[PolicyRule]:
        """The policy rules of both families, in the order of the kernel. Raises OSError where they never hold still."""
        bodies = [
            body
            for family in (socket.AF_INET, socket.AF_INET6)
            for body in await self.dumper.dump(netlink.RTM_GETRULE, rules.get_request(family))
        ]
        return [found for body in bodies if (found := rules.decode(body)) is not None]

    async def routes(self, table: RouteTable) -> list[Route]:
        """The unicast routes of all tables, both families. Raises OSError where they never hold still."""
        bodies = [
            body
            for family in (socket.AF_INET, socket.AF_INET6)
            for body in await self.dumper.dump(netlink.RTM_GETROUTE, routes.get_request(family))
        ]
        return await table.read(bodies)

    def send(
        self,
        requests: Sequence[bytes],
        *,
        expected: frozenset[int] = frozenset(),
        knows: Callable[[bytes, Failure], bool] = _knows_nothing,
    ) -> list[Failure]:
        """Send a batch; refusals nobody expects are logged and counted.

        Args:
            requests: in order.
            expected: errno values that are in order here, beside those that always are.
            knows: told of each refusal; returns whether it is known, and not to be logged again.
        """
        if not requests:
            return []
        failures = self.channel.send(requests)
        for failure in failures:
            if knows(requests[failure.position], failure):
                continue
            if failure.error not in EXPECTED_ERRORS and failure.error not in expected:
                self.counters["kernel_refusals"] += 1
                log.error("the kernel refused request %d of %d: %s", failure.position + 1, len(requests), failure)
        return failures

    async def trickle(self, requests: Sequence[bytes], *, expected: frozenset[int] = frozenset()) -> None:
        """Send many requests like `send`, and let the loop do other things in between.

        Args:
            requests: in order.
            expected: as for `send`.
        """
        for start in range(0, len(requests), TRICKLE):
            self.send(requests[start : start + TRICKLE], expected=expected)
            await asyncio.sleep(0)
