"""How long is waited after failures in a row."""

from __future__ import annotations

import pytest

from ipmp_service.backoff import Backoff


def test_waits_grow_to_a_limit_start_anew_and_obey_the_server() -> None:
    waiting = Backoff()
    waits = [waiting.failure() for _ in range(100)]
    for wait, longest in zip(waits, [0.5, 1, 2, 4, 8, 16, *[30] * 94], strict=True):
        assert longest / 2 <= wait <= longest
    waiting.success()
    assert waiting.failure() <= 0.5
    assert waiting.failure(asked=60.0) == 60.0


@pytest.mark.parametrize("failures", [5, 100])
def test_who_must_not_be_late_waits_less(failures: int) -> None:
    waiting = Backoff(longest=8.0)
    assert 4.0 <= [waiting.failure() for _ in range(failures)][-1] <= 8.0


def test_first_failure_is_told_from_the_next() -> None:
    waiting = Backoff()
    assert not waiting.failing
    waiting.failure()
    assert (waiting.failing, waiting.first) == (True, True)
    waiting.failure()
    assert (waiting.failing, waiting.first) == (True, False)
    waiting.success()
    assert not waiting.failing
