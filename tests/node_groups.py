"""Node groups as the agent obeys them, for every test: one builder, and what each kind of test leaves out is usual."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, Any

from ipmp_api.parse import node_group_spec
from ipmp_api.types import DataAddress, InterfaceMatch, Member, NodeGroup, Policies, Role, TargetSources

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ipmp_api.types import Address, InterfaceAddress


def node_group(
    name: str,
    members: Iterable[str | Member],
    *,
    node: str = "node1",
    standby: Collection[str] = (),
    addresses: Iterable[str | InterfaceAddress] = (),
    targets: Iterable[str | Address] | TargetSources = (),
    offline: Iterable[str] = (),
    **policies: Any,
) -> NodeGroup:
    """A compiled group.

    Args:
        name: of the group.
        members: as they are, or the names of their interfaces.
        node: its name.
        standby: which of the named interfaces have that role.
        addresses: data addresses with their prefix length.
        targets: who is probed: pins, or every source.
        offline: keys of members that people have taken out of use.
        policies: fields of `Policies`; those left out have their default.
    """
    if not isinstance(targets, TargetSources):
        targets = TargetSources(addresses=tuple(ip_address(target) for target in targets))
    return NodeGroup(
        group_name=name,
        node_name=node,
        members=tuple(
            one
            if isinstance(one, Member)
            else Member(InterfaceMatch(name=one), Role.STANDBY if one in standby else Role.ACTIVE)
            for one in members
        ),
        data_addresses=tuple(DataAddress(ip_interface(address)) for address in addresses),
        policies=Policies(targets=targets, **policies),
        offline=tuple(offline),
    )


def node_group_manifest(group: NodeGroup) -> dict[str, Any]:
    """The whole IPMPNodeGroup object, without what only the operator's own has."""
    return {
        "apiVersion": "ipmp.dev/v1alpha1",
        "kind": "IPMPNodeGroup",
        "metadata": {"name": group.name},
        "spec": node_group_spec(group),
    }
