"""Another host that has a data address as well: noticed at any time, defended once in ten seconds, and told."""

from __future__ import annotations

import time
from ipaddress import IPv4Address, IPv4Interface, ip_interface
from typing import TYPE_CHECKING

import pytest

from ipmp_agent.core.actions import Announce
from ipmp_agent.core.events import AddressContested
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.group import neighbourhood
from ipmp_agent.linux.messages import frames
from ipmp_agent.linux.shared import wire
from ipmp_api.types import Mode
from tests.lab import Sniffer, wait_for
from tests.lab.kernel.bare import Wire, known_mac, tagged
from tests.lab.kernel.running import GROUP, RunningKernel, kernel_group, moves, place

if TYPE_CHECKING:
    from ipaddress import IPv6Interface

    from tests.lab import Lab

V4, V6 = ip_interface("198.18.0.10/32"), ip_interface("2001:db8:0:1::10/128")
STRANGER = "02:00:00:00:66:01"


@pytest.fixture
def placed(lab: Lab, kernel: RunningKernel) -> RunningKernel:
    """A kernel with both addresses on nic0."""
    kernel.configure(kernel_group(addresses=(V4, V6)))
    place(lab, kernel, V4, V6)
    kernel.run(lambda k: k.reconcile(GROUP))
    time.sleep(0.2)
    kernel.forget()
    return kernel


def claim(address: IPv4Interface | IPv6Interface, mac: str = STRANGER, *, reply: bool = False) -> bytes:
    """What a host says that has this address, too."""
    raw = frames.mac_bytes(mac)
    if isinstance(address, IPv4Interface):
        forms = (frames.gratuitous_arp_request, frames.gratuitous_arp_reply)
        return forms[reply](raw, address.ip)
    return frames.neighbor_advertisement(raw, address.ip, router=False)


def conflicts(kernel: RunningKernel) -> list[str]:
    found = kernel.call(lambda k: k.findings(GROUP))
    return [finding.message for finding in found if finding.reason is Reason.ADDRESS_CONFLICT]


@pytest.mark.parametrize("peer", [0, 1])
@pytest.mark.parametrize(("address", "reply"), [(V4, False), (V4, True), (V6, False)], ids=["request", "reply", "na"])
def test_another_owner_is_told_with_its_mac_and_neighbours_are_put_right(
    lab: Lab, placed: RunningKernel, address: IPv4Interface | IPv6Interface, peer: int, *, reply: bool
) -> None:
    """As it was, one forged announcement left a neighbour wrong for 8 s, and nothing was said."""
    mac, neighbour = lab.host.nic("nic0").mac, lab.peer(1 - peer).namespace
    neighbour.ip("neigh", "replace", str(address.ip), "lladdr", mac, "dev", "eth0", "nud", "reachable")
    with Wire(lab.peer(peer).only) as other:
        other.send(claim(address, reply=reply))
    event = placed.await_event(AddressContested)
    assert event == AddressContested(address, STRANGER)
    assert [f"{address} is also claimed by {STRANGER}" in words for words in conflicts(placed)] == [True]
    wait_for(lambda: known_mac(neighbour, str(address.ip)), lambda known: known == mac, deadline=3)


def test_an_ordinary_question_in_the_name_of_a_data_address_is_a_claim_too(lab: Lab, placed: RunningKernel) -> None:
    """That is what a host says that just uses it."""
    with Wire(lab.peer(0).only) as other:
        raw, target = frames.mac_bytes(STRANGER), IPv4Address(lab.peer(1).ipv4)
        other.send(frames.arp_question(raw, IPv4Address("198.18.0.10"), target))
    placed.await_event(AddressContested)


def test_who_has_the_same_address_in_another_vlan_has_another_address(lab: Lab, placed: RunningKernel) -> None:
    """A trunk port brings the ARP of all VLANs. One without a device here comes to packet sockets without its tag."""
    with Wire(lab.peer(0).only) as other:
        for reply in (False, True):
            other.send(tagged(claim(V4, "02:00:00:00:66:02", reply=reply), vlan=100))
        other.send(tagged(claim(V4), vlan=0))
    assert placed.await_event(AddressContested) == AddressContested(V4, STRANGER)


