"""Targets that answer only so many probes in a second are asked less often, and nobody is condemned for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipmp_agent.core import timers
from ipmp_agent.core.reasons import Reason
from tests.virtual_node import VirtualNode, numbered_group

if TYPE_CHECKING:
    from ipmp_api.types import Address

ANSWERS = 5.0
PINS = ("198.18.0.1", "198.18.0.2", "fe80::51", "fe80::52")


class Bucket:
    """A token bucket, as kernels and routers limit what they answer."""

    def __init__(self, node: VirtualNode, rate: float, burst: float) -> None:
        self._node, self._rate, self._burst = node, rate, burst
        self._tokens, self._at = burst, node.now

    def __call__(self, interface: str, target: Address) -> bool:
        """Whether one more probe is answered now."""
        del interface, target
        now = self._node.now
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def limited(seed: int = 0, *, members: int = 2, rate: float = ANSWERS, **fields: object) -> VirtualNode:
    node = VirtualNode(numbered_group(members, **fields), seed=seed)  # type: ignore[arg-type]
    node.reaches = Bucket(node, rate, rate)
    node.start()
    return node


@pytest.mark.parametrize("members", [2, 3])
@pytest.mark.parametrize("seed", range(15))
def test_rate_limited_gateway_condemns_nobody(seed: int, members: int) -> None:
    node = limited(seed, members=members)
    node.run(300)
    assert node.verdicts == []
    assert node.failovers == []
    assert node.told(Reason.DETECTION_TIME_RAISED)[0] == (
        "the targets answer every interface now and then only, as if they limited the rate: "
        "half as many probes, failure detection time is now 2000 ms"
    )


def test_limit_that_begins_while_all_is_well_condemns_hardly_anybody() -> None:
    """Now and then one member gets every answer and the other none: that looks like a broken NIC until it is shared."""
    condemned = 0
    for seed in range(30):
        node = VirtualNode(numbered_group(2), seed=seed)
        node.start()
        node.run(10)
        node.reaches = Bucket(node, ANSWERS, ANSWERS)
        node.run(60)
        condemned += bool(node.verdicts)
    assert condemned <= 1


@pytest.mark.parametrize("seed", range(5))
def test_failure_beside_a_member_that_loses_now_and_then_is_put_off_for_four_probes_at_most(seed: int) -> None:
    node = VirtualNode(numbered_group(2), seed=seed)
    node.network.nics["nic1"].loss = 0.01
    node.start()
    node.run(20)
    node.silence("nic0")
    interval = node.snapshot().detection_time / timers.PROBES_PER_DETECTION_TIME
    patience = node.snapshot().detection_time + (timers.RATE_LIMIT_LOSSES - timers.PROBE_FAILURES) * interval
    assert node.run(patience, lambda: not node.interface("nic0").usable)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("loss", [0.05, 0.2, 0.35])
@pytest.mark.parametrize("members", [2, 3])
def test_failure_beside_members_that_lose_much_is_found_in_fifteen_detection_times(
    members: int, loss: float, seed: int
) -> None:
    """It takes 1 + 2 + 4 + 8 of them until the rate is not halved any more."""
    node = VirtualNode(numbered_group(members, pins=PINS), seed=seed, link_local=True)
    node.start()
    node.run(3)
    for key in list(node.network.nics)[1:]:
        node.network.nics[key].loss = loss
    node.run(seed)
    in_force = node.snapshot().detection_time
    node.silence("nic0")
    assert node.run(15 * in_force, lambda: not node.interface("nic0").usable)


def test_rate_comes_down_to_what_the_target_answers_and_stays_there() -> None:
    node = limited()
    node.run(30)
    assert node.snapshot().detection_time == 4.0
    node.remember_probes = True
    node.run(600)
    assert len(node.sent) / 600 < ANSWERS
    assert sum(row.rtt is None for _, row in node.closed) == 0
    assert len(node.told(Reason.DETECTION_TIME_RAISED)) == 2


def test_faster_probes_are_tried_again_after_an_hour() -> None:
    node = limited()
    node.run(30)
    node.reaches = None
    node.run(timers.RATE_LIMIT_MEMORY + 300)
    assert node.snapshot().detection_time == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_failure_is_found_in_the_time_that_the_limit_leaves(seed: int) -> None:
    node = limited(seed)
    node.run(60)
    node.silence("nic0")
    assert node.run(node.snapshot().detection_time, lambda: not node.interface("nic0").usable)
    assert node.held_by("nic1") == [1, 2]


@pytest.mark.parametrize("seed", range(5))
def test_lossy_member_beside_a_clean_one_is_no_limit(seed: int) -> None:
    node = VirtualNode(numbered_group(2), seed=seed)
    node.network.nics["nic0"].loss = 0.4
    node.start()
    node.run(60)
    assert node.told(Reason.DETECTION_TIME_RAISED) == []


@pytest.mark.parametrize("seed", range(5))
def test_dead_target_beside_a_good_one_is_no_limit(seed: int) -> None:
    """All members lose every second probe then; one that breaks meanwhile is condemned in time."""
    node = VirtualNode(numbered_group(2, pins=("198.18.0.1", "198.18.0.2")), seed=seed)
    node.start()
    node.run(5)
    node.target("198.18.0.1", up=False)
    node.run(0.6)
    node.silence("nic0")
    assert node.run(1.0, lambda: not node.interface("nic0").usable)
    assert node.told(Reason.DETECTION_TIME_RAISED) == []


@pytest.mark.parametrize("seed", range(5))
def test_targets_that_die_are_no_limit(seed: int) -> None:
    node = VirtualNode(numbered_group(2), seed=seed)
    node.start()
    node.run(5)
    node.all_targets(up=False)
    assert node.run(1.0, lambda: node.failed)
    assert node.told(Reason.DETECTION_TIME_RAISED) == []


def test_loss_that_does_not_come_of_the_rate_ends_the_search_for_it() -> None:
    node = VirtualNode(numbered_group(2))
    for nic in node.network.nics.values():
        nic.loss = 0.3
    node.start()
    node.run(600)
    assert node.snapshot().detection_time <= 2**timers.RATE_HALVINGS


def test_where_the_time_is_fixed_it_stays() -> None:
    node = limited(adaptive=False)
    node.run(60)
    assert node.snapshot().detection_time == 1.0
