"""Data and test addresses in a real kernel: moved in one batch, tagged, checked for conflicts, put back."""

from __future__ import annotations

import json
import operator
import time
from functools import partial
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core.actions import Announce
from ipmp_agent.core.events import (
    AddressCleared,
    AddressFound,
    AddressRefused,
    Family,
    InterfaceFound,
    InterfaceVanished,
    KernelRead,
    TestAddressChanged,
)
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.group import data_addresses, reconcile
from ipmp_agent.linux.messages import addresses, netlink
from ipmp_api.types import DeletionPolicy, Mode
from tests.lab import Sniffer, wait_for
from tests.lab.kernel.bare import Notifications, send
from tests.lab.kernel.dumps import differences, dump
from tests.lab.kernel.running import GROUP, kernel_group, moves, place, where, with_tests

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab import Lab
    from tests.lab.kernel.running import RunningKernel

V4, V6 = ip_interface("198.18.0.10/32"), ip_interface("2001:db8:0:1::10/128")
WIDE = ip_interface("198.18.0.11/24")
ALL = (V4, V6, WIDE)


def entry(lab: Lab, nic: str, address: Any) -> dict[str, Any]:
    (link,) = lab.host.namespace.ip_json("address", "show", "dev", nic)
    return next(a for a in link["addr_info"] if a["local"] == str(address.ip))


def protocols(kernel: RunningKernel, index: int) -> dict[str, int]:
    async def read(facade: Any) -> dict[str, int]:
        found = await facade._host.addresses_of(index)
        return {str(each.address.ip): each.protocol for each in found}

    return kernel.run(read)


# -- moves ------------------------------------------------------------------------------------------------------------


def test_addresses_move_in_one_batch_and_carry_our_tag(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=ALL))
    place(lab, kernel, *ALL)
    kernel.perform(moves(*ALL, source="nic0", destination="nic1"))
    assert [where(lab, a) for a in ALL] == [["nic1"]] * 3
    tags = protocols(kernel, lab.host.nic("nic1").index)
    assert [tags[str(a.ip)] for a in ALL] == [netlink.OWNER] * 3
    for address in ALL:
        found = entry(lab, "nic1", address)
        assert (found["prefixlen"], found["noprefixroute"]) == (address.network.prefixlen, True)
    assert entry(lab, "nic1", V6)["nodad"] is True


def test_an_address_is_on_its_new_member_before_it_leaves_the_old(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=(V4, WIDE)))  # of an IPv6 address the kernel tells later that it is there
    place(lab, kernel, V4, WIDE)
    old, new = (lab.host.nic(nic).index for nic in ("nic0", "nic1"))
    with Notifications(lab.host.namespace) as notifications:
        kernel.perform(moves(V4, WIDE, source="nic0", destination="nic1"))
        told = [m for m in notifications.pending() if m.kind in (netlink.RTM_NEWADDR, netlink.RTM_DELADDR)]
    for address in (V4, WIDE):
        found = [(m.kind, addresses.index_of(m.body)) for m in told if address.ip.packed in m.body]
        assert found == [(netlink.RTM_NEWADDR, new), (netlink.RTM_DELADDR, old)]


def test_an_ipv6_move_is_usable_at_once(lab: Lab, kernel: RunningKernel) -> None:
    # The lab turns duplicate detection off; the kernel's default would keep an address tentative for over a second.
    lab.host.namespace.sysctl({f"ipv6/conf/{nic}/accept_dad": 1 for nic in ("nic0", "nic1")})
    kernel.configure(kernel_group(addresses=(V6,)))
    place(lab, kernel, V6)
    kernel.perform(moves(V6, source="nic0", destination="nic1"))
    assert "tentative" not in entry(lab, "nic1", V6)


def test_deleting_a_primary_address_does_not_take_its_secondaries_along(lab: Lab, kernel: RunningKernel) -> None:
    first, second = ip_interface("198.18.0.20/24"), ip_interface("198.18.0.21/24")
    kernel.configure(kernel_group(addresses=(first, second)))
    place(lab, kernel, first)
    place(lab, kernel, second)
    kernel.perform(moves(first, source="nic0", destination="nic1"))
    assert (where(lab, first), where(lab, second)) == (["nic1"], ["nic0"])


