"""Targets that answer at the link layer and never ICMP."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core import events
from ipmp_agent.core.actions import ProbeProtocol, SendProbe
from ipmp_agent.core.events import Family
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.words import InterfaceWord
from ipmp_api.types import ProbeMethod
from tests.virtual_node import VirtualNode, numbered_group

if TYPE_CHECKING:
    from collections.abc import Sequence

TESTED = ("198.18.0.101/24", "198.18.0.102/24")


class Node(VirtualNode):
    """One whose targets ignore ICMP, all or some; a loss is checked by ARP as the kernel's side does."""

    def __init__(self, *args: Any, unheeding: Sequence[str], **options: Any) -> None:
        super().__init__(*args, **options)
        self.unheeding = unheeding
        self.remember_probes = True
        self._lost: dict[str, SendProbe] = {}

    def _send(self, probe: SendProbe) -> None:
        lost = self._lost.pop(probe.interface, None)
        if lost is not None and list(self.network.send(lost)):
            heard = events.TargetHeard(lost.interface, lost.family, lost.target)  # type: ignore[arg-type]
            self.at(self.now + 0.0002, lambda: self.tell(heard))
        if probe.protocol is ProbeProtocol.ICMP and str(probe.target) in self.unheeding:
            self._lost[probe.interface] = probe
            self.sent.append((self.now, probe))
        else:
            super()._send(probe)

    def asked(self, target: str, since: float) -> set[ProbeProtocol]:
        """By which protocols a target was asked since then."""
        return {probe.protocol for at, probe in self.sent if at >= since and str(probe.target) == target}


def started(pins: Sequence[str], unheeding: Sequence[str], **policies: Any) -> Node:
    node = Node(numbered_group(2, pins=pins, test_addresses=TESTED, **policies), unheeding=unheeding)
    node.start()
    node.run(60)
    return node


@pytest.mark.parametrize("count", [1, 3, 5])
def test_members_are_judged_by_arp_where_no_target_answers_icmp(count: int) -> None:
    pins = [f"198.18.0.{number}" for number in range(1, count + 1)]
    node = started(pins, unheeding=pins)
    assert node.verdicts == []
    assert not node.failed
    assert node.asked(pins[0], node.now - 30) == {ProbeProtocol.ARP}
    said = node.told(Reason.TARGETS_FOUND)
    assert said == ["target 198.18.0.1 answers ARP and never ICMP: it is asked by ARP"] or count > 1
    node.silence("nic0")
    node.run(3)
    assert node.interface("nic0").state is InterfaceWord.FAILED
    assert node.held_by("nic1") == [1, 2]


@pytest.mark.parametrize("count", [1, 5])
def test_a_restart_condemns_nobody_before_it_knows_how_to_ask(count: int) -> None:
    pins = [f"198.18.0.{number}" for number in range(1, count + 1)]
    node = started(pins, unheeding=pins)
    node.restart()
    node.run(30)
    assert node.verdicts == []


@pytest.mark.parametrize("count", [1, 5])
def test_answers_to_arp_before_the_test_address_was_ready_prove_nothing_about_icmp(count: int) -> None:
    pins = [f"198.18.0.{number}" for number in range(1, count + 1)]
    node = Node(numbered_group(2, pins=pins, test_addresses=TESTED), unheeding=pins)
    node.start()
    for nic in ("nic0", "nic1"):
        node.handle(events.TestAddressChanged(nic, Family.IPV4, None))
    node.run(10)
    for nic, address in zip(("nic0", "nic1"), TESTED, strict=True):
        node.handle(events.TestAddressChanged(nic, Family.IPV4, ip_interface(address).ip))
    node.run(10)
    assert node.verdicts == []
    assert not node.failed


def test_a_target_that_answers_icmp_goes_on_being_asked_by_it() -> None:
    node = started(["198.18.0.1", "198.18.0.2"], unheeding=["198.18.0.2"])
    assert node.asked("198.18.0.1", node.now - 30) == {ProbeProtocol.ICMP}
    assert node.asked("198.18.0.2", node.now - 30) == {ProbeProtocol.ARP}


def test_a_target_that_answered_icmp_before_is_not_excused() -> None:
    """Its ICMP may be lost where its ARP is not: by a member that is half dead."""
    node = started(["198.18.0.1"], unheeding=[])
    node.unheeding = ["198.18.0.1"]
    node.run(5)
    assert node.asked("198.18.0.1", node.now - 2) == {ProbeProtocol.ICMP}
    assert node.failed


@pytest.mark.parametrize("method", [ProbeMethod.ICMP, ProbeMethod.ARP])
def test_a_method_that_was_chosen_is_obeyed(method: ProbeMethod) -> None:
    node = started(["198.18.0.1"], unheeding=["198.18.0.1"], probe_method=method)
    wanted = ProbeProtocol.ICMP if method is ProbeMethod.ICMP else ProbeProtocol.ARP
    assert node.asked("198.18.0.1", 0.0) == {wanted}


def test_a_method_that_is_chosen_later_is_obeyed() -> None:
    node = started(["198.18.0.1"], unheeding=["198.18.0.1"])
    pins = ["198.18.0.1"]
    node.configure(numbered_group(2, pins=pins, test_addresses=TESTED, probe_method=ProbeMethod.ICMP))
    node.run(5)
    assert node.asked("198.18.0.1", node.now - 2) == {ProbeProtocol.ICMP}


def test_who_is_no_target_or_no_member_is_none_of_our_business() -> None:
    node = started(["198.18.0.1"], unheeding=[])
    stranger = events.TargetHeard("nic0", Family.IPV4, node.configuration.policies.targets.addresses[0])
    node.handle(events.TargetHeard("nic9", Family.IPV4, stranger.target))
    node.handle(events.TargetHeard("nic0", Family.IPV6, stranger.target))
    node.run(5)
    assert node.verdicts == []
