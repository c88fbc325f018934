"""The tables of ARCHITECTURE.md, and whether the walks in them are what is really called."""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.unit.docs.pages import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """What stands under a heading, without the headings below it."""
    found = re.search(rf"^#+ {re.escape(title)}$\n(.*?)(?=^#+ |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert found is not None, f"no heading {title!r}"
    return found[1]


def rows(title: str) -> list[list[str]]:
    """The rows of the one table under a heading, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def names(cell: str) -> list[str]:
    """The names in backticks, without arguments."""
    return re.findall(r"`([\w.]+)(?:\(\))?`", cell)


@contextmanager
def called() -> Iterator[list[str]]:
    """The functions that are called in this thread meanwhile, in order."""
    calls: list[str] = []

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            calls.append(frame.f_code.co_qualname)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(before)


def walk(title: str, *places: str) -> list[str]:
    """The functions of a walk that are in these files and folders, in the order of the page."""
    steps = [(names(row[0])[0], row[1].strip("`")) for row in rows(title)]
    return [function for function, file in steps if file.startswith(places)]


def not_reached(steps: list[str], calls: list[str]) -> list[str]:
    """What of these steps was not called after the one before it."""
    later = iter(calls)
    return [step for step in steps if step not in later]
