"""Multicast on the nominated member: what programs joined on a member that does not work is joined there too.

A socket that joined on a member that failed then receives again, by the member that works. Groups joined on members
that work are left alone: what arrives twice is delivered twice.

A switch that snoops forgets what a port heard when its link goes. The kernel tells the link again of IPv6 groups when
the link is back, and not of IPv4 groups: a member that works again is made to.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import socket
import struct
import sys
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

from ipmp_agent.linux.messages import frames, netlink

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipmp_api.types import Address

log = logging.getLogger(__name__)

# Of this very thread: /proc/net shows the network namespace of the process's first thread.
IGMP, IGMP6 = Path("/proc/thread-self/net/igmp"), Path("/proc/thread-self/net/igmp6")

MCAST_JOIN_GROUP, MCAST_LEAVE_GROUP = 42, 45
_LEVELS = {4: socket.IPPROTO_IP, 6: socket.IPPROTO_IPV6}
_HOPELESS = frozenset({errno.ENODEV, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

GROUPS_PER_SOCKET = 20
"""Memberships of one socket: what the kernel permits unless net.ipv4.igmp_max_memberships says otherwise."""

GROUPS_AT_MOST = 2000
"""Groups followed in one IP version: any program may join as many as it likes, and each costs the link a report."""

# Every interface is in these by itself: all hosts, all nodes of interface and link, all routers of interface, link and
# site where the host forwards, solicited-node groups.
ALL_HOSTS = IPv4Address("224.0.0.1")
VRRP = IPv4Address("224.0.0.18")
_EVERYWHERE = frozenset(IPv6Address(group) for group in ("ff01::1", "ff02::1", "ff01::2", "ff02::2", "ff05::2"))
_SOLICITED = bytes.fromhex("ff0200000000000000000001ff")
_GROUP_V4, _GROUP_V6 = re.compile("[0-9A-Fa-f]{8}"), re.compile("[0-9A-Fa-f]{32}")


def memberships(igmp: str, igmp6: str) -> dict[str, set[Address]]:
    """Read the kernel's tables: the groups joined on each interface, by name, without those that are always joined.

    A line of another form says nothing.
    """
    found: dict[str, set[Address]] = {}
    name = ""
    for line in igmp.splitlines()[1:]:
        words = line.split()
        if not line.startswith("\t") and len(words) >= 2:
            name = words[1].rstrip(":")
        elif words and _GROUP_V4.fullmatch(words[0]):
            # The address as a number in the byte order of the host.
            group = IPv4Address(int(words[0], 16).to_bytes(4, sys.byteorder))
            if group != ALL_HOSTS:
                found.setdefault(name, set()).add(group)
    for line in igmp6.splitlines():
        words = line.split()
        if len(words) >= 3 and _GROUP_V6.fullmatch(words[2]):
            group6 = IPv6Address(bytes.fromhex(words[2]))
            if not _is_automatic(group6):
                found.setdefault(words[1], set()).add(group6)
    return found


def _is_automatic(group: IPv6Address) -> bool:
    return group.packed.startswith(_SOLICITED) or group in _EVERYWHERE


def speakers_of_vrrp() -> set[str]:
    """Names of the interfaces on which a daemon of VRRP listens (IPv4), be it master, backup or in trouble."""
    try:
        return {name for name, groups in memberships(_read(IGMP), "").items() if VRRP in groups}
    except OSError as error:
        log.warning("cannot look for speakers of VRRP: %s", error)
        return set()


def report_anew(index: int) -> None:
    """Have the kernel tell the link of the IPv4 groups of an interface, as if somebody had asked there.

    The question never leaves the host: with a time to live of 0 it comes back to the interface, and that is all. The
    kernel's own answer has the version of IGMP and the sources that its programs want.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_IGMP) as asking:
        asking.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=8xi", index))  # struct ip_mreqn
        asking.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
        asking.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        asking.sendto(frames.igmp_general_query(), (str(ALL_HOSTS), 0))


