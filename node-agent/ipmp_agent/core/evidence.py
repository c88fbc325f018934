"""What lost and answered probes say of a member: whether it is condemned, and whether it is to blame or the link is."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from ipmp_agent.core import timers
from ipmp_agent.core.probing import ProbeState
from ipmp_agent.core.words import TargetState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ipmp_agent.core.interface import Interface
    from ipmp_agent.core.probing import Prober


class Culprit(Enum):
    """Whose fault it is that a member is not answered."""

    MEMBER = "member"
    TARGETS = "targets"  # or the link behind all members: nobody is answered
    OPEN = "open"  # others are answered, and not by what the member lost: a few more probes show it


def find_culprit(
    suspect: Interface, condemning: Sequence[Prober], interfaces: Sequence[Interface], interval: float
) -> Culprit:
    """Say whose fault the probes are that `suspect` lost.

    It is its own if another member has proof: an answer by a target that the suspect had lost before, by more than a
    probe may be late, to a probe sent before the suspect's newest loss. So targets that fall silent one after the other
    are no proof, nor are targets that have just come back. Where no target is asked by both, an answer by any of the
    other's counts. Nobody's is one to a probe sent within half an interval, the least distance of two probes, after the
    first loss: at the moment all targets die, an answer may still be under way.

    A member that no probe can judge is trusted while its link is up. Members that are offline, or whose own newest
    probes are lost, are no proof.
    """
    verdict = Culprit.TARGETS
    since = first_loss(condemning) + timers.JITTER_MINIMUM * interval
    for other in interfaces:
        if other is suspect or not other.functioning or not other.link.usable:
            continue
        if not other.capable:
            return Culprit.MEMBER
        if not _answered_since(other, since):
            continue
        if _proves(other, condemning, since, timers.LATE_AGENT * interval):
            return Culprit.MEMBER
        if not _losing_everything(other):
            verdict = Culprit.OPEN
    return verdict


def _answered_since(other: Interface, since: float) -> bool:
    """Whether an answer came to a probe sent after this moment."""
    successes = [p.last_success for p in other.probers.values() if p.capable and p.last_success is not None]
    return bool(successes) and max(successes) > since


def _losing_everything(other: Interface) -> bool:
    probers = [prober for prober in other.probers.values() if prober.capable]
    return all(prober.streak(ProbeState.LOST)[0] >= timers.PROBES_LOST_BY_CHANCE for prober in probers)


def _proves(other: Interface, condemning: Sequence[Prober], since: float, margin: float) -> bool:
    """Whether the targets that the suspect lost answered another member meanwhile."""
    asked_by_both = False
    newest = max(prober.newest_loss() for prober in condemning)
    for prober in condemning:
        if prober.refused:
            return True  # its own kernel sends nothing
        witness = other.probers[prober.family]
        for target, lost_at in prober.losses().items():
            known = witness.targets.find(target.address) if witness.capable else None
            if known is None or known.state not in {TargetState.ACTIVE, TargetState.DEAD}:
                continue
            asked_by_both = True
            if witness.answered_between(lost_at + margin, newest, known):
                return True
    if asked_by_both:
        return False
    return any(prober.answered_between(since, newest) for prober in other.probers.values() if prober.capable)


def first_loss(condemning: Sequence[Prober]) -> float:
    """When the first probe was lost that condemns."""
    return min(prober.first_loss() for prober in condemning)


def failing_probers(interface: Interface, now: float, detection_time: float) -> list[Prober]:
    """The probers that condemn a member: all that can judge, or none. One healthy family keeps a NIC up."""
    judges = [prober for prober in interface.probers.values() if prober.capable and prober.running]
    return judges if all(prober.failing(now, detection_time) for prober in judges) else []
