"""Who is active: standby activation, repair, failback, capacity."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from ipmp_agent.core import events
from ipmp_agent.core.actions import Announce, MoveAddresses, SetOutbound
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.words import GroupState
from ipmp_api.types import ProbeMethod, Role
from tests.virtual_node import VirtualNode, numbered_group

UNPROBED = {"pins": (), "probe_method": ProbeMethod.DISABLED}


def group_of(active: int, standby: int = 0, **fields: object) -> VirtualNode:
    """Links only: a failure is a pulled cable, a repair the same cable plugged in."""
    node = VirtualNode(numbered_group(active, standby, **UNPROBED, **fields))  # type: ignore[arg-type]
    node.start()
    return node


def numbers(keys: object) -> list[int]:
    return [int(str(key)[3:]) for key in keys]  # type: ignore[attr-defined]


def uses(node: VirtualNode) -> tuple[list[int], list[int], list[int]]:
    """Active, inactive and unusable members."""
    members = node.snapshot().interfaces
    return (
        numbers(m.interface for m in members if m.active),
        numbers(m.interface for m in members if m.inactive),
        numbers(m.interface for m in members if not m.usable),
    )


def fail(node: VirtualNode, *which: int) -> None:
    for number in which:
        node.link(f"nic{number}", up=False)


def repair(node: VirtualNode, *which: int) -> None:
    for number in which:
        node.run(61.0)  # clear of the flap rule
        node.link(f"nic{number}", up=True)


def test_life_of_two_members_and_two_standbys() -> None:
    """A, B = 0, 1; S, T = 2, 3."""
    node = group_of(2, 2)
    assert uses(node) == ([0, 1], [2, 3], [])
    fail(node, 0)
    assert uses(node) == ([1, 3], [2], [0])
    fail(node, 1)
    assert uses(node) == ([2, 3], [], [0, 1])
    fail(node, 3)
    assert uses(node) == ([2], [], [0, 1, 3])
    repair(node, 0)
    assert uses(node) == ([0, 2], [], [1, 3])
    repair(node, 1)
    assert uses(node) == ([0, 1], [2], [3])
    repair(node, 3)
    assert uses(node) == ([0, 1], [2, 3], [])


@pytest.mark.parametrize(
    ("active", "standby", "failures"),
    [(a, s, k) for a, s in itertools.product((1, 2, 3, 8), (0, 1, 2, 8)) for k in range(a + 1) if a + s <= 16],
)
def test_as_many_standbys_are_activated_as_active_members_failed(active: int, standby: int, failures: int) -> None:
    node = group_of(active, standby)
    fail(node, *range(failures))
    in_use, waiting, out = uses(node)
    assert len(out) == failures
    assert len([n for n in in_use if n >= active]) == min(failures, standby)
    assert len(waiting) == standby - min(failures, standby)


@pytest.mark.parametrize(("active", "standby", "first"), [(1, 1, SetOutbound), (2, 0, Announce), (2, 1, Announce)])
def test_way_out_comes_before_the_announcement_only_where_none_is_left(
    active: int, standby: int, first: type[object]
) -> None:
    node = group_of(active, standby)
    actions = node.handle(events.LinkChanged("nic0", up=False))
    orders = [type(action) for action in actions if isinstance(action, MoveAddresses | SetOutbound | Announce)]
    assert orders[:2] == [MoveAddresses, first]
    assert set(orders) == {MoveAddresses, SetOutbound, Announce}


def test_failure_of_an_inactive_member_activates_nothing() -> None:
    node = group_of(1, 2)
    fail(node, 2)
    assert uses(node) == ([0], [1], [2])
    assert node.told(Reason.STANDBY_ACTIVATED) == []


def test_activated_standby_that_fails_is_replaced_too() -> None:
    node = group_of(1, 2)
    fail(node, 0, 2)
    assert uses(node) == ([1], [], [0, 2])


def test_standby_is_preferred_to_a_member_that_is_merely_inactive() -> None:
    node = group_of(2, 2, failback=False)
    fail(node, 0)
    repair(node, 0)
    assert uses(node) == ([1, 3], [0, 2], [])
    fail(node, 1)
    assert uses(node) == ([2, 3], [0], [1])
    fail(node, 3)
    assert uses(node) == ([0, 2], [], [1, 3])


def test_oldest_inactive_member_is_taken_when_there_is_no_standby() -> None:
    node = group_of(3, 2, failback=False)
    fail(node, 0, 1)
    assert uses(node) == ([2, 3, 4], [], [0, 1])
    repair(node, 1, 0)
    assert uses(node) == ([2, 3, 4], [0, 1], [])
    fail(node, 4)
    assert uses(node)[0] == [0, 2, 3]


def test_standby_repaired_while_others_do_its_work_stays_inactive_and_changes_nobody() -> None:
    node = group_of(1, 2)
    fail(node, 0)
    assert uses(node) == ([2], [1], [0])
    fail(node, 1)
    repair(node, 1)
    assert uses(node) == ([2], [1], [0])


def test_standby_repaired_while_it_is_needed_is_active() -> None:
    node = group_of(2, 1)
    fail(node, 0, 1, 2)
    repair(node, 2)
    assert uses(node) == ([2], [], [0, 1])


def test_repaired_member_sends_exactly_one_standby_back() -> None:
    node = group_of(2, 2)
    fail(node, 0, 1)
    repair(node, 0)
    assert len(uses(node)[0]) == 2
    assert node.told(Reason.STANDBY_RELEASED) == ["nic2 is no longer needed, now inactive"]


def test_only_standby_of_a_group_is_active() -> None:
    assert uses(group_of(0, 1)) == ([0], [], [])


def test_group_of_standbys_only_always_keeps_one_active() -> None:
    node = group_of(0, 2)
    assert len(uses(node)[0]) == 1
    (first,) = uses(node)[0]
    fail(node, first)
    repair(node, first)
    assert len(uses(node)[0]) == 1
    fail(node, 0, 1)
    repair(node, 0, 1)
    assert len(uses(node)[0]) == 1


def test_members_are_ok_degraded_failed() -> None:
    node = group_of(1, 1)
    assert node.snapshot().state is GroupState.OK
    fail(node, 1)
    assert node.snapshot().state is GroupState.DEGRADED
    fail(node, 0)
    assert node.snapshot().state is GroupState.FAILED
    repair(node, 0)
    assert node.snapshot().state is GroupState.DEGRADED


def test_offline_member_degrades_its_group_and_an_inactive_one_does_not() -> None:
    node = group_of(1, 1)
    assert node.snapshot().state is GroupState.OK
    node.offline("nic1")
    assert node.snapshot().state is GroupState.DEGRADED


# --- failback Disabled


def test_without_failback_a_repaired_member_waits_while_the_group_is_at_capacity() -> None:
    node = group_of(1, 1, failback=False)
    fail(node, 0)
    repair(node, 0)
    assert uses(node) == ([1], [0], [])
    assert node.held_by("nic1") == [1, 2]
    assert len(node.told(Reason.FAILBACK_DISABLED)) == 1
    fail(node, 1)
    assert uses(node) == ([0], [], [1])
    assert node.held_by("nic0") == [1, 2]


def test_without_failback_a_repaired_member_is_active_below_capacity_and_takes_no_address_back() -> None:
    node = group_of(2, failback=False, addresses=4)
    fail(node, 0)
    repair(node, 0)
    assert uses(node) == ([0, 1], [], [])
    assert node.held_by("nic1") == [1, 2, 3, 4]
    assert node.snapshot().outbound_ipv4 == ("nic1", "nic0")


def test_without_failback_the_failure_of_the_whole_group_is_an_exception() -> None:
    node = group_of(1, 1, failback=False)
    fail(node, 0, 1)
    repair(node, 0)
    assert uses(node) == ([0], [], [1])


def test_without_failback_a_member_that_appears_or_is_brought_online_is_active() -> None:
    node = group_of(1, 1, failback=False)
    node.offline("nic0")
    assert uses(node)[0] == [1]
    node.online("nic0")
    assert uses(node)[0] == [0]
    node.remove("nic0")
    assert uses(node)[0] == [1]
    node.add("nic0")
    assert uses(node)[0] == [0]


def test_failback_enabled_again_gives_repaired_members_their_place() -> None:
    node = group_of(1, 1, failback=False)
    fail(node, 0)
    repair(node, 0)
    assert uses(node) == ([1], [0], [])
    policies = dataclasses.replace(node.configuration.policies, failback=numbered_group().policies.failback)
    node.configure(dataclasses.replace(node.configuration, policies=policies))
    assert uses(node) == ([0], [1], [])


# --- changes of the group


def with_roles(node: VirtualNode, *roles: Role) -> None:
    members = tuple(
        dataclasses.replace(member, role=role) for member, role in zip(node.configuration.members, roles, strict=False)
    )
    node.configure(dataclasses.replace(node.configuration, members=members))


def test_member_that_becomes_a_standby_leaves_when_others_suffice() -> None:
    node = group_of(3)
    with_roles(node, Role.ACTIVE, Role.STANDBY, Role.ACTIVE)
    assert uses(node) == ([0, 2], [1], [])


def test_member_that_becomes_a_standby_goes_before_one_that_is_in_use_for_another() -> None:
    node = group_of(2, 2)
    fail(node, 0)
    assert uses(node)[0] == [1, 3]
    with_roles(node, Role.ACTIVE, Role.STANDBY, Role.STANDBY, Role.STANDBY)
    assert uses(node) == ([3], [1, 2], [0])


def test_member_that_has_just_become_a_standby_is_the_one_released() -> None:
    node = group_of(3)
    with_roles(node, Role.STANDBY, Role.ACTIVE, Role.ACTIVE)
    fail(node, 1)
    assert uses(node) == ([0, 2], [], [1])
    with_roles(node, Role.STANDBY, Role.ACTIVE, Role.STANDBY)
    assert uses(node) == ([0], [2], [1])


def test_member_that_becomes_a_standby_stays_active_when_nobody_else_is() -> None:
    node = group_of(1)
    with_roles(node, Role.STANDBY)
    assert uses(node) == ([0], [], [])


def test_standby_that_becomes_an_active_member_is_used() -> None:
    node = group_of(1, 1)
    with_roles(node, Role.ACTIVE, Role.ACTIVE)
    assert uses(node) == ([0, 1], [], [])


def without(node: VirtualNode, number: int) -> None:
    members = tuple(m for m in node.configuration.members if m.key != f"nic{number}")
    node.configure(dataclasses.replace(node.configuration, members=members))


def test_removing_an_active_member_lowers_the_capacity() -> None:
    node = group_of(2, 1)
    without(node, 0)
    assert uses(node) == ([1], [2], [])


def test_removing_the_last_active_member_activates_a_standby() -> None:
    node = group_of(1, 2)
    without(node, 0)
    assert len(uses(node)[0]) == 1


def test_removing_a_standby_in_use_activates_another() -> None:
    node = group_of(1, 2)
    fail(node, 0)
    assert uses(node)[0] == [2]
    without(node, 2)
    assert uses(node)[0] == [1]


def test_addresses_leave_a_removed_member() -> None:
    node = group_of(2, addresses=4)
    without(node, 0)
    assert node.held_by("nic1") == [1, 2, 3, 4]
    assert node.held_by("nic0") == []


# --- a NIC that is missing


def test_missing_at_start_is_failed_and_a_standby_compensates() -> None:
    node = VirtualNode(numbered_group(1, 1, **UNPROBED))  # type: ignore[arg-type]
    node.network.nics["nic0"].present = False
    node.start()
    assert uses(node) == ([1], [], [0])
    assert node.interface("nic0").reason is Reason.INTERFACE_MISSING
    assert node.interface("nic0").flags[5] == "d"
    assert node.held_by("nic1") == [1, 2]
    node.add("nic0")
    assert uses(node) == ([0], [1], [])
    assert node.held_by("nic0") == [1, 2]
    assert node.told(Reason.INTERFACE_APPEARED) == ["nic0 is here"]


def test_unplugged_member_moves_its_addresses_and_takes_its_share_when_it_is_back() -> None:
    node = group_of(2, addresses=4)
    node.remove("nic0")
    assert node.held_by("nic1") == [1, 2, 3, 4]
    assert {move.reason for _, move in node.failovers} == {Reason.INTERFACE_MISSING}
    node.add("nic0")
    assert len(node.held_by("nic0")) == len(node.held_by("nic1")) == 2


def test_only_member_that_is_replugged_gets_its_addresses_again() -> None:
    node = group_of(1)
    node.remove("nic0")
    assert node.failed
    assert node.held_by("nic0") == []
    node.add("nic0")
    assert node.held_by("nic0") == [1, 2]


def test_member_that_reappears_without_link_changes_nobody() -> None:
    node = group_of(1, 2)
    fail(node, 0)
    node.remove("nic0")
    before, moves = uses(node), len(node.moves)
    node.network.nics["nic0"].cable = False
    node.add("nic0")
    assert uses(node) == before
    assert len(node.moves) == moves
    assert node.told(Reason.STANDBY_RELEASED) == []


def test_replacement_under_another_index_is_a_new_interface() -> None:
    node = group_of(2)
    nic = node.network.nics["nic0"]
    node.kernel[node.configuration.data_addresses[0].address].discard("nic0")
    node.handle(events.InterfaceFound("nic0", "nic0", 99, "02:00:00:00:00:77", link=True))
    assert node.interface("nic0").index == 99
    assert node.interface("nic0").mac == "02:00:00:00:00:77"
    assert nic.index != 99
    assert node.active == ["nic0", "nic1"]
    assert sum(len(node.held_by(key)) for key in ("nic0", "nic1")) == 2


def test_rename_changes_the_name_and_nothing_else() -> None:
    node = group_of(2)
    moves = len(node.moves)
    nic = node.network.nics["nic0"]
    node.handle(events.InterfaceFound("nic0", "eth7", nic.index, nic.mac, link=True, mtu=9000, speed_megabits=10000))
    interface = node.interface("nic0")
    assert (interface.name, interface.speed_megabits, interface.active) == ("eth7", 10000, True)
    assert len(node.moves) == moves


@pytest.mark.parametrize(
    "refusal",
    [
        Reason.BOND_MEMBER,
        Reason.BRIDGE_PORT,
        Reason.VRF_MEMBER,
        Reason.POINT_TO_POINT,
        Reason.LOOPBACK,
        Reason.UNSUITABLE_DEVICE,
        Reason.INTERFACE_CONFLICT,
    ],
)
def test_unfit_member_is_refused_once_with_what_to_do_and_harms_nobody(refusal: Reason) -> None:
    node = group_of(2)
    nic = node.network.nics["nic0"]
    for mtu in (1500, 1400):
        node.handle(events.InterfaceFound("nic0", "nic0", nic.index, nic.mac, link=True, mtu=mtu, refusal=refusal))
    interface = node.interface("nic0")
    assert (interface.refusal, interface.present, interface.usable, interface.reason) == (
        refusal,
        False,
        False,
        refusal,
    )
    assert node.active == ["nic1"]
    assert node.held_by("nic1") == [1, 2]
    assert len(node.told(refusal)) == 1
    assert node.told(refusal)[0].startswith("nic0 cannot be a member: ")
    node.handle(events.InterfaceFound("nic0", "nic0", nic.index, nic.mac, link=True))
    assert node.active == ["nic0", "nic1"]


def test_member_of_another_medium_is_refused() -> None:
    node = VirtualNode(numbered_group(2, **UNPROBED))  # type: ignore[arg-type]
    node.handle(events.InterfaceFound("nic0", "nic0", 2, "02:00:00:00:00:00", link=True, media=1))
    node.handle(events.InterfaceFound("nic1", "nic1", 3, "02:00:00:00:00:01", link=True, media=32))
    node.handle(events.KernelRead())
    assert node.interface("nic1").refusal is Reason.MEDIA_MISMATCH
    assert node.active == ["nic0"]


# --- restart


@pytest.mark.parametrize("failback", [True, False])
def test_restart_changes_nothing(failback: bool) -> None:
    node = group_of(2, 2, failback=failback, addresses=4)
    fail(node, 0)
    repair(node, 0)
    fail(node, 1)
    node.offline("nic0")
    before, placed = uses(node), {a: set(h) for a, h in node.kernel.items()}
    moves = len(node.moves)
    node.restart()
    assert uses(node) == before
    assert {a: set(h) for a, h in node.kernel.items()} == placed
    assert len(node.moves) == moves


def test_restart_leaves_a_repaired_member_inactive() -> None:
    node = group_of(1, 1, failback=False)
    fail(node, 0)
    repair(node, 0)
    moves = len(node.moves)
    node.restart()
    assert uses(node) == ([1], [0], [])
    assert len(node.moves) == moves


def test_restart_remembers_why_a_member_failed() -> None:
    node = VirtualNode(numbered_group(2))
    node.start()
    node.run(3)
    node.silence("nic0")
    node.run(2)
    node.restart()
    assert node.interface("nic0").reason is Reason.PROBES_LOST
    node.run(60)
    assert node.active == ["nic1"]
    node.silence("nic0", on=False)
    node.run(3)
    assert node.active == ["nic0", "nic1"]


def test_restart_notices_a_link_that_came_back_meanwhile() -> None:
    node = group_of(2)
    fail(node, 0)
    node.network.nics["nic0"].cable = True
    node.restart()
    assert node.active == ["nic0", "nic1"]


def test_restart_in_a_failed_group_moves_nothing() -> None:
    node = VirtualNode(numbered_group(2, 1, addresses=4))
    node.start()
    node.run(3)
    node.all_targets(up=False)
    node.run(3)
    node.restart()
    assert node.failed
    node.run(5)
    node.all_targets(up=True)
    node.run(1.35)
    node.restart()
    node.run(5)
    assert node.failovers == []
    assert node.snapshot().state is GroupState.OK


def test_offline_request_for_an_absent_member_survives_a_restart() -> None:
    node = group_of(2)
    node.remove("nic0")
    node.offline("nic0")
    node.restart()
    node.add("nic0")
    assert node.interface("nic0").offline
    node.online("nic0")
    assert node.active == ["nic0", "nic1"]
