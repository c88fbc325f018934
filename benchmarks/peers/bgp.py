"""BGP on the host as a peer: FRR on a host and on two leaf routers, a session on each uplink, BFD on both.

It is set up as FRR's manual and data-centre designs (RFC 7938) do it: eBGP unnumbered (RFC 8950) over link-local
addresses, FRR's `datacenter` defaults (keepalive 3 s, hold 9 s), BFD by a profile, the data addresses on the loopback
interface, ways of equal length used side by side. The leaves stand where the lab's switches stood, each with a
network of neighbours behind it, which is one link over both; they tell each other of the host, so that either reaches
it by the other.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from ipaddress import ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from benchmarks.peers.process import Peer
from tests.lab.topology import BRIDGE, LINK_V4, LINK_V6, Host, Switch, bare
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.lab import Lab, Nic

PROGRAMS = Path("/usr/lib/frr")  # where Debian puts them
OWNER = "frr"  # the package's user: the daemons give root up
HOST_AS, LEAF_AS, FIRST_LEAF = 65100, 65001, 251
PATIENCE = 90.0  # seconds until all sessions are up

ACCESS, CABLE, ROUTED = "access", "cable", "routed"

BFD = """bfd
 profile lab
  detect-multiplier 3
  transmit-interval {0}
  receive-interval {0}
"""


class Leaf(Switch):
    """A switch with a router behind its port to the host: as there is no other way to drop frames under every kernel.

    The cable between the two loses its carrier with the port, so that the router sees a pulled cable as the host does.
    """

    def commands(self) -> list[str]:
        """Lines of `ip` that join the router, as ROUTED, to a bridge of its own."""
        bridge = super().commands()[0].replace(f"name {BRIDGE} ", f"name {ACCESS} ")
        joined = [f"link add {ROUTED} up type veth peer name {CABLE}", f"link set {CABLE} master {ACCESS} up"]
        return [bridge, *joined]

    def set_ports(self, ports: Iterable[str], *, up: bool) -> float:
        """As a switch's, and the router's with it."""
        return super().set_ports([*ports, CABLE], up=up)


class Router:
    """zebra, bfdd and bgpd in one namespace.

    Args:
        number: of the autonomous system.
        uplinks: interfaces with a session by link-local addresses each, watched by BFD.
        neighbours: sessions by address, with the number of the system there.
        networks: what it announces.
        milliseconds: BFD's interval; three without a word end a session.
    """

    def __init__(
        self,
        host: Host,
        number: int,
        *,
        uplinks: Sequence[str],
        neighbours: Sequence[tuple[str, int]],
        networks: Sequence[str],
        milliseconds: int,
    ) -> None:
        self.host = host
        self._daemons: list[Peer] = []
        self._text = {
            "zebra": "".join(f"interface {name}\n ipv6 nd ra-interval 1\n" for name in uplinks),
            "bfdd": BFD.format(milliseconds),
            "bgpd": "\n".join(self._bgp(number, uplinks, neighbours, networks)) + "\n",
        }

    @staticmethod
    def _bgp(
        number: int, uplinks: Sequence[str], neighbours: Sequence[tuple[str, int]], networks: Sequence[str]
    ) -> list[str]:
        router_id = next(bare(network) for network in networks if ":" not in network)
        lines = [f"router bgp {number}", f" bgp router-id {router_id}", " no bgp ebgp-requires-policy"]
        lines.append(" bgp bestpath as-path multipath-relax")
        for name in uplinks:
            lines += [f" neighbor {name} interface remote-as external", f" neighbor {name} bfd profile lab"]
            lines.append(f" neighbor {name} timers connect 1")
        for address, other in neighbours:
            lines += [f" neighbor {address} remote-as {other}", f" neighbor {address} timers connect 1"]
        for family in (4, 6):
            lines.append(f" address-family ipv{family} unicast")
            ours = [network for network in map(ip_interface, networks) if network.version == family]
            lines += [f"  network {network.network}" for network in ours]
            if family == 6:
                lines += [f"  neighbor {one} activate" for one in (*uplinks, *(a for a, _ in neighbours if ":" in a))]
            lines.append(" exit-address-family")
        return lines

    def start(self) -> None:
        """Start all three, zebra first: the others connect to it."""
        for name, text in self._text.items():
            daemon = Peer(self.host, name)
            self._daemons.append(daemon)
            configuration = daemon.directory / "frr.conf"
            configuration.write_text(text, encoding="utf-8")
            for path in (daemon.directory, configuration):
                shutil.chown(path, OWNER, OWNER)
            socket = self._daemons[0].directory / "zebra.api"
            daemon.start(
                [
                    *(str(PROGRAMS / name), "-F", "datacenter", "-f", str(configuration)),
                    *("-i", str(daemon.directory / "pid"), "-z", str(socket), "-P", "0", "--log", "stdout"),
                    *("--vty_socket", str(daemon.directory)),
                    *(["--bfdctl", str(daemon.directory / "control")] if name == "bfdd" else []),
                ]
            )
            wait_for((daemon.directory / f"{name}.vty").is_socket, deadline=PATIENCE, what=f"{name}'s socket")

    def ask(self, daemon: str, question: str) -> Any:
        """What a daemon shows, read as JSON; None while it does not answer."""
        (found,) = (one for one in self._daemons if one.name == daemon)
        found.demand_running()
        argv = ["vtysh", "--vty_socket", str(found.directory), "-d", daemon, "-c", f"show {question} json"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else None

    def sessions(self) -> int:
        """BFD's sessions that are up."""
        return sum(session["status"] == "up" for session in self.ask("bfdd", "bfd peers") or [])

    def lost(self) -> int:
        """How often a session of BFD went down."""
        return sum(session["session-down"] for session in self.ask("bfdd", "bfd peers counters") or [])

    def pids(self) -> list[int]:
        """Its processes."""
        return [daemon.process.pid for daemon in self._daemons]

    def close(self) -> None:
        """End all, the last first."""
        for daemon in reversed(self._daemons):
            daemon.close()


