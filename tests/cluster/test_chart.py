"""The chart as helm renders it, and what the API server makes of its admission policy."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.cluster.cluster import Cluster
from tests.cluster.operating import prepare
from tests.cluster.product import CHART, NAMESPACE, RELEASE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NETWORK = {"NET_ADMIN", "NET_RAW"}


def render(tools: Path, *settings: str, kubernetes: str = "1.37.0") -> subprocess.CompletedProcess[str]:
    flags = [word for setting in settings for word in ("--set", setting)]
    place = ("--namespace", NAMESPACE, "--kube-version", kubernetes)
    command = [str(tools / "helm"), "template", RELEASE, str(CHART), *place, *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def objects(tools: Path, *settings: str) -> list[dict[str, Any]]:
    done = render(tools, *settings)
    assert done.returncode == 0, done.stderr
    return [part for part in yaml.safe_load_all(done.stdout) if part]


def only(parts: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    (found,) = [part for part in parts if part["kind"] == kind and name in part["metadata"]["name"]]
    return found


def daemonset(parts: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(only(parts, "ConfigMap")["data"]["daemonset.yaml"])
    return found


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
        assert "cpu" not in resources["limits"]
        assert resources["limits"]["memory"] == resources["requests"]["memory"]

    def test_is_probed_on_the_loopback(self, pod: dict[str, Any]) -> None:
        for probe in ("livenessProbe", "readinessProbe"):
            assert pod["containers"][0][probe]["httpGet"]["host"] == "127.0.0.1"

    def test_is_rolled_out_a_tenth_at_a_time(self, tools: Path) -> None:
        strategy = daemonset(objects(tools))["spec"]["updateStrategy"]
        assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}}

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
    first, second = objects(tools), objects(tools, "image.repository=registry.test/ipmp", "image.tag=9")
    containers = daemonset(second)["spec"]["template"]["spec"]["containers"]
    assert containers[0]["image"] == "registry.test/ipmp:9"
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


class TestAdmissionPolicy:
    """On a real API server: an agent writes what belongs to its own node, and nothing else."""

    @pytest.fixture(scope="class")
    def control(self, tools: Path) -> Iterator[Cluster]:
        with Cluster() as cluster:
            prepare(cluster)
            for node in ("n1", "n2"):
                spec = {"groupName": "data", "nodeName": node, "interfaces": [{"name": "net0"}]}
                cluster.apply(
                    {
                        "apiVersion": "ipmp.dev/v1alpha1",
                        "kind": "IPMPNodeGroup",
                        "metadata": {"name": f"data.{node}"},
                        "spec": spec,
                    }
                )
            # A policy is in force a moment after it is created.
            cluster.wait(
                lambda: self.write(cluster, "data.n2", "n1").returncode, lambda code: code != 0, what="the policy"
            )
            yield cluster

    def write(
        self, cluster: Cluster, name: str, node: str | None, *, account: str = f"{RELEASE}-agent"
    ) -> subprocess.CompletedProcess[str]:
        """Write a node group's status as an agent whose token is bound to a node."""
        who = [f"--as=system:serviceaccount:{NAMESPACE}:{account}", f"--as-group=system:serviceaccounts:{NAMESPACE}"]
        if node:
            who.append(f"--as-user-extra=authentication.kubernetes.io/node-name={node}")
        patch = ("--subresource=status", "--type=merge", "--patch", '{"status":{"state":"ok"}}')
        return cluster.try_kubectl("patch", "ipmpnodegroup", name, *patch, *who)

    def test_own_node(self, control: Cluster) -> None:
        done = self.write(control, "data.n1", "n1")
        assert done.returncode == 0, done.stderr

    def test_other_node_is_forbidden_with_both_names(self, control: Cluster) -> None:
        done = self.write(control, "data.n2", "n1")
        assert done.returncode != 0
        assert "Forbidden" in done.stderr
        assert "the agent on node n1 may not write the node group of node n2" in done.stderr

    def test_token_of_no_node_is_forbidden(self, control: Cluster) -> None:
        done = self.write(control, "data.n1", None)
        assert done.returncode != 0
        assert "not bound to a pod on a node" in done.stderr

    def test_spec_is_not_the_agents_to_write(self, control: Cluster) -> None:
        who = [f"--as=system:serviceaccount:{NAMESPACE}:{RELEASE}-agent"]
        who.append("--as-user-extra=authentication.kubernetes.io/node-name=n1")
        patch = ("--type=merge", "--patch", '{"spec":{"mode":"Observe"}}')
        done = control.try_kubectl("patch", "ipmpnodegroup", "data.n1", *patch, *who)
        assert done.returncode != 0
        assert "forbidden" in done.stderr.lower()

    def test_others_are_not_concerned(self, control: Cluster) -> None:
        patch = ("--subresource=status", "--type=merge", "--patch", '{"status":{"state":"ok"}}')
        assert control.try_kubectl("patch", "ipmpnodegroup", "data.n1", *patch).returncode == 0
