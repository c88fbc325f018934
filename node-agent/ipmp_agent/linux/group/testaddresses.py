"""The test addresses of one group: on each member the address that its probes come from."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Interface, ip_interface
from typing import TYPE_CHECKING

from ipmp_agent.core.events import IP_FAMILIES, Family, TestAddressChanged
from ipmp_agent.linux.messages import addresses, netlink
from ipmp_api.types import Mode, TestAddressIPv6

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from ipmp_agent.core.events import Event
    from ipmp_agent.linux.messages.addresses import InstalledAddress
    from ipmp_agent.linux.shared.host import Host
    from ipmp_agent.linux.shared.members import Members
    from ipmp_api.types import Address, Network, NodeGroup

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Member:
    """What is known of one member."""

    wanted: IPv4Interface | None = None
    present: dict[Address, InstalledAddress] = field(default_factory=dict)
    duplicate: bool = False  # another host answers for the wanted IPv4 address
    checking: bool = False
    had: bool = False  # the wanted address was there: putting it back needs no check
    told: dict[Family, tuple[Address | None, bool]] = field(default_factory=dict)
    link_local: dict[Address, InstalledAddress] = field(default_factory=dict)  # of IPv6, of those present

    def take(self, found: Iterable[InstalledAddress]) -> None:
        """Take what is there as the whole truth."""
        self.present = {each.address.ip: each for each in found}
        self.link_local = {ip: each for ip, each in self.present.items() if _is_link_local(ip)}

    def came(self, each: InstalledAddress) -> None:
        """An address is there, or is another than it was."""
        self.present[each.address.ip] = each
        if _is_link_local(each.address.ip):
            self.link_local[each.address.ip] = each

    def went(self, address: Address) -> None:
        """An address is there no more."""
        self.present.pop(address, None)
        self.link_local.pop(address, None)


def _is_link_local(address: Address) -> bool:
    return address.version == 6 and address.is_link_local


class GroupTestAddresses:
    """Installs the configured IPv4 test addresses, follows the IPv6 link-local ones, and tells which are ready."""

    __test__ = False  # not a test class, whatever its name says to pytest

    def __init__(self, group: str, host: Host, members: Members, sink: Callable[[Event], None]) -> None:
        self._group = group
        self._host = host
        self._members = members
        self._sink = sink
        self._ipv6 = True
        self._observing = False
        self._by_member: dict[str, _Member] = {}

    def configure(self, configuration: NodeGroup) -> list[bytes]:
        """Take the wanted addresses; returns requests that remove those wanted no more."""
        self._observing = configuration.policies.mode is Mode.OBSERVE
        self._ipv6 = configuration.policies.test_ipv6 is TestAddressIPv6.LINK_LOCAL
        requests: list[bytes] = []
        before, self._by_member = self._by_member, {}
        for member in configuration.members:
            known = before.pop(member.key, _Member())
            if known.wanted != member.test_ipv4:
                requests += self._remove(member.key, known)
                known.wanted, known.duplicate, known.had = member.test_ipv4, False, False
            self._by_member[member.key] = known
        for known in before.values():
            self._cancel(known)
        return requests

    def _remove(self, key: str, known: _Member) -> list[bytes]:
        self._cancel(known)
        index = self._index(key)
        if known.wanted is None or index is None:
            return []
        installed = known.present.pop(known.wanted.ip, None)
        return [addresses.delete(index, installed.address)] if installed is not None and installed.owned else []

    def _index(self, key: str) -> int | None:
        """Interface index of a member; one that left may be forgotten before the new configuration is taken."""
        member = self._members.of(self._group).get(key)
        return member.index if member is not None else None

    def _cancel(self, known: _Member) -> None:
        if known.checking and known.wanted is not None:
            self._host.checks.cancel(known.wanted)
        known.checking = False

    def rest(self) -> None:
        """Finish no check: what would follow is not to be done now."""
        for known in self._by_member.values():
            self._cancel(known)
            told = [ip_interface(address) for address, _ in known.told.values() if address is not None]
            self._host.announcer.cancel(told)

    def lost(self, key: str) -> None:
        """A member lost its sockets, and if it vanished its addresses: the core learns that from the vanishing."""
        known = self._by_member.get(key)
        if known is None:
            return
        self._cancel(known)
        if self._index(key) is None:
            known.take(())
            known.told.clear()
            known.had = False

    def regained(self, key: str) -> None:
        """A member has new sockets: it is probed from the same addresses, if they are there still."""
        known = self._by_member.get(key, _Member())
        for family, (address, duplicate) in known.told.items():
            if address is not None and not duplicate and not self._use(key, family, address):
                known.told[family] = (None, False)
                self._sink(TestAddressChanged(key, family, None))

    def read(self, installed: Mapping[str, Sequence[InstalledAddress]]) -> None:
        """Take what is on the members now, by key, as the whole truth."""
        for key, found in installed.items():
            known = self._by_member.get(key)
            if known is not None:
                known.take(found)
                self._tell(key, known)

    def heard(self, kind: int, each: InstalledAddress, key: str) -> bool:
        """Somebody, perhaps we, changed an address of a member; returns whether one of ours is missing now."""
        known = self._by_member.get(key)
        if known is None:
            return False
        if kind == netlink.RTM_NEWADDR:
            known.came(each)
        else:
            known.went(each.address.ip)
        self._tell(key, known)
        return kind == netlink.RTM_DELADDR and known.wanted is not None and each.address.ip == known.wanted.ip

    def present(self, key: str) -> Iterable[Address]:
        """Every address of a member, as the kernel told last."""
        known = self._by_member.get(key)
        return known.present if known is not None else ()

    def standing(self, key: str) -> Iterator[Address]:
        """The addresses of a member that reach beyond the link, whoever's they are."""
        known = self._by_member.get(key)
        found = known.present.values() if known is not None else ()
        return (each.address.ip for each in found if each.scope == netlink.RT_SCOPE_UNIVERSE)

    def stands(self, key: str, address: Address) -> bool:
        """Whether an address is one of those that `standing` gives."""
        known = self._by_member.get(key)
        each = known.present.get(address) if known is not None else None
        return each is not None and each.scope == netlink.RT_SCOPE_UNIVERSE

    def has_link_local(self, key: str) -> bool:
        """Whether a member has an IPv6 link-local address that can be used."""
        known = self._by_member.get(key)
        return known is not None and any(each.usable for each in known.link_local.values())

    def prefixes(self) -> set[Network]:
        """Prefixes wider than one address that test addresses make reachable on the link.

        Replies to probes need a way back in the table: the loose reverse path filter drops them without one.
        """
        wanted = [known.wanted.network for known in self._by_member.values() if known.wanted is not None]
        return {network for network in wanted if network.prefixlen < network.max_prefixlen}

    def differences(self) -> list[bytes]:
        """Requests that put the members right; an address that was never there is checked for a duplicate first."""
        requests = self._superfluous()
        for key, known in self._by_member.items():
            index = self._index(key)
            if index is None or known.wanted is None or known.wanted.ip in known.present or known.checking:
                continue
            if known.had:
                requests.append(self._add(index, known.wanted))
                continue
            port = self._host.ports.get((self._group, key))
            if port is not None:
                known.checking = True
                self._host.checks.start(known.wanted, port.wire, partial(self._checked, key, known))
        return requests

    def _add(self, index: int, address: IPv4Interface) -> bytes:
        # Scope link: never chosen as the source of traffic that leaves the link. /32: the kernel refuses two addresses
        # of one prefix with different scopes on one interface, and a data address may well have the same prefix.
        return addresses.add(index, IPv4Interface(address.ip), scope=netlink.RT_SCOPE_LINK)

    def _checked(self, key: str, known: _Member, mac: bytes | None) -> None:
        known.checking = False
        index = self._index(key)
        known.duplicate = mac is not None
        if index is None or known.wanted is None or known.duplicate:
            self._tell(key, known)  # the next reconcile asks again
            return
        # The notification of the kernel makes it ready.
        self._host.send([self._add(index, known.wanted)])

    def withdraw(self, installed: Mapping[str, Sequence[InstalledAddress]]) -> list[bytes]:
        """Requests that remove what this agent added, by what is on the members now: news of it may be on its way."""
        for key, known in self._by_member.items():
            known.take(installed.get(key, ()))
            self._cancel(known)
            known.wanted = None
        return self._superfluous()

    def _superfluous(self) -> list[bytes]:
        """Requests that remove test addresses that an agent added and nobody wants."""
        return [
            addresses.delete(each.index, each.address)
            for known in self._by_member.values()
            for each in known.present.values()
            if each.owned and each.scope == netlink.RT_SCOPE_LINK and each.address.version == 4
            if known.wanted is None or each.address.ip != known.wanted.ip
        ]

    def _tell(self, key: str, known: _Member) -> None:
        """Tell what changed, once the prober can use it."""
        for family in IP_FAMILIES:
            address, duplicate = self._choose(family, known)
            told = known.told.get(family)
            if (address, duplicate) == (told or (None, False)):
                continue
            if self._use(key, family, None if duplicate else address):
                known.told[family] = (address, duplicate)
                self._sink(TestAddressChanged(key, family, address, duplicate=duplicate))

    def _use(self, key: str, family: Family, address: Address | None) -> bool:
        """Have a member probe from an address; returns whether it can."""
        port = self._host.ports.get((self._group, key))
        if port is None:
            return False
        try:
            port.sender.use_test_address(family, address)
        except OSError as error:
            log.warning("%s: cannot probe from %s: %s", key, address, error)
            return False
        if address is not None and not self._observing:
            # Targets may know it by another MAC address, and would answer there.
            port.announce([ip_interface(address)])
        return True

    def _choose(self, family: Family, known: _Member) -> tuple[Address | None, bool]:
        if family is Family.IPV4:
            if known.wanted is None:
                return None, False
            if known.wanted.ip in known.present:
                known.had, known.duplicate = True, False
                return known.wanted.ip, False
            return (known.wanted.ip, True) if known.duplicate else (None, False)
        if not self._ipv6:
            return None, False
        local = known.link_local
        usable = [address for address, each in local.items() if each.usable]
        told = known.told.get(family)
        if told is not None and told[0] in usable:
            return told[0], False
        if usable:
            return min(usable, key=int), False
        failed = [address for address, each in local.items() if each.flags & addresses.IFA_F_DADFAILED]
        return (failed[0], True) if failed else (None, False)
