"""Members probed in both families, by whom there is at the moment: hosts and routers come and go, and nothing breaks.

Both families of a member share its state, its quiet period and the detection time of the group, and each judges at its
own ticks. What one of them has done the other must not do again, nor take for something that is still to be done.
"""

from __future__ import annotations

import random
from collections import Counter
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from ipmp_agent.core import events
from ipmp_agent.core.reasons import Reason
from tests.virtual_node import VirtualNode, numbered_group

if TYPE_CHECKING:
    from ipmp_agent.core.actions import Notify

HOSTS = [*(f"198.18.0.{n}" for n in range(11, 17)), *(f"fe80::{n:x}" for n in range(0x11, 0x17))]
PINS = ("198.18.0.1", "198.18.0.2", "fe80::a1", "fe80::a2")
TEST_ADDRESSES = ("198.18.2.1/24", "198.18.2.2/24", "198.18.2.3/24")


def dual_stack(seed: int, *, latency: float = 0.001, members: int = 3, **fields: object) -> VirtualNode:
    group = numbered_group(members, **{"pins": (), "discovery": True, "test_addresses": TEST_ADDRESSES, **fields})  # type: ignore[arg-type]
    node = VirtualNode(group, seed=seed, latency=latency, hosts=HOSTS, link_local=True)
    node.start()
    return node


def come_and_go(node: VirtualNode, rng: random.Random) -> None:
    """One thing happens to who is there, and some time passes."""
    whom = rng.choice([*HOSTS, *PINS])
    match rng.randrange(12):
        case 0:
            node.tell(events.RoutersChanged(tuple(ip_address(r) for r in rng.sample(PINS, rng.randrange(len(PINS))))))
        case 1:
            node.network.latency[ip_address(whom)] = rng.choice([0.001, 0.05, 0.3])
        case 2:
            node.silence(rng.choice(list(node.network.nics)), on=rng.random() < 0.3)
        case 3:
            node.all_targets(up=rng.random() < 0.8)
        case 4:
            (node.offline if rng.random() < 0.5 else node.online)(rng.choice(list(node.network.nics)))
        case _:
            node.target(whom, up=rng.random() < 0.5)
    node.run(rng.uniform(0.02, 0.8))


def told_at_once(node: VirtualNode) -> list[tuple[float, Notify]]:
    """What was told more than once at one moment."""
    return [told for told, times in Counter(node.notices).items() if times > 1]


@pytest.mark.parametrize("latency", [0.001, 0.05])
@pytest.mark.parametrize("seed", range(12))
def test_hosts_that_come_and_go_break_nothing(seed: int, latency: float) -> None:
    rng = random.Random(seed)
    node = dual_stack(seed, latency=latency)
    for _ in range(80):
        node.target(rng.choice(HOSTS), up=rng.random() < 0.5)
        node.run(rng.uniform(0.02, 0.6))
    assert told_at_once(node) == []


@pytest.mark.parametrize("pins", [(), PINS[:1], PINS])
@pytest.mark.parametrize("seed", range(12))
def test_whoever_is_there_every_target_is_given_up_once_and_all_accounts_add_up(
    seed: int, pins: tuple[str, ...]
) -> None:
    rng = random.Random(seed)
    node = dual_stack(seed, pins=pins)
    for _ in range(120):
        come_and_go(node, rng)
        for interface in node.snapshot().interfaces:
            for p in interface.probers:
                assert p.sent == p.answered + p.lost + p.outstanding + p.discarded, f"{interface.interface}: {p}"
                assert len({target.address for target in p.targets}) == len(p.targets)
        assert node.snapshot().detection_time >= node.snapshot().detection_time_configured
    assert told_at_once(node) == []


@pytest.mark.parametrize("seed", range(8))
def test_dead_target_is_told_once_until_it_has_rested(seed: int) -> None:
    """The other family judges at its own ticks while this one has heard of nobody else yet."""
    node = dual_stack(seed, pins=PINS, members=2)
    node.run(5)
    node.target(PINS[0], up=False)
    node.run(20)
    messages = node.told(Reason.TARGET_DEAD)
    assert len(messages) == len(set(messages)) == 2  # one of each member


@pytest.mark.parametrize("seed", range(8))
def test_silent_failure_after_a_host_has_gone_is_found_in_time(seed: int) -> None:
    node = dual_stack(seed, members=2)
    node.run(5)
    for host in HOSTS[:2]:
        node.target(host, up=False)
    assert node.run(10, lambda: bool(node.told(Reason.TARGET_DEAD)))
    node.silence("nic0")
    assert node.run(1.0, lambda: not node.interface("nic0").usable)
