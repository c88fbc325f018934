"""What Linux kernels, of the host and of its neighbours, do with addresses that one might not expect.

Shown without the agent, which is built on these facts: a kernel that differs must fail here first.
"""

from __future__ import annotations

import socket
import sys
import threading
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_interface
from operator import eq
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.linux.group import settings
from ipmp_agent.linux.messages import addresses, frames, netlink
from tests.lab import CommandFailedError, Sniffer, TcpStream, wait_for
from tests.lab.kernel.bare import Wire, known_mac, send
from tests.lab.kernel.running import where

if TYPE_CHECKING:
    from tests.lab import Lab, Namespace

V4, V6 = IPv4Interface("198.18.0.10/32"), IPv6Interface("2001:db8:0:1::10/128")
NODE, TEST_ADDRESS = "198.18.0.50", ip_interface("198.18.0.101/32")
BOTH = ("nic0", "nic1")
PORT = 47475


def flags(host: Namespace, nic: str, address: Any) -> dict[str, Any]:
    (link,) = host.ip_json("address", "show", "dev", nic)
    return next(found for found in link["addr_info"] if found["local"] == str(address.ip))


def conf(values: dict[str, int], *interfaces: str) -> dict[str, int]:
    """Settings of IPv4, of every interface alike."""
    return {f"ipv4/conf/{interface}/{name}": value for interface in interfaces for name, value in values.items()}


# -- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("promote", "left"), [(0, []), (1, ["nic0"])])
def test_primary_address_takes_its_secondaries_along_unless_they_are_promoted(
    lab: Lab, promote: int, left: list[str]
) -> None:
    host = lab.host.namespace
    host.sysctl(conf({"promote_secondaries": promote}, "all", "nic0"))
    host.batch([f"address add 198.18.0.{n}/24 dev nic0" for n in (20, 21)])
    host.ip("address", "del", "198.18.0.20/24", "dev", "nic0")
    assert where(lab, ip_interface("198.18.0.21/24")) == left


def test_two_ipv4_addresses_of_one_prefix_may_not_differ_in_scope(lab: Lab) -> None:
    host = lab.host.namespace
    host.ip("address", "add", f"{NODE}/24", "dev", "nic0")
    with pytest.raises(CommandFailedError, match="Invalid scope value"):
        host.ip("address", "add", "198.18.0.101/24", "dev", "nic0", "scope", "link")
    host.ip("address", "add", "198.18.0.101/32", "dev", "nic0", "scope", "link")


def test_duplicate_detection_takes_our_other_member_for_another_host(lab: Lab) -> None:
    host = lab.host.namespace
    host.sysctl({"ipv6/conf/all/accept_dad": 1} | {f"ipv6/conf/{nic}/accept_dad": 1 for nic in BOTH})
    host.ip("address", "add", str(V6), "dev", "nic0", "nodad")
    host.ip("address", "add", str(V6), "dev", "nic1")
    wait_for(lambda: flags(host, "nic1", V6), lambda found: found.get("dadfailed"))
    host.ip("address", "del", str(V6), "dev", "nic1")
    assert send(host, addresses.add(lab.host.nic("nic1").index, V6)) == []
    found = flags(host, "nic1", V6)
    assert "tentative" not in found
    assert "dadfailed" not in found


# -- announcements ----------------------------------------------------------------------------------------------------


def test_no_address_is_announced_when_it_is_added(lab: Lab) -> None:
    """Not even with the settings whose names promise it."""
    host, nic = lab.host.namespace, lab.host.nic("nic0")
    host.sysctl(conf({"arp_notify": 1}, "all", "nic0") | {"ipv6/conf/nic0/ndisc_notify": 1})
    with Sniffer(lab.peer(1).namespace) as sniffer, Wire(nic) as wire:
        assert send(host, addresses.add(nic.index, V4), addresses.add(nic.index, V6)) == []
        threading.Event().wait(1)
        assert sniffer.announcements(str(V4.ip)) + sniffer.announcements(str(V6.ip)) == []
        wire.send(frames.gratuitous_arp_request(wire.mac, V4.ip))
        wire.send(frames.neighbor_advertisement(wire.mac, V6.ip, router=False))
        sniffer.wait_announced(str(V4.ip), nic.mac)
        sniffer.wait_announced(str(V6.ip), nic.mac)


