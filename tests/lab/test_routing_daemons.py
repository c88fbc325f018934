"""Real routing daemons beside the agent: nobody fights, and their routes come and go as they say."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab import Lab, PingTrain, wait_for
from tests.lab.routing import Bird, Frr, RouteNews, Speakers
from tests.lab.scene import V4, V6, Scene
from tests.lab.suites import TESTED, Suite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NODE = "198.18.0.11"
BEHIND, ROUTER = "198.19.0.0/24", "198.18.0.1"
# zebra 8.4 mistakes the interface of a prefix that several members have (findings/), and keeps what the kernel dropped.
HOSTS: dict[str, Any] = {"addresses": (f"{V4}/32", f"{V6}/128")}
REST = float(os.environ.get("IPMP_REST", "3"))
"""Seconds in which nobody has anything to say; `make test-rest` takes 20."""
OUTAGE = 4.0

DAEMONS: dict[str, Callable[[Lab], Frr | Bird]] = {
    "zebra": lambda lab: Frr(lab.host, f"ip route {BEHIND} {ROUTER}"),
    "BIRD": lambda lab: Bird(lab.host, f"route {BEHIND} via {ROUTER};"),
    "BIRD that learns": lambda lab: Bird(lab.host, f"route {BEHIND} via {ROUTER};", learn=True),
}


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A host with an address and no default route; behind a router there is another network."""
    with Lab(router=True, nic_addresses={"nic0": (f"{NODE}/24",)}) as running:
        yield running


def listed(lab: Lab, table: str) -> list[dict[str, Any]]:
    return lab.host.namespace.ip_json("-4", "route", "show", BEHIND, "table", table)


def twins(lab: Lab) -> set[str]:
    return {hop["dev"] for route in listed(lab, "73") for hop in route.get("nexthops", [route])}


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_route_of_a_daemon_is_left_in_peace_and_followed_by_a_twin(lab: Lab, daemon: str) -> None:
    with DAEMONS[daemon](lab), Scene(lab=lab, watched=(), changes=HOSTS) as scene:
        wait_for(lambda: twins(lab), lambda members: members == {"nic0", "nic1"})
        with RouteNews(lab.host) as news, PingTrain(lab.host.namespace, lab.hosts["remote"].ipv4, 0.01) as train:
            train.wait_answered()
            time.sleep(REST)
            report = train.stop()
            assert news.lines() == []
        assert report.lost == 0
        assert [route["dev"] for route in listed(lab, "main")] == ["nic0"]
        scene.settle()


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_route_of_a_daemon_is_neither_revived_nor_held_back_after_an_outage(lab: Lab, daemon: str) -> None:
    with DAEMONS[daemon](lab) as running, Scene(lab=lab, watched=(), changes=HOSTS) as scene:
        wait_for(lambda: twins(lab), lambda members: members == {"nic0", "nic1"})
        with PingTrain(lab.host.namespace, lab.hosts["remote"].ipv4, 0.01) as train:
            train.wait_answered()
            lab.host.nic("nic0").unplug()
            scene.wait_state("degraded")
            train.wait_answered()
            time.sleep(OUTAGE)
            lab.host.nic("nic0").plug()
            scene.wait_state("ok")
            train.wait_answered()
            wait_for(lambda: twins(lab), lambda members: members == {"nic0", "nic1"})
            time.sleep(5)  # two scans of BIRD's
            report = train.stop()
        print(f"{daemon}: {report}")
        assert report.longest_outage < 1.0
        assert len(listed(lab, "main")) == 1
        running.end()
        wait_for(lambda: listed(lab, "main"), lambda routes: not routes)
        wait_for(lambda: twins(lab), lambda members: not members)
        scene.settle()
        assert listed(lab, "main") == []


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_daemon_that_ends_during_an_outage_leaves_nothing(lab: Lab, daemon: str) -> None:
    with DAEMONS[daemon](lab) as running, Scene(lab=lab, watched=(), changes=HOSTS) as scene:
        wait_for(lambda: twins(lab), lambda members: members == {"nic0", "nic1"})
        lab.host.nic("nic0").unplug()
        scene.wait_state("degraded")
        time.sleep(OUTAGE)
        running.end()
        wait_for(lambda: listed(lab, "main"), lambda routes: not routes)
        lab.host.nic("nic0").plug()
        scene.wait_state("ok")
        # A route that the kernel dropped with the link is followed until its owner had time to lay it again.
        wait_for(lambda: twins(lab), lambda members: not members, deadline=15)
        scene.settle()
        assert (listed(lab, "main"), twins(lab)) == ([], set())


@pytest.mark.parametrize("speaker", ["bgpd", "BIRD"])
def test_a_bgp_session_from_a_data_address_lives_through_five_failovers(lab: Lab, speaker: str) -> None:
    with (
        Scene(lab=lab, watched=()) as scene,
        Speakers(lab.host, lab.hosts["router"], (NODE, ROUTER), frr=speaker == "bgpd") as speakers,
    ):
        since = wait_for(speakers.session, bool, deadline=60, what="a session of BGP")
        for failover in range(5):
            nic = scene.holder(NODE)
            silently = failover % 2 == 1  # pulls alone would be taken for a cable that flaps
            (nic.silence if silently else nic.unplug)()
            scene.wait_moved(NODE, nic)
            scene.wait_state("degraded")
            (nic.restore if silently else nic.plug)()
            scene.wait_state("ok", deadline=60)
        wait_for(speakers.silence, lambda seconds: seconds < 1, deadline=60)
        assert speakers.session() == since
        scene.settle()


@pytest.mark.parametrize("suite", TESTED)
def test_newer_frr_is_left_in_peace_with_its_routes_and_sessions_through_outages(lab: Lab, suite: str) -> None:
    newer = Suite(suite, "frr").unpack()
    with (
        Frr(lab.host, f"ip route {BEHIND} {ROUTER}", suite=newer) as daemons,
        Scene(lab=lab, watched=(), changes=HOSTS) as scene,
        Speakers(lab.host, lab.hosts["router"], (NODE, ROUTER), frr=True, suite=newer) as speakers,
    ):
        wait_for(lambda: twins(lab), lambda members: members == {"nic0", "nic1"})
        since = wait_for(speakers.session, bool, deadline=60, what="a session of BGP")
        with PingTrain(lab.host.namespace, lab.hosts["remote"].ipv4, 0.01) as train:
            train.wait_answered()
            with RouteNews(lab.host) as news:
                time.sleep(REST)
                assert news.lines() == []
            for silently in (False, True):
                nic = scene.holder(NODE)
                (nic.silence if silently else nic.unplug)()
                scene.wait_moved(NODE, nic)
                scene.wait_state("degraded")
                train.wait_answered()
                (nic.restore if silently else nic.plug)()
                scene.wait_state("ok", deadline=60)
                wait_for(lambda: twins(lab), lambda members: members == {"nic0", "nic1"})
            report = train.stop()
        print(f"{suite}: {report}")
        wait_for(speakers.silence, lambda seconds: seconds < 1, deadline=60)
        assert speakers.session() == since
        wait_for(lambda: listed(lab, "main"), lambda routes: len(routes) == 1)
        scene.holder(NODE).unplug()
        scene.wait_state("degraded")
        time.sleep(OUTAGE)
        daemons.end()
        wait_for(lambda: listed(lab, "main"), lambda routes: not routes)
        wait_for(lambda: twins(lab), lambda members: not members, deadline=15)
        scene.settle()
        assert (listed(lab, "main"), twins(lab)) == ([], set())
