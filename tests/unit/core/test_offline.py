"""Taking members out for maintenance, duplicate MAC addresses, and what people are told of it."""

from __future__ import annotations

import dataclasses

from ipmp_agent.core import events
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.words import InterfaceWord
from ipmp_api.types import ProbeMethod
from tests.virtual_node import VirtualNode, mac, numbered_group

UNPROBED = {"pins": (), "probe_method": ProbeMethod.DISABLED}


def group_of(active: int, standby: int = 0, **fields: object) -> VirtualNode:
    node = VirtualNode(numbered_group(active, standby, **UNPROBED, **fields))  # type: ignore[arg-type]
    node.start()
    return node


def test_offline_moves_everything_away_and_online_brings_it_back() -> None:
    node = group_of(2, addresses=4)
    node.offline("nic0")
    assert node.interface("nic0").state is InterfaceWord.OFFLINE
    assert node.held_by("nic1") == [1, 2, 3, 4]
    assert {move.reason for _, move in node.failovers} == {Reason.OFFLINE}
    assert node.told(Reason.OFFLINE) == ["nic0 is offline"]
    node.online("nic0")
    assert node.active == ["nic0", "nic1"]
    assert len(node.held_by("nic0")) == 2
    assert node.told(Reason.ONLINE) == ["nic0 is online"]


def test_offline_of_an_active_member_activates_a_standby() -> None:
    node = group_of(1, 1)
    node.offline("nic0")
    assert node.active == ["nic1"]
    node.online("nic0")
    assert node.active == ["nic0"]


def test_offline_is_refused_when_no_other_member_works() -> None:
    node = group_of(2)
    node.link("nic1", up=False)
    node.offline("nic0")
    assert node.active == ["nic0"]
    assert len(node.told(Reason.MINIMUM_REDUNDANCY)) == 1
    assert "stays online" in node.told(Reason.MINIMUM_REDUNDANCY)[0]
    node.offline("nic1")
    assert node.interface("nic1").offline, "the broken one may go"


def test_inactive_members_count_for_redundancy() -> None:
    node = group_of(1, 1)
    node.offline("nic0")
    assert node.interface("nic0").offline


def test_offline_members_do_not_count_for_redundancy() -> None:
    node = group_of(2)
    node.offline("nic1")
    node.offline("nic0")
    assert node.active == ["nic0"]


def test_in_a_failed_group_every_other_member_that_is_not_offline_counts() -> None:
    node = group_of(3)
    for key in ("nic0", "nic1", "nic2"):
        node.link(key, up=False)
    node.offline("nic0")
    node.offline("nic1")
    assert node.interface("nic0").offline
    assert node.interface("nic1").offline
    node.offline("nic2")
    assert not node.interface("nic2").offline


def test_force_overrides_redundancy() -> None:
    node = group_of(1)
    node.offline("nic0", force=True)
    assert node.interface("nic0").offline
    assert node.failed


def test_single_member_is_refused() -> None:
    node = group_of(1)
    node.offline("nic0")
    assert node.active == ["nic0"]


def test_repeated_and_unknown_requests_are_answered_and_change_nothing() -> None:
    node = group_of(2)
    node.offline("nic9")
    node.online("nic9")
    node.online("nic0")
    node.offline("nic0")
    node.offline("nic0")
    assert [n.message for _, n in node.notices if n.reason in {Reason.INTERFACE_MISSING, Reason.ONLINE}] == [
        "nic9 is not a member of this group",
        "nic9 is not a member of this group",
        "nic0 was not taken offline",
    ]
    assert node.told(Reason.OFFLINE) == ["nic0 is offline", "nic0 is already offline"]


def test_absent_member_can_be_kept_offline_and_be_released_again() -> None:
    node = group_of(2)
    node.remove("nic0")
    node.offline("nic0")
    assert node.told(Reason.OFFLINE) == ["nic0 is kept offline as soon as it is here"]
    node.online("nic0")
    assert node.told(Reason.ONLINE) == ["nic0 is not kept offline any more, and is not here"]
    node.add("nic0")
    assert node.active == ["nic0", "nic1"]


