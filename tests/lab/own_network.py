"""A host that reaches a network behind a router by addresses and routes of its own, all on nic0."""

from __future__ import annotations

from typing import Any

from tests.lab import Agent, KernelDump, Lab, group_manifest
from tests.lab.scene import link_local
from tests.lab.status import group_view

V4, V6 = "198.18.0.11", "2001:db8:0:1::11"
GATEWAY_V4, GATEWAY_V6 = "198.18.0.1", "2001:db8:0:1::1"
REMOTE = ("198.19.0.0/24", "2001:db8:0:2::/64")
HOST = (
    "address add 198.18.0.12/24 dev nic0 label nic0:b",
    "address add 198.18.32.13/20 dev nic0 brd +",
    f"route add default via {GATEWAY_V4} dev nic0 proto static metric 100",
    f"route add {REMOTE[0]} via {GATEWAY_V4} dev nic0 src {V4} mtu 1400",
    f"route add default via {GATEWAY_V6} dev nic0 proto static metric 300",
    f"route add {REMOTE[1]} via {GATEWAY_V6} dev nic0 src {V6} metric 200",
)
ALL = {V4, "198.18.0.12", "198.18.32.13", V6}


def dumped(lab: Lab) -> KernelDump:
    return KernelDump.take(lab.host.namespace.run)


def manifest(lab: Lab, **changes: Any) -> dict[str, Any]:
    """A group that says nothing of addresses."""
    peers = [lab.peer(0), lab.peer(1)]
    wanted: dict[str, Any] = {"targets": [p.ipv4 for p in peers] + [link_local(p.only) for p in peers]}
    return group_manifest(**wanted | changes)


def homes(agent: Agent) -> dict[str, str | None]:
    return dict(group_view(agent.status()).addresses)


def wait_home(agent: Agent, nic: str) -> None:
    agent.wait_for(lambda s: group_view(s).addresses == dict.fromkeys(ALL, nic), what=f"all on {nic}")


def withdraw(agent: Agent) -> KernelDump:
    assert agent.stop() == 0
    done = agent.withdraw()
    assert done.returncode == 0, done.stderr
    return agent.dump()