def test_an_address_moves_from_an_interface_that_vanished(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=ALL))
    place(lab, kernel, *ALL)
    lab.host.nic("nic0").remove()
    kernel.await_event(InterfaceVanished)
    started = time.monotonic()
    kernel.perform(moves(*ALL, source=None, destination="nic1"))
    assert [where(lab, a) for a in ALL] == [["nic1"]] * 3, "an address that was ours needs no check"
    assert kernel.events(AddressRefused) == []
    assert time.monotonic() - started < 3


def test_many_addresses_of_both_families_move_together(lab: Lab, kernel: RunningKernel) -> None:
    many = tuple(ip_interface(f"198.18.{i // 200 + 1}.{i % 200 + 1}/32") for i in range(1000))
    many += tuple(ip_interface(f"2001:db8:0:7::{i:x}/128") for i in range(1, 1001))
    lab.host.namespace.batch(f"address add {address} dev nic0 nodad" for address in many)
    told = kernel.configure(kernel_group(addresses=many))
    assert sum(isinstance(event, AddressFound) for event in told) == 2000
    kernel.perform(moves(*many, source="nic0", destination="nic1"))
    listed = lab.host.namespace.ip_json("address", "show")
    on = {link["ifname"]: {a["local"] for a in link["addr_info"] if a["scope"] == "global"} for link in listed}
    assert on["nic1"] == {str(a.ip) for a in many}
    assert on["nic0"] == set()
    assert kernel.events(AddressRefused) == []


def test_what_the_kernel_refuses_becomes_an_event_and_harms_no_other(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=ALL))
    place(lab, kernel, *ALL)
    lab.host.namespace.sysctl({"ipv6/conf/nic1/disable_ipv6": 1})
    kernel.perform(moves(*ALL, source="nic0", destination="nic1"))
    (refused,) = kernel.events(AddressRefused)
    assert (refused.address, refused.reason) == (V6, Reason.KERNEL_REFUSED)
    assert (where(lab, V4), where(lab, WIDE)) == (["nic1"], ["nic1"])
    assert kernel.events(AddressFound)[-1] == AddressFound(V6, "nic0")
    kernel.run(lambda k: k.reconcile(GROUP))
    assert where(lab, V6) == ["nic0"], "a source is given up only when the destination holds the address"


def test_what_the_kernel_refused_is_tried_again_when_something_changes(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=(V6,)))
    place(lab, kernel, V6)
    lab.host.namespace.sysctl({"ipv6/conf/nic1/disable_ipv6": 1})
    kernel.await_event(InterfaceFound, lambda e: not e.ipv6)
    kernel.perform(moves(V6, source="nic0", destination="nic1"))
    kernel.await_event(AddressRefused)
    assert kernel.events(AddressCleared) == []
    lab.host.namespace.sysctl({"ipv6/conf/nic1/disable_ipv6": 0})
    kernel.await_event(AddressCleared, deadline=5)
    kernel.perform(moves(V6, source="nic0", destination="nic1"))
    assert where(lab, V6) == ["nic1"]


@pytest.mark.parametrize("change", [{"ipv6/conf/nic1/disable_ipv6": 1}, None], ids=["IPv6 off", "small MTU"])
def test_what_cannot_carry_ipv6_is_known_and_told(
    lab: Lab, kernel: RunningKernel, change: dict[str, int] | None
) -> None:
    told = [e for e in kernel.configure(kernel_group()) if isinstance(e, InterfaceFound)]
    assert {(e.interface, e.ipv6) for e in told} == {("nic0", True), ("nic1", True)}
    kernel.forget()
    if change:
        lab.host.namespace.sysctl(change)
    else:
        lab.host.namespace.ip("link", "set", "nic1", "mtu", "1000")
    kernel.await_event(InterfaceFound, lambda e: (e.interface, e.ipv6) == ("nic1", False))
    if change:
        lab.host.namespace.sysctl(dict.fromkeys(change, 0))
    else:
        lab.host.namespace.ip("link", "set", "nic1", "mtu", "1500")
    kernel.await_event(InterfaceFound, lambda e: (e.interface, e.ipv6) == ("nic1", True))


def test_a_withdrawn_address_is_gone(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=(V4,)))
    place(lab, kernel, V4)
    kernel.perform(moves(V4, source="nic0", destination=None))
    assert where(lab, V4) == []


