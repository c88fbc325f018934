"""Tunnel devices: what the kernel says of them, and the requests that pin a VXLAN device to another interface."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING

from ipmp_agent.linux.messages import links, netlink
from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ipmp_api.types import Address

IFLA_LINK, IFLA_LINK_NETNSID = 5, 37
IFLA_INFO_DATA = 2
IFLA_VXLAN_GROUP, IFLA_VXLAN_LINK, IFLA_VXLAN_LOCAL, IFLA_VXLAN_GROUP6, IFLA_VXLAN_LOCAL6 = 2, 3, 4, 16, 17
RTM_NEWNEIGH, RTM_DELNEIGH = 28, 29
NDA_DST, NDA_LLADDR, NDA_IFINDEX = 1, 2, 8
NUD_PERMANENT, NTF_SELF = 0x80, 0x02
ANY_MAC = bytes(6)  # of the entry for what has none of its own

VXLAN = "vxlan"
OTHER_KINDS = frozenset(
    {"gre", "gretap", "erspan", "ipip", "sit", "vti", "ip6gre", "ip6gretap", "ip6erspan", "ip6tnl", "vti6", "xfrm"}
)
"""Tunnels that may be pinned to an interface, and that this agent leaves alone."""

_INTERFACE_MESSAGE = struct.Struct("=BxHiII")
_NEIGHBOUR_MESSAGE = struct.Struct("=BxxxiHBx")  # family, interface index, state, flags
_TOKENS = tuple(kind.encode() for kind in (VXLAN, "gre", "erspan", "ipip", "sit", "vti", "ip6tnl", "xfrm"))


@frozen
class Tunnel:
    """One tunnel device."""

    index: int
    name: str
    kind: str
    link: int  # interface index that it is pinned to; 0: none
    local: Address | None = None  # of a VXLAN device
    remote: Address | None = None  # of a VXLAN device: a host, or a multicast group


def decode(body: bytes) -> Tunnel | None:
    """Read the body of an RTM_NEWLINK message; None: no tunnel that we know."""
    if not any(token in body for token in _TOKENS):
        return None
    found = netlink.attributes(body, _INTERFACE_MESSAGE.size)
    information = netlink.attributes(found.get(links.IFLA_LINKINFO, b""), 0)
    kind = information.get(links.IFLA_INFO_KIND, b"").rstrip(b"\0").decode(errors="replace")
    link = netlink.number(found.get(IFLA_LINK, b""))
    if IFLA_LINK_NETNSID in found:
        link = 0  # the index is one of another network namespace
    local = remote = None
    if kind == VXLAN:
        data = netlink.attributes(information.get(IFLA_INFO_DATA, b""), 0)
        if IFLA_LINK_NETNSID not in found:
            link = netlink.number(data.get(IFLA_VXLAN_LINK, b""))
        local = _address(data, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LOCAL6)
        remote = _address(data, IFLA_VXLAN_GROUP, IFLA_VXLAN_GROUP6)
    elif kind not in OTHER_KINDS:
        return None
    return Tunnel(links.index_of(body), links.name_of(body), kind, link, local, remote)


def _address(data: Mapping[int, bytes], *kinds: int) -> Address | None:
    return next((ip_address(data[kind]) for kind in kinds if any(data.get(kind, b""))), None)


def pin(tunnel: Tunnel, link: int) -> list[bytes]:
    """Requests that pin a VXLAN device to another interface and leave everything else of it as it is."""
    requests = [_change(tunnel.index, link)]
    if tunnel.remote is not None:
        # The new one first: there is no moment without.
        append = netlink.NLM_F_CREATE | netlink.NLM_F_APPEND
        requests.append(_default_entry(RTM_NEWNEIGH, append, tunnel.index, tunnel.remote, link))
        requests.append(_default_entry(RTM_DELNEIGH, 0, tunnel.index, tunnel.remote, tunnel.link))
    return requests


def _default_entry(kind: int, flags: int, index: int, remote: Address, link: int) -> bytes:
    head = _NEIGHBOUR_MESSAGE.pack(socket.AF_BRIDGE, index, NUD_PERMANENT, NTF_SELF)
    destination = netlink.attribute(NDA_DST, remote.packed) + netlink.attribute(NDA_LLADDR, ANY_MAC)
    return netlink.message(kind, flags, head, destination, netlink.u32(NDA_IFINDEX, link))


def _change(index: int, link: int) -> bytes:
    data = netlink.nested(IFLA_INFO_DATA, netlink.u32(IFLA_VXLAN_LINK, link))
    information = netlink.nested(links.IFLA_LINKINFO, netlink.attribute(links.IFLA_INFO_KIND, VXLAN.encode()), data)
    return netlink.message(netlink.RTM_NEWLINK, 0, _INTERFACE_MESSAGE.pack(0, 0, index, 0, 0), information)


class TunnelTable:
    """Every tunnel of the network namespace, as the kernel last described it."""

    def __init__(self) -> None:
        self.found: dict[int, Tunnel] = {}

    def resync(self, bodies: Iterable[bytes]) -> None:
        """Take a dump of all links as the whole truth."""
        tunnels = [tunnel for body in bodies if (tunnel := decode(body)) is not None]
        self.found = {tunnel.index: tunnel for tunnel in tunnels}

    def heard(self, kind: int, body: bytes) -> bool:
        """Take one RTM_NEWLINK or RTM_DELLINK message; returns whether a tunnel came or is pinned elsewhere now."""
        if links.family_of(body) != 0:
            return False
        index = links.index_of(body)
        tunnel = decode(body) if kind == netlink.RTM_NEWLINK else None
        before = self.found.pop(index, None)
        if tunnel is None:
            return False
        self.found[index] = tunnel
        return before != tunnel
