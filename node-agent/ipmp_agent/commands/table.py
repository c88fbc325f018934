"""Columns of text as ipmpstat prints them: for people, and for programs (`-P`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Row = TypeVar("Row")

EMPTY = "--"
"""What people see where there is nothing to say."""

UNOBTAINABLE = "?"
"""What people see where there is something to say that could not be found out."""

WIDTH = 80
"""Columns of a terminal; the default fields of a mode fit into it."""


@frozen
class Column(Generic[Row]):
    """One field: its name, its width with the space that follows, and its value. None: unobtainable."""

    name: str
    width: int
    value: Callable[[Row], str | None]


class UnknownFieldError(Exception):
    """A field that the mode does not have."""


def choose(columns: Sequence[Column[Row]], names: str, *, strict: bool) -> tuple[list[Column[Row]], list[str]]:
    """The columns of a `-o` list, in its order, and warnings for unknown names.

    Names are case-insensitive; `all` is every column, unless `strict` (for programs, which must not be surprised by
    a new one). Raises UnknownFieldError for an unknown name when strict, and when no valid name is left.
    """
    if names.lower() == "all":
        if strict:
            raise UnknownFieldError('-P needs the fields by name: "all" changes with the version')
        return list(columns), []
    by_name = {column.name.lower(): column for column in columns}
    chosen, warnings = [], []
    for name in names.split(","):
        column = by_name.get(name.strip().lower())
        if column is not None:
            chosen.append(column)
            continue
        warning = f'unknown output field "{name.strip()}"; there is: {", ".join(by_name)}'
        if strict:
            raise UnknownFieldError(warning)
        warnings.append(warning)
    if not chosen:
        raise UnknownFieldError(f"no valid output field; there is: {', '.join(by_name)}")
    return chosen, warnings


def fitting(columns: Sequence[Column[Row]]) -> list[Column[Row]]:
    """The columns, from the left, that fit into a terminal."""
    chosen, total = [], 0
    for column in columns:
        total += column.width
        if total > WIDTH:
            break
        chosen.append(column)
    return chosen


def parsable(columns: Sequence[Column[Row]], row: Row) -> str:
    r"""One line for programs: values separated by `:`; with several fields `:` and `\` in a value are escaped."""
    values = [column.value(row) or "" for column in columns]
    if len(values) > 1:
        values = [value.replace("\\", "\\\\").replace(":", "\\:") for value in values]
    return ":".join(values)


def line(columns: Sequence[Column[Row]], values: Sequence[str]) -> str:
    """One line for people: left-justified; too long a value pushes, and later columns make up for it."""
    out = []
    overflow = 0
    last = len(columns) - 1
    for position, (column, value) in enumerate(zip(columns, values, strict=True)):
        if position == last:
            out.append(value)
            break
        room = column.width - overflow
        taken = max(room, len(value) + 1)
        overflow = taken - room
        out.append(value.ljust(taken))
    return "".join(out)


class TextTable(Generic[Row]):
    """Lines for people, with the header repeated at every screenful."""

    def __init__(self, columns: Sequence[Column[Row]], height: int) -> None:
        self._columns = columns
        self._height = max(2, height)
        self._lines = 0
        self.unobtainable: set[str] = set()  # names of fields that could not be found out, so far

    def lines(self, row: Row) -> Iterator[str]:
        """The row, after a header where one is due."""
        if self._lines % self._height == 0:
            self._lines += 1
            yield line(self._columns, [column.name for column in self._columns])
        self._lines += 1
        yield line(self._columns, [self._text(column, row) for column in self._columns])

    def _text(self, column: Column[Row], row: Row) -> str:
        value = column.value(row)
        if value is None:
            self.unobtainable.add(column.name)
            return UNOBTAINABLE
        return value or EMPTY
