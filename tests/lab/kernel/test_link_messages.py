"""Our reading of the kernel's link messages, beside a library's reading of the same bytes."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from ipmp_agent.linux.messages import links, netlink
from ipmp_agent.linux.messages.links import IDENTIFIERS, Link
from tests.lab import CommandFailedError

if TYPE_CHECKING:
    from tests.lab import Lab

DEVICES = {
    "br9": "link add br9 type bridge",
    "mac9": "link add link nic0 name mac9 type macvlan mode bridge",
    "vx9": "link add vx9 type vxlan id 9 dev nic0 dstport 4789 local 198.18.0.9",
    "tun9": "tuntap add name tun9 mode tun",  # without any link-layer address
    "pod9": "link add pod9 type veth peer name pod8",
}
DEVICES_OF_SOME_KERNELS = {
    "bond9": "link add bond9 type bond",
    "vrf9": "link add vrf9 type vrf table 9",
    "dummy9": "link add dummy9 type dummy",
    "nic0.7": "link add link nic0 name nic0.7 type vlan id 7",
    "gre9": "link add gre9 type gre local 198.18.0.9 remote 198.18.0.10",  # its link-layer address has 4 bytes
}

THEIRS = {"arp_filter": "arpfilter"}
"""Settings that the library has under another name than the kernel."""


def read_by_the_library(body: bytes) -> Link:
    """What pyroute2 makes of a message."""
    header = netlink.message(netlink.RTM_NEWLINK, 0, body)[: netlink.HEADER_BYTES]
    decoded = ifinfmsg(header + body)
    decoded.decode()

    def attributes(nested: Any) -> dict[str, Any]:
        return {name: value for name, value, *_ in nested["attrs"]} if nested else {}

    information = attributes(decoded.get("IFLA_LINKINFO"))
    specific = attributes(decoded.get("IFLA_AF_SPEC"))
    ipv4 = specific.get("AF_INET") or {}
    ipv6 = attributes(specific.get("AF_INET6")).get("IFLA_INET6_CONF") or {}
    names = decoded.get("IFLA_PROP_LIST")
    port_of = str(information.get("IFLA_INFO_SLAVE_KIND") or "")
    return Link(
        index=decoded["index"],
        name=decoded.get("IFLA_IFNAME"),
        alternative_names=tuple(v for n, v, *_ in names["attrs"] if n == "IFLA_ALT_IFNAME") if names else (),
        mac=str(decoded.get("IFLA_ADDRESS") or "").lower(),
        permanent_mac=str(decoded.get("IFLA_PERM_ADDRESS") or "").lower(),
        parent=str(decoded.get("IFLA_PARENT_DEV_NAME") or "").lower(),
        kind=str(information.get("IFLA_INFO_KIND") or ""),
        port_of=port_of or ("unknown" if decoded.get("IFLA_MASTER") else ""),
        below=(decoded.get("IFLA_LINK") or 0) if information.get("IFLA_INFO_KIND") in links.STACKED_KINDS else 0,
        flags=decoded["flags"],
        media=decoded["ifi_type"],
        mtu=decoded.get("IFLA_MTU") or 0,
        settings=tuple((name, ipv4[THEIRS.get(name, name)]) for name in IDENTIFIERS),
        forwards_ipv6=bool(ipv6.get("forwarding")),
        group=decoded.get("IFLA_GROUP") or 0,
        ipv6=ipv6.get("disable_ipv6") == 0,
    )


def dump() -> list[bytes]:
    """Every link of the caller's namespace, as the kernel sends it."""
    with netlink.open_socket() as asking:
        asking.setblocking(True)
        asking.send(netlink.message(netlink.RTM_GETLINK, netlink.NLM_F_DUMP, links.get_request()))
        bodies: list[bytes] = []
        while True:
            for each in netlink.messages(asking.recv(1 << 18)):
                if each.kind == netlink.NLMSG_DONE:
                    return bodies
                bodies.append(each.body)


def read_alike(bodies: list[bytes]) -> dict[str, Link]:
    ours = {link.name: link for link in map(links.decode, bodies)}
    assert ours == {link.name: link for link in map(read_by_the_library, bodies)}
    return ours


def test_every_device_is_read_as_the_library_reads_it(lab: Lab) -> None:
    host = lab.host.namespace
    host.batch(DEVICES.values())
    for command in DEVICES_OF_SOME_KERNELS.values():
        with contextlib.suppress(CommandFailedError):
            host.batch([command])
    host.ip("link", "set", "pod9", "master", "br9")
    for name in ("enp1s0f0np0", "uplink-with-a-very-long-alternative-name"):
        host.ip("link", "property", "add", "dev", "nic0", "altname", name)
    host.ip("link", "set", "nic1", "mtu", "1400")
    ours = read_alike(host.call(dump))
    # And both saw what was made: two empty readings are alike, too.
    assert DEVICES.keys() | {"lo", "nic0", "nic1"} <= ours.keys()
    assert {name: ours[name].kind for name in DEVICES} == {
        "br9": "bridge",
        "mac9": "macvlan",
        "vx9": "vxlan",
        "tun9": "tun",
        "pod9": "veth",
    }
    assert ours["pod9"].port_of == "bridge"
    assert {name for name in ours if ours[name].below} >= {"mac9"}
    assert ours["pod9"].below == 0, "the other end of a cable is not below it"
    assert ours["nic0"].alternative_names == ("enp1s0f0np0", "uplink-with-a-very-long-alternative-name")
    assert (ours["nic0"].mac, ours["nic1"].mtu) == (lab.host.nic("nic0").mac, 1400)


def test_the_devices_of_this_machine_are_read_as_the_library_reads_them() -> None:
    assert "lo" in read_alike(dump()), "the namespace the tests run in, which nobody made: it is only looked at"


def test_settings_are_read_each_by_its_own_number(lab: Lab) -> None:
    host = lab.host.namespace
    for position, name in enumerate(IDENTIFIERS):
        values = dict.fromkeys(IDENTIFIERS, 0) | {name: 1}
        host.sysctl({f"ipv4/conf/nic0/{each}": value for each, value in values.items()})
        host.sysctl({"ipv6/conf/nic1/forwarding": position % 2})
        ours = read_alike(host.call(dump))
        assert dict(ours["nic0"].settings) == values
        assert (ours["nic0"].forwards_ipv6, ours["nic1"].forwards_ipv6) == (False, bool(position % 2))
