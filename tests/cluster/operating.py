"""The operator as a process against a real API server, with the rights that the chart gives it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.cluster.cluster import condition
from tests.cluster.product import CHART, NAMESPACE, RELEASE
from tests.lab.namespaces import NETNS_DIRECTORY
from tests.lab.waiting import wait_for
from tests.service_account import in_pod

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.cluster.cluster import Cluster

ACCOUNT = f"{RELEASE}-operator"
STOP_DEADLINE = 30
FAKES = 6
"""Nodes that kwok plays."""
POOL = {"name": "v4", "ranges": ["198.18.7.1-198.18.7.250"]}


def prepare(cluster: Cluster, chart: Path = CHART) -> None:
    """Install what the operator needs of a chart: CRDs, accounts, roles, the agents' template."""
    rendered = cluster.helm("template", RELEASE, str(chart), "--namespace", NAMESPACE, "--no-hooks")
    parts = [part for part in yaml.safe_load_all(rendered) if part and part["kind"] != "Deployment"]
    cluster.kubectl("create", "namespace", NAMESPACE)
    cluster.control.run("kubectl", "apply", "--server-side", "-f", "-", text=yaml.safe_dump_all(parts))
    for crd in (part["metadata"]["name"] for part in parts if part["kind"] == "CustomResourceDefinition"):
        cluster.kubectl("wait", "--for=condition=Established", f"crd/{crd}", "--timeout=30s")
    template = next(part for part in parts if part["kind"] == "ConfigMap")
    (cluster.directory / "daemonset.yaml").write_text(template["data"]["daemonset.yaml"], encoding="utf-8")


@dataclass
class OperatorProcess:
    """One `ipmp-operator run`, with a token of its service account.

    Args:
        environment: what it has beside ours, such as the sources of another commit in PYTHONPATH.
        pod: whether it finds its account as in a pod, instead of a kubeconfig.
    """

    cluster: Cluster
    name: str = "operator-0"
    flags: tuple[str, ...] = ()
    port: int = 9100
    environment: Mapping[str, str] = field(default_factory=dict)
    pod: bool = False
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> OperatorProcess:
        """Start it; it need not lead yet."""
        control = self.cluster.control
        command = ["nsenter", f"--net={NETNS_DIRECTORY / control.namespace.name}", "--"]
        if self.pod:
            command += self._in_pod()
        command += [str(Path(sys.executable).with_name("ipmp-operator")), "run"]
        command += ["--namespace", NAMESPACE, "--daemonset-template", str(self.cluster.directory / "daemonset.yaml")]
        command += ["--metrics-address", f"127.0.0.1:{self.port}", *self.flags]
        access = {} if self.pod else {"KUBECONFIG": str(self._kubeconfig())}
        environment = {**os.environ, **access, "POD_NAME": self.name, **self.environment}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        return self

    def stop(self) -> None:
        """End it as a kubelet would, and see that it ended well."""
        if self.process.poll() is None:
            self.process.terminate()
        assert self.process.wait(STOP_DEADLINE) == 0, self.said()
        assert "Traceback" not in self.said(), self.said()

    def kill(self) -> None:
        """End it as a power failure would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(STOP_DEADLINE)

    @property
    def log(self) -> Path:
        """Its log."""
        return self.cluster.directory / f"{self.name}.log"

    def said(self) -> str:
        """What it logged."""
        return self.log.read_text(encoding="utf-8")

    def metric(self, line: str) -> float | None:
        """The value of the sample that begins so; None while it cannot be read."""
        with contextlib.suppress(OSError):
            text = self._fetch("metrics")
            return next(float(sample.rpartition(" ")[2]) for sample in text.splitlines() if sample.startswith(line))
        return None

    def wait_leading(self, deadline: float = 60) -> OperatorProcess:
        """Wait until it leads and has seen everything."""
        wait_for(
            lambda: self._health("readyz"), "leading".__eq__, what=f"{self.name} leads", deadline=deadline, interval=0.2
        )
        return self

    def _health(self, page: str) -> str:
        try:
            return self._fetch(page).strip()
        except OSError as error:
            return str(error)

    def _fetch(self, page: str) -> str:
        def fetch() -> bytes:
            with contextlib.closing(HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
                connection.request("GET", f"/{page}")
                return connection.getresponse().read()

        return self.cluster.control.namespace.call(fetch).decode()

    def _in_pod(self) -> list[str]:
        server = self._configuration()["clusters"][0]["cluster"]
        account = self.cluster.directory / f"{self.name}.account"
        account.mkdir(mode=0o700, exist_ok=True)
        (account / "token").write_text(self._token(), encoding="ascii")
        (account / "ca.crt").write_bytes(base64.b64decode(server["certificate-authority-data"]))
        return in_pod(account, server["server"])

    def _kubeconfig(self) -> Path:
        path = self.cluster.directory / f"{self.name}.kubeconfig"
        token, whole = self._token(), self._configuration()
        whole["users"] = [{"name": user["name"], "user": {"token": token}} for user in whole["users"]]
        path.write_text(yaml.safe_dump(whole), encoding="utf-8")
        path.chmod(0o600)
        return path

    def _token(self) -> str:
        return self.cluster.kubectl("--namespace", NAMESPACE, "create", "token", ACCOUNT).strip()

    def _configuration(self) -> dict[str, Any]:
        whole: dict[str, Any] = json.loads(self.cluster.kubectl("config", "view", "--raw", "--flatten", "-o", "json"))
        return whole


@contextlib.contextmanager
def operating(cluster: Cluster, *flags: str) -> Iterator[OperatorProcess]:
    """An operator that leads."""
    running = OperatorProcess(cluster, flags=flags).start()
    try:
        yield running.wait_leading()
    except BaseException:
        running.kill()
        print(running.said())
        raise
    running.stop()


def withdraw(cluster: Cluster, node_group: str) -> None:
    """Report, as the agent of a fake node would, that nothing of a node group is left."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    condition = {"type": "Withdrawn", "status": "True", "reason": "Withdrawn", "message": "", "lastTransitionTime": now}
    report(cluster, node_group, conditions=[condition])