class Bgp:
    """A host whose addresses are on its loopback interface and announced by every NIC, with a leaf router at each.

    Args:
        addresses: with the length of a single one's prefix, none of them of the neighbours' link.
    """

    def __init__(self, lab: Lab, addresses: Sequence[str], milliseconds: int) -> None:
        self.lab = lab
        self.addresses = [bare(address) for address in addresses]
        self._stack = contextlib.ExitStack()
        self._loopbacks = addresses
        self.host = Router(
            lab.host,
            HOST_AS,
            uplinks=list(lab.host.nics),
            neighbours=(),
            networks=addresses,
            milliseconds=milliseconds,
        )
        self.leaves = []
        for i, nic in enumerate(lab.host.nics.values()):
            others = [j for j in range(len(lab.host.nics)) if j != i]
            others_at = [(bare(lan.format(FIRST_LEAF + j)), LEAF_AS + j) for j in others for lan in (LINK_V4, LINK_V6)]
            self.leaves.append(
                Router(
                    Host(f"leaf{i}", nic.switch.namespace),
                    LEAF_AS + i,
                    uplinks=[ROUTED],
                    neighbours=others_at,
                    networks=[lan.format(FIRST_LEAF + i) for lan in (LINK_V4, LINK_V6)],
                    milliseconds=milliseconds,
                )
            )

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            host = self.lab.host.namespace
            host.batch(f"address add {one} dev lo{' nodad' if ':' in one else ''}" for one in self._loopbacks)
            # The leaves' advertisements are for the daemons alone.
            host.sysctl({f"ipv6/conf/{nic}/accept_ra": 0 for nic in self.lab.host.nics})
            for i, nic in enumerate(self.lab.host.nics.values()):
                self._route(nic, i)
                stack.callback(nic.switch.close)
            gateways = [bare(lan.format(FIRST_LEAF)) for lan in (LINK_V4, LINK_V6)]
            for peer in (host for name, host in self.lab.hosts.items() if name.startswith("peer")):
                # Or else they keep to the second leaf when the first has sent to it once.
                peer.namespace.sysctl({f"ipv6/conf/{which}/accept_redirects": 0 for which in ("all", "eth0")})
                for address in self.addresses:
                    (gateway,) = (one for one in gateways if (":" in one) == (":" in address))
                    peer.namespace.ip("route", "add", address, "via", gateway)
            for router in (*self.leaves, self.host):
                stack.callback(router.close)
                router.start()
            wanted = len(self.leaves)
            wait_for(self.host.sessions, lambda up: up == wanted, deadline=PATIENCE, what="BFD", interval=0.5)
            wait_for(self._complete, deadline=PATIENCE, what="all routes", interval=0.5)
            self._stack = stack.pop_all()
        return self

    def _route(self, nic: Nic, number: int) -> None:
        """Make the switch at this NIC a router."""
        leaf = nic.switch = Leaf(nic.switch.name, nic.switch.namespace)
        lines = [*leaf.commands(), f"link set {nic.port} master {ACCESS}"]
        lines += [f"address add {lan.format(FIRST_LEAF + number)} dev {BRIDGE}" for lan in (LINK_V4, LINK_V6)]
        settings = {"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1, "ipv4/conf/all/send_redirects": 0}
        leaf.namespace.batch(lines[:-2])
        leaf.namespace.sysctl(
            settings
            | {f"ipv4/conf/{wire}/send_redirects": 0 for wire in (BRIDGE, ROUTED)}
            | {f"ipv6/conf/{wire}/disable_ipv6": 0 for wire in (BRIDGE, ROUTED)}
        )
        leaf.namespace.batch(lines[-2:])

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _ways(self, number: int) -> set[str]:
        """The interfaces by which a leaf sends to the host's addresses; an empty name where it has no route."""
        leaf = list(self.lab.host.nics.values())[number].switch.namespace
        told = [leaf.run("ip", "-json", "route", "get", address, check=False) for address in self.addresses]
        return {str(json.loads(text)[0]["dev"]) if text else "" for text in told}

    def _complete(self) -> bool:
        """Whether each leaf reaches the host directly, and the host the neighbours by all NICs."""
        nics = self.lab.host.nics
        direct = all(self._ways(number) == {ROUTED} for number in range(len(nics)))
        namespace = self.lab.host.namespace
        routes = [namespace.ip_json(f"-{family}", "route", "show", "proto", "bgp") for family in (4, 6)]
        return direct and all(found and len(found[0].get("nexthops", ())) == len(nics) for found in routes)

    def active(self) -> str:
        """The NIC by which the first leaf, which the neighbours ask, reaches the host."""
        nics = list(self.lab.host.nics)
        ways = self._ways(0)
        if ways == {ROUTED}:
            return nics[0]
        return nics[1] if ways == {BRIDGE} else ""

    def failures(self) -> int:
        """How often it gave a NIC up."""
        return self.host.lost()

    def pids(self) -> tuple[list[int], list[int]]:
        """The processes on the host, and those on the leaves."""
        return self.host.pids(), [pid for leaf in self.leaves for pid in leaf.pids()]
