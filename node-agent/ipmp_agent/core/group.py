"""Who is active: standby, failback, offline and group failure.

The goal in every state: active members = min(capacity, functioning members), and at least one while any functions.
Capacity is the number of members that are not standbys, whatever their health. `settle` restores that goal by the
fewest changes, so one failure activates one standby and one repair releases one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_agent.core.snapshot import GroupState
from ipmp_api.types import Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ipmp_agent.core.interface import Interface
    from ipmp_agent.core.probing import Prober


def capacity(interfaces: Sequence[Interface]) -> int:
    """How many members are to be active: the non-standbys, at least one."""
    return max(1, sum(interface.role is Role.ACTIVE for interface in interfaces))


def group_state(interfaces: Sequence[Interface]) -> GroupState:
    """ok: every member is usable; degraded: some; failed: none."""
    usable = sum(interface.functioning for interface in interfaces)
    if not usable:
        return GroupState.FAILED
    return GroupState.OK if usable == len(interfaces) else GroupState.DEGRADED


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


def is_interface_failure(suspect: Interface, first_loss: float, interfaces: Sequence[Interface], margin: float) -> bool:
    """Whether the probes lost by `suspect` are its own fault: some other member has proof that the link works.

    Proof is an answer to a probe sent later than the suspect's first loss, by `margin` seconds: at the moment all
    targets die, an answer may still be under way. A member that no probe can judge is trusted while its link is up.
    An offline member is no proof.
    """
    for other in interfaces:
        if other is suspect or not other.functioning or not other.link.usable:
            continue
        if not other.capable:
            return True
        successes = [p.last_success for p in other.probers.values() if p.capable and p.last_success is not None]
        if successes and max(successes) > first_loss + margin:
            return True
    return False


def failing_probers(interface: Interface, now: float, detection_time: float) -> list[Prober]:
    """The probers that condemn a member: all that can judge, or none. One healthy family keeps a NIC up."""
    judges = [prober for prober in interface.probers.values() if prober.capable and prober.running]
    if interface.quiet(now) or not all(prober.failing(now, detection_time) for prober in judges):
        return []
    return judges


def may_go_offline(interface: Interface, interfaces: Sequence[Interface]) -> bool:
    """Whether at least one other member can do the work; in a failed group every other one that is not offline."""
    others = [other for other in interfaces if other is not interface]
    if group_state(interfaces) is GroupState.FAILED:
        return any(not other.offline and other.present for other in others)
    return any(other.functioning for other in others)


def mac_holder(interface: Interface, interfaces: Sequence[Interface]) -> Interface | None:
    """Another member that has the same MAC address and is online."""
    return next(
        (
            other
            for other in interfaces
            if other is not interface
            and other.present
            and not other.offline
            and other.facts is not None
            and interface.facts is not None
            and other.facts.mac == interface.facts.mac
        ),
        None,
    )
