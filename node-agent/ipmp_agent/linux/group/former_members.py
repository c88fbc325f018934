"""Members that leave a group: followed until the core has emptied them, then made what they were before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_agent.linux.group.twins import TRANSIENT
from ipmp_agent.linux.messages import addresses, netlink

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from ipmp_agent.linux.group.features import Features
    from ipmp_agent.linux.messages.addresses import InstalledAddress
    from ipmp_agent.linux.shared.host import Host
    from ipmp_agent.linux.shared.members import HostMember, Members
    from ipmp_api.types import NodeGroup


class FormerMembers:
    """Lets the members go that a configuration of one group does not have any more."""

    def __init__(self, host: Host, members: Members, features: Features) -> None:
        self._host = host
        self._members = members
        self._features = features
        self._group = ""
        self._wanted: set[str] = set()

    def configure(self, configuration: NodeGroup) -> None:
        """Take a configuration: until it is taken nobody knows the heirs of those that it lacks."""
        self._group = configuration.group_name
        self._wanted = {member.key for member in configuration.members}

    def leaving(self) -> list[HostMember]:
        """The former members that are still looked after."""
        members = self._members.of(self._group).values()
        return [member for member in members if member.leaving and member.key not in self._wanted]

    async def dismiss(self) -> AsyncIterator[HostMember]:
        """Put back former members, once the core has emptied them and nothing leaves by them; those may be let go."""
        for member in self.leaving():
            in_use = member.index is not None and self._features.twins.uses(member.index)
            if in_use or member.key in self._features.data.placement.values():
                continue
            index = member.index
            await self.put_back(member)
            if member.leaving and (self._is_there(member, index) or member.index is index is None):
                self._features.data.let_member_go(member.key)
                yield member

    async def put_back(self, member: HostMember) -> None:
        """Make the interface of a former member what it was, unless it is wanted again; a gone one may have an heir."""
        heir = self._features.data.heirs.pop(member.key, None)
        if member.index is None:
            if heir is not None:
                self._features.twins.inherit(member.key, heir)
            return
        index = member.index
        found = await self._host.addresses_of(index)
        if member.leaving and self._is_there(member, index):
            present = {member.key: self._features.link(member)}
            requests = [addresses.delete(each.index, each.address) for each in found if each.owned]
            requests += self._features.twins.leave(member.key, index)
            requests += self._features.membership.restore(present)
            requests += self._features.settings.restore(present)
            requests += self._features.administrative.restore(present, in_use([found]))
            await self._host.trickle(requests, expected=TRANSIENT)

    def _is_there(self, member: HostMember, index: int | None) -> bool:
        """Whether a member has this interface still: it may have gone, heard of or not."""
        return index is not None and member.index == index and self._host.link(index) is not None

    def gather(self, member: HostMember) -> None:
        """Lay elsewhere what the host had on a former member whose interface went before it was let go."""
        staying = [m for m in self._members.of(self._group).values() if m.index is not None and not m.leaving]
        heir = next((m for m in staying if m.up is not False), next(iter(staying), None))
        if heir is not None:
            self._features.data.gather(member.key, heir.key)


def in_use(found: Iterable[Iterable[InstalledAddress]]) -> set[int]:
    """Interfaces (by index) on which somebody else than this agent has laid an address."""
    return {
        each.index
        for some in found
        for each in some
        if not each.owned and not each.borrowed and each.scope == netlink.RT_SCOPE_UNIVERSE
    }
