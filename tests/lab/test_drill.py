"""A failure on purpose, on real interfaces: played by the agent, measured, and over whatever becomes of who asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.scene import V4, Scene
from tests.lab.status import interface_status

if TYPE_CHECKING:
    from tests.lab.topology import Nic


def drill(scene: Scene, nic: Nic, *options: str) -> tuple[int, dict[str, Any]]:
    done = scene.agent.command("ipmpadm", "drill", nic.name, "--json", *options)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("kind", ["link", "silent"])
def test_drill_moves_real_addresses_and_gives_them_back(kind: str) -> None:
    with Scene() as scene:
        nic, homes = scene.holder(V4), scene.homes()
        code, result = drill(scene, nic, f"--kind={kind}", "--seconds=4")
        assert (code, result["passed"], result["faults"]) == (0, True, [])
        assert result["addresses"] > 0
        assert 0 <= result["detected"] <= result["gap"] < result["answered"]
        assert result["returned"] is not None
        scene.wait_state("ok", deadline=60)
        assert scene.homes() == homes
        (group,) = scene.agent.status()["groups"]
        assert "Drill" in {one["reason"] for one in group["history"]}
        scene.flows()
        scene.settle()
        for stream in scene.streams.values():
            assert stream.stop().error is None


def test_drill_ends_although_nobody_waits_for_it() -> None:
    with Scene() as scene:
        nic = scene.holder(V4)
        with scene.agent.begin("ipmpadm", "drill", nic.name, "--seconds=3") as asking:
            scene.wait_moved(V4, nic)
            asking.kill()
        scene.wait_state("ok", deadline=60)
        scene.settle()


def test_agent_killed_during_a_drill_takes_the_interface_back() -> None:
    with Scene() as scene:
        nic = scene.holder(V4)
        with scene.agent.begin("ipmpadm", "drill", nic.name, "--seconds=300"):
            scene.wait_moved(V4, nic)
            scene.agent.kill()
        scene.agent.start()
        scene.wait_state("ok", deadline=60)
        scene.flows()
        scene.settle()


def test_failure_of_the_other_interface_ends_a_drill_at_once() -> None:
    with Scene() as scene:
        nic = scene.holder(V4)
        with scene.agent.begin("ipmpadm", "drill", nic.name, "--seconds=300", "--json") as asking:
            scene.wait_moved(V4, nic)
            scene.other(nic).unplug()
            said, _ = asking.communicate(timeout=60)
        assert "no other interface works any more" in json.loads(said)["faults"][0]
        assert asking.returncode == 1
        scene.wait_moved(V4, scene.other(nic))
        assert interface_status(scene.agent.status(), nic.name)["state"] == "ok"
        scene.flows()


def test_without_redundancy_a_drill_is_refused() -> None:
    with Scene() as scene:
        nic = scene.holder(V4)
        scene.other(nic).unplug()
        scene.wait_state("degraded")
        homes = scene.homes()
        done = scene.agent.command("ipmpadm", "drill", nic.name)
        assert done.returncode == 1
        assert "no other interface of the group works" in done.stderr
        assert scene.homes() == homes