def test_offline_by_the_name_the_kernel_uses_now() -> None:
    node = group_of(2)
    nic = node.network.nics["nic0"]
    node.handle(events.InterfaceFound("nic0", "eth7", nic.index, nic.mac, link=True))
    node.offline("eth7")
    assert node.interface("nic0").offline


def test_offline_survives_replug_and_restart() -> None:
    node = group_of(2)
    node.offline("nic0")
    node.remove("nic0")
    node.add("nic0")
    assert node.interface("nic0").offline
    node.restart()
    assert node.interface("nic0").offline
    assert node.active == ["nic1"]


def test_offline_member_keeps_its_link_word_and_says_why() -> None:
    node = group_of(2)
    node.offline("nic0")
    assert node.interface("nic0").reason is Reason.OFFLINE
    node.link("nic0", up=False)
    node.link("nic0", up=True)
    node.online("nic0")
    assert node.active == ["nic0", "nic1"]


# --- spec.offline


def asked(node: VirtualNode, *keys: str) -> None:
    node.configure(dataclasses.replace(node.configuration, offline=keys))


def test_spec_offline_is_heeded_and_taken_back() -> None:
    node = group_of(2)
    asked(node, "nic0")
    assert node.interface("nic0").offline
    assert node.interface("nic0").reason is Reason.CONFIGURED
    node.online("nic0")
    assert node.interface("nic0").offline
    assert "remove it from spec.offline" in node.told(Reason.ONLINE)[-1]
    asked(node)
    assert node.active == ["nic0", "nic1"]


def test_spec_offline_waits_for_redundancy_and_says_so_once() -> None:
    node = group_of(2)
    node.link("nic1", up=False)
    asked(node, "nic0")
    assert node.active == ["nic0"]
    assert [(each.interface, each.reason) for each in node.snapshot().findings] == [("nic0", Reason.MINIMUM_REDUNDANCY)]
    for _ in range(3):
        node.handle(events.RoutersChanged(()))
    assert len(node.told(Reason.MINIMUM_REDUNDANCY)) == 1
    node.link("nic1", up=True)
    assert node.interface("nic0").offline
    assert node.snapshot().findings == ()
    assert node.told(Reason.MINIMUM_REDUNDANCY)[-1].startswith("no longer: ")


def test_restart_obeys_spec_offline_as_far_as_it_was_obeyed_before() -> None:
    node = group_of(2, offline=("nic0", "nic1"))
    assert (node.interface("nic0").offline, node.active) == (True, ["nic1"])
    node.restart()
    assert (node.interface("nic0").offline, node.active) == (True, ["nic1"])
    node.link("nic1", up=False)
    node.restart()
    assert (node.interface("nic0").offline, node.failed) == (True, True)


def test_maintenance_may_go_on_from_one_member_to_the_next_in_one_change() -> None:
    node = group_of(2, offline=("nic0",))
    assert node.active == ["nic1"]
    asked(node, "nic1")
    assert node.active == ["nic0"]
    assert node.snapshot().findings == ()


def test_member_asked_offline_while_it_is_absent_is_never_used_when_it_comes() -> None:
    node = group_of(1, 2)
    node.remove("nic0")
    asked(node, "nic0")
    before, moves = node.active, len(node.moves)
    node.add("nic0")
    assert node.interface("nic0").offline
    assert (node.active, len(node.moves)) == (before, moves)
    assert node.told(Reason.STANDBY_RELEASED) == []


def test_last_member_asked_offline_is_used_all_the_same() -> None:
    node = VirtualNode(numbered_group(1, offline=("nic0",), **UNPROBED))  # type: ignore[arg-type]
    node.start()
    assert node.active == ["nic0"]
    node.restart()
    assert node.active == ["nic0"]
    node.remove("nic0")
    node.add("nic0")
    assert node.active == ["nic0"]


def test_person_and_spec_must_both_let_go() -> None:
    node = group_of(2)
    node.offline("nic0")
    asked(node, "nic0")
    node.online("nic0")
    assert node.interface("nic0").offline
    asked(node)
    assert node.active == ["nic0", "nic1"]


# --- duplicate MAC


