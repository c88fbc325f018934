"""One name stands for one thing, in all packages together."""

from __future__ import annotations

import ast
from collections import defaultdict

from tests.unit.docs.pages import ROOT

PACKAGES = (
    "common/ipmp_service",
    "crds/ipmp_api",
    "node-agent/ipmp_agent",
    "operator/ipmp_operator",
    "operator/kubectl_ipmp",
)


def test_no_two_public_classes_have_one_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert len(places) > 200
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
