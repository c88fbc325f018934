"""Announcements on a real link: in every form, on schedule, at a pace, and heeded."""

from __future__ import annotations

import socket
import time
from collections import Counter
from functools import partial
from ipaddress import ip_interface
from operator import eq
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core.actions import Announce
from ipmp_agent.core.events import InterfaceFound, LinkChanged, TestAddressChanged
from ipmp_agent.linux.messages import frames
from ipmp_agent.linux.shared import announce, neighbors
from ipmp_agent.linux.shared.host import Host
from ipmp_api.types import Mode
from tests.lab import Form, Sniffer, wait_for
from tests.lab.kernel.bare import Wire, known_mac
from tests.lab.kernel.running import GROUP, kernel_group, moves, place, with_tests

if TYPE_CHECKING:
    from tests.lab import Lab, Namespace
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


def test_what_a_dead_link_leaves_behind_is_announced_before_the_kernel_has_moved_it(
    lab: Lab, kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.configure(kernel_group(addresses=(V4, V6)))
    place(lab, kernel, V4, V6)
    lab.host.nic("nic0").unplug()
    kernel.await_event(LinkChanged, lambda event: not event.up)
    mac, send = lab.host.nic("nic1").mac, Host.send
    waited: list[bool] = []

    def late(host: Host, *arguments: Any, **options: Any) -> Any:
        """As where others hold the kernel's lock."""
        if not waited:
            waited.append(True)
            for address in (V4, V6):
                sniffer.wait_announced(str(address.ip), mac)
        return send(host, *arguments, **options)

    with Sniffer(lab.peer(0).namespace) as sniffer:
        monkeypatch.setattr(Host, "send", late)
        kernel.perform(moves(V4, V6, source="nic0", destination="nic1"))
    assert lab.host.holders(str(V4.ip)) == ["nic1"]


def test_what_leaves_a_member_with_a_link_is_announced_when_it_has_moved(
    lab: Lab, kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.configure(kernel_group(addresses=(V4,)))
    place(lab, kernel, V4)
    send = Host.send
    sent: list[int] = []

    def counting(host: Host, *arguments: Any, **options: Any) -> Any:
        sent.append(host.counters["announcements_sent"])
        return send(host, *arguments, **options)

    before = kernel.call(lambda k: k.counters["announcements_sent"])
    kernel.call(lambda k: k._host.announcer.cancel([V4]))
    monkeypatch.setattr(Host, "send", counting)
    kernel.perform(moves(V4, source="nic0", destination="nic1"))
    assert sent
    assert set(sent) == {before}


def test_a_new_announcement_ends_the_older_schedule(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=(V4,)))
    place(lab, kernel, V4)
    kernel.perform(moves(V4, source="nic0", destination="nic1"), Announce("nic1", (V4,)))
    with Sniffer(lab.peer(0).namespace) as sniffer:
        kernel.perform(moves(V4, source="nic1", destination="nic0"), Announce("nic0", (V4,)))
        mac = lab.host.nic("nic0").mac
        wait_for(lambda: sniffer.announcements(str(V4.ip), mac=mac), lambda heard: len(heard) >= 2)
        time.sleep(0.8)
        heard = [one.mac for one in sniffer.announcements(str(V4.ip))]
    # The older schedule may have had a turn between the start of the sniffer and the move.
    assert set(heard[heard.index(mac) :]) == {mac}


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


def test_test_addresses_are_announced_where_they_are_ready_to_probe_from(lab: Lab, kernel: RunningKernel) -> None:
    """After an exchange of names, or of a NIC, targets would answer to where they were before."""
    configuration = kernel_group(*with_tests("198.18.0.101/24", "198.18.0.102/24"))
    kernel.configure(configuration)
    kernel.await_event(TestAddressChanged, lambda e: str(e.address) == "198.18.0.102")
    host, first, second = lab.host.namespace, lab.host.nic("nic0").mac, lab.host.nic("nic1").mac
    with Sniffer(lab.peer(0).namespace) as sniffer:
        host.batch(
            [
                "link set nic0 name spare",
                "link set nic1 name nic0",
                "link set spare name nic1",
                "link set nic0 mtu 1400",
            ]
        )
        sniffer.wait_announced("198.18.0.101", second)
        sniffer.wait_announced("198.18.0.102", first)
        host.ip("link", "set", "nic1", "address", "02:00:00:00:55:01")
        sniffer.wait_announced("198.18.0.102", "02:00:00:00:55:01")


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


NO_GRATUITOUS_ARP = """
table bridge security {
    chain forward {
        type filter hook forward priority 0
        arp saddr ip 198.18.0.10 arp daddr ip 198.18.0.10 drop
        arp operation reply arp saddr ip 198.18.0.10 ether daddr ff:ff:ff:ff:ff:ff drop
        icmpv6 type nd-neighbor-advert ip6 daddr ff02::1 drop
    }
}
"""


@pytest.mark.parametrize("who", ["switches", "neighbours"])
def test_neighbours_follow_a_move_where_gratuitous_announcements_are_not_heeded(
    lab: Lab, kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """Some switches drop them, some hosts and routers ignore them: an ordinary question is heeded by all."""
    monkeypatch.setattr(neighbors, "PAUSE", 0.0)
    host, peers = lab.host.namespace, [lab.peer(0).namespace, lab.peer(1).namespace]
    if who == "switches":
        for switch in lab.switches:
            switch.namespace.run("nft", "-f", "-", text=NO_GRATUITOUS_ARP)
    else:
        for peer in peers:
            peer.sysctl({"ipv4/conf/eth0/drop_gratuitous_arp": 1, "ipv6/conf/eth0/drop_unsolicited_na": 1})
    kernel.configure(kernel_group(addresses=(V4, V6)))
    place(lab, kernel, V4, V6)
    host.batch(["route add 198.18.0.0/24 dev nic0", "route add 2001:db8:0:1::/64 dev nic0"])
    for peer in peers:
        for address in (V4, V6):
            talk(peer, str(address.ip))
    before, after = lab.host.nic("nic0").mac, lab.host.nic("nic1").mac
    moved = (str(V4.ip), str(V6.ip))
    wait_for(lambda: {known_mac(peer, address) for peer in peers for address in moved}, partial(eq, {before}))
    wait_for(lambda: [known_mac(host, ip, "nic0") for n in (0, 1) for ip in (lab.peer(n).ipv4, lab.peer(n).ipv6)], all)
    kernel.run(lambda k: k.reconcile(GROUP))
    time.sleep(1.1)  # a neighbour heeds nothing within a second of the last change
    lab.host.nic("nic0").unplug()  # with which the kernel forgets whom it knew there
    kernel.perform(moves(V4, V6, source="nic0", destination="nic1"), Announce("nic1", (V4, V6)))
    wait_for(
        lambda: {(peer.name, address): known_mac(peer, address) for peer in peers for address in moved},
        lambda known: set(known.values()) == {after},
        deadline=1.0,
    )


def talk(namespace: Namespace, target: str) -> None:
    """Say something to a host that answers, if only that nobody listens."""
    with namespace.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM) as speaker:
        speaker.sendto(b"hello", (target, 9))


def test_questions_are_bounded_where_many_addresses_move_together(lab: Lab, kernel: RunningKernel) -> None:
    many = tuple(ip_interface(f"198.18.{i // 200 + 1}.{i % 200 + 1}/32") for i in range(100))
    lab.host.namespace.batch(f"address add {address} dev nic0" for address in many)
    for i in range(30):
        lab.host.namespace.ip(
            "neigh", "add", f"198.18.0.{i + 2}", "lladdr", f"02:00:00:00:88:{i:02x}", "dev", "nic0", "nud", "reachable"
        )
    kernel.configure(kernel_group(addresses=many))
    mine, rounds = mac_of(lab, "nic1"), len(announce.QUESTIONS_AT)
    asked: Counter[bytes] = Counter()  # everybody, from each address

    def listen() -> int:
        questions = [frame for frame in wire.heard() if frame[28:32] != frame[38:42] and frame[6:12] == mine]
        asked.update(frame[28:32] for frame in questions if frame[:6] == frames.BROADCAST)
        return asked.total()

    with Wire(lab.peer(0).only) as wire:
        kernel.perform(moves(*many, source="nic0", destination="nic1"), Announce("nic1", many))
        wait_for(listen, lambda total: total >= rounds * len(many))
    assert asked == {address.ip.packed: rounds for address in many}


def mac_of(lab: Lab, nic: str) -> bytes:
    return frames.mac_bytes(lab.host.nic(nic).mac)


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


def test_addresses_are_announced_again_and_again_where_that_is_wanted(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=(V4, V6)))
    place(lab, kernel, V4, V6)
    mac = lab.host.nic("nic0").mac

    def heard(sniffer: Sniffer) -> int:
        return min(len(sniffer.announcements(str(address.ip), mac=mac)) for address in (V4, V6))

    kernel.configure(kernel_group(addresses=(V4, V6), announcement_refresh_seconds=1))
    with Sniffer(lab.peer(0).namespace) as sniffer:
        wait_for(lambda: heard(sniffer), lambda count: count >= 6, deadline=60, what="refreshes")
    kernel.configure(kernel_group(addresses=(V4, V6)))
    with Sniffer(lab.peer(0).namespace) as sniffer:
        time.sleep(2.5)
        assert heard(sniffer) == 0, "an interval that was taken back is not kept"