def test_flow_stalls_for_many_seconds_until_the_move_is_announced(lab: Lab) -> None:
    """The neighbour goes on sending to the dead NIC, for as long as it believes its entry."""
    host, peer = lab.host.namespace, lab.peer(0)
    prefix = "198.18.0.0/24"
    host.batch([f"address add {V4} dev nic0", f"route add {prefix} dev nic0"])
    old, new = lab.host.nic("nic0"), lab.host.nic("nic1")
    with TcpStream(peer.namespace, host, str(V4.ip)) as stream, Wire(new) as wire:
        stream.wait_received(20)
        # The host must not tell by asking for its neighbour: it knows it already, as after a probe.
        host.ip("neigh", "replace", peer.ipv4, "lladdr", peer.only.mac, "dev", "nic1", "nud", "permanent")
        old.unplug()
        assert send(host, addresses.add(new.index, V4), addresses.delete(old.index, V4)) == []
        host.ip("route", "replace", prefix, "dev", "nic1")
        threading.Event().wait(0.2)  # what was on the way
        before = len(stream.report().arrivals)
        threading.Event().wait(9)
        assert len(stream.report().arrivals) == before
        wire.send(frames.gratuitous_arp_request(wire.mac, V4.ip))
        # The retransmission timer has backed off to some seconds meanwhile.
        stream.wait_received(20, deadline=30)
        assert stream.stop().error is None


def test_within_a_second_of_a_change_a_neighbour_heeds_well_formed_announcements_only(lab: Lab) -> None:
    peer = lab.peer(0)
    address, target = V4.ip, IPv4Address(peer.ipv4)
    assert isinstance(address, IPv4Address)
    with Wire(lab.host.nic("nic0")) as old, Wire(lab.host.nic("nic1")) as new:

        def known() -> str | None:
            return known_mac(peer.namespace, str(address))

        def answer(wire: Wire, whom: IPv4Address) -> bytes:
            """An ARP reply that names no target hardware."""
            mac = frames.NO_MAC
            return frames.arp(frames.ARP_REPLY, frames.BROADCAST, wire.mac, address.packed, mac, whom.packed)

        locktime = "/proc/sys/net/ipv4/neigh/eth0/locktime"
        assert peer.namespace.run("cat", locktime).strip() == "100"  # hundredths of a second
        # Long, so that a slow machine does not lift the lock while this looks.
        peer.namespace.sysctl({"ipv4/neigh/eth0/locktime": 3000})
        peer.namespace.ip("neigh", "replace", str(address), "lladdr", old.nic.mac, "dev", "eth0", "nud", "reachable")
        for whom in (target, address):  # an answer to the neighbour, and an announcement that is not well-formed
            new.send(answer(new, whom))
            threading.Event().wait(0.2)
            assert known() == old.nic.mac
        new.send(frames.gratuitous_arp_request(new.mac, address))
        wait_for(known, lambda mac: mac == new.nic.mac)
        old.send(frames.gratuitous_arp_reply(old.mac, address))
        wait_for(known, lambda mac: mac == old.nic.mac)
        peer.namespace.sysctl({"ipv4/neigh/eth0/locktime": 0})
        for wire, whom in ((new, target), (old, address)):

            def told_again(wire: Wire = wire, whom: IPv4Address = whom) -> str | None:
                """Even this lock holds for the rest of a tick of the kernel's clock."""
                wire.send(answer(wire, whom))
                return known()

            wait_for(told_again, partial(eq, wire.nic.mac))


# -- asking and answering ---------------------------------------------------------------------------------------------


def test_member_without_an_address_asks_with_that_of_another_and_neighbours_learn_the_wrong_mac(lab: Lab) -> None:
    host, peer = lab.host.namespace, lab.peer(1)
    host.sysctl(conf({"arp_announce": 2, "arp_ignore": 1}, *BOTH))
    host.batch([f"address add {NODE}/24 dev nic0", f"route add {peer.ipv4}/32 dev nic1 src {NODE}"])
    right, wrong = lab.host.nic("nic0").mac, lab.host.nic("nic1").mac
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:

        def ask() -> None:
            """Send something to a neighbour that the host does not know yet."""
            peer.namespace.ip("neigh", "replace", NODE, "lladdr", right, "dev", "eth0", "nud", "reachable")
            host.ip("neigh", "flush", "dev", "nic1")
            program.sendto(b"hello", (peer.ipv4, PORT))
            wait_for(lambda: known_mac(host, peer.ipv4, "nic1"))

        ask()
        assert known_mac(peer.namespace, NODE) == wrong
        test_address = addresses.add(
            lab.host.nic("nic1").index, ip_interface("198.18.0.101/32"), scope=netlink.RT_SCOPE_LINK
        )
        assert send(host, test_address) == []
        ask()
        assert known_mac(peer.namespace, NODE) == right


def test_route_of_the_link_that_names_no_source_takes_the_test_address_of_its_nic(lab: Lab) -> None:
    """Scope link keeps an address from destinations behind a gateway only: a twin must name its source."""
    host, peer = lab.host.namespace, lab.peer(1)
    test_address = addresses.add(
        lab.host.nic("nic1").index, ip_interface("198.18.0.101/32"), scope=netlink.RT_SCOPE_LINK
    )
    assert send(host, test_address) == []
    host.batch([f"address add {NODE}/24 dev nic0", f"route add {peer.ipv4}/32 dev nic1"])
    host.ip("route", "add", "198.19.5.0/24", "via", "198.18.0.201", "dev", "nic1", "onlink")
    chosen = {to: host.ip_json("route", "get", to)[0]["prefsrc"] for to in (peer.ipv4, "198.19.5.1")}
    assert chosen == {peer.ipv4: str(TEST_ADDRESS.ip), "198.19.5.1": NODE}
    host.ip("route", "replace", f"{peer.ipv4}/32", "dev", "nic1", "src", NODE)
    assert host.ip_json("route", "get", peer.ipv4)[0]["prefsrc"] == NODE


