"""A real node: kubelet and containerd in network, mount and pid namespaces of their own."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from string import Template

from tests.cluster.controlplane import SERVER
from tests.cluster.network import SERVICES, NodePlan
from tests.cluster.pki import CertificateAuthority
from tests.cluster.processes import ProcessTable, processes_in
from tests.lab.topology import Host

TEMPLATES = Path(__file__).resolve().parent / "node"
CLUSTER_DNS = str(SERVICES[10])


class Node:
    """One node of a cluster. Its process in the table is the `unshare` whose end is the node's power-off."""

    def __init__(
        self, name: str, host: Host, plan: NodePlan, *, directory: Path, tools: Path, processes: ProcessTable
    ) -> None:
        self.name = name
        self.host = host
        self.plan = plan
        self.tools = tools
        self.processes = processes
        self.state = directory / "nodes" / name
        self.authority = directory / "pki"
        self.cgroup = f"/{host.namespace.name}"

    def create(self) -> None:
        """Write the node's configuration and power it on for the first time."""
        (self.state / "cni").mkdir(parents=True)
        authority = CertificateAuthority(self.authority)
        authority.issue(self.name, f"system:node:{self.name}", "system:nodes")
        shutil.copy(authority.kubeconfig(self.name, SERVER), self.state / "kubeconfig")
        shutil.copy(self.authority / "ca.crt", self.state)
        self.write("kubelet.yaml", "kubelet.yaml", cgroup=self.cgroup, dns=CLUSTER_DNS)
        self.write("containerd.toml", "containerd.toml")
        self.configure_pods()
        namespaces = ("--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child")
        init = (TEMPLATES / "init.sh", self.name, self.plan.address, self.state, self.cgroup, self.tools)
        self.processes.spawn(self.name, self.host.namespace.name, "unshare", *namespaces, "--", "bash", *init)

    def configure_pods(self, mtu: int = 1500) -> None:
        """Write what the CNI plugins are told; it holds for pods from then on."""
        self.write("cni.conflist", "cni/pods.conflist", pods=self.plan.pods, mtu=mtu)

    def write(self, template: str, target: str, **values: object) -> Path:
        """Write a file of the node's state from a template; returns its path, as seen from outside."""
        text = Template((TEMPLATES / template).read_text(encoding="utf-8")).substitute(values)
        path = self.state / target
        path.write_text(text, encoding="utf-8")
        return path

    def power_on(self) -> None:
        """Boot again after power_off, with the same disks."""
        self.processes.start(self.name)

    def power_off(self) -> None:
        """End everything of the node at once; its disks stay."""
        # unshare ignores SIGTERM, and its death ends the node's whole pid namespace.
        self.processes.stop(self.name, patience=0)
        remove_cgroups(self.cgroup)

    def run(self, *command: str, stdin: Path | None = None, check: bool = True, deadline: float = 120) -> str:
        """Run a command on the node, tools on its PATH; returns what it printed, and raises with it on failure."""
        path = f"/run/node/tools:{os.environ['PATH']}"
        enter = ["nsenter", "--target", str(self._init()), "--mount", "--pid", "--net", "--uts", "--ipc", "--"]
        with (stdin or Path(os.devnull)).open("rb") as source:
            done = subprocess.run(
                [*enter, "env", f"PATH={path}", *command],
                stdin=source,
                capture_output=True,
                timeout=deadline,
                check=False,
            )
        output, errors = done.stdout.decode(), done.stderr.decode()
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(command)} ended with {done.returncode}: {errors}{output}")
        return output

    def begin(self, *command: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a command on the node, whose end is that of the process that is returned."""
        enter = ["nsenter", "--target", str(self._init()), "--mount", "--pid", "--net", "--uts", "--ipc", "--"]
        with log.open("ab") as output:
            return subprocess.Popen([*enter, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def load(self, archive: Path) -> None:
        """Import an OCI image archive into the node's containerd."""
        self.run("ctr", "-n", "k8s.io", "images", "import", "-", stdin=archive)

    def signal(self, command: str, number: signal.Signals) -> list[int]:
        """Send a signal to the node's processes of this name; returns their pids."""
        pids = self.pids(command)
        if not pids:
            raise RuntimeError(f"no {command} runs on {self.name}")
        for pid in pids:
            os.kill(pid, number)
        return pids

    def pids(self, command: str) -> list[int]:
        """Pids, as seen from outside, of the node's processes of this name: kubelet, containerd, ipmp-agent."""
        return list(processes_in(self.host.namespace.name, command))

    def wait_booted(self, deadline: float = 30) -> None:
        """Wait until the node's containerd takes commands."""
        end = time.monotonic() + deadline
        while True:
            try:
                self.run("ctr", "version")
                return
            except RuntimeError as error:
                if time.monotonic() > end:
                    log = self.processes.logs / f"{self.name}.log"
                    raise RuntimeError(f"{self.name} does not boot, see {log} and {self.state}: {error}") from error
                time.sleep(0.1)

    def _init(self) -> int:
        """Pid, as seen from outside, of the node's process 1."""
        pid = self.processes[self.name].pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        try:
            return int(children.read_text(encoding="utf-8").split()[0])
        except (FileNotFoundError, IndexError) as error:
            raise RuntimeError(f"{self.name} is powered off") from error


def remove_cgroups(cgroup: str, deadline: float = 10) -> None:
    """Remove a node's cgroups, as a reboot does: stale ones cost the next kubelet seconds each."""
    end = time.monotonic() + deadline
    tops = [Path(f"/sys/fs/cgroup{cgroup}"), *Path("/sys/fs/cgroup").glob(f"*{cgroup}")]
    for top in tops:
        for directory, _, _ in os.walk(top, topdown=False):
            while True:
                try:
                    Path(directory).rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:  # busy: its processes are still ending
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.05)
