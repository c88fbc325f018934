"""Sockets that the loop reads when something comes, and all of which can be drained at once."""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

DRAIN_ROUNDS = 64
"""Looks at all sockets in one draining: a flood must not hold up what the draining is for."""


class _Descriptor(Protocol):
    def fileno(self) -> int: ...


def at_once(read: Callable[[], object]) -> None:
    """Read, and nothing more."""
    read()


class Readers:
    """Who reads which socket, in the running loop.

    The loop's own selector cannot be asked in passing whether something has come meanwhile. A second one can, with one
    system call for all sockets together; to try each of them would cost more than a whole probe.

    Args:
        hear: called by the loop with each read there is to do; does it.
    """

    def __init__(self, hear: Callable[[Callable[[], object]], object] = at_once) -> None:
        self._hear = hear
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._reads: dict[int, Callable[[], object]] = {}

    def add(self, receiver: _Descriptor, read: Callable[[], object]) -> None:
        """Call `read` whenever this socket has something; it need not take all of it."""
        descriptor = receiver.fileno()
        self._epoll.register(descriptor, select.EPOLLIN)
        self._reads[descriptor] = read
        self._loop.add_reader(descriptor, self._hear, read)

    def remove(self, receiver: _Descriptor) -> None:
        """Read this socket no more. It must still be open."""
        descriptor = receiver.fileno()
        self._loop.remove_reader(descriptor)
        del self._reads[descriptor]
        self._epoll.unregister(descriptor)

    def drain(self) -> None:
        """Read what has come to any of them."""
        for _ in range(DRAIN_ROUNDS):
            ready = self._epoll.poll(0)
            if not ready:
                return
            for descriptor, _ in ready:
                read = self._reads.get(descriptor)  # one read may have closed the socket of another
                if read is not None:
                    read()

    def close(self) -> None:
        """Read nothing any more."""
        for descriptor in self._reads:
            self._loop.remove_reader(descriptor)
        self._reads.clear()
        self._epoll.close()
