"""A host that a change of its configuration can cut off, the change that does, and how its trial ends."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from tests.lab.agent import group_manifest
from tests.lab.dump import KernelDump
from tests.lab.topology import Lab
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.agent import Agent

OWN, GATEWAY = "198.18.0.11", "198.18.0.1"
OWN_V6, GATEWAY_V6 = "2001:db8:0:1::11", "2001:db8:0:1::1"
PROVEN = 25.0
"""Seconds in which a trial must have ended, on a busy machine too; its time is 10 s."""


@contextlib.contextmanager
def host_behind_a_router() -> Iterator[Lab]:
    """A host that reaches a network behind a router by nic0 or nic1; nic2 hangs on a switch that leads nowhere."""
    lab = Lab(("nic0", "nic1", "nic2"), switches=3, router=True, nic_addresses={"nic0": (f"{OWN}/24", f"{OWN_V6}/64")})
    with lab:
        lab.uplinks[1].unplug()
        lab.host.namespace.batch(
            [
                f"route add default via {GATEWAY} dev nic0 proto static",
                f"route add default via {GATEWAY_V6} dev nic0 proto static metric 512",
            ]
        )
        wait_for(lambda: dump(lab), lambda seen: seen == dump(lab), what="a kernel at rest", interval=0.5)
        yield lab


def dump(lab: Lab) -> KernelDump:
    """What the kernel of the host holds."""
    return KernelDump.take(lab.host.namespace.run)


def good(lab: Lab, **changes: Any) -> dict[str, Any]:
    """A group that the host is reached by; its targets are on both of its switches."""
    return group_manifest(**{"targets": [lab.peer(0).ipv4, lab.peer(1).ipv4]} | changes)


def cuts_off(lab: Lab, method: str = "Disabled") -> dict[str, Any]:
    """A group that keeps the working NIC in reserve for one that leads nowhere, and no probe would ever find it."""
    addresses = ("198.18.0.100/24", "2001:db8:0:1::100/64")
    changes = {"interfaces": ("nic0", "nic2"), "standby": ("nic0",), "addresses": addresses}
    probes = {"method": method, "targets": {"addresses": [lab.peer(0).ipv4, lab.peer(1).ipv4]}}
    return good(lab, deletionPolicy="Retain", probes=probes, **changes)


def view(agent: Agent) -> dict[str, Any]:
    """The one group, as the agent publishes it."""
    (found,) = agent.status()["groups"]
    return dict(found)


def wait_undone(agent: Agent) -> dict[str, Any]:
    """Wait until the agent has given in, and says why; returns the group's view."""
    # Between the group that is withdrawn and the one that observes there is none.
    groups = wait_for(
        lambda: agent.status()["groups"],
        lambda groups: any(each["undone"] for each in groups),
        deadline=PROVEN,
        what="undone",
        interval=0.1,
    )
    (found,) = groups
    return dict(found)


def wait_kept(agent: Agent) -> None:
    """Wait until the trial has ended well."""
    seen = wait_for(lambda: view(agent), lambda v: not v["on_trial"], deadline=PROVEN, what="kept", interval=0.1)
    assert seen["undone"] == ""
