"""Test doubles for whoever tests code around the agent: a kernel that remembers.

The fake kernel behaves as the real one does towards the data plane: it sinks what is present when a group is
configured, keeps where addresses are, and can be told to refuse, to answer late, and to interrupt.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from ipmp_agent.core.actions import MoveAddresses, SendProbe
from ipmp_agent.core.events import AddressFound, InterfaceFound, KernelRead
from ipmp_api.types import Mode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from ipmp_agent.core.actions import Action
    from ipmp_agent.core.events import Event
    from ipmp_agent.core.findings import Finding, NotAdopted
    from ipmp_api.types import Address, InterfaceAddress, NodeGroup

T = TypeVar("T")


def present(interface: str, index: int = 1, *, link: bool | None = True) -> InterfaceFound:
    """An ordinary Ethernet NIC under its own name, with a MAC address made of its index."""
    return InterfaceFound(interface, interface, index, f"02:00:00:00:00:{index:02x}", link)


def _at_once(read: Callable[[], object]) -> object:
    return read()


def _ignore(group: str, action: Action) -> None:
    """Neither refuse nor interrupt."""


def _remembered(group: NodeGroup, memory: Mapping[str, Any] | None) -> dict[InterfaceAddress, str]:
    """Where the data addresses were left by an earlier agent."""
    held: dict[str, str] = memory["holders"] if memory else {}
    return {a.address: held[str(a.address)] for a in group.data_addresses if str(a.address) in held}


@dataclass(slots=True)
class FakeGroup:
    """What the fake kernel holds of one group."""

    configuration: NodeGroup
    memory: Mapping[str, Any] | None
    holders: dict[InterfaceAddress, str] = field(default_factory=dict)


class FakeKernel:
    """A kernel in memory.

    Attributes:
        interfaces: what each group finds when it is configured; without an entry every member is there, link up.
        performed: every order carried out, with its group.
        refuse: called before an order is carried out; may raise.
        interrupt: called after an order was carried out; may sink events, as a real kernel does meanwhile.
        waiting: what the next `drain` finds in the sockets.
        calls: every other call, in order, as (method, group).
        routers: the host's gateways.
        silent: who does not answer.
        cut: who answers, and is not reached by these members.
        faults: exceptions to raise from `configure`, `withdraw`, `reconcile`, `drain` or `open`, once each, in order.
    """

    def __init__(
        self, sink: Callable[[str, Event], None], hear: Callable[[Callable[[], object]], object] = _at_once
    ) -> None:
        self.sink = sink
        self.hear = hear
        self.groups: dict[str, FakeGroup] = {}
        self.interfaces: dict[str, tuple[Event, ...]] = {}
        self.performed: list[tuple[str, Action]] = []
        self.refuse: Callable[[str, Action], object] = _ignore
        self.interrupt: Callable[[str, Action], object] = _ignore
        self.waiting: list[tuple[str, Event]] = []
        self.calls: list[tuple[str, str]] = []
        self.faults: dict[str, list[Exception]] = {}
        self.found: dict[str, tuple[Finding, ...]] = {}
        self.alone: dict[str, tuple[NotAdopted, ...]] = {}
        self.silent: set[Address] = set()
        self.cut: dict[Address, tuple[str, ...]] = {}
        self.routers: frozenset[Address] = frozenset()
        self.is_open = False
        self.counters: dict[str, int] = {"netlink_overruns": 0}

    def _called(self, method: str, group: str = "") -> None:
        self.calls.append((method, group))
        if faults := self.faults.get(method):
            raise faults.pop(0)

    async def open(self, memories: Mapping[str, Mapping[str, Any] | None]) -> None:
        """Open."""
        del memories
        self._called("open")
        self.is_open = True

    async def configure(
        self, group: NodeGroup, memory: Mapping[str, Any] | None, secure: Callable[[], Awaitable[bool]]
    ) -> None:
        """Sink what is present, KernelRead last."""
        name = group.group_name
        self._called("configure", name)
        known = self.groups.get(name)
        holders = known.holders if known else _remembered(group, memory)
        self.groups[name] = FakeGroup(group, memory, holders)
        await secure()
        everything = tuple(present(member.key, index) for index, member in enumerate(group.members, 1))
        for event in self.interfaces.get(name, everything):
            self.sink(name, event)
        for address, interface in holders.items():
            self.sink(name, AddressFound(address, interface))
        self.sink(name, KernelRead())

    def perform(self, group: str, action: Action) -> None:
        """Carry out one order, in mode Observe probes only."""
        if self.groups[group].configuration.policies.mode is Mode.OBSERVE and not isinstance(action, SendProbe):
            return
        self.refuse(group, action)
        if isinstance(action, MoveAddresses):
            holders = self.groups[group].holders
            for move in action.moves:
                if move.destination is None:
                    holders.pop(move.address, None)
                else:
                    holders[move.address] = move.destination
        self.performed.append((group, action))
        self.interrupt(group, action)

    def drain(self) -> None:
        """Sink what waits."""
        self._called("drain")
        waiting, self.waiting = self.waiting, []
        for group, event in waiting:
            self.sink(group, event)

    async def reconcile(self, group: str) -> None:
        """Note it."""
        self._called("reconcile", group)

    def memory(self, group: str) -> dict[str, Any]:
        """Where the addresses are."""
        return {"holders": {str(address): interface for address, interface in self.groups[group].holders.items()}}

    async def withdraw(self, group: str, *, restore: bool = False) -> None:
        """Forget the group."""
        self._called("restore" if restore else "withdraw", group)
        del self.groups[group]

    async def gateways(self) -> frozenset[Address]:
        """Return `routers`."""
        self._called("gateways")
        return self.routers

    async def answering(self, targets: Iterable[Address]) -> frozenset[Address]:
        """Everybody who is not silent."""
        self._called("answering")
        return frozenset(targets) - self.silent

    async def cut_off(self, targets: Iterable[Address]) -> dict[Address, tuple[str, ...]]:
        """What `cut` says of these."""
        return {target: self.cut[target] for target in targets if target in self.cut}

    def findings(self, group: str) -> tuple[Finding, ...]:
        """What `found` says."""
        return self.found.get(group, ())

    def not_adopted(self, group: str) -> tuple[NotAdopted, ...]:
        """What `alone` says."""
        return self.alone.get(group, ())

    def arriving(self, group: str) -> tuple[InterfaceAddress, ...]:
        """None: what has a place is there at once."""
        del group
        return ()

    async def close(self) -> None:
        """Close; what is held stays."""
        self._called("close")
        self.is_open = False

    def orders(self, kind: type[T]) -> list[T]:
        """The orders of one kind, of all groups."""
        return [action for _, action in self.performed if isinstance(action, kind)]
