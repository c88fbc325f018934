"""Tunnels that are pinned to a member: a VXLAN device follows its local address, others are named in a finding.

What has no forwarding entry of its own (all traffic to a single remote, broadcast, ARP) leaves by that one interface,
whatever the routes say, and the device dies with it. The kernel keeps the interface twice, in the device and in the
entry that it made for the remote: both are changed. Entries of others, neighbours and addresses stay as they are.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ipmp_agent.core.findings import Finding
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.messages.tunnel_devices import VXLAN, pin
from ipmp_api.frozen import frozen
from ipmp_api.types import Tunnels

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ipmp_agent.linux.group.data_addresses import GroupDataAddresses
    from ipmp_agent.linux.group.surroundings import GroupSurroundings
    from ipmp_agent.linux.messages.tunnel_devices import Tunnel, TunnelTable
    from ipmp_api.types import NodeGroup

log = logging.getLogger(__name__)


@frozen
class _Pinned:
    """What we did to a device."""

    name: str
    home: str  # the member it was pinned to
    origin: int  # interface index of that: where it goes back to when that is no member any more
    link: int  # interface index that we pinned it to


class GroupTunnels:
    """The tunnels whose local address is a data address of one group."""

    def __init__(self, table: TunnelTable, around: GroupSurroundings, data: GroupDataAddresses) -> None:
        self._table = table
        self._around = around
        self._data = data
        self._pinned: dict[int, _Pinned] = {}
        self._following = True

    def configure(self, configuration: NodeGroup) -> None:
        """Take whether they follow at all."""
        self._following = configuration.policies.tunnels is Tunnels.FOLLOW

    def memory(self) -> list[dict[str, Any]]:
        """What a restarted agent must know to put them back: JSON."""
        return [
            {"index": i, "name": p.name, "member": p.home, "origin": p.origin, "link": p.link}
            for i, p in self._pinned.items()
        ]

    def remember(self, memory: Iterable[Mapping[str, Any]]) -> None:
        """Take over what an earlier run remembered; one that was killed may have pinned a device elsewhere since."""
        for each in memory:
            index, link = each["index"], each["link"]
            tunnel = self._table.found.get(index)
            if tunnel is not None and self._around.key_of(tunnel.link) is not None:
                link = tunnel.link
            self._pinned.setdefault(index, _Pinned(each["name"], each["member"], each.get("origin", 0), link))

    def note(self) -> None:
        """Take down where the devices are pinned that may follow, before anything is changed."""
        for tunnel, member in self._on_members():
            if tunnel.local is not None and self._data.is_data(tunnel.local) and _can_follow(tunnel):
                self._note(tunnel, member, tunnel.link)

    def _note(self, tunnel: Tunnel, member: str, link: int) -> None:
        """Take down that a device, which is pinned to this member now, is to be pinned to another interface."""
        pinned = self._pinned.get(tunnel.index)
        if pinned is None or not _is_ours(tunnel, pinned):
            pinned = _Pinned(tunnel.name, member, tunnel.link, link)
        self._pinned[tunnel.index] = replace(pinned, link=link)

    def differences(self) -> list[bytes]:
        """Requests that pin each device to the member that holds its local address.

        One whose local address is a data address no more goes back, as do all of a group that follows no more.
        """
        if not self._following:
            return self.withdraw()
        found = self._table.found
        followed = {i for i in self._pinned if i in found and (a := found[i].local) and self._data.is_data(a)}
        requests = self._put_back(self._pinned.keys() - followed)
        for tunnel, member in self._on_members():
            holder = self._data.holder(tunnel.local) if tunnel.local is not None and _can_follow(tunnel) else None
            target = self._around.member(holder) if holder is not None else None
            if target is None or target.index is None or target.index == tunnel.link:
                continue
            self._note(tunnel, member, target.index)
            requests += self._pin(tunnel, target.index)
        return requests

    def withdraw(self) -> list[bytes]:
        """Requests that pin each device where its owner did; one that its owner pinned anew is left alone."""
        return self._put_back(self._pinned.keys())

    def _put_back(self, indexes: Iterable[int]) -> list[bytes]:
        requests = []
        for index in list(indexes):
            pinned, tunnel = self._pinned.pop(index), self._table.found.get(index)
            home = self._around.member(pinned.home)
            target = home.index if home is not None else pinned.origin
            if tunnel is not None and _is_ours(tunnel, pinned) and target not in (None, 0, tunnel.link):
                requests += self._pin(tunnel, target)
        return requests

    def _pin(self, tunnel: Tunnel, link: int) -> list[bytes]:
        # A refusal is seen at the next resync.
        self._table.found[tunnel.index] = replace(tunnel, link=link)
        return pin(tunnel, link)

    def _on_members(self) -> Iterator[tuple[Tunnel, str]]:
        for tunnel in list(self._table.found.values()):
            key = self._around.key_of(tunnel.link) if tunnel.link else None
            if key is not None:
                yield tunnel, key

    def findings(self) -> list[Finding]:
        """Tunnels that stay on their member when it fails."""
        found: list[Finding] = []
        for tunnel, key in self._on_members() if self._following else ():
            if tunnel.kind != VXLAN:
                why = f"a {tunnel.kind} tunnel does not follow. Make it without `dev`, and routes choose the member"
            elif not _can_follow(tunnel):
                why = f"its remote {tunnel.remote} is a multicast group. Use forwarding entries"
            elif tunnel.local is None or not self._data.is_data(tunnel.local):
                why = f"its local address ({tunnel.local or 'none'}) is no data address. Give it one"
            else:
                continue
            message = f"{tunnel.name} is pinned to {key} and stays there when {key} fails: {why}."
            found.append(Finding(Reason.TUNNEL_PINNED, message, key))
        return found


def _is_ours(tunnel: Tunnel, pinned: _Pinned) -> bool:
    """Whether a device is pinned where we pinned it."""
    return (tunnel.name, tunnel.link) == (pinned.name, pinned.link)


def _can_follow(tunnel: Tunnel) -> bool:
    """Whether a device is one that follows: the kernel joins a multicast remote on the first interface only."""
    return tunnel.kind == VXLAN and (tunnel.remote is None or not tunnel.remote.is_multicast)
