"""Members that are missing, unfit, doubled, or come and go: reported, and harmful to no other member."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab import Agent, Lab, wait_for
from tests.lab.scene import OTHER_V4, V4, V6, Scene, settle, usual_group
from tests.lab.status import group_view, interface_status


def served(lab: Lab, agent: Agent, address: str) -> list[str]:
    """Wait until an address has a home; returns it."""
    return wait_for(lambda: lab.host.holders(address), lambda found: len(found) == 1, what=f"a home for {address}")


def test_missing_nic_is_reported_and_the_others_work(lab: Lab) -> None:
    lab.host.nic("nic1").remove()
    with Agent(lab, usual_group(lab)) as agent:
        assert served(lab, agent, V4) == ["nic0"]
        assert served(lab, agent, V6) == ["nic0"]
        member = interface_status(agent.status(), "nic1")
        assert member["reason"] == "InterfaceMissing"
        lab.host.nic("nic1").insert()
        agent.wait_for(lambda status: group_view(status).state == "ok", what="ok with both NICs")
        wait_for(lambda: lab.host.holders(V4) + lab.host.holders(OTHER_V4), lambda found: len(set(found)) == 2)


@pytest.mark.parametrize("index", ["same", "other"])
def test_hot_unplug_moves_the_addresses_and_replug_brings_the_member_back(index: str) -> None:
    with Scene() as scene:
        broken = scene.holder(V4)
        old_index = broken.index
        broken.remove()
        scene.wait_moved(V4, broken)
        scene.wait_moved(V6, broken)
        scene.wait_state("degraded")
        scene.flows()
        scene.settle()
        broken.insert(index=old_index if index == "same" else old_index + 50)
        scene.wait_state("ok")
        scene.flows()
        scene.settle()


def test_nic_with_another_mac_takes_the_place_of_one_matched_by_name() -> None:
    with Scene() as scene:
        broken = scene.holder(V4)
        broken.remove()
        scene.wait_state("degraded")
        broken.insert(mac="02:00:00:00:77:77")
        scene.wait_state("ok")
        scene.flows()
        scene.settle()


def test_member_matched_by_mac_is_followed_through_a_rename() -> None:
    lab = Lab()
    interfaces = [{"macAddress": nic.mac} for nic in lab.host.nics.values()]
    with Scene(lab, changes={"interfaces": interfaces}) as scene:
        homes = len(scene.homes())
        lab.host.nic("nic0").rename("renamed0")
        wait_for(lambda: "renamed0" in {m.name for m in scene.view().members}, what="the new name in the status")
        lab.host.nic("nic1").unplug()
        wait_for(lambda: lab.host.holders(V4), lambda found: found == ["renamed0"], what=f"{V4} on renamed0")
        scene.flows()
        assert len(scene.homes()) == homes


def test_nic_moved_to_another_namespace_is_missing() -> None:
    with Scene() as scene:
        broken = scene.holder(V4)
        broken.move_to(scene.lab.peer(1).namespace)
        scene.wait_moved(V4, broken)
        scene.flows()
        assert interface_status(scene.agent.status(), broken.name)["reason"] == "InterfaceMissing"


def bridge_port(lab: Lab) -> None:
    lab.host.namespace.batch(["link add name br9 type bridge", "link set nic1 master br9"])


def point_to_point(lab: Lab) -> None:
    lab.host.nic("nic1").remove()
    lab.host.namespace.batch(["tuntap add dev nic1 mode tun", "link set nic1 up"])


def loopback(lab: Lab) -> None:
    lab.host.nic("nic1").remove()
    lab.host.namespace.batch(["link set lo down", "link set lo name nic1", "link set nic1 up"])


@pytest.mark.parametrize(
    ("make_unfit", "reason"),
    [(bridge_port, "BridgePort"), (point_to_point, "PointToPoint"), (loopback, "Loopback")],
    ids=["bridge port", "point to point", "loopback"],
)
def test_unfit_member_is_refused_with_its_reason_and_harms_no_other(lab: Lab, make_unfit: Any, reason: str) -> None:
    make_unfit(lab)
    with Agent(lab, usual_group(lab)) as agent:
        assert served(lab, agent, V4) == ["nic0"]
        member = agent.wait_for(lambda status: interface_status(status, "nic1")["reason"] == reason, what=reason)
        assert group_view(member).state != "failed"
        settle(agent)


def test_duplicate_mac_is_reported_and_one_member_stays_in_use(lab: Lab) -> None:
    lab.host.namespace.ip("link", "set", "nic1", "address", lab.host.nic("nic0").mac)
    with Agent(lab, usual_group(lab)) as agent:
        served(lab, agent, V4)
        status = agent.wait_for(
            lambda s: "DuplicateMAC" in {interface_status(s, name)["reason"] for name in ("nic0", "nic1")},
            what="DuplicateMAC",
        )
        assert len(group_view(status).usable) == 1
        settle(agent)


def test_standby_takes_over_for_a_nic_that_was_missing_from_the_start() -> None:
    lab = Lab(("nic0", "nic1", "nic2"))
    with lab:
        lab.host.nic("nic0").remove()
        with Agent(lab, usual_group(lab, standby=["nic2"])) as agent:
            agent.wait_for(lambda s: group_view(s).active == {"nic1", "nic2"}, what="the standby in use")
            lab.host.nic("nic0").insert()
            agent.wait_for(lambda s: group_view(s).active == {"nic0", "nic1"}, what="the standby released")
            wait_for(
                agent.dump,
                lambda dump: dump.holders(V4) != ["nic2"],
                what="addresses off the standby",
            )
