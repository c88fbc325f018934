"""What has to exist: every node group of every group, and what of the existing ones has to go.

`plan` looks at everything at once, because addresses and interfaces are contested between groups. It is linear in
nodes, and it is given what it decided before: a decision counts from the moment it was made, not from when the API
server echoes it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import field, replace
from enum import StrEnum
from itertools import chain, islice
from typing import TYPE_CHECKING

from ipmp_api.addresses import usable_count
from ipmp_api.compile import assigned_addresses, compile_for_node, matches
from ipmp_api.frozen import frozen
from ipmp_api.parse import TEST_POOL_NAME
from ipmp_api.types import Assignment
from ipmp_operator.core.allocate import QUARANTINE, Claim, Quarantine, allocate
from ipmp_operator.core.conflicts import find_conflicts
from ipmp_operator.core.model import Holder, seniority
from ipmp_operator.core.peers import choose_peers
from ipmp_operator.core.rollup import Findings, NodeReport, roll_up

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

    from ipmp_api.types import Address, Group, InterfaceAddress, LabelSelector, NodeGroup, Pool
    from ipmp_operator.core.allocate import AddressConflict, Allocation, Allocations, Exhausted
    from ipmp_operator.core.conflicts import Conflicts
    from ipmp_operator.core.model import Node, Observed
    from ipmp_operator.core.rollup import Rollup

WITHDRAWAL = 300.0
"""Seconds that an agent may take to withdraw a node group; then its finalizer goes without the agent."""
BELIEVED = 16
"""Addresses that an agent may report beyond what its node group was given, at least."""
OS_LABEL = "kubernetes.io/os"


class Release(StrEnum):
    """Why the finalizer of a node group may go."""

    WITHDRAWN = "Withdrawn"  # the agent says that nothing of it is left
    NODE_GONE = "NodeGone"  # nobody is left to say so
    TIMEOUT = "WithdrawTimeout"  # nobody said so in time


@frozen
class View:
    """Everything the plan is made from.

    `invalid` names the groups that cannot be read, with the reason: what they have stays as it is.
    `agents` names the nodes whose agent is ready. `now` is in seconds since the epoch.
    """

    groups: Sequence[Group]
    invalid: Mapping[str, str]
    nodes: Mapping[str, Node]
    observed: Mapping[Holder, Observed]
    agents: frozenset[str]
    now: float


@frozen
class Memory:
    """What one plan leaves to the next."""

    desired: Mapping[Holder, NodeGroup] = field(default_factory=dict)
    in_use: Mapping[Address, Holder] = field(default_factory=dict)
    quarantined: Mapping[Address, Quarantine] = field(default_factory=dict)


@frozen
class PoolUse:
    """How much of a pool is given to nodes, in addresses."""

    size: int
    given: int


@frozen
class Share:
    """What a plan says of one group, beside its node groups."""

    nodes: Sequence[str]  # that the group selects, or where it is though it cannot be read
    missing: Mapping[str, int]  # by node, the addresses that nobody could give
    findings: Findings


@frozen
class Plan:
    """What has to be."""

    desired: Mapping[Holder, NodeGroup]  # the object that was observed, where it says so already
    delete: frozenset[Holder]
    release: Mapping[Holder, Release]
    shares: Mapping[str, Share]
    rollups: Mapping[str, Rollup]
    pools: Mapping[tuple[str, str], PoolUse]  # by group and pool
    selectors: tuple[LabelSelector, ...]
    withdrawing: tuple[Node, ...]  # nodes that need an agent though no group selects them
    next_deadline: float | None  # when time alone changes the plan
    memory: Memory


def plan(view: View, memory: Memory, withdraw_seconds: float = WITHDRAWAL) -> Plan:
    """Plan everything from what is seen now and what was decided before."""
    groups = sorted(view.groups, key=seniority)
    selected = _select(groups, view.nodes.values())
    statuses = {(h.group, h.node): o.status for h, o in view.observed.items()}
    conflicts = find_conflicts(groups, selected, statuses)
    members = _members(groups, selected, conflicts)
    going = {holder for holder, seen in view.observed.items() if seen.deleting_since is not None}

    held = _held(groups, view.observed, memory)
    quarantined = _quarantined(memory, held, view.now)
    claims = list(_claims(groups, members, going, view, memory))
    reserved = frozenset(address for group in groups for address in assigned_addresses(group))
    reported = _reported(view.observed, held, quarantined)
    allocations = allocate(claims, held, quarantined, reported, reserved)
    desired = _compile(groups, members, allocations, view, memory)

    owned = {group.name for group in groups}
    delete = frozenset(
        holder
        for holder in view.observed
        # A group that is not seen is no proof that it is gone: its node groups are the garbage collector's.
        if holder.group in owned and holder not in desired and holder not in going
    )
    release, deadlines = _release(view, going, withdraw_seconds)
    if allocations.exhausted:
        deadlines.extend(quarantine.until for quarantine in quarantined.values())
    shares = _shares(groups, selected, conflicts, allocations, view)
    return Plan(
        desired=desired,
        delete=delete,
        release=release,
        shares=shares,
        rollups=roll_up_groups(shares, desired, view),
        pools=_pool_use(groups, allocations),
        selectors=tuple(group.node_selector for group in groups),
        withdrawing=_withdrawing(view, desired),
        next_deadline=min(deadlines, default=None),
        memory=Memory(desired, _in_use(held, desired), quarantined),
    )


def still_holds(planned: Plan, view: View, now: View) -> bool:
    """Whether a plan made from `view` is the one that would be made from what is seen now.

    Then only the groups' status may differ: most of what agents report decides nothing.
    """
    if planned.next_deadline is not None and now.now >= planned.next_deadline:
        return False
    if (now.groups, now.invalid, now.nodes) != (view.groups, view.invalid, view.nodes):
        return False
    before = view.observed
    if not before.keys() <= now.observed.keys():
        return False
    contested = _contested(planned.shares.values())
    changed = [(h, seen, before.get(h)) for h, seen in now.observed.items() if seen is not before.get(h)]
    return all(
        _as_planned(seen, old, planned.desired.get(holder))
        and (holder.node not in contested or _names(seen) == _names(old))
        for holder, seen, old in changed
    )


def _contested(shares: Iterable[Share]) -> set[str]:
    """The nodes of several groups, which may claim one interface: there the names of members decide."""
    counts = Counter(chain.from_iterable(share.nodes for share in shares))
    return {node for node, count in counts.items() if count > 1}


def _names(seen: Observed | None) -> list[tuple[str, str | None]]:
    return [] if seen is None else [(each.name, each.mac_address) for each in seen.status.interfaces]


def _as_planned(seen: Observed, before: Observed | None, desired: NodeGroup | None) -> bool:
    """Whether a node group is as it was, but for what a plan foresaw (that it is written) and what decides nothing."""
    if before is None:
        foreseen = seen.finalizer and seen.deleting_since is None and not seen.status.withdrawn
        return desired is not None and seen.spec is desired and foreseen and not _strange(seen)
    if _standing(seen) != _standing(before) or _strange(seen) != _strange(before):
        return False
    return seen.generation == before.generation or (
        desired is not None and seen.spec is desired and set(seen.held) == set(before.held)
    )


def _standing(seen: Observed) -> tuple[object, ...]:
    return seen.uid, seen.owner_uid, seen.finalizer, seen.deleting_since, seen.status.withdrawn


def _strange(seen: Observed) -> set[Address]:
    """The addresses that an agent reports beyond what its node group holds."""
    return set(seen.status.present).difference(seen.held)


def _select(groups: Iterable[Group], nodes: Iterable[Node]) -> dict[str, list[str]]:
    ordered = sorted((node for node in nodes if node.labels.get(OS_LABEL, "linux") == "linux"), key=lambda n: n.name)
    return {g.name: [node.name for node in ordered if matches(g.node_selector, node.labels)] for g in groups}


def _members(
    groups: Iterable[Group], selected: Mapping[str, Sequence[str]], conflicts: Conflicts
) -> dict[str, dict[str, tuple[str, ...]]]:
    """By group and node, the keys of the members there; nodes that are left without any are left out."""
    result: dict[str, dict[str, tuple[str, ...]]] = {}
    for group in groups:
        every = tuple(interface.match.key for interface in group.interfaces)
        nodes = result[group.name] = {}
        for node in selected[group.name]:
            lost = conflicts.keys_lost(group.name, node)
            keys = tuple(key for key in every if key not in lost) if lost else every
            if keys:
                nodes[node] = keys
    return result


def _held(groups: Sequence[Group], observed: Mapping[Holder, Observed], memory: Memory) -> dict[Address, Holder]:
    """Who holds each address now, or was just given it; where two do, the older group."""
    age = {group.name: at for at, group in enumerate(groups)}
    held: dict[Address, Holder] = {}
    for holder in sorted(observed, key=lambda h: (age.get(h.group, len(age)), h)):
        for address in observed[holder].held:
            held.setdefault(address, holder)
    for holder, spec in memory.desired.items():
        for address in _addresses(spec):
            held.setdefault(address, holder)
    return held


def _quarantined(memory: Memory, held: Mapping[Address, Holder], now: float) -> dict[Address, Quarantine]:
    """The addresses that nobody holds any more, and for how long nobody else may."""
    quarantined = {a: q for a, q in memory.quarantined.items() if q.until > now and a not in held}
    for address, holder in memory.in_use.items():
        if address not in held:
            quarantined.setdefault(address, Quarantine(holder, now + QUARANTINE))
    return quarantined


def _reported(
    observed: Mapping[Holder, Observed], held: Mapping[Address, Holder], quarantined: Mapping[Address, Quarantine]
) -> dict[Address, Holder]:
    """The addresses that agents report on interfaces, as far as they are believed.

    What somebody was given no other's word takes from him. Beside that a host has addresses of its own, and one whose
    agent kept to the configuration before has those that an operator before this one gave it: no more than it has now,
    or BELIEVED, or one compromised agent could keep a whole pool from the cluster.
    """
    given = {address: quarantine.holder for address, quarantine in quarantined.items()} | dict(held)
    theirs: dict[Address, Holder] = {}
    others: dict[Address, Holder] = {}
    for holder in sorted(observed):
        seen = observed[holder]
        theirs.update((address, holder) for address in seen.status.present if given.get(address) == holder)
        strange = sorted({a for a in seen.status.present if a not in given}, key=lambda a: (a.version, int(a)))
        for address in strange[: max(BELIEVED, len(seen.held))]:
            others.setdefault(address, holder)
    return others | theirs


def _in_use(held: Mapping[Address, Holder], desired: Mapping[Holder, NodeGroup]) -> dict[Address, Holder]:
    in_use = dict(held)
    for holder, spec in desired.items():
        in_use.update(dict.fromkeys(_addresses(spec), holder))
    return in_use


def _addresses(spec: NodeGroup) -> list[Address]:
    addresses: list[Address] = [data.address.ip for data in spec.data_addresses]
    addresses.extend(member.test_ipv4.ip for member in spec.members if member.test_ipv4 is not None)
    return addresses


def _claims(
    groups: Iterable[Group],
    members: Mapping[str, Mapping[str, tuple[str, ...]]],
    going: Container[Holder],
    view: View,
    memory: Memory,
) -> Iterator[Claim]:
    """What each node group asks for. One that is being deleted asks for nothing: a new one may come once it is gone."""
    for group in groups:
        by_hand: dict[str, list[InterfaceAddress]] = {}
        for entry in group.data_addresses.assigned:
            by_hand.setdefault(entry.node_name, []).extend(entry.addresses)
        for node, keys in members[group.name].items():
            holder = Holder(group.name, node)
            if holder in going:
                continue
            current = _current(holder, view, memory)
            yield Claim(
                holder=holder,
                pools=group.data_addresses.pools,
                assigned=tuple(by_hand.get(node, ())),
                test_pool=group.test_addresses.ipv4,
                members=keys,
                data_now=tuple(data.address.ip for data in current.data_addresses) if current else (),
                test_now={m.key: m.test_ipv4.ip for m in current.members if m.test_ipv4} if current else {},
            )


def _current(holder: Holder, view: View, memory: Memory) -> NodeGroup | None:
    """What the node group has been given: by the last plan, or by an operator before this one."""
    if (decided := memory.desired.get(holder)) is not None:
        return decided
    seen = view.observed.get(holder)
    return seen.spec if seen else None


def _compile(
    groups: Iterable[Group],
    members: Mapping[str, Mapping[str, tuple[str, ...]]],
    allocations: Allocations,
    view: View,
    memory: Memory,
) -> dict[Holder, NodeGroup]:
    """What each node group has to say.

    One that says it already is given as it was read, else as it was planned before: kept once, and compared once.
    """
    desired: dict[Holder, NodeGroup] = {}
    for group in groups:
        here = members[group.name]
        bare = replace(group, data_addresses=replace(group.data_addresses, assigned=()))
        probing = bool(group.policies.targets.peers)
        peers = choose_peers(group.name, here, _peers_now(group, here, view, memory)) if probing else {}
        reachable = {node: _probe_address(Holder(group.name, node), allocations) for node in here}
        for node, keys in here.items():
            holder = Holder(group.name, node)
            allocation = allocations.by_holder.get(holder)
            if allocation is None:
                continue
            spec = compile_for_node(
                _granted(bare, node, keys, allocation),
                node,
                pool_addresses=allocation.pools,
                test_ipv4=allocation.test,
                peers=tuple(address for peer in peers.get(node, ()) for address in reachable[peer]),
                peer_nodes=peers.get(node, ()),
            )
            seen = view.observed.get(holder)
            known = (seen.spec if seen else None, memory.desired.get(holder))
            desired[holder] = next((one for one in known if one == spec), spec)
    return desired


def _granted(bare: Group, node: str, keys: Sequence[str], allocation: Allocation) -> Group:
    """The group with the members and hand-assigned addresses that this node really gets."""
    if allocation.assigned:
        assigned = (Assignment(node, allocation.assigned),)
        bare = replace(bare, data_addresses=replace(bare.data_addresses, assigned=assigned))
    if len(keys) < len(bare.interfaces):
        bare = replace(bare, interfaces=tuple(i for i in bare.interfaces if i.match.key in keys))
    return bare


def _peers_now(group: Group, nodes: Iterable[str], view: View, memory: Memory) -> dict[str, tuple[str, ...]]:
    """By node, the nodes that it probes so far."""
    current = {node: _current(Holder(group.name, node), view, memory) for node in nodes}
    return {node: spec.peer_nodes for node, spec in current.items() if spec is not None}


def _probe_address(holder: Holder, allocations: Allocations) -> tuple[Address, ...]:
    """The IPv4 address where a node can be probed, or nothing.

    A data address is better than a test address: it is where a working member is. Where the node answers over IPv6 its
    agent says, and the agents of others ask: written here, each first report would rewrite five specs.
    """
    allocation = allocations.by_holder.get(holder)
    if allocation is None:
        return ()
    assigned = (address.ip for address in allocation.assigned)
    pooled = chain.from_iterable(allocation.pools.values())
    tests = (test.ip for test in allocation.test.values())
    return tuple(islice((ip for ip in chain(assigned, pooled, tests) if ip.version == 4), 1))


def _release(view: View, going: Iterable[Holder], withdraw_seconds: float) -> tuple[dict[Holder, Release], list[float]]:
    """The node groups whose finalizer may go, and when the next one's time is over."""
    release: dict[Holder, Release] = {}
    deadlines: list[float] = []
    for holder in going:
        seen = view.observed[holder]
        if not seen.finalizer or seen.deleting_since is None:
            continue
        deadline = seen.deleting_since + withdraw_seconds
        if seen.status.withdrawn:
            release[holder] = Release.WITHDRAWN
        elif holder.node not in view.nodes:
            release[holder] = Release.NODE_GONE
        elif view.now >= deadline:
            release[holder] = Release.TIMEOUT
        else:
            deadlines.append(deadline)
    return release, deadlines


