"""Link and probe are two words: while no member is answered, one that has a link is better than one that has none."""

from __future__ import annotations

import pytest

from ipmp_agent.core.actions import SetNominee, SetOutbound
from ipmp_agent.core.events import LinkChanged
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.words import GroupState
from ipmp_api.types import Mode
from tests.virtual_node import TARGET, VirtualNode, numbered_group


def unanswered(active: int = 2, standby: int = 0, **fields: object) -> VirtualNode:
    """A group whose targets have all fallen silent, with every link up."""
    node = VirtualNode(numbered_group(active, standby, **fields))  # type: ignore[arg-type]
    node.start()
    node.run(3)
    node.all_targets(up=False)
    assert node.run(2, lambda: node.failed)
    assert node.failovers == []
    return node


def test_link_failure_moves_addresses_though_no_target_answers() -> None:
    node = unanswered()
    node.run(10)
    node.link("nic0", up=False)
    assert node.held_by("nic1") == [1, 2]
    assert {move.reason for _, move in node.failovers} == {Reason.LINK_DOWN}
    assert node.snapshot().state is GroupState.FAILED
    assert node.told(Reason.LINK_DOWN)[-1] == (
        "no interface is answered: what is on interfaces without a link goes to nic1"
    )


def test_announcement_and_way_out_go_along() -> None:
    node = unanswered(outbound_spreading=False)
    holder = node.snapshot().outbound_ipv4[0]
    other = "nic1" if holder == "nic0" else "nic0"
    node.network.nics[holder].cable = False
    actions = node.handle(LinkChanged(holder, up=False))
    assert SetOutbound((other,), (other,)) in actions
    assert SetNominee(other, other, (other,), makeshift=True) in actions
    kinds = [type(action).__name__ for action in actions]
    assert kinds.index("MoveAddresses") < kinds.index("SetOutbound") < kinds.index("Announce")


def test_nothing_moves_while_every_holder_has_a_link() -> None:
    node = unanswered(2, 1)
    node.run(60)
    node.link("nic2", up=False)
    node.run(60)
    assert node.failovers == []
    assert set(node.snapshot().outbound_ipv4) == {"nic0", "nic1"}


def test_holder_whose_link_is_back_keeps_what_it_has_while_another_link_has_been_up_for_longer() -> None:
    node = VirtualNode(numbered_group(2, addresses=1))
    node.start()
    node.run(3)
    (holder,) = (key for key in ("nic0", "nic1") if node.held_by(key))
    other = "nic1" if holder == "nic0" else "nic0"
    node.all_targets(up=False)
    node.link(other, up=False)
    node.run(1)
    node.link(other, up=True)
    node.link(holder, up=False)
    node.run(0.5)
    node.link(holder, up=True)
    node.run(30)
    assert node.failovers == []


def test_nothing_moves_where_no_member_has_a_link() -> None:
    node = unanswered()
    node.lose_links("nic0", "nic1")
    node.run(30)
    assert node.failovers == []


def test_standby_with_a_link_takes_over_too() -> None:
    node = unanswered(1, 1)
    node.link("nic0", up=False)
    assert node.held_by("nic1") == [1, 2]
    assert node.active == []


def test_member_that_probes_condemned_is_the_last_choice() -> None:
    node = VirtualNode(numbered_group(3, addresses=3))
    node.start()
    node.run(3)
    node.silence("nic1")
    node.run(2)
    assert node.interface("nic1").reason is Reason.PROBES_LOST
    node.all_targets(up=False)
    assert node.run(2, lambda: node.failed)
    node.link("nic0", up=False)
    assert node.held_by("nic2") == [1, 2, 3]
    node.link("nic2", up=False)
    assert node.held_by("nic1") == [1, 2, 3]


def test_member_that_probes_condemned_keeps_what_it_has_while_another_one_comes_back() -> None:
    node = VirtualNode(numbered_group(2, addresses=1))
    node.start()
    node.run(3)
    (holder,) = (key for key in ("nic0", "nic1") if node.held_by(key))
    other = "nic1" if holder == "nic0" else "nic0"
    node.silence(other)
    node.run(2)
    node.all_targets(up=False)
    assert node.run(2, lambda: node.failed)
    assert node.interface(other).reason is Reason.PROBES_LOST
    node.offline(holder, force=True)
    assert node.held_by(other) == [1]
    node.online(holder)
    node.run(30)
    assert node.held_by(other) == [1]
    assert len(node.failovers) == 1


