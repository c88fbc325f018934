"""A reboot: the host lays its network anew, perhaps otherwise than before, and the state file is from before."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

from ipmp_agent.disk.state import FILE_NAME
from tests import invariants
from tests.lab import Agent, Lab, wait_for
from tests.lab.own_network import HOST, V4, V6, dumped, manifest, wait_home, withdraw
from tests.lab.status import group_view

if TYPE_CHECKING:
    from pathlib import Path

OTHER = "198.18.0.21"


def before_the_reboot(state_file: Path) -> str:
    """What the state file of an agent says to one that was started after a reboot."""
    document = json.loads(state_file.read_text(encoding="utf-8"))
    document["bootId"] = str(uuid.uuid4())
    return json.dumps(document)


def test_what_the_host_lays_after_a_reboot_is_what_it_gets_back() -> None:
    """An address is gone, another new, a third lives on another NIC, and so do settings and routes."""
    with Lab(router=True, nic_addresses={"nic0": (f"{V4}/24", f"{V6}/64")}) as lab:
        lab.host.namespace.batch(HOST)
        with Agent(lab, manifest(lab)) as agent:
            wait_home(agent, "nic0")
            agent.wait_for(lambda s: group_view(s).state == "ok", what="ok")
            assert agent.command("ipmpadm", "offline", "nic0").returncode == 0
            wait_home(agent, "nic1")
            assert agent.stop() == 0
            saved = before_the_reboot(agent.state_directory / FILE_NAME)

    with Lab(router=True, nic_addresses={"nic1": (f"{OTHER}/24", f"{V6}/64")}) as lab:
        lab.host.namespace.sysctl({"ipv4/conf/nic0/rp_filter": 1, "ipv4/conf/nic1/arp_announce": 1})
        wait_for(lambda: dumped(lab), lambda dump: dump == dumped(lab), what="a kernel at rest", interval=0.5)
        before = dumped(lab)
        agent = Agent(lab, manifest(lab))
        (agent.state_directory / FILE_NAME).write_text(saved, encoding="utf-8")
        with agent:
            home = {OTHER: "nic1", V6: "nic1"}
            agent.wait_for(lambda s: group_view(s).addresses == home, what="what the host has, where it has it")
            assert "nic0" not in group_view(agent.status()).usable, "a member taken offline stays offline"
            assert agent.command("ipmpadm", "online", "nic0").returncode == 0
            agent.wait_for(lambda s: group_view(s).usable == {"nic0", "nic1"}, what="both usable")
            lab.host.nic("nic1").unplug()
            agent.wait_for(lambda s: set(group_view(s).addresses.values()) == {"nic0"}, what="all on nic0")
            lab.host.nic("nic1").plug()
            agent.wait_for(lambda s: group_view(s).addresses == home, what="home is where the host lays it now")
            invariants.as_it_was_found(before, withdraw(agent))
