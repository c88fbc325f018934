"""Probes on a real link: what leaves, and which replies count."""

from __future__ import annotations

import errno
import gc
import socket
import struct
import threading
import time
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core.actions import ProbeProtocol, SendProbe, SetOutbound
from ipmp_agent.core.events import (
    IP_FAMILIES,
    Family,
    MacAddress,
    ProbeAnswered,
    ProbeKind,
    ProbeNotSent,
    TargetHeard,
)
from ipmp_agent.linux.messages import frames
from ipmp_agent.linux.shared.probes import EchoSocket
from ipmp_api.types import InterfaceMatch, Member
from tests.lab import wait_for
from tests.lab.kernel.bare import Wire, known_mac
from tests.lab.kernel.running import GROUP, RunningKernel, kernel_group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab import Host, Lab, Namespace

TEST_ADDRESSES = {"nic0": "198.18.0.101/24", "nic1": "198.18.0.102/24"}


def order(target: str, protocol: ProbeProtocol = ProbeProtocol.ICMP, **changes: Any) -> SendProbe:
    address = ip_address(target)
    probe = SendProbe("nic0", Family(address.version), address, 7, ProbeKind.DETECTION, protocol)
    return replace(probe, **changes)


def await_answer(kernel: RunningKernel, **fields: object) -> ProbeAnswered:
    """The first answer that has these fields."""
    return kernel.await_event(ProbeAnswered, lambda e: all(getattr(e, k) == value for k, value in fields.items()))


def counters(kernel: RunningKernel) -> dict[str, int]:
    return kernel.call(lambda k: k.counters)


@pytest.fixture
def probing(lab: Lab, kernel: RunningKernel) -> RunningKernel:
    """A kernel with IPv4 and IPv6 test addresses on both members."""
    members = [Member(InterfaceMatch(name=n), test_ipv4=IPv4Interface(a)) for n, a in TEST_ADDRESSES.items()]
    kernel.configure(kernel_group(*members))
    for name in TEST_ADDRESSES:
        for family in IP_FAMILIES:
            kernel.await_test_address(name, family)
    # Replies need a way back: without a route to the prefix the loose reverse path filter drops them.
    kernel.perform(SetOutbound(tuple(TEST_ADDRESSES), tuple(TEST_ADDRESSES)))
    wait_for(lambda: lab.host.namespace.ip_json("-4", "route", "show", "198.18.0.0/24", "table", "all"))
    return kernel


class Forger:
    """Another host that answers our echo requests in its own way instead of letting its kernel do it."""

    def __init__(self, namespace: Namespace, answer: Callable[[bytes], list[tuple[bytes, str]]]) -> None:
        self.requests: list[tuple[int, bytes]] = []  # TTL, ICMP message
        self._answer = answer
        self._listener = namespace.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._listener.settimeout(0.1)
        self._raw = namespace.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._going = True
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while self._going:
            try:
                packet, (sender, _) = self._listener.recvfrom(2048)
            except TimeoutError:
                continue
            message = packet[20:]
            if message[0] != frames.ICMP_ECHO_REQUEST:
                continue
            self.requests.append((packet[8], message))
            for reply, source in self._answer(message):
                header = struct.pack(
                    "!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, 1, 0, socket.inet_aton(source), socket.inet_aton(sender)
                )
                self._raw.sendto(header + reply, (sender, 0))

    def close(self) -> None:
        self._going = False
        self._thread.join()
        self._listener.close()
        self._raw.close()


@pytest.fixture
def forger(lab: Lab) -> Iterator[Callable[..., Forger]]:
    made: list[Forger] = []

    def make(answer: Callable[[bytes], list[tuple[bytes, str]]]) -> Forger:
        lab.peer(0).namespace.sysctl({"ipv4/icmp_echo_ignore_all": 1})  # its kernel is quiet, a raw socket still hears
        made.append(Forger(lab.peer(0).namespace, answer))
        return made[-1]

    yield make
    for each in made:
        each.close()


def reply_to(request: bytes, **changes: Any) -> bytes:
    """An echo reply as a target would send it, but for these changes."""
    _, _, _, identifier, sequence = struct.unpack_from("!BBHHH", request)
    payload: bytes = changes.get("payload", request[8:])
    head = struct.pack(
        "!BBHHH", 0, changes.get("code", 0), 0, changes.get("identifier", identifier), changes.get("sequence", sequence)
    )
    return head[:2] + struct.pack("!H", frames.checksum(head + payload)) + head[4:] + payload


