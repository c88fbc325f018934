"""What the chart's values do to the objects: each of them reaches what it names, and a null drops a default."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ipmp_api.manifest import load_manifest
from tests.cluster.product import CHART, NAMESPACE, RELEASE
from tests.cluster.rendering import daemonset, objects, only, render

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.cluster import Cluster

DIGEST = f"sha256:{'a1' * 32}"
ALIEN = {"SecurityContextConstraints"}
"""Kinds that the API server of the tests does not know."""

POD: dict[str, Any] = {
    "podLabels": {"cost": "net"},
    "podAnnotations": {"note": "1"},
    "extraArgs": ["--extra=1"],
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.test:3128"}],
    "extraVolumes": [{"name": "more", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    "livenessProbe": {"periodSeconds": 7, "initialDelaySeconds": 3},
    "readinessProbe": {"failureThreshold": 9},
    "serviceAccount": {"annotations": {"iam": "role"}, "name": "somebody"},
}
BARE_METAL = {"key": "virtual", "operator": "DoesNotExist"}
REQUIRED = {
    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [BARE_METAL]}]}
}
DOORS: dict[str, Any] = {
    "commonLabels": {"team": "net", "app.kubernetes.io/part-of": "theirs"},
    "image": {"registry": "registry.test:5000", "digest": DIGEST},
    "imagePullSecrets": [{"name": "pull"}],
    "operator": POD
    | {
        "replicas": 2,
        "affinity": {"nodeAffinity": REQUIRED},
        "networkPolicy": {"create": True, "metricsFrom": [{"namespaceSelector": {}}]},
    },
    "agent": POD
    | {
        "updateStrategy": "OnDelete",
        "affinity": {"nodeAffinity": REQUIRED},
        "securityContext": {"appArmorProfile": {"type": "Unconfined"}},
    },
    "openshift": {"enabled": True},
}


@pytest.fixture(scope="module")
def opened(tools: Path) -> list[dict[str, Any]]:
    """The chart with every door open."""
    return objects(tools, values=DOORS)


def templates(parts: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod templates of agents and operator."""
    return daemonset(parts)["spec"]["template"], only(parts, "Deployment")["spec"]["template"]


def test_pods_get_what_the_values_add(opened: list[dict[str, Any]]) -> None:
    for template in templates(opened):
        labels, annotations = template["metadata"]["labels"], template["metadata"]["annotations"]
        assert (labels["cost"], labels["team"], annotations["note"]) == ("net", "net", "1")
        assert labels["app.kubernetes.io/part-of"] == "ipmp", "what we select and count by is ours"
        pod = template["spec"]
        (container,) = pod["containers"]
        assert container["image"] == f"registry.test:5000/ipmp@{DIGEST}"
        assert container["command"][-1] == "--extra=1"
        assert container["env"][-1] == POD["extraEnv"][0]
        assert pod["volumes"][-1] == POD["extraVolumes"][0]
        assert container["volumeMounts"][-1] == POD["extraVolumeMounts"][0]
        live, ready = container["livenessProbe"], container["readinessProbe"]
        assert (live["periodSeconds"], live["initialDelaySeconds"], live["timeoutSeconds"]) == (7, 3, 5)
        assert (ready["periodSeconds"], ready["failureThreshold"]) == (5, 9)
        assert pod["affinity"] == {"nodeAffinity": REQUIRED}
        assert pod["imagePullSecrets"] == [{"name": "pull"}]


def test_common_labels_are_on_every_object(opened: list[dict[str, Any]]) -> None:
    assert [part for part in [*opened, daemonset(opened)] if part["metadata"]["labels"].get("team") != "net"] == []


def test_no_key_is_there_twice_whatever_is_added(tools: Path) -> None:
    values = copy.deepcopy(DOORS)
    ours = {"team": "other", "app.kubernetes.io/name": "theirs", "kubectl.kubernetes.io/default-container": "x"}
    for component in ("operator", "agent"):
        values[component] |= {"podLabels": ours, "podAnnotations": ours}
    monitors = {"enabled": True, "labels": ours}
    values["monitoring"] = {"podMonitors": monitors, "prometheusRule": monitors, "dashboard": monitors}
    text = render(tools, values=values).stdout
    parts = [document.content for document in load_manifest(text)]
    assert len(load_manifest(only(parts, "ConfigMap", "template")["data"]["daemonset.yaml"])) == 1
    for kind in ("PodMonitor", "PrometheusRule"):
        labels = next(part for part in parts if part["kind"] == kind)["metadata"]["labels"]
        assert (labels["team"], labels["app.kubernetes.io/name"]) == ("other", "ipmp"), "the nearer word, after ours"


