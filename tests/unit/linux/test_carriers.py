"""The carrier poll asks in a thread, and bothers the loop only with what is new."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from ipmp_agent.linux.shared import carriers
from ipmp_agent.linux.shared.carriers import CarrierPoll

if TYPE_CHECKING:
    import pytest

INTERVAL = 0.001


async def test_the_loop_is_told_and_only_of_a_difference() -> None:
    asked, changed = threading.Event(), asyncio.Event()
    different = False

    def differs() -> bool:
        asked.set()
        return different

    poll = CarrierPoll("poll", INTERVAL, differs, changed.set)
    await asyncio.to_thread(asked.wait, 10)
    assert not changed.is_set()
    different = True
    await asyncio.wait_for(changed.wait(), 10)
    poll.close()


async def test_the_loop_goes_on_while_the_kernel_lets_the_question_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, answer = threading.Event(), threading.Event()

    def differs() -> bool:
        asked.set()
        return answer.wait(10)

    poll = CarrierPoll("poll", INTERVAL, differs, lambda: None)
    await asyncio.to_thread(asked.wait, 10)
    turns = 0
    for _ in range(100):
        await asyncio.sleep(0)
        turns += 1
    assert turns == 100
    monkeypatch.setattr(carriers, "STOP_TIMEOUT", INTERVAL)
    poll.close()
    assert not answer.is_set(), "closing does not wait for the kernel"
    answer.set()


async def test_nothing_is_asked_once_it_is_closed() -> None:
    asked = threading.Event()

    def differs() -> bool:
        asked.set()
        return False

    poll = CarrierPoll("closed-poll", INTERVAL, differs, lambda: None)
    await asyncio.to_thread(asked.wait, 10)
    poll.close()
    assert "closed-poll" not in {thread.name for thread in threading.enumerate()}