# -- first activation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [V4, V6], ids=["ipv4", "ipv6"])
def test_an_address_that_another_host_has_is_refused_and_cleared_later(
    lab: Lab, kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch, address: Any
) -> None:
    monkeypatch.setattr(data_addresses, "REFUSED_RETRY", 0.2)
    nodad = ["nodad"] if address.version == 6 else []
    lab.peer(1).namespace.ip("address", "add", str(address), "dev", "eth0", *nodad)
    kernel.configure(kernel_group(addresses=(address,)))
    kernel.perform(moves(address, source=None, destination="nic0"), Announce("nic0", (address,)))
    refused = kernel.await_event(AddressRefused)
    assert refused.reason is Reason.ADDRESS_CONFLICT
    assert lab.peer(1).only.mac in refused.detail
    assert where(lab, address) == []
    kernel.await_event(AddressCleared)
    lab.peer(1).namespace.ip("address", "del", str(address), "dev", "eth0")
    place(lab, kernel, address)


def test_an_address_is_not_announced_before_its_check_is_over(lab: Lab, kernel: RunningKernel) -> None:
    lab.peer(1).namespace.ip("address", "add", str(V4), "dev", "eth0")
    kernel.configure(kernel_group(addresses=(V4,)))
    with Sniffer(lab.peer(0).namespace) as sniffer:
        kernel.perform(moves(V4, source=None, destination="nic0"), Announce("nic0", (V4,)))
        kernel.await_event(AddressRefused)
        time.sleep(0.2)
        assert sniffer.announcements(str(V4.ip)) == []


def test_a_check_follows_its_address_to_another_member(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=(V4,)))
    kernel.perform(
        moves(V4, source=None, destination="nic0"),
        moves(V4, source="nic0", destination="nic1"),
    )
    wait_for(lambda: where(lab, V4), lambda seen: seen == ["nic1"])


def test_a_check_under_way_survives_a_new_configuration(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=(V4,)))
    kernel.perform(moves(V4, source=None, destination="nic0"))
    kernel.configure(kernel_group(addresses=(V4, V6)))
    wait_for(lambda: where(lab, V4), lambda seen: seen == ["nic0"])
    assert kernel.events(AddressFound) == []


@pytest.mark.parametrize("address", [V4, V6], ids=["ipv4", "ipv6"])
def test_an_address_withdrawn_before_its_arrival_was_told_stays_away(
    lab: Lab, kernel: RunningKernel, address: Any
) -> None:
    kernel.configure(kernel_group(addresses=(address,)))
    place(lab, kernel, address)

    def at_once(facade: Any) -> None:
        """The notifications of all this wait in the socket until it is over."""
        facade.perform(GROUP, moves(address, source="nic0", destination="nic1"))
        facade.perform(GROUP, moves(address, source="nic1", destination=None))

    kernel.call(at_once)
    time.sleep(0.3)
    kernel.run(lambda k: k.reconcile(GROUP))
    assert where(lab, address) == []
    assert kernel.events(AddressFound) == []


# -- test addresses ---------------------------------------------------------------------------------------------------


def test_ipv4_test_addresses_are_installed_with_scope_link(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(*with_tests("198.18.0.101/24", "198.18.0.102/24")))
    for name, address in (("nic0", "198.18.0.101"), ("nic1", "198.18.0.102")):
        event = kernel.await_test_address(name, Family.IPV4)
        assert (str(event.address), event.duplicate) == (address, False)
        found = entry(lab, name, event.address and ip_interface(address))
        assert (found["scope"], found["noprefixroute"]) == ("link", True)


def test_a_test_address_that_another_host_has_is_told_as_duplicate(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(*with_tests("198.18.0.201/24", "198.18.0.102/24")))
    event = kernel.await_event(TestAddressChanged, lambda e: e.duplicate)
    assert (event.interface, str(event.address)) == ("nic0", "198.18.0.201")
    assert where(lab, ip_interface("198.18.0.201")) == []


def test_a_test_address_that_is_taken_away_is_told_and_put_back(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(*with_tests("198.18.0.101/24", "198.18.0.102/24")))
    # nic1 has its own some time.
    ready = lambda e: (e.interface, e.family) == ("nic0", Family.IPV4) and e.address is not None  # noqa: E731
    kernel.await_event(TestAddressChanged, ready)
    kernel.forget()
    lab.host.namespace.ip("address", "del", "198.18.0.101/32", "dev", "nic0")
    gone = kernel.await_test_address("nic0", Family.IPV4)
    assert gone.address is None
    kernel.await_event(TestAddressChanged, ready)


def test_link_local_addresses_come_and_go_with_the_interface(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group())
    for name in ("nic0", "nic1"):
        kernel.await_test_address(name)
    kernel.forget()
    lab.host.namespace.ip("link", "set", "nic0", "down")
    assert kernel.await_event(TestAddressChanged).address is None
    lab.host.namespace.ip("link", "set", "nic0", "up")
    assert kernel.await_event(TestAddressChanged, lambda e: e.address is not None).interface == "nic0"


