"""The addresses of all interfaces of a network namespace, read anew when one came or went on an interface of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_agent.linux.messages import addresses, netlink

if TYPE_CHECKING:
    from ipmp_agent.linux.messages.addresses import InstalledAddress
    from ipmp_agent.linux.messages.netlink import Dumper


class HostAddresses:
    """What is where, as of the last look."""

    def __init__(self, dumper: Dumper) -> None:
        self._dumper = dumper
        self._changed = True
        self.found: dict[int, tuple[InstalledAddress, ...]] = {}  # by interface index

    def heard(self) -> None:
        """Some address changed."""
        self._changed = True

    async def refresh(self) -> None:
        """Read them if anything changed since."""
        if not self._changed:
            return
        self._changed = False
        try:
            bodies = await self._dumper.dump(netlink.RTM_GETADDR, addresses.get_request())
        except OSError:
            self._changed = True
            raise
        found: dict[int, list[InstalledAddress]] = {}
        for body in bodies:
            if (each := addresses.decode(body)) is not None:
                found.setdefault(each.index, []).append(each)
        self.found = {index: tuple(those) for index, those in found.items()}