def test_addresses_leave_an_offline_and_a_vanished_member_as_well() -> None:
    node = unanswered(3, addresses=3)
    node.offline("nic0", force=True)
    assert node.held_by("nic0") == []
    node.remove("nic1")
    assert node.held_by("nic2") == [1, 2, 3]


def test_new_address_is_placed_on_a_member_with_a_link() -> None:
    node = unanswered(addresses=1)
    node.link("nic0", up=False)
    node.configure(numbered_group(addresses=3))
    assert node.held_by("nic1") == [1, 2, 3]


def test_when_targets_return_shares_do_as_well() -> None:
    node = unanswered()
    node.link("nic0", up=False)
    node.run(5)
    node.all_targets(up=True)
    assert node.run(3, lambda: node.interface("nic1").usable)
    assert node.held_by("nic1") == [1, 2]
    node.link("nic0", up=True)
    assert node.run(3, lambda: node.interface("nic0").usable)
    assert len(node.held_by("nic0")) == 1


def test_links_that_return_after_all_were_lost_leave_probes_their_time() -> None:
    """A switch starts anew: its ports come up one after the other, and probes tell who works before anything moves."""
    node = VirtualNode(numbered_group())
    node.start()
    node.run(3)
    node.lose_links("nic0", "nic1")
    node.run(5)
    node.link("nic1", up=True)
    node.run(0.2)
    node.link("nic0", up=True)
    node.run(20)
    assert sorted((node.held_by("nic0"), node.held_by("nic1"))) == [[1], [2]]
    assert len(node.failovers) <= 2  # to whom is answered first, and the share of the other


def test_link_that_returns_alone_is_used_though_nobody_answers() -> None:
    node = VirtualNode(numbered_group())
    node.start()
    node.run(3)
    node.all_targets(up=False)
    node.lose_links("nic0", "nic1")
    node.run(5)
    node.link("nic1", up=True)
    node.run(1.9)
    assert node.failovers == []
    node.run(0.2)
    assert node.held_by("nic1") == [1, 2]


@pytest.mark.parametrize("flaps", [1, 5])
def test_flapping_link_of_an_unanswered_group_moves_an_address_once(flaps: int) -> None:
    node = unanswered(addresses=1)
    (home,) = [key for key in ("nic0", "nic1") if node.held_by(key)]
    for _ in range(flaps):
        node.link(home, up=False)
        node.run(0.5)
        node.link(home, up=True)
        node.run(5)
    assert len(node.failovers) == 1


def test_observing_group_orders_nothing() -> None:
    node = unanswered(mode=Mode.OBSERVE)
    node.link("nic0", up=False)
    assert node.moves == []


def test_after_a_restart_the_addresses_stay_where_they_are() -> None:
    node = unanswered()
    node.link("nic0", up=False)
    node.restart()
    node.run(30)
    assert node.held_by("nic1") == [1, 2]
    assert len(node.failovers) == 1
    node.target(TARGET, up=True)
    assert node.run(3, lambda: node.active == ["nic1"])


@pytest.mark.parametrize("plugged", ["into nothing", "into a switch that hangs"])
def test_what_a_nic_had_that_comes_back_is_there_again_while_nobody_works(plugged: str) -> None:
    """The agent puts back on it what is nowhere else: the core knows, and a later failover takes it from there."""
    node = VirtualNode(numbered_group(2, addresses=2))
    node.start()
    node.run(3)
    node.link("nic0", up=False)
    assert node.held_by("nic1") == [1, 2]
    node.silence("nic1")
    node.remove("nic1")
    assert [address.interface for address in node.snapshot().addresses] == [None, None]
    node.network.nics["nic1"].cable = plugged != "into nothing"
    node.add("nic1")
    node.link("nic1", up=False)
    assert [address.interface for address in node.snapshot().addresses] == ["nic1", "nic1"]
    node.put_back("nic1")
    node.run(60)
    assert node.held_by("nic1") == [1, 2]
    node.link("nic0", up=True)
    assert node.run(3, lambda: node.interface("nic0").usable)
    assert (node.held_by("nic0"), node.held_by("nic1")) == ([1, 2], [])
