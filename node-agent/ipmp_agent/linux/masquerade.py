"""Who masquerades what leaves by members: rules of kube-proxy, of CNIs, of firewalls. Read, never changed.

Looks at base chains of type nat at postrouting and at every chain they jump to. What iptables made is seen where it
works on nf_tables (iptables-nft), not the tables of iptables-legacy. Of the conditions in front of a rule two count:
the interface that it leaves by, and the source; all others (marks, sets) are taken to hold.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux import nftables
from ipmp_agent.linux.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ipmp_agent.linux.nftables import Chain, Nftables, Rule
    from ipmp_api.types import Network

log = logging.getLogger(__name__)

CHAINS_MAX = 512
"""Chains looked at; a CNI may make one for each pod."""

NAMED_MAX = 5
"""Chains that a finding names."""


@dataclass(frozen=True, slots=True)
class Masquerade:
    """A rule that masquerades: where it is, and what it is limited to."""

    family: int  # NFPROTO_* of the table
    table: str
    chain: str
    interface: str | None = None  # name that it must leave by; a prefix of names if it ends in *
    source: Network | None = None

    def hits(self, members: Collection[str]) -> bool:
        """Whether what leaves by one of these interfaces may be masqueraded."""
        if self.interface is None:
            return True
        if self.interface.endswith("*"):
            return any(member.startswith(self.interface[:-1]) for member in members)
        return self.interface in members

    def covered(self, networks: Sequence[Network]) -> bool:
        """Whether podEgress for these networks comes before it: it names no source, or one inside of them."""
        if not networks or self.source is None:
            return bool(networks)
        return any(self.source.version == each.version and self.source.subnet_of(each) for each in networks)  # type: ignore[arg-type]


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
        ahead = [Masquerade(base.family, base.table, base.name)]
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

    def findings(self, members: Collection[str], networks: Sequence[Network]) -> list[Finding]:
        """What masquerades traffic that leaves by these interfaces, and podEgress for these networks does not cover."""
        hitting = [each for each in self._found if each.hits(members) and not each.covered(networks)]
        places = list(dict.fromkeys((nftables.FAMILY_NAMES[each.family], each.table, each.chain) for each in hitting))
        if not places:
            return []
        named = ", ".join(" ".join(place) for place in places[:NAMED_MAX])
        more = f" and {len(places) - NAMED_MAX} more" if len(places) > NAMED_MAX else ""
        message = (
            f"connections that leave by this group and are masqueraded break when its addresses move: nftables {named}"
            f"{more}. Name the networks of the pods in spec.podEgress.sourceCIDRs, or have whoever made the rules"
            " leave out what is not theirs."
        )
        return [Finding(Reason.MASQUERADED, message)]


def read(rule: Rule, here: Masquerade) -> tuple[Masquerade, bool, str | None]:
    """What a rule does: its limits beside those of its chain, whether it masquerades, and the chain it goes on in."""
    loaded: tuple[str, int] | None = None  # what the register holds: kind, and bits of the address
    masquerades, target = False, None
    for name, expression in rule.expressions():
        if name == "meta" and expression.get(nftables.META_KEY):
            key = nftables.number(expression[nftables.META_KEY])
            loaded = ("interface", 0) if key == nftables.META_OIFNAME else None
        elif name == "payload":
            loaded = _source(expression)
        elif name == "bitwise" and loaded is not None:
            mask = int.from_bytes(nftables.value(expression.get(nftables.BITWISE_MASK, b"")), "big")
            loaded = (loaded[0], mask.bit_count())
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


def _limited(here: Masquerade, loaded: tuple[str, int], expression: dict[int, bytes]) -> Masquerade:
    kind, bits = loaded
    packed = nftables.value(expression.get(nftables.CMP_DATA, b""))
    if nftables.number(expression.get(nftables.CMP_OP, b"")) != nftables.CMP_EQ:
        return here
    if kind == "interface":
        name = packed.rstrip(b"\0").decode(errors="replace")
        # A whole name is compared with the zero behind it, a prefix without.
        return replace(here, interface=name if packed.endswith(b"\0") else f"{name}*")
    width = 4 if kind == "IPv4" else 16
    return replace(here, source=ip_network((packed.ljust(width, b"\0"), bits)))
