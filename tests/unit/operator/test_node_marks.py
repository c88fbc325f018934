"""What is said on Nodes: which conditions, when, how seldom, and how many are tainted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ipmp_operator.core.model import Holder, InterfaceReport, Node, NodeGroupReport, Observed
from ipmp_operator.core.node_marks import SETTLE, SPACING, Marks, NodeHealth, NodeMarks
from ipmp_operator.kube.node_marks import conditions_intent, read_marked_node, taints_patch

NOW = datetime(2026, 1, 2, tzinfo=UTC)
WELL = NodeHealth()
BAD = NodeHealth(failed="group data: eth0, eth1")


def seen(node: str, *failed: str, group: str = "data", of: int = 2) -> Observed:
    """A node group with two members, of which these have failed."""
    members = tuple(InterfaceReport(f"eth{n}", failed=f"eth{n}" in failed) for n in range(of))
    state = "ok" if not failed else "failed" if len(failed) == of else "degraded"
    return Observed(Holder(group, node), generation=1, status=NodeGroupReport(state, interfaces=members))


class World:
    """Nodes that say what was decided, as soon as it was."""

    def __init__(self, *names: str) -> None:
        self.marks = NodeMarks()
        self.nodes = {name: Node(name) for name in names}
        self.groups: dict[Holder, Observed] = {}
        self.agents = frozenset(names)

    def put(self, *groups: Observed) -> None:
        self.groups |= {one.holder: one for one in groups}

    def take(self, now: float) -> dict[str, Marks]:
        decided = self.marks.take(self.nodes, self.groups, self.agents, now)
        for name, marks in decided.items():
            intent = conditions_intent(self.nodes[name], marks, NOW)
            if intent is not None:
                obj = {"metadata": {"name": name}, "status": intent["status"]}
                self.nodes[name] = read_marked_node(obj)[1]
            self.nodes[name] = replace(self.nodes[name], tainted=marks.tainted)
        return decided

    def settled(self, now: float = 0.0) -> dict[str, Marks]:
        self.take(now)
        return self.take(now + SETTLE)


def test_nothing_is_said_before_it_has_lasted() -> None:
    world = World("n1")
    world.put(seen("n1", "eth0", "eth1"))
    assert world.take(0.0) == {}
    assert world.marks.due == SETTLE
    assert world.take(SETTLE) == {"n1": Marks(BAD, tainted=False)}, "one of one: it may be the network"


def test_failed_node_says_so_and_is_tainted_among_others() -> None:
    world = World("n1", "n2", "n3")
    world.put(seen("n1", "eth0", "eth1"), seen("n2", "eth1"), seen("n3"))
    assert world.settled() == {
        "n1": Marks(BAD, tainted=True),
        "n2": Marks(NodeHealth(degraded="group data: eth1")),
        "n3": Marks(WELL),
    }
    assert [said[:4] for said in world.nodes["n2"].conditions] == [
        ("IPMPDegraded", "True", "MembersFailed", "group data: eth1"),
        ("IPMPFailed", "False", "AsExpected", "every group has a usable member"),
    ]


def test_more_than_half_is_the_network_and_only_those_tainted_before_stay_so() -> None:
    world = World("n1", "n2", "n3", "n4")
    world.put(*(seen(name, "eth0", "eth1") if name == "n1" else seen(name) for name in world.nodes))
    world.settled()
    world.put(*(seen(name, "eth0", "eth1") for name in world.nodes))
    decided = world.settled(SPACING)
    assert {name for name, marks in decided.items() if marks.health == BAD} == set(world.nodes)
    assert {name for name, marks in decided.items() if marks.tainted} == {"n1"}


def test_flapping_node_is_changed_once_a_minute_at_most() -> None:
    world = World("n1", "n2")
    world.put(seen("n2"))
    changes, before = 0, world.nodes["n1"]
    for now in range(0, 3600, 5):
        world.put(seen("n1", *("eth0", "eth1") if now // 15 % 2 else ()))
        world.take(float(now))
        changes += world.nodes["n1"] != before
        before = world.nodes["n1"]
    assert 2 < changes <= 1 + 3600 / SPACING


def test_agent_that_is_away_changes_nothing() -> None:
    world = World("n1", "n2")
    world.put(seen("n1", "eth0", "eth1"), seen("n2"))
    world.settled()
    world.agents = frozenset({"n2"})
    world.put(seen("n1"))
    assert world.settled(SPACING)["n1"] == Marks(BAD, tainted=True), "the last report of a dead agent may be hours old"
    world.agents = frozenset({"n1", "n2"})
    assert world.settled(2 * SPACING)["n1"] == Marks(WELL)


def test_new_operator_takes_over_what_the_last_one_said() -> None:
    world = World("n1", "n2")
    world.put(seen("n1", "eth0", "eth1"), seen("n2"))
    world.settled()
    world.marks = NodeMarks()
    assert world.take(1000.0) == {}, "it knows nothing yet, and takes nothing back"
    world.put(seen("n1"))
    assert world.settled(1001.0)["n1"] == Marks(WELL)


def test_node_without_a_group_says_nothing_any_more() -> None:
    world = World("n1", "n2", "n3")
    world.put(seen("n1", "eth0", "eth1"), seen("n2"))
    world.settled()
    assert not world.nodes["n3"].marked, "never a member"
    world.groups.clear()
    assert world.settled(SPACING)["n1"] == Marks(None)
    assert not world.nodes["n1"].marked
    assert world.take(SPACING + SETTLE + 1) == {}


def test_two_groups_of_a_node_are_both_named() -> None:
    world = World("n1", "n2")
    world.put(seen("n1", "eth0", "eth1"), seen("n1", "eth0", group="a"), seen("n2"))
    assert world.settled()["n1"].health == NodeHealth("group data: eth0, eth1", "group a: eth0")


def node_object(**more: Any) -> dict[str, Any]:
    return {"metadata": {"name": "n1", "resourceVersion": "7"}, **more}


def test_condition_keeps_its_time_while_its_status_stays() -> None:
    first = conditions_intent(Node("n1"), Marks(BAD), NOW)
    assert first is not None
    name, node = read_marked_node(node_object(status=first["status"]))
    assert (name, conditions_intent(node, Marks(BAD), NOW)) == ("n1", None)
    later = conditions_intent(node, Marks(NodeHealth(failed="group data: eth0")), datetime(2026, 2, 2, tzinfo=UTC))
    assert later is not None
    assert {one["lastTransitionTime"] for one in later["status"]["conditions"]} == {"2026-01-02T00:00:00Z"}
    well = conditions_intent(node, Marks(WELL), datetime(2026, 2, 2, tzinfo=UTC))
    assert well is not None
    times = {one["type"]: one["lastTransitionTime"] for one in well["status"]["conditions"]}
    assert times == {"IPMPFailed": "2026-02-02T00:00:00Z", "IPMPDegraded": "2026-01-02T00:00:00Z"}


def test_taint_leaves_those_of_others_alone() -> None:
    theirs = {"key": "rack", "effect": "NoExecute"}
    bare = node_object(spec={"taints": [theirs]})
    patch = taints_patch(bare, tainted=True)
    assert patch == {
        "metadata": {"resourceVersion": "7"},
        "spec": {"taints": [theirs, {"key": "ipmp.dev/failed", "effect": "NoSchedule"}]},
    }
    tainted = node_object(spec=patch["spec"])
    assert taints_patch(tainted, tainted=True) is None
    assert taints_patch(tainted, tainted=False) == {"metadata": {"resourceVersion": "7"}, "spec": {"taints": [theirs]}}
    assert taints_patch(node_object(), tainted=False) is None


def test_conditions_and_taints_of_others_are_no_marks() -> None:
    _, node = read_marked_node(node_object(status={"conditions": [{"type": "Ready", "status": "True"}]}, spec={}))
    assert not node.marked
