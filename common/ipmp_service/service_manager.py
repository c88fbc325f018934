"""What the service manager that started this process is told: sd_notify(3), datagrams to the socket $NOTIFY_SOCKET."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SOCKET = "NOTIFY_SOCKET"
WATCHDOG = "WATCHDOG_USEC"
WATCHDOG_PID = "WATCHDOG_PID"


class ServiceManager:
    """Who restarts this process when it is silent.

    Args:
        path: of its socket; one that begins with @ is abstract.
        watchdog: seconds of silence after which it takes this process for dead; None: it does not wait for a word.
    """

    def __init__(self, path: str, watchdog: float | None = None) -> None:
        self.watchdog = watchdog
        self._path = f"\0{path[1:]}" if path.startswith("@") else path
        # It never waits: a word that the manager has no room for is said again.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    @classmethod
    def of(cls, environment: Mapping[str, str], pid: int | None = None) -> ServiceManager | None:
        """The one that these variables name; None where nobody asked to be told."""
        path = environment.get(SOCKET, "")
        if path[:1] not in ("/", "@"):
            return None
        microseconds = environment.get(WATCHDOG, "")
        meant = environment.get(WATCHDOG_PID, "") in ("", str(os.getpid() if pid is None else pid))
        watched = meant and microseconds.isascii() and microseconds.isdigit() and int(microseconds) > 0
        return cls(path, int(microseconds) / 1e6 if watched else None)

    def tell(self, *assignments: str) -> bool:
        """Say these `NAME=value` at once, in one datagram; returns whether it was taken. From any thread."""
        try:
            self._socket.sendto("\n".join(assignments).encode(), self._path)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Say nothing more."""
        self._socket.close()

    def reloading(self) -> bool:
        """Say that the configuration is being read again; READY=1 follows when that is over."""
        return self.tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
