"""What people are told of a whole group when nodes change in number: one summary, not one for each node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_api.frozen import frozen
from ipmp_service.damper import Dampers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ipmp_operator.core.rollup import Rollup

SETTLE = 5.0
"""Seconds that the numbers differ before they are told: a switch that dies takes its nodes with it one by one."""

SPACING = 60.0
"""Seconds between two summaries of one group."""

SHOWN = 3
"""Interfaces and nodes that a summary names."""


@frozen
class GroupSummary:
    """What is said of a group."""

    group: str
    reason: str
    message: str
    warning: bool


class GroupSummaries:
    """Tells of each group how many of its nodes are degraded and how many have failed, when that lasts."""

    def __init__(self) -> None:
        self._dampers = Dampers((0, 0), settle=SETTLE, spacing=SPACING)

    def take(self, rollups: Mapping[str, Rollup], now: float) -> list[GroupSummary]:
        """Take the groups of now; returns what people are told.

        Args:
            rollups: by group name.
            now: monotonic seconds.
        """
        self._dampers.keep(rollups)
        return [
            summarize(name, rollup)
            for name, rollup in rollups.items()
            if self._dampers.take(name, (rollup.nodes.degraded, rollup.nodes.failed), now)
        ]

    @property
    def due(self) -> float | None:
        """When to look again; None: nothing waits to be told."""
        return self._dampers.due


def summarize(name: str, rollup: Rollup) -> GroupSummary:
    """One group in one sentence: how many nodes, by which interfaces, and the worst of them."""
    nodes = rollup.nodes
    if not nodes.degraded and not nodes.failed:
        return GroupSummary(name, "NodesRecovered", f"all {nodes.selected} nodes have all their members", warning=False)
    message = "; ".join(_parts(rollup))
    return GroupSummary(name, "NodesFailed" if nodes.failed else "NodesDegraded", message, warning=True)


def _parts(rollup: Rollup) -> Iterator[str]:
    nodes = rollup.nodes
    counts = [(nodes.failed, "have no usable member"), (nodes.degraded, "lack some")]
    yield f"of {nodes.selected} nodes " + ", ".join(f"{count} {words}" for count, words in counts if count)
    if rollup.failed_by_name:
        failed = ", ".join(f"{name} on {count}" for name, count in rollup.failed_by_name[:SHOWN])
        yield f"failed: {failed}" + _more(len(rollup.failed_by_name))
    troubled = [one for one in rollup.troubled if one.state != "unknown"]
    if troubled:
        shown = ", ".join(f"{one.node_name} ({one.reason})" for one in troubled[:SHOWN])
        yield f"nodes: {shown}" + _more(nodes.degraded + nodes.failed)


def _more(count: int) -> str:
    return f" and {count - SHOWN} more" if count > SHOWN else ""
