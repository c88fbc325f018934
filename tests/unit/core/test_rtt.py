"""Round-trip estimation and the adaptive failure detection time."""

from __future__ import annotations

from ipaddress import ip_address as address
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core import timers
from ipmp_agent.core.events import ProbeKind
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.rtt import DetectionTime, RoundTrip
from ipmp_agent.core.words import TargetState
from tests.virtual_node import VirtualNode, numbered_group

if TYPE_CHECKING:
    from ipmp_agent.core.actions import SendProbe

FIVE = ("198.18.0.1", "198.18.0.2", "198.18.0.3", "198.18.0.4", "198.18.0.5")


def milliseconds(round_trip: RoundTrip) -> int:
    return int(round_trip.crtt * 1000 + 1e-9)


def test_conservative_round_trip_of_a_series() -> None:
    round_trip, crtts = RoundTrip(), []
    for sample in (0.010, 0.010, 0.050, 0.010):
        round_trip.sample(sample, 1.0)
        crtts.append(milliseconds(round_trip))
    assert crtts == [30, 25, 66, 57]


def test_steady_round_trip_settles_at_itself() -> None:
    round_trip = RoundTrip()
    for _ in range(12):
        round_trip.sample(0.001, 1.0)
    assert milliseconds(round_trip) == 1


def test_suspect_sample_is_held_and_a_second_one_applies_both() -> None:
    round_trip = RoundTrip()
    for _ in range(40):
        round_trip.sample(0.001, 1.428)
    round_trip.sample(1.0, 1.428)
    assert milliseconds(round_trip) == 1124
    round_trip.sample(1.0, 1.428)
    assert milliseconds(round_trip) == 1124
    round_trip.sample(1.0, 1.428)
    assert milliseconds(round_trip) == 2313


def test_good_sample_discards_the_held_one() -> None:
    round_trip = RoundTrip()
    for _ in range(40):
        round_trip.sample(0.001, 0.142)
    round_trip.sample(1.0, 0.142)
    round_trip.sample(0.001, 0.142)
    round_trip.sample(1.0, 0.142)
    assert milliseconds(round_trip) == 1


def test_measuring_probe_can_only_prove_a_target_faster() -> None:
    round_trip = RoundTrip()
    round_trip.sample(0.1, 10.0)
    before = round_trip.crtt
    round_trip.sample_if_lower(5.0)
    assert round_trip.crtt == before
    round_trip.sample_if_lower(0.05)
    assert round_trip.crtt < before


def test_average_never_goes_below_zero_and_reset_forgets() -> None:
    round_trip = RoundTrip()
    round_trip.sample(0.01, 1.0)
    for _ in range(100):
        round_trip.sample(0.0, 1.0)
    assert round_trip.average >= 0
    round_trip.reset()
    assert round_trip.crtt == 0


@pytest.mark.parametrize(
    ("detection_time", "interval"), [(10.0, 1.428), (5.0, 0.714), (1.0, 0.142), (0.1, 0.014), (3600.0, 514.285)]
)
def test_probe_interval_is_a_seventh_in_whole_milliseconds(detection_time: float, interval: float) -> None:
    assert timers.probe_interval(detection_time) == pytest.approx(interval, abs=1e-9)


def test_raise_is_twice_the_round_trip_and_seven_intervals() -> None:
    time = DetectionTime(10.0, adaptive=True)
    assert not time.too_slow(1.428)
    assert time.too_slow(2.3134)
    time.raise_for(2.3134, 100.0)
    assert (time.interval, time.value) == pytest.approx((4.626, 32.382))
    assert time.raised


def test_lowering_waits_for_the_settling_time_and_halves_down_to_what_was_asked_for() -> None:
    time = DetectionTime(10.0, adaptive=True)
    time.raise_for(2.3134, 100.0)
    assert not time.may_be_lowered(160.0)
    assert time.may_be_lowered(160.001)
    assert time.fast(1.156)
    assert not time.fast(1.157)
    time.lower()
    assert (time.value, time.interval) == pytest.approx((16.191, 2.313))
    time.lower()
    assert (time.value, time.interval) == (10.0, 1.428)
    assert not time.raised
    assert not time.may_be_lowered(1000.0)


def slow_node(**fields: Any) -> VirtualNode:
    node = VirtualNode(numbered_group(2, **{"detection_time": 10.0, **fields}), latency=0.001)
    node.start()
    node.run(120)
    return node


def slow_down(node: VirtualNode, target: str, seconds: float) -> None:
    node.network.latency[address(target)] = seconds


def test_slow_target_raises_the_time_of_the_whole_group_and_says_so() -> None:
    node = slow_node()
    slow_down(node, "198.18.0.1", 1.0)
    assert node.run(30, lambda: node.snapshot().detection_time > 10.0)
    assert node.snapshot().detection_time == pytest.approx(32.382, abs=0.2)
    assert node.snapshot().detection_time_configured == 10.0
    assert len(node.told(Reason.DETECTION_TIME_RAISED)) >= 1
    assert node.verdicts == []


def test_fast_again_lowers_step_by_step_after_a_minute() -> None:
    node = slow_node()
    slow_down(node, "198.18.0.1", 1.0)
    node.run(30, lambda: node.snapshot().detection_time > 10.0)
    raised_at, raised = node.now, node.snapshot().detection_time
    slow_down(node, "198.18.0.1", 0.001)
    assert node.run(300, lambda: node.snapshot().detection_time < raised)
    assert node.now - raised_at > 60.0
    assert node.snapshot().detection_time == pytest.approx(raised / 2)
    assert node.run(100, lambda: node.snapshot().detection_time == 10.0)
    assert len(node.told(Reason.DETECTION_TIME_LOWERED)) == 2


