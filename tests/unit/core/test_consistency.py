"""What does not fit together is told once and shown, and harms nobody."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from ipmp_agent.core import events
from ipmp_agent.core.actions import ProbeProtocol, Severity
from ipmp_agent.core.events import Family
from ipmp_agent.core.reasons import Reason
from ipmp_api.types import ProbeMethod
from tests.virtual_node import TARGET, VirtualNode, numbered_group

TESTED = ["198.18.2.1/24", "198.18.2.2/24"]


def started(**fields: object) -> VirtualNode:
    node = VirtualNode(numbered_group(2, **fields))  # type: ignore[arg-type]
    node.start()
    node.run(3)
    return node


def found(node: VirtualNode) -> set[tuple[str | None, Reason]]:
    return {(each.interface, each.reason) for each in node.snapshot().findings}


def test_good_group_has_no_findings() -> None:
    for fields in ({}, {"test_addresses": TESTED}, {"pins": ()}, {"probe_method": ProbeMethod.DISABLED}):
        node = started(**fields)
        node.run(60)
        assert node.snapshot().findings == (), fields


def test_test_address_that_two_members_have_is_used_by_neither() -> None:
    node = started(test_addresses=TESTED)
    node.handle(events.TestAddressChanged("nic1", Family.IPV4, ip_address("198.18.2.1")))
    assert found(node) == {("nic0", Reason.TEST_ADDRESS_DUPLICATE), ("nic1", Reason.TEST_ADDRESS_DUPLICATE)}
    for key in ("nic0", "nic1"):
        assert node.interface(key).probers[0].protocol is ProbeProtocol.ARP
    assert node.active == ["nic0", "nic1"]
    node.run(10)
    assert len(node.told(Reason.TEST_ADDRESS_DUPLICATE)) == 2
    node.handle(events.TestAddressChanged("nic1", Family.IPV4, ip_address("198.18.2.2")))
    assert node.interface("nic0").probers[0].protocol is ProbeProtocol.ICMP
    assert found(node) == set()
    assert [m.startswith("no longer: ") for m in node.told(Reason.TEST_ADDRESS_DUPLICATE)] == [False, False, True, True]


def test_test_address_that_somebody_else_has_is_not_used() -> None:
    node = started(test_addresses=TESTED)
    node.handle(events.TestAddressChanged("nic0", Family.IPV4, ip_address("198.18.2.1"), duplicate=True))
    assert node.interface("nic0").probers[0].protocol is ProbeProtocol.ARP
    assert node.interface("nic0").probers[0].test_address is None
    assert found(node) == {("nic0", Reason.TEST_ADDRESS_DUPLICATE)}
    notice = next(n for _, n in node.notices if n.reason is Reason.TEST_ADDRESS_DUPLICATE)
    assert notice.severity is Severity.ERROR
    node.handle(events.TestAddressChanged("nic0", Family.IPV4, ip_address("198.18.2.1")))
    assert node.interface("nic0").probers[0].protocol is ProbeProtocol.ICMP


def test_missing_test_address_is_mentioned_only_after_twenty_seconds() -> None:
    node = VirtualNode(numbered_group(2, test_addresses=TESTED))
    told = node.appearance

    def without_address(key: str) -> list[events.Event]:
        return [e for e in told(key) if key == "nic0" or not isinstance(e, events.TestAddressChanged)]

    node.appearance = without_address  # type: ignore[method-assign]
    node.start()
    node.run(19.9)
    assert found(node) == set()
    node.run(0.2)
    assert found(node) == {("nic1", Reason.TEST_ADDRESS_MISSING)}
    assert [n.severity for _, n in node.notices if n.reason is Reason.TEST_ADDRESS_MISSING] == [Severity.INFO]
    node.handle(events.TestAddressChanged("nic1", Family.IPV4, ip_address("198.18.2.2")))
    assert found(node) == set()


def test_grace_begins_anew_when_a_member_comes_online_or_loses_its_address() -> None:
    node = started(test_addresses=TESTED)
    node.run(60)
    node.handle(events.TestAddressChanged("nic1", Family.IPV4, None))
    node.run(19.9)
    assert found(node) == set()
    node.offline("nic1")
    node.run(30)
    assert found(node) == set(), "who is offline need not have one"
    node.online("nic1")
    node.run(19.9)
    assert found(node) == set()
    node.run(0.2)
    assert found(node) == {("nic1", Reason.TEST_ADDRESS_MISSING)}


def test_missing_address_is_mentioned_in_time_even_where_nothing_is_probed() -> None:
    node = VirtualNode(numbered_group(2, probe_method=ProbeMethod.ICMP, pins=()))
    for key in ("nic0", "nic1"):
        node.network.nics[key].cable = False
    node.start()
    node.run(20.1)
    assert found(node) == {("nic0", Reason.TEST_ADDRESS_MISSING), ("nic1", Reason.TEST_ADDRESS_MISSING)}


@pytest.mark.parametrize("family", [Family.IPV4, Family.IPV6])
def test_member_that_lacks_a_family_the_others_have(family: Family) -> None:
    node = started()
    address = ip_address("198.18.2.1" if family is Family.IPV4 else "fe80::1")
    node.handle(events.TestAddressChanged("nic0", family, address))
    node.run(30)
    assert found(node) == {("nic1", Reason.FAMILY_MISSING)}
    assert node.active == ["nic0", "nic1"]
    other = ip_address("198.18.2.2" if family is Family.IPV4 else "fe80::2")
    node.handle(events.TestAddressChanged("nic1", family, other))
    assert found(node) == set()
    assert node.told(Reason.FAMILY_MISSING)[-1].startswith("no longer: ")


def test_member_that_never_reached_a_target_is_probably_on_another_link() -> None:
    node = VirtualNode(numbered_group(2))
    node.reaches = lambda key, _: key == "nic0"
    node.start()
    node.run(45)
    assert found(node) == {("nic1", Reason.NOT_ONE_LINK)}
    assert node.active == ["nic0"]


def test_member_that_reached_a_target_before_is_simply_broken() -> None:
    node = started()
    node.silence("nic1")
    node.run(5)
    assert found(node) == set()


def test_finding_of_a_member_that_is_removed_is_over() -> None:
    node = VirtualNode(numbered_group(2))
    node.reaches = lambda key, _: key == "nic0"
    node.start()
    node.run(45)
    node.configure(numbered_group(1))
    assert found(node) == set()


def test_target_of_these_tests() -> None:
    assert numbered_group().policies.targets.addresses == (ip_address(TARGET),)
