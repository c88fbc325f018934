"""What an agent records of an incident runs again, exactly, in the simulator."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from ipmp_agent.commands.ipmp_agent import main
from tests.lab import Agent, Lab, wait_for
from tests.lab.browser import look
from tests.lab.scene import V4, usual_group
from tests.lab.status import all_heard

if TYPE_CHECKING:
    from pathlib import Path


def simulate(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "ipmp_agent.simulate", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)


def test_recording_of_an_incident_is_replayed_with_the_same_decisions(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "incident.jsonl"
    with Agent(lab, usual_group(lab), options=["--record", str(path)]) as agent:
        agent.wait_for(lambda status: status["groups"][0]["snapshot"]["state"] == "ok", what="the group to be ok")
        (home,) = wait_for(lambda: lab.host.holders(V4), bool, deadline=15, what=f"{V4} to be activated")
        broken = next(nic for nic in lab.host.nics.values() if nic.name == home)
        agent.wait_for(all_heard, what="an answer to a probe on every member")
        broken.silence()
        wait_for(
            lambda: lab.host.holders(V4), lambda held: held and home not in held, deadline=15, what=f"{V4} to move"
        )
        agent.suspend()
        time.sleep(2)  # long enough for many ticks to be missed
        agent.resume()
        broken.restore()
        agent.wait_for(lambda status: status["groups"][0]["snapshot"]["state"] == "ok", what="the repair", deadline=20)
        assert agent.stop() == 0
    replayed = simulate("--replay", str(path), "--json")
    assert replayed.returncode == 0, replayed.stderr
    lines = [json.loads(line) for line in replayed.stdout.splitlines()]
    reasons = [line["reason"] for line in lines if line.get("interface") == home and "state" in line]
    assert reasons[-2:] == ["ProbesLost", "ProbesAnswered"]
    homes = [line["interface"] for line in lines if line.get("address") == V4]
    assert homes[0] == home
    assert homes[1] != home
    assert '"d":' in path.read_text(encoding="utf-8"), "the recording holds no decisions to compare with"
    page = tmp_path / "incident.html"
    assert main(["report", str(path), "-o", str(page)]) == 0
    assert f"{home} has failed (ProbesLost)" in page.read_text(encoding="utf-8")
    for width, height in ((1440, 1100), (640, 1400)):
        seen = look(page, width, height, tmp_path)
        assert seen.faults() == []
        labels = [box[0] for box in seen.boxes("yticks")]
        assert {"nic0", "nic1", "link", "probes", V4} <= set(labels)
        assert labels.count(V4) == 2, "it was on both"
        assert {"ok", "failed", "address is here", "probe lost"} <= {box[0] for box in seen.boxes("legend")}
        assert [box[0] for box in seen.boxes("marks")] == ["1", "2"]
        assert seen.measured["bars"] >= 9, "three states, two links, four addresses at the least"
        assert seen.measured["dots"] > 50
