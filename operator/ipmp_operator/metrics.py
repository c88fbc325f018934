"""The operator's metrics, in a registry of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ipmp_api.status import is_well
from ipmp_operator import __version__
from ipmp_service.metrics import BuildInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from ipmp_operator.core.plan import Plan, PoolUse
    from ipmp_operator.core.rollup import Rollup

ERROR_REASONS = (
    "AnswerBroken",
    "Conflict",
    "Forbidden",
    "InternalError",
    "Invalid",
    "NotFound",
    "Other",
    "ServiceUnavailable",
    "Timeout",
    "TooManyRequests",
    "Unauthorized",
    "Unreachable",
)
GROUP_STATES = ("ready", "notready", "degraded", "notaccepted")


class Metrics:
    """What `/metrics` shows. Series of known label values exist from the start, so that rates see the first event."""

    def __init__(self, queue_depth: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(BuildInfo("ipmp", "operator", __version__))
        self.reconcile_seconds = Histogram(
            "ipmp_operator_reconcile_duration_seconds",
            "How long one reconcile step took.",
            ["result"],
            buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15),
            registry=self.registry,
        )
        self.errors = Counter(
            "ipmp_operator_reconcile_errors", "Reconcile steps that failed.", ["reason"], registry=self.registry
        )
        self.leader = Gauge("ipmp_operator_leader", "1 while this replica leads.", registry=self.registry)
        depth = Gauge("ipmp_operator_queue_depth", "Reconcile steps that wait.", registry=self.registry)
        depth.set_function(queue_depth)
        self.groups = Gauge("ipmp_operator_groups", "Groups by state.", ["state"], registry=self.registry)
        self.plan_seconds = Histogram(
            "ipmp_operator_plan_duration_seconds",
            "How long it took to plan everything once.",
            buckets=(0.01, 0.05, 0.2, 1, 5),
            registry=self.registry,
        )
        self.withdraw_timeouts = Counter(
            "ipmp_operator_withdraw_timeouts",
            "Node groups let go although their agent had not withdrawn in time: something may be left on the node.",
            registry=self.registry,
        )
        self._planned = _Planned()
        self.registry.register(self._planned)
        for result in ("success", "error"):
            self.reconcile_seconds.labels(result)
        for reason in ERROR_REASONS:
            self.errors.labels(reason)
        self.count_groups(())

    def show(self, plan: Plan) -> None:
        """Show what the last plan says of each group and pool."""
        self._planned.rollups, self._planned.pools = plan.rollups, plan.pools

    def count_groups(self, states: Iterable[str]) -> None:
        """Show how many groups are in each state."""
        counts = dict.fromkeys(GROUP_STATES, 0)
        for state in states:
            counts[state] += 1
        for state, count in counts.items():
            self.groups.labels(state).set(count)

    def attempted(self, seconds: float, reason: str | None) -> None:
        """Count one step; `reason` is None for success."""
        self.reconcile_seconds.labels("success" if reason is None else "error").observe(seconds)
        if reason is not None:
            self.errors.labels(reason if reason in ERROR_REASONS else "Other").inc()


class _Planned(Collector):
    """Gauges by group, out of the last plan: a group that is gone leaves no series behind."""

    def __init__(self) -> None:
        self.rollups: Mapping[str, Rollup] = {}
        self.pools: Mapping[tuple[str, str], PoolUse] = {}

    def collect(self) -> Iterator[Metric]:
        condition = GaugeMetricFamily(
            "ipmp_operator_group_condition",
            "1 while a condition of the IPMPGroup wants somebody to look: Degraded or Stalled is True, another False.",
            labels=("group", "type", "reason"),
        )
        nodes = GaugeMetricFamily(
            "ipmp_operator_group_nodes",
            "Nodes by the state of the group there. `behind` counts those that have yet to apply the last change, "
            "whatever their state.",
            labels=("group", "state"),
        )
        for name, rollup in self.rollups.items():
            for verdict in rollup.verdicts:
                if not is_well(verdict.type, holds=verdict.status):
                    condition.add_metric((name, verdict.type, verdict.reason), 1.0)
            counts = rollup.nodes
            for state, count in (
                ("ready", counts.ready),
                ("degraded", counts.degraded),
                ("failed", counts.failed),
                ("unknown", counts.unknown),
                ("behind", rollup.behind),
            ):
                nodes.add_metric((name, state), count)
        labels = ("group", "pool")
        size = GaugeMetricFamily("ipmp_operator_pool_addresses", "Addresses that the pool may give.", labels=labels)
        given = GaugeMetricFamily(
            "ipmp_operator_pool_addresses_allocated", "Addresses of the pool that nodes have.", labels=labels
        )
        for where, use in self.pools.items():
            size.add_metric(where, use.size)
            given.add_metric(where, use.given)
        yield from (condition, nodes, size, given)
