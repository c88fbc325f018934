from __future__ import annotations

from typing import Any

import pytest

from ipmp_operator.core.allocate import Exhausted
from ipmp_operator.core.model import Holder, InterfaceReport, NodeGroupReport
from ipmp_operator.core.rollup import Findings, NodeReport, Rollup, Verdict, roll_up

EMPTY = Findings()


def report(node: str = "n1", state: str = "ok", *, ready: bool = True, failed: int = 0, **more: Any) -> NodeReport:
    interfaces = tuple(InterfaceReport(f"eth{number}", None, number < failed) for number in range(2))
    reason = "" if state == "ok" else "LinkDown"
    status = NodeGroupReport(state, reason, observed_generation=1, interfaces=interfaces)
    return NodeReport(node, status, generation=1, agent_ready=ready, **more)


def verdict(rollup: Rollup, kind: str) -> Verdict:
    return next(verdict for verdict in rollup.verdicts if verdict.type == kind)


def test_all_well_is_ready_and_not_degraded() -> None:
    rollup = roll_up([report("n1", data_addresses=2), report("n2", data_addresses=2)], EMPTY)
    assert (rollup.nodes.selected, rollup.nodes.ready) == (2, 2)
    assert (rollup.interfaces.total, rollup.interfaces.failed) == (4, 0)
    assert (rollup.data_addresses.total, rollup.data_addresses.unavailable) == (4, 0)
    assert rollup.troubled == ()
    assert {v.type: v.status for v in rollup.verdicts} == {"Accepted": True, "Ready": True, "Degraded": False}


def test_degraded_node_is_counted_named_and_explained() -> None:
    rollup = roll_up([report("n1", "degraded", failed=1), report("n2")], EMPTY)
    assert (rollup.nodes.ready, rollup.nodes.degraded) == (1, 1)
    assert rollup.interfaces.failed == 1
    (troubled,) = rollup.troubled
    assert (troubled.node_name, troubled.state, troubled.reason) == ("n1", "degraded", "LinkDown")
    assert verdict(rollup, "Degraded").reason == "NodesDegraded"
    ready = verdict(rollup, "Ready")
    assert (ready.status, ready.message) == (True, "2 of 2 nodes carry traffic; 1 of them want a look")


def test_node_whose_change_was_undone_counts_as_degraded_although_its_members_work() -> None:
    status = NodeGroupReport("ok", "ChangeUndone", observed_generation=1, programmed=False)
    rollup = roll_up([NodeReport("n1", status, generation=1, agent_ready=True)], EMPTY)
    assert (rollup.nodes.ready, rollup.nodes.degraded) == (0, 1)
    assert rollup.troubled[0].reason == "ChangeUndone"
    assert verdict(rollup, "Ready").reason == "NodesNotProgrammed"


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (NodeReport("n1", None), "NotAssigned"),
        (report(ready=False), "AgentUnavailable"),
        (report(state="failed", ready=False), "AgentUnavailable"),
        (report(state=""), "NotReported"),
    ],
)
def test_node_of_which_nothing_is_heard_is_unknown(seen: NodeReport, reason: str) -> None:
    rollup = roll_up([seen], EMPTY)
    assert rollup.nodes.unknown == 1
    assert rollup.troubled[0].reason == reason
    assert not verdict(rollup, "Ready").status
    assert not verdict(rollup, "Degraded").status, "nobody says that anything is broken"


def test_worst_ten_nodes_are_named_worst_first() -> None:
    reports = [report(f"d{n:02}", "degraded") for n in range(8)]
    reports += [report(f"f{n:02}", "failed") for n in range(4)]
    reports += [report(f"u{n:02}", ready=False) for n in range(4)]
    rollup = roll_up(reports, EMPTY)
    names = [troubled.node_name for troubled in rollup.troubled]
    assert names == ["f00", "f01", "f02", "f03", "d00", "d01", "d02", "d03", "d04", "d05"]
    assert verdict(rollup, "Degraded").reason == "NodesFailed"


def test_change_that_some_agents_have_yet_to_apply_is_in_progress() -> None:
    behind = NodeReport("n1", NodeGroupReport("ok", observed_generation=1), generation=2, agent_ready=True)
    ready = verdict(roll_up([behind], EMPTY), "Ready")
    assert (ready.status, ready.reason) == (False, "Progressing")


def test_group_without_nodes_is_not_ready() -> None:
    assert verdict(roll_up([], EMPTY), "Ready").reason == "NoNodes"


def test_node_without_its_address_is_degraded_whatever_its_agent_says() -> None:
    findings = Findings(exhausted=(Exhausted(Holder("g", "n1"), "v4", 2),))
    rollup = roll_up([report("n1", unallocated=2), report("n2", data_addresses=2)], findings)
    assert (rollup.nodes.degraded, rollup.nodes.ready) == (1, 1)
    assert (rollup.data_addresses.total, rollup.data_addresses.unavailable) == (4, 2)
    assert rollup.troubled[0].reason == "PoolExhausted"
    assert "v4 is 2 addresses short for 1 nodes, the first n1" in verdict(rollup, "Degraded").message
    assert verdict(rollup, "Ready").reason == "PoolExhausted"


def test_refused_change_is_not_ready_and_stalled() -> None:
    """What waits for Ready must not go on, and must not wait for ever."""
    rollup = roll_up([report("n1"), report("n2")], Findings(invalid="spec.interfaces: too few"))
    assert [(v.type, v.status, v.reason) for v in rollup.verdicts] == [
        ("Accepted", False, "Invalid"),
        ("Ready", False, "Invalid"),
        ("Degraded", False, "AsExpected"),
        ("Stalled", True, "Invalid"),
    ]


def test_one_cable_among_thousands_does_not_hold_up_a_release() -> None:
    rollup = roll_up([report("d", "degraded", failed=1), *(report(f"n{n}") for n in range(4999))], EMPTY)
    assert verdict(rollup, "Ready").status
    assert verdict(rollup, "Degraded").status


def test_node_without_any_usable_member_carries_no_traffic() -> None:
    rollup = roll_up([report("n1", "failed", failed=2), report("n2")], EMPTY)
    ready = verdict(rollup, "Ready")
    assert (ready.status, ready.reason, ready.message) == (False, "NodesFailed", "1 of 2 nodes have no usable member")


@pytest.mark.parametrize(("away", "ready"), [(1, True), (2, True), (3, False)])
def test_agents_that_a_rollout_restarts_do_not_make_the_group_unready(away: int, ready: bool) -> None:
    reports = [report(f"n{n:02}", ready=n >= away) for n in range(20)]
    found = verdict(roll_up(reports, EMPTY), "Ready")
    assert (found.status, found.reason) == ((True, "Ready") if ready else (False, "AgentsUnavailable"))


def test_node_group_that_is_yet_to_be_written_is_in_progress() -> None:
    status = NodeGroupReport("ok", observed_generation=1)
    rollup = roll_up([NodeReport("n1", status, generation=1, agent_ready=True, written=False)], EMPTY)
    assert verdict(rollup, "Ready").reason == "Progressing"
    assert rollup.behind == 1