@pytest.mark.parametrize("peer", [0, 1])
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_icmp_probes_are_answered_on_the_member_that_sent_them(
    lab: Lab, probing: RunningKernel, family: str, peer: int
) -> None:
    target = getattr(lab.peer(peer), family)
    for name in TEST_ADDRESSES:
        sent = time.monotonic()
        probing.perform(order(target, interface=name))
        answer = await_answer(probing, interface=name)
        assert (str(answer.target), answer.sequence, answer.kind) == (target, 7, ProbeKind.DETECTION)
        assert 0 <= answer.network_rtt <= answer.rtt <= time.monotonic() - sent


def test_ipv6_link_local_targets_are_probed_through_the_routing_table(lab: Lab, probing: RunningKernel) -> None:
    (link,) = lab.peer(1).namespace.ip_json("address", "show", "dev", "eth0")
    local = next(a["local"] for a in link["addr_info"] if a["scope"] == "link")
    probing.perform(order(local))
    assert str(probing.await_event(ProbeAnswered).target) == local


def test_probes_leave_by_their_member_whatever_the_routes_say(lab: Lab, probing: RunningKernel) -> None:
    # A default route by this member would carry an IPv4 probe to the gateway, where its TTL of 1 ends.
    lab.host.namespace.batch(
        ["address add 198.18.0.50/24 dev nic1", "route add default via 198.18.0.201 dev nic0 onlink metric 5"]
    )
    probing.perform(order(lab.peer(1).ipv4))
    assert probing.await_event(ProbeAnswered).interface == "nic0"


@pytest.mark.parametrize(
    ("protocol", "family"), [(ProbeProtocol.ARP, "ipv4"), (ProbeProtocol.NEIGHBOR, "ipv6")], ids=["arp", "neighbor"]
)
def test_link_layer_probes_need_no_test_address(
    lab: Lab, kernel: RunningKernel, protocol: ProbeProtocol, family: str
) -> None:
    lab.host.namespace.sysctl({"ipv6/conf/nic0/disable_ipv6": 1} if family == "ipv4" else {})
    kernel.configure(kernel_group())
    target = getattr(lab.peer(1), family)

    def probe() -> list[ProbeAnswered]:
        kernel.perform(order(target, protocol))
        return kernel.events(ProbeAnswered)

    wait_for(probe, what="the first answer of a young peer", interval=0.1)
    for number in range(100, 103):
        kernel.perform(order(target, protocol, sequence=number))
        await_answer(kernel, sequence=number)


def test_a_target_whose_mac_changed_answers_arp_again_after_one_loss(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group())
    target = lab.peer(1).ipv4
    kernel.perform(order(target, ProbeProtocol.ARP, sequence=1))
    kernel.await_event(ProbeAnswered, lambda e: e.sequence == 1)
    lab.peer(1).namespace.ip("link", "set", "eth0", "address", "02:00:00:00:77:01")
    kernel.perform(order(target, ProbeProtocol.ARP, sequence=2))  # to the MAC address known
    kernel.perform(order(target, ProbeProtocol.ARP, sequence=3))  # to everybody
    kernel.await_event(ProbeAnswered, lambda e: e.sequence == 3)


@pytest.mark.parametrize("kind", ["ipv4", "link-local"])
def test_a_target_whose_mac_changed_is_found_at_the_link_layer_by_the_first_loss(
    lab: Lab, probing: RunningKernel, kind: str
) -> None:
    """The kernel believes its neighbour entry for up to 30 s, and each member has one of its own."""
    peer = lab.peer(1)
    target = peer.ipv4 if kind == "ipv4" else local_address(peer)
    probing.perform(order(target, sequence=1))
    probing.await_event(ProbeAnswered, lambda e: e.sequence == 1)
    state = ["nud", "reachable"]
    peer.namespace.sysctl({"ipv6/conf/eth0/addr_gen_mode": 1, "ipv6/conf/eth0/keep_addr_on_down": 1})
    peer.namespace.batch(
        ["link set eth0 address 02:00:00:00:77:01"]
        + ([f"address replace {target}/64 dev eth0 scope link nodad"] if kind != "ipv4" else [])
    )
    lab.host.namespace.ip("neigh", "replace", target, "lladdr", peer.only.mac, "dev", "nic0", *state)
    for number in (2, 3, 4):  # the first is lost, the second asks, the third is answered
        probing.perform(order(target, sequence=number))
        time.sleep(0.1)
    probing.await_event(ProbeAnswered, lambda e: e.sequence == 4)
    assert probing.events(TargetHeard)[0] == TargetHeard("nic0", Family(ip_address(target).version), ip_address(target))
    assert known_mac(lab.host.namespace, target, "nic0") == "02:00:00:00:77:01"


