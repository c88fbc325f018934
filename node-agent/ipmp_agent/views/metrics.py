"""The metrics page: a publication and the counters of the data plane, collected when asked.

State is read from one snapshot, so a group that is gone leaves no series behind.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector

import ipmp_agent
from ipmp_agent.core.words import GroupState, InterfaceWord, TargetState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.metrics_core import Metric

    from ipmp_agent.measurements import Measurements
    from ipmp_agent.publication import GroupView, Publication


Names = dict[str, dict[str, str]]
"""By group: by key of each of its members, the name by which it is shown."""

KERNEL_COUNTERS = {
    "netlink_overruns": "Event queues of the kernel that ran over and were read anew.",
}
COUNTED_BY_INTERFACE = frozenset({"probes_sent"})
"""Counters of the kernel's side that the page has with more labels: one name must not stand for two metrics."""


class AgentCollector(Collector):
    """Collects everything the agent measures; safe from any thread."""

    def __init__(
        self,
        publication: Callable[[], Publication],
        measurements: Measurements,
        kernel_counters: Callable[[], dict[str, int]],
    ) -> None:
        self._publication = publication
        self._measurements = measurements
        self._kernel_counters = kernel_counters

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is depends on the configuration."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All metrics of this moment."""
        groups = self._publication().groups
        names = {view.snapshot.group: view.names() for view in groups}
        yield self._build_info()
        yield from _states(groups, names)
        yield from _probing(groups, names)
        yield from self._group_counters(names)
        yield from self._probe_counters(names)
        yield from self._agent()

    @staticmethod
    def _build_info() -> Metric:
        info = InfoMetricFamily("ipmp_build", "Version of the agent and of its Python.")
        info.add_metric((), {"version": ipmp_agent.__version__, "python": platform.python_version()})
        return info

    def _group_counters(self, names: Names) -> Iterator[Metric]:
        failures = CounterMetricFamily(
            "ipmp_interface_failures", "Interfaces found to have failed.", labels=("group", "interface", "reason")
        )
        repairs = CounterMetricFamily(
            "ipmp_interface_repairs", "Interfaces found to work again.", labels=("group", "interface", "reason")
        )
        moves = CounterMetricFamily(
            "ipmp_address_moves", "Data addresses moved, added or removed.", labels=("group", "reason")
        )
        failed = CounterMetricFamily("ipmp_group_failures", "Times that no interface was usable.", labels=("group",))
        undone = CounterMetricFamily(
            "ipmp_changes_undone",
            "Configurations that were undone, for the node lost what it had reached before.",
            labels=("group",),
        )
        duration = HistogramMetricFamily(
            "ipmp_failover_duration_seconds",
            "From the event or verdict until the addresses were moved and first announced.",
            labels=("group",),
        )
        for name, group in dict(self._measurements.groups).items():
            for (interface, reason), count in dict(group.failures).items():
                for shown in _shown(names, name, interface):
                    failures.add_metric((name, shown, reason.value), count)
            for (interface, reason), count in dict(group.repairs).items():
                for shown in _shown(names, name, interface):
                    repairs.add_metric((name, shown, reason.value), count)
            for reason, count in dict(group.moves).items():
                moves.add_metric((name, reason.value), count)
            failed.add_metric((name,), group.group_failures)
            undone.add_metric((name,), group.undone)
            buckets, total = group.failover.cumulative()
            duration.add_metric((name,), buckets, total)
        yield from (failures, repairs, moves, failed, undone, duration)

    def _probe_counters(self, names: Names) -> Iterator[Metric]:
        labels = ("group", "interface")
        sent = CounterMetricFamily("ipmp_probes_sent", "Probes handed to the kernel.", labels=labels)
        received = CounterMetricFamily("ipmp_probes_received", "Detection probes answered.", labels=labels)
        lost = CounterMetricFamily(
            "ipmp_probes_lost", "Detection probes given up, also those that were answered too late.", labels=labels
        )
        round_trip = HistogramMetricFamily("ipmp_probe_rtt_seconds", "Round trips of answered probes.", labels=labels)
        for name, group in dict(self._measurements.groups).items():
            for metric, counts in ((sent, group.sent), (received, group.answered), (lost, group.lost)):
                for interface, count in dict(counts).items():
                    for shown in _shown(names, name, interface):
                        metric.add_metric((name, shown), count)
            for interface, histogram in dict(group.round_trip).items():
                buckets, total = histogram.cumulative()
                for shown in _shown(names, name, interface):
                    round_trip.add_metric((name, shown), buckets, total)
        yield from (sent, received, lost, round_trip)

    def _agent(self) -> Iterator[Metric]:
        buckets, total = self._measurements.lag.cumulative()
        yield HistogramMetricFamily(
            "ipmp_probe_scheduling_lag_seconds",
            "How late the data plane woke up: its own lateness is never a verdict.",
            buckets=buckets,
            sum_value=total,
        )
        errors = CounterMetricFamily("ipmp_agent_errors", "Errors that were caught and survived.", labels=("part",))
        for part, count in dict(self._measurements.errors).items():
            errors.add_metric((part,), count)
        yield errors
        yield GaugeMetricFamily(
            "ipmp_config_applied_timestamp_seconds",
            "When the last configuration was applied; 0: never.",
            value=self._measurements.configured_at,
        )
        for name, value in self._kernel_counters().items():
            if name in COUNTED_BY_INTERFACE:
                continue
            words = KERNEL_COUNTERS.get(name, "Counted by the kernel's side.")
            yield CounterMetricFamily(f"ipmp_{name}", words, value=value)


