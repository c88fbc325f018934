"""The cluster's wires: a management network for Kubernetes, and one IP link of two switches for the members.

                       mgmt (switch) --- control (API server), mgmt0 of every node
    peer0, router --- sw0 =====uplink===== sw1 --- peer1
                         |                    |
                  net0 of every node   net1 of every node        no addresses: the IPMP group brings them

Every box is a network namespace named TAG-box, drawn with the parts of tests/lab, so a NIC has the lab's faults.
"""

import ipaddress
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from tests.lab import namespaces
from tests.lab.namespaces import NETNS_DIRECTORY, Namespace
from tests.lab.topology import LINK_V4, LINK_V6, Host, Nic, Switch, Uplink

MANAGEMENT = ipaddress.ip_network("198.18.255.0/24")
SERVICES = ipaddress.ip_network("198.19.255.0/24")
KUBERNETES_SERVICE = str(SERVICES[1])
CONTROL_ADDRESS = str(MANAGEMENT[1])
FIRST_NODE = 10
DATA_NICS = ("net0", "net1")
ROUTER, FIRST_PEER = 254, 201


@dataclass(frozen=True)
class NodePlan:
    """The addresses that follow from a node's number, 10 for the first."""

    number: int

    @property
    def address(self) -> str:
        """Its management address, which the kubelet reports as InternalIP."""
        return str(MANAGEMENT[self.number])

    @property
    def pods(self) -> str:
        """The network of its pods."""
        return f"198.19.{self.number}.0/24"


class ClusterNetwork:
    """The namespaces, switches and hosts of one cluster; describing them and making them are separate steps.

    So a program that comes later, a fault from the command line say, finds the same parts by tag and node names.
    """

    def __init__(self, tag: str, nodes: Sequence[str] = ()) -> None:
        self.tag = tag
        self.management, self.fabric = self._switch("mgmt"), [self._switch(f"sw{i}") for i in range(2)]
        self.uplink = Uplink(*self.fabric)
        self.control = self._host("control", 1, {"mgmt0": (self.management, [f"{CONTROL_ADDRESS}/24"])})
        self.peers = [
            self._host(f"peer{i}", 2 + i, {"eth0": (self.fabric[i], self._link_addresses(FIRST_PEER + i))})
            for i in range(2)
        ]
        self.router = self._host("router", 4, {"eth0": (self.fabric[0], self._link_addresses(ROUTER))})
        self.nodes: dict[str, Host] = {}
        for name in nodes:
            self._describe_node(name)

    def plan(self, node: str) -> NodePlan:
        """The addresses of a node."""
        return NodePlan(FIRST_NODE + list(self.nodes).index(node))

    def nic(self, node: str, nic: str) -> Nic:
        """A node's NIC, with the faults of the lab: unplug and plug, silence and restore, lose."""
        return self.nodes[node].nic(nic)

    def create(self) -> None:
        """Make everything but the nodes."""
        for switch in (self.management, *self.fabric):
            self._create_namespace(switch.namespace)
            # A switch speaks no IP: else every bridge would answer the all-hosts multicast.
            switch.namespace.sysctl({"ipv6/conf/default/disable_ipv6": 1})
            switch.namespace.batch(switch.commands())
        near, far = (switch.namespace for switch in self.fabric)
        cable = f"link add {self.uplink.port} netns {near.name} type veth peer name {self.uplink.port} netns {far.name}"
        namespaces.batch([cable])
        for switch in self.fabric:
            switch.namespace.batch([f"link set {self.uplink.port} master br up"])
        for host in (self.control, *self.peers, self.router):
            self._create_host(host)
        # The kubernetes Service's address is simply one of the API server's: no kube-proxy is needed to reach it.
        self.control.namespace.batch([f"address add {KUBERNETES_SERVICE}/32 dev lo"])
        self.router.namespace.sysctl({"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1})

    def add_node(self, name: str) -> None:
        """Make a node's namespace with mgmt0 and the data NICs, and the routes between pods and everybody else."""
        host = self._describe_node(name)
        self._create_host(host)
        plan = self.plan(name)
        host.namespace.batch([f"route add {SERVICES} via {CONTROL_ADDRESS}"])
        self.control.namespace.batch([f"route add {plan.pods} via {plan.address}"])
        for other in self.nodes.keys() - {name}:
            there = self.plan(other)
            self.nodes[other].namespace.batch([f"route add {plan.pods} via {plan.address}"])
            host.namespace.batch([f"route add {there.pods} via {there.address}"])

    def close(self) -> None:
        """Give back sockets; the network itself stays."""
        for switch in (self.management, *self.fabric):
            switch.close()

    def remove(self) -> None:
        """Remove every namespace of the tag and end what still runs there, whoever made it and how far it came."""
        self.close()
        remove_namespaces(self.tag)

    # -- drawing ------------------------------------------------------------------------------------------------

    def _switch(self, name: str) -> Switch:
        return Switch(name, Namespace(f"{self.tag}-{name}"))

    def _host(self, name: str, serial: int, wires: dict[str, tuple[Switch, list[str]]]) -> Host:
        host = Host(name, Namespace(f"{self.tag}-{name}"))
        for number, (nic, (switch, addresses)) in enumerate(wires.items()):
            host.nics[nic] = Nic(
                host=host,
                name=nic,
                switch=switch,
                port=f"{name}-{nic}",
                mac=f"02:00:00:00:{serial:02x}:{number:02x}",
                addresses=tuple(addresses),
            )
        return host

    def _describe_node(self, name: str) -> Host:
        number = FIRST_NODE + len(self.nodes)
        wires: dict[str, tuple[Switch, list[str]]] = {
            "mgmt0": (self.management, [f"{NodePlan(number).address}/24"]),
        }
        wires |= {nic: (switch, []) for nic, switch in zip(DATA_NICS, self.fabric, strict=True)}
        host = self.nodes[name] = self._host(name, number, wires)
        if any(len(nic.port) > 15 for nic in host.nics.values()):
            raise ValueError(f"node name {name} is longer than 9 characters: NODE-mgmt0 must fit an interface name")
        return host

    def _create_namespace(self, namespace: Namespace) -> None:
        namespaces.batch([f"netns add {namespace.name}"])
        namespace.sysctl({"ipv6/conf/default/router_solicitations": 0})

    def _create_host(self, host: Host) -> None:
        self._create_namespace(host.namespace)
        made = [(nic, *nic.commands()) for nic in host.nics.values()]
        namespaces.batch([cable for _, cable, _, _ in made])
        for nic, _, _, far in made:
            nic.switch.namespace.batch(far)
        host.namespace.batch(["link set lo up", *itertools.chain.from_iterable(near for _, _, near, _ in made)])

    @staticmethod
    def _link_addresses(number: int) -> list[str]:
        return [LINK_V4.format(number), LINK_V6.format(f"{number:x}")]


def remove_namespaces(tag: str) -> None:
    """Remove the namespaces of a tag, ending by pid what still runs there; none there is not an error."""
    if NETNS_DIRECTORY.is_dir():
        namespaces.remove([path.name for path in sorted(NETNS_DIRECTORY.glob(f"{tag}-*"))])
