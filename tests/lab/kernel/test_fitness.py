"""Interfaces that stop being members while they are there, and those that cannot be any: left as they were found."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, ip_interface
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core.events import AddressAdopted, AddressReleased, InterfaceFound, InterfaceVanished
from ipmp_agent.core.reasons import Reason
from ipmp_api.types import Existing
from tests.lab import wait_for
from tests.lab.kernel.bare import Wire
from tests.lab.kernel.dumps import differences, dump
from tests.lab.kernel.running import GROUP, kernel_group, moves, place, where, with_tests

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab import Lab
    from tests.lab.kernel.running import RunningKernel

OWN, OURS, OURS_V6 = (
    ip_interface("198.18.0.10/24"),
    ip_interface("198.18.0.20/32"),
    ip_interface("2001:db8:0:1::20/128"),
)
TEST, OTHER_TEST = "198.18.0.101/24", "198.18.0.102/24"
SETTINGS = ("arp_ignore", "arp_announce", "rp_filter", "promote_secondaries")


def adopting(*addresses: Any) -> Any:
    return kernel_group(*with_tests(TEST, OTHER_TEST), addresses=addresses, existing=Existing.ADOPT)


def settings(lab: Lab, nic: str) -> list[str]:
    return lab.host.namespace.run("sh", "-c", f"cd /proc/sys/net/ipv4/conf/{nic}; cat {' '.join(SETTINGS)}").split()


def rename(lab: Lab) -> str:
    lab.host.namespace.ip("link", "set", "nic0", "name", "other0")
    return "other0"


def enslave(lab: Lab) -> str:
    lab.host.namespace.batch(["link add br9 type bridge", "link set nic0 master br9"])
    return "nic0"


def unfit(lab: Lab) -> str:
    lab.host.namespace.ip("link", "set", "nic0", "arp", "off")
    return "nic0"


LEAVING = pytest.mark.parametrize("leave", [rename, enslave, unfit])


def as_found(lab: Lab, nic: str, before: list[str], *, managed: bool = True) -> None:
    """Wait until an interface has its own address alone, and its settings."""
    ours = [OURS, OURS_V6, ip_interface(TEST)]
    wait_for(lambda: [where(lab, a) for a in ours], lambda seen: not [s for s in seen if nic in s], deadline=5)
    # An interface of the host on the members' link answers for itself only, as every other one does there.
    guarded = ["1", "2", *before[2:]] if nic == "other0" and managed else before
    wait_for(lambda: settings(lab, nic), lambda now: now == guarded, deadline=5)
    assert where(lab, OWN) == [nic]


@LEAVING
def test_an_interface_that_stops_being_a_member_is_left_as_it_was_found(
    lab: Lab, kernel: RunningKernel, leave: Callable[[Lab], str]
) -> None:
    lab.host.namespace.ip("address", "add", str(OWN), "dev", "nic0")
    before = settings(lab, "nic0")
    kernel.configure(adopting(OURS, OURS_V6))
    place(lab, kernel, OURS, OURS_V6)
    wait_for(lambda: where(lab, ip_interface(TEST)), bool)
    nic = leave(lab)
    assert kernel.await_event(AddressReleased).address == OWN
    kernel.perform(moves(OURS, OURS_V6, source="nic0", destination="nic1"))
    as_found(lab, nic, before)
    assert (where(lab, OURS), where(lab, OURS_V6)) == (["nic1"], ["nic1"])
    kernel.run(lambda k: k.withdraw(GROUP))
    as_found(lab, nic, before, managed=False)
    assert where(lab, OURS) == []


@LEAVING
def test_what_stops_being_a_member_while_no_agent_runs_is_left_as_it_was_found_by_the_next(
    lab: Lab, start_kernel: Callable[[], RunningKernel], leave: Callable[[Lab], str]
) -> None:
    lab.host.namespace.ip("address", "add", str(OWN), "dev", "nic0")
    before = settings(lab, "nic0")
    first = start_kernel()
    first.configure(adopting(OURS, OURS_V6))
    place(lab, first, OURS, OURS_V6)
    wait_for(lambda: where(lab, ip_interface(TEST)), bool)
    memory = json.loads(json.dumps(first.call(lambda k: k.memory(GROUP))))
    first.close()
    nic = leave(lab)
    second = start_kernel()
    second.configure(adopting(OURS, OURS_V6), memory)
    as_found(lab, nic, before)
    second.run(lambda k: k.withdraw(GROUP))
    as_found(lab, nic, before, managed=False)


@LEAVING
def test_a_withdrawal_finds_what_has_just_stopped_being_a_member(
    lab: Lab, kernel: RunningKernel, leave: Callable[[Lab], str]
) -> None:
    lab.host.namespace.ip("address", "add", str(OWN), "dev", "nic0")
    before = settings(lab, "nic0")
    kernel.configure(adopting(OURS, OURS_V6))
    place(lab, kernel, OURS, OURS_V6)
    nic = leave(lab)
    kernel.run(lambda k: k.withdraw(GROUP))
    as_found(lab, nic, before, managed=False)
    assert (where(lab, OURS), where(lab, OURS_V6)) == ([], [])


def test_names_that_are_exchanged_leave_each_interface_what_it_is(lab: Lab, kernel: RunningKernel) -> None:
    host = lab.host.namespace
    host.batch([f"address add {OWN} dev nic0", "address add 198.18.64.7/24 dev nic1"])
    host.sysctl({"ipv4/conf/nic0/rp_filter": 1})
    before = {nic: settings(lab, nic) for nic in ("nic0", "nic1")}
    kernel.configure(kernel_group(existing=Existing.ADOPT))
    host.batch(["link set nic0 name tmp0", "link set nic1 name nic0", "link set tmp0 name nic1"])
    kernel.await_event(InterfaceVanished)
    kernel.await_event(AddressAdopted, lambda e: e.address == OWN and e.home == "nic1")
    wait_for(lambda: [settings(lab, nic)[0] for nic in ("nic0", "nic1")], lambda seen: seen == ["1", "1"])
    kernel.run(lambda k: k.withdraw(GROUP))
    assert {"nic1": settings(lab, "nic0"), "nic0": settings(lab, "nic1")} == before


def answers(lab: Lab, address: Any) -> set[str]:
    asking = lab.peer(0)
    with Wire(asking.only) as wire:
        return wire.who_has(address.ip, IPv4Address(asking.ipv4), 0.3)


@pytest.mark.parametrize("existing", list(Existing))
def test_an_address_with_a_peer_keeps_its_interface_out_before_a_setting_is_changed(
    lab: Lab, kernel: RunningKernel, existing: Existing
) -> None:
    host = lab.host.namespace
    host.ip("address", "add", str(OWN.ip), "peer", "198.18.0.201/32", "dev", "nic0")
    before = dump(lab)
    told = kernel.configure(kernel_group(existing=existing))
    refused = [e for e in told if isinstance(e, InterfaceFound) and e.refusal is Reason.PEER_ADDRESS]
    assert [e.interface for e in refused] == ["nic0"]
    assert not [line for line in differences(before, dump(lab)) if "nic0" in line]
    assert answers(lab, OWN) == {lab.host.nic("nic0").mac}
    (finding,) = [f for f in kernel.call(lambda k: k.findings(GROUP)) if f.reason is Reason.PEER_ADDRESS]
    assert str(OWN.ip) in finding.message
    kernel.forget()
    host.ip("address", "del", str(OWN.ip), "peer", "198.18.0.201/32", "dev", "nic0")
    kernel.await_event(InterfaceFound, lambda e: (e.interface, e.refusal) == ("nic0", None))
    wait_for(lambda: settings(lab, "nic0")[0], lambda value: value == "1")
    assert not [f for f in kernel.call(lambda k: k.findings(GROUP)) if f.reason is Reason.PEER_ADDRESS]


def test_an_address_with_a_peer_that_comes_later_is_answered_for(lab: Lab, kernel: RunningKernel) -> None:
    before = settings(lab, "nic0")
    kernel.configure(kernel_group(existing=Existing.ADOPT))
    assert settings(lab, "nic0") != before
    lab.host.namespace.ip("address", "add", str(OWN.ip), "peer", "198.18.0.201/32", "dev", "nic0")
    kernel.await_event(InterfaceFound, lambda e: e.refusal is Reason.PEER_ADDRESS)
    wait_for(lambda: settings(lab, "nic0"), lambda now: now == before)
    assert answers(lab, OWN) == {lab.host.nic("nic0").mac}
