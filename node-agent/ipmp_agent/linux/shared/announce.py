"""Telling the link where an address is now: gratuitous ARP and unsolicited neighbour advertisements.

The kernel sends none when an address is added. Without them a flow stalls until its peer asks again, seconds later.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from dataclasses import dataclass
from ipaddress import IPv4Interface
from typing import TYPE_CHECKING

from ipmp_agent.core import timers
from ipmp_agent.linux.messages import frames

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable

    from ipmp_agent.linux.shared.wire import Wire
    from ipmp_api.types import InterfaceAddress

log = logging.getLogger(__name__)

BURST = 32
"""Packets sent at once before the pace of timers.ANNOUNCE_RATE holds: less than any switch port buffers."""


@dataclass(frozen=True, slots=True)
class _Schedule:
    """The announcements of one address, until it moves again."""

    address: InterfaceAddress
    wire: Wire
    forms: tuple[bytes, ...]


class Announcer:
    """Sends announcements on schedule and at a pace, the first round of every address before any repeat.

    Args:
        counters: `announcements_sent` and `announcements_failed` are counted here.
    """

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._current: dict[InterfaceAddress, _Schedule] = {}
        self._serial = itertools.count()
        self._later: list[tuple[float, int, int, _Schedule]] = []  # due, serial, round
        self._due: list[tuple[int, int, int, _Schedule]] = []  # round, form, serial
        self._allowance = float(BURST)
        self._allowed_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def announce(self, wire: Wire, addresses: Iterable[InterfaceAddress], *, router: bool) -> None:
        """Announce addresses on a wire, now and on schedule; earlier schedules of theirs end.

        Args:
            wire: of the member that has the addresses.
            addresses: in order of importance.
            router: whether this host forwards IPv6, which an advertisement must not deny.
        """
        now = self._loop.time()
        for address in addresses:
            schedule = _Schedule(address, wire, _forms(wire.mac, address, router=router))
            self._current[address] = schedule
            for form in range(len(schedule.forms)):
                heapq.heappush(self._due, (0, form, next(self._serial), schedule))
            for number, after in enumerate(timers.ANNOUNCE_AT[1:], start=1):
                heapq.heappush(self._later, (now + after, next(self._serial), number, schedule))
        self._work()

    def cancel(self, addresses: Iterable[InterfaceAddress]) -> None:
        """Announce these no more."""
        for address in addresses:
            self._current.pop(address, None)

    def leave(self, wire: Wire) -> None:
        """Announce nothing more on this wire: its interface is gone."""
        self.cancel([address for address, schedule in self._current.items() if schedule.wire is wire])

    def close(self) -> None:
        """Announce nothing more."""
        self._current.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _work(self) -> None:
        now = self._loop.time()
        while self._later and self._later[0][0] <= now:
            _, serial, number, schedule = heapq.heappop(self._later)
            for form in range(len(schedule.forms)):
                heapq.heappush(self._due, (number, form, serial, schedule))
        self._allowance = min(BURST, self._allowance + (now - self._allowed_at) * timers.ANNOUNCE_RATE)
        self._allowed_at = now
        while self._due and self._allowance >= 1:
            number, form, _, schedule = heapq.heappop(self._due)
            if self._current.get(schedule.address) is schedule:
                self._allowance -= 1
                self._send(schedule, form)
                if number == len(timers.ANNOUNCE_AT) - 1 and form == len(schedule.forms) - 1:
                    del self._current[schedule.address]
        self._rearm()

    def _rearm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due:
            # Wait for a good part of a burst: waking for every packet would cost more than the packet.
            self._timer = self._loop.call_later(BURST / 4 / timers.ANNOUNCE_RATE, self._work)
        elif self._later:
            self._timer = self._loop.call_at(self._later[0][0], self._work)

    def _send(self, schedule: _Schedule, form: int) -> None:
        try:
            schedule.wire.send(schedule.forms[form])
        except OSError as error:
            # The interface went down or its queue is full; the next round tries again.
            self._counters["announcements_failed"] += 1
            log.debug("%s: announcing %s: %s", schedule.wire.name, schedule.address, error)
        else:
            self._counters["announcements_sent"] += 1


def _forms(mac: bytes, address: InterfaceAddress, *, router: bool) -> tuple[bytes, ...]:
    """The packets that announce an address, the one that most receivers heed first."""
    if isinstance(address, IPv4Interface):
        return frames.gratuitous_arp_request(mac, address.ip), frames.gratuitous_arp_reply(mac, address.ip)
    return (frames.neighbor_advertisement(mac, address.ip, router=router),)
