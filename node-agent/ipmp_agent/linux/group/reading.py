"""What a comparison reads of the kernel: addresses of the members, nexthops, routes and rules, all of one moment."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

from ipmp_agent.linux.messages import netlink, routes
from ipmp_agent.linux.messages.routes import RouteTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipmp_agent.linux.group.parts import Parts
    from ipmp_agent.linux.messages.addresses import InstalledAddress
    from ipmp_agent.linux.messages.routes import Nexthop, ParticularRoute, Route
    from ipmp_agent.linux.messages.rules import PolicyRule
    from ipmp_agent.linux.shared.host import Host
    from ipmp_agent.linux.shared.members import Members

ADDRESSES, ROUTES = "addresses", "routes"
"""Parts of a comparison, as people are told them."""

READINGS = 3
"""Times that the kernel is read for one comparison while news of it comes; the next one goes on from there."""


class Found(NamedTuple):
    """What the kernel has, all of one moment; None: that could not be read."""

    installed: dict[str, list[InstalledAddress]] | None  # on the members that are present, by key
    nexthops: list[Nexthop]
    table: list[Route]  # all of them
    policy: list[PolicyRule]
    routed: bool  # whether the last three were read
    heard_of: int  # changes of routes before that moment


class GroupReading:
    """Reads the kernel for one group.

    Args:
        group: its name.
        host: what all groups share.
        members: of all groups.
        parts: of its comparison; what cannot be read ends its own part only.
        heard_of: the changes of routes that were worked in so far.
    """

    def __init__(self, group: str, host: Host, members: Members, parts: Parts, heard_of: Callable[[], int]) -> None:
        self._group = group
        self._host = host
        self._members = members
        self._parts = parts
        self._heard_of = heard_of
        self._table = RouteTable()
        self.orders = 0
        """Orders that changed the kernel so far."""
        self.news = 0
        """News so far of what is read here."""

    @property
    def particular(self) -> tuple[ParticularRoute, ...]:
        """The routes that no twin can stand for, of those read last."""
        return self._table.particular

    async def everything(self) -> Found:
        """Read everything, again if an order or news makes what was read first untrue."""
        for reading in itertools.count(1):
            orders, news, heard_of = self.orders, self.news, self._heard_of()
            installed: dict[str, list[InstalledAddress]] | None = None
            with self._parts.part(ADDRESSES):
                installed = await self.installed()
            found = Found(installed, [], [], [], routed=False, heard_of=heard_of)
            with self._parts.part(ROUTES):
                found = Found(
                    installed,
                    await self.nexthops(),
                    await self.routes(),
                    await self._host.rules(),
                    routed=True,
                    heard_of=heard_of,
                )
            if orders == self.orders and (news == self.news or reading >= READINGS):
                break
        return found

    async def installed(self) -> dict[str, list[InstalledAddress]]:
        """The addresses of every member that is present, by key."""
        present = {m.key: m.index for m in self._members.of(self._group).values() if m.index is not None}
        return {key: await self._host.addresses_of(index) for key, index in present.items()}

    async def routes(self) -> list[Route]:
        """The unicast routes of all tables."""
        return await self._host.routes(self._table)

    async def nexthops(self) -> list[Nexthop]:
        """The nexthop objects, whoever's they are."""
        bodies = await self._host.dumper.dump(netlink.RTM_GETNEXTHOP, routes.get_nexthops_request())
        found = [routes.decode_nexthop(body) for body in bodies]
        self._host.identifiers.note(found)
        return found
