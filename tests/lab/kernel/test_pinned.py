"""What others have on one member alone is named before that member fails: devices, programs, rules of a firewall."""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import replace
from ipaddress import ip_interface
from typing import TYPE_CHECKING

import pytest

from ipmp_agent.core.actions import SetOutbound
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.messages import addresses, netlink, nftables
from ipmp_agent.linux.shared import host_addresses
from ipmp_api.types import Mode
from tests.lab import wait_for
from tests.lab.kernel.running import GROUP, kernel_group, place, with_tests

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab import Lab
    from tests.lab.kernel.running import RunningKernel

BPF = 321 if os.uname().machine == "x86_64" else 280
BPF_PROG_LOAD, BPF_PROG_TYPE_XDP = 5, 6
PASS = struct.pack("<BBhi", 0xB7, 0, 0, 2) + struct.pack("<BBhi", 0x95, 0, 0, 0)  # r0 = XDP_PASS; exit
IFLA_XDP, IFLA_XDP_FD, IFLA_XDP_FLAGS, XDP_FLAGS_SKB_MODE = 43, 1, 3, 2


def found(kernel: RunningKernel, reason: Reason) -> str:
    """What is said for this reason, now."""
    findings = kernel.call(lambda facade: facade.findings(GROUP))
    return " ".join(finding.message for finding in findings if finding.reason is reason)


def said(kernel: RunningKernel, reason: Reason) -> str:
    """What is said for this reason, after a comparison."""
    kernel.run(lambda facade: facade.reconcile(GROUP))
    return found(kernel, reason)


# -- devices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("kind", ["macvlan", "macvtap"])
def test_device_that_stands_on_one_member_is_named(lab: Lab, kernel: RunningKernel, kind: str, mode: Mode) -> None:
    lab.host.namespace.ip("link", "add", "link", "nic0", "name", "child0", "type", kind)
    kernel.configure(kernel_group(mode=mode))
    assert found(kernel, Reason.DEVICE_PINNED).startswith(f"child0 ({kind}) works by nic0 alone")
    lab.host.namespace.ip("link", "delete", "child0")
    wait_for(lambda: found(kernel, Reason.DEVICE_PINNED), lambda words: not words, deadline=5)


def test_device_that_comes_later_is_named_within_a_moment(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group())
    assert not found(kernel, Reason.DEVICE_PINNED)
    lab.host.namespace.ip("link", "add", "link", "nic1", "name", "child0", "type", "macvlan")
    wait_for(lambda: found(kernel, Reason.DEVICE_PINNED), lambda words: "child0" in words, deadline=5)


def test_devices_that_are_members_themselves_are_a_groups_matter(lab: Lab, kernel: RunningKernel) -> None:
    for number in (0, 1):
        lab.host.namespace.ip("link", "add", "link", f"nic{number}", "name", f"mv{number}", "type", "macvlan")
    kernel.configure(kernel_group())
    assert "mv0" in found(kernel, Reason.DEVICE_PINNED)
    kernel.configure(replace(kernel_group("mv0", "mv1"), group_name="above"))
    assert not said(kernel, Reason.DEVICE_PINNED)


