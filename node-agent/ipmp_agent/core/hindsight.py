"""What the kernel knows better than the memory of an agent that was killed before it could write.

A verdict is carried out in the kernel at once, and written a moment later. Where addresses are on other members than
the agent remembers, it moved them after it had written, and for a reason: who got them works, also if it is remembered
as failed; and who lost all it had to a member that is not back from a failure has failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_agent.core.interface import BROKEN, InterfaceEvent
from ipmp_agent.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ipmp_agent.core.interface import Interface


def heed(
    moved: Iterable[tuple[str, str]],
    interfaces: Mapping[str, Interface],
    holds_any: Callable[[str], object],
    fail: Callable[[Interface], None],
    now: float,
) -> None:
    """Bring members, as they were remembered, in line with moves that were not.

    Args:
        moved: keys of the member that an address was on, as it was remembered, and of the one that it is on.
        interfaces: the members by key.
        holds_any: whether a member has any address now.
        fail: has a member prove itself before it is used.
        now: monotonic seconds.
    """
    found = [(interfaces.get(source), interfaces.get(destination)) for source, destination in dict.fromkeys(moved)]
    pairs = [(giver, taker) for giver, taker in found if giver and taker and taker.present and taker.link.usable]
    takers = {taker.key: taker for _, taker in pairs}
    repaired = {key for key, taker in takers.items() if taker.state in BROKEN}
    for giver, taker in pairs:
        emptied = giver.key not in takers and not holds_any(giver.key)
        if emptied and giver.functioning and taker.key not in repaired:
            fail(giver)
    for key, taker in takers.items():
        if key in repaired:
            taker.fire(InterfaceEvent.REPAIR, Reason.RESTORED, now)
        if taker.functioning:
            taker.inactive = False
