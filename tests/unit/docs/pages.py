"""Pages of docs/ whose tables name, in the last column, the tests that fail when a row is no longer true."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[3]
NAME = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows(page: str, columns: int) -> list[list[str]]:
    """The rows of all tables of a page, without their heads; each must have this many columns."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    table = [re.split(r"\s*\|\s*", line.strip("|")) for line in lines if line.startswith("|")]
    rules = {number for number, row in enumerate(table) if set("".join(row)) == {"-"}}
    found = [row for number, row in enumerate(table) if not {number, number + 1} & rules]
    for row in found:
        assert len(row) == columns, row
    return found


@cache
def functions_of(path: str) -> frozenset[str]:
    """The test functions of a file."""
    file = ROOT / path
    if not file.is_file():
        return frozenset()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


def every_row_names_tests_that_exist(page: str, columns: int) -> set[tuple[str, str]]:
    """Fail for each row whose last column is not names of existing tests alone; returns those named."""
    named = set()
    for row in rows(page, columns):
        names = NAME.findall(row[-1])
        assert names, f"no test is named: {row}"
        assert NAME.sub("", row[-1]).strip() == "", f"beside the tests stands something else: {row}"
        named |= set(names)
    missing = sorted(f"{path}::{test}" for path, test in named if test not in functions_of(path))
    assert missing == []
    return named