# -- restart, foreign changes, withdrawal -----------------------------------------------------------------------------


def test_a_restart_changes_nothing_and_knows_its_own(lab: Lab, start_kernel: Callable[[], RunningKernel]) -> None:
    first = start_kernel()
    configuration = kernel_group(*with_tests("198.18.0.101/24", "198.18.0.102/24"), addresses=ALL)
    first.configure(configuration)
    place(lab, first, V4, WIDE, on="nic0")
    place(lab, first, V6, on="nic1")
    first.await_event(TestAddressChanged, lambda e: (e.interface, e.family) == ("nic1", Family.IPV4))
    memory = json.loads(json.dumps(first.call(lambda k: k.memory(GROUP))))
    first.close()
    before = dump(lab)
    second = start_kernel()
    told = second.configure(configuration, memory)
    assert {(e.address, e.interface) for e in told if isinstance(e, AddressFound)} == {
        (V4, "nic0"),
        (WIDE, "nic0"),
        (V6, "nic1"),
    }
    assert isinstance(told[-1], KernelRead)
    assert not differences(before, dump(lab))


@pytest.mark.parametrize("remembered", [True, False])
def test_a_move_that_was_cut_short_is_finished_after_a_restart(
    lab: Lab, start_kernel: Callable[[], RunningKernel], *, remembered: bool
) -> None:
    first = start_kernel()
    first.configure(kernel_group(addresses=(V4,)))
    place(lab, first, V4, on="nic1")
    memory = first.call(lambda k: k.memory(GROUP)) if remembered else None
    first.close()
    assert send(lab.host.namespace, addresses.add(lab.host.nic("nic0").index, V4)) == []
    assert where(lab, V4) == ["nic0", "nic1"]
    second = start_kernel()
    (found,) = [e for e in second.configure(kernel_group(addresses=(V4,)), memory) if isinstance(e, AddressFound)]
    assert where(lab, V4) == [found.interface]
    assert not remembered or found.interface == "nic1"


def test_an_address_dropped_from_the_configuration_while_away_is_removed(
    lab: Lab, start_kernel: Callable[[], RunningKernel]
) -> None:
    first = start_kernel()
    first.configure(kernel_group(addresses=(V4, V6)))
    place(lab, first, V4, V6)
    first.close()
    start_kernel().configure(kernel_group(addresses=(V6,)))
    assert (where(lab, V4), where(lab, V6)) == ([], ["nic0"])


def test_what_another_program_removes_is_back_and_counted(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=(V4, V6)))
    place(lab, kernel, V4, V6)
    for round_ in range(1, 6):  # two within a moment count as one
        lab.host.namespace.ip("address", "flush", "dev", "nic0", "scope", "global")
        wait_for(lambda: (where(lab, V4), where(lab, V6)), lambda seen: seen == (["nic0"], ["nic0"]), deadline=5)
        wait_for(lambda: kernel.call(lambda k: k.counters["foreign_changes"]), partial(operator.le, round_))
    reasons = [finding.reason for finding in kernel.call(lambda k: k.findings(GROUP))]
    assert reasons == [Reason.FOREIGN_CHANGE]


def test_a_program_that_takes_away_again_and_again_is_answered_more_and_more_slowly(
    lab: Lab, kernel: RunningKernel
) -> None:
    kernel.configure(kernel_group(addresses=(V4,)))
    place(lab, kernel, V4)
    delete = addresses.delete(lab.host.nic("nic0").index, V4)
    taken = 0
    end = time.monotonic() + 4
    while time.monotonic() < end:
        taken += send(lab.host.namespace, delete) == []
        time.sleep(0.005)
    # After REPAIRS_AT_ONCE it is put back after 0.1, 0.2, 0.4, 0.8, 1.6 s: at full speed it were hundreds.
    assert reconcile.REPAIRS_AT_ONCE < taken <= reconcile.REPAIRS_AT_ONCE + 8
    assert Reason.FOREIGN_CHANGE in [finding.reason for finding in kernel.call(lambda k: k.findings(GROUP))]
    wait_for(lambda: where(lab, V4), lambda seen: seen == ["nic0"], deadline=reconcile.LONGEST_WAIT + 5)


