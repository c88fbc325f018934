"""Of several routers of one route those that are silent: their neighbour entries failed on every member that carries.

The kernel alone finds a dead one of several routes by its neighbour entry, and keeps on using a dead leg of one route.
A twin has all of them as legs, so silent ones are taken out of it, and watched until they answer again.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ipmp_agent.linux.messages import neighbors, netlink, routes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ipmp_agent.linux.shared.host import Host
    from ipmp_api.types import Address

log = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between looks at the neighbour entries of routers that share a route."""

CONFIRM = 5.0
"""Seconds after which a router that was heard is asked again."""

ROUTERS = 64
"""Routers watched at most."""

UNREACHED = frozenset({errno.ENETDOWN, errno.ENETUNREACH, errno.EINVAL})
"""What asking meets where an interface goes down in this moment, or an entry changes."""


class Exit(NamedTuple):
    """A way out, whichever member it is taken by."""

    gateway: bytes | None  # packed
    weight: int
    details: bytes  # as in `Leg`


class Ways(NamedTuple):
    """How a route may be left by, the routers to be preferred first."""

    exits: tuple[Exit, ...]
    spare: tuple[Exit, ...] = ()  # of routes of the same metric that are worse: used when all others are silent


class RouterSurroundings(Protocol):
    """What this needs to know of the rest of the group."""

    def carriers(self, version: int) -> list[int]:
        """Interface indexes of the members that carry outbound traffic now."""


class Routers:
    """Watches the routers that share routes of one group.

    Args:
        group: its name.
        host: what all groups share.
        around: the rest of the group.
        changed: called when one falls silent or answers again.
    """

    def __init__(self, group: str, host: Host, around: RouterSurroundings, changed: Callable[[], None]) -> None:
        self._group = group
        self._host = host
        self._around = around
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._sharing: frozenset[bytes] = frozenset()
        self._asked: dict[tuple[bytes, int], float] = {}  # monotonic seconds, by router and interface index
        self._failed: dict[tuple[bytes, int], bool] = {}  # by the same: what the kernel found out last
        self._timer: asyncio.TimerHandle | None = None
        self.silent: frozenset[bytes] = frozenset()
        """Packed gateways that do not answer."""

    def watch(self, sharing: Iterable[bytes]) -> None:
        """Watch these gateways, packed, and no others."""
        self._sharing = frozenset(sorted(sharing)[:ROUTERS])
        self.silent &= self._sharing
        if self._sharing and self._timer is None:
            self._timer = self._loop.call_later(INTERVAL, self._look)
        elif not self._sharing:
            self.close()

    def close(self) -> None:
        """Watch none."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._asked, self._failed = {}, {}
        self._sharing = self.silent = frozenset()

    def usable(self, ways: Ways) -> tuple[Exit, ...]:
        """The exits by routers that answer; where none does, all that are preferred."""
        if not self.silent:
            return ways.exits
        answering = (self._answering(ways.exits), self._answering(ways.spare), ways.exits)
        return next(exits for exits in answering if exits)

    def _answering(self, exits: Sequence[Exit]) -> tuple[Exit, ...]:
        return tuple(each for each in exits if each.gateway not in self.silent)

    def _look(self) -> None:
        self._timer = self._loop.call_later(INTERVAL, self._look)
        silent = frozenset(gateway for gateway in self._sharing if self._is_silent(gateway))
        if silent == self.silent:
            return
        for gateway in sorted(silent ^ self.silent):
            what = "does not answer, and is left out while others of its routes do" if gateway in silent else "answers"
            log.info("%s: router %s %s", self._group, routes.address_of(gateway), what)
        self.silent = silent
        self._changed()

    def _is_silent(self, gateway: bytes) -> bool:
        """Look at a router on every member that carries, and have the kernel ask it again.

        One that a member hears, or that a member has not asked to the end yet, is not silent.
        """
        address = routes.address_of(gateway)
        verdicts = []
        for index in self._around.carriers(address.version):
            body = neighbors.find_request(index, address)
            entry = self._host.channel.ask(netlink.message(netlink.RTM_GETNEIGH, 0, body))
            state = neighbors.state_of(entry) if entry is not None else 0
            if state & (neighbors.NUD_ANSWERED | neighbors.NUD_FAILED):
                self._failed[gateway, index] = bool(state & neighbors.NUD_FAILED)
            verdicts.append(self._failed.get((gateway, index), False))
            self._ask(address, index, state, entry)
        return bool(verdicts) and all(verdicts)

    def _ask(self, address: Address, index: int, state: int, entry: bytes | None) -> None:
        """Have the kernel find out by its own means: what failed is resolved anew, what is known is confirmed."""
        key, now = (address.packed, index), self._loop.time()
        if state & neighbors.NUD_INCOMPLETE or now < self._asked.get(key, float("-inf")) + CONFIRM:
            return
        if entry is None or not state & neighbors.NUD_ANSWERED:
            self._host.send([neighbors.resolve(index, address)], expected=UNREACHED)
        elif state & (neighbors.NUD_REACHABLE | neighbors.NUD_STALE):
            self._asked[key] = now
            self._host.send([neighbors.confirm(entry)], expected=UNREACHED)
