"""Installing, on the newest release and on the oldest that this build can play; and removing without a trace."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from tests.cluster.cluster import Cluster, condition
from tests.cluster.product import CHART, NAMESPACE, RELEASE, Applied, group_manifest, install_chart, wait_group_ready

if TYPE_CHECKING:
    from tests.cluster.image import Image

OLDEST = "1.34"
OPERATIONS = Path(__file__).parents[2] / "docs/operations.md"
GROUP_CRD = "ipmpgroups.ipmp.dev.yaml"


def test_chart_and_group_work_on_an_older_kubernetes_and_leave_nothing(tools: Path, image: Image) -> None:
    older = Cluster()
    try:
        older.up(emulated_version=OLDEST)
        assert json.loads(older.kubectl("get", "--raw", "/version"))["emulationMinor"] == "34"
        older.add_nodes("n1")
        older.load_image(image)
        install_chart(older, image)
        with Applied(older, "data") as data:
            wait_group_ready(older, "data")
            address = data.addresses("n1", 4)[0]
            broken = data.holder("n1", address)
            broken.unplug()
            data.wait_moved("n1", address, broken)
        older.helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout", "1m")
        left = [
            f"{one['kind']} {one['metadata']['name']}"
            for kind in ("deployments", "daemonsets", "serviceaccounts", "configmaps")
            for one in older.get(kind, "--namespace", NAMESPACE)
            if "ipmp" in one["metadata"]["name"]
        ]
        assert left == []
    finally:
        older.remove()


def older_chart(directory: Path) -> Path:
    """The chart before `agent.trials` and `spec.podEgress` were there."""
    chart = Path(shutil.copytree(CHART, directory / "ipmp"))
    definition, values, schema = chart / "files/crds" / GROUP_CRD, chart / "values.yaml", chart / "values.schema.json"
    crd, defaults, allowed = (yaml.safe_load(file.read_text("utf-8")) for file in (definition, values, schema))
    del crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["podEgress"]
    del defaults["agent"]["trials"], allowed["properties"]["agent"]["properties"]["trials"]
    allowed["properties"]["agent"]["required"].remove("trials")
    for file, content in ((definition, crd), (values, defaults), (schema, allowed)):
        file.write_text(json.dumps(content), "utf-8")
    return chart


def test_upgrade_as_documented_keeps_chosen_values_and_brings_new_ones_and_definitions(
    tools: Path, tmp_path: Path
) -> None:
    with Cluster() as cluster:
        place = (RELEASE, "--namespace", NAMESPACE, "--create-namespace")
        cluster.helm("install", *place, str(older_chart(tmp_path)), "--set", "image.repository=mirror.test/ipmp")
        documented = re.search(r"helm upgrade ipmp helm/ipmp (.*)", OPERATIONS.read_text("utf-8"))
        assert documented
        cluster.helm("upgrade", RELEASE, str(CHART), *documented[1].replace("VERSION", "2.0.0").split())
        crd = cluster.get("crd", "ipmpgroups.ipmp.dev")
        fields = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        assert "podEgress" in fields
        template = cluster.get("configmap", f"{RELEASE}-agent-template", "--namespace", NAMESPACE)["data"]
        agent = yaml.safe_load(template["daemonset.yaml"])["spec"]["template"]["spec"]["containers"][0]
        assert agent["image"] == "mirror.test/ipmp:2.0.0"
        assert "--no-trial" not in agent["command"], "the default of a value that is new"


def test_helm_test_succeeds_without_a_group_and_with_agents_and_leaves_nothing(installed: Cluster) -> None:
    def run() -> str:
        return installed.helm("test", RELEASE, "--namespace", NAMESPACE, "--timeout", "1m", "--logs")

    assert "the release works" in run()
    with Applied(installed, "data"):
        wait_group_ready(installed, "data")
        assert "the release works" in run()
    left = installed.get("pods,serviceaccounts,roles,rolebindings", "--namespace", NAMESPACE)
    assert [one["metadata"]["name"] for one in left if one["metadata"]["name"].endswith("-test")] == []


def test_every_object_of_the_chart_is_accepted_without_a_warning(cluster: Cluster) -> None:
    place = ("--namespace", NAMESPACE, "--skip-tests")
    rendered = cluster.helm("template", RELEASE, str(CHART), *place)
    cluster.try_kubectl("create", "namespace", NAMESPACE)
    # The release itself may be installed, and own these fields.
    how = ("apply", "--server-side", "--dry-run=server", "--force-conflicts")
    said = cluster.control.run("kubectl", *how, "-f", "-", text=rendered)
    assert "Warning" not in said.stderr


def test_fake_nodes_get_their_agents_and_node_groups(installed: Cluster) -> None:
    installed.control.add_fake_nodes(50)
    selector = {"matchLabels": {"ipmp.test/node": "fake"}}
    try:
        installed.apply(
            group_manifest("many", nodeSelector=selector, testAddresses={"ipv6": "LinkLocal"}, dataAddresses={})
        )
        installed.wait(
            lambda: len(installed.get("ipmpnodegroups", "--selector", "ipmp.dev/group=many")),
            lambda count: count == 50,
            what="50 node groups",
        )
        seen = installed.wait(
            lambda: installed.get("ipmpgroup", "many"),
            lambda seen: seen.get("status", {}).get("nodes", {}).get("selected") == 50,
            what="50 nodes counted",
        )
        assert condition(seen, "Accepted") == "True"
        assert condition(seen, "Ready") == "False", "no agent has reported: kwok runs pods in name only"
    finally:
        installed.kubectl("delete", "nodes", "--selector", "ipmp.test/node=fake")
        installed.kubectl("delete", "ipmpgroup", "many", "--timeout=60s")
