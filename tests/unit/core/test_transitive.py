"""Probes between members, while there is nobody else to ask."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from ipmp_agent.core import events
from ipmp_agent.core.actions import ProbeProtocol
from ipmp_agent.core.events import Family, MacAddress
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.words import InterfaceWord, ProbeWord, TargetMode
from ipmp_api.types import ProbeMethod
from tests.virtual_node import TARGET, VirtualNode, mac, numbered_group

if TYPE_CHECKING:
    from collections.abc import Callable


def alone(active: int = 1, standby: int = 1, **fields: object) -> VirtualNode:
    """A group in a network without any target."""
    node = VirtualNode(numbered_group(active, standby, pins=(), **fields))  # type: ignore[arg-type]
    node.remember_probes = True
    node.start()
    node.run(3)
    return node


def transitive_probes(node: VirtualNode) -> list[tuple[str, object]]:
    return [(p.interface, p.target) for _, p in node.sent if p.protocol is ProbeProtocol.TRANSITIVE]


def test_members_ask_one_another_by_their_mac_addresses() -> None:
    node = alone(2, 1)
    probes = transitive_probes(node)
    assert set(probes) == {(f"nic{a}", MacAddress(mac(b))) for a in range(3) for b in range(3) if a != b}
    assert {p.family for _, p in node.sent} == {Family.LINK}
    prober = node.interface("nic0").probers[-1]
    assert (prober.family, prober.mode, prober.protocol) == (
        Family.LINK,
        TargetMode.TRANSITIVE,
        ProbeProtocol.TRANSITIVE,
    )
    assert prober.sent == prober.answered + prober.outstanding


def test_answer_makes_the_state_known() -> None:
    node = alone()
    for key in ("nic0", "nic1"):
        assert (node.interface(key).state, node.interface(key).probe) == (InterfaceWord.OK, ProbeWord.OK)


@pytest.mark.parametrize("fields", [{"pins": (TARGET,)}, {"pins": (), "probe_method": ProbeMethod.DISABLED}])
def test_members_do_not_ask_one_another_when_there_is_a_target_or_nobody_wants_probes(fields: dict) -> None:  # type: ignore[type-arg]
    node = VirtualNode(numbered_group(2, **fields))
    node.remember_probes = True
    node.start()
    node.run(3)
    assert transitive_probes(node) == []
    assert all(p.mode is not TargetMode.TRANSITIVE for p in node.interface("nic0").probers)


def test_single_member_has_nobody_to_ask() -> None:
    assert transitive_probes(alone(1, 0)) == []


def test_first_target_ends_it_and_the_last_one_gone_begins_it() -> None:
    node = alone()
    node.handle(events.RoutersChanged(node.configuration.policies.targets.addresses))
    node.network.latency.update(dict.fromkeys(numbered_group().policies.targets.addresses, 0.001))
    node.handle(events.RoutersChanged(numbered_group().policies.targets.addresses))
    node.sent.clear()
    node.run(2)
    assert transitive_probes(node) == []
    assert node.interface("nic0").probers[0].answered > 0
    node.handle(events.RoutersChanged(()))
    node.run(2)
    assert transitive_probes(node)


@pytest.mark.parametrize(
    "goes",
    [lambda node: node.link("nic2", up=False), lambda node: node.offline("nic2"), lambda node: node.remove("nic2")],
)
def test_who_cannot_be_heard_is_not_asked(goes: Callable[[VirtualNode], None]) -> None:
    node = alone(1, 2)
    goes(node)
    node.sent.clear()
    node.run(2)
    assert set(transitive_probes(node)) == {("nic0", MacAddress(mac(1))), ("nic1", MacAddress(mac(0)))}


def test_idle_standby_that_hears_nobody_is_failed_and_repaired_by_ten_answers() -> None:
    node = alone()
    node.silence("nic1")
    assert node.run(1.1, lambda: node.interface("nic1").state is InterfaceWord.FAILED)
    assert node.interface("nic1").reason is Reason.PROBES_LOST
    assert node.active == ["nic0"]
    node.run(30)
    assert node.interface("nic1").state is InterfaceWord.FAILED
    node.silence("nic1", on=False)
    assert node.run(2.5, lambda: node.interface("nic1").state is InterfaceWord.OK)
    assert node.failovers == []


def test_of_two_members_the_one_in_use_is_never_failed() -> None:
    """If it is the active one that is broken, nobody can tell; the idle one pays, and no address moves."""
    node = alone()
    node.silence("nic0")
    node.run(30)
    assert node.active == ["nic0"]
    assert node.failovers == []


def test_two_active_members_that_hear_nobody_are_told_of_and_left_alone() -> None:
    node = alone(2, 0)
    node.silence("nic0")
    node.run(30)
    assert node.verdicts == []
    assert [(each.interface, each.reason) for each in node.snapshot().findings] == [("nic1", Reason.NOT_ONE_LINK)]
    assert node.told(Reason.NOT_ONE_LINK) == ["no frame passes between nic0 and nic1: members must be on one link"]
    node.silence("nic0", on=False)
    node.run(5)
    assert node.snapshot().findings == ()


@pytest.mark.parametrize("broken", ["nic0", "nic1", "nic2"])
def test_of_three_members_the_one_that_nobody_hears_is_failed(broken: str) -> None:
    node = alone(2, 1)
    node.silence(broken)
    assert node.run(1.1, lambda: node.interface(broken).state is InterfaceWord.FAILED)
    others = {"nic0", "nic1", "nic2"} - {broken}
    assert set(node.active) == others
    node.run(30)
    assert {v.interface for _, v in node.verdicts} == {broken}
    node.silence(broken, on=False)
    assert node.run(2.5, lambda: node.interface(broken).usable)


def test_when_nobody_hears_anybody_nobody_is_to_blame() -> None:
    node = alone(2, 1)
    for key in ("nic0", "nic1", "nic2"):
        node.silence(key)
    node.run(30)
    assert node.verdicts == []
    assert not node.failed


def test_group_never_fails_by_silence_between_members() -> None:
    for seed in range(5):
        node = VirtualNode(numbered_group(3, pins=()), seed=seed)
        node.start()
        node.run(3)
        for key in ("nic0", "nic1", "nic2"):
            node.network.nics[key].loss = 0.5
        node.run(30)
        assert not node.failed, f"seed {seed}"


def test_members_on_two_links_are_told_of() -> None:
    node = alone(4, 0)
    node.reaches = lambda key, address: (int(key[-1]) < 2) == (int(str(address)[-1]) < 2)
    node.run(10)
    assert node.verdicts == []
    assert {each.interface for each in node.snapshot().findings if each.reason is Reason.NOT_ONE_LINK} == {
        "nic2",
        "nic3",
    }


def test_link_that_comes_up_repairs_without_waiting_for_the_others() -> None:
    node = alone(2, 0)
    node.link("nic0", up=False)
    node.link("nic0", up=True)
    assert node.active == ["nic0", "nic1"]


def test_error_of_our_own_in_sending_blames_nobody() -> None:
    node = alone()
    node.refuse_to_send = 93
    node.run(30)
    assert node.verdicts == []


def test_quiet_period_holds_here_too() -> None:
    node = VirtualNode(numbered_group(1, 1, pins=()))
    node.silence("nic1")
    node.start()
    assert not node.run(39.9, lambda: node.interface("nic1").state is InterfaceWord.FAILED)
    assert node.run(1.2, lambda: node.interface("nic1").state is InterfaceWord.FAILED)


def test_suspended_agent_blames_nobody() -> None:
    node = alone(2, 1)
    node.inbox_limit = 0
    for _ in range(20):
        node.suspend(5.0)
        node.run(5.7)
    assert node.verdicts == []


def test_dead_hosts_fail_the_group_and_members_that_hear_one_another_revive_it() -> None:
    group = numbered_group(2, pins=(), discovery=True, test_addresses=["198.18.2.1/24", "198.18.2.2/24"])
    node = VirtualNode(group, hosts=["198.18.0.9"])
    node.start()
    node.run(3)
    node.all_targets(up=False)
    assert node.run(2, lambda: node.failed)
    assert node.run(3, lambda: not node.failed)
    node.run(5)
    assert node.failovers == []


def test_changed_mac_address_is_asked_from_then_on() -> None:
    node = alone()
    nic = node.network.nics["nic1"]
    nic.mac = mac(9)
    node.handle(events.InterfaceFound("nic1", "nic1", nic.index, nic.mac, link=True))
    node.sent.clear()
    node.run(2)
    assert ("nic0", MacAddress(mac(9))) in transitive_probes(node)
    assert node.verdicts == []


def test_a_new_detection_time_takes_effect_between_members() -> None:
    node = alone()
    node.configure(dataclasses.replace(numbered_group(1, 1, pins=(), detection_time=0.1)))
    node.silence("nic1")
    assert node.run(0.12, lambda: node.interface("nic1").state is InterfaceWord.FAILED)