def test_an_address_is_defended_once_in_the_interval_whoever_claims_it_how_often(
    lab: Lab, placed: RunningKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbourhood, "DEFEND_INTERVAL", 1.0)
    mac = lab.host.nic("nic0").mac
    time.sleep(5.5)  # the announcements of the first placement are over
    with Sniffer(lab.peer(1).namespace) as sniffer, Wire(lab.peer(0).only) as other:
        for number in range(50):
            other.send(claim(V4, f"02:00:00:00:66:{number:02x}"))
            time.sleep(0.05)
        defences = [one for one in sniffer.announcements(str(V4.ip), mac=mac) if one.form == "arp-request"]
    assert 2 <= len(defences) <= 4
    assert len(placed.events(AddressContested)) == 1


def test_a_contest_lasts_as_long_as_the_other_host_answers_and_no_longer(
    lab: Lab, placed: RunningKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbourhood, "DEFEND_INTERVAL", 0.3)
    monkeypatch.setattr(neighbourhood, "CONTEST", 1.0)
    peer = lab.peer(0)
    peer.namespace.ip("address", "add", f"{V4.ip}/24", "dev", "eth0")
    with Wire(peer.only) as other:
        other.send(claim(V4, peer.only.mac))
    placed.await_event(AddressContested, lambda e: e.mac == peer.only.mac)
    time.sleep(2)
    assert len(placed.events(AddressContested)) == 1
    assert conflicts(placed)
    peer.namespace.ip("address", "del", f"{V4.ip}/24", "dev", "eth0")
    placed.await_event(AddressContested, lambda e: e.mac is None)
    assert not conflicts(placed)


def test_what_this_host_says_itself_is_no_claim(lab: Lab, placed: RunningKernel) -> None:
    """Its members hear one another through the switch, and its other interfaces answer, too."""
    lab.host.namespace.batch(["link add link nic1 name other type macvlan mode bridge", "link set other up"])
    (other,) = lab.host.namespace.ip_json("link", "show", "other")
    with Wire(lab.peer(0).only) as wire_:
        wire_.send(claim(V4, str(other["address"])))
    placed.perform(moves(V4, V6, source="nic0", destination="nic1"), Announce("nic1", (V4, V6)))
    placed.perform(moves(V4, V6, source="nic1", destination="nic0"), Announce("nic0", (V4, V6)))
    time.sleep(1)
    assert placed.events(AddressContested) == []


def test_a_claim_of_an_address_that_is_not_here_is_left_alone(lab: Lab, placed: RunningKernel) -> None:
    placed.perform(moves(V4, source="nic0", destination=None))
    with Wire(lab.peer(0).only) as other:
        other.send(claim(V4))
        other.send(claim(ip_interface("198.18.0.77/32")))
    time.sleep(0.5)
    assert placed.events(AddressContested) == []


def test_a_group_that_observes_tells_and_says_nothing_on_the_link(
    lab: Lab, placed: RunningKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbourhood, "DEFEND_INTERVAL", 0.3)
    placed.configure(kernel_group(addresses=(V4, V6), mode=Mode.OBSERVE))
    mac = lab.host.nic("nic0").mac
    with Wire(lab.peer(0).only) as other, Sniffer(lab.peer(1).namespace) as sniffer:
        other.send(claim(V4))
        placed.await_event(AddressContested)
        time.sleep(1)
        assert not [one for one in sniffer.heard if one.mac == mac]


def test_arp_of_others_does_not_wake_us_however_many_addresses_are_watched(
    lab: Lab, kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = tuple(ip_interface(f"198.18.{i // 250 + 1}.{i % 250 + 1}/32") for i in range(wire.WATCHED))
    kernel.configure(kernel_group(addresses=many))
    lab.host.namespace.batch(f"address add {address} dev nic0" for address in (many[0], many[300], many[-1]))
    kernel.run(lambda k: k.reconcile(GROUP))
    read: list[bytes] = []
    original = frames.read_arp

    def reading(frame: bytes) -> frames.ArpClaim | None:
        read.append(frame)
        return original(frame)

    monkeypatch.setattr(frames, "read_arp", reading)
    with Wire(lab.peer(0).only) as other:
        for number in range(200):
            other.send(claim(ip_interface(f"198.18.0.{number + 2}/32")))
        wanted = [claim(address) for address in (many[0], many[300], many[-1])]
        for frame in wanted:
            other.send(frame)
        wait_for(lambda: [frame in read for frame in wanted], all)
    from_stranger = [frame for frame in read if frame[6:12] == frames.mac_bytes(STRANGER)]
    assert {bytes(frame) for frame in from_stranger} == set(wanted)
