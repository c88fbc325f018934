"""Another interface of the host on the members' link answers for nothing but its own addresses, and is told."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.messages import frames
from ipmp_api.types import InterfaceMatch, Member, Mode
from tests.lab import Lab, wait_for
from tests.lab.kernel.bare import tagged
from tests.lab.kernel.running import GROUP, kernel_group, with_tests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab import Host
    from tests.lab.kernel.running import RunningKernel

DATA, OUTSIDER = "198.18.0.10", "198.18.0.77"
TESTS = ("198.18.0.21/24", "198.18.0.22/24")


@pytest.fixture
def lab() -> Iterator[Lab]:
    """The host has a third NIC, on the first switch, that is no member."""
    with Lab(("nic0", "nic1", "spare")) as running:
        running.host.namespace.ip("address", "add", f"{DATA}/24", "dev", "nic0")
        yield running


def settings(host: Host, name: str = "spare") -> list[str]:
    """Whether an interface answers and asks for what it has only."""
    places = [f"/proc/sys/net/ipv4/conf/{name}/{setting}" for setting in ("arp_ignore", "arp_announce")]
    return host.namespace.run("cat", *places).split()


def told(kernel: RunningKernel) -> str:
    """What is said of interfaces that are no members."""
    findings = kernel.call(lambda facade: facade.findings(GROUP))
    return " ".join(finding.message for finding in findings if finding.reason is Reason.OUTSIDER_ON_LINK)


def macs_for(lab: Lab, address: str) -> set[str]:
    """Who answers a neighbour that asks for an address, on either switch."""
    found = set()
    for number in (0, 1):
        peer = lab.peer(number).namespace
        out = peer.run("arping", "-D", "-c", "3", "-w", "1", "-I", "eth0", address, check=False)
        found |= {line.split("[")[1].split("]")[0].lower() for line in out.splitlines() if "[" in line}
    return found


def managed(lab: Lab, kernel: RunningKernel, **policies: Any) -> None:
    """A group of the two members that manages until the spare one is guarded."""
    kernel.configure(kernel_group(*with_tests(*TESTS), **policies))
    wait_for(lambda: settings(lab.host), lambda now: now == ["1", "2"], what="a guarded outsider")


def test_neighbours_learn_no_mac_but_a_members(lab: Lab, kernel: RunningKernel) -> None:
    outside, inside = lab.host.nic("spare").mac, lab.host.nic("nic0").mac
    assert outside in macs_for(lab, DATA)
    managed(lab, kernel)
    assert macs_for(lab, DATA) == {inside}
    assert told(kernel).startswith("spare is on the link of this group and is no member")
    lab.host.namespace.ip("address", "add", f"{OUTSIDER}/32", "dev", "spare")
    assert macs_for(lab, OUTSIDER) == {outside}


def test_withdrawal_leaves_it_as_it_was_found(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.namespace.sysctl({"ipv4/conf/spare/arp_announce": 1})
    managed(lab, kernel)
    kernel.run(lambda facade: facade.withdraw(GROUP))
    assert settings(lab.host) == ["0", "1"]


def test_agent_that_was_killed_leaves_it_to_the_next_one(lab: Lab, start_kernel: Callable[[], RunningKernel]) -> None:
    first = start_kernel()
    managed(lab, first)
    memory = first.call(lambda facade: facade.memory(GROUP))
    first.close()
    second = start_kernel()
    second.configure(kernel_group(*with_tests(*TESTS)), memory)
    second.run(lambda facade: facade.withdraw(GROUP))
    assert settings(lab.host) == ["0", "0"]


def test_address_with_a_peer_is_answered_on_an_outsider_too(lab: Lab, kernel: RunningKernel) -> None:
    """With arp_ignore 1 nobody would be."""
    managed(lab, kernel)
    peer = lab.peer(0)
    lab.host.namespace.ip("address", "add", OUTSIDER, "peer", f"{peer.ipv4}/32", "dev", "spare")
    wait_for(lambda: reconciled(lab, kernel), lambda now: now == ["0", "0"])
    assert lab.host.nic("spare").mac in macs_for(lab, OUTSIDER)
    assert "nothing is done about it" in told(kernel)
    lab.host.namespace.ip("address", "delete", OUTSIDER, "peer", f"{peer.ipv4}/32", "dev", "spare")
    wait_for(lambda: reconciled(lab, kernel), lambda now: now == ["1", "2"])


def reconciled(lab: Lab, kernel: RunningKernel, name: str = "spare") -> list[str]:
    """The settings of the outsider after a comparison."""
    kernel.run(lambda facade: facade.reconcile(GROUP))
    return settings(lab.host, name)


def test_observing_tells_and_changes_nothing(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(mode=Mode.OBSERVE))
    wait_for(lambda: told(kernel), lambda words: "nothing is done about it" in words)
    assert settings(lab.host) == ["0", "0"]


def test_interface_of_the_prefix_is_guarded_before_it_has_heard_anything(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.nic("spare").silence()
    lab.host.namespace.ip("address", "add", f"{OUTSIDER}/24", "dev", "spare")
    managed(lab, kernel)


def test_interface_on_another_link_is_left_alone(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.nic("spare").silence()
    kernel.configure(kernel_group(*with_tests(*TESTS)))
    for _ in range(3):
        kernel.run(lambda facade: facade.reconcile(GROUP))
    assert not told(kernel)
    assert settings(lab.host) == ["0", "0"]


def test_interface_that_hears_another_vlan_of_a_member_is_left_alone(lab: Lab, kernel: RunningKernel) -> None:
    """A NIC has one MAC address in all its VLANs, and a trunk port brings the frames of all of them."""
    far = lab.peer(0).namespace
    lab.host.nic("spare").silence()
    lab.host.namespace.batch([f"link add trunk type veth peer name far netns {far.name}", "link set trunk up"])
    far.ip("link", "set", "far", "up")
    kernel.configure(kernel_group(*with_tests(*TESTS)))
    question = frames.arp_probe(frames.mac_bytes(lab.host.nic("nic0").mac), IPv4Address(DATA))
    with far.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as beyond:
        beyond.bind(("far", 0))
        beyond.send(tagged(question, vlan=100))
        for _ in range(3):
            assert reconciled(lab, kernel, "trunk") == ["0", "0"]
        assert not told(kernel)
        beyond.send(question)
    wait_for(lambda: told(kernel), lambda words: words.startswith("trunk is on the link"), deadline=20)


def test_outsider_that_becomes_a_member_goes_back_to_what_it_was(lab: Lab, kernel: RunningKernel) -> None:
    managed(lab, kernel)
    kernel.configure(kernel_group("nic0", "nic1", "spare"))
    assert settings(lab.host) == ["1", "2"]
    assert not told(kernel)
    kernel.run(lambda facade: facade.withdraw(GROUP))
    assert settings(lab.host) == ["0", "0"]


def test_outsider_that_becomes_a_member_during_a_comparison_goes_back_to_what_it_was(
    lab: Lab, kernel: RunningKernel
) -> None:
    """Its name is that of a member after the members were noted, and before outsiders are looked for."""
    kernel.configure(kernel_group(*with_tests(*TESTS), Member(InterfaceMatch(name="nic2"))))
    wait_for(lambda: settings(lab.host), lambda now: now == ["1", "2"], what="a guarded outsider")
    host, members, index = kernel.kernel._host, kernel.kernel._members, lab.host.nic("spare").index
    refresh = host.addresses.refresh

    async def late() -> None:
        await refresh()
        if members.owner(index) is None:
            lab.host.nic("spare").rename("nic2")
            await asyncio.to_thread(wait_for, lambda: members.owner(index))

    kernel.call(lambda _: setattr(host.addresses, "refresh", late))
    kernel.run(lambda facade: facade.reconcile(GROUP))
    kernel.run(lambda facade: facade.reconcile(GROUP))
    assert settings(lab.host, "nic2") == ["1", "2"]
    kernel.run(lambda facade: facade.withdraw(GROUP))
    assert settings(lab.host, "nic2") == ["0", "0"]


@pytest.mark.parametrize("back", [True, False], ids=["and is one again", "for good"])
def test_member_that_becomes_an_outsider_during_a_comparison_goes_back_to_what_it_was(
    lab: Lab, kernel: RunningKernel, back: bool
) -> None:
    """Its name is that of no member after those that left were put back, and before outsiders are looked for."""
    kernel.configure(kernel_group(*with_tests(*TESTS)))
    wait_for(lambda: settings(lab.host, "nic0"), lambda now: now == ["1", "2"], what="a member")
    host, members, nic = kernel.kernel._host, kernel.kernel._members, lab.host.nic("nic0")
    refresh = host.addresses.refresh

    async def late() -> None:
        if members.owner(nic.index) is not None and nic.name == "nic0":
            nic.rename("enp0s0")
            await asyncio.to_thread(wait_for, lambda: members.owner(nic.index) is None)
        await refresh()

    kernel.call(lambda _: setattr(host.addresses, "refresh", late))
    kernel.run(lambda facade: facade.reconcile(GROUP))
    kernel.call(lambda _: setattr(host.addresses, "refresh", refresh))
    kernel.run(lambda facade: facade.reconcile(GROUP))
    assert settings(lab.host, "enp0s0") == ["1", "2"], "guarded"
    if back:
        nic.rename("nic0")
        wait_for(lambda: members.owner(nic.index), bool, what="a member again")
        kernel.run(lambda facade: facade.reconcile(GROUP))
    kernel.run(lambda facade: facade.withdraw(GROUP))
    assert settings(lab.host, nic.name) == ["0", "0"]


def test_device_below_members_answers_for_itself_only(lab: Lab, kernel: RunningKernel) -> None:
    for number in (0, 1):
        lab.host.namespace.batch(
            [f"link add link nic{number} name mv{number} type macvlan mode bridge", f"link set mv{number} up"]
        )
    kernel.configure(kernel_group("mv0", "mv1"))
    wait_for(lambda: [settings(lab.host, f"nic{n}") for n in (0, 1)], lambda now: now == [["1", "2"]] * 2)
    kernel.run(lambda facade: facade.withdraw(GROUP))
    assert [settings(lab.host, f"nic{n}") for n in (0, 1)] == [["0", "0"]] * 2
