"""Waiting until a host has no agent: the part of an agent that stands in for a pod's while the pod's is there.

Imports next to nothing: on every node of a cluster it is all that runs there for months.
"""

from __future__ import annotations

import os
import select
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipmp_agent.process.namespace import Occupant
    from ipmp_service.service_manager import ServiceManager

STANDS_BY = "IPMP_STANDS_BY"
"""In the environment of a process that began anew to wait: it need not be whole for that."""

PATIENCE = 5.0
"""Seconds without an agent until it stands in. A pod that is replaced may be away longer: a hand-over is free."""

LOOK = 0.5
"""Seconds between looks while there is no agent."""

CALM = 10.0
"""Seconds between looks while there is one; its end is heard at once."""


class Vacancy:
    """When a host without an agent is taken over.

    Args:
        patience: seconds that it must have been without one.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._since: float | None = None

    def seen(self, now: float, *, taken: bool) -> bool:
        """Take what was seen at a moment, in monotonic seconds; returns whether to take over now."""
        if taken:
            self._since = None
            return False
        if self._since is None:
            self._since = now
        return now - self._since >= self._patience


def is_taken() -> bool:
    """Whether this host has an agent now."""
    with _look() as other:
        return other.is_agent


def wait(say: Callable[[str], object]) -> None:
    """Return when this host has had no agent for PATIENCE.

    Args:
        say: told who is here, whenever that is news.
    """
    manager, vacancy, said = _manager(), Vacancy(PATIENCE), ""
    try:
        while True:
            with _look() as other:
                if vacancy.seen(time.monotonic(), taken=other.is_agent):
                    return
                words = (
                    f"the agent with pid {other.pid} looks after this host" if other.is_agent else "no agent is here"
                )
                if manager is not None:
                    manager.tell("READY=1", "WATCHDOG=1", f"STATUS=standing by: {words}")
                if other.is_agent:
                    if words != said:
                        say(f"standing by: {words}")
                        said = words
                    _until_gone(other, CALM if manager is None or manager.watchdog is None else manager.watchdog / 4)
                else:
                    time.sleep(LOOK)
    finally:
        if manager is not None:
            manager.close()


def _look() -> Occupant:
    from ipmp_agent.process.namespace import Occupant  # noqa: PLC0415 - a signal is to be heard before it

    return Occupant()


def _until_gone(other: Occupant, seconds: float) -> None:
    """Wait until the other process ends, and for so many seconds at most."""
    poll = select.poll()
    poll.register(other, select.POLLHUP | select.POLLIN)
    poll.poll(seconds * 1000)


def _manager() -> ServiceManager | None:
    if "NOTIFY_SOCKET" not in os.environ:
        return None
    from ipmp_service.service_manager import ServiceManager  # noqa: PLC0415 - nothing that a container needs

    return ServiceManager.of(os.environ)


def begin_anew() -> None:
    """Become a process that waits: what a whole agent has in memory is given back, and the pid stays."""
    os.environ[STANDS_BY] = "1"
    words = sys.orig_argv[1:]
    script = next((place for place, word in enumerate(words) if not word.startswith("-")), 0)
    if words and os.access(words[script], os.X_OK):
        os.execv(words[script], words[script:])  # noqa: S606 - by its own name, which `ps` shows
    os.execv(sys.executable, [sys.executable, *words])  # noqa: S606 - it is this program
