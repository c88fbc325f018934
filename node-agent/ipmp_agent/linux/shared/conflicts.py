"""Is anybody using this address already? Asked once, before an address is put on the link for the first time."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ipmp_agent.linux.messages import frames

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipmp_agent.linux.shared.wire import Wire
    from ipmp_api.types import Address, InterfaceAddress

log = logging.getLogger(__name__)

PROBE_NUM = 3
"""Questions asked. RFC 5227 PROBE_NUM."""

PROBE_INTERVAL = 0.1
"""Seconds between questions, and after the last. RFC 5227 waits 1 to 2 s: its links were slower."""


@dataclass(slots=True)
class _Check:
    wire: Wire
    question: bytes
    done: Callable[[bytes | None], None]
    asked: int = 0
    timer: asyncio.TimerHandle | None = None


class ConflictChecks:
    """Checks under way, one for each address."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._checks: dict[Address, _Check] = {}

    def __contains__(self, address: InterfaceAddress) -> bool:
        return address.ip in self._checks

    def start(self, address: InterfaceAddress, wire: Wire, done: Callable[[bytes | None], None]) -> None:
        """Ask on this wire; `done` gets the MAC address of who has it, or None. A check under way starts anew."""
        self.cancel(address)
        check = _Check(wire, frames.who_has(wire.mac, address.ip), done)
        self._checks[address.ip] = check
        self._ask(address.ip, check)

    def cancel(self, address: InterfaceAddress) -> None:
        """Forget a check; its `done` is not called."""
        self._end(address.ip)

    def heard(self, address: Address, mac: bytes) -> None:
        """Somebody says to have an address."""
        check = self._end(address)
        if check is not None:
            check.done(mac)

    def close(self) -> None:
        """Forget every check."""
        for address in list(self._checks):
            self._end(address)

    def _ask(self, address: Address, check: _Check) -> None:
        if check.asked == PROBE_NUM:
            self._end(address)
            check.done(None)
            return
        check.asked += 1
        check.timer = self._loop.call_later(PROBE_INTERVAL, self._ask, address, check)
        try:
            check.wire.send(check.question)
        except OSError as error:
            # A link that does not carry a question carries no conflict either; it is asked again in a moment.
            log.debug("%s: asking for %s: %s", check.wire.name, address, error)

    def _end(self, address: Address) -> _Check | None:
        check = self._checks.pop(address, None)
        if check is not None and check.timer is not None:
            check.timer.cancel()
        return check
