"""What a switch port does to frames besides forwarding them, as one nftables ruleset of the bridge family."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

RESOLUTION = 1000  # nft's numgen draws whole numbers; a tenth of a percent is the smallest step


class Direction(StrEnum):
    """Seen from the host: what it sends, what it receives."""

    SENT = "sent"
    RECEIVED = "received"


class Family(StrEnum):
    """IPv4 takes ARP with it, as a dead IPv4 path would."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"


_ETHERTYPES = {Family.IPV4: ("ip", "arp"), Family.IPV6: ("ip6",)}


@dataclass(frozen=True)
class PortFilter:
    """Frames to drop: in which directions, of which families (none named: every frame), what share."""

    drop: frozenset[Direction] = field(default_factory=frozenset)
    families: frozenset[Family] = field(default_factory=frozenset)
    percent: float = 100.0

    def rule(self, port: str, direction: Direction) -> str | None:
        """Return the nft rule for one direction, or None if everything passes."""
        if direction not in self.drop:
            return None
        words = [f'{"iifname" if direction is Direction.SENT else "oifname"} "{port}"']
        if self.families:
            types = sorted(name for family in self.families for name in _ETHERTYPES[family])
            words.append(f"ether type {{ {', '.join(types)} }}")
        if self.percent < 100.0:
            words.append(f"numgen random mod {RESOLUTION} < {round(self.percent * RESOLUTION / 100)}")
        return " ".join([*words, "counter drop"])


_HOOKS = {
    # Before the bridge learns a MAC from the frame, and after it chose the port: the frame was never there.
    Direction.SENT: "type filter hook prerouting priority -300; policy accept",
    Direction.RECEIVED: "type filter hook postrouting priority 300; policy accept",
}


def ruleset(filters: Mapping[str, PortFilter]) -> str:
    """Return a transaction that replaces every filter of a switch."""
    lines = ["add table bridge faults", "delete table bridge faults", "table bridge faults {"]
    for direction, hook in _HOOKS.items():
        lines += [f" chain {direction} {{", f"  {hook}"]
        rules = (port_filter.rule(port, direction) for port, port_filter in filters.items())
        lines += [f"  {rule}" for rule in rules if rule]
        lines.append(" }")
    return "\n".join([*lines, "}", ""])
