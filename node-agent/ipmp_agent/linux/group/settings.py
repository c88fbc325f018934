"""Per-interface IPv4 settings that a host with several NICs on one link needs, set over netlink.

They need NET_ADMIN only, while /proc/sys is read-only in a container.
"""

from __future__ import annotations

import logging
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipmp_agent.linux.messages import netlink
from ipmp_agent.linux.messages.links import IDENTIFIERS, IFLA_AF_SPEC, IFLA_INET_CONF

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Collection, Mapping

    from ipmp_agent.linux.messages.links import Link

log = logging.getLogger(__name__)

WANTED = {
    "arp_ignore": 1,  # a NIC answers for its own addresses only, else both NICs answer for every address
    "arp_announce": 2,  # and asks with an address of its own
    "rp_filter": 2,  # replies may come in by another NIC of the link
    "promote_secondaries": 1,  # an address that goes does not take others of its prefix along
}

ALL_ARP_IGNORE = Path("/proc/sys/net/ipv4/conf/all/arp_ignore")
"""The kernel heeds the greater of conf/all and conf/<interface>: above 1 it answers some or all requests not at all."""

HASH_POLICY = "/proc/sys/net/ipv{}/fib_multipath_hash_policy"
"""At 0 the kernel hashes a flow by its two addresses alone (IPv6: and its flow label, which a host chooses after the
route), so all flows between two hosts leave by one member."""

_INTERFACE_MESSAGE = struct.Struct("=BxHiII")


def change(index: int, values: Mapping[str, int]) -> bytes:
    """Request that sets net.ipv4.conf.<interface>.<name> for each name."""
    conf = [netlink.u32(IDENTIFIERS[name], value) for name, value in values.items()]
    inet = netlink.nested(socket.AF_INET, netlink.nested(IFLA_INET_CONF, *conf))
    head = _INTERFACE_MESSAGE.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    return netlink.message(netlink.RTM_SETLINK, 0, head, netlink.nested(IFLA_AF_SPEC, inet))


def drift(settings: Mapping[str, int]) -> dict[str, int]:
    """What must be set on an interface that has these settings."""
    return {name: value for name, value in WANTED.items() if settings.get(name) != value}


def arp_ignored_everywhere() -> int | None:
    """The value of conf/all/arp_ignore where it defeats ours, else None."""
    value = _setting(ALL_ARP_IGNORE)
    return value if value is not None and value > WANTED["arp_ignore"] else None


def flows_of_two_hosts_stay_together(version: int) -> bool:
    """Whether the kernel sends all flows between two hosts by one member, however many carry."""
    return _setting(Path(HASH_POLICY.format(version))) == 0


def _setting(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


class InterfaceSettings:
    """The settings of one group's members: what they were, and what they are to be."""

    def __init__(self, counters: Counter[str], guarded: Callable[[int], Mapping[str, int]] = lambda _index: {}) -> None:
        self._counters = counters
        self._guarded = guarded  # what an interface had before it was guarded, by its index
        self._before: dict[str, tuple[int, dict[str, int]]] = {}  # by member: interface index, values
        self._applied: dict[str, int] = {}  # interface index, by member

    def memory(self) -> dict[str, Any]:
        """What a restarted agent must know to restore them: JSON."""
        return {key: {"index": index, "values": values} for key, (index, values) in self._before.items()}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Take over what an earlier run remembered."""
        for key, found in memory.items():
            self._before[key] = (found["index"], dict(found["values"]))

    @property
    def noted(self) -> Collection[str]:
        """The members whose settings are noted, as all are before anything of them is changed."""
        return self._before.keys()

    def follow(self, members: Mapping[str, int]) -> None:
        """Keep what was noted of an interface with the member that it is now.

        Args:
            members: interface indexes by member.
        """
        now = {index: key for key, index in members.items()}
        moved = {key: now[index] for key, (index, _) in self._before.items() if now.get(index, key) != key}
        before = {new: self._before.pop(old) for old, new in moved.items()}
        self._before.update(before)
        for each in {*moved, *before}:
            self._applied.pop(each, None)

    def abandoned(self, members: Mapping[str, int]) -> dict[str, int]:
        """The interfaces that were changed and are not the members any more that they were, by member: indexes."""
        return {key: index for key, (index, _) in self._before.items() if members.get(key) != index}

    def note(self, members: Mapping[str, Link]) -> bool:
        """Remember what is there, to be kept before anything is changed; returns whether any of it is new.

        Another interface under the same key has settings of its own to go back to.
        """
        new = {key: link for key, link in members.items() if not self._is_noted(key, link)}
        for key, link in new.items():
            now = {**dict(link.settings), **self._guarded(link.index)}
            self._before[key] = (link.index, {name: now.get(name, 0) for name in WANTED})
        return bool(new)

    def _is_noted(self, key: str, link: Link) -> bool:
        return key in self._before and self._before[key][0] == link.index

    def differences(self, members: Mapping[str, Link]) -> list[bytes]:
        """Requests that set what is not as it should be, where noted; what somebody set back is counted."""
        requests = []
        for key, link in members.items():
            if not self._is_noted(key, link):
                continue
            missing = drift(dict(link.settings))
            if self._applied.get(key) != link.index:
                self._applied[key] = link.index
            elif missing:
                self._counters["settings_drift"] += 1
                log.warning("%s: somebody changed %s: setting %s", link.name, ", ".join(missing), missing)
            if missing:
                requests.append(change(link.index, missing))
        return requests

    def restore(self, members: Mapping[str, Link]) -> list[bytes]:
        """Requests that set the members back to what was found; a value that is not ours any more is left alone."""
        requests = []
        for key, link in members.items():
            index, values = self._before.pop(key, (None, {}))
            self._applied.pop(key, None)
            now = dict(link.settings)
            back = {name: value for name, value in values.items() if now.get(name) == WANTED[name] != value}
            if index == link.index and back:
                requests.append(change(link.index, back))
        return requests
