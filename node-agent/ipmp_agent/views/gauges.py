"""What is the case now, as gauges: read from one publication, so a group that is gone leaves no series behind.

A state that is one of few words is a set of series of which one is 1. What is said only while it is wrong (conditions,
reasons) has a series only then: its reason cannot be known before.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from ipmp_agent.core.words import GroupState, InterfaceWord, LinkWord, ProbeWord, TargetState
from ipmp_agent.views.status import conditions
from ipmp_api.status import is_well

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from ipmp_agent.publication import GroupView

Names = dict[str, dict[str, str]]
"""By group: by key of each of its members, the name by which it is shown."""

_INTERFACE = ("group", "interface")


def states(groups: tuple[GroupView, ...], names: Names) -> Iterator[Metric]:
    """All gauges of groups and of their members."""
    yield from _groups(groups)
    yield from _interfaces(groups, names)
    yield from _probing(groups, names)


def _groups(groups: tuple[GroupView, ...]) -> Iterator[Metric]:
    state = GaugeMetricFamily("ipmp_group_state", "1 for the state of the group.", labels=("group", "state"))
    degraded = GaugeMetricFamily(
        "ipmp_group_degraded",
        "1 while any interface is unusable that nobody took offline.",
        labels=("group",),
    )
    condition = GaugeMetricFamily(
        "ipmp_condition",
        "1 while a condition of the IPMPNodeGroup wants somebody to look: Degraded is True, or another is False.",
        labels=("group", "type", "reason"),
    )
    unavailable = GaugeMetricFamily(
        "ipmp_data_addresses_unavailable", "Data addresses on no interface.", labels=("group",)
    )
    detection = GaugeMetricFamily(
        "ipmp_failure_detection_time_seconds", "Failure detection time in force.", labels=("group",)
    )
    configured = GaugeMetricFamily(
        "ipmp_failure_detection_time_configured_seconds",
        "Failure detection time as configured; the one in force is longer while targets answer slowly.",
        labels=("group",),
    )
    moved = GaugeMetricFamily(
        "ipmp_last_failover_timestamp_seconds",
        "When data addresses last went from one interface to another, back home included; 0: not in memory.",
        labels=("group",),
    )
    for view in groups:
        snapshot = view.snapshot
        name = snapshot.group
        for word in GroupState:
            state.add_metric((name, word.value), float(word is snapshot.state))
        degraded.add_metric((name,), float(any(not i.usable and not i.offline for i in snapshot.interfaces)))
        for one in conditions(view):
            if not is_well(one.type, holds=one.status == "True"):
                condition.add_metric((name, one.type, one.reason), 1.0)
        unavailable.add_metric((name,), sum(a.interface is None for a in snapshot.addresses))
        detection.add_metric((name,), snapshot.detection_time)
        configured.add_metric((name,), snapshot.detection_time_configured)
        moved.add_metric((name,), max((past.time for past in view.history), default=0.0))
    yield from (state, degraded, condition, unavailable, detection, configured, moved)


def _interfaces(groups: tuple[GroupView, ...], names: Names) -> Iterator[Metric]:
    information = GaugeMetricFamily(
        "ipmp_interface_info",
        "1, with what does not change while an interface works: its role, and its MAC address.",
        labels=(*_INTERFACE, "role", "mac_address"),
    )
    state = GaugeMetricFamily(
        "ipmp_interface_state", "1 for the state of the interface.", labels=(*_INTERFACE, "state")
    )
    unusable = GaugeMetricFamily(
        "ipmp_interface_unusable", "1 while the interface is unusable, with the reason.", labels=(*_INTERFACE, "reason")
    )
    active = GaugeMetricFamily(
        "ipmp_interface_active", "1 while the interface may carry data addresses.", labels=_INTERFACE
    )
    link = GaugeMetricFamily(
        "ipmp_interface_link_up",
        "1 while the link is up, 0 while it is down; no series where the driver cannot tell.",
        labels=_INTERFACE,
    )
    probes = GaugeMetricFamily(
        "ipmp_interface_probes_answered",
        "1 while the probes of the interface are answered, 0 while they are not; no series where nobody is probed.",
        labels=_INTERFACE,
    )
    speed = GaugeMetricFamily("ipmp_interface_speed_bits", "Bits per second of the link.", labels=_INTERFACE)
    addresses = GaugeMetricFamily("ipmp_data_addresses", "Data addresses on the interface.", labels=_INTERFACE)
    for view in groups:
        snapshot = view.snapshot
        held = Counter(address.interface for address in snapshot.addresses)
        for interface in snapshot.interfaces:
            labels = (snapshot.group, names[snapshot.group][interface.interface])
            information.add_metric((*labels, interface.role.value, interface.mac or ""), 1.0)
            for each in InterfaceWord:
                state.add_metric((*labels, each.value), float(each is interface.state))
            if not interface.usable:
                unusable.add_metric((*labels, (interface.reason or interface.state).value), 1.0)
            active.add_metric(labels, float(interface.active))
            if interface.link is not LinkWord.UNKNOWN:
                link.add_metric(labels, float(interface.link is LinkWord.UP))
            if interface.probe in (ProbeWord.OK, ProbeWord.FAILED):
                probes.add_metric(labels, float(interface.probe is ProbeWord.OK))
            if interface.speed_megabits:
                speed.add_metric(labels, interface.speed_megabits * 1e6)
            addresses.add_metric(labels, held[interface.interface])
    yield from (information, state, unusable, active, link, probes, speed, addresses)


def _probing(groups: tuple[GroupView, ...], names: Names) -> Iterator[Metric]:
    """How probing goes, by interface: both families together."""
    missed = CounterMetricFamily(
        "ipmp_probes_missed", "Probes not sent or judged: the agent was late.", labels=_INTERFACE
    )
    refused = CounterMetricFamily("ipmp_probes_refused", "Probes that the kernel refused to send.", labels=_INTERFACE)
    targets = GaugeMetricFamily("ipmp_probe_targets", "Targets in use.", labels=_INTERFACE)
    for view in groups:
        name = view.snapshot.group
        for interface in view.snapshot.interfaces:
            where = (name, names[name][interface.interface])
            probers = interface.probers
            missed.add_metric(where, sum(prober.missed for prober in probers))
            refused.add_metric(where, sum(prober.not_sent for prober in probers))
            in_use = sum(target.state is TargetState.ACTIVE for prober in probers for target in prober.targets)
            targets.add_metric(where, in_use)
    yield from (missed, refused, targets)
