import random
from dataclasses import replace
from itertools import pairwise

import pytest

from ipmp_agent.core.actions import Action, ProbeProtocol, SendProbe
from ipmp_agent.core.events import Event, Family, ProbeAnswered, ProbeKind
from ipmp_agent.core.multipathing import Multipathing
from ipmp_agent.simulate import simulation
from ipmp_agent.simulate.network import Network
from ipmp_agent.simulate.script import (
    Add,
    Cable,
    Fault,
    FaultScript,
    Happening,
    Latency,
    Loss,
    Online,
    PlayedTarget,
    Remove,
    Silent,
    Suspend,
    TakeOffline,
    TargetPower,
)
from ipmp_agent.simulate.simulation import Simulation
from ipmp_agent.simulate.timeline import AddressChange, Entry, GroupChange, InterfaceChange, Passing, Told, to_json
from ipmp_api.types import Policies, ProbeMethod, TargetSources
from tests.unit.simulate.playing import NEIGHBOUR, ROUTER, TARGETS, make_group, moves, play, states

DEATH_OF_ALL: list[tuple[float, Happening]] = [
    (10, TargetPower(ROUTER, up=False)),
    (10, TargetPower(NEIGHBOUR, up=False)),
]


def test_what_is_there_at_the_start_is_told_at_time_zero() -> None:
    lines = [line for entry in play([], duration=0) if (line := to_json(entry))]
    assert lines == [
        '{"at": 0.0, "interface": "nic0", "state": "ok", "active": true, "reason": "InterfaceAppeared"}',
        '{"at": 0.0, "interface": "nic1", "state": "ok", "active": true, "reason": "InterfaceAppeared"}',
        '{"at": 0.0, "address": "198.18.0.100", "interface": "nic0"}',
        '{"at": 0.0, "address": "198.18.0.101", "interface": "nic1"}',
        '{"at": 0.0, "group": "storage", "state": "ok", "failureDetectionTimeMilliseconds": 1000}',
    ]


def test_a_pulled_cable_moves_the_address_at_that_moment() -> None:
    entries = play([(10, Cable("nic0", up=False))])
    assert moves(entries) == [(10, "198.18.0.100", "nic1")]
    assert states(entries, "nic0")[-1] == (10, "failed", False)


@pytest.mark.parametrize("milliseconds", [100, 1000, 10_000])
@pytest.mark.parametrize("seed", range(20))
def test_a_silent_failure_is_found_within_the_detection_time_and_repaired_in_twice_that(
    milliseconds: int, seed: int
) -> None:
    time = milliseconds / 1000
    faults = [(5 * time, Silent("nic0", on=True)), (10 * time, Silent("nic0", on=False))]
    entries = play(faults, duration=15 * time, group=make_group(milliseconds=milliseconds), seed=seed)
    failed, repaired = [at for at, _, _ in states(entries, "nic0") if at]
    assert 5 * time < failed <= 6 * time
    assert 10 * time < repaired <= 12 * time
    assert moves(entries) == [(failed, "198.18.0.100", "nic1"), (repaired, "198.18.0.100", "nic0")]


def test_a_dead_target_moves_nothing() -> None:
    entries = play([(10, TargetPower(ROUTER, up=False))])
    assert moves(entries) == []
    assert {state for interface in ("nic0", "nic1") for _, state, _ in states(entries, interface)} == {"ok"}


def test_when_all_targets_die_the_group_fails_and_no_address_moves() -> None:
    back: list[tuple[float, Happening]] = [(30, TargetPower(a, up=True)) for a in (ROUTER, NEIGHBOUR)]
    entries = play([*DEATH_OF_ALL, *back])
    assert [entry.state.value for entry in entries if isinstance(entry, GroupChange)] == [
        "ok",
        "failed",
        "degraded",
        "ok",
    ]
    assert moves(entries) == []


def test_addresses_outside_the_network_never_answer() -> None:
    entries = play([], targets=())
    assert [entry.state.value for entry in entries if isinstance(entry, GroupChange)] == ["ok", "failed"]


