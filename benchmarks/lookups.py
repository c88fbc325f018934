"""What policy rules and twins cost a packet, beside the same host without them, in turn in one run.

Packets are as small as they come and go into a bridge port that throws them away, so that little more than the way
through the host is measured: sends of a program that chooses nothing for each (unconnected UDP, which is looked up
every time), sends of a connected socket (looked up once), and packets that the host forwards for a pod. The figure is
the ratio of packets a second, with to without: the best of several rounds each, for noise only takes away.

*One rule* is the same host with a single rule of anybody's that fits no packet: the first rule of any kind ends the
kernel's shortcut for hosts without rules, and nothing with a rule can cost less.

Needs root and nftables. Run: python benchmarks/lookups.py
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a file, it finds its neighbours all the same

from ipmp_agent.core.actions import SetOutbound
from ipmp_agent.linux.messages import frames
from tests.lab import Lab, wait_for
from tests.lab.filters import Direction, PortFilter
from tests.lab.kernel.running import GROUP, RunningKernel, kernel_group, with_tests

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab import Namespace

PACKETS, PACKETS_SHORT = 40_000, 4_000
ROUNDS, ROUNDS_SHORT = 7, 2
STRETCH = 1000
NICS = ("nic0", "nic1")
NEIGHBOUR = {4: "198.18.0.250", 6: "2001:db8:0:1::250"}
ROUTER = {4: "198.18.0.1", 6: "2001:db8:0:1::1"}
BEYOND = {4: "203.0.113.9", 6: "2001:db8:99::9"}
POD = {4: "198.19.9.2", 6: "2001:db8:0:9::2"}
NOBODY = "02:00:00:00:99:99"
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
ETHERTYPES = {4: 0x0800, 6: 0x86DD}
PAYLOAD = bytes(18)
ONE_RULE = ("pref", "100", "fwmark", "0x7300", "lookup", "7300")
GROUP_HERE = kernel_group(*with_tests("198.18.0.101/24", "198.18.0.102/24"))


@dataclass(frozen=True)
class Result:
    """Packets a second: without rules, with one of anybody's, and with ours and twins."""

    name: str
    version: int
    without: float
    with_one_rule: float
    with_twins: float

    @property
    def floor(self) -> float:
        """With one rule to without."""
        return self.with_one_rule / self.without

    @property
    def ratio(self) -> float:
        """With to without."""
        return self.with_twins / self.without


