"""What holds for the tests themselves."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parents[2]


def test_no_test_module_imports_another() -> None:
    """What two of them need stands in a module of its own: a test may be changed by who reads that test alone."""
    found = [
        f"{path.relative_to(TESTS)} imports {node.module}"
        for path in TESTS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").rpartition(".")[2].startswith("test_")
        and (node.module or "").startswith("tests.")
    ]
    assert found == []
