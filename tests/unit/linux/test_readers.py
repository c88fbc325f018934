"""Sockets are read when something comes, and drained at once when somebody must know what has come."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import TYPE_CHECKING

import pytest

from ipmp_agent.linux.shared.readers import DRAIN_ROUNDS, Readers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def readers() -> AsyncIterator[Readers]:
    """Readers of the running loop."""
    made = Readers()
    yield made
    made.close()


async def test_what_came_is_drained_without_the_loop_whatever_each_read_takes(readers: Readers) -> None:
    taken: list[bytes] = []
    pairs = [socket.socketpair(type=socket.SOCK_DGRAM) for _ in range(3)]

    def take(near: socket.socket) -> None:
        taken.append(near.recv(10))

    for near, _ in pairs:
        readers.add(near, partial(take, near))
    for word in (b"first", b"second"):
        for _, far in pairs[:2]:
            far.send(word)
    readers.drain()
    assert sorted(taken) == [b"first", b"first", b"second", b"second"]
    readers.drain()
    assert len(taken) == 4
    for pair in pairs:
        readers.remove(pair[0])
        for end in pair:
            end.close()


async def test_the_loop_reads_by_itself(readers: Readers) -> None:
    near, far = socket.socketpair(type=socket.SOCK_DGRAM)
    read = asyncio.Event()

    def take() -> None:
        near.recv(10)
        read.set()

    with near, far:
        readers.add(near, take)
        far.send(b"x")
        await asyncio.wait_for(read.wait(), 10)
        readers.remove(near)
        far.send(b"nobody reads this")
        readers.drain()
        assert near.recv(100)


async def test_a_flood_ends_the_draining_at_a_bound(readers: Readers) -> None:
    near, far = socket.socketpair(type=socket.SOCK_DGRAM)
    reads = []
    with near, far:
        readers.add(near, lambda: reads.append(1))  # takes nothing, so there is always more
        far.send(b"x")
        readers.drain()
        assert len(reads) == DRAIN_ROUNDS
        readers.remove(near)


async def test_a_socket_that_another_read_closed_is_left_alone(readers: Readers) -> None:
    pairs = [socket.socketpair(type=socket.SOCK_DGRAM) for _ in range(2)]
    read: list[socket.socket] = []

    def close_the_other(mine: int) -> None:
        read.append(pairs[mine][0])
        readers.remove(pairs[1 - mine][0])
        pairs[1 - mine][0].close()
        pairs[mine][0].recv(10)

    for i, (near, far) in enumerate(pairs):
        readers.add(near, partial(close_the_other, i))
        far.send(b"x")
    readers.drain()
    assert len(read) == 1
    readers.remove(read[0])
    for pair in pairs:
        for end in pair:
            end.close()
