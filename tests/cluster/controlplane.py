"""etcd, API server, controller manager, scheduler and kwok, with the flags that a small test cluster needs."""

import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cluster.network import CONTROL_ADDRESS, KUBERNETES_SERVICE, SERVICES
from tests.cluster.pki import CertificateAuthority
from tests.cluster.processes import ProcessTable
from tests.lab.namespaces import NETNS_DIRECTORY, Namespace

SERVER = f"https://{CONTROL_ADDRESS}:443"
ETCD, ETCD_PEER = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
# All but the controllers for bootstrap tokens and for pod networks, which the test network allots itself.
CONTROLLERS = "*,-bootstrap-signer-controller,-token-cleaner-controller,-node-ipam-controller"
API_SERVER = "kube-apiserver"


class ControlPlane:
    """The processes of the control plane, in the namespace of the API server's host."""

    def __init__(self, directory: Path, tools: Path, namespace: Namespace, processes: ProcessTable) -> None:
        self.directory = directory
        self.tools = tools
        self.namespace = namespace
        self.processes = processes
        self.kubeconfig = directory / "pki/admin.kubeconfig"

    def up(self, emulated_version: str | None = None, controllers: str = CONTROLLERS) -> None:
        """Start everything and wait until the API server says it is ready.

        Args:
            emulated_version: behave as this older Kubernetes, "1.34" say, at most three minors back.
            controllers: as kube-controller-manager has them; the scheduler runs beside the usual ones only.
        """
        authority = CertificateAuthority(self.directory / "pki")
        service_names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc")
        addresses = ("127.0.0.1", "localhost", CONTROL_ADDRESS, KUBERNETES_SERVICE)
        authority.issue("apiserver", API_SERVER, alternative_names=[*addresses, *service_names])
        authority.issue("admin", "admin", "system:masters")
        authority.kubeconfig("admin", SERVER)
        emulation = [f"--emulated-version=kube={emulated_version}"] if emulated_version else []
        self._start_etcd()
        self._start_api_server(emulation)
        self.wait_ready()
        self._start_controllers(emulation, controllers)

    def _spawn(self, name: str, *flags: str) -> None:
        self.processes.spawn(name, self.namespace.name, self.tools / name, *flags)

    def _start_etcd(self) -> None:
        self._spawn(
            "etcd",
            "--name=etcd",
            f"--data-dir={self.directory}/etcd",
            f"--listen-client-urls={ETCD}",
            f"--advertise-client-urls={ETCD}",
            f"--listen-peer-urls={ETCD_PEER}",
            f"--initial-advertise-peer-urls={ETCD_PEER}",
            f"--initial-cluster=etcd={ETCD_PEER}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )

    def _start_api_server(self, emulation: list[str]) -> None:
        pki = self.directory / "pki"
        self._spawn(
            API_SERVER,
            f"--etcd-servers={ETCD}",
            # Port 443 on every address, the kubernetes Service's among them, so that KUBERNETES_SERVICE_HOST works.
            "--bind-address=0.0.0.0",
            "--secure-port=443",
            f"--advertise-address={CONTROL_ADDRESS}",  # there is no default route to guess it from
            "--endpoint-reconciler-type=none",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            f"--client-ca-file={pki}/ca.crt",
            f"--cert-dir={self.directory}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--service-cluster-ip-range={SERVICES}",
            "--allow-privileged=true",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki}/sa.pub",
            f"--service-account-signing-key-file={pki}/sa.key",
            f"--kubelet-client-certificate={pki}/admin.crt",
            f"--kubelet-client-key={pki}/admin.key",
            "--kubelet-preferred-address-types=InternalIP",
            "--v=1",
            *emulation,
        )

    def _start_controllers(self, emulation: list[str], controllers: str) -> None:
        kinds = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
        common = [f"--{kind}={self.kubeconfig}" for kind in kinds]
        common += [*emulation, "--bind-address=127.0.0.1", "--leader-elect=false", f"--cert-dir={self.directory}"]
        common += ["--kube-api-qps=500", "--kube-api-burst=1000"]
        pki = self.directory / "pki"
        self._spawn(
            "kube-controller-manager",
            *common,
            f"--root-ca-file={pki}/ca.crt",
            f"--service-account-private-key-file={pki}/sa.key",
            "--use-service-account-credentials",
            f"--controllers={controllers}",
            "--node-monitor-grace-period=20s",
        )
        if controllers == CONTROLLERS:
            self._spawn("kube-scheduler", *common)

    def wait_ready(self, deadline: float = 60) -> None:
        """Wait until /readyz says ok; says what it said instead, and where the log is, when it does not."""
        end = time.monotonic() + deadline
        while True:
            done = self.run("kubectl", "get", "--raw", "/readyz", "--request-timeout=2s", check=False)
            if done.returncode == 0:
                return
            if time.monotonic() > end or not self.processes[API_SERVER].alive():
                raise RuntimeError(f"the API server is not ready, see {self.processes.logs}: {done.stderr.strip()}")
            time.sleep(0.1)

    def run(
        self, tool: str, *arguments: str, text: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl or helm as the cluster's admin; with `check`, one that fails raises with its words."""
        command = self.command(tool, *arguments)
        environment = os.environ | {"KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(command, env=environment, input=text, capture_output=True, text=True, check=False)
        if check and done.returncode:
            said = (done.stderr + done.stdout).strip()
            raise RuntimeError(f"{tool} {' '.join(arguments)} ended with {done.returncode}: {said}")
        return done

    def command(self, tool: str, *arguments: str) -> list[str]:
        """The command line that runs a built tool on the API server's host; it needs KUBECONFIG."""
        return ["nsenter", f"--net={NETNS_DIRECTORY / self.namespace.name}", "--", str(self.tools / tool), *arguments]

    def restart(self, name: str) -> None:
        """End a process and start it again with the same data."""
        self.processes.stop(name)
        self.processes.start(name)
        if name in (API_SERVER, "etcd"):
            self.wait_ready()

    # -- nodes that kwok plays ------------------------------------------------------------------------------------

    def add_fake_nodes(self, count: int, first: int = 0) -> None:
        """Create nodes fake-0000 and on, whose pods run in name only: kwok plays kubelet for them."""
        if "kwok" not in self.processes:
            self._start_kwok()
        step = max(10, -(-count // 8))
        starts = range(first, first + count, step)
        with ThreadPoolExecutor() as pool:  # one kubectl creates one object after the other
            list(pool.map(lambda i: self._create_fake_nodes(range(i, min(i + step, first + count))), starts))

    def _create_fake_nodes(self, numbers: range) -> None:
        nodes = [_fake_node(f"fake-{number:04}") for number in numbers]
        self.run("kubectl", "create", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": nodes}))

    def _start_kwok(self) -> None:
        self._spawn(
            "kwok",
            f"--kubeconfig={self.kubeconfig}",
            f"--config={self.tools}/kwok.yaml",
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
            "--node-ip=127.0.0.1",
            "--server-address=127.0.0.1:10247",
            "--node-lease-duration-seconds=40",
        )


def _fake_node(name: str) -> dict[str, object]:
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "ipmp.test/node": "fake"}
    metadata = {"name": name, "annotations": {"kwok.x-k8s.io/node": "fake"}, "labels": labels}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata}
