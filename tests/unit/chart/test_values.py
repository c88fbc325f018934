"""The chart's values: schema, defaults and comments say the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema  # type: ignore[import-untyped]  # its stubs would be one more package
import pytest
import yaml

from tests.docs import chart

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "helm/ipmp"
TEXT = (CHART / "values.yaml").read_text(encoding="utf-8")
VALUES = yaml.safe_load(TEXT)
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))


def documented(values: Any, schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Paths of the values that the chart names: a map of free content is one value."""
    for key, value in values.items():
        inner = schema["properties"].get(key, {})
        here = f"{path}{key}"
        if isinstance(value, dict) and "required" in inner:
            yield from documented(value, inner, f"{here}.")
        else:
            yield here


def stated(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    for key, inner in schema["properties"].items():
        if "required" in inner:
            yield from stated(inner, f"{path}{key}.")
        else:
            yield f"{path}{key}"


def opened(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Paths of the objects that take whatever they are given."""
    if schema.get("type") == "object" and "additionalProperties" not in schema:
        yield path
    for key, inner in schema.get("properties", {}).items():
        yield from opened(inner, f"{path}.{key}" if path else key)
    for key, inner in schema.get("$defs", {}).items():
        yield from opened(inner, key)
    if "items" in schema:
        yield from opened(schema["items"], f"{path}[]")


def test_schema_and_values_name_the_same() -> None:
    assert sorted(documented(VALUES, SCHEMA)) == sorted(stated(SCHEMA))


def test_defaults_are_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(VALUES, SCHEMA)


def test_no_part_of_the_chart_takes_a_value_that_it_does_not_know() -> None:
    theirs = {f"affinity.{kind}" for kind in ("nodeAffinity", "podAffinity", "podAntiAffinity")}
    theirs |= {
        f"operator.networkPolicy.metricsFrom[].{kind}" for kind in ("namespaceSelector", "podSelector", "ipBlock")
    }
    theirs |= {"monitoring.podMonitors.relabelings[]", "monitoring.prometheusRule.extraRules[]"}
    theirs |= {"named[]", "operator.topologySpreadConstraints[]"}
    assert set(opened(SCHEMA)) == theirs | {"global"}, "Kubernetes and helm check these"
    wrong = {**VALUES, "agent": {**VALUES["agent"], "hostNetwrok": True}}
    with pytest.raises(jsonschema.ValidationError, match="hostNetwrok"):
        jsonschema.validate(wrong, SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("image.pullPolicy", "Sometimes"),
        ("log.level", "loud"),
        ("agent.metrics.port", 0),
        ("agent.metrics.port", "9471"),
        ("agent.metrics.host", "198.18.0.1"),  # the kubelet's probes would find nobody at 127.0.0.1
        ("agent.stateDir", "relative"),
        ("agent.maxUnavailable", "110%"),
        ("agent.updateStrategy", "Recreate"),
        ("agent.securityContext", {"privileged": True}),  # what an agent may is not a value
        ("agent.extraArgs", ["run"]),
        ("agent.extraEnv", [{"value": "x"}]),
        ("image.digest", "latest"),
        ("operator.networkPolicy.apiServerPorts", []),
        ("operator.replicas", -1),
        ("operator.shards", [{"name": "a"}]),
        ("operator.shards", [{"name": "A", "groupSelector": "a=b"}]),
        ("operator.withdrawTimeoutSeconds", 0),
    ],
)
def test_wrong_value_is_refused(path: str, value: Any) -> None:
    whole = json.loads(json.dumps(VALUES))
    *parents, last = path.split(".")
    inner = whole
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(whole, SCHEMA)


def test_every_value_is_explained_by_its_full_name() -> None:
    explained = set(re.findall(r"^ *# ([a-zA-Z.]+) ", TEXT, re.MULTILINE))
    missing = [path for path in documented(VALUES, SCHEMA) if path not in explained]
    assert missing == []


def test_readme_of_the_chart_is_generated() -> None:
    assert chart.PATH.read_text(encoding="utf-8") == chart.text(), ".venv/bin/python -m tests.docs.chart"


def test_crds_of_the_chart_are_the_generated_ones() -> None:
    link = CHART / "files/crds"
    assert link.is_symlink()
    assert link.resolve() == ROOT / "crds"


def test_chart_and_package_have_one_version() -> None:
    described = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{described["appVersion"]}"' in project
    assert described["version"] == described["appVersion"]
    assert described["kubeVersion"] == ">=1.32.0-0"


def test_what_a_hub_shows_of_the_chart_is_yaml_and_names_our_definitions() -> None:
    described = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    notes = {key: yaml.safe_load(value) for key, value in described["annotations"].items()}
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in (CHART / "files/crds").glob("*.yaml")]
    shown = {(one["kind"], one["version"], one["name"]) for one in notes["artifacthub.io/crds"]}
    assert shown == {
        (f["spec"]["names"]["kind"], f["spec"]["versions"][0]["name"], f["metadata"]["name"]) for f in files
    }
    assert notes["artifacthub.io/license"] == "Apache-2.0"