@pytest.mark.parametrize("method", [ProbeMethod.ICMP, ProbeMethod.ARP])
def test_targets_answer_whatever_they_are_asked_in(method: ProbeMethod) -> None:
    policies = make_group().policies
    group = make_group(policies=Policies(probe_method=method, targets=policies.targets, test_ipv6=policies.test_ipv6))
    entries = play([(20, Silent("nic1", on=True))], group=group)
    assert [state for _, state, _ in states(entries, "nic0")] == ["ok"]
    assert [state for _, state, _ in states(entries, "nic1")] == ["ok", "failed"]


def test_a_standing_agent_judges_nothing_and_hears_the_replies_that_waited() -> None:
    simulated = Simulation(make_group(), FaultScript(20, 1, TARGETS, ()))
    assert not [entry for entry in simulated.run() if entry.at]
    suspended: list[tuple[float, Happening]] = [(10 + 7 * i, Suspend(5)) for i in range(20)]
    entries = play(suspended, duration=160)
    assert moves(entries) == []
    assert states(entries, "nic0") == [(0, "ok", True)]


def test_replies_that_waited_count() -> None:
    slow = tuple(PlayedTarget(target.address, 0.05) for target in TARGETS)
    suspended = tuple(Fault(2 + 1.37 * i, Suspend(1)) for i in range(30))
    simulated = Simulation(make_group(), FaultScript(50, 1, slow, suspended))
    list(simulated.run())
    for interface in simulated.snapshot().interfaces:
        prober = interface.probers[0]
        assert prober.missed > 100
        assert (prober.discarded, prober.lost) == (0, 0)
        assert prober.answered == prober.sent - prober.outstanding


