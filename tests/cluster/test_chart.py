"""The chart as helm renders it, and what the API server makes of its admission policy."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ipmp_agent.commands.ipmp_agent import make_parser
from ipmp_operator.kube.objects import NODE_GROUPS_PATH
from ipmp_service.api_server import ApiError, ApiServer, PlainAccess
from tests.cluster.cluster import Cluster
from tests.cluster.controlplane import SERVER
from tests.cluster.operating import prepare
from tests.cluster.product import CHART, NAMESPACE, RELEASE
from tests.cluster.rendering import daemonset, objects, only, render

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ACCOUNT = f"{RELEASE}-agent"
EVENTS_PATH = "/apis/events.k8s.io/v1/namespaces/default/events"
NETWORK = {"NET_ADMIN", "NET_RAW"}


@pytest.mark.parametrize("word", ["123", "true", "null", "1e3"])
def test_words_that_yaml_takes_for_something_else_stay_words(tools: Path, word: str) -> None:
    command = [str(tools / "helm"), "template", word, str(CHART), "--namespace", word, "--set-string"]
    chosen = f"nameOverride={word},agent.priorityClassName={word},agent.stateDir=/var/lib/a #b"
    done = subprocess.run([*command, chosen], capture_output=True, text=True, check=True)
    parts = [part for part in yaml.safe_load_all(done.stdout) if part and part["kind"] != "CustomResourceDefinition"]
    agents = daemonset(parts)
    for metadata in (part["metadata"] for part in [*parts, agents]):
        assert metadata.get("namespace") in {None, word, "default"}
        assert {type(value) for value in metadata["labels"].values()} == {str}
    for role in (part for part in parts if part["kind"].endswith("RoleBinding")):
        assert {subject["namespace"] for subject in role["subjects"]} == {word}
    assert only(parts, "Pod")["spec"]["containers"][0]["command"][-2:] == [word, word]
    pod = agents["spec"]["template"]["spec"]
    assert pod["priorityClassName"] == word
    assert "--state-dir=/var/lib/a #b" in pod["containers"][0]["command"]
    assert pod["volumes"][0]["hostPath"]["path"] == "/var/lib/a #b"
    assert pod["containers"][0]["volumeMounts"][0]["mountPath"] == "/var/lib/a #b"


def test_lint_is_clean(tools: Path) -> None:
    done = subprocess.run(
        [str(tools / "helm"), "lint", "--strict", str(CHART)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


class TestAgent:
    @pytest.fixture
    def pod(self, tools: Path) -> dict[str, Any]:
        spec: dict[str, Any] = daemonset(objects(tools))["spec"]["template"]["spec"]
        return spec

    def test_has_two_capabilities_and_no_other_power(self, pod: dict[str, Any]) -> None:
        (container,) = pod["containers"]
        security = container["securityContext"]
        assert set(security["capabilities"]["add"]) == NETWORK
        assert security["capabilities"]["drop"] == ["ALL"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert "privileged" not in security
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostPID", "hostIPC", "initContainers"} & set(pod)

    def test_sees_of_its_node_the_network_and_two_directories(self, pod: dict[str, Any]) -> None:
        assert pod["hostNetwork"] is True
        assert pod["dnsPolicy"] == "ClusterFirstWithHostNet"
        assert {volume["hostPath"]["path"] for volume in pod["volumes"]} == {"/var/lib/ipmp", "/run/ipmp"}

    def test_is_on_every_node_and_never_throttled(self, pod: dict[str, Any]) -> None:
        assert pod["tolerations"] == [{"operator": "Exists"}]
        assert pod["priorityClassName"] == "system-node-critical"
        resources = pod["containers"][0]["resources"]
        assert resources["limits"].keys() == {"memory"}
        assert resources["requests"].keys() == {"cpu", "memory"}

    def test_is_probed_on_the_loopback(self, pod: dict[str, Any]) -> None:
        for probe in ("livenessProbe", "readinessProbe"):
            assert pod["containers"][0][probe]["httpGet"]["host"] == "127.0.0.1"

    def test_is_rolled_out_a_tenth_at_a_time(self, tools: Path) -> None:
        strategy = daemonset(objects(tools))["spec"]["updateStrategy"]
        assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}}

    def test_records_where_its_state_is_and_within_bounds_if_asked_to(self, tools: Path) -> None:
        settings = ("agent.record.enabled=true", "agent.record.sizeMebibytes=16", "agent.stateDir=/var/lib/a")
        for chosen, expected in (((), []), (settings, ["--record=/var/lib/a/recording.jsonl", "--record-size=16"])):
            (container,) = daemonset(objects(tools, *chosen))["spec"]["template"]["spec"]["containers"]
            assert [word for word in container["command"] if word.startswith("--record")] == expected
            options = make_parser().parse_args(container["command"][1:])
            assert (options.record is not None) == bool(expected)
            mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert options.record is None or str(options.record.parent) in mounted

    def test_reaches_the_api_server_as_told(self, tools: Path) -> None:
        parts = objects(tools, "apiServer.host=api.test", "apiServer.port=6443")
        for container in (
            daemonset(parts)["spec"]["template"]["spec"]["containers"][0],
            only(parts, "Deployment")["spec"]["template"]["spec"]["containers"][0],
        ):
            values = {entry["name"]: entry.get("value") for entry in container["env"]}
            assert (values["KUBERNETES_SERVICE_HOST"], values["KUBERNETES_SERVICE_PORT"]) == ("api.test", "6443")

    def test_listens_on_a_v6_address_too(self, tools: Path) -> None:
        pod = daemonset(objects(tools, "agent.metrics.host=::"))["spec"]["template"]["spec"]
        assert "--metrics-address=[::]:9471" in pod["containers"][0]["command"]


def test_operator_is_as_restricted_as_a_pod_can_be(tools: Path) -> None:
    pod = only(objects(tools), "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = pod["containers"][0]["securityContext"]
    assert security == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert not any("hostPath" in volume for volume in pod["volumes"])


def test_nobody_may_read_secrets_or_write_nodes(tools: Path) -> None:
    roles = [part for part in objects(tools) if part["kind"] in {"Role", "ClusterRole"}]
    assert len(roles) >= 4
    for rule in (rule for role in roles for rule in role["rules"]):
        assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]
        assert "secrets" not in rule["resources"]
        if "nodes" in rule["resources"]:
            assert set(rule["verbs"]) <= {"get", "list", "watch"}


def test_crds_are_installed_and_kept_as_the_values_say(tools: Path) -> None:
    def crds(*settings: str) -> dict[str, dict[str, str]]:
        found = [part for part in objects(tools, *settings) if part["kind"] == "CustomResourceDefinition"]
        return {part["metadata"]["name"]: part["metadata"].get("annotations", {}) for part in found}

    names = {"ipmpgroups.ipmp.dev", "ipmpnodegroups.ipmp.dev"}
    kept = crds()
    assert set(kept) == names
    assert all(annotations["helm.sh/resource-policy"] == "keep" for annotations in kept.values())
    assert set(crds("crds.keep=false")) == names
    assert not any("helm.sh/resource-policy" in annotations for annotations in crds("crds.keep=false").values())
    assert crds("crds.install=false") == {}


def test_crds_in_the_chart_are_the_generated_ones_to_the_letter(tools: Path) -> None:
    rendered = {
        part["metadata"]["name"]: part["spec"]
        for part in objects(tools)
        if part["kind"] == "CustomResourceDefinition"
    }  # fmt: skip
    generated = {
        path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]
        for path in (CHART / "files/crds").glob("*.yaml")
    }
    assert rendered == generated


def test_other_image_changes_agents_and_restarts_the_operator(tools: Path) -> None:
    first, second = objects(tools), objects(tools, "image.repository=registry.test/ipmp", "image.tag=v9")
    containers = daemonset(second)["spec"]["template"]["spec"]["containers"]
    assert containers[0]["image"] == "registry.test/ipmp:v9"
    annotations = [
        only(parts, "Deployment")["spec"]["template"]["metadata"]["annotations"] for parts in (first, second)
    ]
    assert annotations[0] != annotations[1]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("agent.metrics.port=0", "/agent/metrics/port"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("operator.replica=2", "replica"),
    ],
)
def test_wrong_value_is_refused_by_name(tools: Path, setting: str, words: str) -> None:
    done = render(tools, setting)
    assert done.returncode != 0
    assert words in done.stderr


def test_kubernetes_that_is_too_old_is_refused(tools: Path) -> None:
    assert render(tools, kubernetes="1.32.0").returncode == 0
    done = render(tools, kubernetes="1.31.9")
    assert done.returncode != 0
    assert "kubeVersion" in done.stderr


def test_two_releases_of_other_names_share_no_object(tools: Path) -> None:
    def names(release: str) -> set[tuple[str, str]]:
        command = [str(tools / "helm"), "template", release, str(CHART), "--namespace", release]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        parts = [part for part in yaml.safe_load_all(done.stdout) if part]
        return {(p["kind"], p["metadata"]["name"]) for p in parts if p["kind"] != "CustomResourceDefinition"}

    assert not names("one") & names("two")


def agent_on(cluster: Cluster, node: str | None) -> ApiServer:
    """The API server as an agent reaches it: with a token that is bound to a pod on a node, or to nothing."""
    bound: tuple[str, ...] = ()
    if node:
        spec = {
            "serviceAccountName": ACCOUNT,
            "nodeName": node,
            "containers": [{"name": "agent", "image": "ipmp.test/agent:0"}],
        }
        metadata = {"name": f"agent-on-{node}", "namespace": NAMESPACE}
        cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        bound = ("--bound-object-kind=Pod", f"--bound-object-name=agent-on-{node}")
    token = cluster.kubectl("--namespace", NAMESPACE, "create", "token", ACCOUNT, *bound).strip()
    headers = (("authorization", f"Bearer {token}"),)
    return ApiServer(PlainAccess(SERVER, cluster.directory / "pki/ca.crt", headers), "ipmp-test")


def write_status(cluster: Cluster, agent: ApiServer, name: str, part: str = "/status") -> str:
    """Write a node group as that agent; returns the refusal, or nothing."""

    def write() -> str:
        try:
            agent.merge(f"{NODE_GROUPS_PATH}/{name}{part}", {"status": {"state": "ok"}, "spec": {"mode": "Observe"}})
        except ApiError as error:
            return f"{error.status} {error}"
        return ""

    return cluster.control.namespace.call(write)


def event(node: str, name: str, **changes: Any) -> dict[str, Any]:
    """An event as the agent on this node posts it about its own node group."""
    regarding = {"apiVersion": "ipmp.dev/v1alpha1", "kind": "IPMPNodeGroup", "name": f"data.{node}"}
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "ipmp.dev/node-agent",
        "reportingInstance": node,
        "type": "Normal",
        "action": "Multipathing",
        "reason": "LinkDown",
        "note": "a word",
        "regarding": regarding,
    } | changes


def node_reference(name: str) -> dict[str, str]:
    return {"apiVersion": "v1", "kind": "Node", "name": name, "uid": name}


def post(cluster: Cluster, agent: ApiServer, manifest: dict[str, Any]) -> str:
    """Post an event as that agent, and count it once more; returns the refusal, or nothing."""
    series = {"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}}

    def write() -> str:
        try:
            agent.create(EVENTS_PATH, manifest)
            agent.merge(f"{EVENTS_PATH}/{manifest['metadata']['name']}", series)
        except ApiError as error:
            return f"{error.status} {error}"
        return ""

    return cluster.control.namespace.call(write)


@dataclass
class Guarded:
    """A control plane with the chart's admission policy in force, and a node group on each of two nodes."""

    cluster: Cluster
    here: ApiServer  # as the agent on fake-0000
    nowhere: ApiServer  # as somebody with the agents' account and no pod


