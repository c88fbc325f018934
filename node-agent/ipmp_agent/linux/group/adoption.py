"""Which addresses of the host a group takes care of, and which it leaves alone, with the reason of each.

docs/design/0014-whose-address.md has the reasons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ipmp_agent.core.findings import Finding, NotAdopted
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.messages import addresses, netlink
from ipmp_api.types import AddressSelection, AdoptWhen, Existing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from ipmp_agent.linux.messages.addresses import InstalledAddress
    from ipmp_api.types import Address, InterfaceAddress, Network, NodeGroup

_WARNED_OF = {Reason.DHCP_MANAGED, Reason.ADDRESS_CONFLICT, Reason.PEER_ADDRESS, Reason.DUPLICATE_ADDRESS}
"""Why the host's own address, as it seems, does not move: people should know before its interface fails."""


class _Prefixes:
    """The prefixes that the addresses of one member bring, and how many bring each."""

    def __init__(self, found: Iterable[InstalledAddress], away: Iterable[InterfaceAddress]) -> None:
        self._count: dict[Network, int] = {}
        here = [each.address for each in found if each.scope == netlink.RT_SCOPE_UNIVERSE]
        for address in {*here, *away}:
            network = address.network
            if network.prefixlen < network.max_prefixlen:
                self._count[network] = self._count.get(network, 0) + 1
        self._lengths = {(network.version, network.prefixlen) for network in self._count}

    def cover(self, each: InstalledAddress) -> bool:
        """Whether another address brings a prefix that this one is in."""
        own = each.address.network
        for version, length in self._lengths:
            if version == each.address.version and length <= own.prefixlen:
                network = own if length == own.prefixlen else own.supernet(new_prefix=length)
                if self._count.get(network, 0) > (network == own):
                    return True
        return False


class _Candidate(NamedTuple):
    key: str
    each: InstalledAddress
    covered: bool  # by the prefix of another address on the member


