"""Network interfaces as the kernel describes them, and what makes one fit to be a member."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.messages import netlink
from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipmp_api.types import InterfaceMatch

IFLA_AF_SPEC, IFLA_INET_CONF = 26, 1

IDENTIFIERS = {
    "proxy_arp": 3,
    "rp_filter": 8,
    "arp_filter": 13,
    "arp_announce": 18,
    "arp_ignore": 19,
    "promote_secondaries": 20,
    "proxy_arp_pvlan": 25,
}
"""IPV4_DEVCONF_* of the kernel."""

IFF_UP, IFF_BROADCAST, IFF_LOOPBACK, IFF_POINTOPOINT = 0x1, 0x2, 0x8, 0x10
IFF_NOARP, IFF_MULTICAST, IFF_LOWER_UP = 0x80, 0x1000, 0x10000
ARPHRD_ETHER = 1
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
IFLA_LINK_NETNSID = 37
IFLA_GROUP = 27
IFLA_PROP_LIST, IFLA_ALT_IFNAME, IFLA_PERM_ADDRESS, IFLA_PARENT_DEV_NAME = 52, 53, 54, 56
IFLA_INFO_KIND, IFLA_INFO_SLAVE_KIND = 1, 4
IFLA_INET6_CONF = 2
DEVCONF_FORWARDING, DEVCONF_DISABLE_IPV6 = 0, 26
IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS = 29, 1 << 3

DERIVED_KINDS = frozenset({"vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "bridge", "bond", "team", "vrf"})
"""Devices that commonly wear the MAC address of the device below them."""

STACKED_KINDS = frozenset({"vlan", "macvlan", "macvtap"})
"""Devices whose carrier follows that of the one they are on, and may be members."""

_PORT_REFUSALS = {
    "bond": Reason.BOND_MEMBER,
    "team": Reason.BOND_MEMBER,
    "bridge": Reason.BRIDGE_PORT,
    "openvswitch": Reason.BRIDGE_PORT,
    "vrf": Reason.VRF_MEMBER,
}

_INTERFACE_MESSAGE = struct.Struct("=BxHiII")  # family, device type, index, flags, change mask


@frozen
class Link:
    """One interface, as one message of the kernel described it."""

    index: int
    name: str
    alternative_names: tuple[str, ...]
    mac: str
    permanent_mac: str
    parent: str  # device on the bus, such as a PCI address
    kind: str  # of a virtual device, else empty
    port_of: str  # kind of the device it is a port of, else empty
    below: int  # index of the device it is stacked on, in this network namespace; 0: none
    flags: int
    media: int  # ARPHRD_*
    mtu: int
    settings: tuple[tuple[str, int], ...]  # net.ipv4.conf.<name> of those in IDENTIFIERS
    forwards_ipv6: bool
    group: int = 0  # a number that rules, firewalls and tools may know interfaces by
    ipv6: bool = True  # whether it can carry IPv6 addresses: not if they are off, or its MTU is below 1,280

    @property
    def up(self) -> bool:
        """Administratively up."""
        return bool(self.flags & IFF_UP)

    @property
    def carrier(self) -> bool:
        """Administratively up, with a carrier as far as this message knows."""
        return self.flags & (IFF_UP | IFF_LOWER_UP) == IFF_UP | IFF_LOWER_UP

    @property
    def refusal(self) -> Reason | None:
        """Why this interface cannot be a member; None: it can."""
        if self.flags & IFF_LOOPBACK:
            return Reason.LOOPBACK
        if self.flags & IFF_POINTOPOINT:
            return Reason.POINT_TO_POINT
        if self.port_of:
            return _PORT_REFUSALS.get(self.port_of, Reason.UNSUITABLE_DEVICE)
        # Children of an ipvlan share one MAC address: nobody could tell the members apart.
        if self.media != ARPHRD_ETHER or self.flags & IFF_NOARP or self.kind in {"ipvlan", "ipvtap"}:
            return Reason.UNSUITABLE_DEVICE
        if not self.flags & IFF_MULTICAST or not self.flags & IFF_BROADCAST:
            return Reason.UNSUITABLE_DEVICE
        return None


def get_request(index: int = 0) -> bytes:
    """Body of RTM_GETLINK: one interface by index, or all; without statistics, which are most of the message."""
    return _INTERFACE_MESSAGE.pack(0, 0, index, 0, 0) + netlink.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)


def set_group(index: int, group: int) -> bytes:
    """Request that puts an interface into a group."""
    head = _INTERFACE_MESSAGE.pack(0, 0, index, 0, 0)
    return netlink.message(netlink.RTM_SETLINK, 0, head, netlink.u32(IFLA_GROUP, group))


def set_up(index: int, *, up: bool) -> bytes:
    """Request that sets an interface administratively up or down."""
    head = _INTERFACE_MESSAGE.pack(0, 0, index, IFF_UP if up else 0, IFF_UP)
    return netlink.message(netlink.RTM_SETLINK, 0, head)


def index_of(body: bytes) -> int:
    """Interface index in the body of an RTM_*LINK message."""
    return int(_INTERFACE_MESSAGE.unpack_from(body)[2])


def family_of(body: bytes) -> int:
    """Address family of an RTM_*LINK message; bridges send theirs for port changes."""
    return body[0]


def name_of(body: bytes) -> str:
    """Interface name in the body of an RTM_NEWLINK message, without decoding the rest."""
    return _text(netlink.attributes(body, _INTERFACE_MESSAGE.size).get(IFLA_IFNAME, b""))


def is_bus_address(parent: str) -> bool:
    """Whether a parent device is named by a bus address: virtio0 is not, 0000:00:03.0 is."""
    return ":" in parent


def token(match: InterfaceMatch) -> bytes:
    """Bytes that any message about a matching interface contains: decoding the others is not worth the time.

    A message that holds them may still be about another interface: `find` decides among the decoded ones.
    """
    if match.mac_address is not None:
        return bytes.fromhex(match.mac_address.replace(":", ""))
    return (match.name or (match.pci_address or "").lower()).encode()


def decode(body: bytes) -> Link:
    """Read the body of an RTM_NEWLINK message."""
    _, media, index, flags, _ = _INTERFACE_MESSAGE.unpack_from(body)
    found = netlink.attributes(body, _INTERFACE_MESSAGE.size)
    information = netlink.attributes(found.get(IFLA_LINKINFO, b""), 0)
    specific = netlink.attributes(found.get(IFLA_AF_SPEC, b""), 0)
    port_of = _text(information.get(IFLA_INFO_SLAVE_KIND, b""))
    if not port_of and netlink.number(found.get(IFLA_MASTER, b"")):
        port_of = "unknown"
    kind = _text(information.get(IFLA_INFO_KIND, b""))
    here = kind in STACKED_KINDS and IFLA_LINK_NETNSID not in found
    names = netlink.repeated(found.get(IFLA_PROP_LIST, b""), IFLA_ALT_IFNAME)
    return Link(
        index=index,
        name=_text(found.get(IFLA_IFNAME, b"")),
        alternative_names=tuple(_text(name) for name in names),
        mac=found.get(IFLA_ADDRESS, b"").hex(":"),
        permanent_mac=found.get(IFLA_PERM_ADDRESS, b"").hex(":"),
        parent=_text(found.get(IFLA_PARENT_DEV_NAME, b"")).lower(),
        kind=kind,
        port_of=port_of,
        below=netlink.number(found.get(IFLA_LINK, b"")) if here else 0,
        flags=flags,
        media=media,
        mtu=netlink.number(found.get(IFLA_MTU, b"")),
        settings=_settings(specific.get(socket.AF_INET, b"")),
        group=netlink.number(found.get(IFLA_GROUP, b"")),
        forwards_ipv6=bool(_ipv6_setting(specific.get(socket.AF_INET6, b""), DEVCONF_FORWARDING)),
        # An interface that cannot carry them has no settings of IPv6 at all.
        ipv6=_ipv6_setting(specific.get(socket.AF_INET6, b""), DEVCONF_DISABLE_IPV6) == 0,
    )


def _text(payload: bytes) -> str:
    """Read a name; names are bytes to the kernel, and need not be UTF-8."""
    return payload.partition(b"\0")[0].decode(errors="replace")


def _settings(inet: bytes) -> tuple[tuple[str, int], ...]:
    """Read the values of net.ipv4.conf.<interface> that we know: the kernel's array begins with number 1."""
    values = netlink.attributes(inet, 0).get(IFLA_INET_CONF, b"")
    return tuple(
        (name, netlink.number(values[4 * number - 4 : 4 * number]))
        for name, number in IDENTIFIERS.items()
        if len(values) >= 4 * number
    )


def _ipv6_setting(inet6: bytes, number: int) -> int | None:
    """Read one value of net.ipv6.conf.<interface>, by its place in the kernel's array; None: there is none."""
    value = netlink.attributes(inet6, 0).get(IFLA_INET6_CONF, b"")[4 * number : 4 * number + 4]
    return netlink.number(value) if value else None


def find(match: InterfaceMatch, links: Iterable[Link]) -> Link | None:
    """The interface that a matcher means, or None.

    A MAC address or a bus address may be worn by several devices: the real one is preferred to those stacked on it,
    then the oldest.
    """
    found = [link for link in links if _matches(match, link)]
    return min(found, key=lambda link: (link.kind in DERIVED_KINDS, link.index)) if found else None


def _matches(match: InterfaceMatch, link: Link) -> bool:
    if match.name is not None:
        return match.name == link.name or match.name in link.alternative_names
    if match.pci_address is not None:
        return match.pci_address.lower() == link.parent
    return match.mac_address is not None and match.mac_address.lower() in (link.permanent_mac, link.mac)