@pytest.fixture(scope="module")
def guarded(tools: Path) -> Iterator[Guarded]:
    with Cluster() as cluster:
        prepare(cluster)
        cluster.control.add_fake_nodes(2)
        for node in ("fake-0000", "fake-0001"):
            spec = {"groupName": "data", "nodeName": node, "interfaces": [{"name": "net0"}]}
            whole = {"apiVersion": "ipmp.dev/v1alpha1", "kind": "IPMPNodeGroup", "metadata": {"name": f"data.{node}"}}
            cluster.apply(whole | {"spec": spec})
        here = agent_on(cluster, "fake-0000")
        # It is in force a moment after it is created.
        cluster.wait(lambda: write_status(cluster, here, "data.fake-0001"), what="the policy")
        yield Guarded(cluster, here, agent_on(cluster, None))


class TestAdmissionPolicy:
    """On a real API server: an agent writes what belongs to its own node, and nothing else."""

    def test_own_node_may_be_written(self, guarded: Guarded) -> None:
        assert write_status(guarded.cluster, guarded.here, "data.fake-0000") == ""
        assert guarded.cluster.get("ipmpnodegroup", "data.fake-0000")["spec"]["mode"] == "Manage", "status only"

    def test_other_node_is_forbidden_with_both_names(self, guarded: Guarded) -> None:
        refusal = write_status(guarded.cluster, guarded.here, "data.fake-0001")
        assert refusal.startswith("403 Forbidden")
        assert "the agent on node fake-0000 may not write the node group of node fake-0001" in refusal

    def test_token_of_no_node_is_forbidden(self, guarded: Guarded) -> None:
        refusal = write_status(guarded.cluster, guarded.nowhere, "data.fake-0000")
        assert refusal.startswith("403 Forbidden")
        assert "not bound to a pod on a node" in refusal

    def test_spec_is_not_the_agents_to_write(self, guarded: Guarded) -> None:
        refusal = write_status(guarded.cluster, guarded.here, "data.fake-0000", part="")
        assert "cannot patch resource" in refusal

    @pytest.mark.parametrize(
        ("name", "changes"), [("group.1", {}), ("node.1", {"regarding": node_reference("fake-0000")})]
    )
    def test_agent_posts_events_about_its_own_node_and_node_groups(
        self, guarded: Guarded, name: str, changes: dict[str, Any]
    ) -> None:
        assert post(guarded.cluster, guarded.here, event("fake-0000", name, **changes)) == ""

    @pytest.mark.parametrize(
        "changes",
        [
            {"reportingController": "kubelet"},
            {"reportingInstance": "fake-0001"},
            {"regarding": {"apiVersion": "ipmp.dev/v1alpha1", "kind": "IPMPNodeGroup", "name": "data.fake-0001"}},
            {"regarding": node_reference("fake-0001")},
            {"regarding": node_reference("fake-0000") | {"kind": "Pod"}},
        ],
        ids=lambda changes: next(iter(changes)),
    )
    def test_agent_speaks_in_nobody_elses_name(self, guarded: Guarded, changes: dict[str, Any]) -> None:
        refusal = post(guarded.cluster, guarded.here, event("fake-0000", "forged.1", **changes))
        assert refusal.startswith("403 Forbidden")
        assert "the agent on node fake-0000 may only write events" in refusal

    def test_agent_counts_no_event_of_somebody_else(self, guarded: Guarded) -> None:
        """What else an event says nobody may change, whoever posted it."""
        guarded.cluster.apply(event("fake-0001", "theirs.1"))

        def write() -> str:
            series = {"series": {"count": 7, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}}
            try:
                guarded.here.merge(f"{EVENTS_PATH}/theirs.1", series)
            except ApiError as error:
                return f"{error.status} {error}"
            return ""

        refusal = guarded.cluster.control.namespace.call(write)
        assert refusal.startswith("403 Forbidden")
        assert "may only write events that it reports itself" in refusal

    def test_others_are_not_concerned(self, guarded: Guarded) -> None:
        patch = ("--subresource=status", "--type=merge", "--patch", '{"status":{"state":"ok"}}')
        guarded.cluster.kubectl("patch", "ipmpnodegroup", "data.fake-0001", *patch)