def report(cluster: Cluster, node_group: str, **status: Any) -> None:
    """Write a node group's status as the agent of a fake node would."""
    patch = json.dumps({"status": {"state": "ok"} | status})
    cluster.kubectl("patch", "ipmpnodegroup", node_group, "--subresource=status", "--type=merge", "--patch", patch)


def group_manifest(name: str = "data", *, created_with: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """An IPMPGroup over two interfaces of every node, with an address for each."""
    whole = {"interfaces": [{"name": "net0"}, {"name": "net1"}], "dataAddresses": {"pools": [POOL]}} | spec
    metadata = {"name": name} | (created_with or {})
    return {"apiVersion": "ipmp.dev/v1alpha1", "kind": "IPMPGroup", "metadata": metadata, "spec": whole}


def node_groups(cluster: Cluster, name: str = "data") -> dict[str, dict[str, Any]]:
    """The node groups of a group, by node."""
    found = cluster.get("ipmpnodegroups", "--selector", f"ipmp.dev/group={name}")
    return {one["spec"]["nodeName"]: one for one in found}


def data(cluster: Cluster, name: str = "data") -> dict[str, list[str]]:
    """The data addresses of each node."""
    return {
        node: [entry["address"] for entry in one["spec"].get("dataAddresses", ())]
        for node, one in node_groups(cluster, name).items()
    }


def wait_data(cluster: Cluster, count: int, name: str = "data") -> dict[str, list[str]]:
    """Wait until so many nodes have all their addresses."""
    seen: dict[str, list[str]] = cluster.wait(
        lambda: data(cluster, name),
        lambda seen: len(seen) == count and all(seen.values()),
        what=f"{count} nodes with addresses of {name}",
    )
    return seen


def wait_condition(cluster: Cluster, name: str, kind: str, status: str) -> dict[str, Any]:
    """Wait until a condition of a group has this status; returns it."""
    whole = cluster.wait(
        lambda: cluster.get("ipmpgroup", name), lambda seen: condition(seen, kind) == status, what=f"{kind}={status}"
    )
    found: dict[str, Any] = next(one for one in whole["status"]["conditions"] if one["type"] == kind)
    return found


def events(cluster: Cluster, reason: str) -> list[dict[str, Any]]:
    """The Events with this reason about objects without a namespace."""
    return [event for event in cluster.get("events", "--namespace", "default") if event["reason"] == reason]
