"""Groups and scripts for the tests of the simulator, and what comes of them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface, ip_address
from typing import TYPE_CHECKING

from ipmp_agent.simulate.script import Fault, FaultScript, PlayedTarget
from ipmp_agent.simulate.simulation import Simulation
from ipmp_agent.simulate.timeline import AddressChange, InterfaceChange
from ipmp_api.types import (
    FailureDetection,
    InterfaceMatch,
    Member,
    NodeGroup,
    Policies,
    Role,
    TestAddressIPv6,
)
from tests.node_groups import node_group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ipmp_agent.simulate.script import Happening
    from ipmp_agent.simulate.timeline import Entry

ROUTER, NEIGHBOUR = ip_address("198.18.0.1"), ip_address("198.18.0.2")
TARGETS = (PlayedTarget(ROUTER, 0.001), PlayedTarget(NEIGHBOUR, 0.001))


def make_group(  # each argument is one knob of a test
    *,
    active: int = 2,
    standby: int = 0,
    addresses: int = 2,
    milliseconds: int = 1000,
    policies: Policies | None = None,
    offline: tuple[str, ...] = (),
) -> NodeGroup:
    """Members nic0, nic1, ... with IPv4 test addresses only, the active ones first; addresses 198.18.0.100 and up."""
    roles = [Role.ACTIVE] * active + [Role.STANDBY] * standby
    group = node_group(
        "storage",
        [
            Member(InterfaceMatch(name=f"nic{i}"), role, IPv4Interface(f"198.18.0.{10 + i}/24"))
            for i, role in enumerate(roles)
        ],
        node="node",
        addresses=[f"198.18.0.{100 + i}/24" for i in range(addresses)],
        targets=(ROUTER, NEIGHBOUR),
        offline=offline,
        test_ipv6=TestAddressIPv6.DISABLED,
        failure_detection=FailureDetection(milliseconds),
    )
    return group if policies is None else replace(group, policies=policies)


def play(
    faults: Sequence[tuple[float, Happening]],
    *,
    duration: float = 60,
    group: NodeGroup | None = None,
    targets: tuple[PlayedTarget, ...] = TARGETS,
    seed: int = 1,
) -> list[Entry]:
    """Everything that happened."""
    script = FaultScript(duration, seed, targets, tuple(Fault(at, what) for at, what in faults))
    return list(Simulation(group or make_group(), script).run())


def states(entries: Sequence[Entry], interface: str) -> list[tuple[float, str, bool]]:
    """Times, states and use of one interface."""
    return [
        (e.at, e.state.value, e.active) for e in entries if isinstance(e, InterfaceChange) and e.interface == interface
    ]


def moves(entries: Sequence[Entry]) -> list[tuple[float, str, str | None]]:
    """Moves of addresses, the first placement left out."""
    return [(e.at, e.address, e.interface) for e in entries if isinstance(e, AddressChange) and e.before is not None]
