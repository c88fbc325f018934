"""Who carries while no member works: link and probe are two words, and a member with a link is better than one without.

A group fails by probes alone when its targets die, are filtered, or limit their rate. Its links say the truth all the
same: addresses leave a member that has no link for one that has, and stay everywhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_agent.core import timers
from ipmp_agent.core.interface import BROKEN
from ipmp_agent.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipmp_agent.core.interface import Interface


class Makeshift:
    """The members that may carry for lack of a better one."""

    __slots__ = ("retry_at", "waiting")

    def __init__(self) -> None:
        self.retry_at = timers.NEVER  # when a link that came up lately will have been up for long enough
        self.waiting: list[str] = []  # keys of the other members with a link: they keep what they have

    def carriers(self, interfaces: Iterable[Interface], now: float, detection_time: float) -> list[str]:
        """Keys of the failed members that have a link, in the order of the configuration.

        A link that has just come up waits until probes have had the time to prove its member: they are the better
        judge, and of a switch that starts anew all ports come up one after the other. Members that probes condemned
        while others were answered come in only where there is nobody else.
        """
        self.retry_at = timers.NEVER
        self.waiting = []
        linked = []
        for interface in interfaces:
            if interface.state not in BROKEN or not interface.link.usable:
                continue
            ready_at = interface.link.ups[-1] + timers.PROVING * detection_time if interface.link.ups else now
            if ready_at > now:
                self.retry_at = min(self.retry_at, ready_at)
                self.waiting.append(interface.key)
            else:
                linked.append(interface)
        chosen = [interface for interface in linked if interface.cause is not Reason.PROBES_LOST] or linked
        self.waiting += [interface.key for interface in linked if interface not in chosen]
        return [interface.key for interface in chosen]
