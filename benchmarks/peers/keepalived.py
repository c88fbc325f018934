"""keepalived as a peer: a VRRP pair on two hosts of a lab that hold one virtual address between them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

from benchmarks.peers.process import Peer
from tests.lab import keepalived
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from tests.lab import Host, Lab


class Router(Peer):
    """One keepalived process. It waits as a backup and never takes the address from a living master."""

    def __init__(self, host: Host, priority: int, address: str, advert: float) -> None:
        super().__init__(host, "keepalived")
        self.start(
            keepalived.prepare(
                self.directory, host.name, host.only.name, priority, address, advert=advert, preempt=False
            )
        )

    @property
    def states(self) -> list[str]:
        """The states it entered so far, oldest first: BACKUP, MASTER, FAULT."""
        return keepalived.states(self.log)

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
