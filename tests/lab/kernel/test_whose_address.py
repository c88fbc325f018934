"""Addresses that come and go on a member belong to whoever brings them."""

from __future__ import annotations

import json
import socket
import struct
import time
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core.events import AddressAdopted, AddressReleased
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.messages import addresses, netlink
from ipmp_api.types import AddressSelection, AdoptWhen, Existing
from tests.lab import wait_for
from tests.lab.kernel.bare import send
from tests.lab.kernel.dumps import differences, dump
from tests.lab.kernel.running import GROUP, kernel_group, moves, where

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab import Lab
    from tests.lab.kernel.running import RunningKernel

OWN, SECOND = ip_interface("198.18.0.10/24"), ip_interface("198.18.0.11/24")
VIP, LATER = ip_interface("198.18.0.50/32"), ip_interface("198.18.0.77/24")
OWN_V6, VIP_V6 = ip_interface("2001:db8:0:1::10/64"), ip_interface("2001:db8:0:1::50/128")
ALWAYS = AddressSelection(when=AdoptWhen.ALWAYS)
LONG_ENOUGH = 0.6
"""Seconds in which an address that is to be put back was put back, several times over."""


def adopting(**policies: Any) -> Any:
    return kernel_group(**{"existing": Existing.ADOPT} | policies)


def lay(lab: Lab, *addresses: Any, nic: str = "nic0") -> None:
    lab.host.namespace.batch(f"address add {a} dev {nic}{' nodad' if a.version == 6 else ''}" for a in addresses)


def take(lab: Lab, *addresses: Any, nic: str = "nic0") -> None:
    lab.host.namespace.batch(f"address del {address} dev {nic}" for address in addresses)


def lay_tagged(lab: Lab, address: Any, protocol: int, label: str = "nic0") -> None:
    """As a program lays it that says who it is, which Debian 12's `ip` cannot."""
    head = struct.pack("=BBBBI", socket.AF_INET, address.network.prefixlen, 0, 0, lab.host.nic("nic0").index)
    attributes = [
        netlink.attribute(addresses.IFA_LOCAL, address.packed),
        netlink.attribute(addresses.IFA_ADDRESS, address.packed),
        netlink.attribute(addresses.IFA_LABEL, label.encode() + b"\0"),
        netlink.attribute(addresses.IFA_PROTO, bytes([protocol])),
    ]
    request = netlink.message(netlink.RTM_NEWADDR, netlink.NLM_F_CREATE | netlink.NLM_F_EXCL, head, *attributes)
    assert send(lab.host.namespace, request) == []


def adopted(told: list[Any]) -> set[Any]:
    return {event.address for event in told if isinstance(event, AddressAdopted)}


def left_alone(kernel: RunningKernel) -> dict[str, Reason]:
    return {str(n.address.ip): n.reason for n in kernel.call(lambda k: k.not_adopted(GROUP))}


@pytest.mark.parametrize("address", [OWN, SECOND, OWN_V6], ids=str)
def test_an_adopted_address_that_its_owner_takes_away_at_home_stays_away(
    lab: Lab, kernel: RunningKernel, address: Any
) -> None:
    lay(lab, OWN, SECOND, OWN_V6)
    assert address in adopted(kernel.configure(adopting()))
    take(lab, address)
    assert kernel.await_event(AddressReleased) == AddressReleased(address, given_up=True)
    time.sleep(LONG_ENOUGH)
    kernel.run(lambda k: k.reconcile(GROUP))
    assert where(lab, address) == []
    assert kernel.call(lambda k: k.counters["foreign_changes"]) == 0


def test_two_adopted_addresses_that_their_owner_takes_away_together_stay_away(lab: Lab, kernel: RunningKernel) -> None:
    lay(lab, OWN, SECOND, VIP)
    kernel.configure(adopting(adoption=ALWAYS))
    take(lab, SECOND, VIP)
    kernel.await_event(AddressReleased, lambda e: e.address == SECOND)
    kernel.await_event(AddressReleased, lambda e: e.address == VIP)
    time.sleep(LONG_ENOUGH)
    assert [where(lab, a) for a in (OWN, SECOND, VIP)] == [["nic0"], [], []]


def test_an_adopted_address_that_its_owner_takes_away_where_it_was_moved_to_stays_away(
    lab: Lab, kernel: RunningKernel
) -> None:
    lay(lab, OWN, SECOND)
    kernel.configure(adopting())
    lab.host.nic("nic0").unplug()
    kernel.perform(moves(OWN, SECOND, source="nic0", destination="nic1"))
    kernel.run(lambda k: k.reconcile(GROUP))
    take(lab, SECOND, nic="nic1")
    assert kernel.await_event(AddressReleased).address == SECOND
    lab.host.nic("nic0").plug()
    kernel.perform(moves(OWN, source="nic1", destination="nic0"))
    time.sleep(LONG_ENOUGH)
    kernel.run(lambda k: k.withdraw(GROUP))
    assert (where(lab, OWN), where(lab, SECOND)) == (["nic0"], [])


