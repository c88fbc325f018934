from __future__ import annotations

import pytest

from ipmp_operator.core.backlog import FIRST_RETRY, LAST_RECONNECT, LAST_RETRY, Backlog


@pytest.fixture
def backlog() -> Backlog[str]:
    return Backlog()


def test_key_added_many_times_is_done_once(backlog: Backlog[str]) -> None:
    for due in (3.0, 1.0, 2.0):
        backlog.add("a", due)
    assert backlog.take(0.9) is None
    assert backlog.next_due() == 1.0
    assert backlog.take(1.0) == "a"
    backlog.settle("a")
    assert backlog.take(9.0) is None
    assert backlog.next_due() is None


def test_key_added_while_it_is_worked_on_is_done_again_and_never_twice_at_once(backlog: Backlog[str]) -> None:
    backlog.add("a", 0.0)
    assert backlog.take(0.0) == "a"
    backlog.add("a", 1.0)
    assert backlog.take(5.0) is None
    assert backlog.next_due() is None
    backlog.settle("a")
    assert backlog.take(5.0) == "a"


def test_keys_come_in_the_order_in_which_they_are_due(backlog: Backlog[str]) -> None:
    for key, due in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
        backlog.add(key, due)
    assert [backlog.take(9.0) for _ in range(4)] == ["a", "b", "c", None]


def test_lower_rank_goes_first_of_what_is_due_and_of_nothing_else() -> None:
    backlog: Backlog[str] = Backlog(rank=lambda key: int(key.startswith("node")))
    for number in range(5000):
        backlog.add(f"node {number}", number / 5000)
    backlog.add("status", 2.0)
    backlog.add("pass", 3.0)
    assert backlog.take(1.0) == "node 0"
    assert backlog.next_due() == 1 / 5000
    assert [backlog.take(3.0) for _ in range(3)] == ["status", "pass", "node 1"]
    assert [backlog.retry("status", 3.0), backlog.next_due(), backlog.take(3.0)] == [FIRST_RETRY, 2 / 5000, "node 2"]
    assert backlog.take(4.0) == "status", "again before all others, once its wait is over"


def test_each_failure_doubles_the_wait_up_to_a_minute_and_success_forgets(backlog: Backlog[str]) -> None:
    now, waits = 0.0, []
    backlog.add("a", now)
    for _ in range(10):
        assert backlog.take(now) == "a"
        waits.append(backlog.retry("a", now))
        assert backlog.take(now + waits[-1] - 0.01) is None
        now += waits[-1]
    assert waits[:4] == [FIRST_RETRY * factor for factor in (1, 2, 4, 8)]
    assert waits[-1] == LAST_RETRY
    assert backlog.take(now) == "a"
    backlog.settle("a")
    backlog.add("a", now)
    assert backlog.take(now) == "a"
    assert backlog.retry("a", now) == FIRST_RETRY


def test_new_reason_to_do_a_failing_key_does_not_shorten_its_wait(backlog: Backlog[str]) -> None:
    backlog.add("a", 0.0)
    backlog.take(0.0)
    backlog.add("a", 0.0)
    assert backlog.retry("a", 0.0) == FIRST_RETRY
    backlog.add("a", 0.1)
    assert backlog.take(FIRST_RETRY - 0.01) is None
    assert backlog.take(FIRST_RETRY) == "a"


def test_server_that_asks_for_more_time_gets_it(backlog: Backlog[str]) -> None:
    backlog.add("a", 0.0)
    backlog.take(0.0)
    assert backlog.retry("a", 0.0, after=7.0) == 7.0


def test_absent_server_is_tried_again_soon_however_long_it_was_away(backlog: Backlog[str]) -> None:
    now, waits = 0.0, []
    backlog.add("a", now)
    for _ in range(10):
        assert backlog.take(now) == "a"
        waits.append(backlog.retry("a", now, longest=LAST_RECONNECT))
        now += waits[-1]
    assert max(waits) == LAST_RECONNECT


def test_failing_key_delays_no_other(backlog: Backlog[str]) -> None:
    backlog.add("bad", 0.0)
    backlog.take(0.0)
    backlog.retry("bad", 0.0)
    backlog.add("good", 0.1)
    assert backlog.take(0.1) == "good"
