"""Histories of faults are drawn again from the same seed, read as they were written, and reduced to what matters."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.chaos.history import REST, Step, draw, read, shortest, write
from tests.chaos.kinds import KINDS
from tests.chaos.run import history

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

STEPS = [Step("unplug", 0, number) for number in range(100)]


def test_same_seed_is_the_same_history_and_another_is_another() -> None:
    assert history("1/1", 50) == history("1/1", 50)
    assert history("1/1", 50) != history("1/2", 50)


def test_history_has_as_many_faults_as_asked_for_and_begins_with_a_rest() -> None:
    steps = draw(random.Random(3), 70, ["a", "b"], [1, 3], ["a"])
    assert sum(step.kind != REST for step in steps) == 70
    assert steps[0].kind == REST


def test_there_are_thirty_kinds_at_least_and_each_says_what_it_does() -> None:
    assert len(KINDS) >= 30
    assert all(kind.about for kind in KINDS.values())


def test_script_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "script"
    write(path, STEPS, shape="two", violated="I1: gone")
    assert read(path) == ({"shape": "two", "violated": "I1: gone"}, STEPS)


def test_line_that_is_no_step_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text("unplug 0 1\nunplug\n", encoding="utf-8")
    with pytest.raises(ValueError, match="unpack"):
        read(path)


@pytest.mark.parametrize("needed", [{99}, {3}, {3, 60}, {0, 50, 99}, set(range(10, 20))], ids=str)
def test_what_is_left_is_what_the_failure_needs(needed: set[int]) -> None:
    def fails(steps: Sequence[Step]) -> bool:
        return needed <= {step.number for step in steps}

    assert {step.number for step in shortest(STEPS, fails)} == needed


def test_without_time_the_shortest_so_far_is_told() -> None:
    tries: list[int] = []

    def fails(steps: Sequence[Step]) -> bool:
        tries.append(len(steps))
        return len(steps) > 40

    found = shortest(STEPS, fails, lambda: len(tries) < 9)
    assert len(tries) == 9
    assert 40 < len(found) < 100
