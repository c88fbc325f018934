"""The CRDs on a real API server, of this Kubernetes and of an older one: it and the parser refuse and accept alike."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_api.errors import ValidationError
from ipmp_api.fields import GROUP_SPEC, NODE_GROUP_SPEC
from ipmp_api.manifest import load_manifest
from ipmp_api.parse import parse_group, parse_node_group
from ipmp_api.schema import filled
from tests.cluster.cluster import Cluster
from tests.cluster.cost import writes
from tests.unit.api.manifests import ACCEPTED, GROUP, NODE_GROUP, REFUSED, Refused, changed, most

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = [*sorted((ROOT / "examples").glob("*.yaml"))]


@pytest.fixture(scope="module", params=[None, "1.34"], ids=["now", "1.34"])
def api(request: pytest.FixtureRequest, tools: Path) -> Iterator[Cluster]:
    """A control plane without nodes, with the CRDs applied as a person would."""
    cluster = Cluster()
    try:
        cluster.up(request.param)
        for crd in sorted((ROOT / "crds").glob("*.yaml")):
            cluster.kubectl("apply", "-f", str(crd))
        for name in ("ipmpgroups", "ipmpnodegroups"):
            cluster.kubectl("wait", "--for=condition=Established", f"crd/{name}.ipmp.dev", "--timeout=30s")
        cluster.wait(
            lambda: create(cluster, GROUP).returncode == 0 and create(cluster, NODE_GROUP).returncode == 0,
            what="the API server to serve both kinds",
        )
        yield cluster
    finally:
        cluster.remove()


def create(api: Cluster, manifest: dict[str, Any], *flags: str) -> subprocess.CompletedProcess[str]:
    return api.try_kubectl("create", "--dry-run=server", *flags, "-f", "-", text=json.dumps(manifest))


def told_by_parser(manifest: dict[str, Any]) -> list[str]:
    try:
        (parse_node_group if manifest["kind"] == "IPMPNodeGroup" else parse_group)(manifest)
    except ValidationError as refused:
        return [error.message for error in refused.errors]
    return []


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_what_the_parser_refuses_the_api_server_refuses_with_the_same_words(api: Cluster, case: Refused) -> None:
    done = create(api, case.manifest)
    assert done.returncode != 0
    assert case.field in done.stderr
    assert case.words in done.stderr
    assert "evaluation error" not in done.stderr, "a rule stumbled instead of judging"
    for message in told_by_parser(case.manifest):
        # The parser alone can tell which fields there are.
        assert message.partition("; the fields here are")[0] in done.stderr


@pytest.mark.parametrize(("name", "manifest"), ACCEPTED, ids=[name for name, _ in ACCEPTED])
def test_what_the_parser_accepts_the_api_server_accepts(api: Cluster, name: str, manifest: dict[str, Any]) -> None:
    done = create(api, manifest)
    assert done.returncode == 0, done.stderr


def test_the_largest_group_stays_within_the_cost_budget(api: Cluster) -> None:
    done = create(api, most())
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_accepted_as_they_are(api: Cluster, path: Path) -> None:
    api.kubectl("create", "--dry-run=server", "-f", str(path))
    for document in load_manifest(path.read_text(encoding="utf-8")):
        assert told_by_parser(document.content) == []


@pytest.mark.parametrize("manifest", [GROUP, NODE_GROUP], ids=lambda manifest: manifest["kind"])
def test_defaults_are_the_parsers(api: Cluster, manifest: dict[str, Any]) -> None:
    seen = json.loads(create(api, manifest, "-o", "json").stdout)
    schema = GROUP_SPEC if manifest["kind"] == "IPMPGroup" else NODE_GROUP_SPEC
    assert seen["spec"] == filled(schema, manifest["spec"])


def test_node_groups_are_found_by_node_and_by_group_and_stay_where_they_are(api: Cluster) -> None:
    try:
        for name in ("n1", "n2"):
            values = {"metadata.name": f"front.{name}", "spec.nodeName": name}
            api.kubectl("create", "-f", "-", text=json.dumps(changed(NODE_GROUP, values)))
        (found,) = api.get("ipmpn", "--field-selector", "spec.nodeName=n1")
        assert found["metadata"]["name"] == "front.n1"
        assert len(api.get("ipmpn", "--field-selector", "spec.groupName=front")) == 2
        moved = api.try_kubectl("patch", "ipmpn", "front.n1", "--type=merge", "-p", '{"spec": {"nodeName": "n3"}}')
        assert moved.returncode != 0
        assert "spec.nodeName" in moved.stderr
        assert "cannot be changed" in moved.stderr
    finally:
        api.kubectl("delete", "ipmpn", "--all")


def test_people_see_the_columns(api: Cluster) -> None:
    try:
        api.kubectl("create", "-f", "-", text=json.dumps(GROUP))
        status = {
            "nodes": {"selected": 5, "ready": 3, "degraded": 2, "failed": 0, "unknown": 0},
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "AllReady",
                    "message": "",
                    "lastTransitionTime": "2026-11-22T21:00:00Z",
                }
            ],
        }
        patch = json.dumps({"status": status})
        api.kubectl("patch", "ipmp", "front", "--subresource=status", "--type=merge", "-p", patch)
        heading, row = api.kubectl("get", "ipmp", "front").splitlines()
        assert heading.split() == ["NAME", "READY", "NODES", "DEGRADED", "FAILED", "FDT", "AGE"]
        assert row.split()[:6] == ["front", "True", "5", "2", "0", "1000"]
        assert "front" in api.kubectl("get", "multipathing")
    finally:
        api.kubectl("delete", "ipmp", "front", "--ignore-not-found")


def test_definition_of_groups_is_light(api: Cluster) -> None:
    """A write of it once cost 230 times as much as the other one's, and small control planes timed out on it."""
    group, node_group = (
        sum(writes(api, (ROOT / "crds" / f"{name}.ipmp.dev.yaml").read_text(encoding="utf-8"), 5))
        for name in ("ipmpgroups", "ipmpnodegroups")
    )
    assert group <= 40 * max(node_group, 0.05), f"{group:.2f} CPU s beside {node_group:.2f}"


def test_several_faults_are_told_at_once(api: Cluster) -> None:
    """Several faults at once: the API server tells all that the parser tells."""
    values = {"metadata.name": "a.b", "spec.interfaces": [{"name": "a/b"}, {"macAddress": "52"}]}
    manifest = changed(GROUP, values)
    done = create(api, manifest)
    fields = set(re.findall(r"^\* (\S+): ", done.stderr, re.MULTILINE))
    assert fields >= {"metadata.name", "spec.interfaces[0].name", "spec.interfaces[1].macAddress"}
