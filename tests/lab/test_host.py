"""Other programs of a host beside a group: what works together, and what is named."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.lab import Agent, wait_for
from tests.lab.bus import end
from tests.lab.scene import Scene, usual_group

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab import Lab

LOOSE = "table inet fw { chain pre { type filter hook prerouting priority -290; fib saddr . mark oif missing drop; }; }"
KEEPALIVED = """
vrrp_instance node {
    state BACKUP
    interface nic0
    virtual_router_id 7
    priority 150
    virtual_ipaddress {
        198.18.0.50/32
    }
}
"""


def named(agent: Agent, reason: str) -> str:
    """What is said for this reason."""
    (group,) = agent.status()["groups"]
    return " ".join(finding["message"] for finding in group["findings"] if finding["reason"] == reason)


@pytest.mark.parametrize("spreading", ["Enabled", "Disabled"])
def test_reverse_path_filter_that_is_loose_lets_addresses_move(spreading: str) -> None:
    with Scene(changes={"outboundSpreading": spreading}) as scene:
        scene.lab.host.namespace.run("nft", "-f", "-", text=LOOSE)
        scene.flows()
        for nic in scene.lab.host.nics.values():
            nic.silence()
            scene.wait_state("degraded")
            scene.flows()
            nic.restore()
            scene.wait_state("ok")
            scene.flows()
        assert not named(scene.agent, "ReversePathFiltered")
        assert all(stream.stop().error is None for stream in scene.streams.values())


def test_keepalived_on_a_member_is_named(lab: Lab, tmp_path: Path) -> None:
    configuration = tmp_path / "keepalived.conf"
    configuration.write_text(KEEPALIVED)
    lab.host.namespace.ip("address", "add", "198.18.0.10/24", "dev", "nic0")
    words = ["keepalived", "--dont-fork", "--log-console", "--vrrp", f"--use-file={configuration}"]
    words += [f"--pid={tmp_path}/pid", f"--vrrp_pid={tmp_path}/vrrp.pid"]
    with (tmp_path / "log").open("wb") as log:
        daemon = lab.host.namespace.popen(words, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: lab.host.holders("198.18.0.50"), bool, deadline=20, what="a master")
        with Agent(lab, usual_group(lab)) as agent:
            wait_for(lambda: named(agent, "VirtualAddress"), lambda words: "a daemon of VRRP uses nic0" in words)
    finally:
        end(daemon)
