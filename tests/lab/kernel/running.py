"""A kernel façade inside a namespace of the lab, in an event loop of its own, told from outside what to do."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Interface
from typing import TYPE_CHECKING, Any, TypeVar

from ipmp_agent.core.actions import Announce, Move, MoveAddresses
from ipmp_agent.core.events import Family, TestAddressChanged
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.group import memory as memories
from ipmp_agent.linux.kernel import Kernel
from ipmp_agent.linux.messages.netlink import Dumper
from ipmp_api.types import Existing, InterfaceMatch, Member, NodeGroup
from tests.lab import wait_for
from tests.node_groups import node_group

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from concurrent.futures import Future
    from ipaddress import IPv6Interface

    from ipmp_agent.core.events import Event
    from tests.lab import Lab, Namespace

T = TypeVar("T")
E = TypeVar("E")

GROUP = "data"


def kernel_group(*members: str | Member, addresses: Iterable[Any] = (), **policies: Any) -> NodeGroup:
    """A group of these members, or of nic0 and nic1, that leaves alone what it finds on them unless told otherwise."""
    return node_group(
        GROUP, members or ("nic0", "nic1"), node="host", addresses=addresses, **{"existing": Existing.IGNORE} | policies
    )


def with_tests(*addresses: str) -> list[Member]:
    """Members nic0 and nic1 with these IPv4 test addresses."""
    names = ("nic0", "nic1")
    return [Member(InterfaceMatch(name=n), test_ipv4=IPv4Interface(a)) for n, a in zip(names, addresses, strict=True)]


@dataclass(frozen=True)
class Heard:
    group: str
    event: Event


class InterruptedDumper(Dumper):
    """Reads tables of the kernel; what a test arranges happens when one was read and nobody has acted on it yet."""

    def __init__(self) -> None:
        super().__init__()
        self._arranged: list[Callable[[int], Awaitable[None]]] = []

    def arrange(self, work: Callable[[int], Awaitable[None]]) -> None:
        """Have this awaited after every dump, with the kind of table (RTM_GET...) that it was."""
        self._arranged.append(work)

    async def dump(self, kind: int, body: bytes) -> list[bytes]:
        bodies = await super().dump(kind, body)
        for work in self._arranged:
            await work(kind)
        return bodies


class RunningKernel:
    """A façade that runs in a thread of a namespace, as the daemon would run it."""

    def __init__(self, namespace: Namespace) -> None:
        self.heard: list[Heard] = []
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = namespace.thread(self._body, "kernel")
        self._thread.start()
        assert self._ready.wait(10)
        if self._failure is not None:
            raise self._failure

    def _body(self) -> None:
        asyncio.run(self._live())

    async def _live(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.kernel = Kernel(lambda group, event: self.heard.append(Heard(group, event)), dumper=self._make_dumper)
        try:
            await self.kernel.open()
        except BaseException as error:  # noqa: BLE001 - raised again in the test
            self._failure = error
            self._ready.set()
            return
        self._ready.set()
        await self._stop.wait()
        try:
            self._check_memories()
        except AssertionError as error:
            self._failure = error
        await self.kernel.close()

    def _check_memories(self) -> None:
        """What a group has an agent after it remember, that one can read: `memory` knows the form of every part."""
        for name in self.kernel._groups:
            written = json.loads(json.dumps(self.kernel.memory(name)))
            assert memories.read(written) == (written, [])

    def _make_dumper(self) -> Dumper:
        self.dumper = InterruptedDumper()
        return self.dumper

    def call(self, work: Callable[[Kernel], T]) -> T:
        """Call the façade from within its loop."""

        async def wrapped() -> T:
            return work(self.kernel)

        return self._wait(asyncio.run_coroutine_threadsafe(wrapped(), self.loop))

    def run(self, work: Callable[[Kernel], Awaitable[T]]) -> T:
        """Await something of the façade's from within its loop."""

        async def wrapped() -> T:
            return await work(self.kernel)

        return self._wait(asyncio.run_coroutine_threadsafe(wrapped(), self.loop))

    @staticmethod
    def _wait(future: Future[T]) -> T:
        return future.result(30)

    def configure(self, configuration: NodeGroup, memory: Any = None) -> list[Event]:
        """Configure, and return what was told before that returned."""
        before = len(self.heard)
        self.run(lambda kernel: kernel.configure(configuration, memory))
        return [heard.event for heard in self.heard[before:]]

    def perform(self, *orders: Any) -> None:
        for order in orders:
            self.call(partial(Kernel.perform, group=GROUP, action=order))

    def events(self, kind: type[E]) -> list[E]:
        return [heard.event for heard in list(self.heard) if isinstance(heard.event, kind)]

    def await_event(self, kind: type[E], holds: Callable[[E], object] = bool, *, deadline: float = 10.0) -> E:
        """The first event of this kind that holds, waiting for it; says everything heard if there is none."""
        wait_for(
            lambda: list(self.heard),
            lambda heard: [h for h in heard if isinstance(h.event, kind) and holds(h.event)],
            deadline=deadline,
            what=kind.__name__,
        )
        return next(event for event in self.events(kind) if holds(event))

    def await_test_address(self, interface: str, family: Family | None = None) -> TestAddressChanged:
        """The first word about a test address of this interface, of any family or of this one."""
        return self.await_event(TestAddressChanged, lambda e: e.interface == interface and family in (None, e.family))

    def forget(self) -> None:
        self.heard.clear()

    def close(self) -> None:
        """End it as the daemon ends: the kernel stays as it is."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)
            assert not self._thread.is_alive()
            if self._failure is not None:
                raise self._failure


def where(lab: Lab, address: IPv4Interface | IPv6Interface) -> list[str]:
    """The interfaces of the host that have an address."""
    return [
        link["ifname"]
        for link in lab.host.namespace.ip_json("address", "show")
        if any(a["local"] == str(address.ip) for a in link["addr_info"])
    ]


def moves(*addresses: Any, source: str | None, destination: str | None) -> MoveAddresses:
    """The order to move addresses, or to place them for the first time, or to withdraw them."""
    reason = Reason.FAILOVER if source else Reason.ADDRESS_ADDED
    return MoveAddresses(tuple(Move(address, source, destination, reason) for address in addresses))


def place(lab: Lab, kernel: RunningKernel, *addresses: Any, on: str = "nic0") -> None:
    """Activate addresses for the first time, and wait until they are there."""
    kernel.perform(moves(*addresses, source=None, destination=on), Announce(on, addresses))
    wait_for(lambda: {a: where(lab, a) for a in addresses}, lambda seen: all(w == [on] for w in seen.values()))
