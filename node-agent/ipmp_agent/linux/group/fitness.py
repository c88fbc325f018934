"""Interfaces that cannot be members for what is on them, and those that stop being members while they are there."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ipmp_agent.core.findings import Finding
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.messages import addresses

if TYPE_CHECKING:
    from ipmp_agent.linux.group.data_addresses import GroupDataAddresses
    from ipmp_agent.linux.group.settings import InterfaceSettings
    from ipmp_agent.linux.messages.links import Link
    from ipmp_agent.linux.shared.host import Host
    from ipmp_agent.linux.shared.members import Members

log = logging.getLogger(__name__)


class Fitness:
    """Keeps unfit interfaces out of one group, and leaves those that it had as they were found."""

    def __init__(
        self, group: str, host: Host, members: Members, data: GroupDataAddresses, settings: InterfaceSettings
    ) -> None:
        self._group = group
        self._host = host
        self._members = members
        self._data = data
        self._settings = settings
        self._peers: dict[str, Finding] = {}  # by member

    def findings(self) -> list[Finding]:
        """Why interfaces are kept out."""
        return list(self._peers.values())

    async def look(self) -> None:
        """Keep out members on which an IPv4 address has a peer, and take them when it has gone.

        With arp_ignore=1, which members need, the kernel answers no ARP request for such an address.
        """
        for member in list(self._members.of(self._group).values()):
            if member.link is None or member.leaving or (member.refusal is not None and member.barred is None):
                continue
            name = member.link.name
            found = await self._host.addresses_of(member.link.index)
            peers = [str(each.address.ip) for each in found if each.address.version == 4 and each.has_peer]
            self._peers.pop(member.key, None)
            if peers:
                message = (
                    f"{', '.join(peers)} on {name} has a peer, and a host with arp_ignore=1, which members need,"
                    f" answers no ARP request for such an address: {name} is left alone. Lay it as /32, with a route"
                    " to the peer."
                )
                self._peers[member.key] = Finding(Reason.PEER_ADDRESS, message, member.key)
            self._members.bar(member, Reason.PEER_ADDRESS if peers else None)

    def let_go(self, key: str) -> bool:
        """A member lost its interface: if that is there still, what the host has on it is the host's alone again.

        Returns whether anything is left to be done, by `leave`.
        """
        index = self._settings.abandoned(self._indexes()).get(key)
        if index is None or self._host.link(index) is None:
            return False
        self._data.abandon(key)
        return True

    async def leave(self) -> list[tuple[str, Link, list[bytes]]]:
        """What makes the interfaces that are members no more what they were before.

        Returns:
            Of each the member that it was, the interface, and requests for addresses and settings.
        """
        self._settings.follow(self._indexes())
        left = []
        for key, index in self._settings.abandoned(self._indexes()).items():
            link = self._host.link(index)
            if link is None:
                continue  # it is gone with all it had
            self._data.abandon(key)
            requests = [
                addresses.delete(index, each.address)
                for each in await self._host.addresses_of(index)
                if each.owned or each.borrowed or self._data.is_data(each.address.ip)
            ]
            requests += self._settings.restore({key: link})
            left.append((key, link, requests))
            if requests:
                log.warning("%s: %s is no member any more, and is left as it was found", self._group, link.name)
        return left

    def _indexes(self) -> dict[str, int]:
        members = self._members.of(self._group).values()
        return {member.key: member.index for member in members if member.index is not None}
