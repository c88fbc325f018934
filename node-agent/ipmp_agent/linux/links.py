"""Network interfaces as the kernel describes them, and what makes one fit to be a member."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux import netlink

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipmp_api.types import InterfaceMatch

IFF_UP, IFF_BROADCAST, IFF_LOOPBACK, IFF_POINTOPOINT = 0x1, 0x2, 0x8, 0x10
IFF_NOARP, IFF_MULTICAST, IFF_LOWER_UP = 0x80, 0x1000, 0x10000
ARPHRD_ETHER = 1
IFLA_IFNAME = 3
IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS = 29, 1 << 3

DERIVED_KINDS = frozenset({"vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "bridge", "bond", "team", "vrf"})
"""Devices that commonly wear the MAC address of the device below them."""

_PORT_REFUSALS = {
    "bond": Reason.BOND_MEMBER,
    "team": Reason.BOND_MEMBER,
    "bridge": Reason.BRIDGE_PORT,
    "openvswitch": Reason.BRIDGE_PORT,
    "vrf": Reason.VRF_MEMBER,
}

_INTERFACE_MESSAGE = struct.Struct("=BxHiII")  # family, device type, index, flags, change mask
_MESSAGE_HEADER = struct.Struct("=IHHII")


@dataclass(frozen=True, slots=True)
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
    flags: int
    media: int  # ARPHRD_*
    mtu: int
    settings: tuple[tuple[str, int], ...]  # net.ipv4.conf.<name>
    forwards_ipv6: bool

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


def index_of(body: bytes) -> int:
    """Interface index in the body of an RTM_*LINK message."""
    return int(_INTERFACE_MESSAGE.unpack_from(body)[2])


def family_of(body: bytes) -> int:
    """Address family of an RTM_*LINK message; bridges send theirs for port changes."""
    return body[0]


def name_of(body: bytes) -> str:
    """Interface name in the body of an RTM_NEWLINK message, without decoding the rest."""
    payload = netlink.attributes(body, _INTERFACE_MESSAGE.size).get(IFLA_IFNAME, b"")
    return payload.partition(b"\0")[0].decode(errors="replace")


def is_bus_address(parent: str) -> bool:
    """Whether a parent device is named by a bus address: virtio0 is not, 0000:00:03.0 is."""
    return ":" in parent


def token(match: InterfaceMatch) -> bytes:
    """Bytes that any message about a matching interface contains: decoding the others is not worth the time."""
    if match.mac_address is not None:
        return bytes.fromhex(match.mac_address.replace(":", ""))
    return (match.name or (match.pci_address or "").lower()).encode()


def decode(body: bytes) -> Link:
    """Read the body of an RTM_NEWLINK message."""
    header = _MESSAGE_HEADER.pack(_MESSAGE_HEADER.size + len(body), netlink.RTM_NEWLINK, 0, 0, 0)
    decoded = ifinfmsg(header + body)
    decoded.decode()
    information = _attributes(decoded.get("IFLA_LINKINFO"))
    specific = _attributes(decoded.get("IFLA_AF_SPEC"))
    ipv6 = _attributes(specific.get("AF_INET6")).get("IFLA_INET6_CONF") or {}
    port_of = str(information.get("IFLA_INFO_SLAVE_KIND") or "")
    if not port_of and decoded.get("IFLA_MASTER"):
        port_of = "unknown"
    return Link(
        index=decoded["index"],
        name=decoded.get("IFLA_IFNAME"),
        alternative_names=_every(decoded.get("IFLA_PROP_LIST"), "IFLA_ALT_IFNAME"),
        mac=str(decoded.get("IFLA_ADDRESS") or "").lower(),
        permanent_mac=str(decoded.get("IFLA_PERM_ADDRESS") or "").lower(),
        parent=str(decoded.get("IFLA_PARENT_DEV_NAME") or "").lower(),
        kind=str(information.get("IFLA_INFO_KIND") or ""),
        port_of=port_of,
        flags=decoded["flags"],
        media=decoded["ifi_type"],
        mtu=decoded.get("IFLA_MTU") or 0,
        settings=tuple((specific.get("AF_INET") or {}).items()),
        forwards_ipv6=bool(ipv6.get("forwarding")),
    )


def _attributes(nested: Any) -> dict[str, Any]:
    return {name: value for name, value, *_ in nested["attrs"]} if nested else {}


def _every(nested: Any, wanted: str) -> tuple[str, ...]:
    return tuple(value for name, value, *_ in nested["attrs"] if name == wanted) if nested else ()


def find(match: InterfaceMatch, links: Iterable[Link]) -> Link | None:
    """Return the interface that a matcher means, or None.

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
