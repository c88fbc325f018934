"""One agent for each network namespace, whichever directories it has."""

from __future__ import annotations

import logging
import socket
import struct

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
            pid, user = _holder()
            if user == 0:
                raise InUseError(
                    f"another agent (pid {pid}) looks after the network of this host, with other directories: stop it"
                ) from None
            log.warning(
                "a process that is no agent (pid %s, user %s) has the name by which agents know each other: a second"
                " one would not be noticed",
                pid or "unknown",
                "unknown" if user is None else user,
            )

    def release(self) -> None:
        """Let others have it."""
        self._socket.close()


def _holder() -> tuple[int, int | None]:
    """The process that has the name, and its user, as the kernel says; None: it does not answer to it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as asking:
        try:
            asking.connect(NAME)
            credentials = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return 0, None
    pid, user, _ = struct.unpack("3i", credentials)
    return int(pid), int(user)
