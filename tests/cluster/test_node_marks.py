"""Conditions and taints on Nodes, where they are wanted: written with the rights that the chart gives for that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.cluster.cluster import condition
from tests.cluster.operating import ACCOUNT, FAKES, group_manifest, node_groups, operating, report, wait_data
from tests.cluster.product import CHART, NAMESPACE, RELEASE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.cluster import Cluster

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


def test_failed_node_says_so_is_tainted_and_is_free_again_under_the_next_operator(
    fakes: Cluster, later: Callable[..., object]
) -> None:
    cluster = fakes
    later(rights, cluster)
    rights(cluster, *ON)

    def look(node: str) -> tuple[str | None, str | None, bool]:
        found = cluster.get("node", node)
        return condition(found, "IPMPFailed"), condition(found, "IPMPDegraded"), "ipmp.dev/failed" in taints(found)

    def wait_said(node: str, *expected: object) -> None:
        cluster.wait(lambda: look(node), lambda said: said == expected, what=f"{node} says {expected}", deadline=150)

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
        wait_said("fake-0000", "True", "False", True)
        wait_said("fake-0001", "False", "True", False)
        wait_said("fake-0002", "False", "False", False)
        said = cluster.kubectl("describe", "node", "fake-0000")
        assert "group data: a, b" in said
        assert "ipmp.dev/failed:NoSchedule" in said
        assert condition(cluster.get("node", "fake-0000"), "Ready") == "True", "what others say stays"
    report(cluster, "data.fake-0000", interfaces=[])
    with operating(cluster, *FLAGS):
        wait_said("fake-0000", "False", "False", False)
