"""One group's status out of the statuses of its node groups: counts, conditions and the worst nodes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from ipmp_api.frozen import frozen
from ipmp_api.status import TROUBLED_NODES_MAX, AddressCounts, InterfaceCounts, NodeCounts, TroubledNode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ipmp_operator.core.allocate import AddressConflict, Exhausted
    from ipmp_operator.core.conflicts import InterfaceConflict
    from ipmp_operator.core.model import NodeGroupReport


class NodeState(StrEnum):
    """How one node of a group is."""

    READY = "ready"
    DEGRADED = "degraded"
    FAILED = "failed"
    UNKNOWN = "unknown"


TOLERATED_SHARE = 10
"""One node of so many may be without an agent while the group is Ready: as many as a rollout restarts at a time."""

_STATES = {"ok": NodeState.READY, "degraded": NodeState.DEGRADED, "failed": NodeState.FAILED}
_WORST_FIRST = ["failed", "degraded", "unknown"]


@frozen
class NodeReport:
    """What is known of one selected node of a group."""

    node: str
    status: NodeGroupReport | None  # None: no node group there (yet)
    generation: int = 0
    agent_ready: bool = False
    written: bool = True  # its node group says what the group wants there
    data_addresses: int = 0
    unallocated: int = 0  # addresses that the group should have there and nobody could give


@frozen
class Findings:
    """What only the operator can see of a group."""

    invalid: str = ""
    interface_conflicts: tuple[InterfaceConflict, ...] = ()
    address_conflicts: tuple[AddressConflict, ...] = ()
    exhausted: tuple[Exhausted, ...] = ()


@frozen
class Verdict:
    """One condition, without what it takes from the status it replaces."""

    type: str
    status: bool
    reason: str
    message: str


@dataclass(slots=True)
class _Applied:
    """How far the last change has come, in nodes."""

    behind: int = 0  # have an agent that has yet to apply it
    away: int = 0  # have no agent that is ready: nobody knows
    refused: int = 0  # have read it, and the kernel is not as it says
    failed: int = 0  # have applied it, and no usable interface

    def count(self, report: NodeReport, state: NodeState) -> None:
        """Count one node."""
        status = report.status
        if not report.agent_ready:
            self.away += 1
        elif status is None or not status.state or not report.written or status.observed_generation < report.generation:
            self.behind += 1
        else:
            self.failed += state is NodeState.FAILED
            self.refused += state is not NodeState.FAILED and not status.programmed


@frozen
class Rollup:
    """IPMPGroup.status, without its time stamps."""

    nodes: NodeCounts
    interfaces: InterfaceCounts
    data_addresses: AddressCounts
    troubled: tuple[TroubledNode, ...]
    verdicts: tuple[Verdict, ...]
    behind: int = 0  # nodes that have yet to apply the last change
    failed_by_name: tuple[tuple[str, int], ...] = ()  # interfaces and on how many nodes they failed, most first


def roll_up(reports: Iterable[NodeReport], findings: Findings) -> Rollup:
    """Count the reports of a group's nodes and draw the conclusions. Linear in nodes."""
    counts = dict.fromkeys(NodeState, 0)
    troubled: list[TroubledNode] = []
    interfaces = addresses = unavailable = 0
    failed_by_name: Counter[str] = Counter()
    applied = _Applied()
    for report in reports:
        state, reason = judge(report)
        counts[state] += 1
        applied.count(report, state)
        if state is not NodeState.READY:
            troubled.append(TroubledNode(report.node, state.value, reason))
        addresses += report.data_addresses + report.unallocated
        unavailable += report.unallocated
        if report.status is not None:
            interfaces += len(report.status.interfaces)
            failed_by_name.update(interface.name for interface in report.status.interfaces if interface.failed)
            unavailable += report.status.unavailable_addresses
    troubled.sort(key=lambda t: (_WORST_FIRST.index(t.state), t.node_name))
    selected = sum(counts.values())
    accepted = _accepted(findings)
    return Rollup(
        nodes=NodeCounts(
            selected=selected,
            ready=counts[NodeState.READY],
            degraded=counts[NodeState.DEGRADED],
            failed=counts[NodeState.FAILED],
            unknown=counts[NodeState.UNKNOWN],
        ),
        interfaces=InterfaceCounts(interfaces, failed_by_name.total()),
        data_addresses=AddressCounts(addresses, unavailable),
        troubled=tuple(troubled[:TROUBLED_NODES_MAX]),
        verdicts=(
            accepted,
            _ready(accepted, applied, counts, findings),
            _degraded(counts, findings),
            *_stalled(accepted),
        ),
        behind=applied.behind,
        failed_by_name=tuple(failed_by_name.most_common()),
    )


