"""The ways of one group's members to their links: sockets that live as long as an interface stays what it is."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ipmp_agent.linux.shared.host import Port

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipmp_agent.core.actions import SendProbe
    from ipmp_agent.core.events import Event
    from ipmp_agent.linux.group.neighbourhood import Neighbourhood
    from ipmp_agent.linux.shared.host import Host
    from ipmp_agent.linux.shared.members import HostMember

log = logging.getLogger(__name__)


class GroupPorts:
    """Opens and closes the ports of one group's members.

    Args:
        group: its name.
        host: what all groups share.
        neighbourhood: told of what is heard of neighbours.
        sink: takes what becomes of probes.
    """

    def __init__(self, group: str, host: Host, neighbourhood: Neighbourhood, sink: Callable[[Event], None]) -> None:
        self._group = group
        self._host = host
        self._neighbourhood = neighbourhood
        self._sink = sink

    def keep(self, member: HostMember) -> bool:
        """Go on with the port of a member, if its interface is what it was; returns whether it is."""
        port = self._host.ports.get((self._group, member.key))
        if port is None or member.index is None or member.link is None:
            return False
        before = (port.link.index, port.link.name, port.link.mac)
        if before != (member.link.index, member.link.name, member.link.mac):
            return False
        port.link = member.link
        return True

    def open(self, member: HostMember) -> bool:
        """Give a member that is present a port; returns whether it has one."""
        try:
            self._host.ports[self._group, member.key] = Port(
                member, self._sink, self._neighbourhood.claimed, self._neighbourhood.renew, self._host
            )
        except OSError as error:
            # It vanished or was renamed again between the message and now: the next message tells.
            log.warning("%s: no access to its link: %s", member.key, error)
            return False
        self._neighbourhood.listen()
        return True

    def drop(self, key: str) -> None:
        """Close the port of a member, if it has one."""
        port = self._host.ports.pop((self._group, key), None)
        if port is not None:
            self._host.announcer.leave(port.wire)
            port.close()

    def probe(self, order: SendProbe) -> bool:
        """Send a probe; returns whether the member has a port."""
        port = self._host.ports.get((self._group, order.interface))
        if port is not None:
            port.sender.send(order)
        return port is not None
