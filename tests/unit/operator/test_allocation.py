"""Who gets which address: through the plan, as the operator asks it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipmp_operator.core.model import Holder, Node
from tests.unit.operator.build import World, api_group, nodes, pool, pools

if TYPE_CHECKING:
    from collections.abc import Iterable


@pytest.fixture
def world() -> World:
    return World([api_group(dataAddresses=pools(pool()))])


def test_nodes_get_the_lowest_free_addresses_in_order_of_their_names(world: World) -> None:
    world.add_nodes(nodes(3))
    world.settle()
    assert world.data() == {"n0000": ("198.18.0.1",), "n0001": ("198.18.0.2",), "n0002": ("198.18.0.3",)}


def test_node_that_comes_first_in_the_alphabet_changes_no_other(world: World) -> None:
    world.add_nodes(nodes(3))
    world.settle()
    before = world.data()
    world.add_nodes([Node("a")])
    world.settle()
    assert world.data() == before | {"a": ("198.18.0.4",)}


def test_allocations_outlive_the_operator(world: World) -> None:
    world.add_nodes(nodes(3))
    world.settle()
    del world.nodes["n0000"]
    world.settle()
    before = world.data()
    world.restart()
    world.settle()
    assert world.data() == before


def test_decision_counts_before_the_api_server_echoes_it(world: World) -> None:
    world.add_nodes([Node("b")])
    first = world.step(write=False)
    world.add_nodes([Node("a")])
    second = world.step(write=False)
    here = Holder("data", "b")
    assert second.desired[here].data_addresses == first.desired[here].data_addresses
    assert str(second.desired[Holder("data", "a")].data_addresses[0].address.ip) == "198.18.0.2"


def test_decision_taken_back_before_it_was_written_gives_its_address_to_nobody_at_once(world: World) -> None:
    world.add_nodes([Node("b")])
    world.step(write=False)
    del world.nodes["b"]
    world.add_nodes([Node("a")])
    planned = world.step(write=False)
    assert str(planned.desired[Holder("data", "a")].data_addresses[0].address.ip) == "198.18.0.2", "the write may land"


def test_address_rests_five_minutes_before_another_node_gets_it(world: World) -> None:
    world.add_nodes(nodes(2))
    world.settle()
    del world.nodes["n0000"]
    world.settle()
    world.settle()
    world.now += 299
    world.add_nodes([Node("x")])
    world.settle()
    assert world.data()["x"] == ("198.18.0.3",)
    world.now += 2
    world.add_nodes([Node("y")])
    world.settle()
    assert world.data()["y"] == ("198.18.0.1",)


def test_node_that_returns_gets_its_resting_address_back(world: World) -> None:
    world.add_nodes(nodes(3))
    world.settle()
    del world.nodes["n0001"]
    world.settle()
    world.settle()
    world.add_nodes(nodes(3))
    world.settle()
    assert world.data()["n0001"] == ("198.18.0.2",)


def test_exhausted_pool_leaves_nodes_without_and_says_how_many() -> None:
    world = World([api_group(dataAddresses=pools(pool(ranges="198.18.0.1-198.18.0.2")))])
    world.add_nodes(nodes(2))
    world.settle()
    before = world.data()
    world.add_nodes([Node("a"), Node("b")])
    planned = world.settle()
    assert world.data() == before | {"a": (), "b": ()}
    verdicts = {verdict.type: verdict for verdict in planned.rollups["data"].verdicts}
    assert verdicts["Degraded"].reason == "PoolExhausted"
    assert "v4" in verdicts["Degraded"].message
    assert "2 addresses short for 2 nodes" in verdicts["Degraded"].message
    assert planned.rollups["data"].data_addresses.total == 4
    assert planned.rollups["data"].data_addresses.unavailable == 2


def test_exhausted_pool_gives_again_as_soon_as_a_rest_is_over() -> None:
    world = World([api_group(dataAddresses=pools(pool(ranges="198.18.0.1")))])
    world.add_nodes(nodes(1))
    world.settle()
    world.nodes = {"x": Node("x")}
    world.settle()
    planned = world.settle()
    assert world.data() == {"x": ()}
    assert planned.next_deadline == world.now + 300
    world.now = planned.next_deadline
    world.settle()
    assert world.data() == {"x": ("198.18.0.1",)}


def test_several_pools_of_both_families_give_each_their_own() -> None:
    chosen = pools(
        pool("v4", "198.18.0.1-198.18.0.9", 2, prefixLength=24, exclude=["198.18.0.2"]),
        pool("v6", "2001:db8::1-2001:db8::9"),
    )
    world = World([api_group(dataAddresses=chosen)])
    world.add_nodes(nodes(2))
    world.settle()
    spec = world.there[Holder("data", "n0000")].spec
    assert spec is not None
    assert [str(d.address) for d in spec.data_addresses] == ["198.18.0.1/24", "198.18.0.3/24", "2001:db8::1/128"]
    assert {d.origin.value for d in spec.data_addresses} == {"Pool"}


def test_fewer_addresses_per_node_keep_the_first_and_more_add_to_them(world: World) -> None:
    world.groups = [api_group(dataAddresses=pools(pool(per_node=2)))]
    world.add_nodes(nodes(2))
    world.settle()
    world.groups = [api_group(dataAddresses=pools(pool(per_node=1)))]
    world.settle()
    assert world.data() == {"n0000": ("198.18.0.1",), "n0001": ("198.18.0.3",)}
    world.groups = [api_group(dataAddresses=pools(pool(per_node=2)))]
    world.settle()
    assert world.data()["n0000"][0] == "198.18.0.1"
    assert len({address for node in world.data().values() for address in node}) == 4


def test_other_prefix_length_keeps_the_addresses(world: World) -> None:
    world.add_nodes(nodes(2))
    world.settle()
    before = world.data()
    world.groups = [api_group(dataAddresses=pools(pool(prefixLength=24)))]
    world.settle()
    assert world.data() == before
    spec = world.there[Holder("data", "n0000")].spec
    assert spec is not None
    assert str(spec.data_addresses[0].address) == "198.18.0.1/24"


def test_pool_that_moves_moves_the_addresses(world: World) -> None:
    world.add_nodes(nodes(2))
    world.settle()
    world.groups = [api_group(dataAddresses=pools(pool(ranges="198.18.7.1-198.18.7.9")))]
    world.settle()
    assert world.data() == {"n0000": ("198.18.7.1",), "n0001": ("198.18.7.2",)}


def test_two_groups_with_overlapping_pools_never_share_an_address(world: World) -> None:
    world.groups.append(api_group("other", interfaces=[{"name": "eth3"}], dataAddresses=pools(pool())))
    world.add_nodes(nodes(20))
    world.settle()
    assert all(len(who) == 1 for who in world.holders().values())
    assert len(world.holders()) == 40


def test_every_member_gets_a_test_address_that_stays_with_it(world: World) -> None:
    test_pool = {"ipv4": {"pool": {"ranges": ["198.18.1.1-198.18.1.99"], "prefixLength": 24}}}
    world.groups = [api_group(testAddresses=test_pool)]
    world.add_nodes(nodes(2))
    world.settle()
    world.groups = [api_group(testAddresses=test_pool, interfaces=[{"name": "eth0"}, {"name": "eth2"}])]
    world.settle()
    spec = world.there[Holder("data", "n0000")].spec
    assert spec is not None
    tests = {member.key: str(member.test_ipv4) for member in spec.members}
    assert tests["eth2"] == "198.18.1.2/24", "the member that stayed keeps its address"
    assert tests["eth0"] not in {"198.18.1.2/24", "198.18.1.3/24", "198.18.1.4/24"}


class TestAssigned:
    def assigned(self, *entries: tuple[str, str]) -> dict[str, object]:
        return {"assigned": [{"nodeName": node, "addresses": [address]} for node, address in entries]}

    def test_assigned_address_goes_where_it_was_assigned(self) -> None:
        world = World([api_group(dataAddresses=self.assigned(("n0001", "198.18.0.50/24")))])
        world.add_nodes(nodes(2))
        world.settle()
        assert world.data() == {"n0000": (), "n0001": ("198.18.0.50",)}

    def test_pool_gives_no_address_that_is_assigned_anywhere(self) -> None:
        both = self.assigned(("absent", "198.18.0.1")) | pools(pool())
        world = World([api_group(dataAddresses=both)])
        world.add_nodes(nodes(1))
        world.settle()
        assert world.data() == {"n0000": ("198.18.0.2",)}

    def test_address_that_another_node_holds_from_a_pool_is_refused_and_reported(self, world: World) -> None:
        world.add_nodes(nodes(2))
        world.settle()
        world.groups = [api_group(dataAddresses=self.assigned(("n0001", "198.18.0.1")) | pools(pool()))]
        planned = world.settle()
        assert world.data() == {"n0000": ("198.18.0.1",), "n0001": ("198.18.0.2",)}
        accepted = planned.rollups["data"].verdicts[0]
        assert (accepted.status, accepted.reason) == (False, "AddressConflict")
        assert "198.18.0.1" in accepted.message
        assert "n0000" in accepted.message

    def test_address_that_two_groups_assign_belongs_to_the_older(self) -> None:
        young = api_group("young", created="2026-02-01T00:00:00Z", interfaces=[{"name": "eth3"}],
                      dataAddresses=self.assigned(("n0000", "198.18.0.1")))  # fmt: skip
        old = api_group("zold", dataAddresses=self.assigned(("n0001", "198.18.0.1")))
        world = World([young, old])
        world.add_nodes(nodes(2))
        planned = world.settle()
        assert world.data("zold")["n0001"] == ("198.18.0.1",)
        assert world.data("young")["n0000"] == ()
        assert planned.rollups["young"].verdicts[0].reason == "AddressConflict"
        assert planned.rollups["zold"].verdicts[0].status

    def test_address_assigned_to_another_node_is_given_only_once_the_first_lets_it_go(self) -> None:
        world = World([api_group(dataAddresses=self.assigned(("n0000", "198.18.0.1")))])
        world.add_nodes(nodes(2))
        world.settle()
        world.groups = [api_group(dataAddresses=self.assigned(("n0001", "198.18.0.1")))]
        planned = world.step(write=False)
        assert planned.desired[Holder("data", "n0001")].data_addresses == (), "n0000 still holds it"
        world.settle()
        assert world.data() == {"n0000": (), "n0001": ("198.18.0.1",)}


def test_unreadable_node_group_holds_its_addresses(world: World) -> None:
    world.add_nodes(nodes(1))
    world.settle()
    broken = Holder("data", "n0000")
    world.there[broken] = replace(world.there[broken], spec=None)
    world.restart()
    world.add_nodes([Node("a")])
    planned = world.step(write=False)
    assert str(planned.desired[Holder("data", "a")].data_addresses[0].address.ip) == "198.18.0.2"


class TestReported:
    """An address that an agent reports on an interface, though its node group does not name it any more."""

    @pytest.fixture
    def world(self, world: World) -> World:
        """The agent of n0000 keeps to the configuration before, for the new one cut its node off."""
        world.add_nodes(nodes(1))
        world.settle()
        self.report(world, "198.18.0.1")
        world.groups = [api_group(dataAddresses=pools(pool(ranges="198.18.7.1-198.18.7.9")))]
        world.settle()
        assert world.data() == {"n0000": ("198.18.7.1",)}
        world.groups.append(api_group("other", interfaces=[{"name": "eth3"}], dataAddresses=pools(pool())))
        return world

    def report(self, world: World, *addresses: str) -> None:
        here = Holder("data", "n0000")
        status = replace(world.there[here].status, present=tuple(map(ip_address, addresses)))
        world.there[here] = replace(world.there[here], status=status)

    @pytest.mark.parametrize("restarts", [False, True])
    def test_is_given_to_nobody_else(self, world: World, *, restarts: bool) -> None:
        world.now += 400
        if restarts:
            world.restart()
        world.settle()
        assert world.data("other") == {"n0000": ("198.18.0.2",)}

    def test_is_given_once_the_agent_reports_it_no_more(self, world: World) -> None:
        world.now += 400
        self.report(world, "198.18.7.1")
        world.settle()
        assert world.data("other") == {"n0000": ("198.18.0.1",)}

    def test_goes_back_to_who_reports_it(self, world: World) -> None:
        world.groups = [api_group(dataAddresses=pools(pool()))]
        world.settle()
        assert world.data() == {"n0000": ("198.18.0.1",)}


class TestCompromisedAgent:
    """An agent writes what it likes into the status of its own node group: it is believed within bounds."""

    @pytest.fixture
    def world(self) -> World:
        world = World([api_group(dataAddresses=pools(pool()))])
        world.add_nodes(nodes(3))
        world.settle()
        return world

    def report(self, world: World, node: str, addresses: Iterable[str]) -> None:
        here = Holder("data", node)
        status = replace(world.there[here].status, present=tuple(map(ip_address, addresses)))
        world.there[here] = replace(world.there[here], status=status)

    @pytest.mark.parametrize("restarts", [False, True])
    def test_starves_no_pool_by_what_it_reports(self, world: World, *, restarts: bool) -> None:
        self.report(world, "n0000", [f"198.18.0.{last}" for last in range(1, 101)])
        if restarts:
            world.restart()
        world.add_nodes(nodes(83)[3:])
        world.settle()
        assert {node: len(given) for node, given in world.data().items()} == {n.name: 1 for n in nodes(83)}

    def test_is_named_where_its_word_is_what_makes_a_pool_short(self, world: World) -> None:
        self.report(world, "n0001", [f"198.18.0.{last}" for last in range(1, 101)])
        world.add_nodes(nodes(100)[3:])
        planned = world.settle()
        (ready,) = [verdict for verdict in planned.rollups["data"].verdicts if verdict.type == "Ready"]
        assert ready.reason in ("PoolExhausted", "AgentsUnavailable")
        (degraded,) = [verdict for verdict in planned.rollups["data"].verdicts if verdict.type == "Degraded"]
        assert "look at the agent of n0001, which reports addresses of it on its interfaces" in degraded.message

    def test_takes_from_nobody_what_he_gave_back(self, world: World) -> None:
        """In quarantine an address waits for its last holder, whoever else claims to have it."""
        del world.nodes["n0001"]
        world.settle()
        self.report(world, "n0000", ["198.18.0.1", "198.18.0.2"])
        world.add_nodes([Node("n0001")])
        world.settle()
        assert world.data()["n0001"] == ("198.18.0.2",)


def happen(world: World, what: str, name: str) -> None:
    """What nodes and operators do by themselves, in random histories."""
    match what:
        case "add":
            world.add_nodes([Node(name)])
        case "remove":
            world.nodes.pop(name, None)
        case "wait":
            world.now += 400
        case "restart":
            world.restart()


NAMES = st.sampled_from([f"m{number}" for number in range(12)])
CHANGES = st.lists(st.tuples(st.sampled_from(["add", "remove", "wait", "restart"]), NAMES), max_size=25)


@settings(max_examples=60)
@given(changes=CHANGES, per_node=st.integers(1, 3))
def test_whatever_comes_and_goes_no_address_is_shared_and_no_other_node_changes(
    changes: list[tuple[str, str]], per_node: int
) -> None:
    test_pool = {"ipv4": {"pool": {"ranges": ["198.18.0.10-198.18.0.40"], "prefixLength": 24}}}
    chosen = pools(pool(ranges="198.18.0.1-198.18.0.25", per_node=per_node))
    overlapping = pools(pool(ranges="198.18.0.5-198.18.0.30"))
    other = api_group("other", interfaces=[{"name": "eth3"}], dataAddresses=overlapping)
    world = World([api_group(dataAddresses=chosen, testAddresses=test_pool), other])
    for what, name in changes:
        before = {holder: seen.held for holder, seen in world.there.items()}
        happen(world, what, name)
        world.settle()
        assert all(len(who) == 1 for who in world.holders().values())
        for holder, held in before.items():
            if holder in world.there:
                now = world.there[holder].held
                assert set(held) <= set(now), "an address left a node that stayed"
                complete = len(held) == (per_node + 2 if holder.group == "data" else 1)
                assert not complete or held == now, "a node that has all it should have changes in nothing"


FEW = st.sampled_from(["m0", "m1", "m2", "m3"])
LATE = st.lists(st.tuples(st.sampled_from(["add", "remove", "wait", "restart", "obey", "shift"]), FEW), max_size=25)


@settings(max_examples=200)
@given(changes=LATE)
def test_however_late_an_agent_obeys_what_it_holds_is_given_to_no_other(changes: list[tuple[str, str]]) -> None:
    """An agent that is slow, cut off, or has undone a change, while ranges come and go and operators too."""
    ranges = ["198.18.0.1-198.18.0.8", "198.18.0.3-198.18.0.10"]
    other = api_group(
        "other", interfaces=[{"name": "eth3"}], dataAddresses=pools(pool(ranges="198.18.0.1-198.18.0.10"))
    )
    world = World([api_group(dataAddresses=pools(pool(ranges=ranges[0]))), other])
    for what, name in changes:
        happen(world, what, name)
        match what:
            case "obey":
                for holder, seen in world.there.items():
                    if holder.node == name:
                        world.there[holder] = replace(seen, status=replace(seen.status, present=seen.held))
            case "shift":
                ranges.reverse()
                world.groups = [api_group(dataAddresses=pools(pool(ranges=ranges[0]))), other]
        world.settle()
        users = Counter(a for seen in world.there.values() for a in {*seen.held, *seen.status.present})
        assert not [address for address, count in users.items() if count > 1]
