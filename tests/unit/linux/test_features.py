"""The features of a group keep the contract of linux/group/feature.py."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

from ipmp_agent.linux.group import feature, features, group
from ipmp_agent.linux.group.reconcile import GroupReconciler


def _methods(tree: ast.Module, name: str) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    kind = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    return {node.name: node for node in kind.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


TREE = ast.parse(Path(features.__file__).read_text(encoding="utf-8"))
METHODS = _methods(ast.parse(Path(group.__file__).read_text(encoding="utf-8")), "GroupInKernel")
CONTRACT = {
    name: member for name, member in vars(feature.Feature).items() if inspect.isfunction(member) and name[0] != "_"
}
ORDER = [line.split(maxsplit=3) for line in (feature.__doc__ or "").splitlines() if line.startswith("    ")]


def _features() -> list[type]:
    """The classes of linux/group that a group makes one of, without the one that says when to compare."""
    imported = {
        alias.name: node.module
        for node in TREE.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ipmp_agent.linux.group.")
        for alias in node.names
    }
    made = {ast.unparse(n.func) for n in ast.walk(_methods(TREE, "Features")["__init__"]) if isinstance(n, ast.Call)}
    classes = [getattr(importlib.import_module(imported[name] or ""), name) for name in sorted(made & imported.keys())]
    return [each for each in classes if each is not GroupReconciler and CONTRACT.keys() & vars(each).keys()]


def _returns(function: object) -> set[str]:
    return set(str(inspect.get_annotations(function)["return"]).split(" | "))  # type: ignore[arg-type]


class _Calls(ast.NodeVisitor):
    """The calls of a function in the order in which they are made."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        name = ast.unparse(node.func).removeprefix("self.")
        self.made.append(name.removeprefix("_features.").removeprefix("features."))


@pytest.mark.parametrize("kind", _features(), ids=lambda kind: kind.__name__)
def test_methods_of_the_contract_do_what_it_says(kind: type) -> None:
    for name in CONTRACT.keys() & vars(kind).keys():
        assert _returns(vars(kind)[name]) <= _returns(CONTRACT[name]) | {"int"}, f"{kind.__name__}.{name}"


@pytest.mark.parametrize("kind", _features(), ids=lambda kind: kind.__name__)
def test_what_is_remembered_is_taken_over_and_what_is_changed_put_back(kind: type) -> None:
    own = vars(kind).keys()
    assert ("memory" in own) == ("remember" in own)
    if "note" in own:
        assert "memory" in own, "what is noted must outlive the agent"
    if "differences" in own:
        assert own & {"withdraw", "restore"}, "what is changed must be put back"


@pytest.mark.parametrize(("method", "first", "second", "why"), ORDER, ids=lambda text: text)
def test_group_keeps_the_order(method: str, first: str, second: str, why: str) -> None:
    calls = _Calls()
    calls.visit(METHODS[method])
    assert first in calls.made
    assert second in calls.made
    last = len(calls.made) - 1 - calls.made[::-1].index(second)
    assert calls.made.index(first) < last, why


def test_order_and_features_are_found() -> None:
    assert len(ORDER) > 15
    assert len(_features()) >= 7
