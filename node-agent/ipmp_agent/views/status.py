"""IPMPNodeGroup.status of a group: the state in the words of the API."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import ipmp_agent
from ipmp_agent.core.findings import Finding
from ipmp_agent.core.reasons import ADVICE, OBSTACLES, Reason
from ipmp_agent.core.words import GroupState, ProbeWord, TargetMode, TargetState
from ipmp_api.status import (
    LAST_FAILOVERS_MAX,
    NOT_ADOPTED_MAX,
    STATUS_ADDRESSES_MAX,
    STATUS_TARGETS_MAX,
    AddressStatus,
    Condition,
    Failover,
    InterfaceStatus,
    NodeGroupStatus,
    NotAdoptedStatus,
    TargetStatus,
    set_condition,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ipmp_agent.core.snapshot import AddressSnapshot, InterfaceSnapshot
    from ipmp_agent.publication import GroupView, PastFailover

NOT_PROGRAMMED = "the group is not in the kernel, and the agent goes on trying: its log says why"

INCONSISTENT = (Reason.FAMILY_MISSING, Reason.NOT_ONE_LINK, Reason.MEDIA_MISMATCH, Reason.DUPLICATE_MAC)
UNPROBED = (Reason.TEST_ADDRESS_MISSING, Reason.TEST_ADDRESS_DUPLICATE)
KERNEL = (
    Reason.ADDRESS_CONFLICT,
    Reason.FOREIGN_CHANGE,
    Reason.KERNEL_REFUSED,
    Reason.SETTINGS_OVERRIDDEN,
    Reason.COMPARISON_INCOMPLETE,
)
"""Which findings belong to which condition: InterfacesConsistent, ProbesEnabled, Programmed; those of HostSuitable are
in core/reasons.py. A finding in none of them would be in Programmed, and tests/unit/views/test_findings.py fails."""


def build(view: GroupView, *, now: float, previous: tuple[Condition, ...] = (), generation: int = 0) -> NodeGroupStatus:
    """The status of one group.

    Args:
        view: the group.
        now: seconds since the epoch, for conditions that change.
        previous: the conditions last written, for the transition times of those that do not.
        generation: metadata.generation of the object whose spec the agent obeys.
    """
    snapshot, names = view.snapshot, view.names()
    return NodeGroupStatus(
        state=snapshot.state.value,
        interfaces=tuple(_interface(interface, names[interface.interface], view) for interface in snapshot.interfaces),
        addresses=tuple(_address(address, names) for address in snapshot.addresses[:STATUS_ADDRESSES_MAX]),
        not_adopted=tuple(
            NotAdoptedStatus(str(n.address), names.get(n.interface, n.interface), n.reason.value, n.message)
            for n in view.not_adopted[:NOT_ADOPTED_MAX]
        ),
        failure_detection_time_milliseconds=round(snapshot.detection_time * 1000),
        last_failovers=tuple(_failover(one, names) for one in reversed(view.history))[:LAST_FAILOVERS_MAX],
        conditions=with_times(conditions(view), now=now, previous=previous, generation=generation),
        observed_generation=generation,
        agent_version=ipmp_agent.__version__,
    )


def with_times(
    new: tuple[Condition, ...], *, now: float, previous: tuple[Condition, ...], generation: int
) -> tuple[Condition, ...]:
    """These conditions with their transition times, in their order, and no others."""
    merged = previous
    for condition in new:
        merged = set_condition(
            merged,
            Condition(condition.type, condition.status, condition.reason, _date(now), condition.message, generation),
        )
    by_type = {condition.type: condition for condition in merged}
    return tuple(by_type[condition.type] for condition in new)


def _date(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


def _interface(interface: InterfaceSnapshot, name: str, view: GroupView) -> InterfaceStatus:
    return InterfaceStatus(
        name=name,
        role=interface.role.value,
        active=interface.active,
        state=interface.state.value,
        link=interface.link.value,
        probe=interface.probe.value,
        mac_address=interface.mac or None,
        reason=interface.reason.value if interface.reason else None,
        since=_date(view.since[interface.interface]),
        speed_megabits=interface.speed_megabits,
        test_addresses=tuple(str(prober.test_address) for prober in interface.probers if prober.test_address),
        targets=_targets(interface),
    )


def _targets(interface: InterfaceSnapshot) -> tuple[TargetStatus, ...]:
    """The targets in a lasting order. Where every node of a cluster is a gateway there are very many, mostly unused."""
    targets = [
        target
        for prober in interface.probers
        if prober.mode is not TargetMode.DISABLED
        for target in sorted(prober.targets, key=lambda target: str(target.address))
    ]
    if len(targets) > STATUS_TARGETS_MAX:
        targets = sorted(targets, key=lambda target: target.state is TargetState.UNUSED)[:STATUS_TARGETS_MAX]
    return tuple(TargetStatus(str(target.address), target.state.value) for target in targets)


def _address(address: AddressSnapshot, names: Mapping[str, str]) -> AddressStatus:
    return AddressStatus(
        address=str(address.address),
        state="down" if address.refusal or address.interface is None else "up",
        interface=_name(names, address.interface),
        reason=address.refusal.value if address.refusal else None,
        origin=address.origin.value,
    )


def _failover(failover: PastFailover, names: Mapping[str, str]) -> Failover:
    return Failover(
        time=datetime.fromtimestamp(failover.time, UTC),
        first_loss=None if failover.first_loss is None else datetime.fromtimestamp(failover.first_loss, UTC),
        reason=failover.reason.value,
        addresses=len(failover.addresses),
        duration_microseconds=round(failover.duration * 1e6),
        from_=_name(names, failover.source),
        to=_name(names, failover.destination),
    )


def _name(names: Mapping[str, str], key: str | None) -> str | None:
    return None if key is None else names.get(key, key)


# --- conditions


def conditions(view: GroupView) -> tuple[Condition, ...]:
    """All conditions in a fixed order, without transition times."""
    return (
        _programmed(view),
        _ready(view),
        _degraded(view),
        _consistent(view),
        _probes(view),
        _offline(view),
        _suitable(view),
    )


def _condition(kind: str, reason: Reason, message: str, *, holds: bool) -> Condition:
    return Condition(
        type=kind,
        status="True" if holds else "False",
        reason=str(reason),
        last_transition_time=datetime.min.replace(tzinfo=UTC),
        message=message,
    )


def _programmed(view: GroupView) -> Condition:
    """Whether the kernel is as the group wants it."""
    if not view.ready:
        return _condition("Programmed", Reason.KERNEL_REFUSED, NOT_PROGRAMMED, holds=False)
    troubles = [Finding(Reason.CHANGE_UNDONE, view.undone)] if view.undone else []
    refused = [(a, a.refusal) for a in view.snapshot.addresses if a.refusal]
    troubles += [Finding(refusal, f"{a.address}: {a.detail or refusal}") for a, refusal in refused]
    elsewhere = (*INCONSISTENT, *UNPROBED, *OBSTACLES, *ADVICE, Reason.MINIMUM_REDUNDANCY)
    troubles += [finding for finding in _findings(view) if finding.reason not in elsewhere]
    if view.on_trial:
        words = "the kernel is as the group wants it; this is undone if the node loses by it what it reached before"
        return _verdict("Programmed", troubles, Reason.CHANGE_ON_TRIAL, words)
    return _verdict("Programmed", troubles, Reason.CONFIGURED, "the kernel is as the group wants it")


def _ready(view: GroupView) -> Condition:
    """Whether the group can carry traffic."""
    if not view.ready:
        return _condition("Ready", Reason.KERNEL_REFUSED, NOT_PROGRAMMED, holds=False)
    if view.snapshot.state is GroupState.FAILED:
        return _condition("Ready", Reason.GROUP_FAILED, "all interfaces are unusable", holds=False)
    usable = sum(interface.usable for interface in view.snapshot.interfaces)
    message = f"{usable} of {len(view.snapshot.interfaces)} interfaces are usable"
    return _condition("Ready", Reason.GROUP_OK, message, holds=True)


def _degraded(view: GroupView) -> Condition:
    """Whether any member is unusable, or the group is not as it is wanted."""
    unusable = [interface for interface in view.snapshot.interfaces if not interface.usable]
    if not unusable and view.undone:
        return _condition("Degraded", Reason.CHANGE_UNDONE, view.undone, holds=True)
    if not unusable:
        return _condition("Degraded", Reason.GROUP_OK, "every interface is usable", holds=False)
    message = ", ".join(f"{i.name}: {i.reason.value if i.reason else i.state.value}" for i in unusable)
    reason = Reason.GROUP_FAILED if view.snapshot.state is GroupState.FAILED else Reason.GROUP_DEGRADED
    return _condition("Degraded", reason, message, holds=True)


def _consistent(view: GroupView) -> Condition:
    """Whether the members fit together and to their purpose."""
    members = view.snapshot.interfaces
    troubles = [Finding(i.refusal, f"{i.name} cannot be a member: {i.refusal.value}") for i in members if i.refusal]
    troubles += [
        Finding(Reason.DUPLICATE_MAC, f"{i.name} is offline: another member has its MAC address")
        for i in members
        if i.flags.endswith("h")
    ]
    missing = [i for i in members if not i.present and not i.refusal]
    troubles += [Finding(Reason.INTERFACE_MISSING, f"{i.name} is not on this node") for i in missing]
    troubles += [finding for finding in _findings(view) if finding.reason in INCONSISTENT]
    return _verdict("InterfacesConsistent", troubles, Reason.CONFIGURED, "the interfaces fit together")


def _probes(view: GroupView) -> Condition:
    """Whether every present member can be judged by probes."""
    troubles = [finding for finding in _findings(view) if finding.reason in UNPROBED]
    for interface in view.snapshot.interfaces:
        if interface.present and interface.probe is ProbeWord.DISABLED:
            troubles.append(Finding(Reason.NOT_JUDGED, f"{interface.name}: {_why_not_probed(interface)}"))
        elif interface.present and interface.probe is ProbeWord.UNKNOWN:
            troubles.append(Finding(Reason.TARGETS_LOST, f"{interface.name} has no targets"))
    return _verdict("ProbesEnabled", troubles, Reason.TARGETS_FOUND, "every interface is probed")


def _why_not_probed(interface: InterfaceSnapshot) -> str:
    return next((prober.choice for prober in interface.probers if prober.choice), "cannot be probed")


def _offline(view: GroupView) -> Condition:
    """Whether every interface that spec.offline names is out of use."""
    troubles = [finding for finding in _findings(view) if finding.reason is Reason.MINIMUM_REDUNDANCY]
    return _verdict("OfflineHonored", troubles, Reason.CONFIGURED, "every interface of spec.offline is out of use")


def _suitable(view: GroupView) -> Condition:
    """Whether what others configured on the host stands in the group's way; what could be better is said beside."""
    obstacles = [finding for finding in _findings(view) if finding.reason in OBSTACLES]
    advice = [replace(each, message=f"advice: {each.message}") for each in _findings(view) if each.reason in ADVICE]
    if obstacles:
        return _verdict("HostSuitable", obstacles + advice, Reason.CONFIGURED, "")
    reason = advice[0].reason if advice else Reason.CONFIGURED
    words = dict.fromkeys(["nothing on the host stands in the group's way", *(each.message for each in advice)])
    return _condition("HostSuitable", reason, "; ".join(words), holds=True)


def _findings(view: GroupView) -> tuple[Finding, ...]:
    """What core and kernel have found."""
    return (*view.snapshot.findings, *view.findings)


def _verdict(kind: str, troubles: Sequence[Finding], reason: Reason, message: str) -> Condition:
    """True with this reason and message, or False with those of the troubles."""
    if not troubles:
        return _condition(kind, reason, message, holds=True)
    words = dict.fromkeys(trouble.message for trouble in troubles)
    return _condition(kind, troubles[0].reason, "; ".join(words), holds=False)
