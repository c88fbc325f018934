"""Manifests, good, bad and changed, as a person at the command line meets them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import invariants
from tests.lab import Agent, KernelDump, Lab, group_manifest, wait_for
from tests.lab.agent import program
from tests.lab.scene import OTHER_V4, OTHER_V6, V4, V6, Scene, settle, usual_group
from tests.lab.status import group_view

ALL = (V4, V6, OTHER_V4, OTHER_V6)
REPOSITORY = Path(__file__).parents[2]


def ipmp_agent(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program("ipmp-agent"), *words], capture_output=True, text=True, check=False, timeout=30)


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"failureDetection": {"timeMilliseconds": 50}}, "timeMilliseconds", "50"),
    ({"interfaces": [{"name": "nic0", "macAddress": "02:00:00:00:00:01"}]}, "interfaces", "nic0"),
    ({"interfaces": []}, "interfaces", ""),
    ({"failback": "Sometimes"}, "failback", "Sometimes"),
    ({"dataAddresses": {"assigned": [{"nodeName": "lab1", "addresses": ["198.18.0.300/24"]}]}}, "addresses", "300"),
    ({"colour": "red"}, "colour", ""),
]


@pytest.mark.parametrize(("change", "field", "value"), BAD, ids=[field for _, field, _ in BAD])
def test_bad_manifest_is_refused_by_check_and_run_with_field_and_value(
    tmp_path: Path, change: dict[str, Any], field: str, value: str
) -> None:
    path = tmp_path / "group.yaml"
    path.write_text(yaml.safe_dump(group_manifest(**change)), encoding="utf-8")
    checked = ipmp_agent("check", "--file", str(path))
    ran = ipmp_agent(
        *("run", "--file", str(path), "--node-name", "lab1"),
        *("--state-dir", str(tmp_path), "--runtime-dir", str(tmp_path)),
    )
    for done in (checked, ran):
        assert done.returncode == 2, done.stderr
        said = done.stdout + done.stderr
        assert field in said
        assert value in said
        assert "Traceback" not in said


@pytest.mark.parametrize("text", ["{", "kind: IPMPGroup\n", "[1, 2]\n", ""], ids=["no YAML", "half", "a list", "empty"])
def test_file_that_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "group.yaml"
    path.write_text(text, encoding="utf-8")
    done = ipmp_agent("check", "--file", str(path))
    assert done.returncode == 2
    assert str(path) in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_missing_file_is_named(tmp_path: Path) -> None:
    done = ipmp_agent("check", "--file", str(tmp_path / "nowhere.yaml"))
    assert done.returncode == 2
    assert "nowhere.yaml" in done.stdout + done.stderr


def test_good_manifest_passes_the_check(tmp_path: Path) -> None:
    path = tmp_path / "group.yaml"
    path.write_text(yaml.safe_dump(group_manifest(addresses=["198.18.0.100/24"])), encoding="utf-8")
    assert ipmp_agent("check", "--file", str(path)).returncode == 0


@pytest.mark.parametrize("path", sorted((REPOSITORY / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_passes_the_check(path: Path) -> None:
    done = ipmp_agent("check", "--file", str(path))
    assert done.returncode == 0, done.stderr


def test_withdraw_puts_the_kernel_back_as_it_was_before_the_agent() -> None:
    with Lab() as lab:
        before = KernelDump.take(lab.host.namespace.run)
        with Agent(lab, usual_group(lab)) as agent:
            wait_for(lambda: lab.host.holders(V4), what="an address")
            lab.host.nic("nic0").unplug()
            wait_for(lambda: lab.host.holders(V4), lambda found: found == ["nic1"], what="failover")
            lab.host.nic("nic0").plug()
            refused = agent.withdraw()
            assert refused.returncode == 1, "a running agent would put everything back"
            assert agent.stop() == 0
            done = agent.withdraw()
            assert done.returncode == 0, done.stderr
            invariants.as_it_was_found(before, agent.dump())
            assert agent.withdraw().returncode == 0, "nothing left to withdraw is no fault"


@pytest.mark.parametrize("killed", [False, True], ids=["running", "killed before"])
def test_group_taken_from_the_files_leaves_no_trace_and_the_other_group_in_peace(killed: bool) -> None:
    lab = Lab(("nic0", "nic1", "nic2"))
    other = group_manifest("other", interfaces=["nic2"], addresses=["198.18.0.120/24"], targets=[lab.peer(0).ipv4])
    both = [other, usual_group(lab, interfaces=["nic0", "nic1"])]
    with lab, Agent(lab, [other]) as agent:
        wait_for(lambda: lab.host.holders("198.18.0.120"), what="the other group's address")
        agent.wait_for(lambda s: group_view(s, "other").state == "ok", what="ok")
        # The NICs that are no members are on the link of the other group, which has them answer for themselves only.
        guarded = {f"nic{number}/arp_ignore=1" for number in (0, 1)}
        wait_for(agent.dump, lambda dump: guarded <= set(dump.settings), what="guarded outsiders", deadline=30)
        before = agent.dump()
        agent.write(both)
        agent.reload()
        wait_for(lambda: lab.host.holders(V4) and lab.host.holders(V6), what="addresses of the group")
        if killed:
            agent.kill()
        agent.write([other])
        if killed:
            agent.start()
        else:
            agent.reload()
        wait_for(agent.dump, lambda dump: not before.difference(dump), what="withdrawal", interval=0.2)
        invariants.as_it_was_found(before, agent.dump())
        assert [one["snapshot"]["group"] for one in agent.status()["groups"]] == ["other"]


@pytest.mark.parametrize("killed", ["before", "after"])
@pytest.mark.parametrize("unplugged", [False, True], ids=["other works", "other does not work"])
def test_member_taken_out_around_the_death_of_the_agent_is_left_as_it_was(killed: str, *, unplugged: bool) -> None:
    """Its addresses go to the other member once that works, and nothing of ours stays on it."""
    with Lab() as lab:
        before = KernelDump.take(lab.host.namespace.run)
        with Agent(lab, usual_group(lab)) as agent:
            agent.wait_for(lambda s: group_view(s).state == "ok", what="ok")
            if unplugged:
                lab.host.nic("nic1").unplug()
                wait_for(lambda: [lab.host.holders(a) for a in ALL], lambda f: f == [["nic0"]] * 4, what="all on nic0")
            if killed == "before":
                agent.kill()
            agent.write(usual_group(lab, interfaces=["nic1"]))
            if killed == "after":
                agent.reload()
                agent.wait_for(lambda s: len(group_view(s).members) == 1, what="one member")
                agent.kill()
            agent.start()
            if unplugged:
                assert [lab.host.holders(a) for a in ALL] == [["nic0"]] * 4, "nothing moves while nobody works"
                lab.host.nic("nic1").plug()
            wait_for(lambda: [lab.host.holders(a) for a in ALL], lambda f: f == [["nic1"]] * 4, what="all on nic1")
            # It is on the link still, and so guarded as long as the group is there.
            guarded = ("nic0/arp_ignore", "nic0/arp_announce")
            of_nic0 = [line for line in before.settings if line.startswith("nic0/") and not line.startswith(guarded)]
            wait_for(lambda: agent.dump().settings, lambda found: set(of_nic0) <= set(found), what="settings of nic0")
            assert agent.stop() == 0
            assert agent.withdraw().returncode == 0
            invariants.as_it_was_found(before, agent.dump())


def test_member_that_is_put_back_before_it_was_let_go_works_as_before(lab: Lab) -> None:
    with Agent(lab, usual_group(lab)) as agent:
        agent.wait_for(lambda s: group_view(s).state == "ok", what="ok")
        lab.host.nic("nic1").unplug()
        wait_for(lambda: [lab.host.holders(a) for a in ALL], lambda f: f == [["nic0"]] * 4, what="all on nic0")
        agent.write(usual_group(lab, interfaces=["nic1"]))
        agent.reload()
        agent.wait_for(lambda s: len(group_view(s).members) == 1, what="one member")
        assert [lab.host.holders(a) for a in ALL] == [["nic0"]] * 4, "nobody else works"
        agent.write(usual_group(lab))
        agent.reload()
        agent.wait_for(lambda s: group_view(s).usable == {"nic0"}, what="nic0 again")
        lab.host.nic("nic1").plug()
        agent.wait_for(lambda s: group_view(s).state == "ok", what="ok again")
        settle(agent)


def test_reload_adds_and_removes_addresses_and_leaves_the_rest_in_peace() -> None:
    with Scene(watched=(V4,)) as scene:
        home = scene.lab.host.holders(V4)
        scene.agent.write(usual_group(scene.lab, addresses=[f"{V4}/24", "198.18.0.110/24"]))
        scene.agent.reload()
        wait_for(lambda: scene.lab.host.holders("198.18.0.110"), what="the new address")
        wait_for(lambda: scene.lab.host.holders(OTHER_V4) + scene.lab.host.holders(V6), lambda f: not f, what="gone")
        assert scene.lab.host.holders(V4) == home
        assert scene.pings[V4].stop().lost == 0
        scene.settle()


def test_bad_reload_is_refused_and_the_agent_goes_on_with_what_it_has() -> None:
    with Scene() as scene:
        before = scene.agent.dump()
        scene.agent.write(usual_group(scene.lab, failureDetection={"timeMilliseconds": 5}))
        scene.agent.reload()
        wait_for(lambda: "timeMilliseconds" in scene.agent.log_path.read_text(), what="a word in the log")
        invariants.as_it_was_found(before, scene.agent.dump())
        broken = scene.holder(V4)
        broken.unplug()
        scene.wait_moved(V4, broken)
        scene.flows()


def test_observe_reports_and_changes_nothing(lab: Lab) -> None:
    before = KernelDump.take(lab.host.namespace.run)
    with Agent(lab, usual_group(lab, mode="Observe")) as agent:
        lab.host.nic("nic0").unplug()
        agent.wait_for(lambda s: group_view(s).usable == {"nic1"}, what="the failure in the status")
        invariants.as_it_was_found(before, agent.dump())


def test_observe_says_where_others_put_addresses(lab: Lab) -> None:
    """By hand or by another program: to a member, to another one, away, and back with a NIC that was gone."""
    with Agent(lab, usual_group(lab, mode="Observe")) as agent:
        nic = lab.host.nic("nic0")

        def say(where: str | None, *changes: str) -> None:
            lab.host.namespace.batch([f"address {change}" for change in changes])
            agent.wait_for(lambda s: [group_view(s).addresses[a] for a in (V4, V6)] == [where] * 2, what=f"on {where}")

        say(None)
        say("nic0", f"add {V4}/24 dev nic0", f"add {V6}/64 dev nic0 nodad")
        say("nic1", f"add {V4}/24 dev nic1", f"del {V4}/24 dev nic0", f"del {V6}/64 dev nic0", f"add {V6}/64 dev nic1")
        say("nic0", f"del {V4}/24 dev nic1", f"add {V4}/24 dev nic0", f"del {V6}/64 dev nic1", f"add {V6}/64 dev nic0")
        nic.remove()
        say(None)
        nic.insert()
        agent.wait_for(lambda s: group_view(s).usable == {"nic0", "nic1"}, what="the NIC back")
        say(None)
        say("nic0", f"add {V4}/24 dev nic0", f"add {V6}/64 dev nic0 nodad")
        say(None, f"del {V4}/24 dev nic0", f"del {V6}/64 dev nic0")


def test_group_that_observed_manages_from_when_it_is_told_to(lab: Lab) -> None:
    with Agent(lab, usual_group(lab, mode="Observe")) as agent:
        lab.host.nic("nic0").unplug()
        agent.wait_for(lambda s: group_view(s).usable == {"nic1"}, what="the failure in the status")
        agent.write(usual_group(lab))
        agent.reload()
        wait_for(lambda: [lab.host.holders(a) for a in ALL], lambda found: found == [["nic1"]] * 4, what="all on nic1")
        wait_for(lambda: agent.dump().routes, lambda routes: any('"nhid"' in r for r in routes), what="our routes")
        lab.host.nic("nic0").plug()
        agent.wait_for(lambda s: group_view(s).state == "ok", what="ok")
        settle(agent)
        agent.write(usual_group(lab, mode="Observe"))
        agent.reload()
        agent.wait_for(observes, what="Observe")
        before = agent.dump()
        lab.host.nic("nic0").unplug()
        agent.wait_for(lambda s: group_view(s).usable == {"nic1"}, what="the second failure in the status")
        assert agent.dump().addresses == before.addresses
        agent.write(usual_group(lab))
        agent.reload()
        wait_for(lambda: [lab.host.holders(a) for a in ALL], lambda found: found == [["nic1"]] * 4, what="all again")


def observes(status: dict[str, Any]) -> bool:
    (group_status,) = status["groups"]
    return bool(group_status["configuration"]["policies"]["mode"] == "Observe")


def test_metrics_tell_the_failure() -> None:
    with Scene(watched=(V4,)) as scene:
        assert "ipmp_build_info" in scene.agent.metrics()
        broken = scene.holder(V4)
        broken.unplug()
        scene.wait_state("degraded")

        def counted() -> list[str]:
            return [
                line
                for line in scene.agent.metrics().splitlines()
                if line.startswith("ipmp_interface_failures_total") and f'interface="{broken.name}"' in line
            ]

        wait_for(counted, lambda lines: any('reason="LinkDown"' in x and x.endswith(" 1.0") for x in lines), what="1")


def test_ipmpstat_shows_the_failure_in_every_mode() -> None:
    with Scene(watched=()) as scene:
        lines = scene.agent.ipmpstat("-g").splitlines()
        assert lines[0].split() == ["GROUP", "GROUPNAME", "STATE", "FDT", "INTERFACES"]
        assert lines[1].split()[1:] == ["lab", "ok", "1.00s", "nic0", "nic1"]
        scene.lab.host.nic("nic0").unplug()
        scene.wait_state("degraded")
        assert "[nic0]" in scene.agent.ipmpstat("-g")
        (row,) = [line.split() for line in scene.agent.ipmpstat("-i").splitlines() if line.startswith("nic0")]
        assert row[1] == "no"
        assert row[-3:] == ["down", "failed", "failed"]
        assert all(
            line.split()[3] == "nic1"
            for line in scene.agent.ipmpstat("-a", "-n").splitlines()
            if line.startswith(("198.18", "2001:db8"))
        )
        assert scene.agent.ipmpstat("-P", "-o", "interface,state", "-i").splitlines() == ["nic0:failed", "nic1:ok"]
        assert "198.18.0.201" in scene.agent.ipmpstat("-t", "-n")


def hears_hangups(pid: int) -> bool:
    """Whether a process has a handler for SIGHUP."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (signal.SIGHUP - 1) & 1)


