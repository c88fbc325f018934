"""Targets too slow for the failure detection time: it is raised for them, unless one of them is slow alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ipmp_agent.core.actions import Severity
from ipmp_agent.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

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


def _all_fast(time: DetectionTime, members: Iterable[Interface]) -> bool:
    return all(
        time.fast(target.rtt.crtt)
        for interface in members
        if interface.functioning
        for prober in interface.probers.values()
        if prober.capable
        for target in prober.targets.active
    )
