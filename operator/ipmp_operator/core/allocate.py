"""Who gets which address: stable, lowest free first, never one address twice.

The allocations in force are the ones in the node groups themselves; there is no other record. An address that is given
back is in quarantine before another node may have it, because neighbours and switches remember where it was. An address
that an agent reports on an interface is in use there, though its node group may not name it any more. Nothing is ever
taken from a node to satisfy another: an exhausted pool leaves nodes without, and they are counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from typing import TYPE_CHECKING

from ipmp_api.addresses import addresses_of, gaps
from ipmp_api.compile import pool_interface
from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    from ipmp_api.types import Address, InterfaceAddress, Pool
    from ipmp_operator.core.model import Holder

QUARANTINE = 300.0
"""Seconds for which an address that was given back goes to no other node."""


@frozen
class Quarantine:
    """An address that was given back: only its last holder may have it before `until`."""

    holder: Holder
    until: float


@frozen
class Claim:
    """What one node group asks for, and what it has."""

    holder: Holder
    pools: tuple[Pool, ...] = ()
    assigned: tuple[InterfaceAddress, ...] = ()
    test_pool: Pool | None = None
    members: tuple[str, ...] = ()  # keys, in the order of the group
    data_now: tuple[Address, ...] = ()
    test_now: Mapping[str, Address] = field(default_factory=dict)


@frozen
class Allocation:
    """What one node group gets."""

    assigned: tuple[InterfaceAddress, ...] = ()
    pools: Mapping[str, tuple[Address, ...]] = field(default_factory=dict)
    test: Mapping[str, IPv4Interface] = field(default_factory=dict)


@frozen
class Exhausted:
    """A pool that had too few addresses for a node."""

    holder: Holder
    pool: str
    missing: int
    reporters: tuple[str, ...] = ()  # nodes whose agents report addresses of it that could be given otherwise


@frozen
class AddressConflict:
    """An address assigned by hand that another node group holds."""

    holder: Holder
    address: Address
    owner: Holder


@frozen
class Allocations:
    """The outcome for all node groups."""

    by_holder: Mapping[Holder, Allocation]
    exhausted: tuple[Exhausted, ...]
    conflicts: tuple[AddressConflict, ...]


def allocate(
    claims: Sequence[Claim],
    held: Mapping[Address, Holder],
    quarantined: Mapping[Address, Quarantine],
    reported: Mapping[Address, Holder],
    reserved: Container[Address],
) -> Allocations:
    """Give every claim its addresses; claims come in order of precedence (older group first).

    `held` names the addresses that any node group still holds, wanted or not. Quarantines that are over must not be in
    `quarantined`. No pool gives an address that is `reserved`, nor one that another's agent has `reported` on an
    interface. Linear in claims and addresses.
    """
    return _Allocator(held, quarantined, reported, reserved).run(claims)


@dataclass(slots=True)
class _Draft:
    """One claim's allocation while it is made."""

    claim: Claim
    assigned: set[Address] = field(default_factory=set)
    pooled: list[list[Address]] = field(default_factory=list)  # parallel to claim.pools
    test: dict[str, Address] = field(default_factory=dict)


