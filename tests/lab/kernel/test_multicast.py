"""Multicast and broadcast follow the members that work, for programs that know nothing of it."""

from __future__ import annotations

import resource
import secrets
import socket
import struct
import time
from functools import partial
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core.actions import ProbeProtocol, SendProbe, SetNominee, SetOutbound
from ipmp_agent.core.events import Family, LinkChanged, ProbeAnswered, ProbeKind
from ipmp_agent.linux.group import multicast, surroundings
from ipmp_agent.linux.group.multicast import memberships
from ipmp_api.types import Mode
from tests.lab import wait_for
from tests.lab.kernel.running import GROUP, kernel_group, moves

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab import Host, Lab
    from tests.lab.kernel.running import RunningKernel

GROUPS = {4: "239.1.2.3", 6: "ff15::1:2:3"}
PORT = 47474
ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD


def joined(lab: Lab, nic: str) -> set[str]:
    read = [lab.host.namespace.run("cat", f"/proc/thread-self/net/{name}") for name in ("igmp", "igmp6")]
    return {str(group) for group in memberships(*read).get(nic, set())}


@pytest.fixture(params=[4, 6])
def program(request: Any, lab: Lab) -> Iterator[tuple[int, socket.socket]]:
    """A program of the host that joined a group on nic0, long ago."""
    version = request.param
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    lab.host.namespace.batch(["address add 198.18.0.50/24 dev nic0", "address add 198.18.0.51/24 dev nic1"])
    with lab.host.namespace.socket(family, socket.SOCK_DGRAM) as listener:
        index = lab.host.nic("nic0").index
        packed = socket.inet_pton(family, GROUPS[version])
        if version == 4:
            listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("=4s4si", packed, b"", index))
        else:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, struct.pack("=16si", packed, index))
        listener.bind(("", PORT))
        listener.settimeout(0.2)
        yield version, listener


def say(lab: Lab, version: int, words: bytes) -> None:
    """A neighbour says something to the group."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with lab.peer(1).namespace.socket(family, socket.SOCK_DGRAM) as speaker:
        speaker.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        speaker.sendto(words, (GROUPS[version], PORT))


def hears(lab: Lab, version: int, listener: socket.socket) -> int:
    """How often one packet arrives."""
    say(lab, version, b"hello")
    count = 0
    while True:
        try:
            listener.recv(100)
        except TimeoutError:
            return count
        count += 1


def nominate(kernel: RunningKernel, nominee: str, active: tuple[str, ...]) -> None:
    kernel.perform(SetOutbound(active, active), SetNominee(nominee, nominee, active))


def test_a_program_that_joined_on_a_failed_member_hears_again(
    lab: Lab, kernel: RunningKernel, program: tuple[int, socket.socket]
) -> None:
    version, listener = program
    kernel.configure(kernel_group())
    nominate(kernel, "nic0", ("nic0", "nic1"))
    wait_for(lambda: hears(lab, version, listener))
    lab.host.nic("nic0").silence()
    assert hears(lab, version, listener) == 0
    nominate(kernel, "nic1", ("nic1",))
    assert GROUPS[version] in joined(lab, "nic1")
    wait_for(lambda: hears(lab, version, listener))
    assert hears(lab, version, listener) == 1
    lab.host.nic("nic0").restore()
    nominate(kernel, "nic1", ("nic1", "nic0"))
    assert GROUPS[version] not in joined(lab, "nic1")
    wait_for(lambda: hears(lab, version, listener) == 1)


def probe_until_answered(lab: Lab, kernel: RunningKernel) -> None:
    """Have nic0 ask a neighbour until it answers."""
    target = ip_address(lab.peer(0).ipv4)
    probe = SendProbe("nic0", Family.IPV4, target, 1, ProbeKind.DETECTION, ProbeProtocol.ARP)

    def ask() -> list[ProbeAnswered]:
        kernel.perform(probe)
        return kernel.events(ProbeAnswered)

    wait_for(ask, interval=0.1)


def test_nothing_arrives_twice_while_a_member_whose_link_came_back_waits_for_its_verdict(
    lab: Lab, kernel: RunningKernel, program: tuple[int, socket.socket]
) -> None:
    """A program's own membership works with the carrier, and the verdict takes as long as ten answers."""
    version, listener = program
    kernel.configure(kernel_group())
    nominate(kernel, "nic0", ("nic0", "nic1"))
    nic = lab.host.nic("nic0")
    nic.unplug()
    kernel.await_event(LinkChanged, lambda e: not e.up)
    nominate(kernel, "nic1", ("nic1",))
    wait_for(lambda: hears(lab, version, listener) == 1)
    nic.plug()
    kernel.await_event(LinkChanged, lambda e: e.up)
    assert GROUPS[version] in joined(lab, "nic1"), "a carrier alone proves nothing"
    probe_until_answered(lab, kernel)
    assert GROUPS[version] not in joined(lab, "nic1")
    wait_for(lambda: hears(lab, version, listener) == 1)
    kernel.run(lambda k: k.reconcile(GROUP))
    assert hears(lab, version, listener) == 1
    nic.unplug()
    kernel.await_event(LinkChanged, lambda e: not e.up)
    kernel.run(lambda k: k.reconcile(GROUP))
    assert GROUPS[version] in joined(lab, "nic1")


