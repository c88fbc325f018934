"""The product on a cluster: the chart installed, groups applied, and what the objects and the kernels say of them."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests import invariants
from tests.cluster.cluster import condition
from tests.invariants import GroupView, MemberView
from tests.lab.dump import KernelDump
from tests.lab.ping import PingTrain
from tests.lab.scene import link_local
from tests.lab.stream import TcpStream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.cluster.cluster import Cluster
    from tests.cluster.image import Image
    from tests.lab.topology import Nic

CHART = Path(__file__).resolve().parents[2] / "helm/ipmp"
NAMESPACE = "ipmp-system"
RELEASE = "ipmp"
LABEL = "app.kubernetes.io/name=ipmp"
MEMBERS = ("net0", "net1")
POOLS = [
    {"name": "v4", "ranges": ["198.18.0.64-198.18.0.127"], "perNode": 2, "prefixLength": 24},
    {"name": "v6", "ranges": ["2001:db8:0:1::64-2001:db8:0:1::a3"], "perNode": 2, "prefixLength": 64},
]
TEST_POOL = {"ranges": ["198.18.0.128-198.18.0.191"], "prefixLength": 24}


def install_chart(cluster: Cluster, image: Image, *settings: str) -> None:
    """Install or upgrade the chart with this image, and wait until its workloads are ready."""
    repository, _, tag = image.name.rpartition(":")
    values = [f"image.repository={repository}", f"image.tag={tag}", "image.pullPolicy=Never", *settings]
    flags = [word for value in values for word in ("--set", value)]
    place = ("--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout", "1m")
    try:
        cluster.helm("upgrade", "--install", RELEASE, str(CHART), *place, *flags)
    except RuntimeError as error:
        raise RuntimeError(f"{error}\n{account(cluster)}") from error


def account(cluster: Cluster) -> str:
    """What the product's pods, their events and their logs say: for people who look at a failure."""
    here = ("--namespace", NAMESPACE)
    looks = [("get", "pods", "-o", "wide"), ("get", "events"), ("logs", "--selector", LABEL, "--prefix", "--tail=40")]
    return "\n".join(cluster.try_kubectl(*here, *look).stdout for look in looks)


def no_unhandled_exception(cluster: Cluster) -> None:
    """See that neither the operator nor an agent logged an unhandled exception; a pod that comes or goes has no log."""
    pods = [pod["metadata"]["name"] for pod in cluster.get("pods", "--namespace", NAMESPACE)]
    looks = [cluster.try_kubectl("--namespace", NAMESPACE, "logs", pod, "--all-containers") for pod in pods]
    assert any(look.returncode == 0 for look in looks), looks
    for look in looks:
        invariants.no_unhandled_exception(look.stdout)


def group_manifest(name: str, targets: Sequence[str] = (), **spec: Any) -> dict[str, Any]:
    """An IPMPGroup over net0 and net1 of every node: two data addresses of each family per node, from pools."""
    whole = {
        "interfaces": [{"name": member} for member in MEMBERS],
        "dataAddresses": {"pools": POOLS},
        "testAddresses": {"ipv4": {"pool": TEST_POOL}},
        "probes": {"targets": {"addresses": list(targets)}},
        "failureDetection": {"timeMilliseconds": 1000},
    }
    return {"apiVersion": "ipmp.dev/v1alpha1", "kind": "IPMPGroup", "metadata": {"name": name}, "spec": whole | spec}


def targets(cluster: Cluster) -> list[str]:
    """Both peers on the link, in either family."""
    peers = cluster.network.peers
    return [peer.ipv4 for peer in peers] + [link_local(peer.nic("eth0")) for peer in peers]


def agent_pod(cluster: Cluster, node: str) -> dict[str, Any]:
    """The agent's pod on a node, or an empty object while there is none."""
    pods = cluster.get("pods", "--namespace", NAMESPACE, "--field-selector", f"spec.nodeName={node}")
    found = [pod for pod in pods if pod["spec"].get("hostNetwork") and "deletionTimestamp" not in pod["metadata"]]
    return found[0] if found else {}


def wait_group_ready(cluster: Cluster, name: str, deadline: float = 60) -> None:
    """Wait until the group says that it is ready on every node it selects."""
    cluster.wait(
        lambda: cluster.get("ipmpgroup", name),
        lambda seen: condition(seen, "Ready") == "True",
        what=f"IPMPGroup {name} Ready",
        deadline=deadline,
    )


