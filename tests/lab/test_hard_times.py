"""Faults that come in crowds, last long, or hit one half of something."""

from __future__ import annotations

import threading
import time

import pytest

from tests import invariants
from tests.lab import Family, Lab
from tests.lab.load import busy_machine
from tests.lab.scene import OTHER_V6, V4, V6, Scene, link_local


def test_flapping_cable_for_a_minute_stays_within_the_move_budget_and_is_repaired_when_quiet() -> None:
    with Scene(watched=(V4,)) as scene:
        nic = scene.holder(V4)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            nic.unplug()
            threading.Event().wait(0.5)
            nic.plug()
            threading.Event().wait(0.5)
        for address in scene.view().addresses:
            invariants.budget_kept({address: scene.sniffer.moves(address)})
        assert scene.view().usable == {scene.other(nic).name}
        scene.flows()
        scene.settle()
        scene.wait_state("ok", deadline=100)
        scene.settle()
        assert scene.streams[V4].stop().error is None


@pytest.mark.parametrize("milliseconds", [100, 300])
def test_short_detection_time_moves_silently_failed_addresses_and_nothing_else(milliseconds: int) -> None:
    with Scene(changes={"milliseconds": milliseconds}, spacing=0.002) as scene:
        homes = scene.homes()
        threading.Event().wait(3)
        invariants.nothing_moved(homes, scene.homes(), "nothing at all")
        broken = scene.holder(V4)
        broken.silence()
        scene.wait_moved(V4, broken)
        scene.flows()
        scene.settle()


def test_ipv6_only_host_fails_over() -> None:
    lab = Lab()
    changes = {
        "addresses": [f"{V6}/64", f"{OTHER_V6}/64"],
        "targets": [link_local(lab.peer(0).only), link_local(lab.peer(1).only)],
        "testAddresses": {},
    }
    with Scene(lab, changes=changes, watched=(V6,)) as scene:
        broken = scene.holder(V6)
        broken.silence()
        scene.wait_moved(V6, broken)
        scene.flows()
        broken.restore()
        scene.wait_state("ok")
        scene.settle()


@pytest.mark.parametrize("family", list(Family))
def test_one_dead_family_of_two_fails_no_nic(family: Family) -> None:
    """A NIC has failed when both families say so; one healthy family proves that it works."""
    with Scene() as scene:
        homes = scene.homes()
        scene.holder(V4).silence(families=[family])
        threading.Event().wait(3)
        invariants.nothing_moved(homes, scene.homes(), f"a dead {family}")
        assert scene.view().state == "ok"


def test_dead_router_with_living_peers_moves_nothing() -> None:
    lab = Lab(router=True)
    router = lab.hosts["router"].nic("eth0")
    targets = [lab.peer(0).ipv4, lab.peer(1).ipv4, "198.18.0.1", link_local(lab.peer(0).only), link_local(router)]
    with Scene(lab, changes={"targets": targets}) as scene:
        homes = scene.homes()
        router.unplug()
        threading.Event().wait(4)
        invariants.nothing_moved(homes, scene.homes(), "a dead router")
        assert scene.view().state == "ok"
        assert scene.pings[V4].stop().lost == 0


def test_switch_death_with_the_uplink_cut_before_and_after() -> None:
    with Scene(watched=()) as scene:
        scene.lab.uplink.unplug()
        threading.Event().wait(2)
        scene.settle()
        scene.lab.switches[0].die()
        scene.wait_state("degraded")
        assert scene.settle().usable == {"nic1"}
        scene.lab.switches[0].revive()
        scene.lab.uplink.plug()
        scene.wait_state("ok")
        scene.settle()


def test_hung_switch_fails_the_nic_on_it_though_its_carrier_stays() -> None:
    with Scene() as scene:
        scene.lab.switches[1].hang()
        scene.wait_state("degraded")
        scene.flows()
        assert scene.settle().usable == {"nic0"}


def test_two_percent_of_loss_on_all_members_fails_nobody() -> None:
    with Scene() as scene:
        homes = scene.homes()
        for nic in scene.lab.host.nics.values():
            nic.lose(2)
        threading.Event().wait(30)
        invariants.nothing_moved(homes, scene.homes(), "2 % of loss")
        assert not [one for address in (V4, V6) for one in scene.sniffer.moves(address)]
        assert scene.view().state == "ok"


def test_starved_processor_fails_nobody() -> None:
    with Scene() as scene:
        homes = scene.homes()
        with busy_machine():
            threading.Event().wait(15)
            invariants.nothing_moved(homes, scene.homes(), "a busy machine")
            assert scene.view().state == "ok"


def test_slow_target_fails_nobody() -> None:
    """A target 300 ms away cannot be judged in 143 ms intervals; the detection time is raised, and nothing fails."""
    with Scene() as scene:
        homes = scene.homes()
        for peer in (scene.lab.peer(0), scene.lab.peer(1)):
            scene.lab.delay(peer.only, 0.15)
        threading.Event().wait(8)
        invariants.nothing_moved(homes, scene.homes(), "slow targets")
        assert scene.view().state == "ok"