def test_a_neighbour_entry_that_somebody_laid_by_hand_is_left_alone(lab: Lab, probing: RunningKernel) -> None:
    target, wrong = lab.peer(1).ipv4, "02:00:00:00:77:99"
    lab.host.namespace.ip("neigh", "replace", target, "lladdr", wrong, "dev", "nic0", "nud", "permanent")
    for number in (2, 3, 4):
        probing.perform(order(target, sequence=number))
        time.sleep(0.1)
    probing.await_event(TargetHeard)
    assert known_mac(lab.host.namespace, target, "nic0") == wrong


def test_a_target_that_is_silent_for_long_is_asked_at_the_link_layer_less_often(
    lab: Lab, probing: RunningKernel
) -> None:
    target = "198.18.0.250"  # nobody
    lab.host.namespace.ip("neigh", "replace", target, "lladdr", "02:00:00:00:77:99", "dev", "nic0", "nud", "permanent")
    with Wire(lab.peer(0).only) as wire:
        for number in range(30):
            probing.perform(order(target, sequence=number))
            time.sleep(0.01)
        asked = [frame for frame in wire.heard() if frame[38:42] == ip_address(target).packed]
    announced = 4  # questions to neighbours beside an announcement of the test address, if one falls into this time
    assert 5 + 4 <= len(asked) <= 5 + 4 + announced


def local_address(peer: Host) -> str:
    (link,) = peer.namespace.ip_json("address", "show", "dev", "eth0")
    return str(next(a["local"] for a in link["addr_info"] if a["scope"] == "link"))


def test_discovery_finds_every_host_but_ourselves(lab: Lab, probing: RunningKernel) -> None:
    for number in (0, 1):
        lab.peer(number).namespace.sysctl({"ipv4/icmp_echo_ignore_broadcasts": 0})
    lab.host.namespace.sysctl({"ipv4/icmp_echo_ignore_broadcasts": 0})
    probing.perform(order("224.0.0.1", kind=ProbeKind.DISCOVERY), order("ff02::1", kind=ProbeKind.DISCOVERY))
    wait_for(lambda: probing.events(ProbeAnswered), lambda answers: len(answers) >= 4)
    time.sleep(0.2)
    answers = probing.events(ProbeAnswered)
    assert {e.kind for e in answers} == {ProbeKind.DISCOVERY}
    assert {str(e.target) for e in answers if e.family is Family.IPV4} == {"198.18.0.201", "198.18.0.202"}
    assert all(isinstance(e.target, IPv6Address) and e.target.is_link_local for e in answers if e.family is Family.IPV6)
    assert len(answers) == 4


def test_a_probe_cannot_leave_the_link(lab: Lab, probing: RunningKernel, forger: Callable[..., Forger]) -> None:
    seen = forger(lambda _: [])
    probing.perform(order(lab.peer(0).ipv4))
    wait_for(lambda: seen.requests)
    assert [ttl for ttl, _ in seen.requests] == [1]


def test_no_two_probes_carry_the_same_bits(lab: Lab, probing: RunningKernel, forger: Callable[..., Forger]) -> None:
    seen = forger(lambda _: [])
    for _ in range(20):
        probing.perform(order(lab.peer(0).ipv4))
    wait_for(lambda: seen.requests, lambda r: len(r) == 20)
    assert len({message[8:] for _, message in seen.requests}) == 20


