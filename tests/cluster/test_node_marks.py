"""Conditions and taints on Nodes, where they are wanted: written with the rights that the chart gives for that."""

from __future__ import annotations

import re
import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.cluster.cluster import condition
from tests.cluster.operating import ACCOUNT, FAKES, group_manifest, node_groups, operating, report, wait_data
from tests.cluster.product import CHART, MEMBERS, NAMESPACE, RELEASE, Applied, install_chart, wait_group_ready

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.cluster import Cluster
    from tests.cluster.image import Image

OPERATIONS = Path(__file__).resolve().parents[2] / "docs/operations.md"
FLAGS = ("--node-conditions", "--taint-failed-nodes")
ON = ("--set", "operator.nodeConditions=true", "--set", "operator.taintFailedNodes=true")


def rights(cluster: Cluster, *settings: str) -> None:
    """Give the operator the role that the chart renders with these settings."""
    rendered = cluster.helm("template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--no-hooks", *settings)
    roles = [part for part in yaml.safe_load_all(rendered) if part and part["kind"] == "ClusterRole"]
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", text=yaml.safe_dump_all(roles))


def may(cluster: Cluster, verb: str, thing: str) -> bool:
    account = f"--as=system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
    thing, _, part = thing.partition("/")  # kubectl takes a slash for a name
    asked = ("auth", "can-i", verb, thing, *((f"--subresource={part}",) if part else ()), account)
    return cluster.try_kubectl(*asked).stdout.strip() == "yes"


@pytest.mark.parametrize(
    ("setting", "gained"),
    [("nodeConditions", {"patch nodes/status"}), ("taintFailedNodes", {"get nodes", "patch nodes"})],
)
def test_rights_come_with_the_option_and_go_with_it(
    fakes: Cluster, setting: str, gained: set[str], later: Callable[..., object]
) -> None:
    def held() -> set[str]:
        asked = ("get nodes", "patch nodes", "patch nodes/status", "update nodes", "delete nodes")
        return {one for one in asked if may(fakes, *one.split())}

    later(rights, fakes)
    assert held() == set()
    rights(fakes, "--set", f"operator.{setting}=true")
    fakes.wait(held, lambda now: now == gained, what="the rights of the option and no more")
    rights(fakes)
    fakes.wait(held, lambda now: now == set(), what="they go with it")


def taints(node: dict[str, Any]) -> list[str]:
    return [taint["key"] for taint in node["spec"].get("taints", ())]


def wait_said(cluster: Cluster, node: str, *, failed: str, degraded: str, tainted: bool) -> None:
    def look() -> tuple[str | None, str | None, bool]:
        found = cluster.get("node", node)
        return condition(found, "IPMPFailed"), condition(found, "IPMPDegraded"), "ipmp.dev/failed" in taints(found)

    wanted = (failed, degraded, tainted)
    cluster.wait(look, lambda said: said == wanted, what=f"{node} says {wanted}", deadline=150)


def test_failed_node_says_so_is_tainted_and_is_free_again_under_the_next_operator(
    fakes: Cluster, later: Callable[..., object]
) -> None:
    cluster = fakes
    later(rights, cluster)
    rights(cluster, *ON)

    with operating(cluster, *FLAGS):
        cluster.apply(group_manifest())
        wait_data(cluster, FAKES)
        members = [
            {"name": name, "role": "Active", "active": False, "link": "down", "probe": "failed"} for name in "ab"
        ]
        broken = [one | {"state": "failed"} for one in members]
        for node in node_groups(cluster):
            report(cluster, f"data.{node}")
        report(cluster, "data.fake-0000", state="failed", interfaces=broken)
        report(cluster, "data.fake-0001", state="degraded", interfaces=broken[:1])
        wait_said(cluster, "fake-0000", failed="True", degraded="False", tainted=True)
        wait_said(cluster, "fake-0001", failed="False", degraded="True", tainted=False)
        wait_said(cluster, "fake-0002", failed="False", degraded="False", tainted=False)
        said = cluster.kubectl("describe", "node", "fake-0000")
        assert "group data: a, b" in said
        assert "ipmp.dev/failed:NoSchedule" in said
        assert condition(cluster.get("node", "fake-0000"), "Ready") == "True", "what others say stays"
    report(cluster, "data.fake-0000", interfaces=[])
    with operating(cluster, *FLAGS):
        wait_said(cluster, "fake-0000", failed="False", degraded="False", tainted=False)


