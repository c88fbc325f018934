"""The cluster's wires: a management network for Kubernetes, and one IP link of two switches for the members.

             router --- mgmt (switch) --- control (API server), mgmt0 of every node but those on the link
                |
    peer0, router --- sw0 =====uplink===== sw1 --- peer1
                         |                    |
                  net0 of every node   net1 of every node        no addresses: the IPMP group brings them

A node *on the link* has no mgmt0: its own addresses and its default routes are static ones on net0, and by these alone
it reaches the API server, through the router.

Every box is a network namespace named TAG-box, drawn with the parts of tests/lab, so a NIC has the lab's faults.
"""

import ipaddress
import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tests.lab import namespaces
from tests.lab.namespaces import NETNS_DIRECTORY, Namespace
from tests.lab.topology import LINK_V4, LINK_V6, Host, Nic, Switch, Uplink, bare

MANAGEMENT = ipaddress.ip_network("198.18.255.0/24")
SERVICES = ipaddress.ip_network("198.19.255.0/24")
PODS = ipaddress.ip_network("198.19.0.0/17")
LINK = ipaddress.ip_network(LINK_V4.format(0))
KUBERNETES_SERVICE = str(SERVICES[1])
CONTROL_ADDRESS = str(MANAGEMENT[1])
FIRST_NODE = 10
DATA_NICS = ("net0", "net1")
ROUTER, FIRST_PEER = 254, 201
ROUTER_ADDRESS = str(MANAGEMENT[ROUTER])


def _link_addresses(number: int) -> list[str]:
    return [LINK_V4.format(number), LINK_V6.format(f"{number:x}")]


@dataclass(frozen=True)
class NodePlan:
    """The addresses that follow from a node's number, 10 for the first."""

    number: int
    on_link: bool = False

    @property
    def address(self) -> str:
        """Its address that the kubelet reports as InternalIP: mgmt0's, or net0's of a node on the link."""
        return bare(self.link_addresses[0]) if self.on_link else str(MANAGEMENT[self.number])

    @property
    def link_addresses(self) -> list[str]:
        """The addresses of net0 on a node on the link, with prefix lengths, IPv4 first."""
        return _link_addresses(self.number)

    @property
    def hop(self) -> str:
        """Where the management network sends what is for its pods."""
        return ROUTER_ADDRESS if self.on_link else self.address

    @property
    def pods(self) -> str:
        """The network of its pods."""
        return str(list(PODS.subnets(new_prefix=24))[self.number])


class ClusterNetwork:
    """The namespaces, switches and hosts of one cluster; describing them and making them are separate steps.

    So a program that comes later, a fault from the command line say, finds the same parts by tag and node names.
    """

    def __init__(self, tag: str, nodes: Sequence[str] = (), on_link: Collection[str] = ()) -> None:
        self.tag = tag
        self.on_link = set(on_link)
        self.management, self.fabric = self._switch("mgmt"), [self._switch(f"sw{i}") for i in range(2)]
        self.uplink = Uplink(*self.fabric)
        self.control = self._host("control", 1, {"mgmt0": (self.management, [f"{CONTROL_ADDRESS}/24"])})
        self.peers = [
            self._host(f"peer{i}", 2 + i, {"eth0": (self.fabric[i], _link_addresses(FIRST_PEER + i))}) for i in range(2)
        ]
        wires = {
            "eth0": (self.fabric[0], _link_addresses(ROUTER)),
            "eth1": (self.management, [f"{ROUTER_ADDRESS}/24"]),
        }
        self.router = self._host("router", 4, wires)
        self.nodes: dict[str, Host] = {}
        for name in nodes:
            self._describe_node(name)

    def plan(self, node: str) -> NodePlan:
        """The addresses of a node."""
        return NodePlan(FIRST_NODE + list(self.nodes).index(node), node in self.on_link)

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
        self.control.namespace.batch([f"route add {LINK} via {ROUTER_ADDRESS}"])
        self.router.namespace.sysctl({"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1})
        self.router.namespace.batch([f"route add {SERVICES} via {CONTROL_ADDRESS}"])

    def add_node(self, name: str, *, on_link: bool = False) -> None:
        """Make a node's namespace with its NICs, and the routes between pods and everybody else."""
        if on_link:
            self.on_link.add(name)
        host = self._describe_node(name)
        self._create_host(host)
        plan = self.plan(name)
        self.router.namespace.batch([f"route add {plan.pods} via {plan.address}"])
        self.control.namespace.batch([f"route add {plan.pods} via {plan.hop}"])
        for other in self.nodes.keys() - self.on_link - {name}:
            self.nodes[other].namespace.batch([f"route add {plan.pods} via {plan.hop}"])
        if on_link:
            gateways = [bare(address) for address in _link_addresses(ROUTER)]
            host.namespace.batch(f"route add default via {gateway} proto static metric 100" for gateway in gateways)
        else:
            there = [self.plan(other) for other in self.nodes if other != name]
            routes = [f"route add {plan.pods} via {plan.hop}" for plan in there]
            host.namespace.batch([f"route add {SERVICES} via {CONTROL_ADDRESS}", *routes])

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
        plan = NodePlan(number, name in self.on_link)
        wires: dict[str, tuple[Switch, list[str]]] = {}
        if not plan.on_link:
            wires["mgmt0"] = self.management, [f"{plan.address}/24"]
        wires |= {nic: (switch, []) for nic, switch in zip(DATA_NICS, self.fabric, strict=True)}
        if plan.on_link:
            wires["net0"] = self.fabric[0], plan.link_addresses
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


def remove_namespaces(tag: str) -> None:
    """Remove the namespaces of a tag, ending by pid what still runs there; none there is not an error."""
    if NETNS_DIRECTORY.is_dir():
        namespaces.remove([path.name for path in sorted(NETNS_DIRECTORY.glob(f"{tag}-*"))])
