"""Rules of nf_tables by the name or index of an interface: firewalls, zones, iptables-nft. Read, never changed.

A rule that names one member and not another treats traffic otherwise once it goes by the other one. Rules of a chain
that differ in nothing but the interface are one rule for several; one without the interface holds for all.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from typing import TYPE_CHECKING

from ipmp_agent.core.findings import Finding
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.messages import nftables
from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ipmp_agent.linux.messages.nftables import Nftables, NftRule

log = logging.getLogger(__name__)

PAUSE = 5.0
"""Seconds between two looks at least: kube-proxy and CNIs change rules all day."""

SHARE = 100
"""A look that took long is followed by a pause as many times as long: it costs a hundredth of the time at most."""

NAMED_MAX = 5
"""Chains that a finding names."""

OUR_TABLES = "ipmp-"
"""How the tables of `podEgress` begin, which name the members as they are to."""

_NAMES = frozenset({nftables.META_IIFNAME, nftables.META_OIFNAME})
_INDEXES = frozenset({nftables.META_IIF, nftables.META_OIF})
_INTERFACE_BYTES = 16
_DESTINATION = {"bitwise": nftables.BITWISE_DREG, "byteorder": nftables.BITWISE_DREG}
"""Attribute that says where an expression stores what it loads, where that is not the first one."""


@frozen
class Limited:
    """What differs in nothing but the interfaces: rules of a chain, or the devices that a chain is hooked to."""

    place: str  # family, table and chain
    names: frozenset[str]  # the whole of a name, or the front of it and a *
    indexes: frozenset[int]

    def named(self, members: Mapping[str, int]) -> set[str]:
        """Which of these members are named."""
        return {name for name, index in members.items() if index in self.indexes or self._names(name)}

    def _names(self, member: str) -> bool:
        return any(member.startswith(n[:-1]) if n.endswith("*") else member == n for n in self.names)


class InterfaceRules:
    """The rules of the network namespace, read anew when nf_tables changed."""

    def __init__(self, tables: Nftables) -> None:
        self._tables = tables
        self._generation: int | None = None
        self._due = -math.inf
        self._found: tuple[Limited, ...] = ()
        self._strict: tuple[str, ...] = ()  # chains that drop what came in by another interface than it would leave by

    async def refresh(self) -> None:
        """Read the rules if anything changed since, and the last look is not just over."""
        now = asyncio.get_running_loop().time()
        if now < self._due:
            return
        try:
            generation = self._tables.generation()
            if generation != self._generation:
                strict: list[str] = []
                self._found = tuple(await self._read(strict))
                self._strict = tuple(dict.fromkeys(strict))
                self._generation = generation
                took = asyncio.get_running_loop().time() - now
                self._due = now + max(PAUSE, SHARE * took)
        except OSError as error:
            # A kernel without nf_tables has no such rules either.
            log.debug("cannot look for rules by interface: %s", error)

    async def _read(self, strict: list[str]) -> list[Limited]:
        chains = [chain for chain in await self._tables.base_chains() if chain.devices]
        found = [Limited(_place(c.family, c.table, c.name), frozenset(c.devices), frozenset()) for c in chains]
        for family, table, chain in sorted(await self._tables.chains_by_interface()):
            if not table.startswith(OUR_TABLES):
                found += await self._of(family, table, chain, strict)
        return found

    async def _of(self, family: int, table: str, chain: str, strict: list[str]) -> list[Limited]:
        place = _place(family, table, chain)
        alike: dict[tuple[object, ...], list[_Names]] = {}
        for rule in await self._tables.rules(family, table, chain):
            if any(nftables.filters_reverse_path(*each) for each in rule.expressions()):
                strict.append(place)
            rest, names = await self._split(family, table, rule)
            alike.setdefault(rest, []).append(names)
        return [
            Limited(
                place,
                frozenset(name for each in rules for name in each.names),
                frozenset(index for each in rules for index in each.indexes),
            )
            for rules in alike.values()
            if all(each.names or each.indexes for each in rules)
        ]

    async def _split(self, family: int, table: str, rule: NftRule) -> tuple[tuple[object, ...], _Names]:
        """A rule without its interfaces, and these."""
        rest: list[object] = []
        names: set[str] = set()
        indexes: set[int] = set()
        loaded: dict[int, int] = {}  # which interface of a packet, by place in the registers
        for name, expression in rule.expressions():
            if name == "counter":
                continue
            key = nftables.number(expression.get(nftables.META_KEY, b"")) if name == "meta" else None
            if key in _NAMES | _INDEXES:
                loaded[_offset(expression.get(nftables.META_DREG, b""))] = key
                continue
            values: list[tuple[int, bytes]] = []
            if name == "cmp":
                values = _compared(loaded, expression)
            elif name == "lookup":
                values = _looked_up(loaded, expression, await self._tables.keys(family, table, expression))
            else:
                loaded.pop(_offset(expression.get(_DESTINATION.get(name, 1), b"")), None)
            for key, packed in values:
                if key in _INDEXES:
                    indexes.add(int.from_bytes(packed[:4], sys.byteorder))
                else:
                    names.add(_name(packed))
            if not values:
                rest.append((name, tuple(sorted(expression.items()))))
        return tuple(rest), _Names(names, indexes)

    def findings(self, members: Mapping[str, int]) -> list[Finding]:
        """Chains whose rules name some of these members and not the others.

        Args:
            members: interface index by name.
        """
        return [*self._pinned(members), *self._filtering()]

    def _filtering(self) -> list[Finding]:
        if not self._strict:
            return []
        message = (
            f"nftables {', '.join(self._strict[:NAMED_MAX])} holds up what comes in by another member than an answer"
            " would leave by, and data addresses on such a member are not reached. Have it not look at the interface"
            " (`fib saddr oif`, rpfilter --loose; firewalld: IPv6_rpfilter=loose, or no where it does not know that)."
        )
        return [Finding(Reason.REVERSE_PATH_FILTERED, message)]

    def _pinned(self, members: Mapping[str, int]) -> list[Finding]:
        places: dict[str, set[str]] = {}
        for each in self._found:
            named = each.named(members)
            if named and named != members.keys():
                places.setdefault(each.place, set()).update(named)
        if not places:
            return []
        listed = [f"{place} ({', '.join(sorted(named))})" for place, named in sorted(places.items())]
        more = f" and {len(listed) - NAMED_MAX} more" if len(listed) > NAMED_MAX else ""
        message = (
            f"rules by interface name some members of this group and not the others: nftables"
            f" {', '.join(listed[:NAMED_MAX])}{more}. What they let through or hold up changes when traffic goes by"
            f" another member. Name every member in them ({_all(members)}), or none."
        )
        return [Finding(Reason.FIREWALL_PINNED, message)]


@frozen
class _Names:
    names: Collection[str]
    indexes: Collection[int]


def _place(family: int, table: str, chain: str) -> str:
    return f"{nftables.FAMILY_NAMES.get(family, family)} {table} {chain}"


def _all(members: Mapping[str, int]) -> str:
    return ", ".join(sorted(members))


def _offset(register: bytes) -> int:
    """Where a register begins, in bytes: there are 4 of 16 bytes, which are 16 of 4 bytes by other numbers."""
    number = nftables.number(register)
    return (number - nftables.REGISTER) * 16 if number < nftables.REGISTER_32 else (number - nftables.REGISTER_32) * 4


def _compared(loaded: Mapping[int, int], expression: Mapping[int, bytes]) -> list[tuple[int, bytes]]:
    key = loaded.get(_offset(expression.get(nftables.CMP_SREG, b"")))
    return [(key, nftables.value(expression.get(nftables.CMP_DATA, b"")))] if key is not None else []


def _looked_up(
    loaded: Mapping[int, int], expression: Mapping[int, bytes], elements: list[bytes]
) -> list[tuple[int, bytes]]:
    begin = _offset(expression.get(nftables.LOOKUP_SREG, b""))
    parts = [(key, place - begin) for place, key in loaded.items() if place >= begin]
    whole = [(key, at, element) for element in elements for key, at in parts if at < len(element)]
    return [(key, element[at : at + _INTERFACE_BYTES]) for key, at, element in whole]


def _name(packed: bytes) -> str:
    """A whole name is compared with the zero behind it, the front of one without."""
    name = packed.rstrip(b"\0").decode(errors="replace")
    return name if packed.endswith(b"\0") else f"{name}*"