def judge(report: NodeReport) -> tuple[NodeState, str]:
    """How a node is, and in one word why.

    The last report of an agent that is gone is not believed: it may be hours old.
    """
    status = report.status
    if status is None:
        return NodeState.UNKNOWN, "NotAssigned"
    if not report.agent_ready:
        return NodeState.UNKNOWN, "AgentUnavailable"
    state = _STATES.get(status.state)
    if state is None:
        return NodeState.UNKNOWN, "NotReported"
    if state is NodeState.READY:
        reason = status.reason or ("PoolExhausted" if report.unallocated else "")
        return (NodeState.DEGRADED, reason) if reason else (state, "")
    return state, status.reason or ("GroupFailed" if state is NodeState.FAILED else "GroupDegraded")


def _accepted(findings: Findings) -> Verdict:
    if findings.invalid:
        return Verdict("Accepted", False, "Invalid", findings.invalid)
    if findings.interface_conflicts:
        first = findings.interface_conflicts[0]
        message = f"interface {first.interface} on node {first.node} belongs to group {first.owner}, which is older"
        return Verdict(
            "Accepted", False, "InterfaceConflict", message + _more(findings.interface_conflicts, "conflict")
        )
    if findings.address_conflicts:
        clash = findings.address_conflicts[0]
        message = (
            f"address {clash.address}, assigned to node {clash.holder.node}, is held by "
            f"node {clash.owner.node} in group {clash.owner.group}"
        )
        return Verdict("Accepted", False, "AddressConflict", message + _more(findings.address_conflicts, "conflict"))
    return Verdict("Accepted", True, "Accepted", "the group is valid and conflicts with no other")


def _more(findings: Sequence[object], word: str) -> str:
    more = len(findings) - 1
    return f" (and {more} more {word}{'s' if more > 1 else ''})" if more else ""


def _ready(accepted: Verdict, applied: _Applied, counts: dict[NodeState, int], findings: Findings) -> Verdict:
    """Whether what is written is what carries traffic. A member that failed is no matter of this condition."""
    selected = sum(counts.values())
    if not accepted.status:
        return Verdict("Ready", False, accepted.reason, f"not accepted: {accepted.message}")
    if not selected:
        return Verdict("Ready", False, "NoNodes", "the node selector selects no node")
    if applied.behind:
        words = f"{applied.behind} of {selected} nodes have yet to apply the last change"
        return Verdict("Ready", False, "Progressing", words)
    if applied.away * TOLERATED_SHARE > selected:
        words = f"{applied.away} of {selected} nodes have no agent that is ready"
        return Verdict("Ready", False, "AgentsUnavailable", words)
    if applied.failed:
        return Verdict("Ready", False, "NodesFailed", f"{applied.failed} of {selected} nodes have no usable member")
    if applied.refused:
        words = f"on {applied.refused} of {selected} nodes the kernel is not as the group wants it"
        return Verdict("Ready", False, "NodesNotProgrammed", words)
    if findings.exhausted:
        return Verdict("Ready", False, "PoolExhausted", _shortage(findings.exhausted))
    lacking = selected - counts[NodeState.READY]
    more = f"; {lacking} of them want a look" if lacking else ""
    return Verdict("Ready", True, "Ready", f"{selected - applied.away} of {selected} nodes carry traffic{more}")


def _stalled(accepted: Verdict) -> tuple[Verdict, ...]:
    """For those who wait by the conventions of kstatus: a refused change does not become ready by waiting."""
    return () if accepted.status else (Verdict("Stalled", True, accepted.reason, accepted.message),)


def _degraded(counts: dict[NodeState, int], findings: Findings) -> Verdict:
    failed, degraded = counts[NodeState.FAILED], counts[NodeState.DEGRADED]
    if failed:
        return Verdict(
            "Degraded", True, "NodesFailed", f"{failed} nodes have no usable member, {degraded} more lack some"
        )
    if findings.exhausted:
        return Verdict("Degraded", True, "PoolExhausted", _shortage(findings.exhausted))
    if degraded:
        return Verdict("Degraded", True, "NodesDegraded", f"{degraded} nodes lack usable members")
    return Verdict("Degraded", False, "AsExpected", "every reporting node has all its members")


def _shortage(exhausted: Sequence[Exhausted]) -> str:
    pools = ", ".join(sorted({shortage.pool for shortage in exhausted}))
    missing = sum(shortage.missing for shortage in exhausted)
    nodes = sorted({shortage.holder.node for shortage in exhausted})
    words = (
        f"pool {pools} is {missing} addresses short for {len(nodes)} nodes, the first {nodes[0]}: enlarge its ranges"
    )
    reporters = sorted({node for shortage in exhausted for node in shortage.reporters})
    if reporters:
        more = f" (and {len(reporters) - 1} more)" if len(reporters) > 1 else ""
        words += f", or look at the agent of {reporters[0]}{more}, which reports addresses of it on its interfaces"
    return words
