"""Why an address of the host that another program took off a member is gone: given up by its owner, or swept away."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipmp_api.types import Address

QUIET = 0.05
"""Seconds without a further deletion on the member after which the last one is judged: who sweeps takes less."""

LONGEST = 0.25
"""Seconds after the first deletion in which one is judged in any case."""


@dataclass(slots=True)
class _Departure:
    """Deletions on one member that may be one deed."""

    began: float
    last: float
    stood: dict[int, set[Address]]  # global addresses before the first, by IP version; those deleted are taken out
    gone: dict[int, int] = field(default_factory=dict)  # global addresses deleted, by IP version
    waiting: set[Address] = field(default_factory=set)  # of the host: to be judged
    networks: set[int] = field(default_factory=set)  # IP versions of which an address went that brings a prefix
    ours: bool = False  # something of this agent's, or of the kernel's, went too

    @property
    def swept(self) -> bool:
        """Whether whoever did this looked at the interface and not at one address.

        An owner takes what it brought, often many single host addresses at once. Who takes what is ours, or the
        kernel's own link-local address, or all there is of one IP version with the network that it is on, cleans up.
        """
        return self.ours or any(
            count > 1 and not self.stood.get(version) and version in self.networks
            for version, count in self.gone.items()
        )

    @property
    def due(self) -> float:
        """When it is judged."""
        return min(self.last + QUIET, self.began + LONGEST)


@frozen
class DepartureVerdict:
    """What became of addresses of the host that were deleted on a member."""

    member: str
    addresses: frozenset[Address]
    swept: bool  # else they were given up


class Departures:
    """Judges the deletions that others make on the members of one group. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._by_member: dict[str, _Departure] = {}

    @property
    def waiting(self) -> frozenset[Address]:
        """The addresses that wait for their verdict."""
        return frozenset().union(*(departure.waiting for departure in self._by_member.values()))

    @property
    def members(self) -> set[str]:
        """The members with addresses that wait for their verdict."""
        return {member for member, departure in self._by_member.items() if departure.waiting}

    def deleted(
        self,
        member: str,
        address: Address,
        stood: Iterable[Address],
        now: float,
        *,
        ours: bool,
        adopted: bool,
        single: bool = False,
    ) -> None:
        """Somebody else deleted an address.

        Args:
            member: where.
            address: which.
            stood: the global addresses that were there before, this one included.
            now: when.
            ours: it is this agent's own, or the kernel's.
            adopted: it is the host's, and to be judged.
            single: it is a single host address (/32, /128), which brings no prefix.
        """
        departure = self._by_member.get(member)
        if departure is None:
            before: dict[int, set[Address]] = {4: set(), 6: set()}
            for each in stood:
                before[each.version].add(each)
            departure = self._by_member[member] = _Departure(now, now, before)
        departure.last = now
        departure.ours = departure.ours or ours
        if address in departure.stood[address.version]:
            departure.stood[address.version].remove(address)
            departure.gone[address.version] = departure.gone.get(address.version, 0) + 1
            if not single:
                departure.networks.add(address.version)
        if adopted:
            departure.waiting.add(address)

    def returned(self, address: Address) -> None:
        """It is there again: nothing is to be judged."""
        for departure in self._by_member.values():
            departure.waiting.discard(address)

    def forget(self, member: str) -> None:
        """The member is gone with all it had."""
        self._by_member.pop(member, None)

    @property
    def due(self) -> float | None:
        """When to judge next; None: nothing waits."""
        return min((departure.due for departure in self._by_member.values()), default=None)

    def judge(self, now: float) -> list[DepartureVerdict]:
        """What can be said by now. A sweep is known as one before it is over."""
        verdicts = []
        for member, departure in list(self._by_member.items()):
            over = departure.due <= now
            if departure.waiting and (over or departure.swept):
                verdicts.append(DepartureVerdict(member, frozenset(departure.waiting), departure.swept))
                departure.waiting.clear()
            if over:
                del self._by_member[member]
        return verdicts
