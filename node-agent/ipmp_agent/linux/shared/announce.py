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
from collections import deque
from dataclasses import dataclass, field
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
    router: bool
    asked: Asked
    questions: int  # in one round
    left: int  # rounds to come, and frames to be sent; none: it has ended

    def frames(self, number: float) -> Sequence[bytes]:
        """The frames of one round: announcements, or between two rounds of these, questions."""
        if number == int(number):
            return _forms(self.wire.mac, self.address, router=self.router)
        return _questions(self.wire.mac, self.address, self.asked(self.address.version))[: self.questions]


@dataclass(slots=True, eq=False)
class _Round:
    """One form of one round, of addresses that are announced together; a frame is made when it is its turn."""

    waiting: deque[tuple[_Schedule, Sequence[bytes]]]  # with all frames of the round, which the first form makes
    rest: deque[tuple[_Schedule, Sequence[bytes]]] = field(default_factory=deque)  # those that have another form


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
        self._later: list[tuple[float, int, float, tuple[_Schedule, ...]]] = []  # due, serial, number of the round
        self._due: list[tuple[float, int, int, _Round]] = []  # number of the round, form, serial
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
        moved = list(dict.fromkeys(addresses))
        questions = max(1, min(QUESTIONS_OF_ONE, QUESTIONS // max(1, len(moved))))
        rounds = [(after, float(number)) for number, after in enumerate(timers.ANNOUNCE_AT)]
        rounds += [(after, sum(at <= after for at in timers.ANNOUNCE_AT) - 0.5) for after in QUESTIONS_AT]
        if once:
            moved = [address for address in moved if address not in self._current]
            rounds = [(after, number) for after, number in rounds if number < 1]
        schedules = tuple(
            _Schedule(address, wire, router, asked, questions, left=len(rounds)) for address in moved if rounds
        )
        self.cancel(moved)
        self._current.update((schedule.address, schedule) for schedule in schedules)
        if schedules:
            for after, number in rounds:
                heapq.heappush(self._later, (now + after, next(self._serial), number, schedules))
        self._work()

    def cancel(self, addresses: Iterable[InterfaceAddress]) -> None:
        """Announce these no more."""
        for address in addresses:
            if (schedule := self._current.pop(address, None)) is not None:
                schedule.left = 0

    def leave(self, wire: Wire) -> None:
        """Announce nothing more on this wire: its interface is gone."""
        self.cancel([address for address, schedule in self._current.items() if schedule.wire is wire])

    def close(self) -> None:
        """Announce nothing more."""
        self.cancel(list(self._current))
        if self._timer is not None:
            self._timer.cancel()

    def _work(self) -> None:
        now = self._loop.time()
        while self._later and self._later[0][0] <= now:
            _, serial, number, schedules = heapq.heappop(self._later)
            heapq.heappush(self._due, (number, 0, serial, _Round(deque((each, ()) for each in schedules))))
        self._allowance = min(BURST, self._allowance + (now - self._allowed_at) * timers.ANNOUNCE_RATE)
        self._allowed_at = now
        while self._due and self._allowance >= 1:
            number, form, _, due = self._due[0]
            if due.waiting:
                self._send_next(number, form, due)
                continue
            heapq.heappop(self._due)
            if due.rest:
                heapq.heappush(self._due, (number, form + 1, next(self._serial), _Round(due.rest)))
        self._rearm()

    def _send_next(self, number: float, form: int, due: _Round) -> None:
        """Send the next frame of a round, unless its address moved since or, of questions, nobody is to be asked."""
        schedule, made = due.waiting.popleft()
        if not schedule.left:
            return
        if form == 0:
            made = schedule.frames(number)
            schedule.left += len(made) - 1
        if made:
            self._allowance -= 1
            self._send(schedule, made[form])
            schedule.left -= 1
        if form + 1 < len(made):
            due.rest.append((schedule, made))
        if not schedule.left:
            del self._current[schedule.address]

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
