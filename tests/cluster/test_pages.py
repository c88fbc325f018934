"""docs/install.md and docs/quick-start.md are run out of the pages, on a cluster that pulls from a real registry."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.debian import version
from tests.cluster.emulation import NATIVE
from tests.cluster.product import NAMESPACE, account
from tests.cluster.registry import start_registry
from tests.cluster.release import manifests, write_index, write_packages, write_sums
from tests.lab.namespaces import NETNS_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.image import Image

ROOT = Path(__file__).resolve().parents[2]
NODES = ("n1", "n2")
MARK = "-- command --"


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}$\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, title
    return found[1]


def commands(text: str) -> list[str]:
    """The indented lines of a section, which are what its reader types."""
    typed = re.sub(r"^```.*?^```$", "", text.replace("\\\n", " "), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"^    (\S.*)$", typed, re.MULTILINE)


@dataclass
class Reader:
    """Somebody with a shell beside the API server, where what a release leaves is in dist/."""

    cluster: Cluster
    directory: Path
    registry: str

    def types(self, *lines: str) -> list[str]:
        """Run lines in one shell, which ends with the first that fails; returns what each of them printed."""
        text = "\n".join(f"echo '{MARK}'\n{self.translated(line)}" for line in lines)
        control = self.cluster.control
        environment = os.environ | {
            "KUBECONFIG": str(control.kubeconfig),
            "SSL_CERT_FILE": str(self.cluster.directory / "pki/ca.crt"),
            "PATH": f"{control.tools}:{os.environ['PATH']}",
        }
        enter = ["nsenter", f"--net={NETNS_DIRECTORY / control.namespace.name}", "--"]
        shell = [*enter, "bash", "-euo", "pipefail", "-c", text]
        done = subprocess.run(
            shell, cwd=self.directory, env=environment, capture_output=True, text=True, check=False, timeout=240
        )
        said = f"{done.stdout}{done.stderr}"
        assert done.returncode == 0, f"{said}\n{account(self.cluster) if done.returncode else ''}"
        return [part.strip("\n") for part in done.stdout.split(f"{MARK}\n")[1:]]

    def translated(self, line: str) -> str:
        """The line as somebody with this registry, these interfaces and this version would type it."""
        names = {"REGISTRY": self.registry, "eth1": "net0", "eth2": "net1"}
        return re.sub("|".join(names), lambda found: names[found[0]], line)


@pytest.fixture(scope="module")
def reader(tools: Path, image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    directory = tmp_path_factory.mktemp("checkout")
    dist = directory / "dist"
    dist.mkdir()
    archive = Path(shutil.copy(image.archive, dist / f"ipmp-{version()}-{NATIVE}.tar"))
    write_index([archive], dist)
    write_packages(tools / "helm", dist)
    write_sums(dist)
    with Cluster() as cluster:
        cluster.add_nodes(*NODES)
        yield Reader(cluster, directory, start_registry(cluster))


def heads(text: str) -> list[list[str]]:
    """The first lines of the outputs that a section shows."""
    return [
        shown.splitlines()[0].split() for shown in re.findall(r"^```text\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


def test_release_is_pushed_and_installed_as_the_page_says(reader: Reader) -> None:
    text = page("install.md")
    reader.types(*commands(section(text, "Push")))
    (digest,) = reader.types(*commands(section(text, "Without a way to the Internet")))
    assert re.fullmatch("sha256:[0-9a-f]{64}", digest)
    said = reader.types(*commands(section(text, "Install with Helm")))
    assert "Succeeded" in said[-1]


@pytest.mark.parametrize("title", re.findall(r"^## (\d.*)$", page("quick-start.md"), re.MULTILINE))
def test_quick_start_goes_as_the_page_says(reader: Reader, title: str) -> None:
    text = section(page("quick-start.md"), title)
    for name, content in re.findall(r"^```yaml (\S+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        (reader.directory / name).write_text(reader.translated(content), encoding="utf-8")
    lines = commands(text)
    agent = [line for line in commands(page("quick-start.md")) if line.startswith("AGENT=")]
    if any("$AGENT" in line for line in lines) and agent[0] not in lines:
        lines = [*agent, *lines]
    said = reader.types(*lines)
    printed = [output.splitlines()[0].split() for output in said if output]
    for head in heads(text):
        assert head in printed, "the page shows an output that is not what comes"


def test_upgrade_rollback_and_removal_go_as_the_page_says(reader: Reader) -> None:
    text = page("install.md")
    said = reader.types(*commands(section(text, "Upgrade, and back")))
    assert "Rollback was a success" in said[-1]
    reader.types(*commands(section(text, "Remove")))
    assert reader.cluster.get("deployments,daemonsets", "--namespace", NAMESPACE) == []


def test_plain_manifests_are_installed_as_the_page_says(reader: Reader) -> None:
    cluster = reader.cluster
    cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=60s")
    reader.types(*commands(section(page("install.md"), "Install without Helm")))
    place = ("--namespace", NAMESPACE)
    cluster.kubectl("rollout", "status", *place, "deployment/ipmp-operator", "--timeout=1m")
    levels = cluster.get("namespace", NAMESPACE)["metadata"]["labels"]
    assert levels["pod-security.kubernetes.io/enforce"] == "privileged"
    assert not [part for part in manifests(cluster.tools / "helm") if part["kind"] == "Pod"]
    reader.types("kubectl apply -f group.yaml")
    agents = cluster.wait(lambda: cluster.get("daemonsets", *place), what="the agents' DaemonSet")
    (container,) = agents[0]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"{reader.registry}/ipmp:{version()}"
    cluster.kubectl("rollout", "status", *place, "daemonset/ipmp-agent", "--timeout=1m")
    reader.types("kubectl delete ipmp --all --cascade=foreground", "kubectl delete -k dist")
    assert cluster.get("crds") == []
