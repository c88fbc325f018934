"""What one group knows of its neighbours on the link."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_agent.core.events import RoutersChanged

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipmp_agent.core.events import Event
    from ipmp_agent.linux.shared.host import Host


class Neighbourhood:
    """Keeps whom a group asks something when an address of it has moved."""

    def __init__(self, group: str, host: Host) -> None:
        self._group = group
        self._host = host

    def note(self, event: Event) -> None:
        """Take note of what is told to the core: the gateways among it."""
        if isinstance(event, RoutersChanged):
            self._host.neighbors.gateways(self._group, event.routers)

    async def read(self, indexes: Iterable[int]) -> None:
        """Read whom the kernel knows on these interfaces."""
        await self._host.neighbors.read(self._group, indexes, self._host.dumper)

    def close(self) -> None:
        """Forget them."""
        self._host.neighbors.forget(self._group)
