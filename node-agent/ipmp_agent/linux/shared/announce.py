"""Telling the link where an address is now: gratuitous ARP and unsolicited neighbour advertisements.

The kernel sends none when an address is added. Without them a flow stalls until its peer asks again, seconds later.
Some switches drop them and some hosts ignore them, so gateways, targets and neighbours are asked something, too: an
ordinary question from the address, which nobody can drop without cutting the host off.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address
from typing import TYPE_CHECKING

from ipmp_agent.core import timers
from ipmp_agent.linux.messages import frames

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable, Sequence

    from ipmp_agent.linux.shared.neighbors import Neighbor
    from ipmp_agent.linux.shared.wire import Wire
    from ipmp_api.types import InterfaceAddress

    Asked = Callable[[int], Sequence[Neighbor]]
    """Whom to ask in an IP version, the most important first."""

log = logging.getLogger(__name__)

QUESTIONS_AT = (0.01, 1.2)
"""Seconds after a move: after the announcements of that moment, and when neighbours heed again that were told something
within the last second."""

QUESTIONS = 512
"""Questions in one round for addresses that move together; each address has one at least."""

QUESTIONS_OF_ONE = 17
"""Questions in one round of one address."""

BURST = 32
"""Packets sent at once before the pace of timers.ANNOUNCE_RATE holds: less than any switch port buffers."""


@dataclass(slots=True, eq=False)
class _Schedule:
    """The announcements of one address, until it moves again."""

    address: InterfaceAddress
    wire: Wire
    forms: tuple[bytes, ...]
    asked: Asked
    questions: int  # in one round
    left: int = 0  # rounds to come, and frames to be sent

    def ask(self) -> list[bytes]:
        """The questions of one round."""
        return _questions(self.wire.mac, self.address, self.asked(self.address.version))[: self.questions]


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
        self._later: list[tuple[float, int, float, _Schedule]] = []  # due, serial, round; questions between rounds
        self._due: list[tuple[float, int, int, bytes, _Schedule]] = []  # round, form, serial, frame
        self._allowance = float(BURST)
        self._allowed_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def announce(
        self,
        wire: Wire,
        addresses: Iterable[InterfaceAddress],
        *,
        router: bool,
        asked: Asked = lambda _: (),
        once: bool = False,
    ) -> None:
        """Announce addresses on a wire, now and on schedule; earlier schedules of theirs end.

        Args:
            wire: of the member that has the addresses.
            addresses: in order of importance.
            router: whether this host forwards IPv6, which an advertisement must not deny.
            asked: whom to ask something from the address.
            once: say it once, and nothing where a schedule is under way.
        """
        now = self._loop.time()
        moved = list(addresses)
        questions = max(1, min(QUESTIONS_OF_ONE, QUESTIONS // max(1, len(moved))))
        rounds = [(after, float(number)) for number, after in enumerate(timers.ANNOUNCE_AT)]
        rounds += [(after, sum(at <= after for at in timers.ANNOUNCE_AT) - 0.5) for after in QUESTIONS_AT]
        if once:
            moved = [address for address in moved if address not in self._current]
            rounds = [(after, number) for after, number in rounds if number < 1]
        for address in moved:
            schedule = _Schedule(address, wire, _forms(wire.mac, address, router=router), asked, questions)
            self._current[address] = schedule
            for after, number in rounds:
                schedule.left += 1
                heapq.heappush(self._later, (now + after, next(self._serial), number, schedule))
        self._work()

    def _push(self, number: float, schedule: _Schedule) -> None:
        """Have the frames of one round sent: announcements, or between two rounds of these, questions."""
        found = schedule.forms if number == int(number) else schedule.ask()
        schedule.left += len(found) - 1
        for form, frame in enumerate(found):
            heapq.heappush(self._due, (number, form, next(self._serial), frame, schedule))
        self._end_if_done(schedule)

    def _end_if_done(self, schedule: _Schedule) -> None:
        if not schedule.left:
            del self._current[schedule.address]

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
            _, _, number, schedule = heapq.heappop(self._later)
            if self._current.get(schedule.address) is schedule:
                self._push(number, schedule)
        self._allowance = min(BURST, self._allowance + (now - self._allowed_at) * timers.ANNOUNCE_RATE)
        self._allowed_at = now
        while self._due and self._allowance >= 1:
            _, _, _, frame, schedule = heapq.heappop(self._due)
            if self._current.get(schedule.address) is schedule:
                self._allowance -= 1
                self._send(schedule, frame)
                schedule.left -= 1
                self._end_if_done(schedule)
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

    def _send(self, schedule: _Schedule, frame: bytes) -> None:
        try:
            schedule.wire.send(frame)
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


def _questions(mac: bytes, address: InterfaceAddress, asked: Sequence[Neighbor]) -> list[bytes]:
    """Questions from an address: one that all can hear, and each neighbour by itself as far as its MAC is known."""
    mine = address.ip
    others = [(each.address, each.mac) for each in asked if each.address != mine]
    if isinstance(mine, IPv4Address):
        found = [(each, known) for each, known in others if isinstance(each, IPv4Address)]
        to_all = [frames.arp_question(mac, mine, each) for each, _ in found[:1]]
        return to_all + [frames.arp_question(mac, mine, each, known or frames.BROADCAST) for each, known in found]
    found6 = [(each, known) for each, known in others if isinstance(each, IPv6Address)]
    to_all = [frames.neighbor_solicitation(mac, mine, each) for each, _ in found6[:1]]
    return to_all + [frames.neighbor_solicitation(mac, mine, each, known) for each, known in found6]
