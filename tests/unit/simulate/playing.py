"""Groups and scripts for the tests of the simulator, and what comes of them."""

from __future__ import annotations

from ipaddress import IPv4Interface, ip_address, ip_interface
from typing import TYPE_CHECKING

from ipmp_agent.simulate.script import Fault, FaultScript, Target
from ipmp_agent.simulate.simulation import Simulation
from ipmp_agent.simulate.timeline import AddressChange, InterfaceChange
from ipmp_api.types import (
    DataAddress,
    FailureDetection,
    InterfaceMatch,
    Member,
    NodeGroup,
    Policies,
    Role,
    TargetSources,
    TestAddressIPv6,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ipmp_agent.simulate.script import Happening
    from ipmp_agent.simulate.timeline import Entry

ROUTER, NEIGHBOUR = ip_address("198.18.0.1"), ip_address("198.18.0.2")
TARGETS = (Target(ROUTER, 0.001), Target(NEIGHBOUR, 0.001))


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
    members = tuple(
        Member(
            InterfaceMatch(name=f"nic{i}"),
            Role.ACTIVE if i < active else Role.STANDBY,
            IPv4Interface(f"198.18.0.{10 + i}/24"),
        )
        for i in range(active + standby)
    )
    return NodeGroup(
        "storage",
        "node",
        members,
        tuple(DataAddress(ip_interface(f"198.18.0.{100 + i}/24")) for i in range(addresses)),
        policies=policies
        or Policies(
            test_ipv6=TestAddressIPv6.DISABLED,
            targets=TargetSources(addresses=(ROUTER, NEIGHBOUR)),
            failure_detection=FailureDetection(milliseconds),
        ),
        offline=offline,
    )


def play(
    faults: Sequence[tuple[float, Happening]],
    *,
    duration: float = 60,
    group: NodeGroup | None = None,
    targets: tuple[Target, ...] = TARGETS,
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
