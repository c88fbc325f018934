"""Long work lets the loop do other things in between."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from ipmp_agent.linux.shared import slices
from ipmp_agent.linux.shared.slices import in_slices, parts

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every piece of work be a slice of its own."""
    monkeypatch.setattr(slices, "SLICE", 0.0)


def counting(done: list[str], to: int = 3) -> Generator[None, None, int]:
    try:
        for number in range(to):
            done.append(str(number))
            yield
    finally:
        done.append("closed")
    return to


def test_the_loop_has_its_turn_between_slices_and_the_result_is_that_of_the_work() -> None:
    done: list[str] = []

    async def other() -> None:
        for _ in range(3):
            done.append("other")
            await asyncio.sleep(0)

    async def both() -> int:
        beside = asyncio.create_task(other())
        result = await in_slices(counting(done))
        await beside
        return result

    assert asyncio.run(both()) == 3
    assert done == ["0", "other", "1", "other", "2", "other", "closed"]


def test_work_that_is_given_up_is_closed() -> None:
    done: list[str] = []

    async def give_up() -> None:
        work = asyncio.create_task(in_slices(counting(done)))
        await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(give_up())
    assert done == ["0", "closed"]


def test_parts_have_all_in_order() -> None:
    assert list(parts(range(5), 2)) == [[0, 1], [2, 3], [4]]