class Adoption:
    """Chooses among the addresses that are on the members of one group."""

    def __init__(self) -> None:
        self._homes: frozenset[str] = frozenset()  # members whose addresses are adopted: all or none
        self._tests: frozenset[Address] = frozenset()
        self._selection = AddressSelection()
        self._started: set[str] = set()  # homes that have been looked at
        self._early: set[tuple[str, Address]] = set()  # what was there then
        self._guests: set[tuple[str, Address]] = set()  # found inside a prefix of their member, while they are there
        self.left_alone: tuple[NotAdopted, ...] = ()

    def configure(self, configuration: NodeGroup) -> None:
        """Take who may be a home, which addresses are there to test, and what is selected."""
        adopting = configuration.policies.existing is Existing.ADOPT
        self._homes = frozenset(member.key for member in configuration.members if adopting)
        self._tests = frozenset(m.test_ipv4.ip for m in configuration.members if m.test_ipv4 is not None)
        self._selection = configuration.policies.adoption
        self._started &= self._homes
        self._early = {(key, address) for key, address in self._early if key in self._homes}

    def memory(self) -> list[str]:
        """What a restarted agent must know: the members that were looked at. What came later, came later."""
        return sorted(self._started)

    def remember(self, started: Iterable[str]) -> None:
        """Take over what an earlier run remembered."""
        self._started = set(started) & self._homes

    def given_up(self, key: str, address: Address) -> None:
        """Its owner took an address off a member: it comes later if it comes again."""
        self._early.discard((key, address))

    @property
    def enabled(self) -> bool:
        """Whether anything is adopted."""
        return bool(self._homes)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The addresses that people may take to be safe, and are not."""
        return tuple(Finding(n.reason, n.message, n.interface) for n in self.left_alone if n.reason in _WARNED_OF)

    def may_live_on(self, key: str) -> bool:
        """Whether addresses found on this member are adopted."""
        return key in self._homes

    def keeps(self, home: str, body: bytes) -> bool:
        """Whether an address that was adopted on this member, as the kernel described it there, is adopted still."""
        each = addresses.decode(body)
        return self.may_live_on(home) and (each is None or self._not_selected(each) is None)

    def choose(
        self,
        installed: Mapping[str, Sequence[InstalledAddress]],
        is_known: Callable[[Address], bool],
        homes: Mapping[str, Iterable[InterfaceAddress]],
        speaks: Callable[[str], bool],
    ) -> list[tuple[str, InstalledAddress]]:
        """The addresses to adopt now, with the members they are on, the oldest of a member first.

        Args:
            speaks: whether a daemon of VRRP uses a member.
            installed: what is on the members, by key, in the order of the kernel.
            is_known: whether an address is one of the group already.
            homes: the adopted addresses of each member, which may be elsewhere.
        """
        self._start(installed)
        here = {(key, each.address.ip) for key, found in installed.items() for each in found}
        self._guests = {guest for guest in self._guests if guest in here or guest[0] not in installed}
        chosen: dict[Address, tuple[str, InstalledAddress]] = {}
        left_alone: list[NotAdopted] = []
        twice = set()
        for candidate in self._candidates(installed, is_known, homes):
            key, each, _ = candidate
            address = each.address.ip
            if (why := self._objection(candidate, speaks)) is not None:
                reason, words = why
                left_alone.append(NotAdopted(each.address, key, reason, f"{address} on {key} is not adopted: {words}"))
            elif address in chosen:
                twice.add(address)
                message = f"{address} is on {chosen[address][0]} and on {key}: take it off one; both are left alone"
                left_alone.append(NotAdopted(each.address, key, Reason.ADDRESS_CONFLICT, message))
            else:
                chosen[address] = key, each
        self.left_alone = tuple(left_alone)
        return [found for address, found in chosen.items() if address not in twice]

    def _start(self, installed: Mapping[str, Sequence[InstalledAddress]]) -> None:
        """Note what is on a member that is looked at for the first time."""
        for key in installed.keys() & (self._homes - self._started):
            self._started.add(key)
            self._early |= {(key, each.address.ip) for each in installed[key]}

    def _candidates(
        self,
        installed: Mapping[str, Sequence[InstalledAddress]],
        is_known: Callable[[Address], bool],
        homes: Mapping[str, Iterable[InterfaceAddress]],
    ) -> Iterator[_Candidate]:
        for key, found in installed.items():
            if key in self._homes:
                prefixes = _Prefixes(found, homes.get(key, ()))
                for each in oldest_first(found):
                    ours = each.owned or each.address.ip in self._tests or is_known(each.address.ip)
                    if not ours and _is_global(each):
                        yield _Candidate(key, each, prefixes.cover(each))

    def _objection(self, candidate: _Candidate, speaks: Callable[[str], bool]) -> tuple[Reason, str] | None:
        """Why an address is not adopted; None: it is."""
        key, each, covered = candidate
        if each.scope != netlink.RT_SCOPE_UNIVERSE:
            return Reason.OTHER_SCOPE, "its scope is not global"
        if each.has_peer:
            return Reason.PEER_ADDRESS, (
                "it has a peer, and a host with arp_ignore=1 answers no ARP request for such an address. Lay it as /32"
                " with a route to the peer."
            )
        if each.leased:
            return Reason.DHCP_MANAGED, _leased(each)
        if each.duplicate:
            return Reason.DUPLICATE_ADDRESS, "another host on the link has it, as the kernel found"
        if not each.usable:
            return Reason.TENTATIVE_ADDRESS, "the kernel still looks whether another host has it"
        if (words := self._not_selected(each)) is not None:
            return Reason.NOT_SELECTED, words
        if each.borrowed or self._selection.when is AdoptWhen.ALWAYS:
            return None
        return self._guest(key, each, speaks, covered=covered)

    def _not_selected(self, each: InstalledAddress) -> str | None:
        wanted, address = self._selection, each.address.ip
        if each.protocol == addresses.IFAPROT_KEEPALIVED:
            return "it is a VIP of keepalived"
        if wanted.prefixes and not any(address in network for network in wanted.prefixes):
            return "it is in none of the prefixes of dataAddresses.adoption"
        if any(address in network for network in wanted.exclude):
            return "dataAddresses.adoption excludes it"
        if wanted.labels and each.label not in wanted.labels:
            return "dataAddresses.adoption does not name its label"
        if wanted.protocols and each.protocol not in wanted.protocols:
            return f"dataAddresses.adoption does not name its protocol, {each.protocol}"
        return None

    def _guest(
        self, key: str, each: InstalledAddress, speaks: Callable[[str], bool], *, covered: bool
    ) -> tuple[Reason, str] | None:
        """Whether an address seems to be brought, and to be taken away again, by a program of its own."""
        guest = key, each.address.ip
        single = each.address.network.prefixlen == each.address.max_prefixlen
        if single and (covered or guest in self._guests):
            self._guests.add(guest)  # what becomes of the prefix does not make it the host's own
            words = "it is a single host address inside a prefix of its interface, as programs lay VIPs"
        elif guest not in self._early and (single or covered):
            words = "it came after the group had started, and brings no prefix of its own"
        elif guest in self._guests or (each.secondary and speaks(key)):
            self._guests.add(guest)  # a daemon that was killed leaves its VIP behind
            words = "it is not the first of its prefix, and a daemon of VRRP uses the interface: it may be its VIP"
        else:
            return None
        ask = "If it is to move with the group, name it in dataAddresses.assigned, or set adoption.when to Always."
        return Reason.GUEST_ADDRESS, f"{words}. {ask}"


def _is_global(each: InstalledAddress) -> bool:
    address = each.address.ip
    return not address.is_link_local and not address.is_multicast and not address.is_loopback


def oldest_first(found: Sequence[InstalledAddress]) -> Iterator[InstalledAddress]:
    """The kernel appends an IPv4 address to those of an interface, and puts an IPv6 address in front of them."""
    yield from (each for each in found if each.address.version == 4)
    yield from (each for each in reversed(found) if each.address.version == 6)


def _leased(each: InstalledAddress) -> str:
    who = "router advertisements manage it" if each.by_router else "it has a lifetime, as DHCP gives one"
    return (
        f"{who}, and whoever manages it would put it back where it was."
        " Configure it statically, or set dataAddresses.existing to Ignore."
    )