def test_a_reply_that_waited_took_its_time_in_the_network_and_longer_to_us(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[ProbeAnswered] = []
    handle = Multipathing.handle

    def listening(self: Multipathing, event: Event, now: float) -> list[Action]:
        if isinstance(event, ProbeAnswered):
            answers.append(event)
        return handle(self, event, now)

    monkeypatch.setattr(Multipathing, "handle", listening)
    play(
        [(2 + 1.37 * i, Suspend(1)) for i in range(30)],
        targets=(PlayedTarget(ROUTER, 0.05), PlayedTarget(NEIGHBOUR, 0.05)),
    )
    assert {round(answer.network_rtt, 6) for answer in answers} == {0.05}
    assert 0.5 < max(answer.rtt for answer in answers) <= 1.05


def test_what_happens_while_the_agent_stands_is_seen_when_it_wakes() -> None:
    entries = play([(10, Suspend(5)), (12, Cable("nic0", up=False))])
    assert moves(entries) == [(15, "198.18.0.100", "nic1")]
    assert [entry for entry in entries if isinstance(entry, Passing)] == [Passing(12, "nic0", passes=False)]


def test_a_second_suspension_prolongs_the_first() -> None:
    entries = play([(10, Suspend(5)), (12, Cable("nic0", up=False)), (14, Suspend(6))])
    assert moves(entries) == [(20, "198.18.0.100", "nic1")]


def test_a_removed_interface_loses_its_addresses_and_takes_its_share_when_it_is_back() -> None:
    entries = play([(10, Remove("nic0")), (20, Add("nic0"))])
    (away, back), seen = moves(entries), [(at, state) for at, state, _ in states(entries, "nic0")]
    assert away == (10, "198.18.0.100", "nic1")
    assert back[1:] == ("198.18.0.100", "nic0")
    assert 20 < back[0] < 20.2  # with its first answer
    assert seen == [(0, "ok"), (10, "failed"), (20, "unknown"), (back[0], "ok")]


def test_an_interface_removed_at_zero_is_missing_from_the_start() -> None:
    entries = play([(0, Remove("nic0"))])
    assert states(entries, "nic0") == [(0, "failed", False)]
    assert {e.interface for e in entries if isinstance(e, AddressChange)} == {"nic1"}


def test_a_cable_out_at_zero_is_found_so() -> None:
    assert states(play([(0, Cable("nic0", up=False))]), "nic0") == [(0, "failed", False)]


def test_offline_and_online_are_asked_of_the_agent_and_may_be_refused() -> None:
    entries = play([(10, TakeOffline("nic0")), (12, TakeOffline("nic1")), (20, Online("nic0"))])
    seen = [(at, state) for at, state, _ in states(entries, "nic0")]
    assert seen[:3] == [(0, "ok"), (10, "offline"), (20, "unknown")]
    assert 20 < seen[3][0] < 20.2  # with its first answer
    assert seen[3:] == [(seen[3][0], "ok")]
    assert [(at, state) for at, state, _ in states(entries, "nic1")] == [(0, "ok")]
    assert any("nic1 stays online" in entry.notice.message for entry in entries if isinstance(entry, Told))


def test_slow_targets_raise_the_detection_time_and_fast_ones_lower_it_in_steps() -> None:
    slow: list[tuple[float, Happening]] = [(30, Latency(a, 300)) for a in (ROUTER, NEIGHBOUR)]
    fast: list[tuple[float, Happening]] = [(100, Latency(a, 1)) for a in (ROUTER, NEIGHBOUR)]
    times = [e.detection_time for e in play([*slow, *fast], duration=150) if isinstance(e, GroupChange)]
    raised = max(times)
    assert times[0] == times[-1] == 1.0
    assert raised > 2.1
    falling = times[times.index(raised) :]
    assert all(abs(lower - max(1.0, higher / 2)) < 0.01 for higher, lower in pairwise(falling))


def test_loss_is_drawn_for_each_direction() -> None:
    simulated = Simulation(make_group(milliseconds=100), FaultScript(60, 1, TARGETS, (Fault(0, Loss("nic0", 20)),)))
    list(simulated.run())
    lossy, healthy = (interface.probers[0] for interface in simulated.snapshot().interfaces)
    assert lossy.sent > 4000
    assert 0.62 < lossy.answered / lossy.sent < 0.66
    assert healthy.answered >= healthy.sent - 1


def test_total_loss_is_a_silent_failure() -> None:
    entries = play([(10, Loss("nic0", 100))])
    assert [entry for entry in entries if isinstance(entry, Passing)] == [Passing(10, "nic0", passes=False)]
    assert [state for _, state, _ in states(entries, "nic0")] == ["ok", "failed"]


def test_hosts_marked_so_answer_discovery_in_their_own_family() -> None:
    hosts = (PlayedTarget(ROUTER, 0.001, discoverable=True), PlayedTarget(NEIGHBOUR, 0.001))
    network = Network({"nic0": "02:00:00:00:00:00"}, hosts, random.Random(1))
    for family, answers in ((Family.IPV4, [(ROUTER, 0.001)]), (Family.IPV6, [])):
        probe = SendProbe("nic0", family, ROUTER, 1, ProbeKind.DISCOVERY, ProbeProtocol.ICMP)
        assert list(network.send(probe)) == answers
        network.dead.add(ROUTER)
        assert list(network.send(probe)) == []
        network.dead.clear()


def test_the_same_script_gives_the_same_timeline_and_another_seed_another() -> None:
    faults: list[tuple[float, Happening]] = [(5, Loss("nic0", 30)), (20, Silent("nic1", on=True))]
    assert play(faults, seed=5) == play(faults, seed=5)
    assert play(faults, seed=5) != play(faults, seed=6)


MANY: list[tuple[float, Happening]] = [
    (5, Loss("nic0", 40)),
    (20, TargetPower(ROUTER, up=False)),
    (25, Latency(NEIGHBOUR, 400)),
    (60, Silent("nic1", on=True)),
    (80, TargetPower(NEIGHBOUR, up=False)),
    (100, TargetPower(ROUTER, up=True)),
]
AMONG_MEMBERS: list[tuple[float, Happening]] = [(10, Silent("nic1", on=True)), (20, Silent("nic1", on=False))]


@pytest.mark.parametrize(
    ("faults", "targets", "changes"), [(MANY, TARGETS, 8), (AMONG_MEMBERS, (), 8)], ids=["targets", "among members"]
)
def test_no_change_is_missed_between_the_moments_at_which_it_looks(
    faults: list[tuple[float, Happening]],
    targets: tuple[PlayedTarget, ...],
    changes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    group = make_group()
    if not targets:
        group = replace(group, policies=replace(group.policies, targets=TargetSources()))
    duration = faults[-1][0] + 20

    def seen() -> list[Entry]:
        entries = play(faults, duration=duration, group=group, targets=targets)
        return [entry for entry in entries if isinstance(entry, InterfaceChange | GroupChange)]

    quick = seen()
    monkeypatch.setattr(simulation, "may_change_state", lambda _: True)
    assert quick == seen()
    assert len(quick) >= changes
