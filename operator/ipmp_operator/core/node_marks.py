"""What is said on the Nodes themselves, for those who look there: conditions, and a taint on those that have failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_api.frozen import frozen
from ipmp_operator.core.rollup import NodeReport, NodeState, judge
from ipmp_service.damper import Dampers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ipmp_operator.core.model import Holder, Node, Observed

SETTLE = 10.0
"""Seconds that a node is otherwise before its Node says so: schedulers and autoscalers act on it."""

SPACING = 60.0
"""Seconds between two changes of one Node."""

TAINTED_SHARE = 2
"""One node of so many may be tainted: where more have failed at once it is the network, and no node is better."""


@frozen
class NodeHealth:
    """One node, over all its groups; each text says which group and why, and is empty where there is none."""

    failed: str = ""
    degraded: str = ""


@frozen
class Marks:
    """What a Node should say. `health` None: nothing, it has no group."""

    health: NodeHealth | None
    tainted: bool = False


@frozen
class _Told:
    """What a damper lets pass; `health` None: the node has no group."""

    health: NodeHealth | None


class NodeMarks:
    """Decides what each Node says. Nothing is said of a node about which nobody knows anything now."""

    def __init__(self) -> None:
        nothing_yet: _Told | None = None
        self._dampers = Dampers(nothing_yet, settle=SETTLE, spacing=SPACING)

    def take(
        self, nodes: Mapping[str, Node], observed: Mapping[Holder, Observed], agents: frozenset[str], now: float
    ) -> dict[str, Marks]:
        """Take what is seen now.

        Args:
            nodes: by name, with what they say now.
            observed: the node groups.
            agents: the nodes whose agent is ready.
            now: monotonic seconds.

        Returns:
            What each node should say, by name; of nodes that are not in it nothing is decided.
        """
        groups: dict[str, list[Observed]] = {}
        for holder, seen in observed.items():
            if seen.deleting_since is None:
                groups.setdefault(holder.node, []).append(seen)
        concerned = [name for name, node in nodes.items() if name in groups or node.marked]
        self._dampers.keep(concerned)
        for name in concerned:
            told = judge_node(groups.get(name, ()), ready=name in agents)
            if told is not None:
                self._dampers.take(name, told, now)
        decided = {name: told.health for name, told in self._dampers.passed().items() if told is not None}
        failed = {name for name, health in decided.items() if health is not None and health.failed}
        if len(failed) * TAINTED_SHARE > len(groups):
            failed = {name for name in failed if nodes[name].tainted}
        return {name: Marks(health, name in failed) for name, health in decided.items()}

    @property
    def due(self) -> float | None:
        """When to look again; None: nothing waits to be said."""
        return self._dampers.due


def judge_node(groups: Iterable[Observed], *, ready: bool) -> _Told | None:
    """One node over its groups; None: nobody knows."""
    texts: dict[NodeState, list[str]] = {state: [] for state in NodeState}
    for seen in sorted(groups, key=lambda seen: seen.holder):
        state, reason = judge(NodeReport(seen.holder.node, seen.status, seen.generation, agent_ready=ready))
        names = ", ".join(interface.name for interface in seen.status.interfaces if interface.failed)
        texts[state].append(f"group {seen.holder.group}: {names or reason}")
    if texts[NodeState.UNKNOWN]:
        return None
    if not any(texts.values()):
        return _Told(None)
    return _Told(NodeHealth("; ".join(texts[NodeState.FAILED]), "; ".join(texts[NodeState.DEGRADED])))
