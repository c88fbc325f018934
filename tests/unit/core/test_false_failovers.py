"""What must never cause a failover: loss, starvation, suspension, dead targets, strange replies.

A few seeds here; benchmarks/ does the same for hours.
"""

from __future__ import annotations

from functools import partial
from ipaddress import IPv6Address

import pytest

from ipmp_agent.core import events, timers
from ipmp_agent.core.events import Family
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.words import GroupState, TargetState
from ipmp_api.types import ProbeMethod
from tests.virtual_node import VirtualNode, numbered_group

INTERVAL = timers.probe_interval(1.0)
PINS = ("198.18.0.1", "198.18.0.2", "198.18.0.3")


def running(seed: int = 0, active: int = 2, standby: int = 0, **fields: object) -> VirtualNode:
    node = VirtualNode(numbered_group(active, standby, **fields), seed=seed)  # type: ignore[arg-type]
    node.start()
    node.run(3)
    return node


def unmoved(node: VirtualNode) -> None:
    assert node.failovers == [], f"seed {node.seed}: {node.notices}"
    assert node.verdicts == [], f"seed {node.seed}: {node.notices}"


@pytest.mark.parametrize("seed", range(2))
def test_ten_minutes_of_two_percent_loss_on_every_member(seed: int) -> None:
    node = running(seed)
    for nic in node.network.nics.values():
        nic.loss = 0.01  # there, and back
    node.run(600)
    assert sum(p.lost for i in node.snapshot().interfaces for p in i.probers) > 80
    unmoved(node)


@pytest.mark.parametrize("limit", [None, 0, 1], ids=["replies-kept", "replies-lost", "one-kept"])
@pytest.mark.parametrize("seed", range(3))
def test_agent_suspended_for_five_seconds_twenty_times(seed: int, limit: int | None) -> None:
    node = running(seed)
    node.inbox_limit = limit
    for _ in range(20):
        node.suspend(5.0)
        node.run(5.0 + node.random.uniform(0.0, 1.0))
    unmoved(node)
    assert len(node.told(Reason.AGENT_SUSPENDED)) == 20
    assert all(i.probers[0].missed >= 20 * 34 for i in node.snapshot().interfaces)


@pytest.mark.parametrize("limit", [None, 0], ids=["replies-kept", "replies-lost"])
def test_agent_suspended_for_moments_again_and_again(limit: int | None) -> None:
    """Replies that arrive while it does not run never reach it; it is never late enough to notice for long."""
    node = running()
    node.inbox_limit = limit
    for _ in range(300):
        node.suspend(node.random.uniform(0.1, 1.5) * INTERVAL)
        node.run(node.random.uniform(1.6, 3.0) * INTERVAL)
    unmoved(node)


@pytest.mark.parametrize(("shortest", "longest"), [(0.0, 0.3), (0.3, 0.6), (0.5, 2.0)])
def test_ticks_that_come_late(shortest: float, longest: float) -> None:
    node = running()
    node.lateness = lambda: node.random.uniform(shortest, longest) * INTERVAL
    node.run(120)
    unmoved(node)


def test_suspension_tells_nothing_about_a_fault_that_began_meanwhile() -> None:
    node = running()
    node.suspend(5.0)
    node.run(2.0)
    node.silence("nic0")
    node.run(3.0)
    unmoved(node)
    assert node.run(1.1, lambda: node.active == ["nic1"]), "and it is found in time afterwards"


@pytest.mark.parametrize("seed", range(3))
def test_all_targets_dead_and_back_again_and_again(seed: int) -> None:
    node = running(seed, standby=1, pins=PINS)
    for _ in range(6):
        node.all_targets(up=False)
        node.run(node.random.uniform(0.3, 6.0))
        node.all_targets(up=True)
        node.run(node.random.uniform(4.0, 8.0))
    assert node.snapshot().state is GroupState.OK
    assert node.failovers == []
    assert node.told(Reason.PROBES_LOST) == []


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dead", [1, 2])
def test_dead_targets_among_several(seed: int, dead: int) -> None:
    node = running(seed, pins=PINS)
    for pin in PINS[:dead]:
        node.target(pin, up=False)
    node.run(60)
    unmoved(node)


FIVE = tuple(f"198.18.0.{n}" for n in range(1, 6))
FIVE_V6 = tuple(f"fe80::{n}" for n in range(51, 56))


@pytest.mark.parametrize("spread", [0.0, 0.1, 0.3, 0.6, 1.2])
@pytest.mark.parametrize("pins", [FIVE[:2], FIVE[:3], FIVE, FIVE[:2] + FIVE_V6[:2], FIVE + FIVE_V6], ids=len)
def test_targets_that_fall_silent_one_after_the_other(pins: tuple[str, ...], spread: float) -> None:
    """What answered one member after the other's first loss had not been lost by that one yet."""
    for seed in range(8):
        node = VirtualNode(numbered_group(2, pins=pins), seed=seed, link_local=True)
        node.start()
        node.run(3)
        for pin in pins:
            node.at(node.now + node.random.uniform(0.0, spread), partial(node.target, pin, up=False))
        node.run(spread + 4)
        assert node.failed, f"seed {seed}"
        assert node.failovers == [], f"seed {seed}: {node.notices}"


