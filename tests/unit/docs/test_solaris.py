import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "solaris.md"
NAME = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows() -> list[str]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("|") and not line.startswith(("| Solaris", "|--"))]


@cache
def functions_of(path: str) -> frozenset[str]:
    file = ROOT / path
    if not file.is_file():
        return frozenset()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


def test_every_row_has_four_columns_and_names_its_functions_of_the_last() -> None:
    assert len(rows()) > 50
    for row in rows():
        columns = re.split(r"\s*\|\s*", row.strip("|"))
        assert len(columns) == 4, row
        names = NAME.findall(columns[3])
        assert names, f"no test is named: {row}"
        assert NAME.sub("", columns[3]).strip() == "", f"beside the tests stands something else: {row}"


def test_every_named_test_exists() -> None:
    named = {found for row in rows() for found in NAME.findall(row)}
    missing = sorted(f"{path}::{test}" for path, test in named if test not in functions_of(path))
    assert missing == []
