"""How long failure and repair take, by simulation over many seeds.

In units of the failure detection time, and for any: the schedule scales with it. Bounds from the schedule itself: the
first lost probe leaves at most 1.5 intervals after the fault, the fifth four slots later, and the next tick judges.
"""

from __future__ import annotations

import random
import statistics
from ipaddress import IPv4Address

import pytest

from ipmp_agent.core import timers
from ipmp_agent.core.actions import ProbeProtocol
from ipmp_agent.core.events import Family, ProbeAnswered
from ipmp_agent.core.probing import Prober
from ipmp_agent.core.targets import TargetOrigin
from tests.virtual_node import VirtualNode, numbered_group

TARGETS = [IPv4Address(f"198.18.0.{n}") for n in range(1, 4)]
ROUNDING = 0.99
"""The interval is cut to whole milliseconds: 7 x 14 ms are 98 of 100."""


def timed(seed: int, detection_time: float, *, rtt: float, fault: bool, targets: int = 1) -> float:
    """Seconds from the fault (or its end) to the verdict of one prober, as the group takes it at a tick."""
    interval = timers.probe_interval(detection_time)
    rng = random.Random(seed)
    prober = Prober("nic0", Family.IPV4, 0.0, rng)
    prober.use(ProbeProtocol.ARP, None, "")
    prober.targets.offer([(target, TargetOrigin.PIN) for target in TARGETS[:targets]], 0.0)
    prober.start(0.0, interval)
    changed = (20 + rng.random()) * interval
    answers: list[tuple[float, ProbeAnswered]] = []
    while True:
        now = prober.probe_at
        for at, answer in [pair for pair in answers if pair[0] <= now]:
            prober.answered(answer, interval, measure=True)
            answers.remove((at, answer))
        prober.begin_tick(now, interval)
        if now >= changed and (prober.failing(now, detection_time) if fault else prober.repaired()):
            return now - changed
        for probe in prober.send_next(now):
            if (now + rtt < changed) == fault:
                answer = ProbeAnswered("nic0", Family.IPV4, probe.target, probe.sequence, probe.kind, rtt, rtt)
                answers.append((now + rtt, answer))


@pytest.mark.parametrize("detection_time", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("targets", [1, 3])
def test_failure_is_always_detected_within_the_detection_time(detection_time: float, targets: int) -> None:
    runs = [timed(s, detection_time, rtt=0.0002, fault=True, targets=targets) for s in range(400)]
    bound = 6.5 / 7 * detection_time
    assert max(runs) <= bound + 1e-9
    assert min(runs) >= 4.0 / 7 * ROUNDING * detection_time
    assert 0.70 * detection_time < statistics.mean(runs) < 0.86 * detection_time


def test_failure_behind_a_slow_target_is_detected_within_little_more() -> None:
    """Round trips of 0.8 intervals: the judging tick may have to wait for one more."""
    interval = timers.probe_interval(1.0)
    runs = [timed(seed, 1.0, rtt=0.8 * interval, fault=True) for seed in range(400)]
    assert max(runs) <= 7.5 / 7 + 0.8 / 7
    assert statistics.quantiles(runs, n=100)[98] <= 1.10


@pytest.mark.parametrize("detection_time", [0.1, 1.0, 10.0])
def test_repair_takes_about_twice_the_detection_time(detection_time: float) -> None:
    runs = [timed(seed, detection_time, rtt=0.0002, fault=False) for seed in range(400)]
    assert max(runs) <= 1.65 * detection_time
    assert min(runs) >= 1.30 * detection_time * ROUNDING
    assert 1.40 * detection_time * ROUNDING < statistics.mean(runs) < 1.60 * detection_time


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("detection_time", [0.1, 1.0])
def test_whole_group_fails_over_within_the_detection_time(detection_time: float, seed: int) -> None:
    node = VirtualNode(numbered_group(2, detection_time=detection_time), seed=seed)
    node.start()
    node.run((20 + seed / 20) * detection_time / 7)
    node.silence("nic0")
    start = node.now
    assert node.run(detection_time, lambda: node.held_by("nic1") == [1, 2]), f"seed {seed}"
    node.silence("nic0", on=False)
    start = node.now
    assert node.run(2 * detection_time, lambda: node.held_by("nic0") != []), f"seed {seed}"
    assert node.now - start >= 1.25 * detection_time


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("link_local", [False, True])
@pytest.mark.parametrize("targets", [3, 4, 5])
def test_many_targets_do_not_delay_the_failover_beyond_the_detection_time(
    targets: int, link_local: bool, seed: int
) -> None:
    """With five each is asked once in five losses: the proof may have to wait for one probe more."""
    pins = [form.format(n) for form in ("198.18.0.{}", "fe80::{}") for n in range(51, 51 + targets)]
    node = VirtualNode(numbered_group(2, pins=pins), seed=seed, link_local=link_local)
    node.start()
    node.run(3 + seed / 20)
    node.silence("nic0")
    assert node.run(1.0, lambda: node.held_by("nic1") == [1, 2])


def test_gone_link_takes_no_time_at_all() -> None:
    node = VirtualNode(numbered_group(2))
    node.start()
    node.run(1)
    start = node.now
    node.link("nic0", up=False)
    assert node.held_by("nic1") == [1, 2]
    assert node.now == start
