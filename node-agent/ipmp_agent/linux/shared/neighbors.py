"""The neighbours of each group: whom to ask something when an address has moved.

The kernel forgets all neighbours of an interface with its carrier, so they are remembered from before.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ipmp_agent.linux.messages import neighbors, netlink

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ipmp_agent.linux.messages.netlink import Dumper
    from ipmp_api.types import Address

ENTRIES_READ = 1000
"""Entries of one interface that are looked at: tables with many thousands are not worth the time."""

PAUSE = 10.0
"""Seconds between readings."""

REMEMBERED = 64
"""Neighbours of one group, those that were heard last."""

MEMORY = 600.0
"""Seconds for which one is remembered."""


class Neighbor(NamedTuple):
    """Somebody on the link."""

    address: Address
    mac: bytes | None  # None: not known


@dataclass(slots=True)
class _Known:
    read_at: float = float("-inf")
    gateways: tuple[Address, ...] = ()
    heard: dict[Address, tuple[float, bytes]] = field(default_factory=dict)  # when it was confirmed last, and its MAC


class Neighbors:
    """What is known of the neighbours of every group."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._groups: dict[str, _Known] = {}

    def gateways(self, group: str, gateways: Iterable[Address]) -> None:
        """The gateways of a group are these now; while there are none, those of before: a failure takes them away."""
        known = self._groups.setdefault(group, _Known())
        known.gateways = tuple(gateways) or known.gateways

    async def read(self, group: str, indexes: Iterable[int], dumper: Dumper) -> None:
        """Read the kernel's entries of these interfaces, unless that was done a moment ago."""
        known = self._groups.setdefault(group, _Known())
        if self._loop.time() - known.read_at < PAUSE:
            return
        known.read_at = self._loop.time()
        for index, version in itertools.product(indexes, (4, 6)):
            try:
                bodies = await dumper.dump(netlink.RTM_GETNEIGH, neighbors.get_request(version, index))
            except OSError:
                continue  # the interface has just gone, and what is remembered has to do
            now = self._loop.time()
            for entry in map(neighbors.decode, bodies[:ENTRIES_READ]):
                if entry is not None:
                    at = now - entry.confirmed
                    before, _ = known.heard.get(entry.address, (float("-inf"), b""))
                    if at > before:
                        known.heard[entry.address] = at, entry.mac
        horizon = self._loop.time() - MEMORY
        latest = sorted(((at, a, mac) for a, (at, mac) in known.heard.items() if at > horizon), key=lambda e: -e[0])
        known.heard = {address: (at, mac) for at, address, mac in latest[:REMEMBERED]}

    def of(self, group: str, version: int, targets: Iterable[Address]) -> Sequence[Neighbor]:
        """Whom to ask, the most important first: gateways, targets of probes, and who was heard last."""
        known = self._groups.get(group, _Known())
        wanted = dict.fromkeys((*known.gateways, *targets, *known.heard))
        return [
            Neighbor(address, known.heard[address][1] if address in known.heard else None)
            for address in wanted
            if address.version == version
        ]

    def forget(self, group: str) -> None:
        """A group is gone."""
        self._groups.pop(group, None)
