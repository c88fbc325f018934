"""Members are judged with whatever they have: test addresses, ARP without any, or each other."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests import invariants
from tests.lab import Agent, Lab, wait_for
from tests.lab.scene import OTHER_V4, TEST_POOL, V4, V6, Scene, usual_group
from tests.lab.status import group_view

ONLY_V4 = [f"{V4}/24", f"{OTHER_V4}/24"]


def test_ipv4_without_test_addresses_is_probed_by_arp() -> None:
    lab = Lab()
    changes = {
        "addresses": ONLY_V4,
        "targets": [lab.peer(0).ipv4, lab.peer(1).ipv4],
        "testAddresses": {"ipv6": "Disabled"},
    }
    with Scene(lab, changes=changes, watched=(V4,)) as scene:
        assert lab.peer(0).ipv4 in scene.agent.ipmpstat("-n", "-t")
        broken = scene.holder(V4)
        broken.silence()
        scene.wait_moved(V4, broken)
        scene.flows()
        broken.restore()
        scene.wait_state("ok")
        scene.settle()


def test_arp_probes_name_no_sender_so_that_no_neighbour_learns_from_them() -> None:
    lab = Lab()
    changes = {"addresses": ONLY_V4, "targets": [lab.peer(0).ipv4], "testAddresses": {"ipv6": "Disabled"}}
    with Scene(lab, changes=changes, watched=()) as scene:
        wait_for(lambda: [one for one in scene.sniffer.heard if one.address == "0.0.0.0"], what="an ARP probe")
        assert not [one for one in scene.sniffer.heard if one.address == lab.peer(0).ipv4]


TESTED: dict[str, Any] = {"addresses": ONLY_V4, "testAddresses": {"ipv4": {"pool": TEST_POOL}, "ipv6": "Disabled"}}


def test_healthy_members_are_not_failed_when_the_only_target_gets_another_mac() -> None:
    """As a gateway does that is replaced, or whose cluster fails over, and announces nothing."""
    lab = Lab()
    with Scene(lab, changes=TESTED | {"targets": [lab.peer(1).ipv4]}, watched=()) as scene:
        homes = scene.homes()
        for number in range(4):
            lab.peer(1).namespace.batch(
                ["link set eth0 down", f"link set eth0 address 02:00:00:00:77:{number:02x}", "link set eth0 up"]
            )
            threading.Event().wait(3)
        assert scene.homes() == homes
        assert "failure of" not in scene.agent.log_path.read_text(encoding="utf-8")
        scene.wait_state("ok")


def test_target_that_answers_arp_and_never_icmp_is_asked_by_arp() -> None:
    lab = Lab()
    target = lab.peer(0).ipv4
    with lab:
        lab.peer(0).namespace.sysctl({"ipv4/icmp_echo_ignore_all": 1})
        with Agent(lab, usual_group(lab, **TESTED | {"targets": [target]})) as agent:
            agent.wait_for(lambda status: group_view(status).state == "ok", what="ok")
            wait_for(
                lambda: agent.log_path.read_text(encoding="utf-8"),
                lambda text: f"target {target} answers ARP and never ICMP: it is asked by ARP" in text,
            )
            (broken,) = wait_for(lambda: lab.host.holders(V4), lambda homes: len(homes) == 1)
            threading.Event().wait(2)
            lab.host.nic(broken).silence()
            wait_for(lambda: lab.host.holders(V4), lambda homes: homes != [broken] and len(homes) == 1)
            assert "AgentSuspended" not in agent.log_path.read_text(encoding="utf-8")


def test_members_without_any_target_judge_each_other() -> None:
    """Three members, nobody else: the one that neither of the others hears has failed."""
    lab = Lab(("nic0", "nic1", "nic2"))
    changes = {"addresses": ONLY_V4, "targets": [], "testAddresses": {"ipv6": "Disabled"}}
    with Scene(lab, changes=changes, watched=(V4,)) as scene:
        threading.Event().wait(2)
        assert scene.view().state == "ok"
        broken = scene.holder(V4)
        broken.silence()
        scene.wait_moved(V4, broken)
        scene.flows()
        scene.settle()
        broken.restore()
        scene.wait_state("ok")
        scene.settle()


def test_standby_that_broke_in_silence_is_known_before_it_is_needed() -> None:
    lab = Lab(("nic0", "nic1", "nic2"))
    with Scene(lab, changes={"standby": ["nic2"]}, watched=(V4,)) as scene:
        lab.host.nic("nic2").silence()
        scene.wait_state("degraded")
        lab.host.nic("nic0").unplug()
        scene.wait_moved(V4, lab.host.nic("nic0"))
        assert scene.settle().usable == {"nic1"}
        scene.flows()


@pytest.mark.parametrize("address", [V4, V6])
def test_gateway_of_the_host_is_a_target_without_being_named(address: str) -> None:
    lab = Lab(router=True, nic_addresses={"nic0": ("198.18.0.11/24", "2001:db8:0:1::11/64")})
    with lab:
        for line in ("default via 198.18.0.1 dev nic0", "default via 2001:db8:0:1::1 dev nic0"):
            lab.host.namespace.ip("route", "add", *line.split())
        router = lab.hosts["router"].ipv4 if address == V4 else lab.hosts["router"].ipv6
        with Agent(lab, usual_group(lab, targets=[])) as agent:
            wait_for(lambda: agent.ipmpstat("-n", "-t"), lambda text: router in text, what=router, interval=0.5)
            wait_for(lambda: lab.host.holders(address), what="an address")
            homes = lab.host.holders(address)
            lab.hosts["router"].nic("eth0").unplug()
            threading.Event().wait(3)
            assert lab.host.holders(address) == homes, "the only target is dead: the group failed, nothing moves"
            invariants.no_unhandled_exception(agent.log_path.read_text(encoding="utf-8"))


def test_rate_limited_target_is_asked_less_often_and_the_group_stays_ok() -> None:
    lab = Lab()
    changes = {
        "addresses": ONLY_V4,
        "targets": [lab.peer(0).ipv4],
        "testAddresses": {"ipv6": "Disabled", "ipv4": {"pool": TEST_POOL}},
    }
    with Scene(lab, changes=changes, watched=()) as scene:
        limit = "add rule ip busy input icmp type echo-request limit rate over 5/second burst 5 packets drop"
        rules = f"add table ip busy\nadd chain ip busy input {{ type filter hook input priority 0; }}\n{limit}\n"
        lab.peer(0).namespace.run("nft", "-f", "-", text=rules)
        scene.agent.wait_for(
            lambda status: status["groups"][0]["snapshot"]["detection_time"] >= 2, deadline=60, what="a lower rate"
        )
        scene.wait_state("ok", deadline=30)
        for _ in range(10):
            threading.Event().wait(1)
            assert scene.view().state == "ok"
        scene.settle()
