"""Hosts, NICs, switches and the cables between them: one IP link, drawn from network namespaces.

    lab = Lab()                              # one host, two NICs, two switches with an uplink, a peer on each
    with lab: lab.host.nic("nic0").unplug()

Every switch is a bridge in its own namespace; a cable is a veth pair whose far end is a bridge port.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Self

from tests.lab import namespaces
from tests.lab.carrier import IFNAMSIZ, Carrier
from tests.lab.delay import DelayLine
from tests.lab.filters import Direction, Family, PortFilter, ruleset
from tests.lab.namespaces import Namespace
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# The plan of addresses: one link, and a network behind the router.
LINK_V4, LINK_V6 = "198.18.0.{}/24", "2001:db8:0:1::{}/64"
REMOTE_V4, REMOTE_V6 = "198.19.0.{}/24", "2001:db8:0:2::{}/64"
ROUTER, REMOTE_ROUTER, REMOTE, FIRST_PEER = 1, 1, 2, 201

BRIDGE = "br"


def bare(address: str) -> str:
    """Return an address without its prefix length."""
    return address.partition("/")[0]


class Switch:
    """A bridge in its own namespace; its ports' faults are one nftables ruleset, replaced as a whole."""

    def __init__(self, name: str, namespace: Namespace) -> None:
        self.name = name
        self.namespace = namespace
        self.filters: dict[str, PortFilter] = {}
        self._carrier: Carrier | None = None

    @property
    def carrier(self) -> Carrier:
        """The carriers of this switch's ports."""
        if self._carrier is None:
            self._carrier = Carrier(self.namespace)
        return self._carrier

    def commands(self) -> list[str]:
        """Lines of `ip` that make the bridge. Snooping off: a switch without a querier floods."""
        return [f"link add name {BRIDGE} up type bridge stp_state 0 forward_delay 0 mcast_snooping 0"]

    def set_ports(self, ports: Iterable[str], *, up: bool) -> float:
        """Raise or drop the carrier of ports, all within microseconds; returns the monotonic time of the last."""
        for port in ports:
            self.carrier.set_up(port, up=up)
            if up:
                # The bridge forwards again when the kernel acts on the carrier, which asking makes it do at once.
                self.carrier.present(port)
        return time.monotonic()

    def cut(self, *ports: str) -> None:
        """Take ports down in the same instant: nobody who asks the kernel can see one of them alone."""
        group = "4919"
        self.namespace.batch(f"link set {port} group {group}" for port in ports)
        self.namespace.ip("link", "set", "group", group, "down")
        self.namespace.batch(f"link set {port} group default" for port in ports)

    def mend(self, *ports: str) -> None:
        """Take ports that were cut up again."""
        self.namespace.batch(f"link set {port} up" for port in ports)

    def ports(self) -> list[str]:
        """Names of the ports, uplinks included."""
        return [str(link["ifname"]) for link in self.namespace.ip_json("link", "show", "master", BRIDGE)]

    def die(self) -> float:
        """Lose power: every port loses its carrier at once. Returns the monotonic time."""
        return self.set_ports(self.ports(), up=False)

    def revive(self) -> float:
        """Power up again."""
        return self.set_ports(self.ports(), up=True)

    def hang(self) -> float:
        """Forward nothing any more, carrier up everywhere. Returns the monotonic time."""
        return self.set_filters({port: PortFilter(drop=frozenset(Direction)) for port in self.ports()})

    def set_filters(self, filters: dict[str, PortFilter]) -> float:
        """Replace the filters of the named ports, in one transaction; returns the monotonic time after it."""
        self.filters |= filters
        self.namespace.run("nft", "-f", "-", text=ruleset(self.filters))
        return time.monotonic()

    def close(self) -> None:
        """Give back the control socket."""
        if self._carrier is not None:
            self._carrier.close()