@pytest.mark.parametrize("address", [OWN, SECOND, OWN_V6], ids=str)
def test_an_adopted_address_that_its_owner_lays_at_home_instead_goes_to_its_place_again(
    lab: Lab, kernel: RunningKernel, address: Any
) -> None:
    lay(lab, OWN, SECOND, OWN_V6)
    kernel.configure(adopting())
    kernel.perform(moves(OWN, SECOND, OWN_V6, source="nic0", destination="nic1"))
    kernel.run(lambda k: k.reconcile(GROUP))
    nodad = " nodad" if address.version == 6 else ""
    lab.host.namespace.batch([f"address del {address} dev nic1", f"address add {address} dev nic0{nodad}"])
    time.sleep(LONG_ENOUGH)  # in which it was given up, and taken off its home as misplaced
    kernel.run(lambda k: k.reconcile(GROUP))
    assert where(lab, address) == ["nic1"]
    kernel.run(lambda k: k.withdraw(GROUP))
    assert where(lab, address) == ["nic0"]


@pytest.mark.parametrize("nic", ["nic0", "nic1"], ids=["at home", "where they were moved to"])
def test_many_adopted_addresses_that_their_owner_takes_away_at_once_stay_away(
    lab: Lab, kernel: RunningKernel, nic: str
) -> None:
    many = [ip_interface(f"10.201.0.{last}/32") for last in range(1, 30)]
    lay(lab, *many)
    assert adopted(kernel.configure(adopting())) == set(many)
    if nic != "nic0":
        kernel.perform(moves(*many, source="nic0", destination=nic))
    take(lab, *many, nic=nic)
    wait_for(lambda: {event.address for event in kernel.events(AddressReleased)}, set(many).issubset)
    kernel.run(lambda k: k.reconcile(GROUP))
    kernel.run(lambda k: k.withdraw(GROUP))
    assert [where(lab, address) for address in many] == [[]] * len(many)


@pytest.mark.parametrize("words", [("-4", "scope", "global"), ("scope", "global"), ()], ids=" ".join)
def test_what_a_flush_swept_away_is_back_as_it_was(lab: Lab, kernel: RunningKernel, words: tuple[str, ...]) -> None:
    lay(lab, OWN, SECOND, OWN_V6, ip_interface("2001:db8:0:1::11/64"))
    kernel.configure(adopting())
    before = dump(lab)
    family = [word for word in words if word.startswith("-")]
    rest = [word for word in words if not word.startswith("-")]
    flush = (*family, "address", "flush", "dev", "nic0", *rest)
    kernel.call(lambda _: lab.host.namespace.ip(*flush))  # no repair comes between its rounds
    seen = lambda: [line for line in differences(before, dump(lab)) if "fe80" not in line]  # noqa: E731
    wait_for(seen, lambda lines: not [line for line in lines if "inet" in line], deadline=3)
    assert kernel.events(AddressReleased) == []


def test_an_address_that_is_deleted_while_its_link_is_down_was_not_given_up(lab: Lab, kernel: RunningKernel) -> None:
    lay(lab, OWN, SECOND)
    kernel.configure(adopting())
    lab.host.nic("nic0").unplug()
    take(lab, SECOND)
    wait_for(lambda: where(lab, SECOND), lambda seen: seen == ["nic0"], deadline=3)
    assert kernel.events(AddressReleased) == []


def test_routes_that_went_with_an_address_that_was_given_up_are_its_owners_matter(
    lab: Lab, kernel: RunningKernel
) -> None:
    """As a DHCP client without lifetimes renumbers, to another gateway."""
    lay(lab, OWN)
    lab.host.namespace.ip("route", "add", "default", "via", "198.18.0.201", "dev", "nic0")
    lab.host.namespace.ip("route", "add", "198.19.7.0/24", "via", "198.18.0.201", "dev", "nic0")
    kernel.configure(adopting())
    take(lab, OWN)
    lay(lab, LATER)
    lab.host.namespace.ip("route", "add", "default", "via", "198.18.0.202", "dev", "nic0")
    assert kernel.await_event(AddressReleased).address == OWN
    kernel.await_event(AddressAdopted, lambda e: e.address == LATER)
    time.sleep(LONG_ENOUGH)
    kernel.run(lambda k: k.withdraw(GROUP))
    assert (where(lab, OWN), where(lab, LATER)) == ([], ["nic0"])
    listed = lab.host.namespace.run("ip", "route")
    assert "198.18.0.201" not in listed
    assert "198.18.0.202" in listed


