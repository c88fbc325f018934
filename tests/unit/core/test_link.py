"""Link-based detection and the flap rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core import events
from ipmp_agent.core.actions import Notify
from ipmp_agent.core.link import LinkState
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.words import InterfaceWord, LinkWord
from ipmp_api.types import ProbeMethod
from tests.virtual_node import VirtualNode, numbered_group

if TYPE_CHECKING:
    from collections.abc import Callable

UNPROBED: dict[str, Any] = {"pins": (), "probe_method": ProbeMethod.DISABLED}


def unprobed(active: int = 2, standby: int = 0, **fields: Any) -> VirtualNode:
    node = VirtualNode(numbered_group(active, standby, **UNPROBED, **fields))
    node.start()
    return node


def probed(**fields: Any) -> VirtualNode:
    node = VirtualNode(numbered_group(2, **fields))
    node.start()
    node.run(3)
    return node


def test_link_down_fails_at_once_and_moves_in_the_same_breath() -> None:
    node = unprobed()
    node.link("nic0", up=False)
    assert node.interface("nic0").state is InterfaceWord.FAILED
    assert node.interface("nic0").reason is Reason.LINK_DOWN
    assert node.held_by("nic1") == [1, 2]
    assert [move.reason for _, move in node.failovers] == [Reason.LINK_DOWN]


@pytest.mark.parametrize("make", [unprobed, probed])
def test_links_that_die_in_the_same_instant_fail_the_group_and_move_nothing(
    make: Callable[[], VirtualNode],
) -> None:
    node = make()
    node.lose_links("nic0", "nic1")
    assert node.failed
    assert not node.failovers
    assert {node.interface(nic).reason for nic in ("nic0", "nic1")} == {Reason.LINK_DOWN}
    node.link("nic1", up=True)
    node.run(5)
    assert node.held_by("nic1") == [1, 2]


def test_links_that_die_in_the_same_instant_move_their_addresses_once() -> None:
    node = unprobed(active=3)
    node.lose_links("nic0", "nic1")
    assert node.held_by("nic2") == [1, 2]
    assert [move.destination for _, move in node.failovers] == ["nic2", "nic2"]


@pytest.mark.parametrize("lost", [("nic0", "nic2"), ("nic2", "nic0")])
def test_standby_that_dies_in_the_same_instant_is_not_called_up(lost: tuple[str, str]) -> None:
    node = unprobed(active=1, standby=2)
    node.lose_links(*lost)
    assert node.held_by("nic1") == [1, 2]
    assert node.told(Reason.STANDBY_ACTIVATED) == ["nic1 is activated"]


def test_link_up_repairs_at_once_a_member_that_is_not_probed() -> None:
    node = unprobed()
    node.link("nic0", up=False)
    node.link("nic0", up=True)
    assert node.interface("nic0").usable
    assert (node.held_by("nic0"), node.held_by("nic1")) == ([1], [2])


def test_link_up_alone_never_repairs_a_member_that_is_probed() -> None:
    node = probed()
    node.link("nic0", up=False)
    node.run(0.5)
    node.silence("nic0")
    node.link("nic0", up=True)
    node.run(30)
    assert not node.interface("nic0").usable
    assert node.interface("nic0").link is LinkWord.UP
    node.silence("nic0", on=False)
    assert node.run(2.5, lambda: node.interface("nic0").usable)


def test_old_answers_do_not_prove_the_repair_of_a_link_that_was_down() -> None:
    node = probed()
    node.link("nic0", up=False)
    node.link("nic0", up=True)
    assert not node.run(10 * 0.142 - 0.142, lambda: node.interface("nic0").usable)
    assert node.run(1.0, lambda: node.interface("nic0").usable)


def test_nothing_is_probed_while_the_link_is_down_and_late_replies_do_not_count() -> None:
    node = probed()
    node.remember_probes = True
    node.delay = lambda _: 0.05
    node.run(1.0)
    node.network.nics["nic0"].cable = False
    node.handle(events.LinkChanged("nic0", up=False))
    node.network.nics["nic0"].cable = True  # replies still come
    sent = len([p for _, p in node.sent if p.interface == "nic0"])
    closed = len([p for _, p in node.closed if p.interface == "nic0"])
    node.run(5.0)
    assert len([p for _, p in node.sent if p.interface == "nic0"]) == sent
    assert len([p for _, p in node.closed if p.interface == "nic0"]) == closed


def test_both_links_down_is_group_failure_and_the_last_move_was_the_first() -> None:
    node = unprobed()
    node.link("nic0", up=False)
    moves = len(node.moves)
    node.link("nic1", up=False)
    assert node.failed
    assert len(node.moves) == moves
    assert node.told(Reason.GROUP_FAILED) == ["all interfaces are now unusable"]


def test_single_member_reports_failure_and_moves_nothing() -> None:
    node = unprobed(1)
    node.link("nic0", up=False)
    assert node.failed
    assert node.held_by("nic0") == [1, 2]
    node.link("nic0", up=True)
    assert not node.failed
    assert node.failovers == []


def test_link_that_is_down_at_the_start_fails_at_once() -> None:
    node = VirtualNode(numbered_group(2))
    node.network.nics["nic0"].cable = False
    node.start()
    assert node.active == ["nic1"]
    assert node.held_by("nic1") == [1, 2]


@pytest.mark.parametrize("restarted", [False, True], ids=["same agent", "next agent"])
def test_third_link_up_within_a_minute_is_refused_until_the_minute_after_the_second_is_over(*, restarted: bool) -> None:
    node = unprobed()
    ups = []
    for _ in range(3):
        node.link("nic0", up=False)
        node.run(5.0)
        node.link("nic0", up=True)
        ups.append((node.now, node.interface("nic0").usable))
        node.run(5.0)
        if restarted:
            node.restart()
    assert [usable for _, usable in ups] == [True, True, False]
    retry = ups[1][0] + 60.0
    assert not node.run(retry - node.now - 0.001, lambda: node.interface("nic0").usable)
    assert node.run(0.002, lambda: node.interface("nic0").usable)


def test_flapping_is_told_once_and_again_only_after_it_was_over() -> None:
    node = unprobed()
    for _ in range(8):
        node.link("nic0", up=False)
        node.run(1.0)
        node.link("nic0", up=True)
        node.run(1.0)
    assert len(node.told(Reason.LINK_FLAPPING)) == 1
    node.run(120.0)
    assert node.interface("nic0").usable
    for _ in range(4):
        node.link("nic0", up=False)
        node.link("nic0", up=True)
    assert len(node.told(Reason.LINK_FLAPPING)) == 2


def test_continuous_flapping_keeps_a_member_out_and_downs_are_never_damped() -> None:
    node = unprobed()
    for _ in range(300):
        node.link("nic0", up=False)
        assert not node.interface("nic0").usable
        node.run(0.5)
        node.link("nic0", up=True)
        node.run(0.5)
    assert len([v for _, v in node.verdicts if not v.failed]) <= 2


def test_held_link_that_is_down_when_its_time_comes_is_not_repaired() -> None:
    node = unprobed()
    for _ in range(3):
        node.link("nic0", up=False)
        node.link("nic0", up=True)
    node.link("nic0", up=False)
    node.run(100.0)
    assert not node.interface("nic0").usable
    node.link("nic0", up=True)
    assert node.interface("nic0").usable


def test_flap_rule_never_keeps_the_last_working_link_out() -> None:
    node = unprobed()
    for _ in range(3):
        node.link("nic0", up=False)
        node.link("nic0", up=True)
    assert not node.interface("nic0").usable
    node.link("nic1", up=False)
    assert node.active == ["nic0"]
    assert node.held_by("nic0") == [1, 2]


def test_flapping_link_is_taken_when_the_last_working_member_vanishes() -> None:
    node = unprobed()
    for _ in range(3):
        node.link("nic0", up=False)
        node.link("nic0", up=True)
    node.remove("nic1")
    assert node.active == ["nic0"]
    assert node.held_by("nic0") == [1, 2]


def test_flapping_link_is_taken_when_probes_condemn_the_last_working_member() -> None:
    node = probed(test_addresses=["198.18.2.1/24"], probe_method=ProbeMethod.ICMP)  # no probe can judge nic1
    for _ in range(3):
        node.link("nic1", up=False)
        node.link("nic1", up=True)
    assert node.active == ["nic0"]
    node.silence("nic0")
    assert node.run(1.0, lambda: node.held_by("nic1") == [1, 2])
    assert node.interface("nic0").reason is Reason.PROBES_LOST


def test_any_link_up_counts_in_a_failed_group() -> None:
    node = unprobed(1)
    for _ in range(5):
        node.link("nic0", up=False)
        node.link("nic0", up=True)
        assert not node.failed


def test_probed_member_may_flap_as_often_as_it_proves_itself() -> None:
    node = probed()
    for _ in range(4):
        node.link("nic0", up=False)
        node.run(0.5)
        node.link("nic0", up=True)
        assert node.run(3.0, lambda: node.interface("nic0").usable)
    assert node.told(Reason.LINK_FLAPPING) == []


def test_driver_that_does_not_report_has_an_unknown_link_that_is_taken_for_good() -> None:
    node = VirtualNode(numbered_group(2, **UNPROBED))
    for key in ("nic0", "nic1"):
        nic = node.network.nics[key]
        node.handle(events.InterfaceFound(key, key, nic.index, nic.mac, None))
    node.handle(events.KernelRead())
    assert node.interface("nic0").link is LinkWord.UNKNOWN
    assert node.active == ["nic0", "nic1"]
    node.handle(events.LinkChanged("nic0", up=False))
    assert not node.interface("nic0").usable
    found = node.network.nics["nic0"]
    node.handle(events.InterfaceFound("nic0", "nic0", found.index, found.mac, None))
    assert node.interface("nic0").usable
    assert node.interface("nic0").link is LinkWord.UNKNOWN


@pytest.mark.parametrize(
    ("ups", "stable"),
    [
        ([0.0], [True]),
        ([0.0, 1.0], [True, True]),
        ([0.0, 1.0, 2.0], [True, True, False]),
        ([0.0, 1.0, 60.0], [True, True, False]),
        ([0.0, 1.0, 60.001], [True, True, True]),
        ([0.0, 1.0, 2.0, 61.0], [True, True, False, False]),
        ([0.0, 1.0, 2.0, 61.001], [True, True, False, True]),
    ],
)
def test_flap_rule_looks_at_the_last_but_one_up(ups: list[float], stable: list[bool]) -> None:
    link = LinkState()
    assert [link.came_up(now) for now in ups] == stable


def test_a_member_that_is_taken_down_is_not_said_to_have_lost_its_link() -> None:
    """Who reads of a link looks for the cable."""
    node = unprobed()
    actions = node.handle(events.LinkChanged("nic0", up=False, taken_down=True))
    said = [action.message for action in actions if isinstance(action, Notify) and action.interface == "nic0"]
    assert said == ["failure of nic0 detected: it is taken down on this host"]
    node.handle(events.LinkChanged("nic0", up=True))
    actions = node.handle(events.LinkChanged("nic0", up=False))
    said = [action.message for action in actions if isinstance(action, Notify) and action.interface == "nic0"]
    assert said == ["failure of nic0 detected: its link is down"]


def test_members_that_are_taken_down_together_are_said_to_be_so() -> None:
    """As by who restarts the network of the host."""
    node = unprobed()
    actions = node.handle(events.LinksLost(("nic0", "nic1"), ("nic0", "nic1")))
    said = [action.message for action in actions if isinstance(action, Notify) and action.reason is Reason.LINK_DOWN]
    assert said
    assert all("taken down on this host" in words for words in said)


def test_a_member_that_comes_back_taken_down_is_said_to_be_so() -> None:
    """As a NIC does that is plugged in while the host runs."""
    node = unprobed()
    nic = node.network.nics["nic0"]
    node.handle(events.InterfaceVanished("nic0"))
    actions = node.handle(events.InterfaceFound("nic0", "nic0", 99, nic.mac, link=False, taken_down=True))
    said = [action.message for action in actions if isinstance(action, Notify) and action.reason is Reason.LINK_DOWN]
    assert said == ["failure of nic0 detected: it is taken down on this host"]


def test_member_that_the_flap_rule_holds_is_not_called_down() -> None:
    node = unprobed()
    for _ in range(3):
        node.link("nic0", up=False)
        assert node.interface("nic0").reason is Reason.LINK_DOWN
        node.link("nic0", up=True)
        node.run(0.1)
    assert (node.interface("nic0").link, node.interface("nic0").reason) == (LinkWord.UP, Reason.LINK_FLAPPING)
    node.link("nic0", up=False)
    assert node.interface("nic0").reason is Reason.LINK_DOWN


def test_member_whose_link_is_up_again_waits_to_be_heard_and_is_not_called_down() -> None:
    node = VirtualNode(numbered_group(2))
    node.start()
    node.run(3)
    node.link("nic0", up=False)
    node.link("nic0", up=True)
    assert (node.interface("nic0").state, node.interface("nic0").reason) == (InterfaceWord.FAILED, Reason.NOT_HEARD)