def _withdrawing(view: View, desired: Mapping[Holder, NodeGroup]) -> tuple[Node, ...]:
    """The nodes that still need an agent for a node group that is not wanted any more."""
    names = {holder.node for holder in view.observed if holder not in desired}
    return tuple(view.nodes[name] for name in sorted(names) if name in view.nodes)


def _pool_use(groups: Iterable[Group], allocations: Allocations) -> dict[tuple[str, str], PoolUse]:
    given: Counter[tuple[str, str]] = Counter()
    for holder, allocation in allocations.by_holder.items():
        for name, addresses in allocation.pools.items():
            given[holder.group, name] += len(addresses)
        given[holder.group, TEST_POOL_NAME] += len(allocation.test)
    return {
        (group.name, pool.name): PoolUse(usable_count(pool.ranges, pool.exclude), given[group.name, pool.name])
        for group in groups
        for pool in _pools(group)
    }


def _pools(group: Group) -> tuple[Pool, ...]:
    test = group.test_addresses.ipv4
    return group.data_addresses.pools if test is None else (*group.data_addresses.pools, test)


def _shares(
    groups: Iterable[Group],
    selected: Mapping[str, Sequence[str]],
    conflicts: Conflicts,
    allocations: Allocations,
    view: View,
) -> dict[str, Share]:
    exhausted: dict[str, list[Exhausted]] = {}
    for shortage in allocations.exhausted:
        exhausted.setdefault(shortage.holder.group, []).append(shortage)
    clashes: dict[str, list[AddressConflict]] = {}
    for clash in allocations.conflicts:
        clashes.setdefault(clash.holder.group, []).append(clash)
    shares: dict[str, Share] = {}
    for group in groups:
        missing: Counter[str] = Counter()
        for shortage in exhausted.get(group.name, ()):
            missing[shortage.holder.node] += shortage.missing
        findings = Findings(
            interface_conflicts=conflicts.by_group.get(group.name, ()),
            address_conflicts=tuple(clashes.get(group.name, ())),
            exhausted=tuple(exhausted.get(group.name, ())),
        )
        shares[group.name] = Share(selected[group.name], missing, findings)
    for name, reason in view.invalid.items():
        there = sorted(holder.node for holder in view.observed if holder.group == name)
        shares[name] = Share(there, {}, Findings(invalid=reason))
    return shares


def roll_up_groups(shares: Mapping[str, Share], desired: Mapping[Holder, NodeGroup], view: View) -> dict[str, Rollup]:
    """The status of every group, of what its agents report now."""
    return {
        name: roll_up((_report(Holder(name, node), desired, share, view) for node in share.nodes), share.findings)
        for name, share in shares.items()
    }


def _report(holder: Holder, desired: Mapping[Holder, NodeGroup], share: Share, view: View) -> NodeReport:
    seen = view.observed.get(holder)
    spec = desired.get(holder) or (seen.spec if seen else None)
    return NodeReport(
        node=holder.node,
        status=seen.status if seen else None,
        generation=seen.generation if seen else 0,
        agent_ready=holder.node in view.agents,
        written=seen is not None and seen.spec is spec,
        data_addresses=len(spec.data_addresses) if spec else 0,
        unallocated=share.missing.get(holder.node, 0),
    )
