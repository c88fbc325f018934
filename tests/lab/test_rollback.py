"""An image rolled back: an agent of an older release finds the state of a newer one, with words it does not know."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.disk.state import FILE_NAME
from tests import invariants
from tests.lab import Agent, Lab, wait_for
from tests.lab.own_network import HOST, V4, V6, dumped, manifest, wait_home
from tests.lab.status import group_view

if TYPE_CHECKING:
    from collections.abc import Callable


def unknown_reason(document: dict[str, Any]) -> None:
    document["groups"]["lab"]["history"][0]["reason"] = "Sunspots"


def unknown_policy(document: dict[str, Any]) -> None:
    document["groups"]["lab"]["configuration"]["policies"]["tunnels"] = "Dig"


def unknown_matcher(document: dict[str, Any]) -> None:
    """A member that is recognised by what this agent knows nothing of, and more about the others."""
    lab = document["groups"]["lab"]
    lab["configuration"]["members"].append({"match": {"driver": "virtio_net"}, "role": "Active"})
    for member in lab["kernel"]["members"]:
        member["driver"] = None
    lab["kernel"]["members"].append({"driver": "virtio_net"})


def another_form_of_routes_and_tunnels(document: dict[str, Any]) -> None:
    kernel = document["groups"]["lab"]["kernel"]
    kernel["routes"].append({"table": 7, "text": "default via 198.18.0.1"})
    kernel["tunnels"] = {"vx1": "nic0"}
    kernel["addresses"]["placement"] = 5


def a_number_beyond_all_bounds(document: dict[str, Any]) -> None:
    lab = document["groups"]["lab"]
    lab["detection_time"] = 10**400
    lab["kernel"]["settings"]["nic9"] = {"index": 10**400, "values": {}}


CHANGES = (
    unknown_reason,
    unknown_policy,
    unknown_matcher,
    another_form_of_routes_and_tunnels,
    a_number_beyond_all_bounds,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_withdrawing_what_a_newer_agent_left_gives_the_host_back(change: Callable[[dict[str, Any]], None]) -> None:
    with Lab(router=True, nic_addresses={"nic0": (f"{V4}/24", f"{V6}/64")}) as lab:
        lab.host.namespace.batch(HOST)
        wait_for(lambda: dumped(lab), lambda dump: dump == dumped(lab), what="a kernel at rest", interval=0.5)
        before = dumped(lab)
        with Agent(lab, manifest(lab)) as agent:
            agent.wait_for(lambda s: group_view(s).state == "ok", what="ok")
            lab.host.nic("nic0").unplug()
            wait_home(agent, "nic1")
            path = agent.state_directory / FILE_NAME
            wait_for(lambda: json.loads(path.read_text(encoding="utf-8"))["groups"]["lab"]["history"], what="history")
            agent.kill()
            document = json.loads(path.read_text(encoding="utf-8"))
            change(document)
            path.write_text(json.dumps(document), encoding="utf-8")
            lab.host.nic("nic0").plug()
            done = agent.withdraw()
            assert done.returncode == 0, done.stderr
            assert "Traceback" not in done.stderr
            assert "forgotten" in done.stderr
            invariants.as_it_was_found(before, agent.dump())


def test_an_agent_goes_on_with_what_a_newer_one_left() -> None:
    with Lab(router=True, nic_addresses={"nic0": (f"{V4}/24", f"{V6}/64")}) as lab:
        lab.host.namespace.batch(HOST)
        with Agent(lab, manifest(lab)) as agent:
            agent.wait_for(lambda s: group_view(s).state == "ok", what="ok")
            assert agent.command("ipmpadm", "offline", "nic0").returncode == 0
            wait_home(agent, "nic1")
            agent.kill()
            path = agent.state_directory / FILE_NAME
            document = json.loads(path.read_text(encoding="utf-8"))
            for change in CHANGES:
                change(document)
            path.write_text(json.dumps(document), encoding="utf-8")
            agent.start()
            assert "nic0" not in group_view(agent.status()).usable, "a member taken offline stays offline"
            wait_home(agent, "nic1")
            assert agent.command("ipmpadm", "online", "nic0").returncode == 0
            wait_home(agent, "nic0")