def prepare(lab: Lab) -> None:
    """A pod behind the host, and switches that throw away what comes."""
    host = lab.host.namespace
    host.sysctl({"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1})
    pod = lab.peer(1).namespace
    host.run("ip", "link", "add", "pod", "type", "veth", "peer", "name", "up0", "netns", pod.name)
    host.batch(["link set pod up", "address add 198.19.9.1/24 dev pod", "address add 2001:db8:0:9::1/64 dev pod nodad"])
    pod.batch(["link set up0 up"])
    host.batch([f"route add default via {ROUTER[4]} dev nic0", f"route add default via {ROUTER[6]} dev nic0"])
    for switch in lab.switches:
        switch.set_filters({port: PortFilter(drop=frozenset(Direction)) for port in switch.ports()})


def packet(version: int, target: str) -> bytes:
    """A UDP packet from the pod, as small as it comes."""
    udp = (
        (40000).to_bytes(2) + (9).to_bytes(2) + (8 + len(PAYLOAD)).to_bytes(2) + (0 if version == 4 else 1).to_bytes(2)
    )
    if version == 6:
        source, destination = IPv6Address(POD[6]).packed, IPv6Address(target).packed
        return (
            (6 << 28).to_bytes(4)
            + (8 + len(PAYLOAD)).to_bytes(2)
            + bytes([17, 64])
            + source
            + destination
            + udp
            + PAYLOAD
        )
    length = 20 + 8 + len(PAYLOAD)
    head = bytes([0x45, 0]) + length.to_bytes(2) + bytes(4) + bytes([64, 17])
    addresses = IPv4Address(POD[4]).packed + IPv4Address(target).packed
    words = head + bytes(2) + addresses
    total = sum(int.from_bytes(words[i : i + 2]) for i in range(0, 20, 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return head + (~total & 0xFFFF).to_bytes(2) + addresses + udp + PAYLOAD


def rate(count: int, send: Callable[[], object]) -> float:
    """Packets a second of processor time, in the best of short stretches: others use this machine, too."""
    best = 0.0
    for _ in range(count // STRETCH):
        start = time.thread_time()
        for _ in range(STRETCH):
            send()
        best = max(best, STRETCH / (time.thread_time() - start))
    return best


def unconnected(host: Namespace, version: int, target: str, count: int) -> float:
    """Sends of a program that chooses nothing."""
    with host.socket(FAMILIES[version], socket.SOCK_DGRAM) as program:
        return rate(count, lambda: program.sendto(PAYLOAD, (target, 9)))


def connected(host: Namespace, version: int, target: str, count: int) -> float:
    """Sends of a program whose socket keeps its route."""
    with host.socket(FAMILIES[version], socket.SOCK_DGRAM) as program:
        program.connect((target, 9))
        return rate(count, lambda: program.send(PAYLOAD))


def forwarded(lab: Lab, version: int, target: str, count: int) -> float:
    """Packets of a pod, all of which must have left."""
    pod = lab.peer(1).namespace
    there = frames.mac_bytes(lab.host.namespace.ip_json("link", "show", "dev", "pod")[0]["address"])
    here = frames.mac_bytes(pod.ip_json("link", "show", "dev", "up0")[0]["address"])
    frame = there + here + ETHERTYPES[version].to_bytes(2) + packet(version, target)
    before = passed(lab)
    with pod.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.bind(("up0", 0))
        found = rate(count, lambda: wire.send(frame))
    wait_for(lambda: passed(lab) - before, lambda sent: sent >= count, what=f"every packet forwarded to {target}")
    return found


def passed(lab: Lab) -> int:
    """Packets that left by the members."""
    return sum(
        int(lab.host.namespace.ip_json("-s", "link", "show", "dev", nic)[0]["stats64"]["tx"]["packets"]) for nic in NICS
    )


def measure(lab: Lab, count: int) -> dict[tuple[str, int], float]:
    """Every rate once."""
    found = {}
    host = lab.host.namespace
    for nic in NICS:  # with its last address an interface forgets its neighbours
        host.batch(
            f"neigh replace {address} lladdr {NOBODY} nud permanent dev {nic}"
            for address in (*NEIGHBOUR.values(), *ROUTER.values())
        )
    for version in (4, 6):
        for where, target in (("on the link", NEIGHBOUR[version]), ("by the default route", BEYOND[version])):
            found[f"unconnected UDP, {where}", version] = unconnected(host, version, target, count)
            found[f"forwarded, {where}", version] = forwarded(lab, version, target, count)
        found["connected UDP, by the default route", version] = connected(host, version, BEYOND[version], count)
    return found


def lay_twins(lab: Lab) -> Any:
    """Rules and twins, left there by an agent that ended: it shares this process. Returns what it remembers."""
    kernel = RunningKernel(lab.host.namespace)
    kernel.configure(GROUP_HERE)
    for nic in NICS:
        kernel.await_test_address(nic)
    kernel.perform(SetOutbound(NICS, NICS))
    for family in ("-4", "-6"):
        words = (family, "route", "show", "default", "table", "all", "protocol", "73")
        wait_for(partial(lab.host.namespace.ip_json, *words), lambda found: len(found) == 1)
    kernel.run(lambda k: k.reconcile(GROUP))
    memory = kernel.call(lambda k: k.memory(GROUP))
    kernel.close()
    return memory


def one_rule(lab: Lab, verb: str) -> None:
    """Add or delete a rule that fits no packet, in either IP version."""
    for family in ("-4", "-6"):
        lab.host.namespace.ip(family, "rule", verb, *ONE_RULE)


def run(*, short: bool) -> list[Result]:
    """Measure without, with one rule and with ours, in turn."""
    count, rounds = (PACKETS_SHORT, ROUNDS_SHORT) if short else (PACKETS, ROUNDS)
    rates: dict[str, list[dict[tuple[str, int], float]]] = {"without": [], "one rule": [], "twins": []}
    with Lab(nic_addresses={"nic0": ("198.18.0.50/24", "2001:db8:0:1::50/64")}) as lab:
        prepare(lab)
        for _ in range(rounds):
            rates["without"].append(measure(lab, count))
            one_rule(lab, "add")
            rates["one rule"].append(measure(lab, count))
            one_rule(lab, "del")
            memory = lay_twins(lab)
            rates["twins"].append(measure(lab, count))
            kernel = RunningKernel(lab.host.namespace)
            kernel.configure(GROUP_HERE, memory)
            kernel.run(lambda k: k.withdraw(GROUP))
            kernel.close()
    best = {host: {key: max(each[key] for each in some) for key in some[0]} for host, some in rates.items()}
    return [Result(*key, *(best[host][key] for host in rates)) for key in best["twins"]]


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="few packets, few rounds")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    arguments = parser.parse_args()
    results = run(short=arguments.short)
    if arguments.json:
        document = {"kernel": platform.release(), "cores": os.cpu_count(), "results": [asdict(r) for r in results]}
        print(json.dumps(document, indent=2))
        return
    print(
        f"{'':40} {'without/s':>10} {'with/s':>10} {'ratio':>6} {'one rule':>9}"
        f"   (Linux {platform.release()}, {os.cpu_count()} cores)"
    )
    for found in results:
        label = f"IPv{found.version} {found.name}"
        print(f"{label:40} {found.without:10.0f} {found.with_twins:10.0f} {found.ratio:6.2f} {found.floor:9.2f}")


if __name__ == "__main__":
    main()
