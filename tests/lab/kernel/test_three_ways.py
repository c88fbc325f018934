"""Three ways to one kernel: what the fast path made, a comparison leaves as it is, and so does a restart."""

from __future__ import annotations

import random
from ipaddress import IPv4Interface, ip_interface, ip_network
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core.actions import Announce, Move, MoveAddresses, SetOutbound
from ipmp_agent.core.events import Family
from ipmp_agent.core.reasons import Reason
from ipmp_api.types import InterfaceMatch, Member
from tests.lab import KernelDump, Lab, wait_for
from tests.lab.kernel.running import GROUP, kernel_group, where

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab.kernel.running import RunningKernel

BOTH = ("nic0", "nic1")
NODE4, NODE6 = ip_interface("198.18.0.50/24"), ip_interface("2001:db8:0:1::50/64")
DATA = (
    ip_interface("198.18.0.10/32"),
    ip_interface("198.18.0.11/24"),
    ip_interface("2001:db8:0:1::10/128"),
    ip_interface("2001:db8:0:1::11/64"),
)
PODS = (ip_network("198.19.0.0/20"), ip_network("2001:db8:0:99::/64"))
FOREIGN_ROUTES = (
    "198.19.128.0/24 dev nic0",
    "198.19.129.0/24 via 198.18.0.1 dev nic0",
    "198.19.130.0/24 via 198.18.0.1 dev nic0 metric 20",
    "2001:db8:0:70::/64 via 2001:db8:0:1::1 dev nic0",
    "2001:db8:0:71::/64 dev nic1 metric 30",
    "198.19.131.0/24 dev nic1",
)
FOREIGN_ADDRESSES = ("198.18.0.200/32 dev nic0", "198.18.0.201/32 dev nic1", "2001:db8:0:1::200/128 dev nic0")
OPERATIONS = 24


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A host with addresses and default routes of its own on nic0."""
    with Lab(router=True, nic_addresses={"nic0": (str(NODE4), str(NODE6))}) as running:
        running.host.namespace.batch(
            ["route add default via 198.18.0.1 dev nic0", "route add default via 2001:db8:0:1::1 dev nic0"]
        )
        yield running


class History:
    """Random operations, and what the core would order after each."""

    def __init__(self, lab: Lab, start_kernel: Callable[[], RunningKernel], seed: int) -> None:
        self.lab, self._start_kernel, self._chance = lab, start_kernel, random.Random(seed)
        self.done: list[str] = []
        self._data = list(DATA)
        self._home: dict[Any, str] = {}
        self._outbound: tuple[str, ...] = BOTH
        self._foreign: dict[str, set[str]] = {"route": set(), "address": set()}
        self.kernel = start_kernel()
        self.kernel.configure(self._configuration())
        for nic in BOTH:
            self.kernel.await_test_address(nic, Family.IPV4)
        self._place(self._data)
        self.kernel.perform(SetOutbound(BOTH, BOTH))
        self.compared()

    def _configuration(self) -> Any:
        members = [
            Member(InterfaceMatch(name=n), test_ipv4=IPv4Interface(f"198.18.0.{101 + i}/24"))
            for i, n in enumerate(BOTH)
        ]
        return kernel_group(*members, addresses=tuple(self._data), pod_egress=PODS)

    def _place(self, addresses: list[Any]) -> None:
        for address in addresses:
            self._home[address] = self._chance.choice(self._outbound)
            self._move(address, None, self._home[address], Reason.ADDRESS_ADDED)
        wait_for(lambda: {a: where(self.lab, a) for a in addresses}, lambda seen: all(seen.values()))

    def _move(self, address: Any, source: str | None, destination: str | None, reason: Reason) -> None:
        self.kernel.perform(MoveAddresses((Move(address, source, destination, reason),)))

    def dump(self) -> KernelDump:
        return KernelDump.take(self.lab.host.namespace.run)

    def compared(self) -> KernelDump:
        """What there is after a comparison has found nothing to do."""
        wait_for(lambda: self.kernel.run(lambda facade: facade._groups[GROUP].reconcile()), lambda count: count == 0)
        return self.dump()

    def step(self) -> None:
        """Do one thing, and hold the ways against each other."""
        operation = self._chance.choice(
            [self.fail, self.fail, self.repair, self.toggle_route, self.toggle_address, self.reconfigure, self.restart]
        )
        before = self.compared()
        reconciler = self.kernel.call(lambda facade: facade._groups[GROUP].reconciler)
        if operation in (self.fail, self.repair):
            # No comparison comes to the help of the fast path before it was looked at.
            self.kernel.call(lambda _: setattr(reconciler, "_schedule", lambda _wait: None))
        ordered = operation()
        fast = self.dump()
        vars(reconciler).pop("_schedule", None)
        after = self.compared()
        if ordered:
            assert fast == after, "the comparison changed what the fast path had made"
        if operation == self.restart:
            assert after == before, "the restart changed something"

    def fail(self) -> bool:
        failed = self._chance.choice(BOTH)
        other = BOTH[1 - BOTH.index(failed)]
        self.done.append(f"{failed} fails")
        homeless = [address for address, home in self._home.items() if home == failed]
        moves = tuple(Move(address, failed, other, Reason.FAILOVER) for address in homeless)
        self._home = dict.fromkeys(self._home, other)
        self._outbound = (other,)
        self.kernel.perform(MoveAddresses(moves), SetOutbound((other,), (other,)), Announce(other, tuple(homeless)))
        return True

    def repair(self) -> bool:
        self.done.append("both work")
        self._outbound = BOTH
        back = self._chance.choice(BOTH)
        moving = [address for address, home in self._home.items() if home != back and self._chance.random() < 0.5]
        moves = tuple(Move(address, self._home[address], back, Reason.FAILBACK) for address in moving)
        self._home.update(dict.fromkeys(moving, back))
        self.kernel.perform(MoveAddresses(moves), SetOutbound(BOTH, BOTH), Announce(back, tuple(moving)))
        return True

    def _toggle(self, kind: str, choices: tuple[str, ...]) -> bool:
        what = self._chance.choice(choices)
        there = self._foreign[kind]
        verb = "del" if what in there else "add"
        self.done.append(f"{kind} {verb} {what}")
        there.symmetric_difference_update({what})
        self.lab.host.namespace.ip(kind, verb, *what.split())
        return False

    def toggle_route(self) -> bool:
        return self._toggle("route", FOREIGN_ROUTES)

    def toggle_address(self) -> bool:
        return self._toggle("address", FOREIGN_ADDRESSES)

    def reconfigure(self) -> bool:
        address = self._chance.choice(DATA)
        self.done.append(f"data address {address} is {'dropped' if address in self._data else 'added'}")
        if address in self._data:
            self._data.remove(address)
            self.kernel.configure(self._configuration())
            self._move(address, self._home.pop(address), None, Reason.ADDRESS_REMOVED)
        else:
            self._data.append(address)
            self.kernel.configure(self._configuration())
            self._place([address])
        return False

    def restart(self) -> bool:
        self.done.append("restart")
        memory = self.kernel.call(lambda facade: facade.memory(GROUP))
        self.kernel.close()
        self.kernel = self._start_kernel()
        self.kernel.configure(self._configuration(), memory)
        self.kernel.perform(SetOutbound(self._outbound, self._outbound))
        return False


@pytest.mark.parametrize("seed", range(6))
def test_fast_path_comparison_and_restart_make_the_same_kernel(
    lab: Lab, start_kernel: Callable[[], RunningKernel], seed: int
) -> None:
    history = History(lab, start_kernel, seed)
    try:
        for _ in range(OPERATIONS):
            history.step()
    except BaseException:
        print("\n".join(history.done))
        raise
