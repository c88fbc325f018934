"""The metrics page: a publication and the counters of the data plane, collected when asked.

State is read from one snapshot, so a group that is gone leaves no series behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

import ipmp_agent
from ipmp_agent.views.gauges import states
from ipmp_service.metrics import BuildInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from ipmp_agent.measurements import Example, Histogram, Measurements
    from ipmp_agent.publication import Publication, Reporting
    from ipmp_agent.views.gauges import Names


KERNEL_COUNTERS = {
    "announcements_failed": "Announcements of addresses that could not be sent.",
    "announcements_sent": "Announcements of addresses sent: gratuitous ARP and unsolicited neighbour advertisements.",
    "carrier_by_count": "Losses of carrier that the kernel's counts in /sys showed first.",
    "carrier_by_event": "Changes of carrier that an event of the kernel told first.",
    "carrier_by_poll": "Changes of carrier that asking the driver found first.",
    "foreign_changes": "Times that another program took away or changed what the agent had put into the kernel.",
    "kernel_refusals": "Requests that the kernel refused.",
    "netlink_overruns": "Event queues of the kernel that ran over and were read anew.",
    "replies_altered": "Answers that do not carry what was asked: not believed.",
    "replies_duplicate": "Answers that came twice: counted once.",
    "replies_malformed": "Frames that looked like answers and could not be read.",
    "replies_unknown": "Answers to questions that nobody asked, or asked too long ago: not believed.",
    "replies_wrong_source": "Answers from somebody who was not asked: not believed.",
    "settings_drift": "Times that somebody changed a setting of an interface that the agent had made.",
}
"""Counters of the kernel's side by name: what the page says of each."""

EXEMPLAR_NAME = 64
"""Characters of a name in an exemplar: with more than 128 in all its labels Prometheus refuses the whole page."""

COUNTED_BY_INTERFACE = frozenset({"probes_sent", "probes_answered", "probes_not_sent"})
"""Counters of the kernel's side that the page has with more labels: one name must not stand for two metrics."""


class AgentCollector(Collector):
    """Collects everything the agent measures; safe from any thread."""

    def __init__(
        self,
        publication: Callable[[], Publication],
        measurements: Measurements,
        kernel_counters: Callable[[], dict[str, int]],
        reporting: Callable[[], Reporting | None],
    ) -> None:
        self._publication = publication
        self._measurements = measurements
        self._kernel_counters = kernel_counters
        self._reporting = reporting
        self._build_info = BuildInfo("ipmp", "agent", ipmp_agent.__version__)

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is depends on the configuration."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All metrics of this moment."""
        groups = self._publication().groups
        names = {view.snapshot.group: view.names() for view in groups}
        yield from self._build_info.collect()
        yield from states(groups, names)
        yield from self._group_counters(names)
        yield from self._probe_counters(names)
        yield from self._agent()

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
            "From the event or verdict until the addresses were moved and first announced, failures only.",
            labels=("group",),
        )
        outage = HistogramMetricFamily(
            "ipmp_outage_seconds",
            "From the first lost probe, or the loss of carrier, until the addresses were moved and first announced.",
            labels=("group", "reason"),
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
            duration.add_metric((name,), *_with_examples(group.failover, names.get(name, {})))
            for reason, histogram in dict(group.outage).items():
                outage.add_metric((name, reason.value), *_with_examples(histogram, names.get(name, {})))
        yield from (failures, repairs, moves, failed, undone, duration, outage)

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
        reporting = self._reporting()
        if reporting is not None:
            yield GaugeMetricFamily(
                "ipmp_report_lag_seconds",
                "Since the API server had all that there was to report; agents of a cluster only.",
                value=reporting.lag,
            )
            yield GaugeMetricFamily(
                "ipmp_api_connected",
                "1 while the API server answers; agents of a cluster only.",
                value=float(reporting.connected),
            )
        counted = self._kernel_counters()
        for name, words in KERNEL_COUNTERS.items():  # all from the start: a rate sees only what was there before
            yield CounterMetricFamily(f"ipmp_{name}", words, value=counted.get(name, 0))


def registry_of(collector: AgentCollector) -> CollectorRegistry:
    """What an agent shows: this, and what the kernel says of its process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    ProcessCollector(registry=registry)
    return registry


Bucket = tuple[str, float] | tuple[str, float, Exemplar]
"""Its upper bound, the count up to it, and an example."""


def _with_examples(histogram: Histogram, names: Mapping[str, str]) -> tuple[list[Bucket], float]:
    """As `cumulative`, with an example of each bucket that has one."""
    examples = histogram.examples()
    buckets, total = histogram.cumulative()
    shown: list[Bucket] = []
    for bucket, example in zip(buckets, examples, strict=True):
        shown.append(bucket if example is None else (*bucket, _exemplar(example, names)))
    return shown, total


def _exemplar(example: Example, names: Mapping[str, str]) -> Exemplar:
    interface = names.get(example.interface, example.interface)[:EXEMPLAR_NAME]
    return Exemplar({"interface": interface, "reason": example.reason.value}, example.value, example.time)


def _shown(names: Names, group: str, interface: str) -> tuple[str, ...]:
    """By what name a member is shown, if it is: one that left its group may be back in it by another key."""
    members = names.get(group)
    if members is None:  # the group is withdrawn: nobody is shown beside its members
        return (interface,)
    return (members[interface],) if interface in members else ()
