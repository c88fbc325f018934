"""What the routes of a group need to know of its members and addresses."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipmp_agent.linux.group.data_addresses import GroupDataAddresses
    from ipmp_agent.linux.group.testaddresses import GroupTestAddresses
    from ipmp_agent.linux.shared.members import HostMember, Members
    from ipmp_api.types import Address, Network

NOT_YET = float("-inf")

HEARING = 20.0
"""Seconds for which an answer shows that a member hears: longer than the longest probe interval."""


class GroupSurroundings:
    """Answers from the desired state of one group, which is ahead of the kernel's notifications."""

    def __init__(self, group: str, members: Members, data: GroupDataAddresses, tests: GroupTestAddresses) -> None:
        self._group = group
        self._members = members
        self._data = data
        self._tests = tests
        self.outbound: dict[int, tuple[str, ...]] = {4: (), 6: ()}  # by IP version, as the core ordered
        self.nominees: dict[int, str | None] = {4: None, 6: None}
        self.receiving: tuple[str, ...] = ()
        self._heard: dict[str, float] = {}  # of members whose link came back: when they were last answered

    def member(self, key: str) -> HostMember | None:
        """A member of the group."""
        return self._members.of(self._group).get(key)

    def key_of(self, index: int) -> str | None:
        """The member that an interface is, if it is one of this group and fit."""
        member = self._members.owner(index)
        return member.key if member is not None and member.group == self._group and member.index == index else None

    def names(self) -> set[str]:
        """Interface names of the members that are present and stay."""
        return set(self.by_name())

    def by_name(self) -> dict[str, int]:
        """Interface indexes of the members that are present and stay, by name."""
        members = self._members.of(self._group).values()
        return {m.link.name: m.index for m in members if m.index is not None and m.link is not None and not m.leaving}

    def by_key(self) -> dict[str, int]:
        """Interface indexes of the members that are present and stay, by key."""
        members = self._members.of(self._group).values()
        return {m.key: m.index for m in members if m.index is not None and not m.leaving}

    def has_link_local(self, key: str) -> bool:
        """Whether a member has an IPv6 link-local address that can be used."""
        return self._tests.has_link_local(key)

    def own_ipv4(self, key: str) -> IPv4Address | None:
        """An IPv4 address that a member has now, if any."""
        return next((each for each in self._tests.present(key) if isinstance(each, IPv4Address)), None)

    def is_data(self, address: Address) -> bool:
        """Whether this is a data address of the group."""
        return self._data.is_data(address)

    def indexes(self) -> set[int]:
        """Interface indexes of the members that are present."""
        return {m.index for m in self._members.of(self._group).values() if m.index is not None}

    def up(self) -> set[int]:
        """Interface indexes of the members that are present and stay, and are not taken down."""
        members = self._members.of(self._group).values()
        return {m.index for m in members if m.link is not None and m.index is not None and m.link.up and not m.leaving}

    def has_address(self, key: str, version: int) -> bool:
        """Whether a member has any address of this IP version: its own, or a data address that is there now."""
        return self._data.has_any(key, version) or any(
            address.version == version and not self._data.is_data(address) for address in self._tests.present(key)
        )

    def carriers(self, version: int) -> list[int]:
        """Interface indexes of the members that carry outbound traffic now, as the core ordered.

        A member without an IPv4 address would ask its neighbours in the name of an address that lives on another
        member, and they would learn the wrong MAC address. One without an IPv6 link-local address asks nobody on behalf
        of such an address: it carries only where none of them has one.
        """
        members = [self.member(key) for key in self.outbound[version]]
        able = {
            member.key: member.index
            for member in members
            if member is not None
            and member.index is not None
            and member.up is not False
            and self.has_address(member.key, version)
        }
        asking = [index for key, index in able.items() if version == 6 and self._tests.has_link_local(key)]
        return asking or list(able.values())

    def carries(self, key: str, version: int) -> bool:
        """Whether a member is to carry outbound traffic of this IP version."""
        return key in self.outbound[version]

    def is_ours(self, address: Address) -> bool:
        """Whether this is an address of the group on this host."""
        members = self._members.of(self._group)
        return self._data.holder(address) is not None or any(address in self._tests.present(key) for key in members)

    def is_of_another_group(self, index: int) -> bool:
        """Whether an interface is a member of another group."""
        member = self._members.owner(index)
        return member is not None and member.group != self._group

    def may_take_over(self, index: int) -> bool:
        """Whether what leaves by an interface is better off with this group: its own group does not work, this does."""
        member, failed = self._members.owner(index), self._members.failed
        return member is not None and member.group in failed and self._group not in failed

    def link_changed(self, key: str, *, up: bool) -> None:
        """Take note of a link: one that came back carries what is sent to it before anybody has judged it."""
        if up:
            self._heard.setdefault(key, NOT_YET)
        else:
            self._heard.pop(key, None)

    def answered(self, key: str, now: float) -> bool:
        """Take note that a member got an answer; returns whether it is the first one since its link came back."""
        before = self._heard.get(key)
        if before is None:
            return False
        self._heard[key] = now
        return now - before > HEARING

    def deaf(self, now: float) -> list[str]:
        """Interface names of the members that are present and do not work, nor came back and were answered since."""
        members = self._members.of(self._group).values()
        return [
            m.link.name
            for m in members
            if m.link is not None and m.key not in self.receiving and now - self._heard.get(m.key, NOT_YET) > HEARING
        ]

    def is_home(self, key: str, version: int) -> bool:
        """Whether the host had an address of this IP version on a member, that may be moved from there."""
        return self._data.is_home(key, version)

    def was_moved(self, key: str, address: Address) -> bool:
        """Whether this is a data address that is on another member than this one."""
        return self._data.is_data(address) and self._data.holder(address) not in (None, key)

    def homes(self) -> dict[Address, str]:
        """The addresses that the host had before this group, and the member of each."""
        return self._data.homes()

    def is_here(self, address: Address) -> bool:
        """Whether the host has this address, as far as the group knows."""
        return not self._data.is_data(address) or self._data.holder(address) is not None

    def prefixes(self) -> set[Network]:
        """Prefixes that the group's own addresses make reachable on the link."""
        return self._data.prefixes() | self._tests.prefixes()

    def sources(self) -> tuple[dict[Network, Address], dict[int, Address]]:
        """The data addresses that packets come from, if they may choose: by prefix, else by IP version."""
        return self._data.sources()

    def ways(self, target: Address) -> dict[int, str]:
        """Names of the members that IPv4 packets to somebody on the link may leave by, by index; empty where one does.

        Which leg of a nexthop group takes an IPv6 packet nobody can choose: the kernel heeds no interface there.
        """
        if target.version == 6 or not any(target in prefix for prefix in self.prefixes()):
            return {}
        carriers = set(self.carriers(target.version))
        found = {index: name for name, index in self.by_name().items() if index in carriers}
        return found if len(found) > 1 else {}
