"""Multicast on the nominated member: what programs joined on a member that does not work is joined there too.

A socket that joined on a member that failed then receives again, by the member that works. Groups joined on members
that work are left alone: what arrives twice is delivered twice.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
import sys
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

from ipmp_agent.linux.messages import netlink

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipmp_api.types import Address

log = logging.getLogger(__name__)

# Of this very thread: /proc/net shows the network namespace of the process's first thread.
IGMP, IGMP6 = Path("/proc/thread-self/net/igmp"), Path("/proc/thread-self/net/igmp6")

MCAST_JOIN_GROUP = 42
_LEVELS = {4: socket.IPPROTO_IP, 6: socket.IPPROTO_IPV6}

# Every interface is in these by itself: all hosts, all nodes of interface and link, all routers of interface, link and
# site where the host forwards, solicited-node groups.
ALL_HOSTS = IPv4Address("224.0.0.1")
_EVERYWHERE = frozenset(IPv6Address(group) for group in ("ff01::1", "ff02::1", "ff01::2", "ff02::2", "ff05::2"))
_SOLICITED = bytes.fromhex("ff0200000000000000000001ff")


def memberships(igmp: str, igmp6: str) -> dict[str, set[Address]]:
    """Read the kernel's tables: the groups joined on each interface, by name, without those that are always joined."""
    found: dict[str, set[Address]] = {}
    name = ""
    for line in igmp.splitlines()[1:]:
        words = line.split()
        if not line.startswith("\t") and len(words) >= 2:
            name = words[1].rstrip(":")
        elif words and len(words[0]) == 8:
            # The address as a number in the byte order of the host.
            group = IPv4Address(int(words[0], 16).to_bytes(4, sys.byteorder))
            if group != ALL_HOSTS:
                found.setdefault(name, set()).add(group)
    for line in igmp6.splitlines():
        words = line.split()
        if len(words) >= 3:
            group6 = IPv6Address(bytes.fromhex(words[2]))
            if not _is_automatic(group6):
                found.setdefault(words[1], set()).add(group6)
    return found


def _is_automatic(group: IPv6Address) -> bool:
    return group.packed.startswith(_SOLICITED) or group in _EVERYWHERE


@dataclass(slots=True)
class _Joined:
    """Our memberships of one IP version: on one interface, each with a socket, as the kernel limits a socket to 20."""

    index: int
    sockets: dict[Address, socket.socket] = field(default_factory=dict)


class Multicast:
    """The memberships of one group of members."""

    def __init__(self) -> None:
        self._joined: dict[int, _Joined] = {}  # by IP version

    def follow(self, version: int, nominee: int | None, deaf: Iterable[str]) -> None:
        """Join on the nominee what programs joined on deaf members, and leave what nobody needs there any more.

        Args:
            version: IP version.
            nominee: interface index; None: nobody, and what is joined stays.
            deaf: interface names of the members that do not work.
        """
        if nominee is None:
            return
        try:
            present = memberships(IGMP.read_text(encoding="ascii"), IGMP6.read_text(encoding="ascii"))
        except OSError as error:
            log.warning("cannot read multicast memberships: %s", error)
            return
        self._join(
            version, nominee, {group for name in deaf for group in present.get(name, ()) if group.version == version}
        )

    def _join(self, version: int, index: int, wanted: set[Address]) -> None:
        joined = self._joined.get(version)
        before = joined if joined is not None and joined.index == index else None
        now = before or _Joined(index)
        self._joined[version] = now
        for group in wanted:
            if group not in now.sockets and (membership := _open(version, index, group)) is not None:
                now.sockets[group] = membership
        for group in [group for group in now.sockets if group not in wanted]:
            now.sockets.pop(group).close()
        # The old nominee is left after the new one is joined.
        if joined is not None and joined is not now:
            for membership in joined.sockets.values():
                membership.close()

    def close(self) -> None:
        """Leave everything."""
        for joined in self._joined.values():
            for membership in joined.sockets.values():
                membership.close()
        self._joined.clear()


def _open(version: int, index: int, group: Address) -> socket.socket | None:
    """Join a group on an interface; the socket keeps the membership. None if the kernel refuses."""
    membership = socket.socket(netlink.FAMILIES[version], socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    family = netlink.FAMILIES[version]
    if version == 4:
        address = struct.pack("=H2x4s8x", family, group.packed)
    else:
        address = struct.pack("=H6x16s4x", family, group.packed)
    # struct group_req: interface index, padding to 8 bytes, then a sockaddr_storage.
    request = struct.pack("=I4x", index) + address.ljust(128, b"\0")
    try:
        membership.setsockopt(_LEVELS[version], MCAST_JOIN_GROUP, request)
    except OSError as error:
        membership.close()
        if error.errno != errno.ENODEV:
            log.warning("cannot join %s on interface %d: %s", group, index, error)
        return None
    return membership
