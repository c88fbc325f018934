"""The operator's metrics, in a registry of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ipmp_operator import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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
        info = Gauge("ipmp_build_info", "The program's version.", ["version", "component"], registry=self.registry)
        info.labels(__version__, "operator").set(1)
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
        for result in ("success", "error"):
            self.reconcile_seconds.labels(result)
        for reason in ERROR_REASONS:
            self.errors.labels(reason)
        self.count_groups(())

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
