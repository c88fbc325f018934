"""The agent with a watch in its event loop: which turn took longest, in processor time.

A turn is what the loop does between two questions to its descriptors and timers: as long as it lasts no failover cuts
in. Processor time of the loop's thread, the kernel's work for it included, is the same on a busy machine.

Run: python watched_loop.py FILE ARGUMENTS, where FILE takes the figures as JSON when the process ends, or when it gets
SIGUSR1, which begins anew; ARGUMENTS are those of `ipmp-agent`.
"""

from __future__ import annotations

import asyncio
import json
import selectors
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipmp_agent.commands.ipmp_agent import main as agent

if TYPE_CHECKING:
    from types import FrameType

LONG = 0.05
"""Seconds from which a turn is counted as long."""


class Watch(selectors.EpollSelector):
    """A selector that knows how long it was not asked."""

    def __init__(self) -> None:
        super().__init__()
        self._since: float | None = None  # what comes before the first question is no turn
        self._seen = {"longest": 0.0, "over": 0.0}
        self._began = time.thread_time()

    def tell(self) -> dict[str, float]:
        """What was seen, in seconds, from which on it begins anew."""
        told = self._seen | {"processor": time.thread_time() - self._began}
        self._seen, self._began = {"longest": 0.0, "over": 0.0}, time.thread_time()
        return told

    def select(self, timeout: float | None = None) -> Any:
        """Ask for what is ready."""
        took = time.thread_time() - self._since if self._since is not None else 0.0
        self._seen["longest"] = max(self._seen["longest"], took)
        self._seen["over"] += took > LONG
        ready = super().select(timeout)
        self._since = time.thread_time()
        return ready


class Policy(asyncio.DefaultEventLoopPolicy):
    """Gives the first loop that is made a watch: that of the data plane."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch: Watch | None = watch

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Make a loop."""
        watch, self._watch = self._watch, None
        return asyncio.SelectorEventLoop(watch) if watch is not None else super().new_event_loop()


def main() -> int:
    """Run the agent."""
    figures, watch = Path(sys.argv.pop(1)), Watch()

    def write(_number: int = 0, _frame: FrameType | None = None) -> None:
        fresh = figures.with_suffix(".new")
        fresh.write_text(json.dumps(watch.tell()), encoding="utf-8")
        fresh.replace(figures)

    asyncio.set_event_loop_policy(Policy(watch))
    signal.signal(signal.SIGUSR1, write)
    try:
        return agent()
    finally:
        write()


if __name__ == "__main__":
    sys.exit(main())