def test_an_address_that_comes_later_into_a_prefix_of_its_interface_is_a_guest(lab: Lab, kernel: RunningKernel) -> None:
    lay(lab, OWN)
    assert adopted(kernel.configure(adopting())) == {OWN}
    lay(lab, VIP, SECOND)
    wait_for(lambda: left_alone(kernel), lambda found: len(found) == 2)
    assert left_alone(kernel) == {str(a.ip): Reason.GUEST_ADDRESS for a in (VIP, SECOND)}
    take(lab, VIP)
    time.sleep(LONG_ENOUGH)
    assert where(lab, VIP) == []
    take(lab, OWN)  # the other one is the first of the prefix now
    kernel.await_event(AddressAdopted, lambda e: e.address == SECOND)


def test_an_address_that_comes_later_is_adopted_where_that_is_asked_for(lab: Lab, kernel: RunningKernel) -> None:
    lay(lab, OWN)
    kernel.configure(adopting(adoption=ALWAYS))
    lay(lab, VIP)
    kernel.await_event(AddressAdopted, lambda e: e.address == VIP)


def test_single_host_addresses_inside_a_prefix_are_guests_from_the_start(lab: Lab, kernel: RunningKernel) -> None:
    single = ip_interface("198.18.32.1/32")
    lay(lab, OWN, VIP, OWN_V6, VIP_V6, single)
    assert adopted(kernel.configure(adopting())) == {OWN, OWN_V6, single}
    assert left_alone(kernel) == {str(a.ip): Reason.GUEST_ADDRESS for a in (VIP, VIP_V6)}


def test_where_a_daemon_speaks_vrrp_the_first_address_of_a_prefix_is_the_hosts_and_others_are_guests(
    lab: Lab, kernel: RunningKernel
) -> None:
    other = ip_interface("198.18.32.7/20")
    lay(lab, OWN, SECOND, other, OWN_V6)
    with lab.host.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        request = struct.pack("=4s4si", socket.inet_aton("224.0.0.18"), b"", lab.host.nic("nic0").index)
        daemon.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        assert adopted(kernel.configure(adopting())) == {OWN, other, OWN_V6}
        assert left_alone(kernel) == {str(SECOND.ip): Reason.GUEST_ADDRESS}
    kernel.run(lambda k: k.reconcile(GROUP))
    assert left_alone(kernel) == {str(SECOND.ip): Reason.GUEST_ADDRESS}, "a daemon that is killed leaves its VIP behind"


def test_a_selection_is_obeyed_and_what_it_leaves_out_is_named(lab: Lab, kernel: RunningKernel) -> None:
    labelled = ip_interface("198.18.32.7/20")
    lay(lab, OWN, SECOND, VIP)
    lay_tagged(lab, labelled, 44, "nic0:x")
    prefix, all_but = ip_interface("198.18.0.0/24").network, ip_interface("198.18.0.11/32").network
    only = AddressSelection(prefixes=(prefix,), exclude=(all_but,))
    assert adopted(kernel.configure(adopting(adoption=only))) == {OWN}
    found = {str(SECOND.ip): Reason.NOT_SELECTED, str(VIP.ip): Reason.GUEST_ADDRESS}
    assert left_alone(kernel) == found | {str(labelled.ip): Reason.NOT_SELECTED}
    for selection in (AddressSelection(labels=("nic0:x",)), AddressSelection(protocols=(44,))):
        kernel.forget()
        kernel.configure(adopting(adoption=selection))
        assert kernel.await_event(AddressReleased).address in (OWN, labelled)
        kernel.run(lambda k: k.reconcile(GROUP))
        assert left_alone(kernel).keys() >= {str(OWN.ip), str(SECOND.ip)}
        assert str(labelled.ip) not in left_alone(kernel)
        kernel.configure(adopting(adoption=only))


def test_an_adopted_address_that_is_not_selected_any_more_goes_home(lab: Lab, kernel: RunningKernel) -> None:
    lay(lab, OWN, SECOND)
    kernel.configure(adopting())
    before = dump(lab)
    kernel.perform(moves(OWN, SECOND, source="nic0", destination="nic1"))
    kernel.configure(adopting(adoption=AddressSelection(exclude=(SECOND.network.supernet(new_prefix=16),))))
    assert {e.address for e in kernel.events(AddressReleased)} == {OWN, SECOND}
    wait_for(lambda: dump(lab)["addresses"], lambda found: found == before["addresses"])


def test_keepalived_is_recognised_by_its_protocol(lab: Lab, kernel: RunningKernel) -> None:
    vip = ip_interface("198.18.32.50/20")
    lay_tagged(lab, vip, addresses.IFAPROT_KEEPALIVED)
    assert adopted(kernel.configure(adopting(adoption=ALWAYS))) == set()
    assert left_alone(kernel) == {str(vip.ip): Reason.NOT_SELECTED}


