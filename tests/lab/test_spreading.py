"""Outbound flows: by which members they really leave."""

from __future__ import annotations

import socket

import pytest

from tests.lab import wait_for
from tests.lab.scene import V4, V6, Scene

FLOWS, PORT = 64, 47475
ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD


def carriers(scene: Scene, version: int) -> set[str]:
    """The members by which flows of the host to one neighbour arrive there, by the source of their frames."""
    peer, host = scene.lab.peer(1), scene.lab.host
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    address = (peer.ipv4 if version == 4 else peer.ipv6, PORT)
    names = {nic.mac: nic.name for nic in host.nics.values()}
    heard: set[int] = set()
    by: set[str] = set()
    with peer.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.bind(("eth0", ETH_P_IP if version == 4 else ETH_P_IPV6))
        wire.settimeout(0.5)
        flows = [host.namespace.socket(family, socket.SOCK_DGRAM) for _ in range(FLOWS)]
        for flow in flows:
            flow.connect(address)
            flow.send(b"flow")
        ports = {flow.getsockname()[1] for flow in flows}
        start = 14 + (20 if version == 4 else 40)
        while heard < ports:
            frame = wire.recv(2048)
            source, destination = (int.from_bytes(frame[at : at + 2]) for at in (start, start + 2))
            if destination == PORT:
                heard.add(source)
                by.add(names[frame[6:12].hex(":")])
        for flow in flows:
            flow.close()
    return by


def spread(scene: Scene) -> None:
    """Set what spreads flows between two hosts, in the lab's own host."""
    scene.lab.host.namespace.sysctl({f"ipv{version}/fib_multipath_hash_policy": 1 for version in (4, 6)})


def warnings(scene: Scene) -> list[str]:
    """What the agent says of the hash policies."""
    (group,) = scene.agent.status()["groups"]
    return [finding["message"] for finding in group["findings"] if finding["reason"] == "MultipathHashPolicy"]


@pytest.mark.parametrize("version", [4, 6])
def test_flows_to_one_neighbour_leave_by_every_member(version: int) -> None:
    with Scene(watched=()) as scene:
        spread(scene)
        assert carriers(scene, version) == {"nic0", "nic1"}
        wait_for(lambda: warnings(scene), lambda found: not found)
        scene.lab.host.nic("nic0").unplug()
        scene.wait_state("degraded")
        assert carriers(scene, version) == {"nic1"}
        scene.lab.host.nic("nic0").plug()
        scene.wait_state("ok")
        scene.settle()
        assert carriers(scene, version) == {"nic0", "nic1"}


def test_policy_that_keeps_flows_together_is_told_and_left_alone() -> None:
    with Scene(watched=()) as scene:
        names = [f"/proc/sys/net/ipv{version}/fib_multipath_hash_policy" for version in (4, 6)]
        assert scene.lab.host.namespace.run("cat", *names).split() == ["0", "0"], "the kernel's default"
        assert len(carriers(scene, 4)) == len(carriers(scene, 6)) == 1
        found = wait_for(lambda: warnings(scene), lambda found: len(found) == 2)
        assert all("Set it to 1" in words for words in found)
        assert scene.lab.host.namespace.run("cat", *names).split() == ["0", "0"]


def test_without_spreading_one_member_carries_and_another_takes_over() -> None:
    with Scene(changes={"outboundSpreading": "Disabled"}) as scene:
        spread(scene)
        (first,) = carriers(scene, 4)
        assert carriers(scene, 6) == {first}
        wait_for(lambda: warnings(scene), lambda found: not found)
        scene.lab.host.nic(first).unplug()
        scene.wait_state("degraded")
        scene.flows()
        (second,) = carriers(scene, 4)
        assert carriers(scene, 6) == {second} != {first}
        scene.lab.host.nic(first).plug()
        scene.wait_state("ok")
        scene.flows()
        assert len(carriers(scene, 4)) == len(carriers(scene, 6)) == 1
        assert {V4, V6} <= scene.homes().keys()
        for stream in scene.streams.values():
            assert stream.stop().error is None
