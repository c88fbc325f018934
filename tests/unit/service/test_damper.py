"""What people are told of is damped: bounded in a storm, silent about what comes and goes, true in the end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ipmp_service.damper import Damper, Dampers


def test_value_that_lasts_passes_once_and_its_end_too() -> None:
    damper = Damper("ok", settle=5.0, spacing=60.0)
    seen = [(now, value) for now in range(200) if damper.take(value := "bad" if 10 <= now < 100 else "ok", float(now))]
    assert seen == [(15, "bad"), (105, "ok")]


def test_value_that_comes_and_goes_within_the_time_to_settle_never_passes() -> None:
    damper = Damper("ok", settle=5.0, spacing=60.0)
    assert not any(damper.take("bad" if now % 6 < 4 else "ok", float(now)) for now in range(1000))
    assert damper.due is None or damper.due > 999


def test_growing_number_passes_as_it_is_then_and_not_for_each_step() -> None:
    damper = Damper(0, settle=5.0, spacing=60.0)
    seen = [(now, now) for now in range(131) if damper.take(now, float(now))]
    assert seen == [(6, 6), (66, 66), (126, 126)]


def test_due_says_when_to_look_again() -> None:
    damper = Damper(0, settle=5.0, spacing=60.0)
    assert damper.due is None
    damper.take(1, 100.0)
    assert damper.due == 105.0
    assert damper.take(1, 105.0)
    damper.take(2, 106.0)
    assert damper.due == 165.0


@given(st.lists(st.tuples(st.floats(0.001, 20.0), st.integers(0, 4)), max_size=300))
def test_storm_is_bounded_and_what_stands_at_its_end_is_known(steps: list[tuple[float, int]]) -> None:
    damper, now, passed = Damper(0, settle=2.0, spacing=30.0), 0.0, 0
    last = 0
    for pause, value in steps:
        now, last = now + pause, value
        passed += damper.take(value, now)
    assert passed <= 1 + now / 30.0
    while damper.due is not None:
        now = max(now, damper.due)
        damper.take(last, now)
    assert damper.passed == last


def test_each_name_has_a_damper_of_its_own_until_it_is_named_no_more() -> None:
    dampers = Dampers(0, settle=5, spacing=60)
    assert dampers.due is None
    dampers.keep(("a", "b"))
    assert not dampers.take("a", 1, now=10)
    assert not dampers.take("b", 1, now=12)
    assert dampers.due == 15
    assert dampers.take("a", 1, now=15)
    assert dampers.passed() == {"a": 1, "b": 0}
    assert dampers.due == 17
    dampers.keep(("b", "c"))
    assert dampers.take("b", 1, now=17), "what it knew is kept"
    dampers.keep(("a", "b"))
    assert dampers.passed() == {"a": 0, "b": 1}, "what comes back begins anew"
