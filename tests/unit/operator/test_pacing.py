from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipmp_operator.core.pacing import LAST, QUIET, Pace


def play(changes: list[float], *, looks: float = 0.05) -> list[float]:
    """When a status is written that changes at these times, where somebody looks that often."""
    pace, written, pending = Pace(), [], False
    waiting = sorted(changes)
    for step in range(round((waiting[-1] + 2 * LAST) / looks) + 1):
        now = step * looks
        while waiting and waiting[0] <= now:
            pace.changed(waiting.pop(0))
            pending = True
        if pending and pace.wait(now) == 0:
            pace.written(now)
            written.append(now)
            pending = False
    return written


def test_change_that_stands_alone_is_written_at_once() -> None:
    assert play([1.0, 20.0, 40.0]) == [1.0, 20.0, 40.0]


def test_thousands_of_changes_are_written_a_few_times_and_the_last_soon() -> None:
    changes = [number * 0.01 for number in range(6000)]
    written = play(changes)
    assert len(written) <= 20
    assert max(changes) <= written[-1] <= max(changes) + QUIET + 0.1
    assert all(later - earlier <= LAST + 0.1 for earlier, later in pairwise(written))


def test_failovers_that_follow_each_other_are_each_written_at_once() -> None:
    changes = [number * 2.0 for number in range(20)]
    written = play(changes)
    assert written == pytest.approx(changes, abs=0.06)


def test_changes_with_pauses_between_them_are_one_burst() -> None:
    """A slow API server lets reports through now and then."""
    assert len(play([number * 0.7 for number in range(100)])) <= 20


def test_pace_is_quick_again_after_a_burst() -> None:
    written = play([number * 0.01 for number in range(3000)] + [60.0])
    assert written[-1] == pytest.approx(60.0, abs=0.06)


@given(st.lists(st.floats(0, 60), min_size=1, max_size=200))
def test_every_change_is_written_within_the_longest_wait(changes: list[float]) -> None:
    written = play(changes)
    assert all(any(change <= at <= change + LAST + 0.1 for at in written) for change in changes)
