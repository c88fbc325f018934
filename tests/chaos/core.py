"""Random histories: whatever happens in whatever order, what must hold holds at every moment."""

from __future__ import annotations

import dataclasses
import errno
from ipaddress import ip_address
from math import inf
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ipmp_agent.core import events
from ipmp_agent.core.actions import MoveAddresses
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.words import DrillKind, GroupState, InterfaceWord, LinkWord
from ipmp_api.types import FailureDetection, InterfaceMatch, Member, Policies, Role, Switch
from tests import invariants
from tests.virtual_node import VirtualNode, data_address, numbered_group

if TYPE_CHECKING:
    from ipmp_agent.core.actions import Action, Move
    from ipmp_agent.core.snapshot import GroupSnapshot, InterfaceSnapshot
    from ipmp_api.types import NodeGroup

NICS = 5
KEYS = st.sampled_from([f"nic{n}" for n in range(NICS)])
TARGETS = ("198.18.0.1", "198.18.0.2")
UNFORCED = {Reason.FAILBACK, Reason.REBALANCE}
HOSTS = ("198.18.0.9", "fe80::9")
START = numbered_group(NICS, addresses=5, pins=TARGETS)


@dataclasses.dataclass(frozen=True)
class World:
    """What a history begins with."""

    addresses: int
    failback: bool
    discovery: bool
    pins: tuple[str, ...]
    link_local: bool


WORLDS = st.builds(
    World,
    addresses=st.integers(0, 5),
    failback=st.booleans(),
    discovery=st.booleans(),
    pins=st.sampled_from([(), TARGETS[:1], TARGETS]),
    link_local=st.booleans(),
)


def has_only_a_link(interface: InterfaceSnapshot | None) -> bool:
    """Whether a member does not work, and may make do if no other one does."""
    if interface is None or not interface.present or interface.offline or interface.usable:
        return False
    return interface.link is not LinkWord.DOWN


class WatchedNode(VirtualNode):
    """A virtual node that checks every order at the moment it is given."""

    def _perform(self, actions: list[Action]) -> None:
        moves = [move for action in actions if type(action) is MoveAddresses for move in action.moves]
        if moves:
            snapshot = self.snapshot()
            for move in moves:
                self.judge_move(move, snapshot)
        super()._perform(actions)
        deadline = self.core.next_deadline()
        assert deadline is None or deadline >= self.now - 1e-9 or self._asleep_until > deadline

    def judge_move(self, move: Move, snapshot: GroupSnapshot) -> None:
        if move.destination is None:
            assert move.reason is Reason.ADDRESS_REMOVED
            return
        if move.reason in UNFORCED:
            before = [at for at, other in self.failovers if other.address == move.address]
            recent = [at for at in before if self.now - at < invariants.MOVE_WINDOW]
            assert len(recent) + 1 < invariants.MOVE_BUDGET, f"no move left for a failover: {move} after {recent}"
        destination = next(i for i in snapshot.interfaces if i.interface == move.destination)
        if snapshot.state is GroupState.FAILED:
            source = next((i for i in snapshot.interfaces if i.interface == move.source), None)
            assert not has_only_a_link(source), f"moved away from a link while nobody works: {move}"
            assert has_only_a_link(destination), f"moved to no link while nobody works: {move}"
        else:
            assert destination.active, f"moved to {destination.state}: {move}"
        present = {key for key in self.kernel[move.address] if self.network.nics[key].present}
        assert not present or present == {move.source}, f"{move} but it is on {present}"


