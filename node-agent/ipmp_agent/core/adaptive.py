"""Targets that cannot keep up with the failure detection time: it is raised for them.

They answer too slowly, unless one of them does so alone; or they answer only so many probes in a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ipmp_agent.core import timers
from ipmp_agent.core.actions import Severity
from ipmp_agent.core.probing import ProbeState
from ipmp_agent.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ipmp_agent.core.interface import Interface
    from ipmp_agent.core.probing import Prober
    from ipmp_agent.core.rtt import DetectionTime
    from ipmp_agent.core.targets import Target


class Adaptation(NamedTuple):
    """What a measured answer changes: the detection time, or the use of its target (TARGET_SLOW)."""

    reason: Reason
    message: str
    severity: Severity = Severity.INFO


def adapt(
    time: DetectionTime,
    interface: Interface,
    prober: Prober,
    target: Target,
    members: Iterable[Interface],
    now: float,
    *,
    late: bool,
) -> Adaptation | None:
    """Fit the detection time to what a target of a member was just measured to need.

    `late`: the agent itself has not been run in time lately, so that it is no fault of the target.
    """
    crtt = target.rtt.crtt
    if time.too_slow(crtt):
        if prober.targets.is_exceptional(target, time.interval):
            message = f"target {target.address} is much slower than the others of {interface.name}: set aside"
            return Adaptation(Reason.TARGET_SLOW, message)
        time.raise_for(crtt, now)
        what = (
            "this agent is not given the processor in time" if late else f"target {target.address} answers too slowly"
        )
        message = (
            f"{what} for {time.configured * 1000:.0f} ms: failure detection time is now {time.value * 1000:.0f} ms"
        )
        return Adaptation(Reason.DETECTION_TIME_RAISED, message, Severity.WARNING)
    if time.may_be_lowered(now) and time.fast(crtt) and _all_fast(time, members):
        time.lower()
        message = f"targets are fast again: failure detection time is now {time.value * 1000:.0f} ms"
        return Adaptation(Reason.DETECTION_TIME_LOWERED, message)
    return None


def fit_limit(
    time: DetectionTime, suspect: Interface | None, members: Iterable[Interface], now: float
) -> Adaptation | None:
    """Send fewer probes if all members lose some, and are answered again: then their targets limit the rate.

    `suspect`: a member that is to be condemned, for all of its newest are lost. None: nobody is.
    """
    if not time.may_halve_the_rate() or (suspect and not suspect.answered):
        return None
    others = [i for i in members if i is not suspect and i.functioning and i.capable]
    if not _lose_by_turns(others, known=time.limited(now), suspect=suspect):
        return None
    time.halve_the_rate(now)
    message = (
        "the targets answer every interface now and then only, as if they limited the rate: "
        f"half as many probes, failure detection time is now {time.value * 1000:.0f} ms"
    )
    return Adaptation(Reason.DETECTION_TIME_RAISED, message, Severity.WARNING)


def may_show_a_limit(time: DetectionTime, suspect: Interface, members: Iterable[Interface]) -> bool:
    """Whether a few more probes may show a limit: another member has just lost one, and was answered after that."""
    if not time.may_halve_the_rate() or not suspect.answered:
        return False
    lost = max(prober.streak(ProbeState.LOST)[0] for prober in suspect.probers.values())
    others = [i for i in members if i is not suspect and i.functioning and i.capable]
    return lost < timers.RATE_LIMIT_LOSSES and any(_lost(others, timers.PROBES_PER_DETECTION_TIME)[0])


def _lose_by_turns(others: Sequence[Interface], *, known: bool, suspect: Interface | None) -> bool:
    """Whether the other members lose probes and are answered again; `known`: that there is a limit."""
    lost, judged = _lost(others, timers.RATE_LIMIT_WINDOW)
    if not any(lost) or not (known or all(lost)):
        return False
    if suspect and any(_lost([suspect], timers.RATE_LIMIT_WINDOW)[0]):
        return True  # it was lost and answered by turns as well: no clean break
    return sum(lost) >= max(timers.RATE_LIMIT_LOST, timers.RATE_LIMIT_SHARE * judged)


def _lost(members: Sequence[Interface], count: int) -> tuple[list[int], int]:
    """How many of its newest probes each prober lost by turns, and how many probes that are in all."""
    probers = [p for interface in members for p in interface.probers.values() if p.capable and p.running]
    found = [prober.lost_by_turns(count) for prober in probers]
    return [lost for lost, _ in found], sum(seen for _, seen in found)


def _all_fast(time: DetectionTime, members: Iterable[Interface]) -> bool:
    return all(
        time.fast(target.rtt.crtt)
        for interface in members
        if interface.functioning
        for prober in interface.probers.values()
        if prober.capable
        for target in prober.targets.active
    )
