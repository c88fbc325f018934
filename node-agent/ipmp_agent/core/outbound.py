"""Which members carry outbound traffic, and the one that stands for the group in multicast and broadcast."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_agent.core.actions import SetNominee, SetOutbound

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Outbound:
    """What was ordered last."""

    __slots__ = ("carriers", "nominee")

    def __init__(self) -> None:
        self.carriers: SetOutbound | None = None
        self.nominee: str | None = None

    def changes(self, active: Sequence[str], *, spreading: bool) -> Iterator[SetNominee | SetOutbound]:
        """The orders that follow from who is active, in the order of activation.

        The nominee stays while it is active and is not moved back. A failed group keeps its routes.
        """
        nominee = self.nominee if self.nominee in active else next(iter(active), None)
        if nominee != self.nominee:
            self.nominee = nominee
            yield SetNominee(nominee, nominee)
        if not active:
            return
        names = tuple(active) if spreading else (active[0],)
        carriers = SetOutbound(names, names)
        if carriers != self.carriers:
            self.carriers = carriers
            yield carriers
