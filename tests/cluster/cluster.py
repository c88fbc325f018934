"""A real Kubernetes cluster on one machine: made, used, and removed without a trace, also by a later program."""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from tests.cluster.build import build
from tests.cluster.cache import cache_directory
from tests.cluster.controlplane import CONTROLLERS, ControlPlane
from tests.cluster.image import Image
from tests.cluster.network import ClusterNetwork, remove_namespaces
from tests.cluster.node import Node, remove_cgroups
from tests.cluster.processes import ProcessTable, start_time
from tests.lab.waiting import wait_for

TAG_PREFIX = "ipmp"


def clusters_directory() -> Path:
    """Where each cluster keeps its state, in a directory named by its tag."""
    return cache_directory() / "clusters"


class Cluster:
    """One cluster. As a context it is up inside and gone after; `make cluster` uses up() and, later, remove().

    Args:
        name: of a cluster that is to outlive this program; without one the cluster is this program's own, and a
            later run removes it should this one be killed.
    """

    def __init__(self, name: str | None = None) -> None:
        self.tag = f"{TAG_PREFIX}-{name or secrets.token_hex(3)}"
        self.directory = clusters_directory() / self.tag
        self._facts = self.directory / "cluster.json"
        self._owned = name is None
        saved = json.loads(self._facts.read_text(encoding="utf-8")) if self._facts.exists() else {}
        self.tools = Path(saved["tools"]) if saved else build()
        self.processes = ProcessTable(self.directory)
        self.network = ClusterNetwork(self.tag, saved.get("nodes", ()), saved.get("on_link", ()))
        self.control = ControlPlane(self.directory, self.tools, self.network.control.namespace, self.processes)
        self.nodes = {name: self._node(name) for name in self.network.nodes}

    def __enter__(self) -> Self:
        try:
            self.up()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    # -- life ---------------------------------------------------------------------------------------------------

    def up(self, emulated_version: str | None = None, controllers: str = CONTROLLERS) -> None:
        """Start the control plane; nodes come with add_nodes."""
        if self.directory.exists():
            raise RuntimeError(f"{self.directory} holds a cluster already: remove it first")
        self._save()
        self.network.create()
        self.control.up(emulated_version, controllers)

    def add_nodes(self, *names: str, on_link: bool = False) -> None:
        """Add real nodes, all at once, and wait until they are Ready.

        Args:
            on_link: their own addresses are on net0, and the API server is reached by these alone.
        """
        for name in names:
            self.network.add_node(name, on_link=on_link)
            self.nodes[name] = self._node(name)
            self._save()
            self.nodes[name].create()
        for name in names:
            self.nodes[name].wait_booted()
        self.wait_nodes_ready(*names)

    def load_image(self, image: Image) -> None:
        """Import an image into every node."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda node: node.load(image.archive), self.nodes.values()))

    def remove(self) -> None:
        """End every process, remove every namespace, cgroup and file of the cluster, however far it came."""
        self.network.close()
        remove_cluster(self.tag)

    def _save(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        owner = [os.getpid(), start_time(os.getpid())] if self._owned else None
        on_link = sorted(self.network.on_link)
        facts = {"tools": str(self.tools), "nodes": list(self.network.nodes), "on_link": on_link, "owner": owner}
        self._facts.write_text(json.dumps(facts), encoding="utf-8")

    def _node(self, name: str) -> Node:
        host, plan = self.network.nodes[name], self.network.plan(name)
        return Node(name, host, plan, directory=self.directory, tools=self.tools, processes=self.processes)

    # -- use ----------------------------------------------------------------------------------------------------

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        """Run kubectl as admin and return what it printed; a failure raises RuntimeError with its words."""
        return self.control.run("kubectl", *arguments, text=text).stdout

    def try_kubectl(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl as admin where a refusal is what the test wants to see."""
        return self.control.run("kubectl", *arguments, text=text, check=False)

    def helm(self, *arguments: str) -> str:
        """Run helm as admin and return what it printed; a failure raises RuntimeError with its words."""
        return self.control.run("helm", *arguments).stdout

    def get(self, *arguments: str) -> Any:
        """Return what `kubectl get ... -o json` printed; the items, when it is a list."""
        found = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return found["items"] if found["kind"] == "List" else found

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects."""
        self.kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def wait(
        self, look: Callable[[], Any], holds: Callable[[Any], object] = bool, *, what: str, deadline: float = 60
    ) -> Any:
        """Look, a few times a second, until `holds` is true of what is seen; returns it."""
        return wait_for(look, holds, what=what, deadline=deadline, interval=0.2)

    def wait_nodes_ready(self, *names: str, deadline: float = 90) -> None:
        """Wait until these nodes are Ready."""
        self.wait(self.ready_nodes, set(names).issubset, what=f"{names} Ready", deadline=deadline)

    def ready_nodes(self) -> set[str]:
        """Names of the nodes whose Ready condition is true."""
        return {node["metadata"]["name"] for node in self.get("nodes") if condition(node, "Ready") == "True"}


def condition(thing: dict[str, Any], kind: str) -> str | None:
    """Status of a condition of an object: "True", "False", "Unknown", or None when it has none."""
    conditions = thing.get("status", {}).get("conditions", ())
    return next((c["status"] for c in conditions if c["type"] == kind), None)


def remove_cluster(tag: str) -> None:
    """Remove what carries the tag, from what is recorded and from what is there: needs no complete state."""
    directory = clusters_directory() / tag
    processes = ProcessTable(directory)
    for name in reversed(list(processes)):
        processes.stop(name, patience=2 if (directory / "nodes" / name).exists() is False else 0)
    remove_namespaces(tag)
    for cgroup in _cgroups(tag):
        remove_cgroups(cgroup)
    _remove_tree(directory)


def _cgroups(tag: str) -> set[str]:
    roots = (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*"))
    return {f"/{path.name}" for root in roots for path in root.glob(f"{tag}-*")}


def _remove_tree(directory: Path, deadline: float = 10) -> None:
    """Remove a directory; a mount that a dying namespace still holds makes it busy for a moment."""
    end = time.monotonic() + deadline
    while directory.exists():
        try:
            shutil.rmtree(directory)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def stale_clusters() -> list[str]:
    """Tags of clusters whose owner, a test run, has ended without removing them."""
    return [tag for tag, owner in _recorded() if owner is not None and start_time(owner[0]) != owner[1]]


def all_clusters() -> list[str]:
    """Tags of every cluster there is a record of."""
    return [tag for tag, _ in _recorded()]


def _recorded() -> Iterable[tuple[str, tuple[int, str] | None]]:
    for facts in sorted(clusters_directory().glob("*/cluster.json")):
        with contextlib.suppress(FileNotFoundError):  # being removed by its owner
            yield facts.parent.name, json.loads(facts.read_text(encoding="utf-8"))["owner"]
