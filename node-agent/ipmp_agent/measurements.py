"""Counters and histograms of the data plane.

One writer, the data-plane loop, and no lock: readers copy. A metrics library on this path would take a lock that a
scrape may hold.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

from ipmp_agent.core.reasons import Reason
from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

FAILOVER_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5)
OUTAGE_BUCKETS = (1.0, 5.0, 15.0, 60.0)
ROUND_TRIP_BUCKETS = (0.0005, 0.002, 0.01, 0.1, 1.0)
LAG_BUCKETS = (0.01, 0.1, 1.0, 5.0)
"""Bounds in seconds. Each is one series on every node, and for round trips one on every interface: docs/metrics.md."""

FAILURES = (Reason.LINK_DOWN, Reason.PROBES_LOST, Reason.GROUP_FAILED)
"""Reasons for which a member is found to have failed."""

OUTAGES = (Reason.LINK_DOWN, Reason.PROBES_LOST)
"""Reasons for which an address has to move after it was out of reach for a while."""

REPAIRS = (Reason.LINK_UP, Reason.PROBES_ANSWERED)
"""Reasons for which a member is found to work again."""

UNFORCED = (Reason.FAILBACK, Reason.REBALANCE, Reason.CONFIGURED, Reason.OFFLINE)
"""Reasons for which addresses move although nothing failed: by plan, or by a person's word."""

MOVES = (
    *FAILURES,
    *UNFORCED,
    Reason.INTERFACE_MISSING,
    Reason.ADDRESS_ADDED,
    Reason.ADDRESS_REMOVED,
)
"""Reasons for which an address moves, appears or goes."""

ERRORS = ("core", "kernel", "configure", "reconcile", "drain", "state", "recording", "log")
"""Parts of the agent in which an error may be caught and survived."""


@frozen
class Example:
    """One of the values that a bucket has counted, and what it was measured of."""

    value: float  # seconds
    time: float  # seconds since the epoch
    interface: str  # the one that addresses had to leave
    reason: Reason


class Histogram:
    """Fixed buckets, seconds; of values that are rare, the newest of each bucket as an example."""

    __slots__ = ("_bounds", "_counts", "_examples", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._examples: tuple[Example | None, ...] = ()
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value; a value equal to a bound belongs to its bucket."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def show(self, example: Example) -> None:
        """Count a value that is kept as the example of its bucket."""
        self.observe(example.value)
        examples = list(self.examples())
        examples[bisect_left(self._bounds, example.value)] = example
        self._examples = tuple(examples)

    def examples(self) -> tuple[Example | None, ...]:
        """The newest example of each bucket. Asked before `cumulative`, none of them is one that is not counted."""
        return self._examples or (None,) * len(self._counts)

    def cumulative(self) -> tuple[list[tuple[str, int]], float]:
        """(upper bound as text, count up to it) for every bucket, the last one `+Inf`; and the sum of all values."""
        totals = accumulate(tuple(self._counts))
        return list(zip((*map(str, self._bounds), "+Inf"), totals, strict=True)), self._sum


@dataclass(slots=True)
class GroupMeasurements:
    """Counters of one group, from the start of the agent."""

    failures: dict[tuple[str, Reason], int] = field(default_factory=dict)  # interface, reason
    repairs: dict[tuple[str, Reason], int] = field(default_factory=dict)
    moves: dict[Reason, int] = field(default_factory=lambda: dict.fromkeys(MOVES, 0))
    failover: Histogram = field(default_factory=lambda: Histogram(FAILOVER_BUCKETS))
    outage: dict[Reason, Histogram] = field(default_factory=lambda: {r: Histogram(OUTAGE_BUCKETS) for r in OUTAGES})
    round_trip: dict[str, Histogram] = field(default_factory=dict)  # interface
    group_failures: int = 0
    undone: int = 0  # changes of its configuration
    sent: dict[str, int] = field(default_factory=dict)  # interface
    answered: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)

    def probe_sent(self, interface: str) -> None:
        """Count a probe handed to the kernel."""
        self.sent[interface] = self.sent.get(interface, 0) + 1

    def probe_closed(self, interface: str, *, answered: bool) -> None:
        """Count the end of a probe; one that is given up and answered later has both."""
        counter = self.answered if answered else self.lost
        counter[interface] = counter.get(interface, 0) + 1

    def watch(self, interfaces: Iterable[str]) -> None:
        """Start every counter of these interfaces at 0: a rate sees only what was there before."""
        for interface in interfaces:
            self.round_trip.setdefault(interface, Histogram(ROUND_TRIP_BUCKETS))
            for probes in (self.sent, self.answered, self.lost):
                probes.setdefault(interface, 0)
            for reason in FAILURES:
                self.failures.setdefault((interface, reason), 0)
            for reason in REPAIRS:
                self.repairs.setdefault((interface, reason), 0)


@dataclass(slots=True)
class Measurements:
    """Counters of the agent."""

    groups: dict[str, GroupMeasurements] = field(default_factory=dict)
    lag: Histogram = field(default_factory=lambda: Histogram(LAG_BUCKETS))  # deadline to tick
    errors: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ERRORS, 0))
    configured_at: float = 0.0  # seconds since the epoch; 0: never

    def group(self, name: str) -> GroupMeasurements:
        """The counters of this group, made when first asked for."""
        return self.groups.setdefault(name, GroupMeasurements())
