"""Who answers this host by its ordinary routes: echo requests as any program of the host would send them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from typing import TYPE_CHECKING

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
    targets = set(targets)
    wanted = {version: {target for target in targets if target.version == version} for version in (4, 6)}
    looks = [_Look(version, some) for version, some in wanted.items() if some]
    heard = await asyncio.gather(*(look.run() for look in looks))
    return frozenset().union(*heard)


class _Look:
    """One look at the targets of one family."""

    def __init__(self, version: int, targets: set[Address]) -> None:
        self._version = version
        self._by_text = {str(target): target for target in targets}
        self._missing = set(targets)
        self._identifier = secrets.randbits(16)
        self._bits = secrets.randbits(64)
        self._all_heard = asyncio.Event()

    async def run(self) -> set[Address]:
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
        request = frames.echo_request(self._version, self._identifier, sequence, _KIND, self._bits)
        for target in self._missing:
            with contextlib.suppress(OSError):  # no route, a link that is down: then it does not answer
                echo.sendto(request, (str(target), 0))

    def _read(self, echo: socket.socket) -> None:
        while True:
            try:
                packet, source = echo.recvfrom(2048)
            except BlockingIOError:
                return
            except OSError:
                continue  # an error of the route that the kernel queued on the socket; each is told once
            reply = frames.read_echo_reply(self._version, packet)
            if reply is not None and reply.bits == self._bits:
                self._missing -= {self._by_text.get(source[0].partition("%")[0])}
            if not self._missing:
                self._all_heard.set()
