"""podEgress: pod traffic that leaves by a group gets a data address as its source, in an nftables table of its own.

A flow keeps the address for its life in conntrack, whichever member has it. MASQUERADE would take the address of the
interface and have the kernel forget the flow with that address. What the host itself sends from a data address keeps it
for the same reason: kube-proxy masquerades the host's connections to services.

    table inet ipmp-<group> {
        chain postrouting { type nat hook postrouting priority 90; oifname <member> jump pods; ... }
        chain pods {
            ip saddr <data address> snat ip to <data address>; ...
            ip daddr <source CIDR> return; ...
            ip saddr <source CIDR> snat ip to <data address>; ...
        }
    }
"""

from __future__ import annotations

import asyncio
import errno
import logging
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from ipmp_agent.core.findings import Finding
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.messages import nftables
from ipmp_agent.linux.messages.netlink import InterruptedDumpError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ipmp_agent.linux.group.reconcile import GroupReconciler
    from ipmp_agent.linux.group.surroundings import GroupSurroundings
    from ipmp_agent.linux.messages.nftables import Nftables, NftRule, NftTable
    from ipmp_api.types import Address, Network

log = logging.getLogger(__name__)

WATCH = 1.0
"""Seconds between looks at whether somebody changed nf_tables: one question, answered in microseconds."""

ATTEMPTS = 5
"""Transactions tried in one comparison while others change nf_tables."""

RETRY_FIRST, RETRY_LONGEST = 1.0, 60.0
"""Seconds until a kernel that refused the table is asked again, doubling."""

BASE, PODS = "postrouting", "pods"

ABSENT: tuple[list[bytes], NftTable | None] = ([], None)


def table_name(group: str) -> str:
    """The table of a group, in family inet."""
    return f"ipmp-{group}"


def replacement(
    table: str,
    members: Sequence[str],
    networks: Sequence[Network],
    sources: dict[int, Address],
    own: Iterable[Address] = (),
) -> list[bytes]:
    """Requests that replace the table by a new one.

    Args:
        table: its name.
        members: interface names.
        networks: that pods have their addresses from.
        sources: by IP version, the address that flows get; a version without keeps its own.
        own: addresses that the host sends from, and keeps.
    """
    inet = nftables.INET
    requests = [
        nftables.new_table(inet, table),
        nftables.delete_table(inet, table),
        nftables.new_table(inet, table),
        nftables.new_chain(inet, table, PODS),
        nftables.new_nat_chain(inet, table, BASE, nftables.EGRESS_PRIORITY),
    ]
    ways = [(nftables.leaves_by(name), nftables.jump_to(PODS)) for name in members]
    requests += [nftables.new_rule(inet, table, BASE, *way) for way in ways]
    for address in own:
        mine = nftables.address_in(ip_network(address), nftables.SOURCE_OFFSET[address.version])
        requests.append(nftables.new_rule(inet, table, PODS, mine, nftables.source_nat(address)))
    for network in networks:
        inside = nftables.address_in(network, nftables.DESTINATION_OFFSET[network.version])
        requests.append(nftables.new_rule(inet, table, PODS, inside, nftables.leave_chain()))
    for network in networks:
        if network.version in sources:
            out = nftables.address_in(network, nftables.SOURCE_OFFSET[network.version])
            given = nftables.source_nat(sources[network.version])
            requests.append(nftables.new_rule(inet, table, PODS, out, given))
    return requests


def given_addresses(rules: Sequence[NftRule]) -> dict[int, Address]:
    """The addresses that the rules of a table give to flows of pods, by IP version."""
    found: dict[int, Address] = {}
    for rule in rules:
        given, compared = b"", []
        for name, expression in rule.expressions():
            if name == "immediate":
                given = nftables.value(expression.get(nftables.IMMEDIATE_DATA, b""))
            elif name == "cmp":
                compared.append(nftables.value(expression.get(nftables.CMP_DATA, b"")))
        if given and given not in compared:
            address = ip_address(given)
            found[address.version] = address
    return found


