"""kube-proxy on every node: the real one, in the mode that is asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from tests.cluster.controlplane import SERVER
from tests.cluster.network import CONTROL_ADDRESS, PODS
from tests.cluster.pki import CertificateAuthority

if TYPE_CHECKING:
    from tests.cluster.cluster import Cluster
    from tests.cluster.node import Node

PROGRAM = "kube-proxy"
MODES = ("nftables", "iptables")


def kubernetes_endpoint() -> dict[str, Any]:
    """Where the service of the API server leads: the cluster's own has no endpoints, and kube-proxy would refuse."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [CONTROL_ADDRESS], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": 443, "protocol": "TCP"}],
    }


@dataclass
class KubeProxies:
    """One kube-proxy on each node from entry to exit, when they and their rules go."""

    cluster: Cluster
    mode: str

    def __enter__(self) -> Self:
        self.cluster.apply(kubernetes_endpoint())
        authority = CertificateAuthority(self.cluster.directory / "pki")
        authority.issue(PROGRAM, "system:kube-proxy")  # the cluster's own roles know this user
        kubeconfig = authority.kubeconfig(PROGRAM, SERVER)
        try:
            for node in self.cluster.nodes.values():
                values = {"mode": self.mode, "name": node.name, "kubeconfig": kubeconfig, "pods": PODS}
                config = node.write("kube-proxy.yaml", "kube-proxy.yaml", **values)
                program = self.cluster.tools / PROGRAM
                self.cluster.processes.spawn(
                    self._process(node), node.host.namespace.name, program, f"--config={config}", "--v=2"
                )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.cluster.nodes.values():
            if self._process(node) in self.cluster.processes:
                self.cluster.processes.stop(self._process(node))
                node.host.namespace.run(str(self.cluster.tools / PROGRAM), "--cleanup")

    def wait_serves(self, *addresses: str) -> None:
        """Wait until the rules of every node name these addresses: of a service, of its endpoints.

        A connection that is tried before would not be mapped later either.
        """
        named = [re.compile(rf"\b{re.escape(address)}\b") for address in addresses]
        for node in self.cluster.nodes.values():
            self.cluster.wait(
                partial(node.host.namespace.run, "nft", "list", "ruleset"),
                lambda rules: all(address.search(rules) for address in named),
                what=f"{addresses} in kube-proxy's rules on {node.name}",
            )

    def _process(self, node: Node) -> str:
        return f"{node.name}-{PROGRAM}"