def test_member_that_gets_the_mac_of_another_goes_offline_and_comes_back() -> None:
    node = group_of(3)
    node.wear("nic1", "nic0")
    interface = node.interface("nic1")
    assert (interface.offline, interface.flags[6]) == (True, "h")
    assert node.active == ["nic0", "nic2"]
    assert len(node.told(Reason.DUPLICATE_MAC)) == 1
    node.online("nic1")
    assert node.interface("nic1").offline, "cannot be brought online by hand"
    assert "unique" in node.told(Reason.DUPLICATE_MAC)[-1]
    node.wear("nic1", "nic1")
    assert node.active == ["nic0", "nic1", "nic2"]


def test_of_two_members_with_one_mac_at_the_start_the_second_is_offline() -> None:
    node = VirtualNode(numbered_group(2, **UNPROBED))  # type: ignore[arg-type]
    node.network.nics["nic1"].mac = mac(0)
    node.start()
    assert node.active == ["nic0"]
    assert node.interface("nic1").flags == "------h"


def test_which_of_two_twins_is_online_does_not_hang_on_who_was_found_first() -> None:
    node = VirtualNode(numbered_group(3, **UNPROBED))  # type: ignore[arg-type]
    node.network.nics["nic1"].mac = mac(0)
    node.network.nics = dict(sorted(node.network.nics.items(), reverse=True))
    node.start()
    assert node.active == ["nic0", "nic2"]
    assert node.interface("nic1").flags == "------h"
    assert node.told(Reason.DUPLICATE_MAC)[0].startswith("nic1 has the MAC address")


def test_a_member_that_comes_later_takes_nothing_from_its_twin() -> None:
    node = group_of(3)
    node.remove("nic0")
    node.wear("nic1", "nic0")
    node.add("nic0")
    assert node.active == ["nic1", "nic2"]


def test_a_restart_changes_nothing_between_twins() -> None:
    node = group_of(3, addresses=3)
    node.wear("nic1", "nic0")
    node.offline("nic0")
    node.online("nic0")
    assert node.active == ["nic1", "nic2"]
    before = {address: set(holders) for address, holders in node.kernel.items()}
    node.moves.clear()
    node.restart()
    assert node.active == ["nic1", "nic2"]
    assert node.kernel == before
    assert node.moves == []
    node.remove("nic1")
    assert node.active == ["nic0", "nic2"]


def test_twin_whose_other_left_while_no_agent_ran_is_online_at_once() -> None:
    node = group_of(3, addresses=3)
    node.wear("nic1", "nic0")
    node.wear("nic2", "nic0")
    saved = node.core.saved()
    assert [one.twin for one in saved.interfaces] == [False, True, True]
    node.network.nics["nic0"].present = False
    for holders in node.kernel.values():
        holders.discard("nic0")
    node.restart()
    assert node.active == ["nic1"]
    assert node.interface("nic2").flags[6] == "h"
    assert node.held_by("nic1") == [1, 2, 3]


def test_second_member_that_is_the_same_interface_is_refused_and_no_twin() -> None:
    """It wears the MAC address of the first, being the first."""
    node = VirtualNode(numbered_group(3, **UNPROBED))  # type: ignore[arg-type]
    nic = node.network.nics["nic0"]
    node.network.nics["nic2"].present = False
    conflict = Reason.INTERFACE_CONFLICT
    node.handle(events.InterfaceFound("nic2", "nic0", nic.index, nic.mac, link=True, refusal=conflict))
    node.start()
    assert node.active == ["nic0", "nic1"]
    assert node.interface("nic2").reason is conflict
    assert node.told(Reason.DUPLICATE_MAC) == []


def test_twin_is_brought_online_when_the_other_goes_offline() -> None:
    node = group_of(3)
    node.wear("nic1", "nic0")
    node.offline("nic0")
    assert node.active == ["nic1", "nic2"]
    node.online("nic0")
    assert node.interface("nic0").flags[6] == "h"
    assert node.active == ["nic1", "nic2"]


def test_twin_is_brought_online_when_the_other_vanishes() -> None:
    node = group_of(3)
    node.wear("nic1", "nic0")
    node.remove("nic0")
    assert node.active == ["nic1", "nic2"]


def test_all_but_one_of_three_twins_are_offline() -> None:
    node = group_of(3)
    node.wear("nic1", "nic0")
    node.wear("nic2", "nic0")
    assert node.active == ["nic0"]
    node.remove("nic0")
    assert node.active == ["nic1"]
