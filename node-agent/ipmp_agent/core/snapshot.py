"""The state of one group at one moment, for everybody who looks: status, ipmpstat, metrics, the state file.

Immutable; times are monotonic seconds of the core's clock, and the agent turns them into dates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_agent.core.interface import group_state
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.words import ProbeWord, TargetMode
from ipmp_api.frozen import frozen
from ipmp_api.types import Origin, Role

if TYPE_CHECKING:
    from ipmp_agent.core.actions import ProbeProtocol
    from ipmp_agent.core.drill import DrillSnapshot
    from ipmp_agent.core.events import Family, MacAddress
    from ipmp_agent.core.findings import Finding
    from ipmp_agent.core.interface import Interface
    from ipmp_agent.core.outbound import Outbound
    from ipmp_agent.core.placement import Placement
    from ipmp_agent.core.probing import Prober
    from ipmp_agent.core.rtt import DetectionTime
    from ipmp_agent.core.words import GroupState, InterfaceWord, LinkWord, TargetState
    from ipmp_api.types import Address, InterfaceAddress, NodeGroup


@frozen
class TargetSnapshot:
    """One target as one prober sees it."""

    address: Address | MacAddress
    state: TargetState
    crtt: float  # conservative round trip, seconds; 0: unknown


@frozen
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


@frozen
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


@frozen
class AddressSnapshot:
    """One data address."""

    address: InterfaceAddress
    interface: str | None  # the member that holds it; None: on none
    refusal: Reason | None
    detail: str = ""
    origin: Origin = Origin.ASSIGNED


@frozen
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
    findings: tuple[Finding, ...]  # what does not fit together
    drill: DrillSnapshot | None = None  # the one under way, or the last


def take_snapshot(
    configuration: NodeGroup,
    interfaces: tuple[Interface, ...],
    time: DetectionTime,
    placement: Placement,
    outbound: Outbound,
    findings: tuple[Finding, ...],
    drill: DrillSnapshot | None = None,
) -> GroupSnapshot:
    """The state of the group as a value."""
    origins = {data.address: data.origin for data in configuration.data_addresses}
    present = {interface.key for interface in interfaces if interface.present}
    return GroupSnapshot(
        group=configuration.group_name,
        state=group_state(interfaces),
        detection_time=time.value,
        detection_time_configured=time.configured,
        probing=any(interface.probe_word is not ProbeWord.DISABLED for interface in interfaces),
        interfaces=tuple(_interface(interface, outbound.nominee) for interface in interfaces),
        addresses=tuple(
            AddressSnapshot(
                address=address,
                interface=holder if (holder := placement.holder(address)) in present else None,
                refusal=placement.refused.get(address, (None, ""))[0],
                detail=placement.refused.get(address, (None, ""))[1],
                origin=Origin.ADOPTED if placement.is_adopted(address) else origins[address],
            )
            for address in placement.all
        ),
        outbound_ipv4=outbound.carriers.ipv4 if outbound.carriers else (),
        outbound_ipv6=outbound.carriers.ipv6 if outbound.carriers else (),
        nominee_ipv4=outbound.nominee,
        nominee_ipv6=outbound.nominee,
        findings=findings,
        drill=drill,
    )


def _interface(interface: Interface, nominee: str | None) -> InterfaceSnapshot:
    return InterfaceSnapshot(
        interface=interface.key,
        name=interface.name,
        role=interface.role,
        present=interface.present,
        state=interface.word,
        active=interface.active,
        inactive=interface.inactive,
        link=interface.link_word,
        probe=interface.probe_word,
        flags=_flags(interface, nominee=interface.key == nominee),
        reason=interface.reason_now,
        since=interface.since,
        usable=interface.functioning,
        refusal=interface.facts.refusal if interface.facts else None,
        index=interface.facts.index if interface.facts else None,
        mac=interface.facts.mac if interface.facts else None,
        speed_megabits=interface.facts.speed_megabits if interface.facts else None,
        failed=interface.failed,
        offline=interface.offline,
        probers=tuple(_prober(prober) for prober in _probers(interface)),
    )


def _probers(interface: Interface) -> tuple[Prober, ...]:
    asking = interface.transitive is not None and interface.transitive.enabled
    return (*interface.probers.values(), *((interface.transitive,) if asking and interface.transitive else ()))


def _flags(interface: Interface, *, nominee: bool) -> str:
    letters = (
        ("i", interface.inactive),
        ("s", interface.role is Role.STANDBY),
        ("m", nominee),
        ("b", nominee),
        ("M", nominee),
        ("d", not interface.present),
        ("h", Reason.DUPLICATE_MAC in interface.offline_reasons),
    )
    return "".join(letter if is_set else "-" for letter, is_set in letters)


def _prober(prober: Prober) -> ProberSnapshot:
    return ProberSnapshot(
        family=prober.family,
        mode=_mode(prober),
        protocol=prober.protocol,
        choice=prober.choice,
        test_address=prober.source,
        targets=tuple(TargetSnapshot(t.address, t.state, t.rtt.crtt) for t in prober.targets.in_firing_order),
        sent=prober.sent_count,
        answered=prober.answered_count,
        lost=prober.lost_count,
        missed=prober.missed_count,
        not_sent=prober.not_sent_count,
        outstanding=prober.outstanding,
        discarded=prober.discarded_count,
    )


def _mode(prober: Prober) -> TargetMode:
    """Where its targets come from; disabled also where nobody is named and nobody is looked for."""
    nobody = not prober.targets and not prober.want_hosts and prober.targets.mode is TargetMode.MULTICAST
    return TargetMode.DISABLED if nobody or not prober.enabled else prober.targets.mode
