"""The examples and the reference are true."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipmp_api.compile import compile_for_file
from ipmp_api.fields import GROUP_SPEC
from ipmp_api.manifest import load_manifest
from ipmp_api.parse import parse_group, parse_node_group
from ipmp_api.reference import reference
from ipmp_api.schema import Node, Sequence, Struct
from tests.node_groups import node_group_manifest

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_valid_and_runs_from_its_file(path: Path) -> None:
    for document in load_manifest(path.read_text(encoding="utf-8")):
        group = parse_group(document.content)
        node_name = next((assigned.node_name for assigned in group.data_addresses.assigned), "node1")
        compiled = compile_for_file(group, node_name)
        assert compiled.data_addresses
        assert parse_node_group(node_group_manifest(compiled)) == compiled


def paths(node: Node, path: str) -> Iterator[str]:
    if isinstance(node, Struct):
        for name, prop in node.properties.items():
            yield f"{path}.{name}"
            yield from paths(prop, f"{path}.{name}")
    elif isinstance(node, Sequence):
        yield from paths(node.items, path)


def written(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield f"{path}.{name}"
            yield from written(item, f"{path}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from written(item, path)


def test_the_example_of_every_field_has_every_field() -> None:
    (document,) = load_manifest((ROOT / "examples/every-field.yaml").read_text(encoding="utf-8"))
    assert set(paths(GROUP_SPEC, "spec")) <= set(written(document.content["spec"], "spec"))


def test_the_committed_reference_is_the_generated_one() -> None:
    assert (ROOT / "docs/api.md").read_text(encoding="utf-8") == reference(), "run `make crds`"


def test_the_reference_has_every_field_and_its_own_example_is_valid() -> None:
    text = reference()
    for path in paths(GROUP_SPEC, "spec"):
        assert f"{path.rpartition('.')[2]}" in text
    (document,) = load_manifest(text.partition("```yaml\n")[2].partition("```")[0])
    assert parse_group(document.content).name == "front"
