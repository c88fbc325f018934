"""What people are paged with from a cluster: a real Prometheus and Alertmanager scrape the agents and the operator."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.cluster.golang import go_command, go_environment
from tests.cluster.product import (
    CHART,
    NAMESPACE,
    RELEASE,
    Applied,
    agent_pod,
    group_manifest,
    wait_group_ready,
)
from tests.lab.alerts.monitoring import Monitoring, Target
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster.cluster import Cluster

PROMETHEUS_OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
CHECKSUM = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s="
KINDS = ("podmonitors", "prometheusrules")
OPERATOR = f"{RELEASE}-operator"
COMPONENT = "app.kubernetes.io/component=operator"


@pytest.fixture(scope="module")
def definitions() -> list[Path]:
    """The files that define what prometheus-operator reads, out of its own module."""
    go = go_command()
    command = [go, "mod", "download", "-json", PROMETHEUS_OPERATOR]
    done = subprocess.run(command, env=go_environment(go, cgo=False), capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["Sum"] == CHECKSUM
    directory = Path(found["Dir"]) / "example/prometheus-operator-crd"
    return [directory / f"monitoring.coreos.com_{kind}.yaml" for kind in KINDS]


def rendered(cluster: Cluster) -> list[dict[str, Any]]:
    """The objects for prometheus-operator that the chart makes, with each of its values used."""
    values = [
        "monitoring.podMonitors.enabled=true",
        "monitoring.podMonitors.labels.release=monitoring",
        "monitoring.prometheusRule.enabled=true",
        "monitoring.prometheusRule.alertLabels.team=network",
        "monitoring.prometheusRule.alerts.IPMPVersionSkew.enabled=false",
        "monitoring.prometheusRule.alerts.IPMPInterfaceFailed.for=1m",
    ]
    flags = [word for value in values for word in ("--set", value)]
    text = cluster.helm("template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--no-hooks", *flags)
    parts = [part for part in yaml.safe_load_all(text) if part]
    return [part for part in parts if part["apiVersion"].startswith("monitoring.coreos.com/")]


def test_prometheus_operator_takes_what_the_chart_makes(
    fakes: Cluster, definitions: list[Path], later: Callable[..., object]
) -> None:
    crds = [f"crd/{kind}.monitoring.coreos.com" for kind in KINDS]
    later(fakes.kubectl, "delete", *crds)
    for path in definitions:
        fakes.kubectl("apply", "--server-side", "-f", str(path))
    fakes.kubectl("wait", "--for=condition=Established", *crds, "--timeout=30s")

    def create(part: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        return fakes.try_kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", text=json.dumps(part))

    parts = rendered(fakes)
    assert sorted(part["kind"] for part in parts) == ["PodMonitor", "PodMonitor", "PrometheusRule"]
    fakes.wait(lambda: create(parts[0]).returncode == 0, what="the kinds are served")
    for part in parts:
        done = create(part)
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
    parts[0]["spec"]["podMetricsEndpoints"][0]["intervall"] = "15s"
    assert 'unknown field "spec.podMetricsEndpoints[0].intervall"' in create(parts[0]).stderr


class Watched:
    """A group on one node, whose agent is scraped, and so is the operator."""

    def __init__(self, applied: Applied, monitoring: Monitoring, node: str) -> None:
        self.applied, self.monitoring, self.node = applied, monitoring, node
        self.cluster = applied.cluster

    def scale(self, replicas: int) -> None:
        """Run so many operators, and have those scraped that run then, as a discovery would."""
        where = ("--namespace", NAMESPACE, "deployment", OPERATOR)
        self.cluster.kubectl("scale", *where, f"--replicas={replicas}")
        self.cluster.wait(lambda: len(operators(self.cluster)), lambda count: count == replicas, what="operators")
        self.monitoring.aim(*targets(self.cluster))

    def quiet(self, deadline: float = 120.0) -> None:
        """Wait until nobody is paged with anything, and everybody is scraped."""
        scraped = len(targets(self.cluster))
        wait_for(
            lambda: self.monitoring.query("up == 1"),
            lambda up: len(up) == scraped,
            deadline=deadline,
            what="a scrape of all",
        )
        self.monitoring.wait_firing(deadline=deadline)


def on_node(name: str) -> dict[str, Any]:
    """What a group's spec has to select one node."""
    return {"nodeSelector": {"matchLabels": {"kubernetes.io/hostname": name}}}


