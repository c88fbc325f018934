"""The agent may die, stand still, start again: the kernel stays as it is, and what was missed is made good."""

from __future__ import annotations

import json
import signal
import threading

import pytest

from tests import invariants
from tests.lab import wait_for
from tests.lab.scene import V4, V6, Scene


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_end_and_restart_change_nothing_and_lose_no_ping(ending: signal.Signals) -> None:
    with Scene() as scene:
        before = scene.agent.dump()
        if ending is signal.SIGTERM:
            assert scene.agent.stop() == 0
        else:
            scene.agent.kill()
        invariants.as_it_was_found(before, scene.agent.dump())
        scene.agent.start()
        scene.wait_state("ok")
        scene.settle()
        invariants.as_it_was_found(before, scene.agent.dump())
        for train in scene.pings.values():
            assert train.stop().lost == 0
        for stream in scene.streams.values():
            assert stream.stop().error is None


def test_restart_after_a_failover_keeps_the_failed_member_failed() -> None:
    with Scene() as scene:
        broken = scene.holder(V4)
        broken.silence()
        scene.wait_state("degraded")
        scene.flows()
        before = scene.agent.dump()
        history = scene.agent.ipmpstat("-H", "--json")
        on_disk = scene.agent.state_directory / "state.json"
        wait_for(on_disk.read_text, lambda text: '"reason":"ProbesLost"' in text, what="the failover on disk")
        scene.agent.kill()
        scene.agent.start()
        threading.Event().wait(2)
        assert scene.view().usable == {scene.other(broken).name}
        invariants.as_it_was_found(before, scene.agent.dump())
        past = json.loads(scene.agent.ipmpstat("-H", "--json"))
        assert past == json.loads(history), "the next agent knows what happened under the last one"
        (failover,) = [one for one in past if one["reason"] == "ProbesLost"]
        assert (failover["from"], failover["to"]) == (broken.name, scene.other(broken).name)
        assert failover["firstLoss"] < failover["decided"] <= failover["announced"]
        assert failover["outageSeconds"] > failover["moveSeconds"] > 0
        assert f"{V4}/24" in failover["addresses"]
        broken.restore()
        scene.wait_state("ok")
        scene.settle()


def test_link_that_came_up_and_forwards_nothing_is_not_taken_for_good_by_the_next_agent() -> None:
    """The targets are discovered, so who starts knows none."""
    with Scene(changes={"probes": {"targets": {"discovery": "Enabled"}}}) as scene:
        broken = scene.holder(V4)
        broken.unplug()
        scene.wait_moved(V4, broken)
        broken.silence()
        broken.plug()
        wait_for(scene.agent.log, lambda lines: any("waiting for probes" in str(line) for line in lines))
        on_disk = scene.agent.state_directory / "state.json"
        wait_for(on_disk.read_text, lambda text: '"LinkDown"' in text and '"failed":true' in text)
        scene.agent.kill()
        lived = len(scene.agent.log())
        scene.agent.start()
        threading.Event().wait(2)
        assert scene.view().usable == {scene.other(broken).name}
        assert [line for line in scene.agent.log()[lived:] if line.get("reason") == "LinkUp"] == []
        broken.restore()
        scene.wait_state("ok")
        scene.settle()


def test_cable_pulled_while_the_agent_is_dead_is_made_good_at_start() -> None:
    with Scene() as scene:
        broken = scene.holder(V4)
        scene.agent.kill()
        broken.unplug()
        scene.agent.start()
        scene.wait_moved(V4, broken)
        scene.flows()
        scene.settle()


def test_cable_pulled_while_the_agent_stands_still_is_made_good_when_it_goes_on() -> None:
    with Scene() as scene:
        broken = scene.holder(V6)
        scene.agent.suspend()
        broken.unplug()
        threading.Event().wait(0.5)
        assert scene.holder(V6) is broken
        scene.agent.resume()
        scene.wait_moved(V6, broken)
        scene.flows()
        scene.settle()


def test_agent_that_stood_still_finds_nobody_failed() -> None:
    with Scene() as scene:
        homes = scene.homes()
        for _ in range(3):
            scene.agent.suspend()
            threading.Event().wait(2.5)
            scene.agent.resume()
            threading.Event().wait(0.7)
            assert scene.view().state == "ok"
        invariants.nothing_moved(homes, scene.homes(), "an agent that stood still")
        assert scene.pings[V4].stop().lost == 0


def test_what_somebody_removes_is_put_back() -> None:
    with Scene() as scene:
        holder = scene.holder(V4)
        scene.lab.host.namespace.ip("address", "del", f"{V4}/24", "dev", holder.name)
        wait_for(lambda: scene.lab.host.holders(V4), lambda found: found == [holder.name], what=f"{V4} put back")
        scene.lab.host.namespace.ip("address", "flush", "dev", scene.other(holder).name, "scope", "global")
        scene.flows()
        scene.settle()


def test_per_interface_settings_are_set_and_held() -> None:
    with Scene(watched=()) as scene:
        wanted = {f"nic{i}/{name}={value}" for i in (0, 1) for name, value in WANTED_SETTINGS.items()}
        assert wanted <= set(scene.agent.dump().settings)
        scene.lab.host.namespace.sysctl({"ipv4/conf/nic0/arp_ignore": 0})
        wait_for(
            scene.agent.dump, lambda dump: wanted <= set(dump.settings), deadline=40, what="settings", interval=0.5
        )


WANTED_SETTINGS = {"arp_ignore": 1, "arp_announce": 2, "rp_filter": 2, "promote_secondaries": 1}
