"""Threads that outlive a fault of their own, and calls that may hang without holding anybody up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

PAUSE = 1.0
"""Seconds between a fault and the next attempt: it must not become a busy loop."""

log = logging.getLogger(__name__)


def kept(work: Callable[[], None], name: str) -> threading.Thread:
    """A daemon thread, not yet started, that does `work` until it returns, and begins anew when it raises.

    Without that, a fault nobody thought of would leave a process that looks well and does half of its work.
    """

    def run() -> None:
        while True:
            try:
                work()
            except Exception:
                log.exception("thread %s met a fault and begins anew", name)
                time.sleep(PAUSE)
            else:
                return

    return threading.Thread(target=run, name=name, daemon=True)


async def aside(function: Callable[[], T]) -> T:
    """Call a function that may hang in a thread that nobody waits for at the end, as those of an executor are."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(outcome: Callable[[], None]) -> None:
        if not future.done():
            outcome()

    def run() -> None:
        try:
            result = function()
        except Exception as error:  # noqa: BLE001 - it belongs to who asked
            outcome = partial(future.set_exception, error)
        else:
            outcome = partial(future.set_result, result)
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=run, name="aside", daemon=True).start()
    return await future
