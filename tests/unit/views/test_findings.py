"""Every finding that the product can make has its condition and is explained to people."""

import ast
from pathlib import Path

import pytest

from ipmp_agent.core.reasons import ADVICE, OBSTACLES, Reason
from ipmp_agent.views import status

ROOT = Path(__file__).parents[3]
SOURCES = [
    path
    for room in ("core", "linux", "disk", "process")
    for path in (ROOT / "node-agent/ipmp_agent" / room).rglob("*.py")
]
PAGES = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
CONDITIONS = {
    "InterfacesConsistent": status.INCONSISTENT,
    "ProbesEnabled": status.UNPROBED,
    "OfflineHonored": (Reason.MINIMUM_REDUNDANCY,),
    "HostSuitable": (*OBSTACLES, *ADVICE),
    "Programmed": status.KERNEL,
}


def _found() -> set[Reason]:
    """The reasons of all findings that core and kernel's side make."""
    found = set()
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Finding"]
        for call in calls:
            # Where the reason is a variable, it is one of those that stand in the module's tuples beside their words.
            named = [call.args[0]] if isinstance(call.args[0], ast.Attribute) else _in_tuples(tree)
            texts = [ast.unparse(each) for each in named]
            found |= {Reason[text.removeprefix("Reason.")] for text in texts if text.startswith("Reason.")}
    return found


def _in_tuples(tree: ast.AST) -> list[ast.expr]:
    return [element for node in ast.walk(tree) if isinstance(node, ast.Tuple) for element in node.elts]


FOUND = sorted(_found())


def test_findings_are_found_in_the_sources() -> None:
    assert {Reason.TUNNEL_PINNED, Reason.NOT_ONE_LINK, Reason.FOREIGN_CHANGE} <= set(FOUND)


@pytest.mark.parametrize("reason", FOUND)
def test_every_finding_belongs_to_one_condition(reason: Reason) -> None:
    """Where it is in none, add it to core/reasons.py or a tuple of views/status.py."""
    assert [name for name, reasons in CONDITIONS.items() if reason in reasons] != []
    assert sum(reason in reasons for reasons in CONDITIONS.values()) == 1


@pytest.mark.parametrize("reason", FOUND)
def test_every_finding_is_explained(reason: Reason) -> None:
    """People look for the word of a condition in docs/."""
    assert f"`{reason}`" in PAGES