class PodEgress:
    """The table of one group.

    Args:
        group: its name.
        tables: of the host.
        around: members and addresses of the group.
        reconciler: told when somebody else changed the table, and when to ask again a kernel that refused it.
    """

    def __init__(self, group: str, tables: Nftables, around: GroupSurroundings, reconciler: GroupReconciler) -> None:
        self._table = table_name(group)
        self._tables = tables
        self._around = around
        self._reconciler = reconciler
        self._networks: tuple[Network, ...] = ()
        self._sources: dict[int, Address] = {}
        self._made: tuple[list[bytes], NftTable | None] | None = None
        """The requests that made the table, and what it was right after; None: not known what is there."""
        self._generation: int | None = None
        self._refusal: OSError | None = None
        self._retry_at, self._wait = 0.0, RETRY_FIRST
        self._turn = asyncio.Lock()
        self._watcher: asyncio.Task[None] | None = None

    def configure(self, networks: tuple[Network, ...]) -> None:
        """Take the source CIDRs; none: no table."""
        if networks != self._networks:
            self._retry_at, self._wait = 0.0, RETRY_FIRST
        self._networks = networks

    async def reconcile(self) -> int:
        """Make the table what it is to be, and remove it where there is to be none; returns how many requests."""
        now = asyncio.get_running_loop().time()
        if now < self._retry_at or (not self._networks and self._made == ABSENT):
            return 0
        async with self._turn:
            try:
                done = await self._compare()
                self._refusal, self._wait = None, RETRY_FIRST
            except InterruptedDumpError:
                done = 0  # others change theirs all the time: the next comparison tells
            except OSError as error:
                self._refused(error, now)
                done = 0
        if self._made == ABSENT and self._refusal is None:
            await self.close()
        elif self._watcher is None:
            self._watcher = asyncio.get_running_loop().create_task(self._watch())
        return done

    def _refused(self, error: OSError, now: float) -> None:
        if not self._networks:
            if self._made not in (None, ABSENT):
                log.warning("the table %s stays, for the kernel refuses to remove it: %s", self._table, error)
            self._refusal, self._made = None, ABSENT  # what cannot be had is not there to be removed
            return
        if str(error) != str(self._refusal):
            log.warning("pods get no data address, for the kernel refuses the table %s: %s", self._table, error)
        self._refusal, self._made = error, None
        self._retry_at = now + self._wait
        self._wait = min(2 * self._wait, RETRY_LONGEST)

    async def _compare(self) -> int:
        for _ in range(ATTEMPTS):
            found, generation = await self._tables.table(nftables.INET, self._table)
            wanted = self._decide(found)
            if (wanted, found) == self._made:
                return 0
            changes = wanted or ([] if found is None else [nftables.delete_table(nftables.INET, self._table)])
            if not changes:
                self._made = ABSENT
                return 0
            try:
                self._tables.commit(changes, generation)
            except nftables.ChangedMeanwhileError:
                continue
            self._made = None
            made, now = await self._tables.table(nftables.INET, self._table)
            if now == nftables.following(generation):
                self._made, self._generation = (wanted, made), now
                return len(changes)
            # Somebody else changed nf_tables before we could look: what is there may not be what we made.
        raise InterruptedDumpError(errno.EAGAIN, f"others changed nf_tables {ATTEMPTS} times meanwhile")

    def _decide(self, found: NftTable | None) -> list[bytes]:
        """Requests that make the table as it is to be; none: there is to be none."""
        self._choose(given_addresses(found.rules) if found is not None else {})
        members = sorted(self._around.names())
        if not self._sources or not members:
            return []
        return replacement(self._table, members, self._networks, self._sources, self._own())

    def _own(self) -> list[Address]:
        """What the host's own packets have as their source, in an order that stays."""
        by_prefix, by_version = self._around.sources()
        own = {address for network, address in by_prefix.items() if network.prefixlen < network.max_prefixlen}
        return sorted(own.union(by_version.values(), self._sources.values()), key=lambda a: (a.version, a.packed))

    def _choose(self, given: dict[int, Address]) -> None:
        """One data address for each IP version of the pods: the one it was, for as long as it is a data address."""
        before = self._sources or given
        first = self._around.sources()[1]
        self._sources = {}
        for version in sorted({network.version for network in self._networks}):
            kept = before.get(version)
            source = kept if kept is not None and self._around.is_data(kept) else first.get(version)
            if source is not None:
                self._sources[version] = source

    def observe(self) -> None:
        """Choose addresses as if there were to be a table; the kernel is left alone."""
        self._choose({})

    def covered(self, *, observing: bool) -> list[Network]:
        """The networks whose flows get a data address, or would get one if the group were not only observing."""
        there = observing or (self._made not in (None, ABSENT))
        return [network for network in self._networks if there and network.version in self._sources]

    async def _watch(self) -> None:
        """Tell when the table is not what we made it, and when to ask a kernel again that refused it."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(WATCH)
            try:
                if self._made is None:
                    if loop.time() >= self._retry_at:
                        self._reconciler.soon()
                elif await self._differs():
                    self._reconciler.changed()
            except InterruptedDumpError:
                continue
            except OSError as error:
                log.warning("could not look at the table %s: %s", self._table, error)

    async def _differs(self) -> bool:
        async with self._turn:
            if self._made is None or self._tables.generation() == self._generation:
                return False
            found, self._generation = await self._tables.table(nftables.INET, self._table)
            return found != self._made[1]

    async def close(self) -> None:
        """Watch no more; the table stays."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None

    async def withdraw(self) -> None:
        """Remove the table, also while others change nf_tables all the time."""
        self.configure(())
        for _ in range(ATTEMPTS):
            await self.reconcile()
            if self._made == ABSENT:
                break
            await asyncio.sleep(WATCH / 10)
        else:
            log.warning("the table %s could not be removed: others changed nf_tables meanwhile", self._table)
        await self.close()

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
