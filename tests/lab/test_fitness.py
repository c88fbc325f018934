"""A member that stops being one while it is there, with the whole agent: never a second owner of its addresses."""

from __future__ import annotations

from ipaddress import IPv4Address

from tests.lab import Agent, Lab, PingTrain, wait_for
from tests.lab.agent import group_manifest
from tests.lab.kernel.bare import Wire
from tests.lab.status import group_view

OURS, OWN = "198.18.0.20", "198.18.0.10"


def owners(lab: Lab, address: str) -> set[str]:
    asking = lab.peer(0)
    with Wire(asking.only) as wire:
        return wire.who_has(IPv4Address(address), IPv4Address(asking.ipv4), 0.5)


def test_member_that_is_renamed_gives_up_the_groups_addresses_and_keeps_its_own() -> None:
    with Lab(nic_addresses={"nic0": (f"{OWN}/24",)}) as lab:
        targets = [lab.peer(0).ipv4, lab.peer(1).ipv4]
        with Agent(lab, group_manifest(addresses=[f"{OURS}/24"], targets=targets)) as agent:
            agent.wait_for(lambda s: group_view(s).state == "ok" and group_view(s).addresses.get(OURS))
            if group_view(agent.status()).addresses[OURS] != "nic0":
                agent.command("ipmpadm", "offline", "nic1")
                agent.wait_for(lambda s: group_view(s).addresses[OURS] == "nic0")
                agent.command("ipmpadm", "online", "nic1")
            lab.host.nic("nic0").rename("other0")
            agent.wait_for(lambda s: group_view(s).addresses == {OURS: "nic1"}, what="the group's own on nic1")
            wait_for(lambda: lab.host.holders(OURS), lambda holders: holders == ["nic1"])
            assert lab.host.holders(OWN) == ["other0"]
            # The interface is the host's other one on the link now, and is made to answer for itself only.
            wait_for(lambda: owners(lab, OURS), lambda macs: macs == {lab.host.nic("nic1").mac})
            assert owners(lab, OWN) == {lab.host.nic("nic0").mac}
            agent.stop()
            assert agent.withdraw().returncode == 0
            assert (lab.host.holders(OURS), lab.host.holders(OWN)) == ([], ["other0"])


def test_healthy_node_with_an_address_with_a_peer_is_not_cut_off() -> None:
    with Lab() as lab:
        gateway = lab.peer(0).ipv4
        host = lab.host.namespace
        host.ip("address", "add", OWN, "peer", f"{gateway}/32", "dev", "nic0")
        host.ip("route", "add", "default", "via", gateway, "dev", "nic0")
        with Agent(lab, group_manifest(targets=[lab.peer(1).ipv4])) as agent:
            agent.wait_for(lambda s: any(f["reason"] == "PeerAddress" for f in s["groups"][0]["findings"]))
            assert owners(lab, OWN) == {lab.host.nic("nic0").mac}
            with PingTrain(lab.peer(0).namespace, OWN, 0.05) as inbound, PingTrain(host, gateway, 0.05) as outbound:
                inbound.wait_answered()
                outbound.wait_answered()
