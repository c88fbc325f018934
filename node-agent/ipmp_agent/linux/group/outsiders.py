"""The interfaces of the host that are on the link of one group and are no members: found, guarded, told."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from typing import TYPE_CHECKING, Any

from ipmp_agent.core.findings import Finding
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.group import settings
from ipmp_agent.linux.messages import frames
from ipmp_agent.linux.shared.outsiders import GUARD, may_hear

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ipmp_agent.linux.group.surroundings import GroupSurroundings
    from ipmp_agent.linux.messages.links import Link
    from ipmp_agent.linux.shared.host import Host
    from ipmp_agent.linux.shared.members import Members

log = logging.getLogger(__name__)

ON_A_DEVICE_BELOW = frozenset({"macvlan", "macvtap"})
"""Kinds of members that share the link of the device below them."""


ASK_AGAIN = 15.0
"""Seconds until members are heard of again by interfaces that did not hear them: cables may have been changed."""


class GroupOutsiders:
    """Looks for them, and has them answer for their own addresses only."""

    def __init__(self, group: str, host: Host, members: Members, around: GroupSurroundings) -> None:
        self._group = group
        self._host = host
        self._members = members
        self._around = around
        self._held: dict[int, str] = {}  # name by interface index: those that this group guards
        self._others: dict[int, dict[str, int]] = {}  # by interface index: what they have of the other settings
        self._found: dict[int, str] = {}  # the same: those that are on the link
        self._asked: tuple[float, set[int]] = (-math.inf, set())  # when, and which interfaces were to hear it

    def memory(self) -> list[dict[str, Any]]:
        """What a restarted agent must know to put them back: JSON."""
        held = self._held.items()
        return [
            {"index": i, "name": name, "values": self._host.guarded.before(i), "others": self._others.get(i, {})}
            for i, name in held
        ]

    def remember(self, memory: Iterable[Mapping[str, Any]]) -> None:
        """Take over what an earlier run remembered."""
        for each in memory:
            self._held[each["index"]] = each["name"]
            self._others[each["index"]] = each["others"]
            self._host.guarded.hold(self._group, each["index"], each["values"])

    def look(self) -> bool:
        """Look which interfaces are on the link; returns whether there is one to be noted."""
        candidates = {
            device.link.index: device.link
            for device in self._host.devices.all()
            if may_hear(device.link) and self._members.owner(device.link.index) is None
        }
        for index in [i for i in self._held if self._members.owner(i) is not None and self._host.guarded.is_taken(i)]:
            # A member now, with which what it had before is kept.
            self._held.pop(index)
            self._others.pop(index, None)
            self._host.guarded.release(self._group, index)
        known = self._heard() | self._in_prefix() | self._below()
        self._found = {index: link.name for index, link in candidates.items() if index in known}
        self._say_something(candidates.keys() - self._found.keys())
        return bool(self._found.keys() - self._held.keys() - self._answering_for_peers())

    def _answering_for_peers(self) -> set[int]:
        """Interfaces with an IPv4 address that has a peer: with arp_ignore 1 nobody who asks for it is answered."""
        addresses = self._host.addresses.found.items()
        return {index for index, found in addresses if any(e.address.version == 4 and e.has_peer for e in found)}

    def _heard(self) -> set[int]:
        macs = {port.wire.mac for (group, _), port in self._host.ports.items() if group == self._group}
        return {index for index, heard in self._host.heard_on.items() if heard & macs}

    def _in_prefix(self) -> set[int]:
        prefixes = [prefix for prefix in self._around.prefixes() if prefix.version == 4 and prefix.prefixlen < 32]
        return {
            index
            for index, found in self._host.addresses.found.items()
            if any(each.address.version == 4 and each.address.ip in prefix for each in found for prefix in prefixes)
        }

    def _below(self) -> set[int]:
        members = set(self._around.by_key().values())
        return {
            device.below
            for device in self._host.devices.all()
            if device.link.index in members and device.link.kind in ON_A_DEVICE_BELOW
        }

    def _say_something(self, listening: set[int]) -> None:
        """Have each member ask for an address of its own, by a question that changes nobody's cache."""
        now, (before, heard) = time.monotonic(), self._asked
        if not listening or (listening <= heard and now < before + ASK_AGAIN):
            return
        self._asked = now, listening
        for key in self._around.by_key():
            port, address = self._host.ports.get((self._group, key)), self._around.own_ipv4(key)
            if port is not None and address is not None:
                with contextlib.suppress(OSError):  # a link that is down says nothing
                    port.wire.send(frames.arp_probe(port.wire.mac, address))

    def note(self) -> None:
        """Take down what the interfaces have, before anything of it is changed."""
        left_alone = self._answering_for_peers()
        for index, name in self._found.items():
            link = self._host.link(index)
            if index not in left_alone and index not in self._held and link is not None and link.name == name:
                self._held[index] = name
                self._others[index] = {n: v for n, v in link.settings if n in settings.WANTED and n not in GUARD}
                self._host.guarded.hold(self._group, index, dict(link.settings))

    def differences(self) -> list[bytes]:
        """Requests that guard what is noted, and leave alone again what must not be guarded any more."""
        spared = self._held.keys() & self._answering_for_peers()
        return self._put_back(spared) + [
            settings.change(link.index, missing)
            for link in self._present()
            if (missing := {n: v for n, v in GUARD.items() if dict(link.settings).get(n) != v})
        ]

    def restore(self) -> list[bytes]:
        """Requests that put back what was noted; a value that is not ours any more is left alone."""
        return self._put_back(self._held.keys())

    def _put_back(self, indexes: Iterable[int]) -> list[bytes]:
        requests = []
        links = {link.index: dict(link.settings) for link in self._present()}
        for index in list(indexes):
            before, now = self._host.guarded.release(self._group, index), links.get(index, {})
            back = {name: value for name, value in before.items() if now.get(name) == GUARD[name] != value}
            if back:
                requests.append(settings.change(index, back))
            del self._held[index]
            self._others.pop(index, None)
        return requests

    def _present(self) -> list[Link]:
        links = [(self._host.link(index), name) for index, name in self._held.items()]
        return [link for link, name in links if link is not None and link.name == name]

    def findings(self, *, observing: bool) -> list[Finding]:
        """What is on the link beside the members."""
        found = []
        for index, name in sorted(self._found.items()):
            guarded = index in self._held and not observing
            done = "it has arp_ignore 1 and arp_announce 2 now" if guarded else "nothing is done about it"
            message = (
                f"{name} is on the link of this group and is no member: there the kernel answers ARP for the group's"
                f" addresses, too ({done}), and routes by it leave by it whatever fails. Take it off the link, or make"
                " it a member."
            )
            found.append(Finding(Reason.OUTSIDER_ON_LINK, message))
        return found
