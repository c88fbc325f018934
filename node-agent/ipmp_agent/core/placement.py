"""Which data address sits on which member.

Each family is spread on its own: an address goes to the active member with the fewest, a member that becomes active
takes the most recently bound ones of the fullest member until it has its share, one that loses an address for good
takes one from a member that has two more, and nothing else moves. With no active member, and none that makes do,
everything stays where it is.

An adopted address has a home, the member that the host put it on. It stays there while that works, standby or not;
when its home becomes active again it goes there first, whatever the shares; and it is never lent to another.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from ipmp_agent.core import timers
from ipmp_agent.core.actions import Move
from ipmp_agent.core.events import SavedMoves
from ipmp_agent.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from ipmp_api.types import InterfaceAddress


_FAMILIES = (4, 6)
_MOVES_BEFORE_FAILBACK_WAITS = timers.MOVE_BUDGET - 1


class Placement:
    """The binding of data addresses to members, in the order they were bound."""

    __slots__ = (
        "_bound",
        "_held",
        "_homes",
        "_moved_at",
        "_relieved",
        "_vacated",
        "claims",
        "refused",
        "retry_at",
        "unable",
    )

    def __init__(self) -> None:
        self._bound: dict[InterfaceAddress, str | None] = {}
        self._held: dict[tuple[str, int], dict[InterfaceAddress, None]] = {}  # by member and family, in binding order
        self._homes: dict[InterfaceAddress, str] = {}  # of the adopted ones
        self._moved_at: dict[InterfaceAddress, deque[float]] = {}
        self._vacated: dict[InterfaceAddress, str] = {}  # until it is settled where they go: who had them
        self._relieved: list[tuple[str, int]] = []  # members that lost an address of this family for good
        self.retry_at = timers.NEVER  # when what waits for the move budget may go on
        self.claims: list[str] = []  # members entitled to take a share from the others, in the order they came
        self.unable: Collection[tuple[str, int]] = ()  # members that cannot carry addresses of this family
        self.refused: dict[InterfaceAddress, tuple[Reason, str]] = {}  # cannot be had: by whom, in words

    def restore(self, moves: Iterable[SavedMoves], now: float) -> None:
        """Go on with the budgets of an earlier run; not with times of another clock."""
        for saved in moves:
            if at := [moment for moment in saved.at if moment <= now]:
                self._moved_at[saved.address] = deque(at, maxlen=_MOVES_BEFORE_FAILBACK_WAITS)

    @property
    def moved(self) -> tuple[SavedMoves, ...]:
        """When each address was moved last."""
        return tuple(SavedMoves(address, tuple(at)) for address, at in self._moved_at.items())

    def holder(self, address: InterfaceAddress) -> str | None:
        """The member that has the address."""
        return self._bound.get(address)

    def addresses(self, member: str) -> list[InterfaceAddress]:
        """The addresses of a member, by family, the most recently bound last."""
        return [address for family in _FAMILIES for address in self._held.get((member, family), ())]

    def is_adopted(self, address: InterfaceAddress) -> bool:
        """Whether the host brought the address, and not the configuration."""
        return address in self._homes

    @property
    def all(self) -> list[InterfaceAddress]:
        """Every data address, in the order of the configuration."""
        return list(self._bound)

    def configure(self, wanted: Sequence[InterfaceAddress], *, homes: Collection[str] = ()) -> list[Move]:
        """Take the complete list of data addresses: new ones are bound later, those gone are withdrawn now.

        `homes`: the members whose adopted addresses stay adopted. One that the configuration now names is no longer.
        """
        named = {address.ip: address for address in wanted}
        renamed = [(a, named[a.ip]) for a in self._homes if a.ip in named and a != named[a.ip]]
        self._homes = {a: home for a, home in self._homes.items() if home in homes and a.ip not in named}
        wanted = [*wanted, *self._homes]
        bound = self._bound
        self._bound = {**bound, **{new: None for _, new in renamed if new not in bound}}
        for old, new in renamed:  # with another prefix length
            if (holder := self.unbind(old)) is not None:
                self._bind(new, holder)
        wanted_set = set(wanted)
        moves = []
        for address in [a for a in self._bound if a not in wanted_set]:
            if holder := self.unbind(address):
                self._relieved.append((holder, address.version))
                moves.append(Move(address, holder, None, Reason.ADDRESS_REMOVED))
            self._forget(address)
        self._bound = {address: self._bound.get(address) for address in wanted}
        return moves

    def _forget(self, address: InterfaceAddress) -> None:
        del self._bound[address]
        self.refused.pop(address, None)

    def adopt(self, address: InterfaceAddress, home: str, member: str | None) -> None:
        """Take an address that the host has on a member."""
        self._homes[address] = home
        self._bound.setdefault(address, None)
        if member is not None:
            self.found(address, member)

    def release(self, address: InterfaceAddress) -> None:
        """Leave an adopted address where it is, to the host."""
        if self._homes.pop(address, None) is not None:
            self.unbind(address)
            self._forget(address)

    def found(self, address: InterfaceAddress, member: str | None) -> bool:
        """An address is on this member, or on none, says the kernel; True when it is a data address of ours."""
        if address not in self._bound:
            return False
        if member is None:
            self.unbind(address)
        elif self._bound[address] != member:
            self._bind(address, member)
        return True

    def refuse(self, address: InterfaceAddress, reason: Reason, detail: str) -> None:
        """The address cannot be had until it is cleared."""
        if holder := self.unbind(address):
            self._relieved.append((holder, address.version))
        self.refused[address] = (reason, detail)

    def unbind(self, address: InterfaceAddress) -> str | None:
        """The address is on no member any more. Returns who had it."""
        holder = self._bound.get(address)
        if holder is not None:
            del self._held[holder, address.version][address]
            self._bound[address] = None
        return holder

    def vacate(self, member: str) -> None:
        """The member is back without what it had: that may go to any, and is put back there if it goes to none."""
        for address in self.addresses(member):
            self.unbind(address)
            self._vacated[address] = member

    def keep_vacated(self) -> None:
        """What was vacated and went to no other member is where it was again."""
        for address, member in self._vacated.items():
            if address in self._bound and self._bound[address] is None and address not in self.refused:
                self._bind(address, member)
        self._vacated.clear()

    def _bind(self, address: InterfaceAddress, member: str) -> None:
        self.unbind(address)
        self._bound[address] = member
        self._held.setdefault((member, address.version), {})[address] = None

    def place(
        self,
        active: Sequence[str],
        now: float,
        why: Callable[[str], Reason],
        *,
        waiting: Collection[str] = (),
    ) -> list[Move]:
        """Bring every address onto an active member, then give claimants their share.

        `active` is in the order of activation. `why` names the reason of leaving a member that is not active: with
        FAILBACK that member works, and the address stays on it until its budget allows the move.
        `waiting`: members that are not active and keep what they have for now; until they are back or given up,
        nobody claims a share.
        """
        self.retry_at = timers.NEVER
        if not active:
            return []
        self.claims = [member for member in dict.fromkeys(self.claims) if member in active]
        sharing = not waiting and bool(self.claims or self._relieved)
        moves: list[Move] = []
        for family in _FAMILIES:
            able = self._able(active, family)
            counts = self._counts(able, family)
            moves += self._house(counts, family, now, why, waiting)
            if sharing:
                moves += self._return_home(counts, family, now)
                moves += self._share(able, counts, family, now)
                moves += self._rebalance(able, counts, family, now)
        if not waiting:
            self._relieved.clear()
            if self.retry_at == timers.NEVER:
                self.claims.clear()
        if sharing:
            moves = self._merge(moves)
        self._forget_old_moves(moves, now)
        return moves

    def make_do(
        self, linked: Sequence[str], now: float, why: Callable[[str], Reason], *, waiting: Collection[str]
    ) -> list[Move]:
        """No member works: bring what is not on one of these onto one of them. Who claims a share goes on waiting.

        `waiting`: members that are none of these and keep what they have.
        """
        self.retry_at = timers.NEVER
        moves = [
            move
            for family in _FAMILIES
            for move in self._house(self._counts(self._able(linked, family), family), family, now, why, waiting)
        ]
        self._forget_old_moves(moves, now)
        return moves

    def _able(self, members: Iterable[str], family: int) -> list[str]:
        return [member for member in members if (member, family) not in self.unable]

    def _counts(self, members: Iterable[str], family: int) -> dict[str, int]:
        return {member: len(self._held.get((member, family), ())) for member in members}

    def _house(
        self, counts: dict[str, int], family: int, now: float, why: Callable[[str], Reason], waiting: Collection[str]
    ) -> list[Move]:
        """Give every address a member of `counts`, which is in the order of activation and is kept up to date."""
        moves: list[Move] = []
        if not counts:
            return moves
        homeless = [
            (address, holder)
            for address, holder in self._bound.items()
            if address.version == family
            and holder not in counts
            and address not in self.refused
            and holder not in waiting
        ]
        for address, holder in homeless:
            reason = why(holder) if holder else Reason.ADDRESS_ADDED
            if (holder, family) in self.unable and reason is Reason.FAILBACK:
                reason = Reason.FAMILY_MISSING
            home = self._homes.get(address)
            if reason is Reason.FAILBACK and (holder == home or not self._ready(address, now)):
                continue
            # Of members with equally many addresses min() takes the first: the one activated earliest.
            target = home if home in counts else min(counts, key=counts.__getitem__)
            counts[target] += 1
            moves.append(self._move(address, target, reason, now))
        return moves

    def _forget_old_moves(self, moves: Sequence[Move], now: float) -> None:
        """Drop old budgets; until then an address that was taken out keeps its own, for it may be put back."""
        if moves:
            self._moved_at = {a: at for a, at in self._moved_at.items() if at and at[-1] > now - timers.MOVE_WINDOW}

    def _merge(self, moves: Iterable[Move]) -> list[Move]:
        """One move for each address: a share may be taken from a member that has just got its own."""
        merged: dict[InterfaceAddress, Move] = {}
        for move in moves:
            first = merged.get(move.address)
            if first is None:
                merged[move.address] = move
            else:
                merged[move.address] = replace(first, destination=move.destination)
                self._moved_at[move.address].pop()  # `_move` counted both, and the address moves once
        return list(merged.values())

    def _return_home(self, counts: dict[str, int], family: int, now: float) -> list[Move]:
        """Members that are active again get the adopted addresses back that were found on them."""
        moves = []
        for address, home in self._homes.items():
            holder = self._bound[address]
            wanted = address.version == family and home in self.claims and home in counts
            if not wanted or holder == home or holder not in counts:
                continue
            if self._ready(address, now):
                counts[holder] -= 1
                counts[home] += 1
                moves.append(self._move(address, home, Reason.FAILBACK, now))
        return moves

    def _fullest(self, active: Sequence[str], counts: dict[str, int], family: int) -> str:
        """The member with the most addresses among those that can lend one."""
        lenders = [m for m in active if any(a not in self._homes for a in self._held.get((m, family), ()))]
        return max(lenders or active, key=counts.__getitem__)

    def _share(self, active: Sequence[str], counts: dict[str, int], family: int, now: float) -> list[Move]:
        moves = []
        for claimant in [claimant for claimant in self.claims if claimant in counts]:
            while True:
                fullest = self._fullest(active, counts, family)
                if counts[claimant] + 1 >= counts[fullest]:
                    break
                address = self._most_recent_movable(fullest, family, now)
                if address is None:
                    break
                counts[fullest] -= 1
                counts[claimant] += 1
                moves.append(self._move(address, claimant, Reason.FAILBACK, now))
        return moves

    def _rebalance(self, active: Sequence[str], counts: dict[str, int], family: int, now: float) -> list[Move]:
        """A member that lost an address takes one from the fullest, if that has at least two more."""
        moves = []
        for member in [m for m, version in self._relieved if version == family and m in counts]:
            fullest = self._fullest(active, counts, family)
            if counts[fullest] >= counts[member] + 2:
                address = self._most_recent_movable(fullest, family, now)
                if address is not None:
                    counts[fullest] -= 1
                    counts[member] += 1
                    moves.append(self._move(address, member, Reason.REBALANCE, now))
        return moves

    def _most_recent_movable(self, member: str, family: int, now: float) -> InterfaceAddress | None:
        held = self._held.get((member, family), {})
        return next((a for a in reversed(held) if a not in self._homes and self._ready(a, now)), None)

    def _ready(self, address: InterfaceAddress, now: float) -> bool:
        """Whether a move that nothing forces is within the budget; if not, it is looked at again in time."""
        ready = self._ready_at(address)
        if ready <= now:
            return True
        self.retry_at = min(self.retry_at, ready)
        return False

    def _move(self, address: InterfaceAddress, member: str, reason: Reason, now: float) -> Move:
        source = self._bound[address]
        if source is not None:
            self._moved_at.setdefault(address, deque(maxlen=_MOVES_BEFORE_FAILBACK_WAITS)).append(now)
        self._bind(address, member)
        return Move(address, source, member, reason)

    def _ready_at(self, address: InterfaceAddress) -> float:
        """When a failback may move the address: it leaves one move of the budget to the failover that may follow."""
        moved = self._moved_at.get(address)
        return moved[0] + timers.MOVE_WINDOW if moved and len(moved) == _MOVES_BEFORE_FAILBACK_WAITS else 0.0

    def stop_waiting(self) -> None:
        """Nothing is to be moved for now, whatever waits."""
        self.retry_at = timers.NEVER
