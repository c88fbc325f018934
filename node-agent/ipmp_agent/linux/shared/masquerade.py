"""Who masquerades what leaves by members: rules of kube-proxy, of CNIs, of firewalls. Read, never changed.

Looks at base chains of type nat at postrouting and at every chain they jump to. What iptables made is seen where it
works on nf_tables (iptables-nft), not the tables of iptables-legacy. Of the conditions in front of a rule three count:
the interface that it leaves by, the source, and the IP version; all others (marks, sets) are taken to hold.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

from ipmp_agent.core.findings import Finding
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.messages import nftables
from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ipmp_agent.linux.messages.nftables import Chain, Nftables, NftRule
    from ipmp_api.types import Network

log = logging.getLogger(__name__)

CHAINS_MAX = 512
"""Chains looked at; a CNI may make one for each pod."""

NAMED_MAX = 5
"""Chains that a finding names."""

VERSIONS = {nftables.INET: frozenset({4, 6}), nftables.IPV4: frozenset({4}), nftables.IPV6: frozenset({6})}
"""Of IP, by NFPROTO_*."""

_LOADED = {nftables.META_OIFNAME: "interface", nftables.META_PROTOCOL_FAMILY: "version"}


@frozen
class Masquerade:
    """A rule that masquerades: where it is, and what it is limited to."""

    family: int  # NFPROTO_* of the table
    table: str
    chain: str
    priority: int  # of the base chain that leads to it
    versions: frozenset[int]  # of IP
    interface: str | None = None  # name that it must leave by; a prefix of names if it ends in *
    source: Network | None = None

    @property
    def is_first(self) -> bool:
        """Whether it may map a flow before podEgress does. Of equals, the one made last comes first."""
        return self.priority <= nftables.EGRESS_PRIORITY

    def hits(self, members: Collection[str]) -> bool:
        """Whether what leaves by one of these interfaces may be masqueraded."""
        if self.interface is None:
            return True
        if self.interface.endswith("*"):
            return any(member.startswith(self.interface[:-1]) for member in members)
        return self.interface in members

    def covered(self, networks: Sequence[Network], versions: Collection[int]) -> bool:
        """Whether podEgress comes before it and gives these networks an address.

        Args:
            networks: whose flows get one.
            versions: of IP that count where a rule names no source, all if there are none: kube-proxy lays its rules
                for both families, also in a cluster of one.
        """
        if self.is_first:
            return False
        if self.source is None:
            hit = self.versions.intersection(versions) if versions else self.versions
            return hit <= {network.version for network in networks}
        return any(self.source.version == each.version and self.source.subnet_of(each) for each in networks)  # type: ignore[arg-type]

    def __str__(self) -> str:
        place = f"{nftables.FAMILY_NAMES[self.family]} {self.table} {self.chain}"
        return f"{place} (priority {self.priority}, before podEgress)" if self.is_first else place


class Masquerades:
    """The rules of the network namespace, read anew when nf_tables changed."""

    def __init__(self, tables: Nftables) -> None:
        self._tables = tables
        self._generation: int | None = None
        self._found: tuple[Masquerade, ...] = ()

    async def refresh(self) -> None:
        """Read the rules if anything changed since."""
        try:
            generation = self._tables.generation()
            if generation != self._generation:
                self._found = tuple(await self._read())
                self._generation = generation
        except OSError as error:
            # A kernel without nf_tables has no such rules either.
            log.debug("cannot look for rules that masquerade: %s", error)

    async def _read(self) -> list[Masquerade]:
        bases = [c for c in await self._tables.base_chains() if (c.type, c.hook) == ("nat", nftables.POSTROUTING)]
        found: list[Masquerade] = []
        for base in bases:
            found += await self._of(base)
        return found

    async def _of(self, base: Chain) -> list[Masquerade]:
        found: list[Masquerade] = []
        ahead = [Masquerade(base.family, base.table, base.name, base.priority, VERSIONS[base.family])]
        seen = set(ahead)
        while ahead and len(seen) < CHAINS_MAX:
            here = ahead.pop()
            for rule in await self._tables.rules(here.family, here.table, here.chain):
                limited, masquerades, target = read(rule, here)
                if masquerades:
                    found.append(limited)
                if target is not None and (there := replace(limited, chain=target)) not in seen:
                    seen.add(there)
                    ahead.append(there)
        return found

    def findings(
        self, members: Collection[str], networks: Sequence[Network], versions: Collection[int]
    ) -> list[Finding]:
        """What masquerades traffic that leaves by these interfaces, and podEgress does not come before.

        Args:
            members: names of the interfaces.
            networks: whose flows get an address of podEgress.
            versions: of IP that the group, or podEgress, has to do with.
        """
        found = [each for each in self._found if each.hits(members) and not each.covered(networks, versions)]
        places = list(dict.fromkeys(map(str, found)))
        if not places:
            return []
        named = ", ".join(places[:NAMED_MAX])
        more = f" and {len(places) - NAMED_MAX} more" if len(places) > NAMED_MAX else ""
        message = (
            f"connections that leave by this group and are masqueraded break when its addresses move: nftables {named}"
            f"{more}. Name the networks of the pods in spec.podEgress.sourceCIDRs, or have whoever made the rules"
            " leave out what is not theirs."
        )
        return [Finding(Reason.MASQUERADED, message)]


def read(rule: NftRule, here: Masquerade) -> tuple[Masquerade, bool, str | None]:
    """What a rule does: its limits beside those of its chain, whether it masquerades, and the chain it goes on in."""
    loaded: tuple[str, int] | None = None  # what the register holds: kind, and bits of the address
    masquerades, target = False, None
    for name, expression in rule.expressions():
        if name == "meta" and expression.get(nftables.META_KEY):
            what = _LOADED.get(nftables.number(expression[nftables.META_KEY]))
            loaded = (what, 0) if what is not None else None
        elif name == "payload":
            loaded = _source(expression)
        elif name == "bitwise" and loaded is not None:
            bits = _prefix_length(nftables.value(expression.get(nftables.BITWISE_MASK, b"")))
            loaded = (loaded[0], bits) if bits is not None else None
        elif name == "cmp" and loaded is not None:
            here = _limited(here, loaded, expression)
        elif name == "masq" or (name == "target" and nftables.target_name(expression) == "MASQUERADE"):
            masquerades = True
        elif name == "immediate":
            target = nftables.target(expression) or target
        else:
            loaded = None
    return here, masquerades, target


def _source(expression: dict[int, bytes]) -> tuple[str, int] | None:
    """Whether a payload expression loads the source address of an IP header, or the front of it."""
    base, offset, length = (
        nftables.number(expression.get(kind, b""))
        for kind in (nftables.PAYLOAD_BASE, nftables.PAYLOAD_OFFSET, nftables.PAYLOAD_LENGTH)
    )
    if base != nftables.NETWORK_HEADER:
        return None
    if offset == nftables.SOURCE_OFFSET[4] and length <= 4:
        return "IPv4", 8 * length
    if offset == nftables.SOURCE_OFFSET[6] and length <= 16:
        return "IPv6", 8 * length
    return None


def _prefix_length(mask: bytes) -> int | None:
    """The bits of a mask, if it is one of a prefix."""
    bits = f"{int.from_bytes(mask, 'big'):0{8 * len(mask)}b}" if mask else ""
    return bits.count("1") if "01" not in bits else None


def _limited(here: Masquerade, loaded: tuple[str, int], expression: dict[int, bytes]) -> Masquerade:
    kind, bits = loaded
    packed = nftables.value(expression.get(nftables.CMP_DATA, b""))
    if nftables.number(expression.get(nftables.CMP_OP, b"")) != nftables.CMP_EQ:
        return here
    if kind == "interface":
        name = packed.rstrip(b"\0").decode(errors="replace")
        # A whole name is compared with the zero behind it, a prefix without.
        return replace(here, interface=name if packed.endswith(b"\0") else f"{name}*")
    if kind == "version":
        return replace(here, versions=here.versions & VERSIONS.get(packed[0] if packed else 0, frozenset()))
    width = 4 if kind == "IPv4" else 16
    return replace(here, source=ip_network((packed[:width].ljust(width, b"\0"), bits), strict=False))