def test_every_address_that_is_left_alone_is_named_with_its_reason(lab: Lab, kernel: RunningKernel) -> None:
    host = lab.host.namespace
    host.ip("address", "add", "198.18.64.2/32", "dev", "nic0", "valid_lft", "600", "preferred_lft", "600")
    host.ip("address", "add", "198.18.64.3/24", "dev", "nic0", "scope", "link")
    host.batch([f"address add 198.18.65.4/24 dev {nic}" for nic in ("nic0", "nic1")])
    lab.peer(1).namespace.ip("address", "add", "2001:db8:0:1::77/128", "dev", "eth0", "nodad")
    host.sysctl({"ipv6/conf/nic0/accept_dad": 1, "ipv6/conf/nic0/dad_transmits": 1})
    host.ip("address", "add", "2001:db8:0:1::77/64", "dev", "nic0")
    kernel.configure(adopting())
    wanted = {
        "198.18.64.2": Reason.DHCP_MANAGED,
        "198.18.64.3": Reason.OTHER_SCOPE,
        "198.18.65.4": Reason.ADDRESS_CONFLICT,
        "2001:db8:0:1::77": Reason.DUPLICATE_ADDRESS,
    }

    def look() -> dict[str, Reason]:
        kernel.run(lambda k: k.reconcile(GROUP))
        return left_alone(kernel)

    wait_for(look, lambda found: found == wanted)


def test_what_came_later_came_later_for_the_next_agent_too(lab: Lab, start_kernel: Callable[[], RunningKernel]) -> None:
    lay(lab, OWN)
    first = start_kernel()
    first.configure(adopting())
    lay(lab, SECOND)
    wait_for(lambda: left_alone(first), bool)
    memory = json.loads(json.dumps(first.call(lambda k: k.memory(GROUP))))
    first.close()
    second = start_kernel()
    assert adopted(second.configure(adopting(), memory)) == {OWN}
    assert left_alone(second) == {str(SECOND.ip): Reason.GUEST_ADDRESS}


def test_an_address_that_was_given_up_is_not_remembered(lab: Lab, start_kernel: Callable[[], RunningKernel]) -> None:
    lay(lab, OWN, SECOND)
    kernel = start_kernel()
    saved: list[Any] = []

    async def secure() -> bool:
        saved.append(json.dumps(kernel.kernel.memory(GROUP)))
        return True

    kernel.run(lambda k: k.configure(adopting(), None, secure))
    assert str(SECOND) in saved[-1]
    take(lab, SECOND)
    kernel.await_event(AddressReleased)
    wait_for(lambda: saved[-1], lambda text: str(SECOND) not in text, deadline=3)


def test_a_guest_stays_one_while_the_hosts_own_address_is_away_or_gone(lab: Lab, kernel: RunningKernel) -> None:
    lay(lab, OWN, VIP)
    kernel.configure(adopting())
    kernel.perform(moves(OWN, source="nic0", destination="nic1"))
    lay(lab, SECOND)
    kernel.run(lambda k: k.reconcile(GROUP))
    assert left_alone(kernel) == {str(a.ip): Reason.GUEST_ADDRESS for a in (VIP, SECOND)}
    kernel.perform(moves(OWN, source="nic1", destination="nic0"))
    take(lab, SECOND, OWN)
    kernel.await_event(AddressReleased)
    kernel.run(lambda k: k.reconcile(GROUP))
    assert left_alone(kernel) == {str(VIP.ip): Reason.GUEST_ADDRESS}


def test_everything_that_an_address_is_comes_back_with_it(lab: Lab, kernel: RunningKernel) -> None:
    labelled = ip_interface("198.18.32.7/20")
    lay_tagged(lab, labelled, 44, "nic0:x")
    lab.host.namespace.ip("address", "add", str(OWN), "dev", "nic0", "metric", "300", "noprefixroute")
    every = (labelled, OWN)
    kernel.configure(adopting())

    def found() -> list[tuple[Any, int, int, bytes]]:
        on = kernel.run(lambda k: k._host.addresses_of(lab.host.nic("nic0").index))
        return sorted((str(a.address), a.flags, a.protocol, a.body) for a in on if a.address in every)

    before = found()
    assert [each[2] for each in before] == [0, 44]
    kernel.perform(moves(*every, source="nic0", destination="nic1"))
    assert found() == []
    kernel.perform(moves(*every, source="nic1", destination="nic0"))
    head = 40  # bytes; behind come the times at which it was made and changed
    assert [(a, f, p, b[:head]) for a, f, p, b in found()] == [(a, f, p, b[:head]) for a, f, p, b in before]
    shown = lab.host.namespace.run("ip", "address", "show", "dev", "nic0")
    assert "metric 300" in shown
    assert "nic0:x" in shown
