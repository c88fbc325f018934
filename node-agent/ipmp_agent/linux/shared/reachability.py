"""Who answers this host: echo requests as any program of the host would send them, by its ordinary routes.

What leaves by one of several members leaves by one that a hash of the addresses chooses. So the same question can be
asked by each member, with the source address that the routes give it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from ipmp_agent.linux.messages import filters, frames, routes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipmp_api.types import Address

SENDINGS = 4
SPACING = 0.25
"""Requests to each target in one look, and the seconds between them and after the last."""

GATEWAYS_MAXIMUM = 16
"""Gateways asked in each family. A host has one or two; a router may have very many."""

_KIND = 4  # beside the kinds of the probers
IP_PKTINFO = 8  # of Linux, and not in the module socket of every Python


class Way(NamedTuple):
    """Somebody who is asked, by an interface."""

    target: Address
    interface: int = 0  # index; 0: as the routes say


def gateways(table: Iterable[routes.Route]) -> frozenset[Address]:
    """The gateways of other people's routes, without those that every link may have: they say nothing of routes."""
    found: dict[int, set[Address]] = {4: set(), 6: set()}
    for route in table:
        for leg in () if route.owned or route.table != routes.RT_TABLE_MAIN else route.legs:
            if leg.gateway is None or (address := routes.address_of(leg.gateway)).is_link_local:
                continue
            if len(found[address.version]) < GATEWAYS_MAXIMUM:
                found[address.version].add(address)
    return frozenset().union(*found.values())


async def answering(targets: Iterable[Address]) -> frozenset[Address]:
    """Who of these answers an echo request, within a second; returns as soon as all have.

    What the kernel refuses to send is not answered. Raises OSError where no socket is to be had.
    """
    return frozenset(way.target for way in await answered(Way(target) for target in targets))


async def answered(ways: Iterable[Way]) -> frozenset[Way]:
    """By which of these ways an echo request is answered, whatever way the answer takes; else like `answering`."""
    ways = set(ways)
    wanted = {version: {way for way in ways if way.target.version == version} for version in (4, 6)}
    looks = [_Look(version, some) for version, some in wanted.items() if some]
    heard = await asyncio.gather(*(look.run() for look in looks))
    return frozenset().union(*heard)


class _Look:
    """One look at the targets of one family. The random bits of a request plus the interface say which way it went."""

    def __init__(self, version: int, ways: set[Way]) -> None:
        self._version = version
        self._missing = ways
        self._identifier = secrets.randbits(16)
        self._bits = secrets.randbits(63)
        self._by_answer = {(str(way.target), self._bits + way.interface): way for way in ways}
        self._all_heard = asyncio.Event()

    async def run(self) -> set[Way]:
        """Ask until everybody has answered, or long enough."""
        everybody = set(self._missing)
        loop = asyncio.get_running_loop()
        with self._open() as echo:
            loop.add_reader(echo, self._read, echo)
            try:
                for sequence in range(SENDINGS):
                    self._send(echo, sequence)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._all_heard.wait(), SPACING)
                        break
                # A process that was stopped finds its answers here, and not its time-out.
                self._read(echo)
            finally:
                loop.remove_reader(echo)
        return everybody - self._missing

    def _open(self) -> socket.socket:
        if self._version == 4:
            echo = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMP)
            filters.attach(echo, filters.echo_reply_ipv4(self._identifier))
        else:
            echo = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, frames.IPPROTO_ICMPV6)
            filters.accept_icmpv6(echo, frames.ICMPV6_ECHO_REPLY)
            filters.attach(echo, filters.echo_reply_ipv6(self._identifier))
        echo.setblocking(False)
        return echo

    def _send(self, echo: socket.socket, sequence: int) -> None:
        for target, index in self._missing:
            request = frames.echo_request(self._version, self._identifier, sequence, _KIND, self._bits + index)
            with contextlib.suppress(OSError):  # no route, a link that is down: then it does not answer
                echo.sendmsg([request], [self._by(index)] if index else [], 0, (str(target), 0))

    def _by(self, index: int) -> tuple[int, int, bytes]:
        """Have the kernel look for a route by this interface: struct in_pktinfo or in6_pktinfo."""
        if self._version == 4:
            return socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=i8x", index)
        return socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, struct.pack("=16xi", index)

    def _read(self, echo: socket.socket) -> None:
        while True:
            try:
                packet, source = echo.recvfrom(2048)
            except BlockingIOError:
                return
            except OSError:
                continue  # an error of the route that the kernel queued on the socket; each is told once
            reply = frames.read_echo_reply(self._version, packet)
            way = self._by_answer.get((source[0].partition("%")[0], reply.bits)) if reply is not None else None
            if way is not None:
                self._missing.discard(way)
            if not self._missing:
                self._all_heard.set()
