"""Long work in slices: between two of them the loop serves its descriptors and timers, so that a failover cuts in.

Such work is a generator that yields wherever its state is whole, about every `AT_ONCE` objects.
"""

from __future__ import annotations

import asyncio
import itertools
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

T = TypeVar("T")

AT_ONCE = 128
"""Objects between two places where work may be interrupted."""

SLICE = 0.004
"""Seconds of work before the loop has its turn."""


def parts(objects: Iterable[T], size: int = AT_ONCE) -> Iterator[list[T]]:
    """Take objects apart into lists of this length, the last one shorter."""
    source = iter(objects)
    while part := list(itertools.islice(source, size)):
        yield part


async def in_slices(work: Generator[None, None, T]) -> T:
    """Do the work; returns what it returned, after the loop has had its turn."""
    began = perf_counter()
    try:
        while True:
            next(work)
            if perf_counter() - began >= SLICE:
                await asyncio.sleep(0)
                began = perf_counter()
    except StopIteration as end:
        value: T = end.value
    finally:
        work.close()
    await asyncio.sleep(0)
    return value