FORGERIES: dict[str, Callable[[bytes, str], list[tuple[bytes, str]]]] = {
    "replies_unknown": lambda request, peer: [(reply_to(request, payload=request[8:-8] + b"guessed!"), peer)],
    "replies_altered": lambda request, peer: [(reply_to(request, sequence=8), peer)],
    "replies_wrong_source": lambda request, _: [(reply_to(request), "198.18.0.77")],
    "replies_malformed": lambda request, peer: [(reply_to(request, payload=request[8:12]), peer)],
}


@pytest.mark.parametrize("counter", FORGERIES)
def test_a_reply_that_is_not_to_our_probe_is_counted_and_ignored(
    lab: Lab, probing: RunningKernel, forger: Callable[..., Forger], counter: str
) -> None:
    forger(lambda request: FORGERIES[counter](request, lab.peer(0).ipv4))
    probing.perform(order(lab.peer(0).ipv4))
    wait_for(lambda: counters(probing), lambda c: c.get(counter))
    assert probing.events(ProbeAnswered) == []


def test_of_two_replies_the_first_counts(lab: Lab, probing: RunningKernel, forger: Callable[..., Forger]) -> None:
    forger(lambda request: [(reply_to(request), lab.peer(0).ipv4)] * 2)
    probing.perform(order(lab.peer(0).ipv4))
    wait_for(lambda: counters(probing), lambda c: c.get("replies_duplicate"))
    assert len(probing.events(ProbeAnswered)) == 1


def test_a_late_reply_is_still_told(lab: Lab, probing: RunningKernel, forger: Callable[..., Forger]) -> None:
    held: list[bytes] = []

    def second_time(request: bytes) -> list[tuple[bytes, str]]:
        held.append(request)
        return [(reply_to(held[0]), lab.peer(0).ipv4)] if len(held) == 2 else []

    forger(second_time)
    probing.perform(order(lab.peer(0).ipv4, sequence=1))
    wait_for(lambda: held)
    probing.perform(order(lab.peer(0).ipv4, sequence=2))
    assert probing.await_event(ProbeAnswered).sequence == 1


def test_icmp_of_others_does_not_wake_us(lab: Lab, probing: RunningKernel, forger: Callable[..., Forger]) -> None:
    def foreign(request: bytes) -> bytes:
        return reply_to(request, identifier=struct.unpack_from("!H", request, 4)[0] ^ 1)

    forger(lambda request: [(foreign(request), lab.peer(0).ipv4)] * 50 + [(reply_to(request), lab.peer(0).ipv4)])
    before = counters(probing)
    probing.perform(order(lab.peer(0).ipv4))
    probing.await_event(ProbeAnswered)
    changed = {k: v - before.get(k, 0) for k, v in counters(probing).items() if v != before.get(k, 0)}
    changed.pop("announcements_sent", None)  # of the test address, on a schedule of its own
    assert changed == {"probes_sent": 1, "probes_answered": 1}


def test_a_reply_that_arrives_by_another_member_does_not_count(lab: Lab, probing: RunningKernel) -> None:
    # The peer is told that the test address of nic0 is behind the MAC address of nic1.
    mac = lab.host.nic("nic1").mac
    lab.peer(0).namespace.ip("neigh", "replace", "198.18.0.101", "lladdr", mac, "dev", "eth0", "nud", "permanent")
    probing.perform(order(lab.peer(0).ipv4))
    time.sleep(0.3)
    assert probing.events(ProbeAnswered) == []


@pytest.mark.parametrize("protocol", [ProbeProtocol.ICMP, ProbeProtocol.ARP])
def test_a_probe_that_the_kernel_refuses_is_told(lab: Lab, probing: RunningKernel, protocol: ProbeProtocol) -> None:
    lab.host.namespace.ip("link", "set", "nic0", "down")
    probing.perform(order(lab.peer(0).ipv4, protocol, sequence=9))
    event = probing.await_event(ProbeNotSent)
    assert (event.interface, event.sequence) == ("nic0", 9)
    assert event.error in {errno.ENETDOWN, errno.ENETUNREACH}


def test_a_probe_of_an_absent_member_or_without_test_address_is_told(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group("nic0", "absent"))
    kernel.perform(order("198.18.0.201"), order("198.18.0.201", interface="absent"))
    assert [(e.interface, e.error) for e in kernel.events(ProbeNotSent)] == [
        ("nic0", errno.EADDRNOTAVAIL),
        ("absent", errno.ENODEV),
    ]