class Group(RuleBasedStateMachine):
    """A group of up to five members on a virtual node, and everything that can happen to it."""

    node: WatchedNode  # from the first rule on

    def __init__(self) -> None:
        super().__init__()
        self.group: NodeGroup = START

    @initialize(
        members=st.lists(st.tuples(KEYS, st.sampled_from(Role)), min_size=1, max_size=NICS, unique_by=lambda m: m[0]),
        world=WORLDS,
        absent=st.sets(KEYS),
        dark=st.sets(KEYS),
        seed=st.integers(0, 1 << 16),
    )
    def begin(self, members: list[tuple[str, Role]], world: World, absent: set[str], dark: set[str], seed: int) -> None:
        base = numbered_group(
            NICS, addresses=world.addresses, pins=world.pins, failback=world.failback, discovery=world.discovery
        )
        self.node = WatchedNode(base, seed=seed, hosts=HOSTS, link_local=world.link_local)
        self.group = dataclasses.replace(
            base, members=tuple(Member(InterfaceMatch(name=key), role) for key, role in members)
        )
        self.node.configuration = self.group
        self.node.core = type(self.node.core)(self.group, seed=seed)
        for key in absent:
            self.node.network.nics[key].present = False
        for key in dark:
            self.node.network.nics[key].cable = False
        self.node.start()

    # --- what happens

    @rule(seconds=st.floats(0.01, 3.0) | st.floats(3.0, 130.0))
    def wait(self, seconds: float) -> None:
        self.node.run(seconds)

    @rule(key=KEYS, up=st.booleans())
    def link(self, key: str, up: bool) -> None:
        self.node.link(key, up=up)

    @rule(keys=st.sets(KEYS, min_size=2))
    def lose_links(self, keys: set[str]) -> None:
        self.node.lose_links(*sorted(keys))

    @rule(key=KEYS, times=st.integers(2, 4))
    def flap(self, key: str, times: int) -> None:
        for up in [False, True] * times:
            self.node.link(key, up=up)
            self.node.run(1.0)

    @rule(key=KEYS, on=st.booleans())
    def silence(self, key: str, on: bool) -> None:
        self.node.silence(key, on=on)

    @rule(key=KEYS, loss=st.sampled_from([0.0, 0.02, 0.3]))
    def lose(self, key: str, loss: float) -> None:
        self.node.network.nics[key].loss = loss

    @rule(address=st.sampled_from([*TARGETS, *HOSTS]), up=st.booleans())
    def one_target(self, address: str, up: bool) -> None:
        self.node.target(address, up=up)

    @rule(up=st.booleans())
    def every_target(self, up: bool) -> None:
        self.node.all_targets(up=up)

    @rule(address=st.sampled_from([*TARGETS, *HOSTS]), latency=st.sampled_from([0.0002, 0.1, 0.4]))
    def slow(self, address: str, latency: float) -> None:
        if ip_address(address) in self.node.network.latency:
            self.node.network.latency[ip_address(address)] = latency

    @rule(error=st.none() | st.just(errno.ENETDOWN))
    def refuse_to_send(self, error: int | None) -> None:
        self.node.refuse_to_send = error

    @rule(key=KEYS, force=st.booleans())
    def offline(self, key: str, force: bool) -> None:
        self.node.offline(key, force=force)

    @rule(key=KEYS)
    def online(self, key: str) -> None:
        self.node.online(key)

    @rule(key=KEYS, kind=st.sampled_from(DrillKind), seconds=st.floats(1.0, 20.0))
    def drill(self, key: str, kind: DrillKind, seconds: float) -> None:
        self.node.tell(events.DrillRequested(key, kind, seconds))

    @rule(key=KEYS, other=KEYS)
    def wear(self, key: str, other: str) -> None:
        self.node.wear(key, other)

    @rule(key=KEYS)
    def remove(self, key: str) -> None:
        self.node.remove(key)

    @rule(key=KEYS)
    def add(self, key: str) -> None:
        if any(member.key == key for member in self.group.members):
            self.node.add(key)
            self.node.put_back(key)
        else:
            self.node.network.nics[key].present = True

    @rule(seconds=st.floats(0.1, 8.0), limit=st.none() | st.integers(0, 3))
    def suspend(self, seconds: float, limit: int | None) -> None:
        self.node.inbox_limit = None  # link events are never lost: the agent reads them anew
        self.node.suspend(seconds)
        self.node.run(seconds)

    @rule()
    def restart(self) -> None:
        snapshot = self.node.snapshot()
        before = {address: set(holders) for address, holders in self.node.kernel.items()}
        known = [i for i in snapshot.interfaces if i.present == self.node.network.nics[i.interface].present]
        drilled = snapshot.drill is not None and snapshot.drill.ended is None  # a drill ends with its agent
        self.node.restart()
        if len(known) == len(snapshot.interfaces) and not drilled:
            after = self.node.snapshot()
            assert [i.usable for i in after.interfaces] == [i.usable for i in snapshot.interfaces]
            assert self.node.active == [i.interface for i in snapshot.interfaces if i.active]
            assert after.nominee_ipv4 == snapshot.nominee_ipv4
            assert after.outbound_ipv4 == snapshot.outbound_ipv4
            assert after.detection_time == snapshot.detection_time
            assert {a: set(h) for a, h in self.node.kernel.items() if h} == {a: h for a, h in before.items() if h}

    @rule(key=KEYS, up=st.booleans(), present=st.booleans())
    def change_while_no_agent_runs(self, key: str, up: bool, present: bool) -> None:
        nic = self.node.network.nics[key]
        nic.cable, nic.present = up, present
        if not present:
            for holders in self.node.kernel.values():
                holders.discard(key)
        self.node.restart()

    # --- what people change

    def change(self, **fields: Any) -> None:
        self.group = dataclasses.replace(self.group, **fields)
        before = {member.key for member in self.node.configuration.members}
        self.node.configure(self.group)
        for member in self.group.members:
            if member.key not in before and self.node.network.nics[member.key].present:
                for event in self.node.appearance(member.key):
                    self.node.tell(event)
                self.node.put_back(member.key)

    def policies(self, **fields: Any) -> Policies:
        return dataclasses.replace(self.group.policies, **fields)

    @rule(key=KEYS, role=st.sampled_from(Role))
    def add_member_or_change_role(self, key: str, role: Role) -> None:
        others = tuple(member for member in self.group.members if member.key != key)
        self.change(members=(*others, Member(InterfaceMatch(name=key), role)))

    @precondition(lambda self: len(self.group.members) > 1)
    @rule(data=st.data())
    def remove_member(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(self.group.members))
        self.change(members=tuple(member for member in self.group.members if member is not gone))

    @rule(numbers=st.sets(st.integers(1, 6)))
    def change_addresses(self, numbers: set[int]) -> None:
        self.change(data_addresses=tuple(data_address(n) for n in sorted(numbers)))

    @rule(failback=st.sampled_from(Switch), milliseconds=st.sampled_from([100, 1000, 5000]))
    def change_policies(self, failback: Switch, milliseconds: int) -> None:
        self.change(policies=self.policies(failback=failback, failure_detection=FailureDetection(milliseconds)))

    @rule(pins=st.sampled_from([(), TARGETS[:1], TARGETS]))
    def change_pins(self, pins: tuple[str, ...]) -> None:
        targets = dataclasses.replace(
            self.group.policies.targets, addresses=numbered_group(pins=pins).policies.targets.addresses
        )
        self.change(policies=self.policies(targets=targets))

    @rule(keys=st.sets(KEYS, max_size=2))
    def ask_offline(self, keys: set[str]) -> None:
        self.change(offline=tuple(sorted(keys)))

    # --- what must hold

    @staticmethod
    def member(snapshot: GroupSnapshot, key: str) -> InterfaceSnapshot:
        return next(interface for interface in snapshot.interfaces if interface.interface == key)

    @invariant()
    def every_address_is_on_one_working_member(self) -> None:
        snapshot = self.node.snapshot()
        usable = {i.interface for i in snapshot.interfaces if i.usable}
        doubtful = set()
        recovery = self.node.core._recovery
        if recovery.under_way and self.node.now <= recovery.until:
            doubtful = {
                i.interface for i in snapshot.interfaces if i.failed and i.reason is not Reason.LINK_DOWN and i.present
            }
        for address in snapshot.addresses:
            holders = self.node.kernel[address.address]
            members = {i.interface for i in snapshot.interfaces}
            assert len(holders) <= 1, f"{address.address} is on {holders}"
            if usable:
                assert holders <= usable | doubtful, f"{address.address} is on {holders}, usable: {usable}"
                assert holders, f"{address.address} is nowhere"
            if holders <= members:
                assert ({address.interface} if address.interface else set()) == holders

    @invariant()
    def as_many_are_active_as_the_group_needs(self) -> None:
        snapshot = self.node.snapshot()
        usable = [i for i in snapshot.interfaces if i.usable]
        capacity = max(1, sum(i.role is Role.ACTIVE for i in snapshot.interfaces))
        assert sum(i.active for i in snapshot.interfaces) == min(capacity, len(usable))

    @invariant()
    def a_drill_leaves_somebody_who_works(self) -> None:
        snapshot = self.node.snapshot()
        if snapshot.drill is not None and snapshot.drill.ended is None:
            assert any(i.usable for i in snapshot.interfaces if i.interface != snapshot.drill.interface)

    @invariant()
    def probe_accounts_add_up(self) -> None:
        for interface in self.node.snapshot().interfaces:
            for p in interface.probers:
                assert p.sent == p.answered + p.lost + p.outstanding + p.discarded, f"{interface.interface}: {p}"
                assert p.outstanding <= 2

    @invariant()
    def the_snapshot_is_of_one_piece(self) -> None:
        snapshot = self.node.snapshot()
        usable = sum(i.usable for i in snapshot.interfaces)
        assert (snapshot.state is GroupState.FAILED) == (usable == 0)
        assert (snapshot.state is GroupState.OK) == (usable == len(snapshot.interfaces))
        active = {i.interface for i in snapshot.interfaces if i.active}
        for i in snapshot.interfaces:
            assert i.active == (i.usable and not i.inactive)
            assert not (i.failed and i.inactive)
            assert not (i.offline and i.inactive)
            assert i.offline == (i.state is InterfaceWord.OFFLINE)
            assert i.present or not i.usable
            assert (i.flags[0] == "i") == i.inactive
            assert (i.flags[1] == "s") == (i.role is Role.STANDBY)
            assert (i.flags[5] == "d") == (not i.present)
            assert (i.flags[2:5] == "mbM") == (i.interface == snapshot.nominee_ipv4)
        if active:
            assert set(snapshot.outbound_ipv4) == set(snapshot.outbound_ipv6) == active
            assert snapshot.nominee_ipv4 in active
        else:
            linked = {i.interface for i in snapshot.interfaces if has_only_a_link(i)}
            assert snapshot.nominee_ipv4 is None or snapshot.nominee_ipv4 in linked
            assert not linked or self.node.now < self.node.core._makeshift.retry_at < inf or snapshot.nominee_ipv4
        assert snapshot.detection_time >= snapshot.detection_time_configured