def rules(parts: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    groups = only(parts, "PrometheusRule")["spec"]["groups"]
    return {rule.get("alert", "?"): rule for group in groups for rule in group["rules"]}


class TestMonitoring:
    """Alerts and monitors, as values choose them."""

    ON = ("monitoring.podMonitors.enabled=true", "monitoring.prometheusRule.enabled=true")

    def test_is_off_unless_asked_for(self, tools: Path) -> None:
        assert not {part["kind"] for part in objects(tools)} & {"PodMonitor", "PrometheusRule"}

    def test_alerts_are_those_of_the_file(self, tools: Path) -> None:
        plain = yaml.safe_load((CHART / "files/alerts.yaml").read_text(encoding="utf-8"))
        assert only(objects(tools, *self.ON), "PrometheusRule")["spec"] == plain

    def test_every_series_gets_the_labels_that_alerts_go_by(self, tools: Path) -> None:
        monitors = [part for part in objects(tools, *self.ON) if part["kind"] == "PodMonitor"]
        assert len(monitors) == 2
        for monitor in monitors:
            component = monitor["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]
            (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
            assert endpoint["relabelings"] == [
                {"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"},
                {"targetLabel": "job", "replacement": f"ipmp-{component}"},
            ]

    def test_monitors_select_the_pods_that_there_are(self, tools: Path) -> None:
        parts = objects(tools, *self.ON)
        templates = [daemonset(parts), only(parts, "Deployment")]
        labels = [template["spec"]["template"]["metadata"]["labels"] for template in templates]
        for name, pod in zip(("agent", "operator"), labels, strict=True):
            wanted = only(parts, "PodMonitor", name)["spec"]["selector"]["matchLabels"]
            assert wanted.items() <= pod.items()

    def test_board_is_the_file_where_a_sidecar_finds_it(self, tools: Path) -> None:
        assert "board" not in {part["metadata"]["name"].rpartition("-")[2] for part in objects(tools)}
        chosen = "monitoring.dashboard"
        parts = objects(tools, f"{chosen}.enabled=true", f"{chosen}.annotations.grafana_folder=Network")
        found = only(parts, "ConfigMap", "-board")
        assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert found["metadata"]["annotations"] == {"grafana_folder": "Network"}
        plain = (CHART / "files/board.json").read_text(encoding="utf-8")
        assert json.loads(found["data"]["ipmp.json"]) == json.loads(plain)

    def test_single_alerts_are_changed_by_name(self, tools: Path) -> None:
        chosen = "monitoring.prometheusRule"
        found = rules(
            objects(
                tools,
                *self.ON,
                f"{chosen}.alerts.IPMPVersionSkew.enabled=false",
                f"{chosen}.alerts.IPMPInterfaceFailed.severity=critical",
                f"{chosen}.alerts.IPMPInterfaceFailed.for=1m",
                f"{chosen}.alertLabels.team=net",
                f"{chosen}.runbookUrl=https://wiki.test/ipmp/",
                f"{chosen}.extraRules[0].record=ipmp:up",
                f"{chosen}.extraRules[0].expr=up",
            )
        )
        assert "IPMPVersionSkew" not in found
        failed = found["IPMPInterfaceFailed"]
        assert (failed["for"], failed["labels"]) == ("1m", {"severity": "critical", "team": "net"})
        assert failed["annotations"]["runbook_url"] == "https://wiki.test/ipmp/IPMPInterfaceFailed.md"
        assert found["IPMPGroupFailed"]["labels"] == {"severity": "critical", "team": "net"}
        assert found["?"] == {"record": "ipmp:up", "expr": "up"}

    def test_alert_that_does_not_exist_is_refused_with_those_that_do(self, tools: Path) -> None:
        done = render(tools, *self.ON, "monitoring.prometheusRule.alerts.IPMPNope.enabled=false")
        assert done.returncode != 0
        assert "there is no alert IPMPNope; there are IPMPGroupFailed, " in done.stderr

    def test_commands_of_the_page_are_taken(self, tools: Path) -> None:
        text = (CHART.parents[1] / "docs/monitoring.md").read_text(encoding="utf-8").replace("\\\n", " ")
        commands = re.findall(r"^    helm upgrade (.*)$", text, re.MULTILINE)
        assert len(commands) == 4
        for command in commands:
            words = command.split()
            settings = [word for flag, word in itertools.pairwise(words) if flag == "--set"]
            assert settings
            assert render(tools, *settings).returncode == 0, command
