"""Per-interface IPv4 settings that a host with several NICs on one link needs, set over netlink.

They need NET_ADMIN only, while /proc/sys is read-only in a container.
"""

from __future__ import annotations

import logging
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipmp_agent.core.findings import Finding
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.messages import netlink
from ipmp_agent.linux.messages.links import IDENTIFIERS, IFLA_AF_SPEC, IFLA_INET_CONF
from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from ipmp_agent.linux.messages.links import Link

log = logging.getLogger(__name__)


@frozen
class Setting:
    """One setting of net.ipv4.conf that decides whether a member answers, sends or receives.

    Attributes:
        name: of the setting.
        needed: the value that a member needs.
        is_set: whether the group sets it on members; one that serves others is left to its owner, and told.
        everywhere: the value of conf/all that is still well; None: conf/all cannot defeat the member's own.
        why: what another value does.
    """

    name: str
    needed: int
    is_set: bool
    everywhere: int | None
    why: str


SETTINGS = (
    Setting(
        "arp_ignore",
        needed=1,
        is_set=True,
        everywhere=1,
        why="above 1 ARP requests for data addresses may go unanswered",
    ),
    Setting(
        "arp_announce",
        needed=2,
        is_set=True,
        everywhere=None,
        why="neighbours learn another member's addresses by this one's MAC address",
    ),
    Setting(
        "rp_filter",
        needed=2,
        is_set=True,
        everywhere=None,
        why="what comes in by another member than it would leave by is dropped",
    ),
    Setting(
        "promote_secondaries",
        needed=1,
        is_set=True,
        everywhere=None,
        why="an address that goes takes others of its prefix along",
    ),
    Setting(
        "arp_filter",
        needed=0,
        is_set=True,
        everywhere=0,
        why="ARP requests of whom another member would answer go unanswered",
    ),
    Setting("proxy_arp", needed=0, is_set=False, everywhere=0, why="this host answers ARP for other hosts of the link"),
    Setting(
        "proxy_arp_pvlan", needed=0, is_set=False, everywhere=0, why="this host answers ARP for other hosts of the link"
    ),
)
"""docs/host.md says of each what it does to addresses that are not the group's."""

WANTED = {each.name: each.needed for each in SETTINGS if each.is_set}

EVERYWHERE = Path("/proc/sys/net/ipv4/conf/all")
"""conf/all: of arp_ignore, arp_announce and rp_filter the greater value counts, of the others any that is set."""

IPV6 = Path("/proc/sys/net/ipv6/conf")
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")

# 0: a flow is hashed by its two addresses alone (IPv6: and its flow label, which a host chooses after the route), and
# all flows between two hosts leave by one member.
HASH_POLICY = "/proc/sys/net/ipv{}/fib_multipath_hash_policy"

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


def overridden() -> list[Finding]:
    """What conf/all defeats on every member."""
    found = []
    for each in SETTINGS:
        value = _setting(EVERYWHERE / each.name) if each.everywhere is not None else None
        if value is not None and each.everywhere is not None and value > each.everywhere and _matters(each):
            allowed = " or ".join(map(str, range(each.everywhere + 1)))
            message = (
                f"net.ipv4.conf.all.{each.name} is {value}, and members need {each.needed}: {each.why}. Set it to"
                f" {allowed}."
            )
            found.append(Finding(Reason.SETTINGS_OVERRIDDEN, message))
    return found


def left_to_others(members: Iterable[Link]) -> list[Finding]:
    """What members have otherwise than they need, and what is not the group's to set."""
    return [
        Finding(
            Reason.SETTINGS_OVERRIDDEN,
            f"net.ipv4.conf.{link.name}.{each.name} is {value}, and members need {each.needed}: {each.why}, and what is"
            f" reached so hangs on {link.name}. Set it to {each.needed}.",
        )
        for link in members
        for each in SETTINGS
        if not each.is_set and (value := dict(link.settings).get(each.name, each.needed)) != each.needed
        if _matters(each)
    ]


def without_link_local(members: Iterable[Link]) -> list[Finding]:
    """Why these members have no IPv6 link-local address, where a setting says so."""
    found = []
    for link in members:
        for name in ("disable_ipv6", "addr_gen_mode"):
            if _setting(IPV6 / link.name / name) == 1:
                message = (
                    f"net.ipv6.conf.{link.name}.{name} is 1, and {link.name} has no IPv6 link-local address: it carries"
                    " no IPv6 traffic while another member can. Set it to 0, or give it an address of fe80::/64."
                )
                found.append(Finding(Reason.SETTINGS_OVERRIDDEN, message))
                break
    return found


def _matters(each: Setting) -> bool:
    """Whether a setting has an effect: a host answers for others only while it forwards."""
    return not each.name.startswith("proxy_arp") or _setting(FORWARDING) != 0


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
        """Take over what an earlier run remembered; one of an older version knew fewer settings."""
        for key, found in memory.items():
            self._before[key] = (found["index"], dict(found["values"]))

    @property
    def noted(self) -> Collection[str]:
        """The members whose settings are noted, as all are before anything of them is changed."""
        return self._before.keys()

    def before(self, index: int) -> Mapping[str, int]:
        """What an interface had before it was a member; empty: it was none, or has it again."""
        return next((values for noted, values in self._before.values() if noted == index), {})

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
        before = dict(self._before)
        for key, link in members.items():
            now = {**dict(link.settings), **self._guarded(link.index)}
            known = self._before[key][1] if self._is_noted(key, link) else {}
            self._before[key] = (link.index, {name: now.get(name, 0) for name in WANTED} | known)
        return before != self._before

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


def unspread(outbound: Mapping[int, Sequence[str]]) -> list[Finding]:
    """Whether all flows between two hosts leave by one member, though several carry.

    Args:
        outbound: the members that carry outbound traffic, by IP version.
    """
    return [
        Finding(
            Reason.MULTIPATH_HASH_POLICY,
            f"net.ipv{version}.fib_multipath_hash_policy is 0: all IPv{version} flows between this host and another one"
            " leave by one member. Set it to 1 to spread them, or spec.outboundSpreading to Disabled.",
        )
        for version, carriers in outbound.items()
        if len(carriers) > 1 and flows_of_two_hosts_stay_together(version)
    ]
