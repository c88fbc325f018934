"""Columns as the original prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipmp_agent.commands.table import Column, TextTable, UnknownFieldError, choose, fitting, line, parsable

if TYPE_CHECKING:
    from collections.abc import Mapping

    Row = Mapping[str, str | None]


def column(name: str, width: int = 6) -> Column[Row]:
    return Column(name, width, lambda row: row.get(name, ""))


COLUMNS = (column("A"), column("B"), column("C"))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("a", "b", "c"), "a     b     c"),
        (("12345", "b", "c"), "12345 b     c"),
        (("123456", "b", "c"), "123456 b    c"),
        (("1234567", "b", "c"), "1234567 b   c"),
        (("1234567", "12345", "c"), "1234567 12345 c"),
        (("123456789012", "b", "c"), "123456789012 b c"),
        (("a", "b", "much too long a value"), "a     b     much too long a value"),
        (("", "", ""), "            "),
    ],
)
def test_long_value_pushes_and_later_columns_make_up_for_it(values: tuple[str, ...], expected: str) -> None:
    assert line(COLUMNS, values) == expected


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"A": "x", "B": "y", "C": "z"}, "x:y:z"),
        ({"A": "fe80::1", "B": "a\\b"}, "fe80\\:\\:1:a\\\\b:"),
        ({"B": None}, "::"),
    ],
)
def test_parsable_values_are_separated_and_escaped(row: Row, expected: str) -> None:
    assert parsable(COLUMNS, row) == expected


def test_single_parsable_field_is_not_escaped() -> None:
    assert parsable(COLUMNS[:1], {"A": "fe80::1\\"}) == "fe80::1\\"


def test_header_comes_again_with_every_screenful() -> None:
    table = TextTable(COLUMNS[:1], height=3)
    lines = [text for number in range(5) for text in table.lines({"A": str(number)})]
    assert lines == ["A", "0", "1", "A", "2", "3", "A", "4"]


def test_empty_is_two_dashes_and_unobtainable_a_question_mark() -> None:
    table = TextTable(COLUMNS, height=24)
    assert list(table.lines({"A": "", "B": None, "C": "c"}))[1] == "--    ?     c"
    assert table.unobtainable == {"B"}


def test_fields_are_chosen_in_the_order_asked_for_whatever_their_case() -> None:
    chosen, warnings = choose(COLUMNS, "c,A", strict=False)
    assert [one.name for one in chosen] == ["C", "A"]
    assert warnings == []
    assert choose(COLUMNS, "ALL", strict=False)[0] == list(COLUMNS)


def test_unknown_field_is_a_warning_for_people_and_fatal_for_programs() -> None:
    chosen, warnings = choose(COLUMNS, "a,x", strict=False)
    assert [one.name for one in chosen] == ["A"]
    assert warnings == ['unknown output field "x"; there is: a, b, c']
    with pytest.raises(UnknownFieldError, match='"x"'):
        choose(COLUMNS, "a,x", strict=True)
    with pytest.raises(UnknownFieldError, match="all"):
        choose(COLUMNS, "all", strict=True)
    with pytest.raises(UnknownFieldError, match="no valid output field"):
        choose(COLUMNS, "x,y", strict=False)


@pytest.mark.parametrize(("widths", "count"), [((40, 40), 2), ((40, 41), 1), ((30, 30, 30), 2), ((80,), 1)])
def test_default_fields_fit_into_eighty_columns(widths: tuple[int, ...], count: int) -> None:
    assert len(fitting([column("A", width) for width in widths])) == count