def operators(cluster: Cluster) -> list[tuple[str, str]]:
    """Address of the metrics of each operator that runs, and its node."""
    pods = cluster.get("pods", "--namespace", NAMESPACE, "--selector", COMPONENT)
    running = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("podIP")]
    return [(f"{pod['status']['podIP']}:9090", pod["spec"]["nodeName"]) for pod in running]


def targets(cluster: Cluster) -> list[Target]:
    """Who is to be scraped now."""
    agents = [(node, agent_pod(cluster, node)) for node in cluster.nodes]
    return [
        *(Target("ipmp-agent", f"{pod['status']['hostIP']}:9471", node) for node, pod in agents if pod),
        *(Target("ipmp-operator", address, node) for address, node in operators(cluster)),
    ]


@pytest.fixture
def watched(installed: Cluster, tmp_path: Path) -> Iterator[Watched]:
    """The operator's pods stay off the group's node, which must be as it was found in the end."""
    ((_, elsewhere),) = operators(installed)
    (node,) = set(installed.nodes) - {elsewhere}
    with contextlib.ExitStack() as stack:
        stack.callback(installed.kubectl, "uncordon", node)
        installed.kubectl("cordon", node)
        applied = stack.enter_context(Applied(installed, "data", on_node(node), nodes=(node,)))
        wait_group_ready(installed, "data")
        applied.wait_kept()
        control = installed.network.control.namespace
        monitoring = stack.enter_context(Monitoring(control, tmp_path, targets(installed)))
        scene = Watched(applied, monitoring, node)
        scene.quiet()
        yield scene


def test_stopped_operator_pages_and_so_does_a_cable_pulled_meanwhile(
    watched: Watched, later: Callable[..., object]
) -> None:
    monitoring = watched.monitoring
    (leader,) = monitoring.query("ipmp_operator_leader == 1")
    assert leader["metric"]["job"] == "ipmp-operator"
    reported = monitoring.query("ipmp_report_lag_seconds < 30 and ipmp_api_connected == 1")
    assert {sample["metric"]["node"] for sample in reported} == {watched.node}
    later(watched.cluster.kubectl, "--namespace", NAMESPACE, "scale", "deployment", OPERATOR, "--replicas=1")
    watched.scale(0)
    monitoring.wait_firing("IPMPOperatorDown", deadline=120)
    watched.applied.nic(watched.node, "net0").unplug()
    monitoring.wait_firing("IPMPOperatorDown", "IPMPInterfaceFailed", "IPMPGroupNotRedundant", deadline=120)
    (page,) = [page for page in monitoring.pages if page.alert == "IPMPInterfaceFailed"]
    assert page.labels == {"node": watched.node, "group": "data", "interface": "net0", "severity": "warning"}
    watched.applied.nic(watched.node, "net0").plug()
    watched.scale(1)
    watched.quiet()


def test_refused_group_pages_and_so_does_a_change_that_a_silent_agent_does_not_apply(
    watched: Watched, later: Callable[..., object]
) -> None:
    cluster, monitoring, node = watched.cluster, watched.monitoring, watched.node
    later(cluster.kubectl, "delete", "ipmpgroup", "late", "--ignore-not-found")
    before = time.time()
    cluster.apply(group_manifest("late", **on_node(node)))  # it wants the interfaces that the first one has
    monitoring.wait_firing("IPMPGroupNotAccepted", deadline=120)
    (page,) = monitoring.since(before)
    assert page.labels == {"group": "late", "reason": "InterfaceConflict", "severity": "warning"}
    cluster.kubectl("delete", "ipmpgroup", "late")
    watched.quiet()
    assert {page.alert for page in monitoring.since(before)} == {"IPMPGroupNotAccepted"}

    before = time.time()
    later(cluster.nodes[node].signal, "ipmp-agent", signal.SIGCONT)
    cluster.nodes[node].signal("ipmp-agent", signal.SIGSTOP)
    change = {"spec": {"failureDetection": {"timeMilliseconds": 2000}}}
    cluster.kubectl("patch", "ipmpgroup", "data", "--type=merge", "--patch", json.dumps(change))
    expected = {"IPMPAgentDown", "IPMPConfigStale"}
    wait_for(monitoring.firing, lambda now: now >= expected, deadline=120, what=f"{expected}")
    (page,) = [page for page in monitoring.since(before) if page.alert == "IPMPConfigStale" and page.firing]
    assert page.annotations["summary"].endswith("nodes have not applied the last change of data")
    cluster.nodes[node].signal("ipmp-agent", signal.SIGCONT)
    watched.quiet()
    follows = {"IPMPGroupNotReady", "IPMPNodesUnknown"}
    assert {page.alert for page in monitoring.since(before)} <= expected | follows