def test_one_member_with_a_slow_target_keeps_the_time_up() -> None:
    node = slow_node()
    node.delay = lambda probe: 1.0 if probe.interface == "nic1" else 0.0
    node.run(30, lambda: node.snapshot().detection_time > 10.0)
    node.delay = lambda probe: 1.3 if probe.interface == "nic1" else 0.0
    node.run(300)
    assert node.snapshot().detection_time > 20.0


def test_without_adaptation_the_time_stays() -> None:
    node = slow_node(adaptive=False)
    slow_down(node, "198.18.0.1", 2.0)
    node.run(200)
    assert node.snapshot().detection_time == 10.0
    assert node.verdicts == []


def test_measuring_probes_go_at_the_configured_interval_while_the_time_is_raised() -> None:
    node = slow_node()
    node.remember_probes = True
    node.run(20)
    assert not any(probe.kind is ProbeKind.RTT for _, probe in node.sent)
    slow_down(node, "198.18.0.1", 1.0)
    node.run(30, lambda: node.snapshot().detection_time > 10.0)
    node.run(5.0)  # every member has begun to measure
    node.sent.clear()
    start = node.now
    node.run(28.56)

    def count(kind: ProbeKind) -> int:
        return sum(probe.kind is kind and probe.interface == "nic0" for _, probe in node.sent)

    interval = node.snapshot().detection_time / 7
    assert count(ProbeKind.RTT) == pytest.approx((node.now - start) / 1.428, abs=2)
    assert count(ProbeKind.DETECTION) == pytest.approx((node.now - start) / interval, abs=1)


def test_measuring_probes_never_fail_nor_repair() -> None:
    node = slow_node()
    slow_down(node, "198.18.0.1", 1.0)
    node.run(30, lambda: node.snapshot().detection_time > 10.0)
    raised = node.snapshot().detection_time
    only_rtt = lambda probe: 0.0 if probe.kind is ProbeKind.RTT else 1e6  # noqa: E731
    node.delay = only_rtt
    node.run(2 * raised)
    assert node.failed
    node.run(20 * raised)
    assert node.failed


@pytest.mark.parametrize("count", [5, 4, 3])
def test_exceptional_target_is_set_aside_only_among_four_or_more(count: int) -> None:
    node = slow_node(pins=FIVE[:count])
    slow_down(node, "198.18.0.1", 1.5)
    node.run(120, lambda: bool(node.told(Reason.TARGET_SLOW) or node.told(Reason.DETECTION_TIME_RAISED)))
    states = {str(t.address): t.state for t in node.interface("nic0").probers[0].targets}
    if count >= 4:
        assert node.told(Reason.TARGET_SLOW)
        node.run(30)
        assert node.snapshot().detection_time == 10.0
    else:
        assert node.told(Reason.DETECTION_TIME_RAISED)
        assert states["198.18.0.1"] is TargetState.ACTIVE


def test_slow_target_rests_a_minute() -> None:
    node = slow_node(pins=FIVE)
    slow_down(node, "198.18.0.1", 1.5)
    node.run(120, lambda: bool(node.told(Reason.TARGET_SLOW)))
    first = next(n.interface for _, n in node.notices if n.reason is Reason.TARGET_SLOW)
    assert first is not None
    since = node.now
    slow_down(node, "198.18.0.1", 0.001)

    def state() -> TargetState:
        targets = node.interface(first).probers[0].targets
        return next(t.state for t in targets if str(t.address) == "198.18.0.1")

    assert state() is TargetState.SLOW
    assert node.run(70, lambda: state() is TargetState.ACTIVE)
    assert node.now - since > 60.0


def test_failure_resets_every_round_trip_of_the_interface() -> None:
    node = slow_node(detection_time=1.0)
    node.link("nic0", up=False)
    assert [t.crtt for p in node.interface("nic0").probers for t in p.targets] == [0.0]
    assert all(t.crtt > 0 for p in node.interface("nic1").probers[:1] for t in p.targets)


def test_replies_measured_while_failed_do_not_count() -> None:
    node = slow_node(detection_time=1.0)
    node.silence("nic0")
    node.run(2, lambda: not node.interface("nic0").usable)
    node.silence("nic0", on=False)
    node.delay = lambda _: 0.05
    node.run(2.5, lambda: node.interface("nic0").usable)
    assert [t.crtt for t in node.interface("nic0").probers[0].targets] == [0.0]


def test_an_older_probe_answered_after_a_newer_one_is_not_measured() -> None:
    node = slow_node(detection_time=1.0)
    node.remember_probes = True
    before = node.interface("nic0").probers[0].targets[0].crtt
    late: list[SendProbe] = []

    def first_is_late(probe: SendProbe) -> float:
        if probe.interface == "nic0" and not late:
            late.append(probe)
            return 0.3
        return 0.0

    node.delay = first_is_late
    node.run(1.0)
    row = next(row for _, row in node.closed if row.interface == "nic0" and row.network_rtt and row.network_rtt > 0.3)
    assert row.sequence == late[0].sequence
    assert node.interface("nic0").probers[0].targets[0].crtt == pytest.approx(before, rel=0.3)


def test_starved_agent_does_not_blame_the_target() -> None:
    node = VirtualNode(numbered_group(2))
    node.start()
    node.run(3)
    node.lateness = lambda: 0.05
    node.delay = lambda _: 0.3
    node.run(5)
    assert node.told(Reason.DETECTION_TIME_RAISED)[0].startswith(
        "this agent is not given the processor in time for 1000 ms: failure detection time is now"
    )
