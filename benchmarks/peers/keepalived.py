"""keepalived as a peer: a VRRP pair on two hosts of a lab that hold one virtual address between them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

from benchmarks.peers.process import Peer
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from tests.lab import Host, Lab

CONFIGURATION = """
global_defs {{
  router_id {name}
}}
vrrp_instance VI {{
  state BACKUP
  nopreempt
  interface {interface}
  virtual_router_id 51
  version 3
  priority {priority}
  advert_int {advert}
  virtual_ipaddress {{
    {address}
  }}
}}
"""


class Router(Peer):
    """One keepalived process. It waits as a backup and never takes the address from a living master."""

    def __init__(self, host: Host, priority: int, address: str, advert: float) -> None:
        super().__init__(host, "keepalived")
        configuration = self.directory / "keepalived.conf"
        text = CONFIGURATION.format(
            name=host.name, interface=host.only.name, priority=priority, advert=f"{advert:g}", address=address
        )
        configuration.write_text(text, encoding="utf-8")
        self.start(
            [
                *("keepalived", "--dont-fork", "--log-console", "--log-detail", "--vrrp"),
                *("--use-file", str(configuration)),
                *("--pid", str(self.directory / "pid")),
                *("--vrrp_pid", str(self.directory / "vrrp_pid")),
            ]
        )

    @property
    def states(self) -> list[str]:
        """The states it entered so far, oldest first: BACKUP, MASTER, FAULT."""
        words = [line.split() for line in self.log.splitlines()]
        return [line[line.index("STATE") - 1] for line in words if "STATE" in line and "Entering" in line]

    @property
    def state(self) -> str:
        """The state it is in."""
        return self.states[-1] if self.states else "INIT"


class Pair:
    """Two routers on the lab's two hosts; one is master."""

    def __init__(self, lab: Lab, address: str, advert: float) -> None:
        self._stack = contextlib.ExitStack()
        self.routers: list[Router] = []
        self._start = (lab, address, advert)

    def __enter__(self) -> Self:
        lab, address, advert = self._start
        with contextlib.ExitStack() as stack:
            for priority, host in zip((101, 100), list(lab.hosts.values())[:2], strict=True):
                router = Router(host, priority, address, advert)
                stack.callback(router.close)
                self.routers.append(router)
            self.wait_ready()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def wait_ready(self) -> None:
        """Wait until one is master and the other is a backup."""
        wait_for(
            lambda: sorted(router.state for router in self.routers),
            lambda states: states == ["BACKUP", "MASTER"],
            deadline=30,
            what="a keepalived master and a backup",
        )

    @property
    def master(self) -> Router:
        """The one that holds the address."""
        (found,) = (router for router in self.routers if router.state == "MASTER")
        return found

    @property
    def transitions(self) -> int:
        """State changes so far, of both."""
        return sum(len(router.states) for router in self.routers)
