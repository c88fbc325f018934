"""Names of addresses, for people; an address whose name cannot be had quickly is shown as a number."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from ipmp_agent.core.events import MacAddress

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipmp_api.types import Address

LOOKUP_TIMEOUT = 2.0
"""Seconds for all look-ups together: ipmpstat is asked when the network is broken, and so its name servers."""

LOOKUPS = 16
"""Look-ups at a time."""


class Names:
    """Finds names, and remembers those it found and those it did not."""

    def __init__(self, *, numeric: bool) -> None:
        self._numeric = numeric
        self._found: dict[Address | MacAddress, str] = {}

    def of(self, address: Address | MacAddress) -> str:
        """The name, else the number."""
        return self._found.get(address, str(address))

    def find(self, addresses: Iterable[Address | MacAddress]) -> None:
        """Look these up, for at most LOOKUP_TIMEOUT seconds."""
        hosts = (a for a in addresses if not isinstance(a, MacAddress))
        unknown = deque(dict.fromkeys(a for a in hosts if a not in self._found))
        if self._numeric or not unknown:
            return
        # Daemon threads, because a resolver cannot be interrupted and must not keep the command from ending.
        threads = [
            threading.Thread(target=self._look_up, args=(unknown,), daemon=True)
            for _ in range(min(LOOKUPS, len(unknown)))
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + LOOKUP_TIMEOUT
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _look_up(self, unknown: deque[Address]) -> None:
        while unknown:
            try:
                address = unknown.popleft()
                self._found[address] = socket.getnameinfo((str(address), 0), socket.NI_NAMEREQD)[0]
            except IndexError:
                return  # another thread took the last one
            except OSError:
                self._found[address] = str(address)
