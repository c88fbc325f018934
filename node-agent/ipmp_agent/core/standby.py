"""Which members are used: standby and failback.

The goal in every state: active members = min(capacity, functioning members), and at least one while any functions.
Capacity is the number of members that are not standbys, whatever their health. `settle` restores that goal by the
fewest changes, so one failure activates one standby and one repair releases one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_api.types import Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ipmp_agent.core.interface import Interface


def capacity(interfaces: Sequence[Interface]) -> int:
    """How many members are to be active: the non-standbys, at least one."""
    return max(1, sum(interface.role is Role.ACTIVE for interface in interfaces))


def gained(interface: Interface, interfaces: Sequence[Interface], *, reclaim: bool) -> list[Interface]:
    """A member works again: decide whether it is used. Returns the members whose use changed.

    `reclaim`: a non-standby takes its place back, and a standby makes room (failback, onlining, first appearance).
    Without it a non-standby waits, unless the group is below its capacity.
    """
    interface.inactive = interface.role is Role.STANDBY or not reclaim
    return settle(interfaces)


def settle(
    interfaces: Sequence[Interface], *, reclaim: bool = False, first_out: Interface | None = None
) -> list[Interface]:
    """Make exactly as many members active as the group needs. Returns those whose use changed, in order.

    Activated first: the last standby in the order of the configuration, then the first other inactive member.
    Released first: `first_out` (it has just become a standby), then the first active standby in that order.
    With `reclaim` every functioning non-standby is active before standbys are counted.
    """
    changed: list[Interface] = []
    functioning = [interface for interface in interfaces if interface.functioning]
    if reclaim:
        for interface in functioning:
            if interface.inactive and interface.role is Role.ACTIVE:
                interface.inactive = False
                changed.append(interface)
    needed = min(capacity(interfaces), len(functioning))
    while sum(not i.inactive for i in functioning) < needed:
        inactive = [interface for interface in functioning if interface.inactive]
        standbys = [interface for interface in inactive if interface.role is Role.STANDBY]
        chosen = standbys[-1] if standbys else inactive[0]
        chosen.inactive = False
        changed.append(chosen)
    while sum(not i.inactive for i in functioning) > needed:
        standbys = [i for i in functioning if not i.inactive and i.role is Role.STANDBY]
        chosen = first_out if first_out in standbys and first_out is not None else standbys[0]
        chosen.inactive = True
        changed.append(chosen)
    return changed
