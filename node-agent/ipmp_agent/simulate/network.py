"""A link with a node's interfaces on one side and targets on the other, in virtual time.

Every interface reaches every target unless something stands between. A probe that gets through is answered after the
target's round trip, by the protocol it was asked in: what the core sees is the same for echo, ARP and neighbour
solicitation.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from ipmp_agent.core.events import ProbeKind
from ipmp_agent.simulate import script

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator

    from ipmp_agent.core.actions import SendProbe
    from ipmp_agent.simulate.script import InterfaceHappening, Target, TargetHappening
    from ipmp_api.types import Address


class Nic:
    """What is true of one interface, whatever the agent believes."""

    __slots__ = ("cable", "index", "loss", "present", "silent")

    def __init__(self, index: int) -> None:
        self.index = index
        self.present = True
        self.cable = True
        self.silent = False
        self.loss = 0.0  # share of frames lost, each direction on its own

    @property
    def passes(self) -> bool:
        """Whether any frame gets through."""
        return self.present and self.cable and not self.silent and self.loss < 1


class Network:
    """The truth: who is there, who answers how fast, and what gets lost."""

    def __init__(self, interfaces: Iterable[str], targets: Iterable[Target], rng: random.Random) -> None:
        self._indexes = count(2)
        self.nics = {interface: Nic(next(self._indexes)) for interface in interfaces}
        self.latency: dict[Address, float] = {target.address: target.latency for target in targets}  # seconds
        self.dead: set[Address] = set()
        self._discoverable = [target.address for target in targets if target.discoverable]
        self._random = rng

    def passes(self, interface: str) -> bool:
        """Whether one frame, in one direction, gets through."""
        nic = self.nics[interface]
        return nic.passes and (not nic.loss or self._random.random() >= nic.loss)

    def send(self, probe: SendProbe) -> Iterator[tuple[Address, float]]:
        """Who answers a probe, and after how many seconds; the answer has the way back still before it."""
        if not self.passes(probe.interface):
            return
        if probe.kind is ProbeKind.DISCOVERY:
            answering = [address for address in self._discoverable if address.version == probe.family.value]
        else:
            answering = [probe.target]
        for address in answering:
            latency = self.latency.get(address)
            if latency is not None and address not in self.dead:
                yield address, latency

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