def test_a_member_that_is_answered_and_falls_silent_again_is_stood_in_for(
    lab: Lab, kernel: RunningKernel, program: tuple[int, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    version, _ = program
    monkeypatch.setattr(surroundings, "HEARING", 0.5)
    kernel.configure(kernel_group())
    nic = lab.host.nic("nic0")
    nic.unplug()
    kernel.await_event(LinkChanged, lambda e: not e.up)
    nominate(kernel, "nic1", ("nic1",))
    nic.plug()
    kernel.await_event(LinkChanged, lambda e: e.up)
    probe_until_answered(lab, kernel)
    nic.silence()
    time.sleep(0.6)
    kernel.run(lambda k: k.reconcile(GROUP))
    assert GROUPS[version] in joined(lab, "nic1")


def test_a_group_joined_on_an_idle_member_later_is_followed_and_left_with_it(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group())
    nominate(kernel, "nic1", ("nic1",))
    late = lab.host.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
    packed = socket.inet_aton("239.9.9.9")
    late.setsockopt(
        socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("=4s4si", packed, b"", lab.host.nic("nic0").index)
    )
    kernel.run(lambda k: k.reconcile(GROUP))
    assert "239.9.9.9" in joined(lab, "nic1")
    late.close()
    kernel.run(lambda k: k.reconcile(GROUP))
    assert "239.9.9.9" not in joined(lab, "nic1")


def test_more_groups_than_one_socket_may_join_are_followed(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group())
    programs = [lab.host.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
    wanted = [f"239.7.{i}.{j}" for i in range(3) for j in range(18)]
    for i, group in enumerate(wanted):
        request = struct.pack("=4s4si", socket.inet_aton(group), b"", lab.host.nic("nic0").index)
        programs[i // 18].setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
    before = descriptors()
    nominate(kernel, "nic1", ("nic1",))
    assert joined(lab, "nic1") >= set(wanted)
    assert descriptors() - before == 3, "20 groups to a socket"
    programs.pop().close()
    kernel.run(lambda k: k.reconcile(GROUP))
    assert joined(lab, "nic1") & set(wanted) == set(wanted[:36])
    kernel.run(lambda k: k.withdraw(GROUP))
    time.sleep(0.05)
    assert not joined(lab, "nic1") & set(wanted)
    for program in programs:
        program.close()


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_what_is_joined_is_left_although_no_descriptor_can_be_had(lab: Lab, kernel: RunningKernel) -> None:
    """Other parts of the agent may have used them up."""
    kernel.configure(kernel_group())
    packed = socket.inet_aton("239.9.9.9")
    request = struct.pack("=4s4si", packed, b"", lab.host.nic("nic0").index)
    with lab.host.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
        program.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        nominate(kernel, "nic1", ("nic1",))
        assert "239.9.9.9" in joined(lab, "nic1")
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (2, limits[1]))
            nominate(kernel, "nic1", ("nic0", "nic1"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert "239.9.9.9" not in joined(lab, "nic1")


def test_groups_are_followed_where_a_socket_may_join_fewer(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.namespace.sysctl({"ipv4/igmp_max_memberships": 2})
    kernel.configure(kernel_group())
    programs = [lab.host.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(5)]
    for i, program in enumerate(programs):
        request = struct.pack("=4s4si", socket.inet_aton(f"239.9.9.{i}"), b"", lab.host.nic("nic0").index)
        program.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
    nominate(kernel, "nic1", ("nic1",))
    assert joined(lab, "nic1") >= {f"239.9.9.{i}" for i in range(5)}
    for program in programs:
        program.close()


def test_programs_that_join_without_end_get_a_bounded_number_of_groups(
    lab: Lab, kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(multicast, "GROUPS_AT_MOST", 3)
    kernel.configure(kernel_group())
    with lab.host.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
        for i in range(5):
            request = struct.pack("=4s4si", socket.inet_aton(f"239.9.9.{i}"), b"", lab.host.nic("nic0").index)
            program.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        nominate(kernel, "nic1", ("nic1",))
        kernel.run(lambda k: k.reconcile(GROUP))
    assert {group for group in joined(lab, "nic1") if group.startswith("239")} == {f"239.9.9.{i}" for i in range(3)}
    assert caplog.text.count("programs joined 5 multicast groups: 3 of them are followed") == 1


def test_a_member_that_works_without_carrying_is_not_stood_in_for(
    lab: Lab, kernel: RunningKernel, program: tuple[int, socket.socket]
) -> None:
    """Without spreading, or as a standby: its sockets hear by it, and would hear everything twice."""
    version, listener = program
    kernel.configure(kernel_group())
    kernel.perform(SetOutbound(("nic1",), ("nic1",)), SetNominee("nic1", "nic1", ("nic0", "nic1")))
    assert GROUPS[version] not in joined(lab, "nic1")
    wait_for(lambda: hears(lab, version, listener) == 1)


def test_a_group_that_only_observes_any_more_leaves_what_it_joined(
    lab: Lab, kernel: RunningKernel, program: tuple[int, socket.socket]
) -> None:
    """An agent that starts with such a group joins nothing, and a member that works again would deliver twice."""
    version, _ = program
    kernel.configure(kernel_group())
    nominate(kernel, "nic1", ("nic1",))
    assert GROUPS[version] in joined(lab, "nic1")
    kernel.configure(kernel_group(mode=Mode.OBSERVE))
    assert GROUPS[version] not in joined(lab, "nic1")
    kernel.run(lambda k: k.reconcile(GROUP))
    assert GROUPS[version] not in joined(lab, "nic1")
    kernel.configure(kernel_group())
    assert GROUPS[version] in joined(lab, "nic1")


@pytest.mark.parametrize("mode", list(Mode))
def test_the_link_is_told_by_igmp_and_mld_unless_nothing_may_be_changed(
    lab: Lab, kernel: RunningKernel, program: tuple[int, socket.socket], mode: Mode
) -> None:
    version, _ = program
    kernel.configure(kernel_group(mode=mode))
    with lab.peer(1).namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.bind(("eth0", ETH_P_IP if version == 4 else ETH_P_IPV6))
        wire.settimeout(0.1)
        nominate(kernel, "nic1", ("nic1",))
        if mode is Mode.OBSERVE:
            assert GROUPS[version] not in joined(lab, "nic1")
            time.sleep(1.2)  # the kernel repeats a report within a second
            assert not any(heard_reports(wire, version, lab.host.nic("nic1").mac))
        else:
            wait_for(lambda: any(heard_reports(wire, version, lab.host.nic("nic1").mac)), deadline=10)


def test_the_link_is_told_again_by_a_member_that_works_again(
    lab: Lab, kernel: RunningKernel, program: tuple[int, socket.socket]
) -> None:
    """A switch that snoops has forgotten a port whose link was down, and the next query may be two minutes away."""
    version, _ = program
    nic0 = lab.host.nic("nic0")
    kernel.configure(kernel_group())
    nic0.unplug()
    kernel.await_event(LinkChanged, lambda event: event.interface == "nic0" and not event.up)
    nominate(kernel, "nic1", ("nic1",))
    nic0.plug()
    kernel.await_event(LinkChanged, lambda event: event.interface == "nic0" and event.up)
    time.sleep(1.2)  # what the kernel repeats by itself is over
    with lab.peer(1).namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.bind(("eth0", ETH_P_IP))
        wire.settimeout(0.1)
        nominate(kernel, "nic1", ("nic0", "nic1"))
        if version == 4:
            wait_for(lambda: any(heard_reports(wire, version, nic0.mac)), deadline=10)
        assert not heard_queries(wire), "the question is for this host alone"


def test_ipv6_tells_the_link_of_its_groups_when_a_carrier_returns_and_ipv4_does_not(
    lab: Lab, program: tuple[int, socket.socket]
) -> None:
    version, _ = program
    nic0 = lab.host.nic("nic0")
    time.sleep(1.2)  # the kernel repeats a report within a second
    nic0.unplug()
    with lab.peer(1).namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.bind(("eth0", ETH_P_IP if version == 4 else ETH_P_IPV6))
        wire.settimeout(0.1)
        nic0.plug()
        if version == 6:
            wait_for(lambda: any(heard_reports(wire, version, nic0.mac)), deadline=10)
        else:
            time.sleep(2)  # MLD has been heard within it
            assert not any(heard_reports(wire, version, nic0.mac))


def test_a_question_that_stays_on_the_host_has_the_kernel_report_the_groups_of_an_interface(lab: Lab) -> None:
    nic0 = lab.host.nic("nic0")
    with (
        lab.host.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as program,
        lab.peer(1).namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire,
    ):
        program.setsockopt(
            socket.IPPROTO_IP,
            socket.IP_ADD_MEMBERSHIP,
            struct.pack("=4s4si", socket.inet_aton(GROUPS[4]), b"", nic0.index),
        )
        time.sleep(1.2)  # the kernel's own reports are over
        wire.bind(("eth0", ETH_P_IP))
        wire.settimeout(0.1)
        lab.host.namespace.call(multicast.report_anew, nic0.index)
        wait_for(lambda: any(heard_reports(wire, 4, nic0.mac)), deadline=10)
        assert not heard_queries(wire)


def heard_queries(wire: socket.socket) -> list[bytes]:
    """IGMP queries among the frames that are pending."""
    found: list[bytes] = []
    while True:
        try:
            frame = wire.recv(2048)
        except TimeoutError:
            return found
        if frame[12:14] == b"\x08\x00" and frame[23] == socket.IPPROTO_IGMP:
            found += [frame] if frame[14 + 4 * (frame[14] & 15)] == 0x11 else []


def heard_reports(wire: socket.socket, version: int, mac: str) -> Iterator[bytes]:
    """Reports of the group (RFC 3376, RFC 3810) by the NIC with this MAC, among the frames that are pending."""
    group = socket.inet_pton(socket.AF_INET if version == 4 else socket.AF_INET6, GROUPS[version])
    while True:
        try:
            frame = wire.recv(2048)
        except TimeoutError:
            return
        # IGMP in IPv4 with the router alert option; ICMPv6 behind the hop-by-hop header that carries it.
        reports = frame[23] == socket.IPPROTO_IGMP if version == 4 else frame[54] == socket.IPPROTO_ICMPV6
        kind = frame[14 + 24] if version == 4 else frame[62]
        if reports and kind == (0x22 if version == 4 else 143) and frame[6:12].hex(":") == mac and group in frame[38:]:
            yield frame


@pytest.mark.parametrize("destination", ["198.18.0.255", "255.255.255.255"])
def test_broadcasts_leave_and_arrive_by_a_member_that_works(lab: Lab, kernel: RunningKernel, destination: str) -> None:
    address = ip_interface("198.18.0.50/24")
    lab.host.namespace.batch([f"address add {address} brd + dev nic0", "route add default via 198.18.0.201 dev nic0"])
    kernel.configure(kernel_group(addresses=(address,)))
    kernel.perform(SetOutbound(("nic0",), ("nic0",)))
    with talker(lab.host) as ours, talker(lab.peer(1)) as theirs:
        for failed in (None, "nic0"):
            if failed:
                lab.host.nic(failed).silence()
                kernel.perform(moves(address, source="nic0", destination="nic1"), SetOutbound(("nic1",), ("nic1",)))
            for speaker, listener in ((ours, theirs), (theirs, ours)):
                wait_for(partial(arrives, speaker, listener, destination), what=f"{destination}, {failed} failed")


def talker(host: Host) -> socket.socket:
    """A program that sends and hears broadcasts; a neighbour with one NIC needs no route to everybody."""
    talks = host.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
    talks.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    if len(host.nics) == 1:
        talks.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, host.only.name.encode())
    talks.bind(("", PORT))
    talks.settimeout(0.2)
    return talks


def arrives(speaker: socket.socket, listener: socket.socket, destination: str) -> bool:
    words = secrets.token_bytes(8)  # one hears oneself, too
    speaker.sendto(words, (destination, PORT))
    try:
        while listener.recv(100) != words:
            pass
    except TimeoutError:
        return False
    return True
