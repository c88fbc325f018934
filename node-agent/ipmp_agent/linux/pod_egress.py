"""podEgress: pod traffic that leaves by a group gets a data address as its source, in an nftables table of its own.

A flow keeps the address for its life in conntrack, whichever member has it. MASQUERADE would take the address of the
interface and have the kernel forget the flow with that address.

    table inet ipmp-<group> {
        chain postrouting { type nat hook postrouting priority 90; oifname <member> jump pods; ... }
        chain pods { ip daddr <source CIDR> return; ... ip saddr <source CIDR> snat ip to <data address>; ... }
    }
"""

from __future__ import annotations

import asyncio
import logging
from ipaddress import ip_address
from typing import TYPE_CHECKING

from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux import nftables
from ipmp_agent.linux.findings import Finding
from ipmp_agent.linux.netlink import InterruptedDumpError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ipmp_agent.linux.nftables import Nftables, Rule
    from ipmp_agent.linux.surroundings import GroupSurroundings
    from ipmp_api.types import Address, Network

log = logging.getLogger(__name__)

PRIORITY = 90
"""Of our chain: before the 100 of everybody's source NAT, for the first one to map a flow decides."""

WATCH = 1.0
"""Seconds between looks at whether somebody changed nf_tables: one question, answered in microseconds."""

BASE, PODS = "postrouting", "pods"


def table_name(group: str) -> str:
    """The table of a group, in family inet."""
    return f"ipmp-{group}"


def replacement(
    table: str, members: Sequence[str], networks: Sequence[Network], sources: dict[int, Address]
) -> list[bytes]:
    """Requests that replace the table by a new one.

    Args:
        table: its name.
        members: interface names.
        networks: that pods have their addresses from.
        sources: by IP version, the address that flows get; a version without keeps its own.
    """
    inet = nftables.INET
    requests = [
        nftables.new_table(inet, table),
        nftables.delete_table(inet, table),
        nftables.new_table(inet, table),
        nftables.new_chain(inet, table, PODS),
        nftables.new_nat_chain(inet, table, BASE, PRIORITY),
    ]
    ways = [(nftables.leaves_by(name), nftables.jump_to(PODS)) for name in members]
    requests += [nftables.new_rule(inet, table, BASE, *way) for way in ways]
    for network in networks:
        inside = nftables.address_in(network, nftables.DESTINATION_OFFSET[network.version])
        requests.append(nftables.new_rule(inet, table, PODS, inside, nftables.leave_chain()))
    for network in networks:
        if network.version in sources:
            out = nftables.address_in(network, nftables.SOURCE_OFFSET[network.version])
            given = nftables.source_nat(sources[network.version])
            requests.append(nftables.new_rule(inet, table, PODS, out, given))
    return requests


def given_addresses(rules: Sequence[Rule]) -> dict[int, Address]:
    """The addresses that the rules of a table give to flows, by IP version."""
    found: dict[int, Address] = {}
    for rule in rules:
        for name, expression in rule.expressions():
            packed = nftables.value(expression.get(nftables.IMMEDIATE_DATA, b"")) if name == "immediate" else b""
            if packed:
                address = ip_address(packed)
                found[address.version] = address
    return found


class PodEgress:
    """The table of one group.

    Args:
        group: its name.
        tables: of the host.
        around: members and addresses of the group.
        changed: called when somebody else changed the table.
    """

    def __init__(self, group: str, tables: Nftables, around: GroupSurroundings, changed: Callable[[], None]) -> None:
        self._table = table_name(group)
        self._tables = tables
        self._around = around
        self._changed = changed
        self._networks: tuple[Network, ...] = ()
        self._sources: dict[int, Address] = {}
        self._wanted: list[bytes] = []  # the requests that made the table, and
        self._installed: list[Rule] | None = None  # what it was right after; None: not known what is there
        self._generation: int | None = None
        self._refusal: OSError | None = None
        self._watcher: asyncio.Task[None] | None = None

    def configure(self, networks: tuple[Network, ...]) -> None:
        """Take the source CIDRs; none: no table."""
        self._networks = networks

    async def reconcile(self) -> int:
        """Make the table what it is to be, and remove it where there is to be none; returns how many requests."""
        if not self._networks and self._installed == []:
            return 0
        try:
            requests = await self._differences()
            if requests:
                self._tables.commit(requests)
                self._installed = await self._tables.rules(nftables.INET, self._table)
        except InterruptedDumpError:
            return 0  # others change theirs all the time: the next comparison tells
        except OSError as error:
            if self._networks and str(error) != str(self._refusal):
                log.warning("pods get no data address, for the kernel refuses the table %s: %s", self._table, error)
            self._refusal = error
            self._installed = None if self._networks else []  # what cannot be had is not there to be removed
            return 0
        self._refusal = None
        if not self._wanted:
            await self.close()
        elif self._watcher is None:
            self._watcher = asyncio.get_running_loop().create_task(self._watch())
        return len(requests)

    async def _differences(self) -> list[bytes]:
        found = await self._tables.rules(nftables.INET, self._table)
        self._choose(found)
        members = sorted(self._around.names())
        wanted = replacement(self._table, members, self._networks, self._sources) if self._sources and members else []
        if wanted == self._wanted and found == self._installed:
            return []
        self._wanted = wanted
        if wanted:
            return wanted
        if found:
            return [nftables.delete_table(nftables.INET, self._table)]
        self._installed = []
        return []

    def _choose(self, found: Sequence[Rule]) -> None:
        """One data address for each IP version of the pods: the one it was, for as long as it is a data address."""
        before = self._sources or given_addresses(found)
        first = self._around.sources()[1]
        self._sources = {}
        for version in sorted({network.version for network in self._networks}):
            kept = before.get(version)
            source = kept if kept is not None and self._around.is_data(kept) else first.get(version)
            if source is not None:
                self._sources[version] = source

    async def _watch(self) -> None:
        """Tell when the table is not what we made it."""
        while True:
            await asyncio.sleep(WATCH)
            try:
                generation = self._tables.generation()
                if generation != self._generation:
                    found = await self._tables.rules(nftables.INET, self._table)
                    self._generation = generation
                    if found != self._installed:
                        self._changed()
            except OSError as error:
                log.warning("could not look at the table %s: %s", self._table, error)

    async def close(self) -> None:
        """Watch no more; the table stays."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None

    async def withdraw(self) -> None:
        """Remove the table."""
        self._networks = ()
        await self.reconcile()

    def findings(self) -> list[Finding]:
        """Why pods do not get a data address."""
        if not self._networks:
            return []
        if self._refusal is not None:
            message = (
                f"podEgress: the kernel refuses the nftables table {self._table}: {self._refusal.strerror}."
                " It needs nf_tables with NAT (modules nf_tables, nft_chain_nat, nft_nat)."
            )
            return [Finding(Reason.KERNEL_REFUSED, message)]
        missing = sorted({network.version for network in self._networks} - set(self._sources))
        return [
            Finding(
                Reason.EGRESS_ADDRESS_MISSING,
                f"podEgress: the group has no IPv{version} data address on this node: IPv{version} traffic of pods"
                " leaves with the source that others give it. Give the group one.",
            )
            for version in missing
        ]
