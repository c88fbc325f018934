"""The compile step: a group and a node make a node group. The operator and the agent that runs from a file share it."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Interface
from typing import TYPE_CHECKING

from ipmp_api.addresses import BITS, addresses_of
from ipmp_api.errors import FieldError, ValidationError
from ipmp_api.types import DataAddress, Member, NodeGroup, Origin

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping

    from ipmp_api.types import Address, Group, InterfaceAddress, LabelRequirement, LabelSelector, Pool


def matches(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Whether a Kubernetes label selector selects labels; the empty one selects all."""
    return all(labels.get(key) == value for key, value in selector.match_labels) and all(
        _holds(requirement, labels) for requirement in selector.match_expressions
    )


def _holds(requirement: LabelRequirement, labels: Mapping[str, str]) -> bool:
    match requirement.operator:
        case "In":
            return labels.get(requirement.key) in requirement.values
        case "NotIn":
            return labels.get(requirement.key) not in requirement.values
        case "Exists":
            return requirement.key in labels
        case "DoesNotExist":
            return requirement.key not in labels
        case other:
            raise ValueError(f"unknown operator {other!r}")


def free_addresses(pool: Pool, taken: Container[Address]) -> Iterator[Address]:
    """The addresses of a pool that are neither excluded nor taken, in the order of its ranges."""
    return (address for address in addresses_of(pool.ranges, pool.exclude) if address not in taken)


def pool_interface(pool: Pool, address: Address) -> InterfaceAddress:
    """A pool's address with the prefix length the pool gives it."""
    length = BITS[address.version] if pool.prefix_length is None else pool.prefix_length
    # Made from numbers: the operator does this for every address of a cluster, and text costs five times as much.
    return (IPv4Interface if address.version == 4 else IPv6Interface)((int(address), length))


def assigned_addresses(group: Group) -> frozenset[Address]:
    """Every address that the group assigns to any node by hand: no pool may give it away."""
    return frozenset(a.ip for assignment in group.data_addresses.assigned for a in assignment.addresses)


def assigned_elsewhere(group: Group, node_name: str) -> tuple[str, ...]:
    """The nodes that the group assigns addresses to, where this one is none of them and has no pool either."""
    nodes = tuple(assignment.node_name for assignment in group.data_addresses.assigned)
    return () if node_name in nodes or group.data_addresses.pools else nodes


def compile_for_node(
    group: Group,
    node_name: str,
    *,
    pool_addresses: Mapping[str, tuple[Address, ...]],
    test_ipv4: Mapping[str, IPv4Interface],
    peers: tuple[Address, ...],
    peer_nodes: tuple[str, ...] = (),
) -> NodeGroup:
    """Compile a group for one node.

    Args:
        group: the group.
        node_name: the node.
        pool_addresses: by name of pool, what is allotted to this node; a pool without an entry gives nothing.
        test_ipv4: by key of member, its IPv4 test address; a member without an entry has none.
        peers: where members on other nodes can be probed over IPv4.
        peer_nodes: the nodes where they are.

    Returns:
        Data addresses in the order assigned, then pools as written; an address that comes twice is there once.
    """
    data: dict[Address, DataAddress] = {}
    for assignment in group.data_addresses.assigned:
        if assignment.node_name == node_name:
            for interface_address in assignment.addresses:
                data.setdefault(interface_address.ip, DataAddress(interface_address, Origin.ASSIGNED))
    for pool in group.data_addresses.pools:
        for address in pool_addresses.get(pool.name, ()):
            data.setdefault(address, DataAddress(pool_interface(pool, address), Origin.POOL))
    return NodeGroup(
        group_name=group.name,
        node_name=node_name,
        members=tuple(Member(i.match, i.role, test_ipv4.get(i.match.key)) for i in group.interfaces),
        data_addresses=tuple(data.values()),
        peers=peers,
        peer_nodes=peer_nodes,
        policies=group.policies,
    )


def compile_for_file(group: Group, node_name: str) -> NodeGroup:
    """Compile a group for the only node there is: an agent that runs from a file, without an operator.

    Each pool gives its first free addresses, the test pool one to each member in order, the same at every start. The
    node selector is not asked: there are no labels. Nobody coordinates several nodes that read one file, so give those
    their addresses by `assigned`, or a pool each.

    Raises:
        ValidationError: a pool has too few addresses beside those taken by `assigned` and by other pools.
    """
    taken = set(assigned_addresses(group))
    pool_addresses = {}
    errors = []
    for index, pool in enumerate(group.data_addresses.pools):
        found = _take(pool, pool.per_node, taken)
        pool_addresses[pool.name] = found
        if len(found) < pool.per_node:
            errors.append(_exhausted(f"spec.dataAddresses.pools[{index}].perNode", len(found), pool.per_node))
    test_ipv4 = {}
    if (test_pool := group.test_addresses.ipv4) is not None:
        found = _take(test_pool, len(group.interfaces), taken)
        if len(found) < len(group.interfaces):
            errors.append(_exhausted("spec.testAddresses.ipv4.pool", len(found), len(group.interfaces)))
        for interface, address in zip(group.interfaces, found, strict=False):
            test_ipv4[interface.match.key] = IPv4Interface(str(pool_interface(test_pool, address)))
    if errors:
        raise ValidationError(tuple(errors))
    return compile_for_node(group, node_name, pool_addresses=pool_addresses, test_ipv4=test_ipv4, peers=())


def _take(pool: Pool, wanted: int, taken: set[Address]) -> tuple[Address, ...]:
    found = tuple(address for address, _ in zip(free_addresses(pool, taken), range(wanted), strict=False))
    taken.update(found)
    return found


def _exhausted(field: str, free: int, wanted: int) -> FieldError:
    message = f"the pool has {free} addresses left beside those assigned or in other pools, and one node needs {wanted}"
    return FieldError(field, wanted, message)