@dataclass
class Nic:
    """A NIC of a host, its cable and the switch port at the far end.

    Every fault returns the monotonic time from which it held: exact within microseconds for carriers, while filters
    may take effect some milliseconds before the program that sets them has ended.
    """

    host: Host
    name: str
    switch: Switch
    port: str
    mac: str
    addresses: tuple[str, ...] = ()

    def commands(self, *, index: int | None = None) -> tuple[str, list[str], list[str]]:
        """Lines of `ip` that make the cable (in no namespace), the NIC (in the host's), the port (in the switch's)."""
        position = f"index {index} " if index else ""
        cable = (
            f"link add {self.name} {position}address {self.mac} netns {self.host.namespace.name}"
            f" type veth peer name {self.port} netns {self.switch.namespace.name}"
        )
        # `nodad` keeps the lab's own addresses usable at once.
        near = [f"link set {self.name} up"]
        near += [f"address add {a} dev {self.name}{' nodad' if ':' in a else ''}" for a in self.addresses]
        return cable, near, [f"link set {self.port} master {BRIDGE} up"]

    @property
    def index(self) -> int:
        """Interface index in the host's namespace."""
        return int(self.host.namespace.ip_json("link", "show", "dev", self.name)[0]["ifindex"])

    def unplug(self) -> float:
        """Pull the cable at the switch: carrier lost."""
        return self.switch.set_ports([self.port], up=False)

    def plug(self) -> float:
        """Plug the cable in again."""
        return self.switch.set_ports([self.port], up=True)

    def silence(self, *directions: Direction, families: Iterable[Family] = ()) -> float:
        """Drop frames at the switch port, carrier up: both ways and every protocol unless narrowed."""
        wanted = PortFilter(drop=frozenset(directions or Direction), families=frozenset(families))
        return self.switch.set_filters({self.port: wanted})

    def lose(self, percent: float, *directions: Direction) -> float:
        """Drop this share of frames at random, in each direction named (both by default)."""
        wanted = PortFilter(drop=frozenset(directions or Direction), percent=percent)
        return self.switch.set_filters({self.port: wanted})

    def restore(self) -> float:
        """Forward everything again."""
        return self.switch.set_filters({self.port: PortFilter()})

    def remove(self) -> float:
        """Hot unplug: the interface vanishes from the host, and its port from the switch."""
        self.host.namespace.ip("link", "del", self.name)
        return time.monotonic()

    def insert(self, *, index: int | None = None, mac: str | None = None) -> float:
        """Hot plug after `remove`: same name and port; the index and the MAC as given, else any index, old MAC."""
        self.mac = mac or self.mac
        cable, near, far = self.commands(index=index)
        namespaces.batch([cable])
        self.switch.namespace.batch(far)
        self.host.namespace.batch(near)
        self.switch.carrier.present(self.port)
        return time.monotonic()

    def rename(self, name: str) -> float:
        """Give the interface another name, running."""
        self.host.namespace.ip("link", "set", self.name, "name", name)
        self.name = name
        return time.monotonic()

    def move_to(self, namespace: Namespace) -> float:
        """Move the interface out of the host into another namespace (as a device plugin does)."""
        self.host.namespace.ip("link", "set", self.name, "netns", namespace.name)
        return time.monotonic()


class Host:
    """A machine: a namespace with NICs."""

    def __init__(self, name: str, namespace: Namespace) -> None:
        self.name = name
        self.namespace = namespace
        self.nics: dict[str, Nic] = {}
        self.routes: list[str] = []

    def nic(self, name: str) -> Nic:
        """Return a NIC by the name it was made with."""
        return self.nics[name]

    @property
    def only(self) -> Nic:
        """The NIC of a host that has one."""
        (nic,) = self.nics.values()
        return nic

    @property
    def ipv4(self) -> str:
        """First IPv4 address given when it was made, without prefix length."""
        return next(bare(a) for nic in self.nics.values() for a in nic.addresses if ":" not in a)

    @property
    def ipv6(self) -> str:
        """First IPv6 address given when it was made, without prefix length."""
        return next(bare(a) for nic in self.nics.values() for a in nic.addresses if ":" in a)

    def holders(self, address: str) -> list[str]:
        """Return the interfaces on which the kernel holds an address, once for each time."""
        wanted = ip_address(bare(address))
        links = self.namespace.ip_json("address", "show")
        return [
            str(link["ifname"])
            for link in links
            for found in link.get("addr_info", [])
            if ip_address(found["local"]) == wanted
        ]

    def ignore_probes(self, *, ignore: bool = True) -> float:
        """Be a dead target that is no dead host: echo requests go unanswered, ARP and ND still work."""
        rules = "add table inet ignore\ndelete table inet ignore\n"
        if ignore:
            rules += (
                "table inet ignore {\n chain input {\n  type filter hook input priority 0; policy accept\n"
                "  icmp type echo-request drop\n  icmpv6 type echo-request drop\n }\n}\n"
            )
        self.namespace.run("nft", "-f", "-", text=rules)
        return time.monotonic()