def test_every_address_is_announced_once_before_any_is_repeated_and_the_pace_holds(
    lab: Lab, kernel: RunningKernel
) -> None:
    many = tuple(ip_interface(f"198.18.{i // 200 + 1}.{i % 200 + 1}/32") for i in range(300))
    lab.host.namespace.batch(f"address add {address} dev nic0" for address in many)
    kernel.configure(kernel_group(addresses=many))
    mac, first_round = lab.host.nic("nic1").mac, 2 * len(many)
    order = [str(address.ip) for address in many]
    with Sniffer(lab.peer(0).namespace) as sniffer:
        kernel.perform(moves(*many, source="nic0", destination="nic1"), Announce("nic1", many))
        heard = wait_for(
            lambda: [one for one in list(sniffer.heard) if one.gratuitous and one.mac == mac and one.address in order],
            lambda seen: len(seen) > first_round,
            interval=0.2,
        )
    assert [one.address for one in heard[:first_round]] == order * 2
    assert [one.form for one in heard[:first_round]] == [Form.ARP_REQUEST] * len(many) + [Form.ARP_REPLY] * len(many)
    took = heard[first_round - 1].time - heard[0].time
    # 1,000 a second, but for a burst of few.
    assert took > 0.5, f"{first_round} packets within {took} s"