TAKEN_BACK = re.findall(
    r"^    kubectl ((?:taint nodes|patch node) NODE .*(?:\n        .*)*)$", OPERATIONS.read_text("utf-8"), re.MULTILINE
)
"""What a person does on a Node once the options are off."""

OF_THE_KUBELET = {"MemoryPressure", "DiskPressure", "PIDPressure", "Ready"}


def said_by(node: dict[str, Any], *, kubelet: bool) -> dict[str, dict[str, str]]:
    """The conditions of a Node by type, but for their heartbeat: the kubelet's, or all others."""
    said = {one["type"]: one for one in node["status"]["conditions"]}
    return {
        kind: {part: value for part, value in one.items() if part != "lastHeartbeatTime"}
        for kind, one in said.items()
        if (kind in OF_THE_KUBELET) is kubelet
    }


def heard(cluster: Cluster, name: str) -> str | None:
    """When the kubelet of a node wrote its status last."""
    conditions = cluster.get("node", name)["status"]["conditions"]
    return next((one["lastHeartbeatTime"] for one in conditions if one["type"] == "Ready"), None)


def operators_node(cluster: Cluster) -> str:
    """Where the operator runs."""
    label = f"app.kubernetes.io/component=operator,app.kubernetes.io/instance={RELEASE}"
    (pod,) = cluster.get("pods", "--namespace", NAMESPACE, "--selector", label)
    return str(pod["spec"]["nodeName"])


def unmarked(cluster: Cluster, name: str) -> None:
    """See that nothing of ours is left on a Node."""
    node = cluster.get("node", name)
    assert said_by(node, kubelet=False).keys() & {"IPMPFailed", "IPMPDegraded"} == set()
    assert "ipmp.dev/failed" not in taints(node)


def test_conditions_and_taint_stand_beside_what_a_real_kubelet_writes(
    installed: Cluster, image: Image, later: Callable[..., object]
) -> None:
    """The operator stays off the node, whose kernel must be as it was found in the end."""
    as_installed = "agent.record.enabled=true"
    (name,) = set(installed.nodes) - {operators_node(installed)}
    later(installed.kubectl, "uncordon", name)
    installed.kubectl("cordon", name)
    with Applied(installed, "data", nodes=(name,)) as applied:
        wait_group_ready(installed, "data")
        applied.wait_kept()
        for nic in MEMBERS:
            applied.nic(name, nic).unplug()
        applied.wait_state(name, "failed")
        kubelets = said_by(installed.get("node", name), kubelet=True)
        assert kubelets.keys() == OF_THE_KUBELET

        assert len(TAKEN_BACK) == 2
        later(unmarked, installed, name)
        for command in TAKEN_BACK:
            later(installed.kubectl, *shlex.split(command.replace("NODE", name)))
        later(install_chart, installed, image, as_installed)
        install_chart(installed, image, as_installed, "operator.nodeConditions=true", "operator.taintFailedNodes=true")
        wait_said(installed, name, failed="True", degraded="False", tainted=True)
        node = installed.get("node", name)
        assert said_by(node, kubelet=True) == kubelets
        ours = said_by(node, kubelet=False)

        before = heard(installed, name)
        installed.nodes[name].signal("kubelet", signal.SIGKILL)
        installed.wait(lambda: heard(installed, name), lambda now: now != before, what="a status by the next kubelet")
        node = installed.get("node", name)
        assert said_by(node, kubelet=False) == ours
        assert "ipmp.dev/failed" in taints(node)
        described = installed.kubectl("describe", "node", name)
        assert "group data: net0, net1" in described
        assert "ipmp.dev/failed:NoSchedule" in described
        assert "KubeletReady" in described