def test_pods_say_version_and_manager(tools: Path) -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))["appVersion"]
    for template, manager in zip(templates(objects(tools)), ("ipmp-operator", "Helm"), strict=True):
        labels = template["metadata"]["labels"]
        assert labels["app.kubernetes.io/version"] == version
        assert labels["app.kubernetes.io/managed-by"] == manager


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ({}, "ipmp:0.1.0"),
        ({"tag": "v9"}, "ipmp:v9"),
        ({"registry": "one.test/"}, "one.test/ipmp:0.1.0"),
        ({"global": "two.test"}, "two.test/ipmp:0.1.0"),
        ({"global": "two.test", "registry": "one.test", "repository": "net/ipmp"}, "one.test/net/ipmp:0.1.0"),
        ({"tag": "v9", "digest": DIGEST}, f"ipmp@{DIGEST}"),
    ],
)
def test_image_is_named_by_registry_repository_and_tag_or_digest(tools: Path, image: dict[str, str], name: str) -> None:
    chosen = {key: value for key, value in image.items() if key != "global"}
    parts = objects(tools, values={"image": chosen, "global": {"imageRegistry": image.get("global", "")}})
    version = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))["appVersion"]
    pods = [*(template["spec"] for template in templates(parts)), only(parts, "Pod")["spec"]]
    assert {pod["containers"][0]["image"] for pod in pods} == {name.replace("0.1.0", version)}


def test_service_accounts_are_found_by_everybody_who_names_them(tools: Path) -> None:
    values = copy.deepcopy(DOORS)
    values["operator"]["serviceAccount"] = {"create": False, "name": "given"}
    values["agent"]["serviceAccount"] = {"name": "agents", "annotations": {"iam": "role"}}
    parts = objects(tools, values=values)
    agents, operator = templates(parts)
    assert (agents["spec"]["serviceAccountName"], operator["spec"]["serviceAccountName"]) == ("agents", "given")
    bindings = [part for part in parts if part["kind"].endswith("RoleBinding")]
    bound = {subject["name"] for binding in bindings for subject in binding["subjects"]}
    assert bound == {"agents", "given", f"{RELEASE}-test"}
    policy = only(parts, "ValidatingAdmissionPolicy", "own-node")["spec"]["matchConditions"][0]["expression"]
    assert policy.endswith(f"'system:serviceaccount:{NAMESPACE}:agents'")
    accounts = {
        part["metadata"]["name"]: part["metadata"].get("annotations")
        for part in parts
        if part["kind"] == "ServiceAccount"
    }
    assert accounts.keys() == {"agents", f"{RELEASE}-test"}
    assert accounts["agents"] == {"iam": "role"}


def test_agents_are_spc_t_unless_something_else_is_asked_for(tools: Path) -> None:
    def security(**values: Any) -> dict[str, Any]:
        pod = templates(objects(tools, values={"agent": values}))[0]["spec"]
        found: dict[str, Any] = pod["containers"][0]["securityContext"]
        return found

    plain = security()
    assert plain["seLinuxOptions"] == {"level": "s0", "type": "spc_t"}
    assert security(securityContext={"seLinuxOptions": {"type": "ipmp_t"}})["seLinuxOptions"]["type"] == "ipmp_t"
    assert security(securityContext=None) == {key: value for key, value in plain.items() if key != "seLinuxOptions"}


def test_rollout_waits_for_people_where_they_ask_for_it(opened: list[dict[str, Any]]) -> None:
    assert daemonset(opened)["spec"]["updateStrategy"] == {"type": "OnDelete"}


def test_affinity_that_the_operator_cannot_join_is_refused(tools: Path) -> None:
    two: dict[str, Any] = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}, {}]}}
    done = render(tools, values={"agent": {"affinity": {"nodeAffinity": two}}})
    assert done.returncode != 0
    assert "one required node selector term at most" in done.stderr


def test_two_operators_are_spread_and_drained_one_at_a_time(tools: Path, opened: list[dict[str, Any]]) -> None:
    assert not [part for part in objects(tools) if part["kind"] == "PodDisruptionBudget"], "one may be evicted"
    budget = only(opened, "PodDisruptionBudget")["spec"]
    template = templates(opened)[1]
    assert budget["maxUnavailable"] == 1
    (spread,) = template["spec"]["topologySpreadConstraints"]
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    for selector in (budget["selector"], spread["labelSelector"]):
        assert selector["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_operator_runs_where_there_is_nothing_but_a_control_plane(tools: Path) -> None:
    tolerated = templates(objects(tools))[1]["spec"]["tolerations"]
    assert {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"} in tolerated


def test_network_policy_selects_the_operator_and_lets_out_what_it_needs(
    tools: Path, opened: list[dict[str, Any]]
) -> None:
    assert not [part for part in objects(tools) if part["kind"] == "NetworkPolicy"]
    policy = only(opened, "NetworkPolicy")["spec"]
    template = templates(opened)[1]
    assert policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53, 443, 6443}
    assert policy["ingress"][0]["from"] == [{"namespaceSelector": {}}]


def test_security_context_constraints_allow_what_the_agents_pod_asks_for(
    tools: Path, opened: list[dict[str, Any]]
) -> None:
    assert not [part for part in objects(tools) if part["kind"] in ALIEN]
    allowed = only(opened, "SecurityContextConstraints")
    pod = templates(opened)[0]["spec"]
    security = pod["containers"][0]["securityContext"]
    assert set(security["capabilities"]["add"]) == set(allowed["allowedCapabilities"])
    assert allowed["allowHostNetwork"]
    assert allowed["allowHostPorts"]
    assert allowed["readOnlyRootFilesystem"] is security["readOnlyRootFilesystem"] is True
    assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} <= set(allowed["volumes"])
    for powers in ("allowPrivilegedContainer", "allowPrivilegeEscalation", "allowHostPID", "allowHostIPC"):
        assert allowed[powers] is False
    uses = [
        rule["resourceNames"]
        for part in opened
        if part["kind"] == "Role"
        for rule in part["rules"]
        if "use" in rule["verbs"]
    ]
    assert sorted(uses) == [[f"{RELEASE}-agent"], ["nonroot-v2"]]