class _Memberships:
    """Our memberships of one IP version on one interface, several to a socket."""

    def __init__(self, version: int, index: int) -> None:
        self.index = index
        self._version = version
        self._sockets: dict[socket.socket, set[Address]] = {}

    def hold(self, wanted: set[Address]) -> None:
        """Be in these groups and no others."""
        # Leaving comes first: it makes room.
        for membership, groups in list(self._sockets.items()):
            for group in groups - wanted:
                groups.discard(group)
                with contextlib.suppress(OSError):  # the interface is gone, and the membership with it
                    membership.setsockopt(_LEVELS[self._version], MCAST_LEAVE_GROUP, self._request(group))
            if not groups:
                del self._sockets[membership]
                membership.close()
        missing = wanted.difference(*self._sockets.values())
        for group in sorted(missing, key=int):
            try:
                self._join(group)
            except OSError as error:
                if error.errno != errno.ENODEV:
                    log.warning("cannot join %s on interface %d: %s", group, self.index, error)
                if error.errno in _HOPELESS:
                    return  # the next comparison goes on

    def _join(self, group: Address) -> None:
        for membership, groups in self._sockets.items():
            if len(groups) >= GROUPS_PER_SOCKET:
                continue
            try:
                membership.setsockopt(_LEVELS[self._version], MCAST_JOIN_GROUP, self._request(group))
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                continue  # the kernel is set to fewer groups for each socket
            groups.add(group)
            return
        with contextlib.ExitStack() as opened:
            membership = opened.enter_context(
                socket.socket(netlink.FAMILIES[self._version], socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            )
            membership.setsockopt(_LEVELS[self._version], MCAST_JOIN_GROUP, self._request(group))
            self._sockets[membership] = {group}
            opened.pop_all()

    def _request(self, group: Address) -> bytes:
        """Pack struct group_req: interface index, padding to 8 bytes, then a sockaddr_storage."""
        layout = "=H2x4s8x" if self._version == 4 else "=H6x16s4x"
        address = struct.pack(layout, netlink.FAMILIES[self._version], group.packed)
        return struct.pack("=I4x", self.index) + address.ljust(128, b"\0")

    def close(self) -> None:
        """Leave everything."""
        for membership in self._sockets:
            membership.close()
        self._sockets.clear()


class Multicast:
    """The memberships of one group of members."""

    def __init__(self) -> None:
        self._joined: dict[int, _Memberships] = {}  # by IP version
        self._crowded: set[int] = set()  # IP versions in which programs joined more groups than are followed
        self._deaf: set[str] = set()  # members whose IPv4 groups the link may have forgotten

    def follow(self, version: int, nominee: int | None, deaf: Iterable[str]) -> None:
        """Join on the nominee what programs joined on deaf members, and leave what nobody needs there any more.

        Args:
            version: IP version.
            nominee: interface index; None: nobody, and what is joined stays.
            deaf: interface names of the members that do not work.
        """
        names = set(deaf)
        if version == 4:
            again, self._deaf = self._deaf - names, names
            for name in again:
                _report(name)
        if nominee is None:
            return
        present: dict[str, set[Address]] = {}
        if names:
            try:
                present = memberships(*(_read(path) for path in (IGMP, IGMP6)))
            except OSError as error:
                log.warning("cannot read multicast memberships: %s", error)
                return
        wanted = {group for name in names for group in present.get(name, ()) if group.version == version}
        self._join(version, nominee, self._bounded(version, wanted))

    def _bounded(self, version: int, wanted: set[Address]) -> set[Address]:
        if len(wanted) <= GROUPS_AT_MOST:
            self._crowded.discard(version)
            return wanted
        if version not in self._crowded:
            log.warning("programs joined %d multicast groups: %d of them are followed", len(wanted), GROUPS_AT_MOST)
        self._crowded.add(version)
        return set(sorted(wanted, key=int)[:GROUPS_AT_MOST])

    def _join(self, version: int, index: int, wanted: set[Address]) -> None:
        joined = self._joined.get(version)
        now = joined if joined is not None and joined.index == index else _Memberships(version, index)
        self._joined[version] = now
        now.hold(wanted)
        # The old nominee is left after the new one is joined.
        if joined is not None and joined is not now:
            joined.close()

    def close(self) -> None:
        """Leave everything."""
        for joined in self._joined.values():
            joined.close()
        self._joined.clear()


def _report(name: str) -> None:
    try:
        report_anew(socket.if_nametoindex(name))
    except OSError as error:
        # It is gone or renamed; or its switch learns of its groups by the next query.
        log.debug("cannot have the groups of %s reported anew: %s", name, error)


def _read(table: Path) -> str:
    """Read one of the kernel's tables; a kernel without IPv6 has one of them only."""
    try:
        return table.read_text(encoding="ascii")
    except FileNotFoundError:
        return ""
