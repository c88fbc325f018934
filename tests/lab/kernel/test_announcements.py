"""Announcements on a real link: in every form, on schedule, at a pace, and heeded."""

from __future__ import annotations

import time
from ipaddress import ip_interface
from typing import TYPE_CHECKING

from ipmp_agent.core.actions import Announce
from ipmp_agent.core.events import InterfaceFound
from ipmp_api.types import Mode
from tests.lab import Form, Sniffer, wait_for
from tests.lab.kernel.running import kernel_group, moves, place

if TYPE_CHECKING:
    from tests.lab import Lab
    from tests.lab.kernel.running import RunningKernel

V4, V6 = ip_interface("198.18.0.10/32"), ip_interface("2001:db8:0:1::10/128")
SCHEDULE = (0.0, 0.1, 0.5, 1.1, 2.2, 5.0)


def test_a_move_is_announced_in_both_forms_and_with_override(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=(V4, V6)))
    place(lab, kernel, V4, V6)
    mac = lab.host.nic("nic1").mac
    with Sniffer(lab.peer(0).namespace) as sniffer:
        kernel.perform(moves(V4, V6, source="nic0", destination="nic1"), Announce("nic1", (V4, V6)))
        wait_for(lambda: sniffer.announcements(str(V4.ip), mac=mac), lambda heard: len(heard) >= 6)
        heard = wait_for(lambda: sniffer.announcements(str(V6.ip), mac=mac), lambda heard: len(heard) >= 3)
    assert all(one.form is Form.NEIGHBOUR_ADVERTISEMENT and one.override for one in heard)
    forms = [one.form for one in sniffer.announcements(str(V4.ip), mac=mac)]
    assert forms[:4] == [Form.ARP_REQUEST, Form.ARP_REPLY] * 2
    assert {one.ethernet_source for one in sniffer.heard if one.gratuitous and one.mac == mac} == {mac}


def test_a_new_announcement_ends_the_older_schedule(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=(V4,)))
    place(lab, kernel, V4)
    kernel.perform(moves(V4, source="nic0", destination="nic1"), Announce("nic1", (V4,)))
    with Sniffer(lab.peer(0).namespace) as sniffer:
        kernel.perform(moves(V4, source="nic1", destination="nic0"), Announce("nic0", (V4,)))
        time.sleep(0.8)
        assert {one.mac for one in sniffer.announcements(str(V4.ip))} == {lab.host.nic("nic0").mac}


def test_a_neighbour_follows_a_move_at_once(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=(V4, V6)))
    place(lab, kernel, V4, V6)
    peer = lab.peer(0).namespace
    mac = lab.host.nic("nic0").mac
    for address in (V4, V6):
        peer.ip("neigh", "replace", str(address.ip), "lladdr", mac, "dev", "eth0", "nud", "reachable")
    kernel.perform(moves(V4, V6, source="nic0", destination="nic1"), Announce("nic1", (V4, V6)))

    def known() -> set[str]:
        listed = peer.ip_json("neigh", "show", "dev", "eth0")
        return {n.get("lladdr", "") for n in listed if n["dst"] in {str(V4.ip), str(V6.ip)}}

    wait_for(known, lambda macs: macs == {lab.host.nic("nic1").mac})


def test_addresses_are_announced_anew_when_the_mac_of_their_member_changes(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=(V4,)))
    place(lab, kernel, V4)
    with Sniffer(lab.peer(0).namespace) as sniffer:
        lab.host.namespace.ip("link", "set", "nic0", "address", "02:00:00:00:55:01")
        sniffer.wait_announced(str(V4.ip), "02:00:00:00:55:01")


def test_a_group_that_only_observes_any_more_announces_nothing(lab: Lab, kernel: RunningKernel) -> None:
    """Who takes over by hand may have the address elsewhere."""
    kernel.configure(kernel_group(addresses=(V4,)))
    place(lab, kernel, V4)
    kernel.perform(moves(V4, source="nic0", destination="nic1"), Announce("nic1", (V4,)))
    kernel.configure(kernel_group(addresses=(V4,), mode=Mode.OBSERVE))
    sent = kernel.call(lambda k: k.counters["announcements_sent"])
    lab.host.namespace.ip("link", "set", "nic1", "address", "02:00:00:00:55:01")
    kernel.await_event(InterfaceFound, lambda found: found.mac == "02:00:00:00:55:01")
    time.sleep(SCHEDULE[2])
    assert kernel.call(lambda k: k.counters["announcements_sent"]) == sent


def test_announcements_keep_their_schedule_and_end_with_it(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=(V4, V6)))
    place(lab, kernel, V4, V6)
    mac, rounds = lab.host.nic("nic1").mac, len(SCHEDULE)
    with Sniffer(lab.peer(0).namespace) as sniffer:
        start = time.monotonic()
        kernel.perform(moves(V4, V6, source="nic0", destination="nic1"), Announce("nic1", (V4, V6)))
        deadline = SCHEDULE[-1] + 10
        wait_for(lambda: len(sniffer.announcements(str(V6.ip), mac=mac)), lambda n: n >= rounds, deadline=deadline)
        time.sleep(0.5)
        heard = {address: sniffer.announcements(str(address.ip), mac=mac) for address in (V4, V6)}
    requests = [one.time - start for one in heard[V4] if one.form is Form.ARP_REQUEST]
    replies = [one.time - start for one in heard[V4] if one.form is Form.ARP_REPLY]
    for times in (requests, replies, [one.time - start for one in heard[V6]]):
        assert len(times) == rounds
        late = [heard_at - planned for heard_at, planned in zip(times, SCHEDULE, strict=True)]
        assert min(late) > -0.01, times
        assert max(late) < 1, times


def test_every_address_is_announced_once_before_any_is_repeated_and_the_pace_holds(
    lab: Lab, kernel: RunningKernel
) -> None:
    many = tuple(ip_interface(f"198.18.{i // 200 + 1}.{i % 200 + 1}/32") for i in range(300))
    lab.host.namespace.batch(f"address add {address} dev nic0" for address in many)
    kernel.configure(kernel_group(addresses=many))
    mac, first_round = lab.host.nic("nic1").mac, 2 * len(many)
    with Sniffer(lab.peer(0).namespace) as sniffer:
        kernel.perform(moves(*many, source="nic0", destination="nic1"), Announce("nic1", many))
        heard = wait_for(
            lambda: [one for one in list(sniffer.heard) if one.gratuitous and one.mac == mac],
            lambda seen: len(seen) > first_round,
            interval=0.2,
        )
    order = [str(address.ip) for address in many]
    assert [one.address for one in heard[:first_round]] == order * 2
    assert [one.form for one in heard[:first_round]] == [Form.ARP_REQUEST] * len(many) + [Form.ARP_REPLY] * len(many)
    took = heard[first_round - 1].time - heard[0].time
    # 1,000 a second, but for a burst of few.
    assert took > 0.5, f"{first_round} packets within {took} s"
