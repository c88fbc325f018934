"""Hosts that are set up as guides for two NICs on one link say: a table and a rule for each address."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.lab import Lab, PingTrain, wait_for
from tests.lab.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE = "198.18.0.11"
GUIDES = {
    "netplan": f"route add 198.18.0.0/24 dev nic0 src {NODE} table 100",
    "a storage vendor's": f"route add 198.18.0.0/24 via {NODE} dev nic0 table 100",
}


@pytest.fixture(params=GUIDES)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(router=True, nic_addresses={"nic0": (f"{NODE}/24",)}) as running:
        running.host.namespace.batch(
            [
                GUIDES[request.param],
                "route add default via 198.18.0.1 dev nic0 table 100",
                f"rule add from {NODE} lookup 100",
            ]
        )
        yield running


@pytest.mark.parametrize("failure", ["unplug", "silence"])
def test_answers_of_a_moved_address_leave_by_the_member_that_has_it(lab: Lab, failure: str) -> None:
    with Scene(lab=lab, watched=()) as scene:
        observers = [lab.peer(1).namespace, lab.hosts["remote"].namespace]
        trains = [PingTrain(observer, NODE, 0.01) for observer in observers]
        for train in trains:
            train.__enter__()
            train.wait_answered()
        getattr(lab.host.nic("nic0"), failure)()
        wait_for(lambda: lab.host.holders(NODE), lambda holders: holders == ["nic1"])
        for train in trains:
            train.wait_answered()
        moved = time.monotonic()
        time.sleep(3)
        out = time.monotonic()
        (lab.host.nic("nic0").plug if failure == "unplug" else lab.host.nic("nic0").restore)()
        scene.wait_state("ok")
        for train in trains:
            train.wait_answered()
            report = train.stop()
            assert report.between(moved, out).lost == 0
            assert report.longest_outage < (1.0 if failure == "unplug" else 3.0)
        assert not [f for f in scene.agent.status()["groups"][0]["findings"] if f["reason"] == "RoutesNotFollowed"]
        scene.settle()
