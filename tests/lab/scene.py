"""The usual scene: a lab, the agent on its host, data addresses of both families, and traffic that never stops.

with Scene() as scene:
    scene.holder(V4).unplug()
    scene.wait_moved(V4, ...)
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from tests import invariants
from tests.lab.agent import Agent, group_manifest
from tests.lab.ping import PingTrain
from tests.lab.sniffer import Sniffer
from tests.lab.status import group_view
from tests.lab.stream import TcpStream
from tests.lab.topology import Lab
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from tests.invariants import GroupView
    from tests.lab.topology import Nic

V4, V6 = "198.18.0.100", "2001:db8:0:1::100"
OTHER_V4, OTHER_V6 = "198.18.0.101", "2001:db8:0:1::101"
DATA_ADDRESSES = (f"{V4}/24", f"{OTHER_V4}/24", f"{V6}/64", f"{OTHER_V6}/64")
TEST_POOL = {"ranges": ["198.18.0.32-198.18.0.63"], "prefixLength": 24}


def link_local(nic: Nic) -> str:
    """Return the link-local address that the kernel makes of a NIC's MAC (RFC 4291, appendix A)."""
    octets = [int(part, 16) for part in nic.mac.split(":")]
    octets[0] ^= 0x02
    words = [*octets[:3], 0xFF, 0xFE, *octets[3:]]
    return "fe80::" + ":".join(f"{words[i] << 8 | words[i + 1]:x}" for i in range(0, 8, 2))


def usual_group(lab: Lab, **changes: Any) -> dict[str, Any]:
    """Return the manifest of the usual scene: both peers are targets in either family, FDT 1 s."""
    peers = [host for name, host in lab.hosts.items() if name.startswith("peer")]
    wanted: dict[str, Any] = {
        "interfaces": list(lab.host.nics),
        "addresses": DATA_ADDRESSES,
        "targets": [peer.ipv4 for peer in peers] + [link_local(peer.only) for peer in peers],
        "testAddresses": {"ipv4": {"pool": TEST_POOL}},
    }
    return group_manifest(**(wanted | changes))


@dataclass
class Scene:
    """Everything of the usual scene; entering waits until the group is ok and every address answers.

    Args:
        changes: keywords of `group` that differ from the usual manifest.
        manifest: a file to run from instead.
        watched: addresses that are pinged and carry a TCP stream each.
    """

    lab: Lab = field(default_factory=Lab)
    changes: dict[str, Any] = field(default_factory=dict)
    manifest: Path | None = None
    watched: Sequence[str] = (V4, V6)
    spacing: float = 0.01
    state: str = "ok"

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.lab)
            self.agent = stack.enter_context(Agent(self.lab, self.manifest or usual_group(self.lab, **self.changes)))
            self.wait_state(self.state)
            # An address is on the link only after nobody else was found to have it.
            wait_for(lambda: [one for one, home in self.homes().items() if not home], lambda homeless: not homeless)
            observer = self.lab.peer(0).namespace
            self.sniffer = stack.enter_context(Sniffer(observer))
            self.pings = {
                one: stack.enter_context(PingTrain(observer, one, self.spacing)).wait_answered() for one in self.watched
            }
            self.streams = {
                one: stack.enter_context(TcpStream(observer, self.lab.host.namespace, one)).wait_received()
                for one in self.watched
            }
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def view(self) -> GroupView:
        """Return the group as its status tells it."""
        return group_view(self.agent.status())

    def wait_state(self, state: str, deadline: float = 20.0) -> GroupView:
        """Wait until the group is ok, degraded or failed."""
        return wait_for(self.view, lambda view: view.state == state, deadline=deadline, what=state, interval=0.1)

    def holder(self, address: str) -> Nic:
        """Return the one NIC that holds an address."""
        found = self.lab.host.holders(address)
        if len(found) != 1:
            raise AssertionError(f"{address} is on {found}")
        return next(nic for nic in self.lab.host.nics.values() if nic.name == found[0])

    def other(self, nic: Nic) -> Nic:
        """Return a NIC of the host that is not this one."""
        return next(one for one in self.lab.host.nics.values() if one is not nic)

    def homes(self) -> dict[str, tuple[str, ...]]:
        """Return where the kernel holds each data address."""
        return invariants.homes(self.view().addresses, self.agent.dump())

    def wait_moved(self, address: str, away_from: Nic, deadline: float = 15.0) -> Nic:
        """Wait until an address is on exactly one other NIC; returns it."""
        wait_for(
            lambda: self.lab.host.holders(address),
            lambda holders: len(holders) == 1 and holders != [away_from.name],
            deadline=deadline,
            what=f"{address} away from {away_from.name}",
        )
        return self.holder(address)

    def flows(self) -> None:
        """Wait until every ping train and stream flows again."""
        for train in self.pings.values():
            train.wait_answered()
        for stream in self.streams.values():
            stream.wait_received(deadline=30)

    def settle(self) -> GroupView:
        """Wait until the invariants of a group at rest hold; returns the view."""
        return settle(self.agent)


def settle(agent: Agent, deadline: float = 5.0) -> GroupView:
    """Wait until the invariants of a group at rest hold (I1, I3, I6), and demand I7; returns the view."""

    def look() -> invariants.ViolatedError | None:
        try:
            invariants.settled(group_view(agent.status()), agent.dump())
        except invariants.ViolatedError as violated:
            return violated
        return None

    wait_for(look, lambda violated: violated is None, deadline=deadline, what="a settled group", interval=0.2)
    invariants.no_unhandled_exception(agent.log_path.read_text(encoding="utf-8", errors="replace"))
    return group_view(agent.status())
