"""The state of one group at one moment, for everybody who looks: status, ipmpstat, metrics, the state file.

Immutable; times are monotonic seconds of the core's clock, and the daemon turns them into dates.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from ipmp_api.types import Origin

if TYPE_CHECKING:
    from ipmp_agent.core.actions import ProbeProtocol
    from ipmp_agent.core.events import Family, MacAddress
    from ipmp_agent.core.reasons import Reason
    from ipmp_api.types import Address, InterfaceAddress, Role


class GroupState(StrEnum):
    """ok: all members usable; degraded: some; failed: none."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"


class InterfaceWord(StrEnum):
    """The external state of a member, as ipmpstat says it."""

    OK = "ok"
    FAILED = "failed"
    OFFLINE = "offline"
    UNKNOWN = "unknown"  # works as far as anybody can tell: no targets; or not there yet


class LinkWord(StrEnum):
    """What the driver says of the link."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"


class ProbeWord(StrEnum):
    """What probes say of a member."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"  # nobody to probe
    DISABLED = "disabled"  # no usable test address


class TargetMode(StrEnum):
    """Where a prober's targets come from."""

    ROUTES = "routes"  # pins, gateways, peers
    MULTICAST = "multicast"  # discovered hosts
    TRANSITIVE = "transitive"  # the other members
    DISABLED = "disabled"


class TargetState(StrEnum):
    """Life of a target."""

    ACTIVE = "active"
    UNUSED = "unused"
    SLOW = "slow"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class TargetSnapshot:
    """One target as one prober sees it."""

    address: Address | MacAddress
    state: TargetState
    crtt: float  # conservative round trip, seconds; 0: unknown


@dataclass(frozen=True, slots=True)
class ProberSnapshot:
    """One family of one member, or its probes to the other members."""

    family: Family
    mode: TargetMode
    protocol: ProbeProtocol | None
    choice: str  # why this protocol, in words
    test_address: Address | None
    targets: tuple[TargetSnapshot, ...]  # in firing order, the next one first
    sent: int
    answered: int
    lost: int
    missed: int  # ticks that came too late to probe
    not_sent: int
    outstanding: int
    discarded: int = 0  # nobody waited for the answer: the agent slept, the link went, the test address changed


@dataclass(frozen=True, slots=True)
class InterfaceSnapshot:
    """One member."""

    interface: str  # key
    name: str  # kernel name, or the key while absent
    role: Role
    present: bool
    state: InterfaceWord
    active: bool  # carries or may carry data addresses
    inactive: bool  # works and is not used
    link: LinkWord
    probe: ProbeWord
    flags: str  # seven characters of ipmpstat: i s m b M d h
    reason: Reason | None  # of the state it is in
    since: float  # monotonic seconds
    usable: bool
    refusal: Reason | None
    index: int | None
    mac: str | None
    speed_megabits: int | None
    failed: bool  # the FAILED flag, which OFFLINE may hide
    offline: bool
    probers: tuple[ProberSnapshot, ...]


@dataclass(frozen=True, slots=True)
class AddressSnapshot:
    """One data address."""

    address: InterfaceAddress
    interface: str | None  # the member that holds it; None: on none
    refusal: Reason | None
    detail: str = ""
    origin: Origin = Origin.ASSIGNED


@dataclass(frozen=True, slots=True)
class GroupSnapshot:
    """One group."""

    group: str
    state: GroupState
    detection_time: float  # FDT in force, seconds
    detection_time_configured: float  # seconds
    probing: bool  # any member probes
    interfaces: tuple[InterfaceSnapshot, ...]  # in the order of the configuration
    addresses: tuple[AddressSnapshot, ...]
    outbound_ipv4: tuple[str, ...]
    outbound_ipv6: tuple[str, ...]
    nominee_ipv4: str | None
    nominee_ipv6: str | None
    findings: tuple[tuple[str, Reason, str], ...]  # what is not as it should be: interface, reason, detail
