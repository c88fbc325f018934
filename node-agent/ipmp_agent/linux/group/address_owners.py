"""Gives up the addresses that their owners took off a member, and has those put back that were swept away."""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING

from ipmp_agent.linux.group.departures import Departures
from ipmp_agent.linux.messages import netlink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ipmp_agent.linux.group.data_addresses import GroupDataAddresses
    from ipmp_agent.linux.group.reconcile import GroupReconciler
    from ipmp_agent.linux.group.twins import Twins
    from ipmp_agent.linux.messages.addresses import InstalledAddress
    from ipmp_agent.linux.shared.host import Host
    from ipmp_agent.linux.shared.members import Members
    from ipmp_api.types import Address, InterfaceAddress

log = logging.getLogger(__name__)


class AddressOwners:
    """Heeds the will of those who own the adopted addresses of one group.

    Args:
        group: its name.
        host: what all groups share.
        members: of all groups.
        data: its data addresses.
        twins: of its routes.
        reconciler: asked to compare where something is to be put back or let go.
        changed: called when the memory holds an address that was given up.
    """

    def __init__(
        self,
        group: str,
        host: Host,
        members: Members,
        data: GroupDataAddresses,
        twins: Twins,
        reconciler: GroupReconciler,
        changed: Callable[[], None],
    ) -> None:
        self._group = group
        self._host = host
        self._members = members
        self._data = data
        self._twins = twins
        self._reconciler = reconciler
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._departures = Departures()
        self._judging: asyncio.TimerHandle | None = None

    def returned(self, address: Address) -> None:
        """An address is there again: nothing is to be judged."""
        self._departures.returned(address)

    def departed(self, key: str, gone: InterfaceAddress, stood: Iterable[Address], *, ours: bool) -> None:
        """Somebody took an address off a member, perhaps we: what is not to be there any more is none's loss.

        Args:
            key: the member.
            gone: which one.
            stood: the global addresses that were there before, this one included; taken at the first of many only.
            ours: it is this agent's own, and was to stay.
        """
        address, single = gone.ip, gone.network.prefixlen == gone.max_prefixlen
        if self._data.is_data(address) and not self._data.is_wanted(key, address):
            return
        adopted = self._data.is_adopted(address)
        if adopted:
            self._twins.endanger({key}, {address})
        ours = ours or address.is_link_local
        now = self._loop.time()
        self._departures.deleted(key, address, stood, now, ours=ours, adopted=adopted, single=single)
        self._judge()

    def notice_missing(self, installed: Mapping[str, list[InstalledAddress]]) -> None:
        """Have those judged that are gone though nobody told."""
        for key, address in self._data.unexplained(installed):
            if address.ip not in self._data.doubted:
                stood = (each.address.ip for each in installed[key] if each.scope == netlink.RT_SCOPE_UNIVERSE)
                self.departed(key, address, itertools.chain((address.ip,), stood), ours=False)

    def _judge(self) -> None:
        """Put back what was swept away, and give up what its owner took."""
        for verdict in self._departures.judge(self._loop.time()):
            gone = [each for each in verdict.addresses if self._data.is_wanted(verdict.member, each)]
            works = self._works(verdict.member)
            if verdict.swept or not works:
                for address in gone:
                    self._data.swept(address)
                (self._reconciler.changed if works else self._reconciler.soon)()
                continue
            for address in gone:
                log.info("%s: %s was taken off %s by its owner", self._group, address, verdict.member)
                self._data.give_up(address)
                self._twins.disown(verdict.member, address)
            self._changed()
            self._reconciler.soon()
        self._data.doubted = self._departures.waiting
        self._twins.wait_for_verdict(self._departures.members)
        if self._judging is not None:
            self._judging.cancel()
        due = self._departures.due
        self._judging = self._loop.call_at(due, self._judge) if due is not None else None

    def _works(self, key: str) -> bool:
        """Whether a member is there and has its link: if not, the kernel takes addresses along."""
        member = self._members.of(self._group).get(key)
        if member is None or member.index is None or member.carrier is None:
            return False
        link = self._host.link(member.index)
        return link is not None and link.carrier and not member.carrier.is_lost()

    def close(self) -> None:
        """Judge no more."""
        if self._judging is not None:
            self._judging.cancel()
