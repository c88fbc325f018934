"""`kubectl ipmp` on a real cluster: every command as docs/kubectl.md shows it, and what is promised there of each."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from kubectl_ipmp import single_file
from tests.cluster.product import NAMESPACE, Applied, agent_pod
from tests.unit.docs.pages import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.cluster import Cluster

PAGE = (ROOT / "docs/kubectl.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
NAMES = {"node1": "n1", "node2": "n2", "eth1": "net0", "eth2": "net1"}
"""What the page calls nodes and interfaces, and what they are called here."""


class Shell:
    """A shell of somebody who has the plugin in the PATH and a kubeconfig."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster = cluster
        self.directory = directory
        plugin = single_file.build(directory / "bin")["kubectl-ipmp"]
        path = f"{plugin.parent}:{cluster.tools}:{os.environ['PATH']}"
        self.environment = os.environ | {"PATH": path, "KUBECONFIG": str(cluster.control.kubeconfig)}

    def __call__(self, line: str, *, as_user: str = "") -> subprocess.CompletedProcess[str]:
        enter = self.cluster.control.command("kubectl")[:-1]
        whole = line.replace("kubectl ipmp ", f"kubectl ipmp --as={as_user} ") if as_user else line
        return subprocess.run(
            [*enter, "bash", "-c", whole],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )

    def json(self, line: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(self(line).stdout)
        return found


@pytest.fixture(scope="module")
def front(installed: Cluster) -> Iterator[Applied]:
    with Applied(installed, "front") as applied:
        installed.wait(
            lambda: {programmed(applied, node) for node in applied.nodes},
            lambda reasons: not reasons & {"", "ChangeOnTrial"},
            what="the end of the trials, in which nobody may drill",
        )
        yield applied


def programmed(applied: Applied, node: str) -> str:
    """The reason of the condition Programmed."""
    conditions = applied.node_group(node).get("status", {}).get("conditions", [])
    return next((each["reason"] for each in conditions if each["type"] == "Programmed"), "")


@pytest.fixture(scope="module")
def shell(front: Applied, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell(front.cluster, tmp_path_factory.mktemp("shell"))


def here(line: str) -> str:
    for there, name in NAMES.items():
        line = re.sub(rf"\b{there}\b", name, line)
    return line


@pytest.mark.parametrize("command", COMMANDS)
def test_command_runs_as_the_page_shows_it(shell: Shell, command: str) -> None:
    done = shell(here(command))
    assert done.returncode == 0, done.stderr + done.stdout
    if "> " not in command and "source" not in command:
        assert done.stdout.strip(), "it shows nothing"


def test_everything_of_the_page_is_here() -> None:
    parsed = {line.split()[2] for line in COMMANDS if line.startswith("kubectl ipmp ")}
    assert {"status", "explain", "offline", "online", "bundle", "record", "version", "events"} <= parsed


def test_status_says_which_interface_failed(front: Applied, shell: Shell) -> None:
    nic = front.nic("n1", "net0")
    nic.unplug()
    assert shell("kubectl ipmp status --wait --for degraded --timeout 1m").returncode == 0
    lines = shell("kubectl ipmp status").stdout.splitlines()
    (broken,) = [line for line in lines if "LinkDown" in line]
    assert "net0  failed" in broken
    explained = shell("kubectl ipmp explain front n1").stdout
    assert "look at the cable" in explained
    refused = shell("kubectl ipmp offline n1 net1 --timeout 30s")
    assert refused.returncode == 1
    assert "stays online: no other interface of the group works" in refused.stderr
    assert "offline" not in front.node_group("n1")["spec"] or front.node_group("n1")["spec"]["offline"] == []
    nic.plug()
    assert shell("kubectl ipmp status --wait --for ok --timeout 2m").returncode == 0
    assert "LinkDown" in shell("kubectl ipmp history --node n1").stdout


def test_entries_of_others_stay(front: Applied, shell: Shell) -> None:
    name = front.node_group("n1")["metadata"]["name"]
    somebody = json.dumps({"spec": {"offline": [{"interface": "net9"}]}})
    front.cluster.kubectl("patch", "ipmpnodegroup", name, "--type=merge", f"--patch={somebody}")
    done = shell("kubectl ipmp offline n1 net0 --wait")
    assert "carries no data address" in done.stdout, done.stderr
    assert [each["interface"] for each in front.node_group("n1")["spec"]["offline"]] == ["net9", "net0"]
    assert front.kernel("n1").holders(front.addresses("n1", 4)[0]) == ["net1"]
    assert shell("kubectl ipmp online n1 net0 --wait").returncode == 0
    assert [each["interface"] for each in front.node_group("n1")["spec"]["offline"]] == ["net9"]
    nothing = json.dumps({"spec": {"offline": []}})
    front.cluster.kubectl("patch", "ipmpnodegroup", name, "--type=merge", f"--patch={nothing}")


def test_showing_needs_rights_on_the_two_kinds_alone(front: Applied, shell: Shell) -> None:
    rules = ["--verb=get,list", "--resource=ipmpgroups.ipmp.dev,ipmpnodegroups.ipmp.dev"]
    front.cluster.kubectl("create", "clusterrole", "ipmp-viewer", *rules)
    front.cluster.kubectl("create", "clusterrolebinding", "ipmp-viewer", "--clusterrole=ipmp-viewer", "--user=viewer")
    try:
        for command in ("status", "interfaces", "addresses", "targets", "history", "explain front n1"):
            done = shell(f"kubectl ipmp {command}", as_user="viewer")
            assert done.returncode == 0, done.stderr
        refused = shell("kubectl ipmp offline n1 net0", as_user="viewer")
        assert refused.returncode == 1
        assert "verb patch on ipmpnodegroups" in refused.stderr
        partly = shell("kubectl ipmp bundle --file viewer.tar.gz", as_user="viewer")
        assert partly.returncode == 1
        assert "not in it: logs" in partly.stdout
        names = members(shell.directory / "viewer.tar.gz")
        assert "objects/ipmpnodegroups.json" in names, "the rest is there"
    finally:
        front.cluster.kubectl("delete", "clusterrolebinding,clusterrole", "ipmp-viewer")


def members(path: Path) -> dict[str, str]:
    """The files of a bundle, by name, with their text."""
    with tarfile.open(path) as archive:
        found = {}
        for each in archive.getmembers():
            file = archive.extractfile(each)
            assert file is not None
            found[each.name.partition("/")[2]] = file.read().decode()
        return found


def test_bundle_holds_all_and_no_secret(front: Applied, shell: Shell) -> None:
    if not (shell.directory / "bundle.tar.gz").exists():  # the page's own, where its command ran before
        done = shell("kubectl ipmp bundle --file bundle.tar.gz")
        assert done.returncode == 0, done.stdout + done.stderr
    found = members(shell.directory / "bundle.tar.gz")
    assert json.loads(found["failed.json"]) == {}
    address = front.addresses("n1", 4)[0]
    for node in ("n1", "n2"):
        assert "net0" in found[f"nodes/{node}/ip-link.txt"]
        assert json.loads(found[f"nodes/{node}/ipmpstat.json"])["groups"]
        assert any(
            name.startswith("logs/") and agent_pod(front.cluster, node)["metadata"]["name"] in name for name in found
        )
    assert address in found["nodes/n1/ip-address.txt"]
    assert "front" in found["objects/ipmpgroups.json"]
    assert "managedFields" not in "".join(found.values())
    assert NAMESPACE in found[f"{NAMESPACE}/daemonsets.json"]


def test_kubectl_completes_names_of_the_cluster(shell: Shell) -> None:
    done = shell("kubectl __complete ipmp explain ''")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "front"
    assert "net0" in shell("kubectl __complete ipmp offline n1 ''").stdout