class _Allocator:
    def __init__(
        self,
        held: Mapping[Address, Holder],
        quarantined: Mapping[Address, Quarantine],
        reported: Mapping[Address, Holder],
        reserved: Container[Address],
    ) -> None:
        self._held = held
        self._reported = reported
        self._reserved = reserved
        self._quarantined = quarantined
        self._given: dict[Address, Holder] = {}
        # By id(), since hashing a pool costs more than using it: the claims keep every pool alive for the whole run, so
        # no id comes twice.
        self._cursors: dict[int, _Cursor] = {}
        self._given_back: dict[Holder, list[Address]] = {}
        for address, quarantine in quarantined.items():
            self._given_back.setdefault(quarantine.holder, []).append(address)
        self._exhausted: list[Exhausted] = []
        self._conflicts: list[AddressConflict] = []

    def run(self, claims: Sequence[Claim]) -> Allocations:
        drafts = [_Draft(claim) for claim in claims]
        for step in (self._keep, self._assign, self._fill):  # what is, before what people name, before what is new
            for draft in drafts:
                step(draft)
        return Allocations(
            {draft.claim.holder: _finish(draft) for draft in drafts}, tuple(self._exhausted), tuple(self._conflicts)
        )

    def _keep(self, draft: _Draft) -> None:
        """Leave every address that is still asked for where it is."""
        claim = draft.claim
        for address in claim.assigned:
            if address.ip in claim.data_now and self._give(address.ip, claim.holder):
                draft.assigned.add(address.ip)
        for pool in claim.pools:
            cursor = self._cursor(pool)
            fitting = [ip for ip in claim.data_now if cursor.covers(ip) and ip not in self._given][: pool.per_node]
            draft.pooled.append([ip for ip in fitting if self._give(ip, claim.holder)])
        if claim.test_pool is not None:
            cursor = self._cursor(claim.test_pool)
            for key in claim.members:
                test = claim.test_now.get(key)
                if test is not None and cursor.covers(test) and self._give(test, claim.holder):
                    draft.test[key] = test

    def _assign(self, draft: _Draft) -> None:
        """Give the addresses that people named, unless another node group has them."""
        claim = draft.claim
        for address in claim.assigned:
            if address.ip in draft.assigned:
                continue
            owner = self._given.get(address.ip)
            if owner is not None:
                self._conflicts.append(AddressConflict(claim.holder, address.ip, owner))
            elif self._held.get(address.ip, claim.holder) == claim.holder:  # else: given once its holder let it go
                self._give(address.ip, claim.holder)
                draft.assigned.add(address.ip)

    def _fill(self, draft: _Draft) -> None:
        """Give new addresses: first those that the same holder gave back, then the lowest free."""
        claim = draft.claim
        for pool, addresses in zip(claim.pools, draft.pooled, strict=True):
            while len(addresses) < pool.per_node:
                address = self._take(pool, claim.holder)
                if address is None:
                    self._lack(claim, pool, pool.per_node - len(addresses))
                    break
                addresses.append(address)
        if claim.test_pool is None:
            return
        for at, key in enumerate(claim.members):
            if key not in draft.test:
                address = self._take(claim.test_pool, claim.holder)
                if address is None:
                    missing = sum(later not in draft.test for later in claim.members[at:])
                    self._lack(claim, claim.test_pool, missing)
                    return
                draft.test[key] = address

    def _lack(self, claim: Claim, pool: Pool, missing: int) -> None:
        cursor = self._cursor(pool)
        if cursor.withheld is None:
            strange = ((a, by) for a, by in self._reported.items() if self._held.get(a) != by)
            cursor.withheld = tuple(sorted({by.node for address, by in strange if cursor.covers(address)}))
        self._exhausted.append(Exhausted(claim.holder, pool.name, missing, cursor.withheld))

    def _give(self, address: Address, holder: Holder) -> bool:
        """Give an address unless it is given already; whether it was given."""
        if address in self._given:
            return False
        self._given[address] = holder
        return True

    def _take(self, pool: Pool, holder: Holder) -> Address | None:
        cursor = self._cursor(pool)
        returned = (a for a in self._given_back.get(holder, ()) if self._reported.get(a, holder) == holder)
        own = (a for a in returned if cursor.covers(a) and self._free(a))
        address = next(own, None) or cursor.next_free(self)
        if address is not None:
            self._given[address] = holder
        return address

    def _free(self, address: Address) -> bool:
        return address not in self._given and address not in self._held and address not in self._reserved

    def available(self, address: Address) -> bool:
        """Whether anybody may have the address."""
        return self._free(address) and address not in self._quarantined and address not in self._reported

    def _cursor(self, pool: Pool) -> _Cursor:
        cursor = self._cursors.get(id(pool))
        if cursor is None:
            cursor = self._cursors[id(pool)] = _Cursor(pool)
        return cursor


class _Cursor:
    """Walks the usable addresses of a pool upwards, once: what was passed is taken for the rest of the plan."""

    def __init__(self, pool: Pool) -> None:
        ranges = sorted(pool.ranges, key=lambda block: (block.first.version, block.first))
        self._gaps = [gap for block in ranges for gap in gaps(block, pool.exclude)]
        self._addresses = addresses_of(ranges, pool.exclude)
        self.withheld: tuple[str, ...] | None = None  # nodes whose agents report addresses of it; None: nobody asked

    def covers(self, address: Address) -> bool:
        """Whether the pool may give this address."""
        return any(
            gap.first.version == address.version and int(gap.first) <= int(address) <= int(gap.last)
            for gap in self._gaps
        )

    def next_free(self, allocator: _Allocator) -> Address | None:
        """The lowest address that anybody may have."""
        return next(filter(allocator.available, self._addresses), None)


def _finish(draft: _Draft) -> Allocation:
    claim = draft.claim
    return Allocation(
        assigned=tuple(address for address in claim.assigned if address.ip in draft.assigned),
        pools={pool.name: tuple(ips) for pool, ips in zip(claim.pools, draft.pooled, strict=True)},
        test=dict(_test_addresses(draft)),
    )


def _test_addresses(draft: _Draft) -> Iterator[tuple[str, IPv4Interface]]:
    pool = draft.claim.test_pool
    if pool is not None:
        for key, address in draft.test.items():
            interface = pool_interface(pool, address)
            if isinstance(interface, IPv4Interface):  # the API lets no other into this pool
                yield key, interface
