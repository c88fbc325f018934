"""What goes into the core: facts, each with the interface it is about. `interface` is always a member's key."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import TYPE_CHECKING

from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from ipmp_agent.core.reasons import Reason
    from ipmp_agent.core.words import DrillKind
    from ipmp_api.types import Address, InterfaceAddress, NodeGroup


class Family(IntEnum):
    """What probes are addressed by: an address family, by its version number, or the link layer, layer 2."""

    LINK = 2  # between members, when there is nobody else to ask
    IPV4 = 4
    IPV6 = 6


IP_FAMILIES = (Family.IPV4, Family.IPV6)


class MacAddress(str):
    """Hardware address of a member, lower case with colons: the target of a transitive probe."""

    __slots__ = ()


class ProbeKind(Enum):
    """What a probe is for."""

    DETECTION = "detection"  # counts for failure and repair
    DISCOVERY = "discovery"  # multicast, finds targets
    RTT = "rtt"  # measures only, while the FDT is raised


@frozen
class InterfaceFound:
    """A member is present, or a property of it changed; first event of every member that exists."""

    interface: str
    name: str  # kernel name now
    index: int
    mac: str  # lower case, colons
    link: bool | None  # None: the driver does not report
    media: int = 1  # ARPHRD_*
    mtu: int = 1500
    speed_megabits: int | None = None
    refusal: Reason | None = None  # set: present, and not fit to be a member
    ipv6: bool = True  # whether the kernel lets it carry IPv6 addresses
    taken_down: bool = False  # somebody set it down: its cable says nothing


@frozen
class InterfaceVanished:
    """A member is gone from this network namespace."""

    interface: str


@frozen
class LinkChanged:
    """Carrier went or came."""

    interface: str
    up: bool
    taken_down: bool = False  # somebody set it down: its cable says nothing


@frozen
class LinksLost:
    """The carriers of several members went in the same instant: none of them is to take over from another."""

    interfaces: tuple[str, ...]
    taken_down: tuple[str, ...] = ()  # those of them that somebody set down


@frozen
class TestAddressChanged:
    """A member's test address is ready to probe from, or gone (None)."""

    __test__ = False
    interface: str
    family: Family
    address: Address | None
    duplicate: bool = False  # somebody else answers for it


@frozen
class ProbeAnswered:
    """A reply to a probe of ours, already checked for source, identifier, payload and arriving interface."""

    interface: str
    family: Family
    target: Address | MacAddress
    sequence: int
    kind: ProbeKind
    rtt: float  # seconds, send to processed here
    network_rtt: float  # seconds, send to kernel receive: free of our own scheduling


@frozen
class TargetHeard:
    """A target whose ICMP probe was lost answered a question at the link layer: it lives, and so does the member."""

    interface: str
    family: Family
    target: Address


@frozen
class ProbeNotSent:
    """The kernel refused to send (not: would block, which counts as sent)."""

    interface: str
    family: Family
    sequence: int
    error: int  # errno


@frozen
class RoutersChanged:
    """The on-link gateways of the main table that leave by a member, complete, in table order."""

    routers: tuple[Address, ...]


@frozen
class OfflineRequested:
    """Somebody wants a member out of use; refused below minimum redundancy unless forced."""

    interface: str
    force: bool = False


@frozen
class OnlineRequested:
    """Somebody gives a member back."""

    interface: str


@frozen
class DrillRequested:
    """Somebody wants a member treated as failed for a time; refused without redundancy."""

    interface: str
    kind: DrillKind
    seconds: float


@frozen
class AddressFound:
    """A data address sits on this member already: at start, or put there by somebody."""

    address: InterfaceAddress
    interface: str | None  # None: on none any more, of a group that only observes
    before: str | None = None  # where the agent before this one had it, as far as it could write that


@frozen
class AddressAdopted:
    """A static address that the host had on a member is taken into the group: it stays until its member fails."""

    address: InterfaceAddress
    home: str  # the member it was found on first
    interface: str | None  # where it is now; None: nowhere
    before: str | None = None  # as of AddressFound


@frozen
class AddressReleased:
    """An adopted address is the host's alone again."""

    address: InterfaceAddress
    given_up: bool = False  # its owner took it away; else it is where it was found


@frozen
class AddressRefused:
    """A data address cannot be had: another host owns it, DHCP manages it, the kernel refuses it."""

    address: InterfaceAddress
    reason: Reason
    detail: str = ""


@frozen
class AddressContested:
    """Another host says to have a data address that is in use here; it stays, and is defended."""

    address: InterfaceAddress
    mac: str | None  # of that host, lower case with colons; None: it says so no longer


@frozen
class AddressCleared:
    """What stood against a data address is over."""

    address: InterfaceAddress


@frozen
class ConfigurationChanged:
    """A new compiled configuration for the same group."""

    configuration: NodeGroup


@frozen
class KernelRead:
    """The kernel has been read: what was not found is not there. Before the first, no address is activated."""


@frozen
class SavedInterface:
    """What the state file remembers of one member."""

    interface: str
    failed: bool
    inactive: bool
    offline: bool  # because somebody asked the agent
    reason: Reason | None = None
    heeded: bool = False  # offline because spec.offline asks for it
    twin: bool = False  # offline because another member has its MAC address
    answered: bool = False  # it has been: its quiet period is over
    active_since: int | None = None  # order of activation in the group; None: not active
    claims: bool = False  # its share of the addresses, which waits for their budgets
    link_ups: tuple[float, ...] = ()  # when its link came up last, monotonic seconds
    held_until: float | None = None  # because it came up too often; None: it is not held


@frozen
class SavedMoves:
    """When one address was moved last, monotonic seconds, oldest first."""

    address: InterfaceAddress
    at: tuple[float, ...]


@frozen
class StateRestored:
    """The agent starts again and knows what it knew. First event of all, before any InterfaceFound.

    Where the addresses are is not remembered: the kernel is asked, and tells by AddressFound.
    """

    interfaces: tuple[SavedInterface, ...]
    detection_time: float | None = None  # in force, seconds; None: the configured one
    moves: tuple[SavedMoves, ...] = ()
    nominee: str | None = None  # the member that stands for the group
    carriers: tuple[str, ...] = ()  # members that carry outbound traffic, in the order of activation


Event = (
    InterfaceFound
    | InterfaceVanished
    | LinkChanged
    | LinksLost
    | TestAddressChanged
    | ProbeAnswered
    | TargetHeard
    | ProbeNotSent
    | RoutersChanged
    | OfflineRequested
    | OnlineRequested
    | DrillRequested
    | AddressFound
    | AddressAdopted
    | AddressReleased
    | AddressRefused
    | AddressContested
    | AddressCleared
    | ConfigurationChanged
    | KernelRead
    | StateRestored
)
