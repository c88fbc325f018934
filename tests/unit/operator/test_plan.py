"""Which node groups there have to be, and how they go."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import ip_address

import pytest

from ipmp_operator.core.model import Holder, InterfaceReport, Node, NodeGroupReport
from ipmp_operator.core.plan import WITHDRAWAL, Release, plan, roll_up_groups, still_holds
from tests.unit.operator.build import World, api_group, nodes, pool, pools

OLD, YOUNG = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"


@pytest.fixture
def world() -> World:
    world = World([api_group(dataAddresses=pools(pool()))])
    world.add_nodes(nodes(3))
    world.settle()
    return world


def test_every_selected_node_gets_a_node_group_with_the_groups_choices() -> None:
    world = World([api_group(nodeSelector={"matchLabels": {"rack": "a"}}, failback="Disabled", mode="Observe")])
    world.add_nodes([Node("here", {"rack": "a"}), Node("there", {"rack": "b"})])
    planned = world.settle()
    assert set(planned.desired) == {Holder("data", "here")}
    spec = planned.desired[Holder("data", "here")]
    assert (spec.policies.failback.value, spec.policies.mode.value) == ("Disabled", "Observe")
    assert [member.key for member in spec.members] == ["eth1", "eth2"]


def test_node_that_no_agent_can_run_on_is_not_selected() -> None:
    world = World([api_group(dataAddresses=pools(pool()))])
    world.add_nodes([Node("a", {"kubernetes.io/os": "windows"}), Node("b", {"kubernetes.io/os": "linux"})])
    planned = world.settle()
    assert world.data() == {"b": ("198.18.0.1",)}
    assert planned.rollups["data"].nodes.selected == 1


def test_plan_at_rest_plans_the_same_again(world: World) -> None:
    first = world.plan()
    second = world.plan()
    assert first.desired == second.desired
    assert not second.delete
    assert not second.release


class TestLeaving:
    def test_node_that_leaves_the_selector_is_withdrawn_before_its_node_group_goes(self, world: World) -> None:
        world.groups = [api_group(nodeSelector={"matchExpressions": [{"key": "drained", "operator": "DoesNotExist"}]})]
        world.nodes["n0001"] = Node("n0001", {"drained": ""})
        planned = world.step()
        gone = Holder("data", "n0001")
        assert planned.delete == {gone}
        assert world.plan().withdrawing == (world.nodes["n0001"],), "its agent has to stay for that"
        assert world.plan().release == {}
        world.withdrawn(gone)
        assert world.step().release == {gone: Release.WITHDRAWN}
        assert world.plan().withdrawing == ()

    def test_node_that_is_gone_is_waited_for_by_nobody(self, world: World) -> None:
        del world.nodes["n0001"]
        world.step()
        assert world.step().release == {Holder("data", "n0001"): Release.NODE_GONE}

    def test_agent_that_never_answers_is_let_go_after_five_minutes(self, world: World) -> None:
        world.groups = [api_group(nodeSelector={"matchLabels": {"no": "node"}})]
        world.step()
        planned = world.plan()
        assert planned.next_deadline == world.now + 300
        world.now += 299
        assert world.plan().release == {}
        world.now += 1
        assert set(world.plan().release.values()) == {Release.TIMEOUT}

    def test_node_groups_of_a_group_that_is_not_seen_are_left_to_the_garbage_collector(self, world: World) -> None:
        world.groups = []
        planned = world.step()
        assert planned.delete == frozenset()
        assert len(planned.withdrawing) == 3
        here = Holder("data", "n0001")
        world.there[here] = replace(world.there[here], deleting_since=world.now)
        world.withdrawn(here)
        assert world.plan().release == {here: Release.WITHDRAWN}

    def test_node_group_that_is_being_deleted_comes_again_only_after_it_went(self, world: World) -> None:
        here = Holder("data", "n0001")
        before = world.data()
        world.there[here] = replace(world.there[here], deleting_since=world.now)
        assert here not in world.step().desired
        world.withdrawn(here)
        world.settle()
        assert world.data() == before, "with the address it had"


class TestInvalidGroup:
    def test_what_it_has_stays_and_holds_its_addresses(self, world: World) -> None:
        other = api_group("other", created=YOUNG, interfaces=[{"name": "eth3"}], dataAddresses=pools(pool()))
        world.groups, world.invalid = [other], {"data": "spec.mode: Unsupported value"}
        before = world.data()
        planned = world.settle()
        assert world.data() == before
        assert not planned.delete
        assert not set(world.data("other").values()) & set(before.values())
        accepted = planned.rollups["data"].verdicts[0]
        assert (accepted.status, accepted.reason, accepted.message) == (
            False,
            "Invalid",
            "spec.mode: Unsupported value",
        )
        assert planned.rollups["data"].nodes.selected == 3


class TestInterfaceConflict:
    def test_older_group_keeps_the_interface_and_the_younger_works_without_it(self) -> None:
        young = api_group("a-young", created=YOUNG, interfaces=[{"name": "eth2"}, {"name": "eth3"}])
        world = World([young, api_group("old", created=OLD)])
        world.add_nodes(nodes(2))
        planned = world.settle()
        assert [m.key for m in planned.desired[Holder("old", "n0000")].members] == ["eth1", "eth2"]
        assert [m.key for m in planned.desired[Holder("a-young", "n0000")].members] == ["eth3"]
        accepted = planned.rollups["a-young"].verdicts[0]
        assert (accepted.status, accepted.reason) == (False, "InterfaceConflict")
        assert "eth2" in accepted.message
        assert "n0000" in accepted.message
        assert "old" in accepted.message
        assert planned.rollups["old"].verdicts[0].status

    def test_of_the_same_age_the_first_in_the_alphabet_is_the_older(self) -> None:
        world = World([api_group("b"), api_group("a")])
        world.add_nodes(nodes(1))
        planned = world.settle()
        assert set(planned.desired) == {Holder("a", "n0000")}

    def test_only_the_nodes_of_both_groups_are_contested(self) -> None:
        young = api_group("young", created=YOUNG, nodeSelector={"matchLabels": {"rack": "b"}})
        old = api_group("old", created=OLD, nodeSelector={"matchLabels": {"rack": "a"}})
        world = World([old, young])
        world.add_nodes([Node("x", {"rack": "a"}), Node("y", {"rack": "b"})])
        planned = world.settle()
        assert set(planned.desired) == {Holder("old", "x"), Holder("young", "y")}
        assert planned.rollups["young"].verdicts[0].status

    def test_claims_by_name_and_by_mac_address_meet_once_an_agent_reports_both(self) -> None:
        mac = "52:54:00:00:00:01"
        young = api_group("young", created=YOUNG, interfaces=[{"macAddress": mac.upper()}])
        world = World([api_group("old", created=OLD), young])
        world.add_nodes(nodes(1))
        world.settle()
        here = Holder("old", "n0000")
        status = NodeGroupReport(state="ok", interfaces=(InterfaceReport("eth1", mac),))
        world.there[here] = replace(world.there[here], status=status)
        planned = world.settle()
        assert set(planned.desired) == {here}
        assert planned.rollups["young"].verdicts[0].reason == "InterfaceConflict"

    def test_end_of_the_older_group_gives_the_interface_to_the_younger(self) -> None:
        world = World([api_group("old", created=OLD), api_group("young", created=YOUNG)])
        world.add_nodes(nodes(1))
        world.settle()
        world.groups = [api_group("young", created=YOUNG)]
        planned = world.settle()
        assert [m.key for m in planned.desired[Holder("young", "n0000")].members] == ["eth1", "eth2"]
        assert planned.rollups["young"].verdicts[0].status


class TestPlanThatStillHolds:
    """Reports that decide nothing are rolled up without a new plan."""

    def test_failovers_and_agents_that_go_need_no_new_plan(self, world: World) -> None:
        planned, view = world.plan(), world.view
        here = Holder("data", "n0001")
        members = (InterfaceReport("eth1", failed=True), InterfaceReport("eth2"))
        world.there[here] = replace(world.there[here], status=NodeGroupReport("ok", observed_generation=1))
        assert still_holds(planned, view, world.view)
        world.agents = frozenset(world.nodes)
        failed = replace(world.there[here], status=NodeGroupReport("degraded", "LinkDown", interfaces=members))
        world.there[here] = failed
        assert still_holds(planned, view, world.view), "names of members, where no other group is"
        planned, view = world.plan(), world.view
        world.there[here] = replace(failed, status=replace(failed.status, state="failed", unavailable_addresses=1))
        assert still_holds(planned, view, world.view)
        rolled = roll_up_groups(planned.shares, planned.desired, world.view)["data"]
        assert (rolled.nodes.failed, rolled.data_addresses.unavailable) == (1, 1)

    def test_address_that_an_agent_lets_go_of_needs_a_new_plan(self) -> None:
        world = World([api_group(dataAddresses=pools(pool(ranges="198.18.0.1-198.18.0.2")))])
        world.add_nodes(nodes(1))
        world.settle()
        here = Holder("data", "n0000")
        seen = world.there[here]
        world.there[here] = replace(seen, status=NodeGroupReport("ok", present=(ip_address("198.18.0.2"),)))
        world.add_nodes(nodes(2))
        planned, view = world.settle(), world.view
        assert planned.rollups["data"].data_addresses.unavailable == 1
        world.there[here] = replace(seen, status=NodeGroupReport("ok"))
        assert not still_holds(planned, view, world.view)

    def test_it_holds_only_until_its_deadline(self, world: World) -> None:
        world.groups = []
        world.there = {h: replace(seen, deleting_since=world.now) for h, seen in world.there.items()}
        planned, view = world.plan(), world.view
        world.now += WITHDRAWAL - 1
        assert still_holds(planned, view, world.view)
        world.now += 1
        assert not still_holds(planned, view, world.view)

    def test_names_of_members_decide_where_several_groups_are(self, world: World) -> None:
        world.groups.append(api_group("other", created=YOUNG, interfaces=[{"name": "eth3"}]))
        planned, view = world.settle(), world.view
        here = Holder("data", "n0001")
        status = NodeGroupReport("ok", interfaces=(InterfaceReport("eth1", "02:00:00:00:00:01"),))
        world.there[here] = replace(world.there[here], status=status)
        assert not still_holds(planned, view, world.view)

    def test_what_was_planned_is_written_and_reported_without_a_new_plan(self) -> None:
        world = World([api_group(dataAddresses=pools(pool()))])
        world.add_nodes(nodes(3))
        view, planned = world.view, world.step()
        assert still_holds(planned, view, world.view), "the specs that were planned are there"
        world.groups = [api_group(dataAddresses=pools(pool()), failureDetection={"timeMilliseconds": 500})]
        view, planned = world.view, world.step()
        assert {seen.generation for seen in world.there.values()} == {2}
        assert still_holds(planned, view, world.view), "and so are the changed ones"
        for holder, seen in world.there.items():
            status = NodeGroupReport("ok", observed_generation=2, present=seen.held)
            world.there[holder] = replace(seen, status=status)
        assert still_holds(planned, view, world.view), "the addresses that were given are on interfaces"
        here = Holder("data", "n0001")
        seen = world.there[here]
        strange = (*seen.held, ip_address("198.18.0.9"))
        for other in (
            replace(seen, status=replace(seen.status, present=strange)),
            replace(seen, generation=3, spec=replace(seen.spec)) if seen.spec else seen,
            replace(seen, generation=3, held=()),
            replace(seen, uid="another"),
            replace(seen, finalizer=False),
            replace(seen, deleting_since=world.now),
        ):
            world.there[here] = other
            assert not still_holds(planned, view, world.view)
            del world.there[here]
            assert not still_holds(planned, replace(view, observed=world.there | {here: seen}), world.view)

    @pytest.mark.parametrize("seed", range(40))
    def test_what_still_holds_is_what_would_be_planned(self, seed: int) -> None:
        chance = random.Random(seed)
        world = World(
            [
                api_group("a", dataAddresses=pools(pool())),
                api_group("b", created=YOUNG, dataAddresses=pools(pool(ranges="198.18.1.1-198.18.1.4"))),
            ]
        )
        world.add_nodes(nodes(5))
        planned, view = world.settle(), world.view
        held = 0
        for _ in range(60):
            disturb(world, chance)
            anew = plan(world.view, world.memory)
            if still_holds(planned, view, world.view):
                held += 1
                rollups = roll_up_groups(planned.shares, planned.desired, world.view)
                assert (planned.desired, planned.delete, planned.release) == (anew.desired, anew.delete, anew.release)
                assert (rollups, planned.pools, planned.withdrawing) == (anew.rollups, anew.pools, anew.withdrawing)
            else:
                world.step()
                planned, view = world.plan(), world.view
        assert held > 10


def disturb(world: World, chance: random.Random) -> None:
    """Something happens: mostly what decides nothing."""
    world.now += chance.choice((0.1, 1.0, 100.0))
    if not world.there:
        return
    holder = chance.choice(sorted(world.there))
    seen = world.there[holder]
    members = tuple(InterfaceReport(f"eth{n}", failed=chance.random() < 0.3) for n in (1, 2))
    match chance.randrange(12):
        case 0:
            there = chance.choice(((), (ip_address("198.18.1.4"),)))
            world.there[holder] = replace(seen, status=replace(seen.status, present=there))
        case 1:
            world.there[holder] = replace(seen, status=replace(seen.status, interfaces=members[:1]))
        case 2:
            world.nodes.pop(chance.choice(sorted(world.nodes)))
            world.add_nodes([Node(f"new{chance.randrange(5)}")])
        case 3:
            world.add_nodes([Node(f"new{chance.randrange(5)}")])
        case 4:
            world.there[holder] = replace(seen, status=replace(seen.status, withdrawn=True))
        case 5:
            world.agents = frozenset(chance.sample(sorted(world.nodes), len(world.nodes) // 2))
        case _:
            state = chance.choice(("ok", "degraded", "failed"))
            reported = replace(seen.status, state=state, interfaces=members, programmed=chance.random() < 0.9)
            world.there[holder] = replace(seen, status=reported)


class TestPeers:
    def test_peers_are_the_data_addresses_of_other_nodes(self, world: World) -> None:
        spec = world.plan().desired[Holder("data", "n0000")]
        assert sorted(map(str, spec.peers)) == ["198.18.0.2", "198.18.0.3"]

    def test_without_data_addresses_test_addresses_stand_in(self) -> None:
        test_pool = {"ipv4": {"pool": {"ranges": ["198.18.1.1-198.18.1.99"], "prefixLength": 24}}}
        world = World([api_group(testAddresses=test_pool)])
        world.add_nodes(nodes(2))
        planned = world.settle()
        assert [str(p) for p in planned.desired[Holder("data", "n0000")].peers] == ["198.18.1.3"]

    def test_peers_are_named_by_node_and_no_report_of_theirs_rewrites_a_spec(self, world: World) -> None:
        world.settle()
        assert sorted(world.plan().desired[Holder("data", "n0000")].peer_nodes) == ["n0001", "n0002"]
        before = world.plan().desired
        for holder, seen in world.there.items():
            status = NodeGroupReport("ok", interfaces=(InterfaceReport("eth1", "02:00:00:00:00:01"),))
            world.there[holder] = replace(seen, status=status)
        assert world.plan().desired == before

    def test_nodes_that_come_rewrite_no_spec_and_those_that_go_only_those_that_probed_them(self) -> None:
        world = World([api_group(dataAddresses=pools(pool(ranges="198.18.0.1-198.18.0.250")))])
        world.add_nodes(nodes(40))
        before = world.settle().desired
        world.add_nodes(Node(f"new{number}") for number in range(7))
        came = world.settle().desired
        assert {holder: came[holder] for holder in before} == before
        gone = {"n0003", "n0011", "new2"}
        for name in gone:
            del world.nodes[name]
        after = world.settle().desired
        rewritten = {holder for holder in after if after[holder] != came[holder]}
        assert rewritten == {holder for holder in after if gone & set(came[holder].peer_nodes)}
        world.restart()
        assert world.settle().desired == after, "the next operator reads them from the node groups"

    def test_peers_can_be_switched_off(self, world: World) -> None:
        world.groups = [api_group(dataAddresses=pools(pool()), probes={"targets": {"peers": "Disabled"}})]
        assert all(spec.peers == spec.peer_nodes == () for spec in world.plan().desired.values())
