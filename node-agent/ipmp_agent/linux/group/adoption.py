"""Which addresses of the host a group takes care of, and which it must leave alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_agent.core.findings import Finding
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.messages import netlink
from ipmp_api.types import Existing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ipmp_agent.linux.messages.addresses import InstalledAddress
    from ipmp_api.types import Address, NodeGroup


class Adoption:
    """Chooses among the addresses that are on the members of one group."""

    def __init__(self) -> None:
        self._homes: frozenset[str] = frozenset()  # members whose addresses are adopted: all or none
        self._tests: frozenset[Address] = frozenset()
        self.findings: tuple[Finding, ...] = ()

    def configure(self, configuration: NodeGroup) -> None:
        """Take who may be a home, and which addresses are there to test."""
        adopting = configuration.policies.existing is Existing.ADOPT
        self._homes = frozenset(member.key for member in configuration.members if adopting)
        self._tests = frozenset(m.test_ipv4.ip for m in configuration.members if m.test_ipv4 is not None)

    @property
    def enabled(self) -> bool:
        """Whether anything is adopted."""
        return bool(self._homes)

    def may_live_on(self, key: str) -> bool:
        """Whether addresses found on this member are adopted."""
        return key in self._homes

    def choose(
        self, installed: Mapping[str, Sequence[InstalledAddress]], is_known: Callable[[Address], bool]
    ) -> list[tuple[str, InstalledAddress]]:
        """The addresses to adopt now, with the members they are on, the oldest of a member first.

        Args:
            installed: what is on the members, by key, in the order of the kernel.
            is_known: whether an address is one of the group already.
        """
        chosen: dict[Address, tuple[str, InstalledAddress]] = {}
        twice = set()
        findings = []
        for key, each in self._candidates(installed, is_known):
            address = each.address.ip
            if each.leased:
                findings.append(Finding(Reason.DHCP_MANAGED, _leased(each, key), key))
            elif address in chosen:
                twice.add(address)
                message = f"{address} is on {chosen[address][0]} and on {key}: take it off one; both are left alone"
                findings.append(Finding(Reason.ADDRESS_CONFLICT, message, key))
            elif each.usable and not each.has_peer:
                chosen[address] = key, each
        self.findings = tuple(findings)
        return [found for address, found in chosen.items() if address not in twice]

    def _candidates(
        self, installed: Mapping[str, Sequence[InstalledAddress]], is_known: Callable[[Address], bool]
    ) -> Iterator[tuple[str, InstalledAddress]]:
        for key, found in installed.items():
            if key in self._homes:
                for each in oldest_first(found):
                    ours = each.owned or each.address.ip in self._tests or is_known(each.address.ip)
                    if not ours and _is_global(each):
                        yield key, each


def _is_global(each: InstalledAddress) -> bool:
    address = each.address.ip
    return (
        each.scope == netlink.RT_SCOPE_UNIVERSE
        and not address.is_link_local
        and not address.is_multicast
        and not address.is_loopback
    )


def oldest_first(found: Sequence[InstalledAddress]) -> Iterator[InstalledAddress]:
    """The kernel appends an IPv4 address to those of an interface, and puts an IPv6 address in front of them."""
    yield from (each for each in found if each.address.version == 4)
    yield from (each for each in reversed(found) if each.address.version == 6)


def _leased(each: InstalledAddress, key: str) -> str:
    who = "router advertisements manage it" if each.by_router else "it has a lifetime, as DHCP gives one"
    return (
        f"{each.address.ip} on {key} is not adopted: {who}, and whoever manages it would put it back where it was."
        " Configure it statically, or set dataAddresses.existing to Ignore."
    )