def test_hangups_at_any_moment_from_the_start_to_the_end_are_reloads() -> None:
    with Lab() as lab, Agent(lab, usual_group(lab)) as agent:
        assert agent.stop() == 0
        agent.log_path.write_text("", encoding="utf-8")
        agent.start(wait=False)
        wait_for(lambda: hears_hangups(agent.running.pid), interval=0.001, what="a handler")
        assert agent.log_path.read_text(encoding="utf-8") == "", "long before it is up"
        agent.write(usual_group(lab, addresses=(f"{V4}/24",)))

        def hang_up() -> bool:
            agent.reload()
            assert agent.running.poll() is None, agent.tail()
            return "reloaded: 1 groups" in agent.log_path.read_text(encoding="utf-8")

        wait_for(hang_up, interval=0.005, deadline=30, what="a reload")
        agent.wait_for(lambda s: set(group_view(s).addresses) == {V4}, what="what the file says now")
        agent.running.terminate()
        while agent.running.poll() is None:
            agent.reload()
            time.sleep(0.001)
        assert agent.running.returncode == 0, agent.tail()


def test_second_agent_of_a_host_is_refused_whatever_its_directories() -> None:
    with Lab() as lab, Agent(lab, group_manifest()) as agent:
        second = Agent(lab, group_manifest())
        second.start(wait=False)
        assert second.running.wait(30) == 1
        assert f"another agent (pid {agent.running.pid}) looks after the network" in second.tail()
        second.__exit__(None)
        assert agent.running.poll() is None


def test_a_user_of_the_host_keeps_no_agent_from_starting() -> None:
    script = (
        "import os, socket; os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.bind('\\0ipmp-agent'); s.listen();"
        " print('here', flush=True); input()"
    )
    with Lab() as lab:
        words = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        stranger = lab.host.namespace.popen([sys.executable, "-c", script], **words)
        try:
            assert stranger.stdout is not None
            assert stranger.stdout.readline() == b"here\n"
            with Agent(lab, group_manifest()) as agent:
                assert f"no agent (pid {stranger.pid}, user 65534)" in agent.tail()
        finally:
            stranger.kill()
            stranger.communicate(timeout=10)
