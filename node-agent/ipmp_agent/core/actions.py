"""What comes out of the core: orders, to be carried out in the order given."""

from __future__ import annotations

from dataclasses import field
from enum import Enum
from typing import TYPE_CHECKING

from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from ipmp_agent.core.events import Family, MacAddress, ProbeKind
    from ipmp_agent.core.reasons import Reason
    from ipmp_api.types import Address, InterfaceAddress


class ProbeProtocol(Enum):
    """What a probe is on the wire."""

    ICMP = "icmp"  # echo request from the test address
    ARP = "arp"  # request with sender 0.0.0.0
    NEIGHBOR = "neighbor"  # IPv6 neighbour solicitation from the link-local address
    TRANSITIVE = "transitive"  # link-layer frame between members, EtherType 0x88B5


@frozen
class SendProbe:
    """Send one probe. A discovery probe has the all-hosts group as its target, a transitive one a member's MAC."""

    interface: str
    family: Family
    target: Address | MacAddress
    sequence: int  # 16 bit
    kind: ProbeKind
    protocol: ProbeProtocol


@frozen
class Move:
    """One address: from nowhere (first activation: check for a duplicate), or to nowhere (withdrawn)."""

    address: InterfaceAddress
    source: str | None
    destination: str | None
    reason: Reason


@frozen
class MoveAddresses:
    """Add on the destination, then delete on the source: all in one batch."""

    moves: tuple[Move, ...]


@frozen
class SetOutbound:
    """The members that carry outbound traffic, by family; an empty family is left as it is in the kernel."""

    ipv4: tuple[str, ...]
    ipv6: tuple[str, ...]


@frozen
class SetNominee:
    """The member that receives multicast for those that cannot, by family; None: no active member."""

    ipv4: str | None
    ipv6: str | None
    receiving: tuple[str, ...] = ()  # the members that work: what is joined on them arrives by them
    makeshift: bool = False  # none works: these have a link, and nobody answers by them


@frozen
class Announce:
    """Tell the link where these addresses are now, on the schedule of timers.ANNOUNCE_AT."""

    interface: str
    addresses: tuple[InterfaceAddress, ...]


class Severity(Enum):
    """As in syslog; what becomes an Event type: info is Normal, the others are Warning."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@frozen
class Notify:
    """Something happened that people are told: a log line, an Event, a counter."""

    reason: Reason
    message: str
    severity: Severity = Severity.INFO
    interface: str | None = None  # None: the group as a whole


@frozen
class InterfaceVerdict:
    """A member was found to have failed, or to work again: what failures and repairs are counted by."""

    interface: str
    failed: bool
    reason: Reason
    # Monotonic seconds of the first lost probe, or of the loss of carrier. It informs; no verdict hangs on it, and
    # recordings of agents that did not say it are replayed as equal.
    since: float | None = field(default=None, compare=False)


@frozen
class ProbeClosed:
    """A detection probe was answered or given up: one row of the live probe view."""

    interface: str
    family: Family
    target: Address | MacAddress
    sequence: int
    sent_at: float  # monotonic seconds
    rtt: float | None  # seconds; None: lost
    network_rtt: float | None
    average: float  # seconds; 0: unknown
    deviation: float


Order = SendProbe | MoveAddresses | SetOutbound | SetNominee | Announce
"""What the kernel's side carries out."""

Action = Order | Notify | InterfaceVerdict | ProbeClosed
"""All that comes out of the core."""
