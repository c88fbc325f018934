"""A link with a node's interfaces on one side and targets on the other, in virtual time.

Every interface reaches every target unless something stands between. A probe that gets through is answered after the
target's round trip, by the protocol it was asked in: what the core sees is the same for echo, ARP and neighbour
solicitation. Interfaces hear each other's transitive probes, being on one link.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from ipmp_agent.core.actions import ProbeProtocol
from ipmp_agent.core.events import ProbeKind
from ipmp_agent.simulate import script

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator, Mapping

    from ipmp_agent.core.actions import SendProbe
    from ipmp_agent.core.events import MacAddress
    from ipmp_agent.simulate.script import InterfaceHappening, PlayedTarget, TargetHappening
    from ipmp_api.types import Address

LINK_LATENCY = 0.0001
"""Round trip between two interfaces of the node, seconds: a switch, and the agent's own turn."""


class Nic:
    """What is true of one interface, whatever the agent believes."""

    __slots__ = ("cable", "index", "loss", "mac", "present", "silent")

    def __init__(self, index: int, mac: str) -> None:
        self.index = index
        self.mac = mac
        self.present = True
        self.cable = True
        self.silent = False
        self.loss = 0.0  # share of frames lost, each direction on its own

    @property
    def passes(self) -> bool:
        """Whether any frame gets through."""
        return self.present and self.cable and not self.silent and self.loss < 1


class Network:
    """The truth: who is there, who answers how fast, and what gets lost.

    Args:
        interfaces: MAC addresses by the interfaces' keys.
        targets: who is there.
        rng: decides which frames get lost.
    """

    def __init__(self, interfaces: Mapping[str, str], targets: Iterable[PlayedTarget], rng: random.Random) -> None:
        self._indexes = count(2)
        self.nics = {interface: Nic(next(self._indexes), mac) for interface, mac in interfaces.items()}
        self.latency: dict[Address, float] = {target.address: target.latency for target in targets}  # seconds
        self.dead: set[Address] = set()
        self._discoverable = [target.address for target in targets if target.discoverable]
        self._random = rng

    def passes(self, interface: str) -> bool:
        """Whether one frame, in one direction, gets through."""
        nic = self.nics[interface]
        return nic.passes and (not nic.loss or self._random.random() >= nic.loss)

    def send(self, probe: SendProbe) -> Iterator[tuple[Address | MacAddress, float]]:
        """Who answers a probe, and after how many seconds; the answer has still to pass the interface it came from."""
        if not self.passes(probe.interface):
            return
        if probe.kind is ProbeKind.DISCOVERY:
            for address in self._discoverable:
                if address.version == probe.family.value and address not in self.dead:
                    yield address, self.latency[address]
        elif probe.protocol is ProbeProtocol.TRANSITIVE:
            other = next((key for key, nic in self.nics.items() if nic.mac == probe.target), None)
            if other is not None and self.passes(other) and self.passes(other):  # there and back
                yield probe.target, LINK_LATENCY
        elif probe.target in self.latency and probe.target not in self.dead:
            yield probe.target, self.latency[probe.target]  # type: ignore[index]  # a MAC address is not in there

    def change_interface(self, what: InterfaceHappening) -> None:
        """Something happens to an interface."""
        nic = self.nics[what.interface]
        match what:
            case script.Cable(_, up):
                nic.cable = up
            case script.Silent(_, on):
                nic.silent = on
            case script.Loss(_, percent):
                nic.loss = percent / 100
            case script.Remove():
                nic.present = False
            case script.Add() if not nic.present:
                nic.present, nic.index = True, next(self._indexes)  # the kernel gives no index twice

    def change_target(self, what: TargetHappening) -> None:
        """Something happens to a target."""
        match what:
            case script.TargetPower(address, up):
                (self.dead.discard if up else self.dead.add)(address)
            case script.Latency(address, milliseconds):
                self.latency[address] = milliseconds / 1000