def test_our_own_moves_are_not_foreign_changes(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=ALL))
    place(lab, kernel, *ALL)
    for _ in range(5):
        kernel.perform(moves(*ALL, source="nic0", destination="nic1"), moves(*ALL, source="nic1", destination="nic0"))
    time.sleep(0.3)
    assert kernel.call(lambda k: k.counters["foreign_changes"]) == 0


def test_an_address_put_on_a_member_by_somebody_is_found(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=(V4,)))
    lab.host.namespace.ip("address", "add", str(V4), "dev", "nic1")
    assert kernel.await_event(AddressFound) == AddressFound(V4, "nic1")


def test_withdrawal_leaves_everything_as_it_was_found(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.namespace.batch(
        [
            "address add 198.18.0.50/24 dev nic0 brd + label nic0:x",
            "address add 2001:db8:0:1::50/64 dev nic0 nodad",
            "address add 198.18.0.51/24 dev nic1",
            "route add default via 198.18.0.201 dev nic0 metric 100",
            "route add 198.19.7.0/24 via 198.18.0.202 dev nic1",
        ]
    )
    # The kernel adds the route of an IPv6 address to itself a moment after the address.
    wait_for(lambda: lab.host.namespace.ip_json("-6", "route", "show", "table", "local", "2001:db8:0:1::50"))
    before = dump(lab)
    found = (ip_interface("198.18.0.50/24"), ip_interface("2001:db8:0:1::50/64"))
    configuration = kernel_group(*with_tests("198.18.0.101/24", "198.18.0.102/24"), addresses=(*ALL, *found))
    kernel.configure(configuration)
    place(lab, kernel, *ALL)
    kernel.perform(moves(*found, source="nic0", destination="nic1"))
    kernel.await_event(TestAddressChanged, lambda e: (e.interface, e.family) == ("nic1", Family.IPV4))
    assert where(lab, found[0]) == ["nic1"]
    kernel.run(lambda k: k.withdraw(GROUP))
    assert not differences(before, dump(lab))


def test_an_address_returns_to_its_home_as_it_was(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.namespace.batch(
        ["address add 198.18.0.50/24 dev nic0 brd +", "route add default via 198.18.0.201 dev nic0 metric 100"]
    )
    found = ip_interface("198.18.0.50/24")
    kernel.configure(kernel_group(addresses=(found,)))
    before = dump(lab)
    kernel.perform(moves(found, source="nic0", destination="nic1"), moves(found, source="nic1", destination="nic0"))
    wait_for(lambda: differences(before, dump(lab)), lambda seen: not seen, deadline=3)


def test_retain_leaves_the_last_state(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=(V4,), deletion_policy=DeletionPolicy.RETAIN))
    place(lab, kernel, V4)
    before = dump(lab)
    kernel.run(lambda k: k.withdraw(GROUP))
    assert not differences(before, dump(lab))


def test_observing_writes_nothing(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.namespace.batch(
        ["address add 198.18.0.50/24 dev nic0", "route add default via 198.18.0.201 dev nic0 metric 100"]
    )
    before = dump(lab)
    configuration = kernel_group(*with_tests("198.18.0.101/24", "198.18.0.102/24"), addresses=ALL, mode=Mode.OBSERVE)
    told = kernel.configure(configuration)
    kernel.perform(moves(*ALL, source=None, destination="nic0"), Announce("nic0", ALL))
    kernel.run(lambda k: k.reconcile(GROUP))
    time.sleep(0.5)
    kernel.run(lambda k: k.withdraw(GROUP))
    assert not differences(before, dump(lab))
    assert any(isinstance(event, TestAddressChanged) for event in told), "it still probes from link-local addresses"


def test_a_check_under_way_ends_with_managing_and_begins_again_with_it(lab: Lab, kernel: RunningKernel) -> None:
    test_address = ip_interface("198.18.0.101/24")
    members = with_tests(str(test_address), "198.18.0.102/24")

    def checks(facade: Any) -> set[Any]:
        return {address for address in (V4, V6, test_address) if address in facade._host.checks}

    kernel.configure(kernel_group(*members, addresses=(V4, V6)))
    kernel.perform(moves(V4, V6, source=None, destination="nic0"))
    assert kernel.call(checks) == {V4, V6, test_address}
    kernel.configure(kernel_group(*members, addresses=(V4, V6), mode=Mode.OBSERVE))
    assert kernel.call(checks) == set()
    assert [where(lab, each) for each in (V4, V6, test_address)] == [[], [], []]
    kernel.configure(kernel_group(*members, addresses=(V4, V6)))
    for each in (V4, V6, test_address):
        wait_for(partial(where, lab, each), lambda seen: seen == ["nic0"], what=str(each))


# -- settings ---------------------------------------------------------------------------------------------------------


def settings(lab: Lab, nic: str) -> dict[str, str]:
    names = ("arp_ignore", "arp_announce", "rp_filter", "promote_secondaries", "arp_filter")
    read = lab.host.namespace.run("sh", "-c", f"cd /proc/sys/net/ipv4/conf/{nic}; cat {' '.join(names)}")
    return dict(zip(names, read.split(), strict=True))


def test_settings_are_applied_repaired_and_put_back(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.namespace.sysctl({"ipv4/conf/nic0/rp_filter": 1, "ipv4/conf/nic1/arp_announce": 1})
    before = [settings(lab, nic) for nic in ("nic0", "nic1")]
    kernel.configure(kernel_group())
    wanted = {"arp_ignore": "1", "arp_announce": "2", "rp_filter": "2", "promote_secondaries": "1", "arp_filter": "0"}
    assert [settings(lab, nic) for nic in ("nic0", "nic1")] == [wanted, wanted]
    lab.host.namespace.sysctl({"ipv4/conf/nic0/arp_ignore": 0})
    kernel.run(lambda k: k.reconcile(GROUP))
    assert settings(lab, "nic0") == wanted
    assert kernel.call(lambda k: k.counters["settings_drift"]) == 1
    kernel.run(lambda k: k.withdraw(GROUP))
    assert [settings(lab, nic) for nic in ("nic0", "nic1")] == before


def test_a_member_that_returns_gets_its_settings_again(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group())
    lab.host.nic("nic0").remove()
    kernel.await_event(InterfaceVanished)
    lab.host.nic("nic0").insert(index=88)
    wait_for(lambda: settings(lab, "nic0"), lambda now: now["arp_ignore"] == "1")


def test_what_a_late_member_had_is_on_disk_before_it_is_changed(lab: Lab, kernel: RunningKernel) -> None:
    saved: list[tuple[Any, dict[str, str]]] = []

    async def secure() -> bool:
        present = any(link["ifname"] == "nic1" for link in lab.host.namespace.ip_json("link", "show"))
        memory = kernel.kernel.memory(GROUP)["settings"]
        saved.append((memory.get("nic1"), settings(lab, "nic1") if present else {}))
        return True

    lab.host.nic("nic1").remove()
    kernel.run(lambda k: k.configure(kernel_group(), None, secure))
    lab.host.nic("nic1").insert(index=88)
    wait_for(lambda: settings(lab, "nic1"), lambda now: now["arp_ignore"] == "1")
    noted, found = saved[-1]
    assert noted["index"] == 88
    assert {name: str(value) for name, value in noted["values"].items()} == found


def test_a_value_of_all_interfaces_that_defeats_ours_is_found(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group())
    assert kernel.call(lambda k: k.findings(GROUP)) == ()
    lab.host.namespace.sysctl({"ipv4/conf/all/arp_ignore": 2})
    (finding,) = kernel.call(lambda k: k.findings(GROUP))
    assert finding.reason is Reason.SETTINGS_OVERRIDDEN
    assert "arp_ignore is 2" in finding.message


def test_a_member_dropped_from_the_configuration_is_left_as_it_was_found(lab: Lab, kernel: RunningKernel) -> None:
    before = settings(lab, "nic1")
    kernel.configure(kernel_group(*with_tests("198.18.0.101/24", "198.18.0.102/24"), addresses=(V4,)))
    place(lab, kernel, V4, on="nic1")
    kernel.configure(kernel_group(*with_tests("198.18.0.101/24", "198.18.0.102/24")[:1], addresses=(V4,)))
    assert where(lab, V4) == ["nic1"], "the core moves it, in its own time"
    kernel.perform(moves(V4, source="nic1", destination="nic0"))
    kernel.run(lambda k: k.reconcile(GROUP))
    assert where(lab, V4) == ["nic0"]
    assert where(lab, ip_interface("198.18.0.102")) == []
    # It is on the link still, so it goes on answering for its own addresses only until the group goes.
    guarded = {name: before[name] for name in before if name not in ("arp_ignore", "arp_announce")}
    assert {name: settings(lab, "nic1")[name] for name in guarded} == guarded
    kernel.run(lambda k: k.withdraw(GROUP))
    assert settings(lab, "nic1") == before
