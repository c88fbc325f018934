"""Where probes come from and whom they ask, before anybody has answered: test addresses and named targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_agent.core.events import Family
from ipmp_agent.core.targets import TargetOrigin
from ipmp_api.types import TestAddressIPv6

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ipmp_agent.core.interface import Interface
    from ipmp_api.types import Address, NodeGroup


def usable_test_address(
    interface: Interface, family: Family, configuration: NodeGroup, used_twice: set[Address]
) -> tuple[Address | None, bool]:
    """The test address that a member may probe from now, or None; and whether one is configured at all."""
    source = interface.test_addresses.get(family)
    if source in used_twice or family in interface.duplicates:
        source = None
    if family is Family.IPV4:
        return source, interface.member.test_ipv4 is not None
    addressed = configuration.policies.test_ipv6 is TestAddressIPv6.LINK_LOCAL
    return (source if addressed else None), addressed


def own_addresses(configuration: NodeGroup, interfaces: Sequence[Interface]) -> set[Address]:
    """The addresses of this node that must not be probed: they prove nothing."""
    own = {a.address.ip for a in configuration.data_addresses}
    own |= {address for interface in interfaces for address in interface.test_addresses.values()}
    return own | {member.test_ipv4.ip for member in configuration.members if member.test_ipv4}


def named_targets(configuration: NodeGroup, routers: Sequence[Address]) -> dict[Address, TargetOrigin]:
    """The targets that somebody named, pins first, then routers, then peers."""
    sources = configuration.policies.targets
    named: dict[Address, TargetOrigin] = dict.fromkeys(sources.addresses, TargetOrigin.PIN)
    for enabled, addresses, origin in (
        (sources.routers, routers, TargetOrigin.ROUTER),
        (sources.peers, configuration.peers, TargetOrigin.PEER),
    ):
        for address in addresses if enabled else ():
            named.setdefault(address, origin)
    return named