def test_either_nic_answers_for_the_addresses_of_both_unless_told_otherwise(lab: Lab) -> None:
    host, peer = lab.host.namespace, lab.peer(0)
    host.sysctl(conf({"arp_ignore": 0}, "all", *BOTH))
    host.sysctl(conf({"rp_filter": 0}, "all", *BOTH))
    host.batch([f"address add {V4} dev nic0", f"address add {NODE}/24 dev nic1"])
    nic0, nic1 = (lab.host.nic(nic) for nic in BOTH)
    asker = IPv4Address(peer.ipv4)
    with Wire(peer.only) as wire:
        assert wire.who_has(V4.ip, asker) == {nic0.mac, nic1.mac}
        assert send(host, *(settings.change(nic.index, {"arp_ignore": 1}) for nic in (nic0, nic1))) == []
        assert wire.who_has(V4.ip, asker) == {nic0.mac}


def test_arp_ignore_of_all_defeats_that_of_an_interface(lab: Lab) -> None:
    """The greater of the two holds; from 2 on a host address alone on its NIC is not answered for."""
    host, peer = lab.host.namespace, lab.peer(0)
    host.batch([f"address add {V4} dev nic0", "route add 198.18.0.0/24 dev nic0"])
    host.sysctl(conf({"arp_ignore": 1}, *BOTH))
    asker = IPv4Address(peer.ipv4)
    with Wire(peer.only) as wire:
        assert wire.who_has(V4.ip, asker) == {lab.host.nic("nic0").mac}
        host.sysctl(conf({"arp_ignore": 2}, "all"))
        assert wire.who_has(V4.ip, asker) == set()


@pytest.mark.parametrize(
    ("of_all", "own", "address", "heard"),
    [(0, 1, True, False), (1, 0, True, False), (1, 2, True, True), (0, 2, True, True), (0, 2, False, False)],
)
def test_reverse_path_filter_drops_what_comes_in_by_the_other_nic_unless_loose_and_that_has_an_address(
    lab: Lab, of_all: int, own: int, *, address: bool, heard: bool
) -> None:
    """The greater of the two values holds, and 2, which is loose, is greater than 1, which is strict."""
    host, peer = lab.host.namespace, lab.peer(0)
    host.batch([f"address add {NODE}/24 dev nic0"] + ["address add 198.18.0.51/32 dev nic1"] * address)
    host.sysctl(conf({"rp_filter": of_all}, "all") | conf({"rp_filter": own}, *BOTH))
    with (
        host.socket(socket.AF_INET, socket.SOCK_DGRAM) as program,
        peer.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as speaker,
    ):
        program.bind(("", PORT))
        program.settimeout(0.3)

        def arrives(mac: str) -> bool:
            peer.namespace.ip("neigh", "replace", NODE, "lladdr", mac, "dev", "eth0", "nud", "permanent")
            speaker.sendto(b"hello", (NODE, PORT))
            try:
                return program.recv(100) == b"hello"
            except TimeoutError:
                return False

        assert arrives(lab.host.nic("nic0").mac)
        assert arrives(lab.host.nic("nic1").mac) is heard


# -- settings ---------------------------------------------------------------------------------------------------------

CONTAINER = """
mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys &&
exec setpriv --bounding-set=-all,+net_admin "$@"
"""
INSIDE = """
import sys
from pathlib import Path
from ipmp_agent.linux.messages import netlink
from ipmp_agent.linux.group import settings
print(Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0])
try:
    Path("/proc/sys/net/ipv4/conf/nic0/arp_ignore").write_text("1")
except OSError as error:
    print(error.strerror)
print(netlink.Channel().send([settings.change(int(sys.argv[1]), settings.WANTED)]))
"""
ONLY_NET_ADMIN = f"{1 << 12:016x}"


def test_settings_need_net_admin_alone_where_proc_is_read_only(lab: Lab) -> None:
    host = lab.host.namespace
    contained = ["unshare", "--mount", "--propagation", "private", "sh", "-c", CONTAINER, "sh"]
    said = host.run(*contained, sys.executable, "-c", INSIDE, str(lab.host.nic("nic0").index))
    assert said.splitlines() == [ONLY_NET_ADMIN, "Read-only file system", "[]"]
    for name, value in settings.WANTED.items():
        assert host.run("cat", f"/proc/sys/net/ipv4/conf/nic0/{name}").strip() == str(value)


def test_settings_of_all_interfaces_cannot_be_set_that_way(lab: Lab) -> None:
    """There is no interface with the index of `all`."""
    assert len(send(lab.host.namespace, settings.change(0, {"arp_ignore": 1}))) == 1
