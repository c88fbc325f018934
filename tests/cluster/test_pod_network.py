"""The network of pods of two real nodes, with the real kube-proxy, while the NICs under it lose their cables.

The nodes have no other network: their own addresses, which the CNI and kube-proxy go by, are adopted and move.
"""

from __future__ import annotations

import contextlib
import itertools
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.network import CONTROL_ADDRESS, KUBERNETES_SERVICE, PODS
from tests.cluster.pods import HOME, PORTS, TUNNEL, PodNetwork, Shape, tunnel_address
from tests.cluster.product import MEMBERS, Applied, group_manifest, install_chart, targets
from tests.cluster.proxy import MODES, KubeProxies
from tests.lab.pods import pinned_to
from tests.lab.stream import Sender, TcpStream

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.cluster.image import Image
    from tests.lab.namespaces import Namespace

NODES = ("n1", "n2")
EGRESS = {"sourceCIDRs": [str(PODS), "2001:db8:0:64::/64"]}
ADOPTING: dict[str, Any] = {"dataAddresses": {}, "testAddresses": {}}
SPEC: dict[str, Any] = ADOPTING | {"podEgress": EGRESS}
# HostSuitable asks for it, and it makes the flows of the pods leave by both members.
SPREADING = {f"{family}/fib_multipath_hash_policy": 1 for family in ("ipv4", "ipv6")}
RULES = {"nftables": "ip kube-proxy masquerading", "iptables": "ip nat KUBE-POSTROUTING"}


@pytest.fixture(scope="module")
def pair(image: Image) -> Iterator[Cluster]:
    """A cluster of two nodes, which reach each other and the API server by their members alone."""
    with Cluster() as cluster:
        cluster.add_nodes(*NODES, on_link=True)
        for node in cluster.network.nodes.values():
            node.namespace.sysctl(SPREADING)
        cluster.load_image(image)
        install_chart(cluster, image)
        account = ("get", "serviceaccount", "default")
        cluster.wait(lambda: cluster.try_kubectl(*account).returncode == 0, what="the default service account")
        yield cluster


@pytest.fixture(scope="module", params=Shape)
def pods(pair: Cluster, request: pytest.FixtureRequest) -> Iterator[PodNetwork]:
    with PodNetwork(pair, request.param) as network:
        yield network


@pytest.fixture(params=MODES)
def proxied(pods: PodNetwork, request: pytest.FixtureRequest) -> Iterator[PodNetwork]:
    """The network of pods, with a kube-proxy on each node that serves its service."""
    with KubeProxies(pods.cluster, request.param) as proxies:
        proxies.wait_serves(*pods.services.values(), pods.server.address)
        yield pods


@pytest.fixture
def applied(proxied: PodNetwork) -> Iterator[Applied]:
    """A group that adopts the addresses of both nodes; on exit the kernels must hold what they held before."""
    with Applied(proxied.cluster, "uplink", SPEC) as applied:
        yield applied


class Connection(NamedTuple):
    """Between whom, and from whom as the server has it."""

    client: Namespace
    server: Namespace
    address: str
    port: int  # 0: one of the server's own
    source: str

    def stream(self, sender: Sender) -> TcpStream:
        return TcpStream(self.client, self.server, self.address, sender, spacing=0.01, port=self.port)


def unmasqueraded(pods: PodNetwork) -> dict[str, Connection]:
    """What leaves with its own source, or with the one that podEgress gives it, or has it keep."""
    network, client, server = pods.cluster.network, pods.client, pods.server
    host = network.nodes["n1"].namespace
    neighbour, remote = network.peers[1], network.control
    first, second = (network.plan(node).address for node in NODES)
    local = PORTS["Local"]
    return {
        "pod to pod": Connection(client, server, server.address, 0, client.address),
        "pod to service": Connection(client, server, pods.services["Local"], local, client.address),
        "pod to the link": Connection(client, neighbour.namespace, neighbour.ipv4, 0, first),
        "pod to beyond the router": Connection(client, remote.namespace, remote.ipv4, 0, first),
        "outside to the pod's node": Connection(neighbour.namespace, server, second, local, neighbour.ipv4),
        "host to service": Connection(host, server, pods.services["Local"], local, masquerade(pods)),
    }


def masqueraded(pods: PodNetwork) -> dict[str, Connection]:
    """What kube-proxy masquerades on the first node on its way through."""
    outside, address = pods.cluster.network.peers[1].namespace, pods.cluster.network.plan("n1").address
    connection = Connection(outside, pods.server, address, PORTS["Cluster"], masquerade(pods))
    return {"outside to another node": connection}


