"""Which address sits where, who sends, and how often an address may move."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core import events
from ipmp_agent.core.actions import Announce, MoveAddresses, SetNominee, SetOutbound
from ipmp_agent.core.placement import Placement
from ipmp_agent.core.reasons import Reason
from ipmp_api.types import DataAddress, NodeGroup, ProbeMethod, Switch
from tests import invariants
from tests.virtual_node import VirtualNode, data_address, numbered_group

if TYPE_CHECKING:
    from collections.abc import Sequence

UNPROBED: dict[str, Any] = {"pins": (), "probe_method": ProbeMethod.DISABLED}


def group_of(active: int, standby: int = 0, **fields: Any) -> VirtualNode:
    node = VirtualNode(numbered_group(active, standby, **UNPROBED, **fields))
    node.start()
    return node


def placed(node: VirtualNode) -> list[list[int]]:
    return [node.held_by(member.key) for member in node.configuration.members]


def with_addresses(group: NodeGroup, *numbers: int) -> NodeGroup:
    return dataclasses.replace(group, data_addresses=tuple(data_address(n) for n in numbers))


# --- inbound


@pytest.mark.parametrize("restarted", [False, True], ids=["same agent", "next agent"])
def test_addresses_of_the_last_member_that_worked_stay_until_another_works_though_it_is_a_member_no_more(
    *, restarted: bool
) -> None:
    node = group_of(2, addresses=2)
    node.link("nic1", up=False)
    node.configuration = dataclasses.replace(node.configuration, members=node.configuration.members[1:])
    node.handle(events.ConfigurationChanged(node.configuration))
    if restarted:
        node.restart()
    assert node.held_by("nic0") == [1, 2]
    node.link("nic1", up=True)
    assert (node.held_by("nic0"), node.held_by("nic1")) == ([], [1, 2])


def test_addresses_in_order_go_to_the_member_with_the_fewest() -> None:
    assert placed(group_of(2, addresses=4)) == [[1, 3], [2, 4]]
    assert placed(group_of(3, addresses=4)) == [[1, 4], [2], [3]]


def test_failure_and_repair_of_four_addresses() -> None:
    node = group_of(2, addresses=4)
    node.link("nic0", up=False)
    assert placed(node) == [[], [1, 2, 3, 4]]
    node.link("nic0", up=True)
    assert placed(node) == [[1, 3], [2, 4]]  # the last that came went first: 3, then 1


def test_placement_is_not_restored_exactly() -> None:
    node = group_of(2, addresses=3)
    assert placed(node) == [[1, 3], [2]]
    node.link("nic0", up=False)
    node.link("nic0", up=True)
    assert placed(node) == [[3], [1, 2]]


def test_no_home_is_remembered_and_nothing_moves_needlessly() -> None:
    node = group_of(3, addresses=6)
    node.link("nic0", up=False)
    moves = len(node.moves)
    node.link("nic0", up=True)
    assert len(node.moves) - moves == 2
    assert sorted(map(len, placed(node))) == [2, 2, 2]


def test_removed_address_is_withdrawn_and_the_relieved_member_gets_one_from_the_fullest() -> None:
    node = group_of(2, addresses=4)
    node.moves.clear()
    node.configure(with_addresses(node.configuration, 2, 3, 4))
    assert placed(node) == [[3], [2, 4]]
    node.configure(with_addresses(node.configuration, 2, 4))
    assert placed(node) == [[4], [2]]
    assert [move.reason for _, move in node.moves] == [
        Reason.ADDRESS_REMOVED,
        Reason.ADDRESS_REMOVED,
        Reason.REBALANCE,
    ]


def test_families_are_spread_each_on_its_own() -> None:
    group = numbered_group(2, addresses=3, **UNPROBED)
    v6 = tuple(DataAddress(ip_interface(f"2001:db8::{n}/128")) for n in (1, 2, 3))
    node = VirtualNode(dataclasses.replace(group, data_addresses=(*group.data_addresses, *v6)))
    node.start()
    for family in (4, 6):
        counts = sorted(
            sum(key in h for a, h in node.kernel.items() if a.version == family) for key in ("nic0", "nic1")
        )
        assert counts == [1, 2]


def test_standby_activated_by_a_failure_takes_only_what_has_no_home() -> None:
    node = group_of(2, 1, addresses=6)
    assert placed(node) == [[1, 3, 5], [2, 4, 6], []]
    node.link("nic0", up=False)
    assert placed(node) == [[], [2, 4, 6], [1, 3, 5]]


def test_nothing_is_placed_before_the_kernel_was_read() -> None:
    node = VirtualNode(numbered_group(2))
    for key in ("nic0", "nic1"):
        for event in node.appearance(key):
            node.handle(event)
    node.run(5)
    assert node.moves == []
    node.handle(events.KernelRead())
    assert len(node.moves) == 2


def test_addresses_found_on_members_stay_where_they_are() -> None:
    node = VirtualNode(numbered_group(2, addresses=4, **UNPROBED))
    for number in (1, 2, 3):
        node.kernel[data_address(number).address].add("nic1")
    node.start()
    assert placed(node) == [[4], [1, 2, 3]]
    assert len(node.moves) == 1


def test_addresses_found_on_a_member_that_is_not_in_use_move() -> None:
    node = VirtualNode(numbered_group(1, 1, **UNPROBED))
    node.kernel[data_address(1).address].add("nic1")
    node.start()
    assert placed(node) == [[1, 2], []]


def test_foreign_addresses_and_foreign_members_are_none_of_our_business() -> None:
    node = group_of(2)
    moves = len(node.moves)
    node.handle(events.AddressFound(ip_interface("198.18.9.9/32"), "nic0"))
    node.handle(events.AddressFound(data_address(1).address, "nic9"))
    node.handle(events.AddressRefused(ip_interface("198.18.9.9/32"), Reason.ADDRESS_CONFLICT, ""))
    assert len(node.moves) == moves
    assert node.snapshot().addresses[0].interface == "nic0"


def test_members_that_come_back_in_one_moment_get_each_address_by_one_move() -> None:
    """Who takes a share next takes it from a member that has just got its own: announced there, too, it would flap."""
    placement = Placement()
    addresses = [ip_interface(f"198.18.1.{number}/32") for number in range(1, 7)]
    placement.configure(addresses)
    placement.place(["nic1"], 0.0, lambda _: Reason.CONFIGURED)
    before = {address: placement.holder(address) for address in addresses}
    placement.claims += ["nic0", "nic2"]
    moves = placement.place(["nic0", "nic1", "nic2"], 1.0, lambda _: Reason.CONFIGURED)
    assert len({move.address for move in moves}) == len(moves) == 4
    for move in moves:
        assert (move.source, move.destination) == (before[move.address], placement.holder(move.address))
    assert [len(placement.addresses(f"nic{number}")) for number in range(3)] == [2, 2, 2]
    assert {saved.at for saved in placement.moved} == {(1.0,)}


def test_refused_address_is_told_and_left_alone_until_it_is_cleared() -> None:
    node = group_of(2)
    address = data_address(1).address
    node.kernel[address].clear()
    node.handle(events.AddressRefused(address, Reason.ADDRESS_CONFLICT, "02:00:00:00:00:99 has it already"))
    node.moves.clear()
    node.link("nic0", up=False)
    node.link("nic0", up=True)
    assert [move for _, move in node.moves if move.address == address] == []
    snapshot = node.snapshot().addresses[0]
    assert (snapshot.interface, snapshot.refusal) == (None, Reason.ADDRESS_CONFLICT)
    assert node.told(Reason.ADDRESS_CONFLICT) == ["198.18.1.1/32 is not available: 02:00:00:00:00:99 has it already"]
    node.handle(events.AddressCleared(address))
    assert node.snapshot().addresses[0].interface is not None


def test_address_that_another_host_claims_as_well_is_told_and_stays() -> None:
    node = group_of(2)
    address = data_address(1).address
    node.moves.clear()
    node.handle(events.AddressContested(address, "02:00:00:00:00:99"))
    node.handle(events.AddressContested(address, None))
    assert node.told(Reason.ADDRESS_CONFLICT) == [
        "198.18.1.1/32 is also claimed by 02:00:00:00:00:99: it stays here and is defended",
        "198.18.1.1/32 is claimed by nobody else any more",
    ]
    assert node.moves == []
    assert node.snapshot().addresses[0].interface == "nic0"


def test_one_failure_is_one_batch_followed_by_its_announcements() -> None:
    node = group_of(3, addresses=6)
    actions = node.handle(events.LinkChanged("nic0", up=False))
    orders: list[Any] = [action for action in actions if type(action) in {MoveAddresses, Announce}]
    assert [type(order) for order in orders] == [MoveAddresses, Announce, Announce]
    assert {a for order in orders[1:] for a in order.addresses} == {m.address for m in orders[0].moves}


def test_changed_mac_is_announced() -> None:
    node = group_of(2)
    nic = node.network.nics["nic0"]
    actions = node.handle(events.InterfaceFound("nic0", "nic0", nic.index, "02:00:00:00:00:77", link=True))
    assert [a for a in actions if type(a) is Announce] == [Announce("nic0", (data_address(1).address,))]


# --- outbound and nominee


def last(actions: Sequence[object], kind: type) -> object:
    return [action for action in actions if type(action) is kind][-1]


def test_every_active_member_sends_and_the_change_is_ordered_once() -> None:
    node = VirtualNode(numbered_group(2, 1, **UNPROBED))
    assert last(node.start(), SetOutbound) == SetOutbound(("nic0", "nic1"), ("nic0", "nic1"))
    actions = node.handle(events.LinkChanged("nic0", up=False))
    assert last(actions, SetOutbound) == SetOutbound(("nic1", "nic2"), ("nic1", "nic2"))
    assert [type(a) for a in actions if type(a) in {MoveAddresses, SetOutbound}] == [MoveAddresses, SetOutbound]
    assert not any(type(a) is SetOutbound for a in node.handle(events.RoutersChanged(())))


def test_without_spreading_one_member_sends() -> None:
    node = VirtualNode(numbered_group(2, outbound_spreading=Switch.DISABLED, **UNPROBED))
    node.start()
    assert node.snapshot().outbound_ipv4 == ("nic0",)


def test_failed_group_keeps_its_routes() -> None:
    node = group_of(2)
    node.link("nic0", up=False)
    actions = node.handle(events.LinkChanged("nic1", up=False))
    assert not any(type(action) in {SetOutbound, MoveAddresses} for action in actions)


def test_nominee_is_the_first_active_and_is_not_moved_back() -> None:
    node = VirtualNode(numbered_group(3, **UNPROBED))
    assert last(node.start(), SetNominee) == SetNominee("nic0", "nic0", ("nic0", "nic1", "nic2"))
    node.link("nic1", up=False)
    node.link("nic1", up=True)
    node.link("nic0", up=False)
    assert node.snapshot().nominee_ipv4 == "nic2"  # nic1 was activated later
    node.link("nic0", up=True)
    assert node.snapshot().nominee_ipv6 == "nic2"
    assert node.interface("nic2").flags == "--mbM--"
    for key in ("nic0", "nic1", "nic2"):
        node.link(key, up=False)
    assert node.snapshot().nominee_ipv4 is None


# --- the move budget


def moved_times(node: VirtualNode, address: int, window: float = 180.0) -> int:
    return sum(m.address == data_address(address).address and node.now - at < window for at, m in node.failovers)


def test_failback_takes_an_address_that_may_move_rather_than_one_that_may_not() -> None:
    node = group_of(2, addresses=2)
    for _ in range(2):
        node.link("nic0", up=False)
        node.run(40)
        node.link("nic0", up=True)
        node.run(40)
    assert moved_times(node, 1) == 3, "two failovers and one failback"
    assert node.held_by("nic0") == [2]


def test_failover_is_never_held_back() -> None:
    node = group_of(2, addresses=1)
    for _ in range(5):
        holder = node.snapshot().addresses[0].interface
        assert holder is not None
        node.remove(holder)
        node.add(holder)
    assert moved_times(node, 1) >= 5


@pytest.mark.parametrize("fails", [True, False])
def test_released_standby_keeps_an_address_that_has_no_move_left_until_it_has(fails: bool) -> None:
    node = VirtualNode(numbered_group(1, 1, addresses=1))
    node.start()
    node.run(3)
    for _ in range(2):
        node.silence("nic0")
        node.run(2)
        node.silence("nic0", on=False)
        node.run(4)
    assert node.active == ["nic0"]
    assert node.interface("nic1").inactive
    assert node.held_by("nic1") == [1], "one move is left to the failover that may follow"
    if fails:
        node.link("nic1", up=False)
        assert node.held_by("nic0") == [1], "a failure does not wait"
    else:
        node.run(200, lambda: node.held_by("nic0") == [1])
        assert node.now == pytest.approx(node.failovers[0][0] + 180.0)


def test_address_that_is_taken_out_and_put_back_keeps_its_budget() -> None:
    node = group_of(1, 1, addresses=1)
    for again in (False, False, True):
        if again:
            node.configure(with_addresses(node.configuration))
            node.configure(with_addresses(node.configuration, 1))
        node.link("nic0", up=False)
        node.run(20)
        node.link("nic0", up=True)
        node.run(20)
    assert node.active == ["nic0"]
    assert node.held_by("nic1") == [1]


@pytest.mark.parametrize("restarted", [False, True], ids=["same agent", "next agents"])
@pytest.mark.parametrize("standby", [0, 1])
def test_flapping_for_an_hour_keeps_the_budget(standby: int, *, restarted: bool) -> None:
    node = group_of(2, standby, addresses=4)
    while node.now < 3600:
        node.link("nic0", up=False)
        node.run(20)
        node.link("nic0", up=True)
        if restarted:
            before = len(node.moves)
            node.restart()
            assert len(node.moves) == before
        node.run(45)
    moves: dict[str, list[float]] = {}
    unforced: dict[str, list[float]] = {}
    for at, move in node.failovers:
        moves.setdefault(str(move.address), []).append(at)
        if move.reason is Reason.FAILBACK:
            unforced.setdefault(str(move.address), []).append(at)
    assert unforced
    invariants.budget_kept(moves, unforced)
    assert all(sum(t - 180 < other <= t for other in times) <= 4 for times in moves.values() for t in times), (
        "not even with the failovers"
    )


def test_claim_of_a_member_that_left_is_forgotten() -> None:
    placement = Placement()
    addresses = [data_address(n).address for n in (1, 2, 3, 4)]
    placement.configure(addresses)
    placement.place(["nic0"], 0.0, lambda _: Reason.LINK_DOWN)
    placement.claims += ["nic1", "nic1"]
    placement.place(["nic0"], 1.0, lambda _: Reason.LINK_DOWN)
    assert placement.place(["nic0", "nic1"], 2.0, lambda _: Reason.LINK_DOWN) == []
    placement.claims.append("nic1")
    assert [move.address for move in placement.place(["nic0", "nic1"], 3.0, lambda _: Reason.LINK_DOWN)] == [
        addresses[3],
        addresses[2],
    ]


# --- what cannot carry a family


def placement_of(holders: dict[str, str | None]) -> Placement:
    placement = Placement()
    placement.configure([ip_interface(address) for address in holders])
    for address, holder in holders.items():
        if holder is not None:
            placement.found(ip_interface(address), holder)
    return placement


def test_a_member_that_cannot_carry_ipv6_gets_none_and_loses_what_it_has() -> None:
    placement = placement_of({"198.18.0.1/24": "nic0", "2001:db8::1/64": "nic0", "2001:db8::2/64": None})
    placement.unable = {("nic0", 6)}
    moves = placement.place(["nic0", "nic1"], 0.0, lambda _: Reason.FAILBACK)
    assert {(str(m.address), m.source, m.destination, m.reason) for m in moves} == {
        ("2001:db8::1/64", "nic0", "nic1", Reason.FAMILY_MISSING),
        ("2001:db8::2/64", None, "nic1", Reason.ADDRESS_ADDED),
    }


def test_addresses_that_no_member_can_carry_stay_where_they_are() -> None:
    placement = placement_of({"2001:db8::1/64": "nic0"})
    placement.unable = {("nic0", 6), ("nic1", 6)}
    placement.claims.append("nic1")
    assert placement.place(["nic0", "nic1"], 0.0, lambda _: Reason.FAILBACK) == []
    assert placement.holder(ip_interface("2001:db8::1/64")) == "nic0"


def test_a_member_that_cannot_carry_ipv6_claims_no_share_of_it() -> None:
    placement = placement_of({f"2001:db8::{i}/64": "nic0" for i in range(1, 5)})
    placement.unable = {("nic1", 6)}
    placement.claims.append("nic1")
    assert placement.place(["nic0", "nic1"], 0.0, lambda _: Reason.FAILBACK) == []
