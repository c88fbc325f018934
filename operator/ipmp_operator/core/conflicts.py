"""Two groups that claim one interface on one node: the older group keeps it, the younger does without it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ipmp_api.types import Group, InterfaceMatch
    from ipmp_operator.core.model import NodeGroupReport


@frozen
class InterfaceConflict:
    """A member that a younger group has to do without on one node."""

    group: str
    node: str
    interface: str  # the member's key in the younger group
    owner: str  # the older group


@frozen
class Conflicts:
    """What every group has to do without."""

    by_group: Mapping[str, tuple[InterfaceConflict, ...]]
    lost: Mapping[tuple[str, str], frozenset[str]]  # (group, node) -> keys of the members it does without

    def keys_lost(self, group: str, node: str) -> frozenset[str]:
        """The member keys that the group does without on the node."""
        return self.lost.get((group, node), frozenset())


def find_conflicts(
    groups: Sequence[Group],
    selected: Mapping[str, Iterable[str]],
    statuses: Mapping[tuple[str, str], NodeGroupReport],
) -> Conflicts:
    """Find every interface that two groups claim on one node.

    `groups` come oldest first; `selected` names the nodes of each; `statuses`, by (group, node), tell which MAC address
    belongs to which name, so that a claim by name and one by MAC address meet.
    """
    found: list[InterfaceConflict] = []
    owners: dict[str, dict[str, str]] = defaultdict(dict)  # node -> identity of an interface -> group
    contested = _nodes_of_several(groups, selected)
    for group in groups:
        for node in selected[group.name]:
            if node not in contested:
                continue
            owned = owners[node]
            status = statuses.get((group.name, node))
            aliases = _aliases(status) if status else {}
            for interface in group.interfaces:
                key = interface.match.key
                identity = _identity(interface.match)
                identities = {identity, *aliases.get(identity, ())}
                owner = next((owned[i] for i in sorted(identities) if i in owned), None)
                if owner is None:
                    owned.update(dict.fromkeys(identities, group.name))
                elif owner != group.name:  # the same member twice in one group is the API server's to refuse
                    found.append(InterfaceConflict(group.name, node, key, owner))
    return _collect(found)


def _nodes_of_several(groups: Sequence[Group], selected: Mapping[str, Iterable[str]]) -> set[str]:
    once: set[str] = set()
    several: set[str] = set()
    for group in groups:
        nodes = set(selected[group.name])
        several |= once & nodes
        once |= nodes
    return several


def _identity(match: InterfaceMatch) -> str:
    if match.name:
        return f"name {match.name}"
    if match.mac_address:
        return f"mac {match.mac_address.lower()}"
    return f"pci {match.key.lower()}"


def _aliases(status: NodeGroupReport) -> dict[str, tuple[str, ...]]:
    """Map each identity that the agent reports of a member to the others of the same member."""
    aliases: dict[str, tuple[str, ...]] = {}
    for interface in status.interfaces:
        if interface.mac_address:
            name, mac = f"name {interface.name}", f"mac {interface.mac_address.lower()}"
            aliases[name], aliases[mac] = (mac,), (name,)
    return aliases


def _collect(found: Sequence[InterfaceConflict]) -> Conflicts:
    by_group: dict[str, list[InterfaceConflict]] = defaultdict(list)
    lost: dict[tuple[str, str], set[str]] = defaultdict(set)
    for conflict in found:
        by_group[conflict.group].append(conflict)
        lost[conflict.group, conflict.node].add(conflict.interface)
    return Conflicts(
        {group: tuple(conflicts) for group, conflicts in by_group.items()},
        {where: frozenset(keys) for where, keys in lost.items()},
    )