def droppable(schema: dict[str, Any]) -> dict[str, Any]:
    """Null for every value that may be left out, in the shape of the values."""
    dropped: dict[str, Any] = {}
    for key, inner in schema["properties"].items():
        if "required" in inner:
            dropped[key] = droppable(inner)
        elif key not in schema["required"]:
            dropped[key] = None
    return dropped


def test_null_drops_a_default_and_nothing_else(tools: Path) -> None:
    schema = yaml.safe_load((CHART / "values.schema.json").read_text("utf-8"))
    nulls = droppable(schema)
    on = ("monitoring.podMonitors.enabled=true", "monitoring.prometheusRule.enabled=true", "openshift.enabled=true")
    parts = objects(tools, *on, "operator.networkPolicy.create=true", "operator.replicas=2", values=nulls)
    agents, operator = (template["spec"] for template in templates(parts))
    for pod in (agents, operator):
        assert not {"tolerations", "affinity", "priorityClassName", "topologySpreadConstraints"} & set(pod)
        assert "resources" not in pod["containers"][0]
        assert pod["containers"][0]["image"].startswith("ipmp:")
    assert "nodeSelector" not in operator
    assert render(tools, "agent.stateDir=null").returncode != 0, "without it there is no agent"


def test_every_object_is_accepted_with_every_door_open(cluster: Cluster, opened: list[dict[str, Any]]) -> None:
    cluster.try_kubectl("create", "namespace", NAMESPACE)
    known = [
        part
        for part in opened
        if part["kind"] not in ALIEN and "helm.sh/hook" not in part["metadata"].get("annotations", {})
    ]
    agents = daemonset(opened) | {"metadata": daemonset(opened)["metadata"] | {"name": "every-door"}}
    how = ("apply", "--server-side", "--dry-run=server", "--force-conflicts", "--validate=strict")
    said = cluster.control.run("kubectl", *how, "-f", "-", text=yaml.safe_dump_all([*known, agents]))
    assert "Warning" not in said.stderr


def test_each_shard_has_an_operator_with_its_own_lease_and_the_first_has_the_agents(tools: Path) -> None:
    chosen = [{"name": "left", "groupSelector": "shard=left"}, {"name": "rest", "groupSelector": "!shard"}]
    parts = objects(tools, values={"operator": {"shards": chosen}})
    names = ["ipmp-operator-left", "ipmp-operator-rest"]
    deployments = [part for part in parts if part["kind"] == "Deployment"]
    assert [part["metadata"]["name"] for part in deployments] == names
    for part, shard, agents in zip(deployments, chosen, ("everywhere", "elsewhere"), strict=True):
        name, labels = part["metadata"]["name"], part["spec"]["selector"]["matchLabels"]
        (container,) = part["spec"]["template"]["spec"]["containers"]
        wanted = {f"--lease-name={name}", f"--owner-deployment={name}", f"--agents={agents}"}
        assert wanted | {f"--group-selector={shard['groupSelector']}"} <= set(container["command"])
        assert labels["ipmp.dev/shard"] == shard["name"], "no shard takes the other's pods for its own"
        assert labels.items() <= part["spec"]["template"]["metadata"]["labels"].items()
    roles = [part for part in parts if part["kind"] == "Role" and part["metadata"]["name"] == "ipmp-operator"]
    rights = {rule["resources"][0]: rule["resourceNames"] for rule in roles[0]["rules"] if "resourceNames" in rule}
    assert rights["leases"] == rights["deployments"] == names
    (alone,) = [part for part in objects(tools) if part["kind"] == "Deployment"]
    (container,) = alone["spec"]["template"]["spec"]["containers"]
    assert not [word for word in container["command"] if word.startswith(("--group-selector", "--agents"))]
    assert render(tools, "operator.shards[0].name=a").returncode != 0, "a shard without a selector has every group"
