"""Which members carry outbound traffic, and the one that stands for the group in multicast and broadcast."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ipmp_agent.core.actions import SetNominee, SetOutbound

if TYPE_CHECKING:
    from collections.abc import Sequence


class OutboundOrders(NamedTuple):
    """What is to be ordered now: at most one of each."""

    carriers: tuple[SetOutbound, ...]
    nominee: tuple[SetNominee, ...]
    urgent: bool  # none of those that carried until now carries any more


NOTHING = OutboundOrders((), (), urgent=False)


class Outbound:
    """What was ordered last."""

    __slots__ = ("_in_use", "carriers", "nomination")

    def __init__(self) -> None:
        self.carriers: SetOutbound | None = None
        self.nomination = SetNominee(None, None)
        self._in_use: tuple[str, ...] = ()  # until anything is ordered those of an earlier run

    def restore(self, nominee: str | None, carriers: tuple[str, ...]) -> None:
        """Go on with those of an earlier run; all is ordered anew, for nobody but the core remembers them."""
        self.nomination = SetNominee(nominee, nominee)
        self._in_use = carriers

    @property
    def nominee(self) -> str | None:
        """The member that stands for the group."""
        return self.nomination.ipv4

    @property
    def in_use(self) -> tuple[str, ...]:
        """The members that carry, in the order of activation."""
        return self._in_use

    def changes(
        self, active: Sequence[str], working: Sequence[str], *, spreading: bool, makeshift: bool = False
    ) -> OutboundOrders:
        """The orders that follow from who may carry, in the order of activation, and who works.

        The nominee stays while it may carry and is not moved back. A group in which nobody may keeps its routes.
        """
        names = tuple(active) if spreading else tuple(active[:1])
        if not names and self.carriers is None:
            names = self._in_use
        carriers = SetOutbound(names, names)
        changed = bool(names) and carriers != self.carriers
        urgent = changed and self.carriers is not None and set(self.carriers.ipv4).isdisjoint(names)
        if changed:
            self.carriers, self._in_use = carriers, names
        nominee = self.nominee if self.nominee in active else next(iter(active), None)
        nomination = SetNominee(nominee, nominee, tuple(working), makeshift)
        nominated = nomination != self.nomination
        self.nomination = nomination
        return OutboundOrders((carriers,) if changed else (), (nomination,) if nominated else (), urgent)
