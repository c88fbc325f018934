"""What the service manager of the host is told of a running agent: that it is ready, that it lives, and how it is."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ipmp_agent.views import readiness

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ipmp_agent.publication import Occurrence, Publication
    from ipmp_api.types import InterfaceAddress
    from ipmp_service.service_manager import ServiceManager

PATIENCE = 30.0
"""Seconds after which the agent is ready without its addresses: a boot must not wait for a cable for ever."""

WORDS_A_TIME = 4.0
"""The agent says so often that it lives in the time after which it is taken for dead."""

log = logging.getLogger(__name__)


class Supervision:
    """An observer of the data plane, in whose loop all is said: a loop that hangs is silent.

    Args:
        manager: who is told.
        arriving: the data addresses of a group that are on their way.
        began: monotonic seconds of the agent's start.
    """

    def __init__(
        self, manager: ServiceManager, arriving: Callable[[str], Collection[InterfaceAddress]], began: float
    ) -> None:
        self._manager = manager
        self._arriving = arriving
        self._deadline = began + PATIENCE
        self._ready = False
        self._status = ""  # that was taken
        self._alive = began  # when that was said last, monotonic seconds
        self._reloading = 0  # reads of the configuration that are under way
        self._over = False

    def published(self, publication: Publication) -> None:
        """Say what is new, and that the loop turns. What is not taken is said again with the next publication."""
        if self._over:
            return
        if not self._ready:
            self._become_ready(publication)
        status = self._words(publication)
        if status != self._status and self._manager.tell(f"STATUS={status}"):
            self._status = status
        watchdog = self._manager.watchdog
        now = publication.monotonic
        if watchdog is not None and now - self._alive >= watchdog / WORDS_A_TIME and self._manager.tell("WATCHDOG=1"):
            self._alive = now

    def occurred(self, occurrence: Occurrence) -> None:
        """The log tells it."""

    def reloading(self) -> None:
        """The configuration is being read again. Before the agent is ready nobody need know."""
        self._reloading += 1
        if self._ready and not self._over:
            self._manager.reloading()

    def reloaded(self) -> None:
        """It was, with whatever result; of several at once the last one counts."""
        self._reloading -= 1
        if self._ready and not self._reloading and not self._over:
            self._ready = self._manager.tell("READY=1")

    def stopping(self, *, for_good: bool = True) -> None:
        """The agent ends; the process does so, too, if it is for good."""
        self._over = True
        if for_good:
            self._manager.tell("STOPPING=1", "STATUS=stopping; addresses and routes stay as they are")

    def _become_ready(self, publication: Publication) -> None:
        missing = readiness.awaited(publication, self._arriving)
        late = publication.monotonic >= self._deadline
        if missing and not late:
            return
        self._ready = self._manager.tell("READY=1")
        if self._ready and missing:
            log.warning("the host starts without what it should have: %s", missing)

    def _words(self, publication: Publication) -> str:
        missing = "" if self._ready else readiness.awaited(publication, self._arriving)
        return f"waiting: {missing}" if missing else readiness.summary(publication)
