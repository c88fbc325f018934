"""What lost and answered probes say of a member: whether it is condemned, and whether it is to blame or the link is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ipmp_agent.core.interface import Interface
    from ipmp_agent.core.probing import Prober


def is_interface_failure(suspect: Interface, since: float, interfaces: Sequence[Interface], margin: float) -> bool:
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
        if successes and max(successes) > since + margin:
            return True
    return False


def first_loss(condemning: Sequence[Prober]) -> float:
    """When the first probe was lost that condemns."""
    return min(prober.first_loss() for prober in condemning)


def failing_probers(interface: Interface, now: float, detection_time: float) -> list[Prober]:
    """The probers that condemn a member: all that can judge, or none. One healthy family keeps a NIC up."""
    judges = [prober for prober in interface.probers.values() if prober.capable and prober.running]
    return judges if all(prober.failing(now, detection_time) for prober in judges) else []
