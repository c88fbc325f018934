"""A network of pods over two nodes, as CNIs lay it: the bridge plugin on each node, and the way between the nodes.

The way is a route by the other node's address (as host-gw has it), or a VXLAN device pinned to the NIC that has the
node's address, with forwarding and neighbour entries (as flannel's backend vxlan has it).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.cluster.build import PAUSE_IMAGE
from tests.cluster.network import DATA_NICS, PODS
from tests.lab.namespaces import Namespace

if TYPE_CHECKING:
    from tests.cluster.cluster import Cluster
    from tests.cluster.node import Node

HOME = DATA_NICS[0]  # has the node's address when the network is laid
TUNNEL = "flannel.1"
TUNNEL_MTU, BRIDGE_MTU = 1450, 1500
MASQUERADE = "cni"  # table in which the CNI masquerades what leaves the network of pods, as flannel's --ip-masq does
PORTS = {"Local": 30900, "Cluster": 30901}
"""Of a service for each external traffic policy: its own port, the pod's, and the one of every node."""


class Shape(StrEnum):
    """How the pods of one node reach those of another."""

    ROUTES = "routes"
    VXLAN = "vxlan"


class PodNamespace(Namespace):
    """The network namespace of a running pod, which has no name outside of its node."""

    def __init__(self, pod: dict[str, Any]) -> None:
        super().__init__(pod["metadata"]["name"])
        self.path = Path(f"/proc/{_process_of(pod['metadata']['uid'])}/ns/net")
        self.address: str = pod["status"]["podIP"]


def _process_of(uid: str) -> int:
    """Pid, as seen from outside, of a process of a pod, found by its cgroup."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended while we looked
            if f"pod{uid}" in (entry / "cgroup").read_text(encoding="utf-8"):
                return int(entry.name)
    raise RuntimeError(f"no process belongs to pod {uid}")


@dataclass
class PodNetwork:
    """The network from entry to exit, with a pod on each of two nodes and services that lead to the second."""

    cluster: Cluster
    shape: Shape

    def __enter__(self) -> Self:
        first, second = self.cluster.nodes.values()
        with contextlib.ExitStack() as stack:
            for here, there in ((first, second), (second, first)):
                here.configure_pods(TUNNEL_MTU if self.shape is Shape.VXLAN else BRIDGE_MTU)
                lay = _lay_tunnel if self.shape is Shape.VXLAN else _lay_route
                lay(here, there, stack)
                _lay_masquerade(here, stack)
            self.client, self.server = (self._run(node, stack) for node in (first, second))
            self.services = {policy: self._serve(policy, stack) for policy in PORTS}
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def way(self, node: str) -> tuple[str, str]:
        """Gateway and interface by which a node sends to the pod of the other."""
        host = self.cluster.network.nodes[node].namespace
        (far,) = [pod for pod in (self.client, self.server) if pod.name != node]
        (route,) = host.ip_json("route", "get", far.address)
        return route["gateway"], route["dev"]

    def _run(self, node: Node, stack: contextlib.ExitStack) -> PodNamespace:
        """A pod of the same name as its node; whoever enters its namespace is its program."""
        container = {"name": "pause", "image": PAUSE_IMAGE, "imagePullPolicy": "Never"}
        # Without any grace the API server forgets the pod before the node has removed its veth.
        spec = {"nodeName": node.name, "terminationGracePeriodSeconds": 1, "containers": [container]}
        metadata = {"name": node.name, "labels": {"app": node.name}}
        self.cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        stack.callback(self.cluster.kubectl, "delete", "pod", node.name, "--timeout=60s")
        pod = self.cluster.wait(
            lambda: self.cluster.get("pod", node.name),
            lambda pod: pod["status"]["phase"] == "Running",
            what=f"pod {node.name} Running",
        )
        return PodNamespace(pod)

    def _serve(self, policy: str, stack: contextlib.ExitStack) -> str:
        """A service that the second pod serves; returns its address."""
        name, port = f"echo-{policy.lower()}", PORTS[policy]
        ports = [{"port": port, "targetPort": port, "nodePort": port}]
        spec = {
            "type": "NodePort",
            "externalTrafficPolicy": policy,
            "selector": {"app": self.server.name},
            "ports": ports,
        }
        self.cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
        stack.callback(self.cluster.kubectl, "delete", "service", name)
        address: str = self.cluster.get("service", name)["spec"]["clusterIP"]
        return address


def _lay_route(here: Node, there: Node, stack: contextlib.ExitStack) -> None:
    here.host.namespace.batch([f"route add {there.plan.pods} via {there.plan.address} dev {HOME}"])
    stack.callback(here.host.namespace.batch, [f"route del {there.plan.pods}"])


def _lay_tunnel(here: Node, there: Node, stack: contextlib.ExitStack) -> None:
    namespace, far = here.host.namespace, tunnel_address(there)
    pinned = f"local {here.plan.address} dev {HOME}"
    namespace.batch(
        [f"link add {TUNNEL} address {_mac(here)} mtu {TUNNEL_MTU} type vxlan id 1 {pinned} dstport 8472 nolearning"]
    )
    stack.callback(namespace.batch, [f"link del {TUNNEL}"])
    namespace.batch(
        [
            f"address add {tunnel_address(here)}/32 dev {TUNNEL}",
            f"link set {TUNNEL} up",
            f"neighbour replace {far} lladdr {_mac(there)} dev {TUNNEL} nud permanent",
            f"route add {there.plan.pods} via {far} dev {TUNNEL} onlink",
        ]
    )
    namespace.run("bridge", "fdb", "append", _mac(there), "dev", TUNNEL, "dst", there.plan.address)


def _lay_masquerade(here: Node, stack: contextlib.ExitStack) -> None:
    rule = f"ip saddr {PODS} ip daddr != {PODS} masquerade fully-random"
    chain = f"chain post {{ type nat hook postrouting priority 100; {rule}; }}"
    here.host.namespace.run("nft", f"table ip {MASQUERADE} {{ {chain}; }}")
    stack.callback(here.host.namespace.run, "nft", "delete", "table", "ip", MASQUERADE)


def tunnel_address(node: Node) -> str:
    """The address of a node's tunnel device: the first of the network of its pods."""
    return str(ip_network(node.plan.pods)[0])


def _mac(node: Node) -> str:
    return f"02:00:00:00:{node.plan.number:02x}:99"
