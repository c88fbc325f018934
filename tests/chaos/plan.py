"""Random histories of a cluster: whatever people, nodes, agents and operators do in whatever order, no address is on
two nodes, no node that stays loses one, and the plan comes to rest.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ipmp_operator.core.model import Holder, Node, NodeGroupReport
from tests.unit.operator.build import World, api_group, pool, pools

if TYPE_CHECKING:
    from ipmp_api.types import Group

NODES = st.sampled_from([f"m{number}" for number in range(6)])
GROUPS = st.sampled_from(["data", "other"])
RANGES = ("198.18.0.1-198.18.0.8", "198.18.0.3-198.18.0.12", "198.18.0.1-198.18.0.2")
TEST_POOL = {"ipv4": {"pool": {"ranges": ["198.18.0.10-198.18.0.40"], "prefixLength": 24}}}


def group(name: str, ranges: str, per_node: int, *, tested: bool) -> Group:
    """One of the two groups, each with NICs of its own, whose pools overlap."""
    number = 1 if name == "data" else 3
    spec: dict[str, Any] = {
        "interfaces": [{"name": f"eth{number}"}, {"name": f"eth{number + 1}"}],
        "dataAddresses": pools(pool(ranges=ranges, per_node=per_node)),
        "nodeSelector": {"matchExpressions": [{"key": "never", "operator": "DoesNotExist"}]},
    }
    if tested:
        spec["testAddresses"] = TEST_POOL
    return api_group(name, **spec)


class Cluster(RuleBasedStateMachine):
    """Two groups, up to six nodes, agents that obey late or not at all, and operators that come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.other = group("other", RANGES[1], 1, tested=False)

    @initialize(per_node=st.integers(1, 2), tested=st.booleans())
    def begin(self, per_node: int, tested: bool) -> None:
        self.world.groups = [group("data", RANGES[0], per_node, tested=tested), self.other]

    def go_on(self, *, people: bool = False) -> None:
        """Let the operator do its work; unless `people` changed a group, who has an address keeps it."""
        before = {holder: seen.held for holder, seen in self.world.there.items() if seen.deleting_since is None}
        self.world.settle()
        for holder, held in before.items():
            now = self.world.there.get(holder)
            if not people and now is not None and now.deleting_since is None:
                assert set(held) <= set(now.held), f"{holder} lost {set(held) - set(now.held)}"

    # --- what happens

    @rule(name=NODES)
    def node_comes(self, name: str) -> None:
        self.world.add_nodes([Node(name)])
        self.go_on()

    @rule(name=NODES)
    def node_goes(self, name: str) -> None:
        self.world.nodes.pop(name, None)
        self.go_on()

    @rule(name=NODES, never=st.booleans())
    def label_changes(self, name: str, never: bool) -> None:
        if name in self.world.nodes:
            self.world.nodes[name] = Node(name, {"never": ""} if never else {})
        self.go_on()

    @rule(seconds=st.sampled_from([1, 100, 299, 301, 1000]))
    def time_passes(self, seconds: int) -> None:
        self.world.now += seconds
        self.go_on()

    @rule()
    def operator_is_killed(self) -> None:
        self.world.restart()
        self.go_on()

    @rule(name=NODES)
    def decision_is_lost_with_the_operator(self, name: str) -> None:
        """It decided, and was killed before it wrote anything."""
        self.world.add_nodes([Node(name)])
        self.world.step(write=False)
        self.world.restart()
        self.go_on()

    @rule(name=NODES)
    def agent_obeys(self, name: str) -> None:
        for holder, seen in self.world.there.items():
            if holder.node == name:
                self.world.there[holder] = replace(seen, status=replace(seen.status, present=seen.held))
        self.go_on()

    @rule(name=NODES)
    def agent_has_withdrawn(self, name: str) -> None:
        for holder, seen in list(self.world.there.items()):
            if holder.node == name and seen.deleting_since is not None:
                self.world.there[holder] = replace(seen, status=NodeGroupReport(withdrawn=True))
        self.go_on()

    @rule(name=NODES, which=GROUPS)
    def node_group_is_deleted_by_hand(self, name: str, which: str) -> None:
        seen = self.world.there.get(Holder(which, name))
        if seen is not None and seen.deleting_since is None:
            self.world.there[seen.holder] = replace(seen, deleting_since=self.world.now)
        self.go_on()

    # --- what people change

    @rule(ranges=st.sampled_from(RANGES), per_node=st.integers(1, 2), tested=st.booleans())
    def group_changes(self, ranges: str, per_node: int, tested: bool) -> None:
        self.world.groups = [group("data", ranges, per_node, tested=tested), *self.world.groups[1:]]
        self.go_on(people=True)

    @rule(unreadable=st.booleans())
    def group_cannot_be_read(self, unreadable: bool) -> None:
        self.world.groups = [self.world.groups[0], *([] if unreadable else [self.other])]
        self.world.invalid = {"other": "it says so"} if unreadable else {}
        self.go_on(people=True)

    # --- what must hold

    @invariant()
    def no_address_is_on_two_nodes(self) -> None:
        users = Counter(a for seen in self.world.there.values() for a in {*seen.held, *seen.status.present})
        twice = [str(address) for address, count in users.items() if count > 1]
        assert not twice, f"{twice} are given twice: {self.world.there}"

    @invariant()
    def the_plan_is_at_rest(self) -> None:
        before = dict(self.world.there)
        planned = self.world.step(write=False)
        assert not planned.delete - {h for h, seen in before.items() if seen.deleting_since is not None}
        changed = [h for h, spec in planned.desired.items() if h not in before or before[h].spec != spec]
        assert not changed, f"still to be written: {changed}"