def masquerade(pods: PodNetwork) -> str:
    """The address of what leaves the first node for pods of the other: of a member, or of the tunnel."""
    if pods.shape is Shape.VXLAN:
        return tunnel_address(pods.cluster.nodes["n1"])
    return pods.cluster.network.plan("n1").address


@contextlib.contextmanager
def streams(connections: Mapping[str, Connection]) -> Iterator[dict[str, TcpStream]]:
    """Each of them twice: one in which the client sends, and one in which it receives."""
    with contextlib.ExitStack() as stack:
        opened = {}
        for (title, connection), sender in itertools.product(connections.items(), Sender):
            stream = opened[f"{title}, {sender} sends"] = stack.enter_context(connection.stream(sender))
            assert stream.seen_from == connection.source, title
        yield opened


def flow(streams: Mapping[str, TcpStream]) -> None:
    for stream in streams.values():
        stream.wait_received(deadline=30)


def wait_carried(pods: PodNetwork, node: str, *members: str) -> None:
    """Wait until what a node sends to the pod of the other leaves by one of these members, as the CNI has laid it."""
    cluster, namespace = pods.cluster, pods.cluster.network.nodes[node].namespace
    (other,) = [there for name, there in cluster.nodes.items() if name != node]
    gateway = tunnel_address(other) if pods.shape is Shape.VXLAN else other.plan.address

    def carrier() -> tuple[str, str]:
        hop, device = pods.way(node)
        return hop, pinned_to(namespace, TUNNEL) if device == TUNNEL else device

    wanted = [(gateway, member) for member in members]
    cluster.wait(carrier, lambda seen: seen in wanted, what=f"{members} of {node} carry what is for the other's pods")


def wait_suitable(applied: Applied, status: str, words: str = "") -> None:
    """Wait until the condition HostSuitable says this on every node, in these words among others."""

    def look(node: str) -> dict[str, str]:
        conditions = applied.node_group(node).get("status", {}).get("conditions", ())
        return next((one for one in conditions if one["type"] == "HostSuitable"), {})

    for node in applied.nodes:
        applied.cluster.wait(
            partial(look, node),
            lambda seen: seen.get("status") == status and words in seen["message"],
            what=f"HostSuitable {status} on {node}",
        )


def test_pulled_cables_end_no_connection_but_those_masqueraded_by_the_address_that_moves(
    applied: Applied, proxied: PodNetwork
) -> None:
    cluster = applied.cluster
    wait_suitable(applied, "True")
    lasting, mortal = unmasqueraded(proxied), masqueraded(proxied)
    if proxied.shape is Shape.VXLAN:  # the address of the tunnel's device stays where it is
        lasting, mortal = lasting | mortal, {}
    with streams(lasting) as flowing, streams(mortal) as breaking:
        flow(breaking)
        for node in NODES:
            address, nic = cluster.network.plan(node).address, applied.nic(node, HOME)
            flow(flowing)
            wait_carried(proxied, node, *MEMBERS)
            nic.unplug()
            applied.wait_moved(node, address, nic)
            wait_carried(proxied, node, applied.other(nic).name)
            flow(flowing)
            applied.wait_state(node, "degraded")
            nic.plug()
            applied.wait_state(node, "ok", deadline=90)
            wait_carried(proxied, node, *MEMBERS)
            flow(flowing)
        for title, stream in breaking.items():
            cluster.wait(stream.report, lambda report: report.error, what=f"the end of {title}")
        reports = {title: stream.stop() for title, stream in flowing.items()}
    for title, report in reports.items():
        print(f"{proxied.shape}: {title}: {report}")
    assert {title: str(report) for title, report in reports.items() if report.error} == {}
    assert {title: str(report) for title, report in reports.items() if report.received != report.sent} == {}


@pytest.mark.parametrize("mode", MODES)
def test_masquerading_of_kube_proxy_is_named_unless_source_nat_comes_before_it(pair: Cluster, mode: str) -> None:
    with KubeProxies(pair, mode) as proxies:
        proxies.wait_serves(KUBERNETES_SERVICE, CONTROL_ADDRESS)
        with Applied(pair, "uplink", ADOPTING) as applied:
            wait_suitable(applied, "False", RULES[mode])
            pair.apply(group_manifest(applied.name, targets(pair), **SPEC))
            wait_suitable(applied, "True")