def _shown(names: Names, group: str, interface: str) -> tuple[str, ...]:
    """By what name a member is shown, if it is: one that left its group may be back in it by another key."""
    members = names.get(group)
    if members is None:  # the group is withdrawn: nobody is shown beside its members
        return (interface,)
    return (members[interface],) if interface in members else ()


def _states(groups: tuple[GroupView, ...], names: Names) -> Iterator[Metric]:
    """What is the case now."""
    group_state = GaugeMetricFamily("ipmp_group_state", "1 for the state of the group.", labels=("group", "state"))
    degraded = GaugeMetricFamily("ipmp_group_degraded", "1 while any interface is unusable.", labels=("group",))
    state = GaugeMetricFamily(
        "ipmp_interface_state", "1 for the state of the interface.", labels=("group", "interface", "state")
    )
    active = GaugeMetricFamily(
        "ipmp_interface_active", "1 while the interface may carry data addresses.", labels=("group", "interface")
    )
    addresses = GaugeMetricFamily(
        "ipmp_data_addresses", "Data addresses on the interface.", labels=("group", "interface")
    )
    unavailable = GaugeMetricFamily(
        "ipmp_data_addresses_unavailable", "Data addresses on no interface.", labels=("group",)
    )
    detection = GaugeMetricFamily(
        "ipmp_failure_detection_time_seconds", "Failure detection time in force.", labels=("group",)
    )
    for view in groups:
        snapshot = view.snapshot
        name = snapshot.group
        for word in GroupState:
            group_state.add_metric((name, word.value), float(word is snapshot.state))
        degraded.add_metric((name,), float(any(not i.usable for i in snapshot.interfaces)))
        detection.add_metric((name,), snapshot.detection_time)
        unavailable.add_metric((name,), sum(a.interface is None for a in snapshot.addresses))
        for interface in snapshot.interfaces:
            labels = (name, names[name][interface.interface])
            for each in InterfaceWord:
                state.add_metric((*labels, each.value), float(each is interface.state))
            active.add_metric(labels, float(interface.active))
            addresses.add_metric(labels, sum(a.interface == interface.interface for a in snapshot.addresses))
    yield from (group_state, degraded, state, active, addresses, unavailable, detection)


def _probing(groups: tuple[GroupView, ...], names: Names) -> Iterator[Metric]:
    """How probing goes, by interface: both families together."""
    labels = ("group", "interface")
    missed = CounterMetricFamily("ipmp_probes_missed", "Probes not sent or judged: the agent was late.", labels=labels)
    refused = CounterMetricFamily("ipmp_probes_refused", "Probes that the kernel refused to send.", labels=labels)
    targets = GaugeMetricFamily("ipmp_probe_targets", "Targets in use.", labels=labels)
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
