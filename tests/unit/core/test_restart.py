"""The agent is started again in the middle of a failure: it knows nobody to ask yet, and the verdict stays."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipmp_agent.core import events, timers
from ipmp_agent.core.actions import SetNominee, SetOutbound
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.words import InterfaceWord
from ipmp_api.types import ProbeMethod, Role, Switch
from tests.virtual_node import TARGET, VirtualNode, numbered_group

if TYPE_CHECKING:
    from collections.abc import Callable

HOST = "198.18.0.9"
TESTED = ["198.18.2.1/24", "198.18.2.2/24", "198.18.2.3/24"]
UNPROBED = {"pins": (), "probe_method": ProbeMethod.DISABLED}
METHODS = [ProbeMethod.AUTO, ProbeMethod.ICMP]


def hosts(members: int = 3, *, method: ProbeMethod = ProbeMethod.AUTO, **fields: object) -> VirtualNode:
    """Targets are discovered only, by IPv4."""
    addresses = TESTED[:members]
    group = numbered_group(members, addresses=4, pins=(), discovery=True, test_addresses=addresses, probe_method=method)
    return VirtualNode(dataclasses.replace(group, **fields), hosts=[HOST])  # type: ignore[arg-type]


def link_local_hosts(members: int = 3, *, method: ProbeMethod = ProbeMethod.AUTO) -> VirtualNode:
    """Targets are discovered only, by IPv6."""
    group = numbered_group(members, addresses=4, pins=(), discovery=True, probe_method=method)
    return VirtualNode(group, hosts=["fe80::9"], link_local=True)


def routers(members: int = 3, *, method: ProbeMethod = ProbeMethod.AUTO) -> VirtualNode:
    """Targets are the gateways of the routing table."""
    group = numbered_group(members, addresses=4, pins=(), test_addresses=TESTED[:members], probe_method=method)
    return VirtualNode(group, routers=["198.18.0.1"])


def pins(members: int = 3, *, method: ProbeMethod = ProbeMethod.AUTO) -> VirtualNode:
    """Targets are named by the configuration."""
    group = numbered_group(members, addresses=4, test_addresses=TESTED[:members], probe_method=method)
    return VirtualNode(group)


SOURCES = [hosts, link_local_hosts, routers, pins]


def start(node: VirtualNode) -> None:
    node.start()
    node.run(3)


# --- how nic0 comes to be failed, silent, with its link up


def comes_up_silent(node: VirtualNode) -> None:
    node.link("nic0", up=False)
    node.run(1)
    node.silence("nic0")
    node.link("nic0", up=True)
    node.run(3)


def falls_silent(node: VirtualNode) -> None:
    node.silence("nic0")
    node.run(3)


def stays_silent_when_its_group_is_back(node: VirtualNode) -> None:
    node.all_targets(up=False)
    node.run(3)
    node.silence("nic0")
    node.all_targets(up=True)
    node.run(10)


def comes_up_silent_while_nobody_looks(node: VirtualNode) -> None:
    node.link("nic0", up=False)
    node.run(1)
    node.silence("nic0")
    node.network.nics["nic0"].cable = True


FAILURES = [comes_up_silent, falls_silent, stays_silent_when_its_group_is_back, comes_up_silent_while_nobody_looks]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("source", SOURCES)
def test_member_that_does_not_answer_stays_failed_over_a_restart(
    source: Callable[..., VirtualNode], failure: Callable[[VirtualNode], None], method: ProbeMethod
) -> None:
    node = source(method=method)
    start(node)
    failure(node)
    moves = len(node.moves)
    node.verdicts.clear()
    for _ in range(2):
        node.restart()
        assert node.interface("nic0").state is InterfaceWord.FAILED
        node.run(timers.QUIET_PERIOD + 5)
    assert node.interface("nic0").state is InterfaceWord.FAILED
    assert node.verdicts == []
    assert len(node.moves) == moves
    node.silence("nic0", on=False)
    assert node.run(2, lambda: node.interface("nic0").state is InterfaceWord.OK)


def test_ten_answers_repair_soon_after_a_restart() -> None:
    node = hosts()
    start(node)
    comes_up_silent(node)
    node.silence("nic0", on=False)
    node.restart()
    assert not node.run(1, lambda: node.interface("nic0").state is InterfaceWord.OK)
    assert node.run(1, lambda: node.interface("nic0").state is InterfaceWord.OK)
    assert node.active == ["nic0", "nic1", "nic2"]


# --- a failure that begins while no agent runs


@pytest.mark.parametrize("source", SOURCES)
def test_member_that_falls_silent_meanwhile_is_found_within_the_detection_time(
    source: Callable[..., VirtualNode],
) -> None:
    node = source()
    start(node)
    node.silence("nic0")
    node.run(0.5)
    node.restart()
    assert node.run(1.3, lambda: node.interface("nic0").state is InterfaceWord.FAILED)
    assert node.held_by("nic0") == []


def test_member_that_was_never_answered_is_given_the_quiet_period_by_every_agent() -> None:
    node = pins()
    node.silence("nic0")
    start(node)
    node.restart()
    assert not node.run(timers.QUIET_PERIOD - 0.1, lambda: node.interface("nic0").state is InterfaceWord.FAILED)
    assert node.run(1.2, lambda: node.interface("nic0").state is InterfaceWord.FAILED)


# --- and no member stays failed because there is nobody to ask


def test_where_nobody_answers_the_other_members_do() -> None:
    node = hosts(2)
    start(node)
    node.link("nic0", up=False)
    node.all_targets(up=False)
    node.network.nics["nic0"].cable = True
    node.restart()
    assert node.interface("nic0").state is InterfaceWord.FAILED
    assert node.run(2, lambda: node.interface("nic0").state is InterfaceWord.OK)


def gone(node: VirtualNode) -> None:
    node.all_targets(up=False)
    node.run(3)


def unplugged(node: VirtualNode) -> None:
    node.link("nic0", up=False)
    node.all_targets(up=False)
    node.network.nics["nic0"].cable = True


@pytest.mark.parametrize("failure", [gone, unplugged])
def test_where_nobody_is_found_the_link_counts_after_the_quiet_period(failure: Callable[[VirtualNode], None]) -> None:
    node = hosts(1)
    start(node)
    failure(node)
    assert node.failed
    node.restart()
    assert not node.run(timers.QUIET_PERIOD - 0.1, lambda: not node.failed)
    assert node.run(0.2, lambda: not node.failed)
    assert node.interface("nic0").state is InterfaceWord.UNKNOWN
    assert node.moves[4:] == []


def test_last_link_counts_after_the_quiet_period_whatever_was_said_against_it() -> None:
    node = hosts(2)
    start(node)
    falls_silent(node)
    node.all_targets(up=False)
    node.network.nics["nic1"].cable = False
    node.restart()
    assert node.failed
    assert node.run(timers.QUIET_PERIOD + 0.1, lambda: not node.failed)
    assert node.active == ["nic0"]
    assert node.held_by("nic0") == [1, 2, 3, 4]


def test_a_verdict_takes_its_time_where_that_is_longer_than_the_quiet_period() -> None:
    node = VirtualNode(
        numbered_group(1, pins=(), discovery=True, test_addresses=TESTED[:1], detection_time=300.0), hosts=[HOST]
    )
    node.start()
    unplugged(node)
    node.restart()
    assert not node.run(299.9, lambda: not node.failed)
    assert node.run(0.2, lambda: not node.failed)


def test_of_those_that_failed_with_their_group_one_that_probes_condemned_comes_last() -> None:
    node = hosts(2)
    start(node)
    falls_silent(node)
    node.all_targets(up=False)
    node.silence("nic1")
    node.run(3)
    assert node.failed
    node.restart()
    node.run(timers.QUIET_PERIOD + 10)
    assert node.active == ["nic1"]
    assert node.interface("nic0").state is InterfaceWord.FAILED


def test_member_that_nobody_is_to_judge_is_repaired_by_its_link_at_once() -> None:
    for node in (
        VirtualNode(numbered_group(2, pins=())),
        VirtualNode(numbered_group(2, pins=(), discovery=True, probe_method=ProbeMethod.DISABLED)),
    ):
        start(node)
        node.link("nic0", up=False)
        node.network.nics["nic0"].cable = True
        node.restart()
        assert node.interface("nic0").reason is Reason.LINK_UP
        assert node.active == ["nic0", "nic1"]


# --- what else a restart leaves as it is


@pytest.mark.parametrize("spreading", list(Switch))
def test_who_was_activated_first_still_stands_for_the_group(spreading: Switch) -> None:
    node = VirtualNode(numbered_group(3, outbound_spreading=spreading))
    start(node)
    node.link("nic0", up=False)
    node.link("nic0", up=True)
    node.run(300)
    before = node.snapshot()
    assert before.nominee_ipv4 == "nic1"
    for _ in range(2):
        actions = node.restart()
        after = node.snapshot()
        assert (after.nominee_ipv4, after.outbound_ipv4) == (before.nominee_ipv4, before.outbound_ipv4)
        assert {a.ipv4 for a in actions if isinstance(a, SetNominee)} == {"nic1"}


@pytest.mark.parametrize("spreading", list(Switch))
def test_members_in_another_order_still_have_the_same_one_stand_for_them(spreading: Switch) -> None:
    """Whoever stands for the group stays, though all failed and another one is the first of those that are back."""
    group = numbered_group(outbound_spreading=spreading)
    node = VirtualNode(group)
    start(node)
    node.all_targets(up=False)
    assert node.run(3, lambda: node.failed)
    again = dataclasses.replace(group, members=group.members[::-1])
    node.configure(again)
    node.configure(dataclasses.replace(again, policies=numbered_group(pins=()).policies))
    assert node.active == ["nic1", "nic0"]
    before = node.snapshot()
    assert before.nominee_ipv4 == "nic0"
    for _ in range(2):
        node.restart()
        assert (node.snapshot().nominee_ipv4, node.snapshot().outbound_ipv4) == ("nic0", before.outbound_ipv4)


def test_who_carries_for_a_group_of_which_nothing_works_is_ordered_again() -> None:
    """What waits for a link to have lasted is the way out meanwhile, for the next agent, too."""
    node = VirtualNode(numbered_group(outbound_spreading=Switch.DISABLED))
    start(node)
    node.all_targets(up=False)
    node.lose_links("nic0", "nic1")
    node.run(1)
    before = node.snapshot()
    actions = node.restart()
    assert [a.ipv4 for a in actions if isinstance(a, SetOutbound)] == [before.outbound_ipv4] == [("nic0",)]


@pytest.mark.parametrize("seed", range(3))
def test_targets_that_became_slow_are_given_their_time_from_the_start(seed: int) -> None:
    node = VirtualNode(numbered_group(2), seed=seed)
    start(node)
    for latency in (0.1, 0.3, 0.6, 1.2, 2.4):
        node.network.latency[ip_address(TARGET)] = latency
        node.run(100)
    before = node.snapshot().detection_time
    assert before > 7 * 2.4
    node.verdicts.clear()
    node.restart()
    assert node.snapshot().detection_time == before
    node.run(100)
    assert node.verdicts == []
    node.network.latency[ip_address(TARGET)] = 0.001
    assert node.run(700, lambda: node.snapshot().detection_time == 1.0), "and it is lowered again"
    node.restart()
    node.configure(numbered_group(2, detection_time=0.5))
    assert node.snapshot().detection_time == 0.5


def test_detection_time_that_is_not_to_adapt_is_the_configured_one() -> None:
    node = VirtualNode(numbered_group(2, adaptive=False))
    node.start(events.StateRestored((), detection_time=20.0))
    assert node.snapshot().detection_time == 1.0


def test_share_that_waits_for_the_budget_is_taken_by_the_next_agent() -> None:
    node = VirtualNode(numbered_group(2, **UNPROBED))  # type: ignore[arg-type]
    node.start()
    for key in ["nic0", "nic1"] * 2:
        node.link(key, up=False)
        node.run(16)
        node.link(key, up=True)
        node.run(16)
    assert node.active == ["nic0", "nic1"]
    (empty,) = (key for key in node.active if not node.held_by(key))
    node.restart()
    assert node.held_by(empty) == []
    node.run(200)
    assert len(node.held_by(empty)) == 1


# --- an agent that is killed before it has written what it just did


KILLED: list[tuple[str, Callable[[VirtualNode], object], list[str]]] = [
    ("nothing", lambda node: node.silence("nic0"), ["nic1", "nic2"]),
    ("nothing", lambda node: node.link("nic0", up=False), ["nic1", "nic2"]),
    ("nic0 silent", lambda node: node.silence("nic0", on=False), ["nic0", "nic1"]),
    ("nic0 unplugged", lambda node: node.link("nic0", up=True), ["nic0", "nic1"]),
    ("nic0 silent", lambda node: node.silence("nic1"), ["nic2"]),
]
"""What was before, what happens, and who is in use then, where nic2 is a standby."""


@pytest.mark.parametrize("standby", [0, 1])
@pytest.mark.parametrize(("before", "happens", "active"), KILLED)
def test_what_was_done_and_not_written_is_not_undone(
    before: str, happens: Callable[[VirtualNode], object], active: list[str], standby: int
) -> None:
    """Killed at the very moment of a move, an agent knows what it did by where the addresses are."""
    node = VirtualNode(numbered_group(3 - standby, standby, addresses=4))
    start(node)
    if before == "nic0 silent":
        node.silence("nic0")
    elif before == "nic0 unplugged":
        node.link("nic0", up=False)
    node.run(5)
    memory, moves = node.memory(), len(node.moves)
    happens(node)
    node.run(20, lambda: len(node.moves) > moves)
    assert len(node.moves) > moves
    moves, holders = len(node.moves), {address: set(holding) for address, holding in node.kernel.items()}
    used = active if standby else node.active
    node.restart(memory)
    assert len(node.moves) == moves
    assert node.active == used
    node.run(60)
    assert len(node.moves) == moves
    assert {address: set(holding) for address, holding in node.kernel.items()} == holders
    assert node.active == used


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("written", ["with the first member", "with all of them"])
def test_group_that_is_just_back_keeps_its_addresses_where_they_are(written: str, seed: int) -> None:
    """The others have proven themselves, or are about to, and start again with it."""
    node = VirtualNode(numbered_group(3, addresses=6), seed=seed)
    start(node)
    node.all_targets(up=False)
    assert node.run(3, lambda: node.failed)
    node.run(1)
    node.all_targets(up=True)
    assert node.run(3, lambda: not node.failed)
    memory = node.memory()
    if written == "with all of them":
        assert node.run(1, lambda: len(node.active) == 3)
    node.restart(memory)
    node.run(60)
    assert node.failovers == []
    assert len(node.active) == 3


# --- random histories


def pull(node: VirtualNode, key: str) -> None:
    node.link(key, up=False)


def plug(node: VirtualNode, key: str) -> None:
    node.link(key, up=True)


def flap(node: VirtualNode, key: str) -> None:
    for up in [False, True] * 3:
        node.link(key, up=up)
        node.run(2)


HAPPENINGS = st.lists(
    st.tuples(st.sampled_from(["restart", "unplug", "plug", "offline", "online"]), st.floats(0, 3) | st.floats(3, 50)),
    max_size=10,
)


@settings(max_examples=120, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    source=st.sampled_from(SOURCES),
    failure=st.sampled_from(FAILURES),
    method=st.sampled_from(METHODS),
    standby=st.booleans(),
    seed=st.integers(0, 1 << 16),
    happenings=HAPPENINGS,
)
def test_no_history_repairs_a_member_that_never_answers(
    source: Callable[..., VirtualNode],
    failure: Callable[[VirtualNode], None],
    method: ProbeMethod,
    standby: bool,
    seed: int,
    happenings: list[tuple[str, float]],
) -> None:
    node = source(method=method)
    if standby:
        first, *others, last = node.configuration.members
        members = (first, *others, dataclasses.replace(last, role=Role.STANDBY))
        node.configuration = dataclasses.replace(node.configuration, members=members)
    node.seed = seed
    node.core = type(node.core)(node.configuration, seed=seed)
    start(node)
    failure(node)
    node.verdicts.clear()
    node.moves.clear()
    for what, seconds in happenings:
        if what == "restart":
            node.restart()
        elif what == "offline":
            node.offline("nic0")
        elif what == "online":
            node.online("nic0")
        elif node.interface("nic0").offline:
            continue  # that it had no link is forgiven while it is out, and on its return it is judged anew
        elif seconds < 20:
            node.link("nic0", up=what == "plug")
        else:  # while nobody looks
            node.network.nics["nic0"].cable = what == "plug"
            node.restart()
        node.run(seconds)
        assert not node.interface("nic0").usable
    assert [verdict for _, verdict in node.verdicts if verdict.interface == "nic0"] == []
    assert node.moves == []


KEYS = st.sampled_from(["nic0", "nic1", "nic2"])
STEPS = st.one_of(
    st.tuples(st.just(VirtualNode.remove), st.tuples(KEYS)),
    st.tuples(st.just(VirtualNode.add), st.tuples(KEYS)),
    st.tuples(st.just(VirtualNode.wear), st.tuples(KEYS, KEYS)),
    st.tuples(st.just(VirtualNode.offline), st.tuples(KEYS)),
    st.tuples(st.just(VirtualNode.online), st.tuples(KEYS)),
    st.tuples(st.just(VirtualNode.run), st.tuples(st.floats(0.5, 100))),
    st.tuples(st.sampled_from([pull, plug, flap]), st.tuples(KEYS)),
)


def seen(node: VirtualNode) -> tuple[object, ...]:
    """Members, who sends, and how many addresses each has; not which: that the newest is lent first is forgotten."""
    snapshot = node.snapshot()
    members = [(i.interface, i.state, i.active, i.inactive, i.failed, i.flags) for i in snapshot.interfaces]
    leaving = (snapshot.nominee_ipv4, snapshot.outbound_ipv4)
    return members, leaving, [len(node.held_by(i.interface)) for i in snapshot.interfaces]


@settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    standby=st.integers(0, 2),
    failback=st.booleans(),
    addresses=st.integers(1, 5),
    steps=st.lists(st.tuples(STEPS, st.booleans()), max_size=12),
)
def test_history_with_restarts_is_the_one_without(
    standby: int, failback: bool, addresses: int, steps: list[tuple[tuple[Callable[..., object], Any], bool]]
) -> None:
    """Links only: no jitter, so two nodes do the same at the same time."""
    group = numbered_group(3 - standby, standby, addresses=addresses, failback=failback, **UNPROBED)  # type: ignore[arg-type]
    lasting, restarted = nodes = VirtualNode(group), VirtualNode(group)
    for node in nodes:
        node.start()
    for (happen, arguments), restart in steps:
        for node in nodes:
            happen(node, *arguments)
        if restart:
            moves = len(restarted.moves)
            restarted.restart()
            assert len(restarted.moves) == moves
        # Where others of the addresses were lent, others have no move left: a share may wait on one node alone.
        waiting = any(node.core._placement.claims for node in nodes)
        compared = 2 if waiting else 3
        assert seen(restarted)[:compared] == seen(lasting)[:compared]
    for node in nodes:
        node.run(400)
    assert seen(restarted) == seen(lasting)