def test_device_on_an_interface_that_is_no_member_is_not_said(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.namespace.batch(
        ["link add name spare type veth peer name far", "link add link spare name child0 type macvlan"]
    )
    kernel.configure(kernel_group())
    assert not found(kernel, Reason.DEVICE_PINNED)


# -- programs ---------------------------------------------------------------------------------------------------------


def attach_xdp(lab: Lab, name: str) -> None:
    """Have a program of XDP pass everything that comes in by an interface."""
    libc = ctypes.CDLL(None, use_errno=True)
    code, licence = ctypes.create_string_buffer(PASS), ctypes.create_string_buffer(b"GPL")
    where = (ctypes.addressof(code), ctypes.addressof(licence))
    attributes = struct.pack("=IIQQ", BPF_PROG_TYPE_XDP, len(PASS) // 8, *where)
    program = libc.syscall(BPF, BPF_PROG_LOAD, ctypes.create_string_buffer(attributes.ljust(128, b"\0")), 128)
    assert program >= 0, os.strerror(ctypes.get_errno())
    xdp = (netlink.u32(IFLA_XDP_FD, program), netlink.u32(IFLA_XDP_FLAGS, XDP_FLAGS_SKB_MODE))
    head = struct.pack("=BxHiII", 0, 0, lab.host.nic(name).index, 0, 0)
    request = netlink.message(netlink.RTM_SETLINK, 0, head, netlink.nested(IFLA_XDP, *xdp))
    channel = lab.host.namespace.call(netlink.Channel)
    assert not channel.send([request])
    channel.close()
    os.close(program)


def attach_filter(lab: Lab, name: str) -> None:
    """Have a program of traffic control accept everything that goes out by an interface."""
    lab.host.namespace.run("tc", "qdisc", "add", "dev", name, "clsact")
    words = ("filter", "add", "dev", name, "egress", "protocol", "all", "bpf", "bytecode", "1,6 0 0 0")
    lab.host.namespace.run("tc", *words)


@pytest.mark.parametrize(("attach", "what"), [(attach_xdp, "XDP"), (attach_filter, "bpf (egress)")])
def test_program_that_one_member_has_is_named_until_all_have_it(
    lab: Lab, kernel: RunningKernel, attach: Callable[[Lab, str], None], what: str
) -> None:
    attach(lab, "nic0")
    kernel.configure(kernel_group())
    assert found(kernel, Reason.PROGRAM_PINNED).startswith(f"a program of {what} is on nic0 and not on nic1")
    attach(lab, "nic1")
    wait_for(lambda: said(kernel, Reason.PROGRAM_PINNED), lambda words: not words, deadline=5)


# -- rules ------------------------------------------------------------------------------------------------------------


def rules(lab: Lab, kernel: RunningKernel, ruleset: str) -> str:
    """What is said of rules by interface with these on the host."""
    lab.host.namespace.run("nft", "-f", "-", text=ruleset)
    kernel.configure(kernel_group())
    return found(kernel, Reason.FIREWALL_PINNED)


INPUT = "table inet fw {{ chain in {{ type filter hook input priority 0; {}; }}; }}"
ZONES = "table inet fw {{ chain zone {{ accept; }}; chain in {{ type filter hook input priority 0; {}; }}; }}"


@pytest.mark.parametrize(
    ("ruleset", "place"),
    [
        (INPUT.format('iifname "nic0" tcp dport 22 accept; ct state established accept'), "inet fw in (nic0)"),
        (INPUT.format('iifname != "nic1" drop'), "inet fw in (nic1)"),
        (INPUT.format('iifname { "nic0", "lo" } tcp dport 22 accept'), "inet fw in (nic0)"),
        (INPUT.format('iifname . tcp dport { "nic0" . 22, "nic0" . 80 } accept'), "inet fw in (nic0)"),
        (INPUT.format('tcp dport . iifname { 22 . "nic0" } accept'), "inet fw in (nic0)"),
        (INPUT.format('iif "nic0" accept'), "inet fw in (nic0)"),
        (INPUT.format('iifname "nic0*" accept'), "inet fw in (nic0)"),
        (ZONES.format('iifname vmap { "nic0" : goto zone }'), "inet fw in (nic0)"),
        (ZONES.format('iifname "nic0" goto zone; drop'), "inet fw in (nic0)"),
        ("table ip fw { chain out { type filter hook output priority 0; oifname nic1 drop; }; }", "ip fw out (nic1)"),
        ("table netdev f { chain in { type filter hook ingress device nic0 priority 0; }; }", "netdev f in (nic0)"),
    ],
)  # fmt: skip
def test_rule_that_names_one_member_and_not_the_other_is_named(
    lab: Lab, kernel: RunningKernel, ruleset: str, place: str
) -> None:
    assert f"nftables {place}." in rules(lab, kernel, ruleset)


@pytest.mark.parametrize(
    "ruleset",
    [
        INPUT.format('iifname { "nic0", "nic1" } accept'),
        INPUT.format('iifname "nic0" tcp dport 22 accept; iifname "nic1" tcp dport 22 accept'),
        INPUT.format('iifname "nic0" counter packets 7 bytes 700 accept; iifname "nic1" counter accept'),
        INPUT.format('iifname "nic*" accept'),
        INPUT.format('iifname "lo" accept; iifname "cni0" accept'),
        ZONES.format('iifname "nic0" goto zone; goto zone'),
        INPUT.format("tcp dport 22 accept"),
        'table ip ipmp-data { chain x { oifname "nic0" accept; }; }',
    ],
    ids=["set", "a rule each", "counters", "wildcard", "others", "default zone", "no interface", "ours"],
)
def test_rules_that_treat_all_members_alike_are_not_said(lab: Lab, kernel: RunningKernel, ruleset: str) -> None:
    assert not rules(lab, kernel, ruleset)


@pytest.mark.parametrize("program", ["iptables-nft", "ip6tables-nft"])
def test_rules_of_iptables_on_nf_tables_are_seen_too(lab: Lab, kernel: RunningKernel, program: str) -> None:
    host = lab.host.namespace
    host.run(program, "-A", "INPUT", "-i", "nic0", "-p", "tcp", "--dport", "22", "-j", "ACCEPT")
    kernel.configure(kernel_group())
    assert "filter INPUT (nic0)." in found(kernel, Reason.FIREWALL_PINNED)
    host.run(program, "-A", "INPUT", "-i", "nic1", "-p", "tcp", "--dport", "22", "-j", "ACCEPT")
    wait_for(lambda: said(kernel, Reason.FIREWALL_PINNED), lambda words: not words, deadline=10)


RAW = "table inet fw {{ chain pre {{ type filter hook prerouting priority -290; {}; }}; }}"


@pytest.mark.parametrize(
    ("rule", "is_said"),
    [
        ("meta nfproto ipv6 fib saddr . mark . iif oif missing drop", True),
        ("fib saddr . iif oif eq 0 drop", True),
        ("fib saddr . mark oif missing drop", False),
        ("fib daddr . iif type local accept", False),
    ],
    ids=["firewalld", "nft(8)", "loose", "destination"],
)
def test_strict_reverse_path_filter_is_named(lab: Lab, kernel: RunningKernel, rule: str, *, is_said: bool) -> None:
    lab.host.namespace.run("nft", "-f", "-", text=RAW.format(rule))
    kernel.configure(kernel_group())
    assert ("nftables inet fw pre holds up" in found(kernel, Reason.REVERSE_PATH_FILTERED)) is is_said


@pytest.mark.parametrize(("options", "is_said"), [((), True), (("--loose",), False)], ids=["strict", "loose"])
def test_strict_reverse_path_filter_of_iptables_is_named(
    lab: Lab, kernel: RunningKernel, options: tuple[str, ...], *, is_said: bool
) -> None:
    words = ("-t", "raw", "-A", "PREROUTING", "-m", "rpfilter", "--invert", *options, "-j", "DROP")
    lab.host.namespace.run("ip6tables-nft", *words)
    kernel.configure(kernel_group())
    assert bool(found(kernel, Reason.REVERSE_PATH_FILTERED)) is is_said


# -- addresses --------------------------------------------------------------------------------------------------------

DATA = ip_interface("198.18.0.10/24")


def test_data_address_on_an_interface_that_is_no_member_is_named(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.namespace.batch(
        ["link add name spare type veth peer name far", "link set spare up", f"address add {DATA.ip}/24 dev spare"]
    )
    kernel.configure(kernel_group(addresses=[DATA]))
    words = wait_for(lambda: found(kernel, Reason.ADDRESS_ELSEWHERE), bool)
    assert words.startswith(f"{DATA.ip} is a data address and is on spare, too")
    lab.host.namespace.ip("address", "delete", f"{DATA.ip}/24", "dev", "spare")
    assert not said(kernel, Reason.ADDRESS_ELSEWHERE)


def test_address_of_the_link_that_no_nic_has_is_named(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.namespace.batch(["address add 198.18.0.200/32 dev lo", "address add 203.0.113.1/32 dev lo"])
    kernel.configure(kernel_group(addresses=[DATA]))
    place(lab, kernel, DATA)
    assert said(kernel, Reason.SERVICE_ADDRESS).startswith("198.18.0.200 (lo): members do not answer ARP")


def test_address_of_keepalived_is_named(lab: Lab, kernel: RunningKernel) -> None:
    """As keepalived from 2.3.4 on tags it."""
    channel = lab.host.namespace.call(netlink.Channel)
    tagged = addresses.add(lab.host.nic("nic1").index, ip_interface("198.18.0.50/32"))
    assert not channel.send([tagged.replace(bytes([netlink.OWNER]), bytes([addresses.IFAPROT_KEEPALIVED]))])
    channel.close()
    kernel.configure(kernel_group())
    assert "a daemon of VRRP uses 198.18.0.50 on nic1" in found(kernel, Reason.VIRTUAL_ADDRESS)


# -- settings ---------------------------------------------------------------------------------------------------------


def answered(lab: Lab, address: str) -> int:
    """How many of 20 neighbours are answered that ask for an address."""
    peer = lab.peer(0).namespace
    neighbours = [f"198.18.0.{number}" for number in range(210, 230)]
    peer.batch(f"address replace {each}/24 dev eth0" for each in neighbours)
    asking = [("arping", "-c", "1", "-w", "1", "-f", "-s", each, "-I", "eth0", address) for each in neighbours]
    return sum("reply from" in peer.run(*words, check=False) for words in asking)


def test_neighbours_are_answered_though_the_host_filters_arp_by_its_routes(lab: Lab, kernel: RunningKernel) -> None:
    """With arp_filter only those are whom the host would send to by the member that heard the question."""
    lab.host.namespace.sysctl({f"ipv4/conf/nic{number}/arp_filter": 1 for number in (0, 1)})
    kernel.configure(kernel_group(*with_tests("198.18.0.21/24", "198.18.0.22/24"), addresses=[DATA]))
    both = ("nic0", "nic1")
    kernel.perform(SetOutbound(both, both))
    place(lab, kernel, DATA)
    assert answered(lab, str(DATA.ip)) == 20
    kernel.run(lambda facade: facade.withdraw(GROUP))
    assert lab.host.namespace.run("cat", "/proc/sys/net/ipv4/conf/nic0/arp_filter").strip() == "1"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ipv4/conf/all/arp_filter": 1}, "net.ipv4.conf.all.arp_filter is 1, and members need 0"),
        ({"ipv4/conf/all/proxy_arp": 1}, "net.ipv4.conf.all.proxy_arp is 1"),
        ({"ipv4/conf/nic0/proxy_arp_pvlan": 1}, "net.ipv4.conf.nic0.proxy_arp_pvlan is 1"),
    ],
)
def test_setting_that_defeats_a_member_is_named(
    lab: Lab, kernel: RunningKernel, changed: dict[str, int], words: str
) -> None:
    lab.host.namespace.sysctl({"ipv4/ip_forward": 1, **changed})
    kernel.configure(kernel_group())
    assert words in found(kernel, Reason.SETTINGS_OVERRIDDEN)
    lab.host.namespace.sysctl(dict.fromkeys(changed, 0))
    assert not said(kernel, Reason.SETTINGS_OVERRIDDEN)


def test_proxy_arp_of_a_host_that_forwards_nothing_is_not_said(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.namespace.sysctl({"ipv4/ip_forward": 0, "ipv4/conf/nic0/proxy_arp": 1})
    kernel.configure(kernel_group())
    assert not found(kernel, Reason.SETTINGS_OVERRIDDEN)


def test_member_without_an_ipv6_link_local_address_is_named(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.namespace.batch(["link set nic1 addrgenmode none", "address flush dev nic1"])
    data = ip_interface("2001:db8:0:1::10/64")
    kernel.configure(kernel_group(addresses=[data]))
    place(lab, kernel, data)
    assert "net.ipv6.conf.nic1.addr_gen_mode is 1" in said(kernel, Reason.SETTINGS_OVERRIDDEN)


def test_look_that_fails_keeps_no_address_from_its_member(
    lab: Lab, kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule that nobody foresaw must not end what the group is for."""
    lab.host.namespace.run("nft", "-f", "-", text=INPUT.format('iifname "nic0" accept'))
    monkeypatch.setattr(nftables.Nftables, "rules", lambda *_: 1 / 0)
    monkeypatch.setattr(host_addresses.HostAddresses, "refresh", refuse)
    kernel.configure(kernel_group(addresses=[DATA]))
    place(lab, kernel, DATA)
    lab.host.namespace.ip("address", "flush", "dev", "nic0")
    wait_for(lambda: lab.host.holders(str(DATA.ip)), lambda holders: holders == ["nic0"], deadline=5)


async def refuse(_: object) -> None:
    raise OSError("no")
