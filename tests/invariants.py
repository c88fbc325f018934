"""What must hold at every moment, whatever broke: stated once, asked by lab, cluster and chaos tests.

Each check takes what was observed (a kernel dump, a status, a log) and raises `Violated` with the evidence. A check
of a moving system is asked until it holds within its second (I6) or at a moment of rest: see `settled`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from tests.lab.dump import KernelDump

MOVE_BUDGET, MOVE_WINDOW = 4, 180.0


class ViolatedError(AssertionError):
    """An invariant does not hold; the message names it and shows the evidence."""


@dataclass(frozen=True)
class MemberView:
    """One member as a status tells it, from whichever place the status came."""

    name: str
    usable: bool
    active: bool
    standby: bool = False


@dataclass(frozen=True)
class GroupView:
    """One group as a status tells it: its members, and where it says each data address (no prefix length) sits."""

    name: str
    state: str
    members: tuple[MemberView, ...]
    addresses: Mapping[str, str | None]

    @property
    def usable(self) -> set[str]:
        """Names of the members that work."""
        return {member.name for member in self.members if member.usable}

    @property
    def active(self) -> set[str]:
        """Names of the members that carry or may carry data addresses."""
        return {member.name for member in self.members if member.active}


def _demand(holds: object, name: str, evidence: str) -> None:
    if not holds:
        raise ViolatedError(f"{name}: {evidence}")


def every_address_has_one_home(group: GroupView, kernel: KernelDump) -> None:
    """I1: each data address is on exactly one member, and that one is usable whenever any is."""
    members = {member.name for member in group.members}
    for address in group.addresses:
        holders = kernel.holders(address)
        inside = [holder for holder in holders if holder in members]
        _demand(len(inside) == 1, "I1", f"{address} sits on {holders} (members {sorted(members)})")
        if group.usable:
            _demand(inside[0] in group.usable, "I1", f"{address} sits on {inside[0]}, usable: {sorted(group.usable)}")


def homes(addresses: Iterable[str], kernel: KernelDump) -> dict[str, tuple[str, ...]]:
    """Return where each address sits in the kernel: what `nothing_moved` compares."""
    return {address: tuple(sorted(kernel.holders(address))) for address in addresses}


def nothing_moved(before: Mapping[str, tuple[str, ...]], after: Mapping[str, tuple[str, ...]], cause: str) -> None:
    """I2: no address moves on group failure, agent death or start, API loss, upgrade, or by a dead target."""
    moved = {address: (home, after.get(address)) for address, home in before.items() if after.get(address) != home}
    _demand(not moved, "I2", f"moved by {cause}: {moved}")


def as_many_active_as_possible(group: GroupView) -> None:
    """I3: active = min(members not standby, usable): at least one if any is usable; and none that is not usable."""
    _demand(group.active <= group.usable, "I3", f"active {sorted(group.active)} but usable {sorted(group.usable)}")
    capacity = max(1, sum(1 for member in group.members if not member.standby))
    wanted = min(capacity, len(group.usable))
    _demand(len(group.active) == wanted, "I3", f"{len(group.active)} active, not {wanted}: {group.members}")


def budget_kept(moves: Mapping[str, Sequence[float]], unforced: Mapping[str, Sequence[float]] | None = None) -> None:
    """I4: no address makes a move that could wait as its fifth within 180 s (RFC 7432, section 15.1).

    `moves` are the times of all moves by address; `unforced` those among them that nothing forced (failback,
    rebalancing). Without it every move counts as unforced.
    """
    for address, all_times in moves.items():
        times = sorted(all_times)
        for time in sorted(times if unforced is None else unforced.get(address, ())):
            recent = [one for one in times if time - MOVE_WINDOW < one <= time]
            _demand(len(recent) <= MOVE_BUDGET, "I4", f"{address} moved {len(recent)} times in 180 s: {recent}")


def as_it_was_found(before: KernelDump, after: KernelDump) -> None:
    """I5: what is not ours is as we found it: the dump before equals the dump after withdrawal."""
    difference = before.difference(after)
    _demand(not difference, "I5", f"left behind (+) or missing (-):\n{difference}")


def one_story(group: GroupView, kernel: KernelDump, others: Iterable[GroupView] = ()) -> None:
    """I6: status, kernel and every other teller (ipmpstat, Kubernetes, metrics) agree, within a second of a change."""
    for address, told in group.addresses.items():
        holders = [holder for holder in kernel.holders(address) if holder in {m.name for m in group.members}]
        _demand(holders == ([told] if told else []), "I6", f"{address}: status says {told}, kernel {holders}")
    for one, other in itertools.pairwise([group, *others]):
        _demand(one == other, "I6", f"two stories:\n{one}\n{other}")


TROUBLE = ("Traceback (most recent call last)", "never retrieved", "never awaited", "Exception ignored")


def no_unhandled_exception(log: str) -> None:
    """I7: no log holds an unhandled exception, nor asyncio's word for one."""
    lines = log.splitlines()
    found = [i for i, line in enumerate(lines) if any(word in line for word in TROUBLE)]
    _demand(not found, "I7", "\n".join(lines[max(0, found[0] - 3) : found[0] + 40]) if found else "")


def settled(group: GroupView, kernel: KernelDump) -> None:
    """Check all that holds whenever the group is at rest: I1, I3 and I6."""
    every_address_has_one_home(group, kernel)
    as_many_active_as_possible(group)
    one_story(group, kernel)


def duplicates(addresses: Collection[str]) -> list[str]:
    """Return the addresses that occur more than once: over a whole cluster no data address may."""
    return [address for address, count in Counter(addresses).items() if count > 1]
