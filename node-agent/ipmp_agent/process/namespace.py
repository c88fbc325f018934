"""One agent for each network namespace, whichever directories it has."""

from __future__ import annotations

import logging
import socket
import struct
from typing import Self

from ipmp_agent.disk.directories import InUseError

NAME = "\0ipmp-agent"
"""An abstract address: each network namespace has its own, and the kernel frees it when the process ends."""

BACKLOG = 4096
"""Agents that may have asked who is here: nobody answers them, and the kernel keeps them."""

log = logging.getLogger(__name__)


class NamespaceLock:
    """The network namespace of the calling thread, held by this process until it ends, however it ends."""

    def __init__(self) -> None:
        """Raises InUseError naming the pid of another agent that works here, and OSError without a descriptor.

        Whoever is not root is no agent, though he has taken the name: he is told of, and holds nobody up.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.bind(NAME)
            self._socket.listen(BACKLOG)
        except OSError:
            self._socket.close()
            with Occupant() as other:
                if other.is_agent:
                    raise InUseError(
                        f"another agent (pid {other.pid}) looks after the network of this host, with other"
                        " directories: stop it"
                    ) from None
                log.warning(
                    "a process that is no agent (pid %s, user %s) has the name by which agents know each other: a"
                    " second one would not be noticed",
                    other.pid or "unknown",
                    "unknown" if other.user is None else other.user,
                )

    def release(self) -> None:
        """Let others have it."""
        self._socket.close()


class Occupant:
    """The process that has the name, as the kernel says, and a line to it that hangs up when that process ends.

    Without one `pid` is 0, and `user` None.
    """

    def __init__(self) -> None:
        self.pid = 0
        self.user: int | None = None
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def __enter__(self) -> Self:
        try:
            self._line.connect(NAME)
            credentials = self._line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return self
        pid, user, _ = struct.unpack("3i", credentials)
        self.pid, self.user = int(pid), int(user)
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()

    @property
    def is_agent(self) -> bool:
        """Whether it may be an agent: those are root's."""
        return self.user == 0

    def fileno(self) -> int:
        """Of the line."""
        return self._line.fileno()
