"""Probes between the members of a group, at the link layer, while nobody has any target to ask.

An answer takes both members and the link between them, so it proves both good. A silence blames nobody by itself: a
member that hears no other is the broken one only if the others hear one another. Of two members that do not hear each
other only the one that is not in use may be blamed, because nothing depends on the verdict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_agent.core import timers
from ipmp_agent.core.actions import ProbeProtocol
from ipmp_agent.core.events import MacAddress
from ipmp_agent.core.probing import ProbeState
from ipmp_agent.core.targets import TargetOrigin

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ipmp_agent.core.interface import Interface

CHOICE = "there is no target: the members ask one another"


def arrange(interfaces: Sequence[Interface], now: float, interval: float, *, wanted: bool) -> None:
    """Let the members that can be heard ask one another; all others, or all if it is not `wanted`, stop."""
    audible = [i for i in interfaces if i.watching and i.facts is not None] if wanted else []
    for interface in interfaces:
        prober = interface.transitive
        if prober is None:
            continue
        others = [other for other in audible if other is not interface] if interface in audible else []
        macs = [MacAddress(other.facts.mac) for other in others if other.facts is not None]
        prober.targets.offer([(mac, TargetOrigin.MEMBER) for mac in macs], now)
        prober.use(ProbeProtocol.TRANSITIVE if others else None, None, CHOICE)
        if not others:
            prober.stop()
        elif not prober.running:
            prober.start(now, interval)


def is_to_blame(suspect: Interface, interfaces: Sequence[Interface], margin: float) -> bool:
    """Whether a member that hears no other is the broken one.

    The others prove it by an answer to a probe sent later than the suspect's first loss, by `margin` seconds.
    """
    if suspect.transitive is None:
        return False
    lost, first_loss = suspect.transitive.streak(ProbeState.LOST)
    if lost < timers.PROBE_FAILURES:
        return False
    others = [i for i in interfaces if i is not suspect and i.functioning and i.transitive and i.transitive.running]
    if len(others) == 1:
        return suspect.inactive and others[0].active
    successes = [o.transitive.last_success for o in others if o.transitive and o.transitive.last_success is not None]
    return any(success > first_loss + margin for success in successes)


def deaf_pairs(interfaces: Sequence[Interface]) -> Iterator[tuple[Interface, Interface]]:
    """Pairs of members that do not hear each other and have nothing else against them."""
    for position, one in enumerate(interfaces):
        for other in interfaces[position + 1 :]:
            if one.functioning and other.functioning and _deaf(one, other) and _deaf(other, one):
                yield one, other


def _deaf(one: Interface, other: Interface) -> bool:
    if one.transitive is None or not one.transitive.running or other.facts is None:
        return False
    target = one.transitive.targets.find(MacAddress(other.facts.mac))
    return target is not None and one.transitive.streak(ProbeState.LOST, target)[0] >= timers.PROBE_FAILURES
