"""Writes the state files and the recording that a release leaves, by a scene on real interfaces.

Run it with the code of that release, see README.md: `python record.py DIRECTORY`, as root.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.lab import Agent, Lab, wait_for
from tests.lab.scene import V4, usual_group

if TYPE_CHECKING:
    from collections.abc import Callable


def member(agent: Agent, name: str) -> dict[str, Any]:
    """Return a member as the agent shows it."""
    group = agent.status()["groups"][0]
    return next(each for each in group["snapshot"]["interfaces"] if each["name"] == name)


def await_state(agent: Agent, name: str, state: str) -> None:
    """Wait until a member is in this state."""
    wait_for(lambda: member(agent, name)["state"], lambda found: found == state, deadline=30, what=f"{name} {state}")


def keep(agent: Agent, target: Path, wanted: Callable[[str], bool]) -> None:
    """Copy the state file as soon as it is as wanted."""
    wait_for((agent.state_directory / "state.json").read_text, wanted, deadline=30, what=target.name)
    shutil.copy(agent.state_directory / "state.json", target)


def main(directory: Path) -> None:
    """Fail members in every way, take one offline, change the configuration on trial, and lose who answered."""
    with Lab() as lab:
        lab.host.namespace.run("ip", "address", "add", "198.18.0.9/24", "dev", "nic0")
        manifest = usual_group(lab, milliseconds=2000)
        with Agent(lab, manifest, options=["--record", str(directory / "recording.jsonl")], trials=True) as agent:
            await_state(agent, "nic0", "ok")
            wait_for(lambda: lab.host.holders(V4), bool, deadline=30, what=V4)
            time.sleep(1)
            keep(agent, directory / "state-on-trial.json", lambda text: '"trial":{' in text)
            agent.wait_for(lambda status: not status["groups"][0]["on_trial"], deadline=60, what="the end of the trial")
            nic0, nic1 = lab.host.nics["nic0"], lab.host.nics["nic1"]
            nic0.unplug()
            await_state(agent, "nic0", "failed")
            nic0.plug()
            await_state(agent, "nic0", "ok")
            nic1.silence()
            await_state(agent, "nic1", "failed")
            nic1.restore()
            await_state(agent, "nic1", "ok")
            agent.command("ipmpadm", "offline", "nic1")
            await_state(agent, "nic1", "offline")
            agent.write(usual_group(lab, milliseconds=3000))
            agent.reload()
            agent.wait_for(lambda status: status["groups"][0]["on_trial"], what="a change on trial")
            nic0.unplug()
            agent.wait_for(lambda status: status["groups"][0]["undone"], deadline=60, what="an undone change")
            keep(agent, directory / "state.json", lambda text: '"refusals":[{' in text)
            agent.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