@dataclass
class Applied:
    """A group on the cluster from its entry to its exit, where the kernels must be as they were found.

    Args:
        nodes: the nodes that the group selects; all of them unless named.
        state: what it must come to on each of them, on entry.
    """

    cluster: Cluster
    name: str
    spec: dict[str, Any] = field(default_factory=dict)
    nodes: Sequence[str] = ()
    state: str = "ok"

    def __enter__(self) -> Self:
        self.nodes = self.nodes or tuple(self.cluster.nodes)
        self._before = {node: self._kernel_at_rest(node) for node in self.nodes}
        self._stack = contextlib.ExitStack()
        self.began = time.time()
        self.cluster.apply(group_manifest(self.name, targets(self.cluster), **self.spec))
        try:
            for node in self.nodes:
                self.wait_state(node, self.state)
        except BaseException as failure:
            failure.add_note(self._account())
            self._delete()
            raise
        return self

    def __exit__(self, _: object, failure: BaseException | None, __: object) -> None:
        if failure:
            failure.add_note(self._account())
        for node in self.nodes:
            for nic in MEMBERS:
                self.nic(node, nic).plug()
                self.nic(node, nic).restore()
        self._stack.close()
        if failure is None:
            no_unhandled_exception(self.cluster)
        self._delete()
        if failure is None:  # a first failure is not to be hidden by one that follows from it
            for node, before in self._before.items():
                invariants.as_it_was_found(before, self.kernel(node))

    def _kernel_at_rest(self, node: str) -> KernelDump:
        """What the kernel holds once duplicate address detection is over: a NIC may be a second old."""
        dump: KernelDump = self.cluster.wait(
            lambda: self.kernel(node),
            lambda dump: not any('"tentative"' in line for line in dump.addresses),
            what=f"no tentative address on {node}",
        )
        return dump

    def _delete(self) -> None:
        self.cluster.kubectl("delete", "ipmpgroup", self.name, "--ignore-not-found", "--timeout=60s")
        self.cluster.wait(self._node_groups, lambda left: left == [], what=f"the node groups of {self.name} gone")

    def _account(self) -> str:
        """What the API, the agents, the kernels and the peers say: for people who look at a failure."""
        found = self._node_groups()
        for member in (member for one in found for member in one.get("status", {}).get("interfaces", ())):
            member["targets"] = [target for target in member.get("targets", ()) if target["state"] != "unused"]
        said = [json.dumps({key: one.get(key) for key in ("metadata", "spec", "status")}) for one in found]
        nodes = [self.cluster.network.nodes[node].namespace for node in self.nodes]
        peers = [peer.namespace for peer in self.cluster.network.peers]
        looks = [(place, look) for place in nodes for look in ("address", "route", "-6 route", "neighbour")]
        looks += [(place, "neighbour") for place in peers]
        kernels = [f"{place}: ip {look}\n{place.run('ip', *look.split(), check=False)}" for place, look in looks]
        return "\n".join([*said, *kernels, account(self.cluster)])

    # -- what is said, what is ------------------------------------------------------------------------------------

    def _node_groups(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.cluster.get("ipmpnodegroups", "--selector", f"ipmp.dev/group={self.name}")
        return found

    def node_group(self, node: str) -> dict[str, Any]:
        """The IPMPNodeGroup on a node, or an empty object while there is none."""
        found = [one for one in self._node_groups() if one["spec"]["nodeName"] == node]
        return found[0] if found else {}

    def view(self, node: str) -> GroupView:
        """What the API says of the group on a node, as the invariants see it."""
        said = self.node_group(node).get("status", {})
        members = tuple(
            MemberView(
                one["name"],
                usable=one["state"] == "ok",
                active=one["active"],
                standby=one["role"] == "Standby",
            )
            for one in said.get("interfaces", ())
        )
        addresses = {one["address"].partition("/")[0]: one.get("interface") for one in said.get("addresses", ())}
        return GroupView(self.name, said.get("state", ""), members, addresses)

    def kernel(self, node: str) -> KernelDump:
        """What the kernel of a node holds."""
        return KernelDump.take(self.cluster.nodes[node].run)

    def addresses(self, node: str, family: int) -> list[str]:
        """The data addresses of a node, of family 4 or 6."""
        return sorted(a for a in self.view(node).addresses if (":" in a) == (family == 6))

    def holder(self, node: str, address: str) -> Nic:
        """The NIC that holds an address in the kernel."""
        (name,) = self.kernel(node).holders(address)
        return self.nic(node, name)

    def homes(self, node: str) -> dict[str, tuple[str, ...]]:
        """Where each data address of a node sits in the kernel."""
        return invariants.homes(self.view(node).addresses, self.kernel(node))

    def nic(self, node: str, name: str) -> Nic:
        """A NIC with its faults."""
        return self.cluster.network.nic(node, name)

    def other(self, nic: Nic) -> Nic:
        """The other member beside this one."""
        (name,) = set(MEMBERS) - {nic.name}
        return nic.host.nic(name)

    def wait_state(self, node: str, state: str, deadline: float = 60) -> GroupView:
        """Wait until the API says this state of the group on a node, at rest and in one story with the kernel."""

        def settled() -> str:
            view = self.view(node)
            try:
                invariants.settled(view, self.kernel(node))
            except invariants.ViolatedError as error:
                return f"{view.state}, but {error}"
            return view.state if view.addresses else "no addresses yet"

        self.cluster.wait(
            settled, lambda seen: seen == state, what=f"group {self.name} {state} on {node}", deadline=deadline
        )
        return self.view(node)

    def wait_kept(self) -> None:
        """Wait until no node would undo the group any more: for tests that silence what a trial asks."""

        def reasons() -> set[str]:
            conditions = [one for each in self._node_groups() for one in each.get("status", {}).get("conditions", ())]
            return {one["reason"] for one in conditions if one["type"] == "Programmed"}

        self.cluster.wait(
            reasons, lambda seen: "ChangeOnTrial" not in seen, what=f"group {self.name} kept", deadline=60
        )

    def wait_moved(self, node: str, address: str, nic: Nic, deadline: float = 30) -> None:
        """Wait until an address has left a NIC for the other, in the kernel."""
        wanted = [self.other(nic).name]
        self.cluster.wait(
            lambda: self.kernel(node).holders(address),
            lambda holders: holders == wanted,
            what=f"{address} on {wanted[0]} of {node}",
            deadline=deadline,
        )

    def events(self, *reasons: str) -> list[dict[str, Any]]:
        """The Events with one of these reasons about the group's objects."""
        names = {self.name, *(one["metadata"]["name"] for one in self._node_groups())}
        return [
            event
            for event in self.cluster.get("events", "--all-namespaces")
            if event["involvedObject"]["name"] in names and event["reason"] in reasons
        ]

    def metric(self, node: str, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels, from the agent on a node; 0 while there is none."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            float(line.rpartition(" ")[2])
            for line in self.metrics(node).splitlines()
            if line.partition("{")[0].partition(" ")[0] == name and all(one in line for one in wanted)
        )

    def metrics(self, node: str) -> str:
        """What the agent of a node exposes to Prometheus."""
        pod = agent_pod(self.cluster, node)
        ports = [port for one in pod["spec"]["containers"] for port in one.get("ports", ())]
        (port,) = [one["containerPort"] for one in ports if one.get("name") == "metrics"]
        url = f"http://{pod['status']['hostIP']}:{port}/metrics"

        def fetch() -> bytes:
            with urllib.request.urlopen(url, timeout=5) as answer:
                body: bytes = answer.read()
            return body

        return self.cluster.network.control.namespace.call(fetch).decode()

    # -- traffic ----------------------------------------------------------------------------------------------------

    def ping(self, node: str, address: str) -> PingTrain:
        """A ping train to a data address from a peer on the link, already answered."""
        peer = self.cluster.network.peers[1].namespace
        return self._stack.enter_context(PingTrain(peer, address)).wait_answered()

    def stream(self, node: str, address: str) -> TcpStream:
        """A TCP stream to a data address from a peer on the link, flowing."""
        peer, server = self.cluster.network.peers[1].namespace, self.cluster.network.nodes[node].namespace
        return self._stack.enter_context(TcpStream(peer, server, address)).wait_received()
