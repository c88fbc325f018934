"""The committed CRDs are the generated ones; every list and string in them is bounded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ipmp_api import crd, pool_rules, rules
from ipmp_api.fields import NODE_GROUP_SPEC
from ipmp_api.parse import node_group_spec, parse_node_group
from ipmp_api.schema import Rule
from tests.unit.api.manifests import NODE_GROUP

CRDS = Path(__file__).resolve().parents[3] / "crds"
FILES = ("ipmpgroups.ipmp.dev.yaml", "ipmpnodegroups.ipmp.dev.yaml")


def test_the_committed_files_are_the_generated_ones() -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in CRDS.glob("*.yaml")}
    assert committed == crd.documents(), "run `make crds`"
    assert tuple(sorted(committed)) == FILES


def schemas(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, prop in schema.get("properties", {}).items():
        yield from schemas(prop, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if name in schema:
            yield from schemas(schema[name], f"{path}.{name}")


def everything() -> list[tuple[str, dict[str, Any]]]:
    roots = {d["spec"]["names"]["kind"]: d["spec"]["versions"][0] for d in (crd.group_crd(), crd.node_group_crd())}
    found = []
    for kind, version in roots.items():
        root = version["schema"]["openAPIV3Schema"]
        found += [*schemas(root["properties"]["spec"], f"{kind}.spec")]
        found += [*schemas(root["properties"]["status"], f"{kind}.status")]
    return found


@pytest.mark.parametrize(("path", "schema"), everything(), ids=[path for path, _ in everything()])
def test_every_field_is_bounded_and_described(path: str, schema: dict[str, Any]) -> None:
    assert schema["description"].endswith(".")
    match schema["type"]:
        case "string":
            assert "maxLength" in schema or "enum" in schema or schema.get("format") == "date-time"
        case "array":
            assert "maxItems" in schema
            assert "x-kubernetes-list-type" in schema
        case "integer":
            assert {"minimum", "maximum"} <= set(schema)
        case "object":
            assert ("properties" in schema) != ("additionalProperties" in schema)
            assert "properties" in schema or "maxProperties" in schema
        case kind:
            assert kind == "boolean"


def test_the_spec_that_is_written_has_every_field_of_the_crd_but_those_of_people_and_the_absent() -> None:
    spec = node_group_spec(parse_node_group(NODE_GROUP))
    assert set(spec) == set(NODE_GROUP_SPEC.properties) - {"offline"}


def all_rules() -> list[Rule]:
    return [value for module in (rules, pool_rules) for value in vars(module).values() if isinstance(value, Rule)]


@pytest.mark.parametrize("rule", all_rules(), ids=lambda rule: rule.message[:40])
def test_a_rule_says_its_message_in_both_languages(rule: Rule) -> None:
    assert rule.cel is not None or rule.holds is not None
    for cel, _ in rule.words.values():
        assert cel or rule.cel is None
    assert ("{" in rule.message) == (rule.message_expression() is not None)


def test_the_files_are_yaml_with_what_kubectl_needs() -> None:
    group, node_group = (yaml.safe_load((CRDS / name).read_text(encoding="utf-8")) for name in FILES)
    assert group["spec"]["names"]["shortNames"] == ["ipmp"]
    assert node_group["spec"]["names"]["shortNames"] == ["ipmpn"]
    for document in (group, node_group):
        assert document["spec"]["scope"] == "Cluster"
        # A category of the same word as a short name would make `kubectl get ipmp NAME` ask for several kinds.
        assert document["spec"]["names"]["categories"] == ["multipathing"]
        assert document["spec"]["versions"][0]["subresources"] == {"status": {}}
    columns = [c["name"] for c in group["spec"]["versions"][0]["additionalPrinterColumns"]]
    assert columns == ["Ready", "Nodes", "Degraded", "Failed", "FDT", "Unknown", "Accepted", "Why", "Age"]
    selectable = node_group["spec"]["versions"][0]["selectableFields"]
    assert [f["jsonPath"] for f in selectable] == [".spec.nodeName", ".spec.groupName"]


def test_a_client_side_apply_still_fits_its_annotation() -> None:
    """`kubectl apply` without --server-side keeps a JSON copy in an annotation; all annotations hold 256 KiB."""
    for document in (crd.group_crd(), crd.node_group_crd()):
        assert len(yaml.dump(document)) < 200_000
