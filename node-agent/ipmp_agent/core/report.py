"""One immutable picture of a group, for everybody who looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_agent.core import group
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.snapshot import (
    AddressSnapshot,
    GroupSnapshot,
    InterfaceSnapshot,
    ProberSnapshot,
    ProbeWord,
    TargetMode,
    TargetSnapshot,
)
from ipmp_api.types import Origin, Role

if TYPE_CHECKING:
    from ipmp_agent.core.interface import Interface
    from ipmp_agent.core.outbound import Outbound
    from ipmp_agent.core.placement import Placement
    from ipmp_agent.core.probing import Prober
    from ipmp_agent.core.rtt import DetectionTime
    from ipmp_api.types import NodeGroup


def take_snapshot(
    configuration: NodeGroup,
    interfaces: tuple[Interface, ...],
    time: DetectionTime,
    placement: Placement,
    outbound: Outbound,
    findings: tuple[tuple[str, Reason, str], ...],
) -> GroupSnapshot:
    """The state of the group as a value."""
    origins = {data.address: data.origin for data in configuration.data_addresses}
    present = {interface.key for interface in interfaces if interface.present}
    return GroupSnapshot(
        group=configuration.group_name,
        state=group.group_state(interfaces),
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
        reason=interface.reason,
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
        mode=prober.targets.mode if prober.enabled else TargetMode.DISABLED,
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