def test_drain_reads_what_is_pending(lab: Lab, probing: RunningKernel) -> None:
    def held_up(facade: Any) -> int:
        """Our own process stops after sending: the reply waits in the socket."""
        facade.perform(GROUP, order(lab.peer(0).ipv4))
        time.sleep(0.2)
        assert probing.events(ProbeAnswered) == []
        facade.drain()
        return len(probing.events(ProbeAnswered))

    assert probing.call(held_up) == 1


def transitive(lab: Lab, source: str, target: str, **changes: Any) -> SendProbe:
    mac = MacAddress(lab.host.nic(target).mac)
    return SendProbe(
        source, Family.LINK, mac, changes.get("sequence", 5), ProbeKind.DETECTION, ProbeProtocol.TRANSITIVE
    )


def test_members_answer_each_other_on_the_link_layer(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group())
    kernel.perform(transitive(lab, "nic0", "nic1"), transitive(lab, "nic1", "nic0"))
    wait_for(lambda: kernel.events(ProbeAnswered), lambda answers: len(answers) == 2)
    answers = {(e.interface, e.target, e.family, e.sequence) for e in kernel.events(ProbeAnswered)}
    assert answers == {
        ("nic0", lab.host.nic("nic1").mac, Family.LINK, 5),
        ("nic1", lab.host.nic("nic0").mac, Family.LINK, 5),
    }


def test_a_transitive_probe_tells_a_cut_between_members(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group())
    lab.uplink.unplug()
    kernel.perform(transitive(lab, "nic0", "nic1"))
    time.sleep(0.2)
    assert kernel.events(ProbeAnswered) == []


def test_a_stranger_gets_no_transitive_answer_and_his_answers_do_not_count(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group())
    nic, stranger = lab.host.nic("nic0"), frames.mac_bytes(lab.peer(0).only.mac)

    def speak() -> list[bytes]:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(frames.ETH_P_TRANSITIVE)) as wire:
            wire.bind(("eth0", frames.ETH_P_TRANSITIVE))
            wire.settimeout(0.3)
            for question in (True, False):
                said = frames.Transitive(stranger, question=question, kind=1, sequence=5, bits=12345)
                wire.send(frames.transitive(frames.mac_bytes(nic.mac), said))
            try:
                return [wire.recv(2048)]
            except TimeoutError:
                return []

    assert lab.peer(0).namespace.call(speak) == []
    assert counters(kernel)["replies_unknown"] == 1
    assert kernel.events(ProbeAnswered) == []


def test_a_flood_of_frames_that_are_not_between_members_does_not_wake_us(
    lab: Lab, kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel throws them away: rubbish of our EtherType, and what is sent to all or to somebody else."""
    kernel.configure(kernel_group())
    nic, stranger = frames.mac_bytes(lab.host.nic("nic0").mac), frames.mac_bytes(lab.peer(0).only.mac)
    read: list[bytes] = []
    original = frames.read_transitive

    def reading(frame: bytes) -> frames.Transitive | None:
        read.append(frame)
        return original(frame)

    monkeypatch.setattr(frames, "read_transitive", reading)
    question = frames.Transitive(stranger, question=True, kind=1, sequence=5, bits=12345)
    head = frames.transitive(nic, question)[:14]
    rubbish = [head, head + b"X" * 46, frames.transitive(frames.BROADCAST, question), head + b"IPMQ" * 12]

    def speak() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
            wire.bind(("eth0", 0))
            for frame in rubbish * 10:
                wire.send(frame)
            wire.send(frames.transitive(nic, question))

    lab.peer(0).namespace.call(speak)
    wait_for(lambda: read)
    time.sleep(0.1)
    assert read == [frames.transitive(nic, question)]


def test_a_socket_that_cannot_be_prepared_is_closed() -> None:
    """The address or the interface may go between being seen and being used; an unclosed socket would warn here."""
    with pytest.raises(OSError, match="Cannot assign requested address"):
        EchoSocket("lo", 1, ip_address("198.18.9.9"), 1)
    with pytest.raises(OSError, match="No such device"):
        EchoSocket("no-such-nic", 999, ip_address("fe80::9"), 1)
    gc.collect()