@dataclass
class _Pending:
    """Lines of `ip`, gathered so that each namespace needs one process."""

    outside: list[str] = field(default_factory=list)
    inside: dict[str, list[str]] = field(default_factory=dict)

    def add(self, namespace: Namespace, lines: Iterable[str]) -> None:
        self.inside.setdefault(namespace.name, []).extend(lines)


class Lab:
    """A topology with a life: made on entry, removed on exit whatever happened between.

    Args:
        nics: names of the NICs of each host; NIC i is plugged into switch i modulo their number.
        hosts: names of the hosts under test; `host` is the first.
        switches: how many; each has an uplink to the next.
        peers: how many neighbours with one NIC each and an address of either family, spread like NICs.
        router: add a router on the first switch, a network behind it and a default route on peers.
        nic_addresses: addresses with prefix length by NIC name, for the first host only.
    """

    def __init__(
        self,
        nics: Sequence[str] = ("nic0", "nic1"),
        *,
        hosts: Sequence[str] = ("host",),
        switches: int = 2,
        peers: int = 2,
        router: bool = False,
        nic_addresses: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.tag = namespaces.new_tag()
        self._names: list[str] = []
        self._pending = _Pending()
        self._serial = itertools.count(1)
        self._delays: list[DelayLine] = []
        self._stack = contextlib.ExitStack()
        self._running = False
        self.switches = [self._switch(f"sw{i}") for i in range(switches)]
        self.uplinks = [self._uplink(near, far) for near, far in itertools.pairwise(self.switches)]
        self.hosts: dict[str, Host] = {}
        gateway = [f"route add default via {bare(LINK_V4.format(ROUTER))}"] if router else []
        gateway += [f"route add default via {bare(LINK_V6.format(ROUTER))}"] if router else []
        for name in hosts:
            wired = {nic: self.switches[i % switches] for i, nic in enumerate(nics)}
            self.add_host(name, wired, addresses=nic_addresses if name == hosts[0] else None)
        for i in range(peers):
            addresses = {"eth0": (LINK_V4.format(FIRST_PEER + i), LINK_V6.format(FIRST_PEER + i))}
            self.add_host(f"peer{i}", {"eth0": self.switches[i % switches]}, addresses=addresses, routes=gateway)
        if router:
            self._router()

    # -- drawing ------------------------------------------------------------------------------------------------

    def _namespace(self, name: str) -> Namespace:
        full = f"{self.tag}-{name}"
        self._names.append(full)
        self._pending.outside.insert(0, f"netns add {full}")
        return Namespace(full)

    def _switch(self, name: str) -> Switch:
        switch = Switch(name, self._namespace(name))
        self._pending.add(switch.namespace, switch.commands())
        return switch

    def _uplink(self, near: Switch, far: Switch) -> Uplink:
        uplink = Uplink(near, far)
        self._pending.outside.append(
            f"link add {uplink.port} netns {near.namespace.name} type veth"
            f" peer name {uplink.port} netns {far.namespace.name}"
        )
        for switch in (near, far):
            self._pending.add(switch.namespace, [f"link set {uplink.port} master {BRIDGE} up"])
        return uplink

    def _router(self) -> None:
        wan = self._switch("wan")
        self.switches.append(wan)
        router = self.add_host(
            "router",
            {"eth0": self.switches[0], "eth1": wan},
            addresses={
                "eth0": (LINK_V4.format(ROUTER), LINK_V6.format(ROUTER)),
                "eth1": (REMOTE_V4.format(REMOTE_ROUTER), REMOTE_V6.format(REMOTE_ROUTER)),
            },
        )
        self._pending.add(router.namespace, [])
        self.add_host(
            "remote",
            {"eth0": wan},
            addresses={"eth0": (REMOTE_V4.format(REMOTE), REMOTE_V6.format(REMOTE))},
            routes=[
                f"route add default via {bare(REMOTE_V4.format(REMOTE_ROUTER))}",
                f"route add default via {bare(REMOTE_V6.format(REMOTE_ROUTER))}",
            ],
        )

    def add_host(
        self,
        name: str,
        nics: dict[str, Switch],
        *,
        addresses: Mapping[str, Sequence[str]] | None = None,
        routes: Sequence[str] = (),
    ) -> Host:
        """Add a host with these NICs, plugged in as given; at once if the lab runs, else when it starts."""
        host = Host(name, self._namespace(name))
        self.hosts[name] = host
        lines = ["link set lo up"]
        for nic_name, switch in nics.items():
            serial = next(self._serial)
            nic = Nic(
                host=host,
                name=nic_name,
                switch=switch,
                port=f"{name}-{nic_name}"[: IFNAMSIZ - 1],
                mac=f"02:00:00:00:{serial >> 8:02x}:{serial & 255:02x}",
                addresses=tuple((addresses or {}).get(nic_name, ())),
            )
            host.nics[nic_name] = nic
            cable, near, far = nic.commands()
            self._pending.outside.append(cable)
            lines += near
            self._pending.add(switch.namespace, far)
        self._pending.add(host.namespace, [*lines, *routes])
        if self._running:
            self._build()
        return host

    @property
    def host(self) -> Host:
        """The first host under test."""
        return next(iter(self.hosts.values()))

    def peer(self, number: int) -> Host:
        """Return a neighbour; peer i hangs on switch i modulo the number of switches."""
        return self.hosts[f"peer{number}"]

    @property
    def uplink(self) -> Uplink:
        """The cable between the first two switches."""
        return self.uplinks[0]

    def delay(self, nic: Nic, seconds: float) -> DelayLine:
        """Put a delay line into a cable, each way: a userspace relay, since the kernel may lack netem.

        Carrier does not pass through it; use it on peers, not on members.
        """
        for line in self._delays:
            if line.nic_port == nic.port:
                line.seconds = seconds
                return line
        wire = self._namespace(f"wire-{nic.port}")
        self._build()
        # The port leaves the switch for the wire, and a fresh port of the same name takes its place.
        nic.switch.namespace.batch(
            [f"link set {nic.port} nomaster", f"link set {nic.port} netns {wire.name} name near"]
        )
        namespaces.batch(
            [f"link add far netns {wire.name} type veth peer name {nic.port} netns {nic.switch.namespace.name}"]
        )
        wire.batch(["link set near up", "link set far up"])
        nic.switch.namespace.batch([f"link set {nic.port} master {BRIDGE} up"])
        nic.switch.carrier.present(nic.port)
        line = DelayLine(wire, nic.port, seconds)
        self._delays.append(line)
        self._stack.callback(line.close)
        return line

    # -- life ---------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        pending, self._pending = self._pending, _Pending()
        namespaces.batch(line for line in pending.outside if line.startswith("netns"))
        quiet = {f"{self.tag}-{switch.name}" for switch in self.switches}
        for line in pending.outside:
            if line.startswith("netns"):
                name = line.rpartition(" ")[2]
                Namespace(name).sysctl(self._settings(name, quiet=name in quiet or "-wire-" in name))
        namespaces.batch(line for line in pending.outside if not line.startswith("netns"))
        for name, lines in pending.inside.items():
            Namespace(name).batch(lines)

    def _settle(self) -> None:
        """Wait until every cable has a carrier at both ends and every switch port forwards."""
        for switch in self.switches:
            for port in switch.ports():
                wait_for(partial(switch.carrier.present, port), what=f"carrier of {switch.name} {port}")
        for host in self.hosts.values():
            carrier = Carrier(host.namespace)
            for name in host.nics:
                wait_for(partial(carrier.present, name), what=f"carrier of {host.name} {name}")
            carrier.close()

    def _settings(self, name: str, *, quiet: bool) -> dict[str, int]:
        """Per-namespace settings, before any interface exists: switches speak no IP, addresses need no waiting."""
        settings = {"ipv6/conf/default/accept_dad": 0, "ipv6/conf/default/router_solicitations": 0}
        if quiet:
            settings["ipv6/conf/default/disable_ipv6"] = 1
        if name.endswith("-router"):
            settings |= {"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1}
        return settings

    def __enter__(self) -> Self:
        namespaces.remove_stale()
        with contextlib.ExitStack() as stack:
            # Names are read when it runs: hosts added later are removed too.
            stack.callback(lambda: namespaces.remove(self._names))
            for switch in self.switches:
                stack.callback(switch.close)
            self._build()
            self._settle()
            self._running = True
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running = False
        self._stack.close()

    def cleanup(self, action: contextlib.AbstractContextManager[object]) -> None:
        """Leave this context when the lab goes, before its namespaces do."""
        self._stack.enter_context(action)


class Uplink:
    """The cable between two switches."""

    def __init__(self, near: Switch, far: Switch) -> None:
        self.near, self.far = near, far
        self.port = f"up-{near.name}-{far.name}"

    def unplug(self) -> float:
        """Cut the link between the switches; hosts keep their carrier."""
        return self.near.set_ports([self.port], up=False)

    def plug(self) -> float:
        """Join the switches again."""
        return self.near.set_ports([self.port], up=True)
