"""A member is taken out of use for maintenance and given back, as an administrator does it on the node."""

from __future__ import annotations

import threading

from tests import invariants
from tests.lab.scene import V4, Scene
from tests.lab.status import interface_status


def test_offline_moves_the_addresses_away_and_online_brings_the_member_back() -> None:
    with Scene() as scene:
        nic = scene.holder(V4)
        done = scene.agent.command("ipmpadm", "offline", nic.name)
        assert done.returncode == 0, done.stderr
        scene.wait_moved(V4, nic)
        scene.flows()
        assert scene.settle().usable == {scene.other(nic).name}
        assert interface_status(scene.agent.status(), nic.name)["state"] == "offline"
        assert scene.agent.command("ipmpadm", "online", nic.name).returncode == 0
        scene.wait_state("ok")
        scene.flows()
        scene.settle()
        for train in scene.pings.values():
            assert train.stop().lost <= 1, "the new home answers before the old one stops"
        for stream in scene.streams.values():
            assert stream.stop().error is None


def test_offline_outlives_a_restart_and_a_cable_out_and_in() -> None:
    with Scene() as scene:
        nic = scene.holder(V4)
        scene.agent.command("ipmpadm", "offline", nic.name)
        scene.wait_moved(V4, nic)
        before = scene.agent.dump()
        scene.agent.kill()
        scene.agent.start()
        invariants.as_it_was_found(before, scene.agent.dump())
        nic.unplug()
        nic.plug()
        threading.Event().wait(3)
        assert interface_status(scene.agent.status(), nic.name)["state"] == "offline"
        scene.settle()
        assert scene.agent.command("ipmpadm", "online", nic.name).returncode == 0
        scene.wait_state("ok")
        scene.settle()


def test_last_working_member_is_refused_to_go_offline() -> None:
    with Scene() as scene:
        nic = scene.holder(V4)
        scene.other(nic).unplug()
        scene.wait_state("degraded")
        homes = scene.homes()
        done = scene.agent.command("ipmpadm", "offline", nic.name)
        assert done.returncode == 1
        assert nic.name in done.stderr
        invariants.nothing_moved(homes, scene.homes(), "a refused offline")
        scene.settle()


def test_unknown_interface_and_silent_agent_are_named() -> None:
    with Scene(watched=()) as scene:
        done = scene.agent.command("ipmpadm", "offline", "nic7")
        assert done.returncode == 1
        assert "nic7" in done.stderr
        scene.agent.stop()
        for words in (("ipmpadm", "offline", "nic0"), ("ipmpstat", "-i")):
            done = scene.agent.command(*words)
            assert done.returncode == 1
            assert str(scene.agent.runtime_directory) in done.stderr