@pytest.mark.parametrize("intervals", [3.5, 4.2, 5.0, 6.0, 7.5])
@pytest.mark.parametrize("pins", [FIVE[:1], FIVE[:3], FIVE, FIVE + FIVE_V6], ids=len)
def test_all_targets_silent_for_a_part_of_the_detection_time(pins: tuple[str, ...], intervals: float) -> None:
    """Who is asked first after they came back is answered first: that says nothing about the other."""
    for seed in range(20):
        node = VirtualNode(numbered_group(2, pins=pins), seed=seed, link_local=True)
        node.start()
        node.run(3)
        node.all_targets(up=False)
        node.run(intervals * INTERVAL)
        node.all_targets(up=True)
        node.run(4)
        assert node.failovers == [], f"seed {seed}: {node.notices}"


def deaf_to_all_but_the_first(seed: int, pins: tuple[str, ...]) -> VirtualNode:
    """nic0 has set aside all targets but one, which it could not reach for a while."""
    node = running(seed, pins=pins)
    node.reaches = lambda key, address: key != "nic0" or str(address) == pins[0]
    node.run(16)
    node.reaches = None
    node.run(1)
    targets = node.interface("nic0").probers[0].targets
    assert [str(t.address) for t in targets if t.state is TargetState.ACTIVE] == [pins[0]]
    return node


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_only_target_that_a_member_asks_dies(count: int, seed: int) -> None:
    node = deaf_to_all_but_the_first(seed, FIVE[:count])
    node.target(FIVE[0], up=False)
    node.run(10)
    unmoved(node)
    node.silence("nic0")
    assert node.run(1.0, lambda: node.active == ["nic1"]), "and it asks others since"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [2, 3, 4])
def test_member_that_breaks_with_its_only_target_is_found_in_two_detection_times(count: int, seed: int) -> None:
    node = deaf_to_all_but_the_first(seed, FIVE[:count])
    node.target(FIVE[0], up=False)
    node.silence("nic0")
    assert node.run(2.0, lambda: node.active == ["nic1"])


def test_member_whose_every_target_is_dead_gives_way_to_one_that_is_answered_by_others() -> None:
    """It has no way to show that it works, and nobody else to ask."""
    node = running(pins=(PINS[0], "fe80::99"))
    node.tell(events.TestAddressChanged("nic1", Family.IPV6, IPv6Address("fe80::2")))
    node.run(3)
    node.target(PINS[0], up=False)
    assert node.run(2.5, lambda: node.active == ["nic1"])


def test_target_that_dies_and_comes_back_every_second() -> None:
    node = running(pins=PINS)
    for _ in range(60):
        node.target(PINS[0], up=False)
        node.run(0.6)
        node.target(PINS[0], up=True)
        node.run(0.4)
    unmoved(node)


@pytest.mark.parametrize("intervals", [0.9, 1.5, 2.5, 4.0])
@pytest.mark.parametrize("adaptive", [True, False])
def test_late_replies(intervals: float, adaptive: bool) -> None:
    node = running(adaptive=adaptive)
    node.delay = lambda _: intervals * INTERVAL
    node.run(60)
    unmoved(node)


def test_replies_in_disorder() -> None:
    node = running(adaptive=False)
    node.delay = lambda _: node.random.uniform(0.0, 3.0) * INTERVAL
    node.run(60)
    unmoved(node)


def test_duplicate_replies() -> None:
    node = running()
    node.copies = 3
    node.run(30)
    unmoved(node)
    for interface in node.snapshot().interfaces:
        (prober, *_) = interface.probers
        assert prober.answered <= prober.sent


def test_duplicate_replies_neither_hide_a_failure_nor_speed_up_a_repair() -> None:
    node = running()
    node.copies = 3
    node.silence("nic0")
    assert node.run(1.0, lambda: node.active == ["nic1"])
    node.silence("nic0", on=False)
    assert not node.run(1.2, lambda: "nic0" in node.active)


@pytest.mark.parametrize("times", [1, 5])
def test_restarts_in_the_middle_of_everything(times: int) -> None:
    node = running()
    for _ in range(times):
        node.delay = lambda _: 0.3  # replies of the earlier life arrive in the next
        node.run(1.0)
        node.restart()
        node.delay = None
        node.run(2.0)
    assert node.failovers == []


def test_busy_hour_of_an_idle_group_asks_for_no_tick_in_vain() -> None:
    node = VirtualNode(numbered_group(2, pins=(), probe_method=ProbeMethod.DISABLED))
    node.start()
    ticks = 0
    tick = node.core.tick

    def counted(now: float) -> object:
        nonlocal ticks
        ticks += 1
        return tick(now)

    node.core.tick = counted  # type: ignore[assignment, method-assign]
    node.run(3600)
    assert ticks <= 4
