"""From a pulled cable to a page: the agent, Prometheus and Alertmanager, all real."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from tests.lab import Agent, Lab, wait_for
from tests.lab.alerts.monitoring import Monitoring, Target
from tests.lab.scene import usual_group
from tests.lab.status import all_heard, group_view
from tests.lab.trials import cuts_off, good, host_behind_a_router, wait_kept

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Watched:
    """A lab whose agent is watched, at rest and without an alert."""

    def __init__(self, lab: Lab, agent: Agent, monitoring: Monitoring) -> None:
        self.lab, self.agent, self.monitoring = lab, agent, monitoring

    def wait_quiet(self) -> None:
        self.agent.wait_for(lambda status: group_view(status).state == "ok", deadline=30, what="ok")
        wait_for(lambda: self.monitoring.query('ipmp_group_state{state="ok"} == 1'), what="a scrape of a group at rest")
        self.monitoring.wait_firing()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab())
        agent = stack.enter_context(Agent(lab, usual_group(lab)))
        scene = Watched(lab, agent, stack.enter_context(Monitoring(lab.host.namespace, tmp_path)))
        scene.wait_quiet()
        yield scene


def test_pulled_cable_pages_by_name_and_is_resolved_when_it_is_back(watched: Watched) -> None:
    nic = watched.lab.host.nics["nic0"]
    nic.unplug()
    watched.monitoring.wait_firing("IPMPInterfaceFailed", "IPMPGroupNotRedundant")
    (page,) = [page for page in watched.monitoring.pages if page.alert == "IPMPInterfaceFailed"]
    assert page.labels == {"node": "lab1", "group": "lab", "interface": "nic0", "severity": "warning"}
    assert page.annotations["summary"] == "nic0 of group lab on lab1 has failed"
    assert page.annotations["runbook_url"] == "docs/runbooks/IPMPInterfaceFailed.md"
    (sample,) = watched.monitoring.query('ipmp_interface_unusable{interface="nic0"} == 1')
    assert sample["metric"]["reason"] == "LinkDown"
    nic.plug()
    watched.monitoring.wait_firing()


def test_both_cables_page_for_the_group_and_not_for_each(watched: Watched) -> None:
    for nic in watched.lab.host.nics.values():
        nic.unplug()
    watched.monitoring.wait_firing("IPMPGroupFailed")
    for nic in watched.lab.host.nics.values():
        nic.plug()
    watched.monitoring.wait_firing()


def test_silent_switch_port_is_told_from_a_cable(watched: Watched) -> None:
    watched.lab.host.nics["nic0"].silence()
    watched.monitoring.wait_firing("IPMPInterfaceFailed", "IPMPGroupNotRedundant")
    (sample,) = watched.monitoring.query('ipmp_interface_unusable{interface="nic0"} == 1')
    assert sample["metric"]["reason"] == "ProbesLost"
    assert watched.monitoring.query('ipmp_interface_link_up{interface="nic0"} == 1')
    (outage,) = watched.monitoring.query('ipmp_outage_seconds_count{reason="ProbesLost"}')
    assert outage["value"][1] == "1"


def test_agent_that_is_gone_pages(watched: Watched) -> None:
    assert watched.monitoring.query('process_resident_memory_bytes{job="ipmp-agent"}')
    watched.agent.kill()
    watched.monitoring.wait_firing("IPMPAgentDown")
    watched.agent.start()
    watched.monitoring.wait_firing()


@pytest.fixture
def trying(tmp_path: Path) -> Iterator[Watched]:
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(host_behind_a_router())
        agent = stack.enter_context(Agent(lab, good(lab), trials=True))
        wait_kept(agent)
        scene = Watched(lab, agent, stack.enter_context(Monitoring(lab.host.namespace, tmp_path)))
        scene.wait_quiet()
        yield scene


def test_change_that_cuts_the_host_off_pages_as_undone_alone_until_a_good_one_is_kept(trying: Watched) -> None:
    before = time.time()
    trying.agent.write(cuts_off(trying.lab))
    trying.agent.reload()
    trying.monitoring.wait_firing("IPMPChangeUndone")
    (page,) = trying.monitoring.since(before)
    assert page.labels == {"node": "lab1", "group": "lab", "severity": "warning"}
    assert page.annotations["summary"] == "A change of lab cut lab1 off and was undone"
    assert page.annotations["runbook_url"] == "docs/runbooks/IPMPChangeUndone.md"
    trying.agent.write(good(trying.lab, milliseconds=2000))
    trying.agent.reload()
    trying.agent.wait_for(lambda status: [one["undone"] for one in status["groups"]] == [""], deadline=30, what="tried")
    wait_kept(trying.agent)
    trying.monitoring.wait_firing()
    assert {page.alert for page in trying.monitoring.since(before)} == {"IPMPChangeUndone"}


HOSTS = ("a", "b", "c")


def test_dead_switch_pages_once_and_not_for_each_of_its_hosts(tmp_path: Path) -> None:
    """Three hosts; Prometheus reaches each by its data address, from the switch that stays."""
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab(hosts=HOSTS))
        targets = []
        for number, name in enumerate(HOSTS):
            own, pool = f"198.18.0.{101 + number}", f"198.18.0.{32 + 8 * number}-198.18.0.{39 + 8 * number}"
            group = usual_group(
                lab,
                dataAddresses={"assigned": [{"nodeName": name, "addresses": [f"{own}/24"]}]},
                testAddresses={"ipv4": {"pool": {"ranges": [pool], "prefixLength": 24}}},
            )
            anywhere = ("--metrics-address", "0.0.0.0:9478")
            agent = stack.enter_context(Agent(lab, group, host=lab.hosts[name], node_name=name, options=anywhere))
            agent.wait_for(lambda status: group_view(status).state == "ok", deadline=30, what="ok")
            agent.wait_for(all_heard, deadline=30, what="an answer to a probe on every member")
            targets.append(Target("ipmp-agent", f"{own}:9478", name))
        monitoring = stack.enter_context(Monitoring(lab.peer(1).namespace, tmp_path, targets))
        wait_for(lambda: monitoring.query('count(ipmp_group_state{state="ok"} == 1) == 3'), what="a scrape of all")
        monitoring.wait_firing()

        before = time.time()
        lab.switches[0].die()
        monitoring.wait_firing("IPMPLinkFailureCorrelated")
        (page,) = monitoring.since(before)
        assert page.labels == {"group": "lab", "interface": "nic0", "severity": "critical"}
        assert page.annotations["summary"] == "nic0 has failed on 3 nodes at once: look at the switch"
        alerts = 'count by (alertname) (ALERTS{alertstate="firing",severity="warning"})'
        inhibited = {"IPMPInterfaceFailed", "IPMPGroupNotRedundant"}
        wait_for(
            lambda: {one["metric"]["alertname"] for one in monitoring.query(alerts)},
            lambda firing: firing >= inhibited,
            deadline=30,
            what="alerts that are not sent",
        )
        lab.switches[0].revive()
        monitoring.wait_firing()
        assert {page.alert for page in monitoring.since(before)} == {"IPMPLinkFailureCorrelated"}
