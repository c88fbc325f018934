"""A whole group in a few Events: what is said when nodes change in number, and how seldom."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

from ipmp_operator.core.model import InterfaceReport, NodeGroupReport
from ipmp_operator.core.rollup import Findings, NodeReport, roll_up
from ipmp_operator.core.summaries import SETTLE, SPACING, GroupSummaries, GroupSummary

if TYPE_CHECKING:
    from ipmp_operator.core.rollup import Rollup


def report(node: int, *failed: str, of: int = 2) -> NodeReport:
    """One node that has two members, of which these have failed."""
    members = tuple(InterfaceReport(f"eth{n}", failed=f"eth{n}" in failed) for n in range(of))
    state = "ok" if not failed else "failed" if len(failed) == of else "degraded"
    return NodeReport(f"n{node:04}", NodeGroupReport(state, interfaces=members), agent_ready=True)


def rolled(*reports: NodeReport) -> dict[str, Rollup]:
    return {"data": roll_up(reports, Findings())}


def told(summaries: GroupSummaries, rollups: dict[str, Rollup], start: float = 0.0) -> list[GroupSummary]:
    """What is said of numbers that last."""
    return summaries.take(rollups, start) + summaries.take(rollups, start + SETTLE)


def test_well_group_is_no_news() -> None:
    assert told(GroupSummaries(), rolled(report(0), report(1))) == []


def test_switch_that_dies_is_one_summary_with_its_interface_and_the_end_is_another() -> None:
    summaries = GroupSummaries()
    (first,) = told(summaries, rolled(*(report(n, "eth1") for n in range(40)), report(40)))
    assert first == GroupSummary(
        "data",
        "NodesDegraded",
        "of 41 nodes 40 lack some; failed: eth1 on 40; "
        "nodes: n0000 (GroupDegraded), n0001 (GroupDegraded), n0002 (GroupDegraded) and 37 more",
        warning=True,
    )
    well = rolled(*(report(n) for n in range(41)))
    assert summaries.take(well, 20.0) == []
    assert summaries.take(well, SETTLE + SPACING) == [
        GroupSummary("data", "NodesRecovered", "all 41 nodes have all their members", warning=False)
    ]


def test_nodes_without_any_member_come_first() -> None:
    (only,) = told(GroupSummaries(), rolled(report(0, "eth0"), report(1, "eth0", "eth1"), report(2)))
    assert (only.reason, only.warning) == ("NodesFailed", True)
    assert only.message == (
        "of 3 nodes 1 have no usable member, 1 lack some; failed: eth0 on 2, eth1 on 1; "
        "nodes: n0001 (GroupFailed), n0000 (GroupDegraded)"
    )


def test_agents_that_are_away_are_not_counted() -> None:
    away = NodeReport("n0001", NodeGroupReport("degraded"), agent_ready=False)
    assert told(GroupSummaries(), rolled(report(0), away)) == []


def test_storm_of_a_thousand_nodes_is_a_handful_of_events() -> None:
    """An hour in which nodes lose and regain members at random, every second."""
    summaries, dice, hour = GroupSummaries(), random.Random(7), 3600
    lost: set[int] = set()
    said: list[tuple[int, GroupSummary]] = []
    steps = 0
    for now in range(hour):
        lost ^= {dice.randrange(1000)}
        steps += 1
        if now % 3 == 0:
            reports = [report(n, "eth1") if n in lost else report(n) for n in range(max(lost, default=0) + 1)]
            said += [(now, one) for one in summaries.take(rolled(*reports), float(now))]
    assert steps == hour
    assert 2 <= len(said) <= 1 + hour / SPACING
    assert all(later - earlier >= SPACING for (earlier, _), (later, _) in itertools.pairwise(said))
    calm = rolled(*(report(n) for n in range(1000)))
    summaries.take(calm, float(hour))
    assert summaries.due is not None
    assert [one.reason for one in summaries.take(calm, summaries.due)] == ["NodesRecovered"]


def test_group_that_is_gone_is_forgotten() -> None:
    summaries = GroupSummaries()
    summaries.take(rolled(report(0, "eth0")), 0.0)
    assert summaries.due is not None
    summaries.take({}, 1.0)
    assert summaries.due is None
