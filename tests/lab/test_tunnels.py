"""A VXLAN overlay between two hosts with an agent each, pinned to one NIC as CNIs do it."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab import Agent, Lab, TcpStream, wait_for
from tests.lab.pods import OVERLAY, UNDERLAY, following, lay, pinned_to
from tests.lab.scene import settle, usual_group
from tests.lab.status import group_view

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab import Namespace


def entries(namespace: Namespace) -> list[str]:
    """The forwarding entries; the interface of the one for the remote, where it is that of the device, left out."""
    device = pinned_to(namespace)
    return namespace.run("bridge", "fdb", "show", "dev", "over1").replace(f"via {device} ", "").splitlines()


@contextlib.contextmanager
def overlay(version: int, shape: str, **changes: Any) -> Iterator[tuple[Lab, Agent]]:
    with Lab(hosts=("host", "other")) as lab, contextlib.ExitStack() as stack:
        agents = []
        for side, name in enumerate(("host", "other")):
            host = lab.hosts[name]
            manifest = usual_group(lab, **following(side, version), **changes)
            lay(host.namespace, side, version, shape)
            agents.append(stack.enter_context(Agent(lab, manifest, host=host)))
        for agent in agents:
            agent.wait_for(lambda status: group_view(status).state == "ok", what="ok")
        yield lab, agents[0]


def follows(lab: Lab, version: int) -> str:
    """Wait until the device is pinned to the holder of its local address; returns it."""

    def look() -> tuple[list[str], str]:
        return lab.host.holders(UNDERLAY[version][0]), pinned_to(lab.host.namespace)

    found = wait_for(look, lambda seen: seen[0] == [seen[1]], what="the tunnel beside its local address", deadline=15)
    return found[1]


def moved_from(lab: Lab, version: int, name: str) -> None:
    wait_for(lambda: lab.host.holders(UNDERLAY[version][0]), lambda holders: name not in holders, deadline=15)


@pytest.mark.parametrize("shape", ["remote", "entries"])
@pytest.mark.parametrize("version", [4, 6])
def test_overlay_survives_pull_silence_and_failback(version: int, shape: str) -> None:
    with overlay(version, shape) as (lab, agent):
        home = follows(lab, version)
        before = entries(lab.host.namespace)
        with TcpStream(lab.hosts["other"].namespace, lab.host.namespace, OVERLAY[0]) as stream:
            stream.wait_received(100, deadline=20)
            for fault in ("unplug", "silence"):
                nic = lab.host.nic(follows(lab, version))
                getattr(nic, fault)()
                moved_from(lab, version, nic.name)
                assert follows(lab, version) != nic.name
                stream.wait_received(200, deadline=30)
                nic.plug() if fault == "unplug" else nic.restore()
                agent.wait_for(lambda status: group_view(status).state == "ok", what="ok", deadline=20)
                follows(lab, version)
                stream.wait_received(200, deadline=30)
            report = stream.stop()
        assert report.error is None
        assert report.received == report.sent
        assert entries(lab.host.namespace) == before
        settle(agent)
        print(f"{home}: IPv{version} {shape}: {report}")


def test_tunnel_goes_back_with_the_address_and_at_withdrawal() -> None:
    with overlay(4, "entries", standby=["nic1"]) as (lab, agent):
        assert follows(lab, 4) == "nic0"
        lab.host.nic("nic0").unplug()
        wait_for(lambda: pinned_to(lab.host.namespace), lambda link: link == "nic1")
        lab.host.nic("nic0").plug()
        wait_for(lambda: pinned_to(lab.host.namespace), lambda link: link == "nic0", deadline=20)
        lab.host.nic("nic0").unplug()
        wait_for(lambda: pinned_to(lab.host.namespace), lambda link: link == "nic1")
        agent.kill()
        done = agent.withdraw()
        assert done.returncode == 0, done.stderr
        assert pinned_to(lab.host.namespace) == "nic0"


def test_tunnel_that_its_owner_makes_anew_follows_within_a_moment() -> None:
    with overlay(4, "entries", standby=["nic1"]) as (lab, _):
        lab.host.nic("nic0").unplug()
        wait_for(lambda: pinned_to(lab.host.namespace), lambda link: link == "nic1")
        lab.host.namespace.ip("link", "del", "over1")
        lay(lab.host.namespace, 0, 4, "entries")
        wait_for(lambda: pinned_to(lab.host.namespace), lambda link: link == "nic1", deadline=5)


@pytest.mark.parametrize("changes", [{"tunnels": "Ignore"}, {"mode": "Observe"}], ids=["Ignore", "Observe"])
def test_tunnel_stays_when_it_is_to_be_left_alone(changes: dict[str, str]) -> None:
    with overlay(4, "entries", **changes) as (lab, agent):
        lab.host.nic("nic0").unplug()
        agent.wait_for(lambda status: group_view(status).state == "degraded", what="degraded")
        time.sleep(1)
        assert pinned_to(lab.host.namespace) == "nic0"


def test_without_following_the_pinned_tunnel_is_cut_by_the_kernel() -> None:
    """What the other tests would see if nobody followed: the address has moved, and the device sends nothing."""
    with (
        overlay(4, "remote", standby=["nic1"], tunnels="Ignore") as (lab, agent),
        TcpStream(lab.hosts["other"].namespace, lab.host.namespace, OVERLAY[0]) as stream,
    ):
        stream.wait_received(100, deadline=20)
        pulled = lab.host.nic("nic0").unplug()
        moved_from(lab, 4, "nic0")
        time.sleep(2)
        # What was in flight is taken in, and never acknowledged.
        assert [at for at in stream.report().arrivals if at > pulled + 1.0] == []
        agent.write(usual_group(lab, **following(0, 4), standby=["nic1"]))
        agent.reload()
        wait_for(lambda: pinned_to(lab.host.namespace), lambda link: link == "nic1")
        stream.wait_received(200, deadline=30)


def test_tunnels_that_do_not_follow_are_named(lab: Lab) -> None:
    lab.host.namespace.batch(
        [
            "link add stuck1 type vxlan id 7 local 198.18.0.77 dev nic1 dstport 4789",
            "link add group1 type vxlan id 9 group 239.1.1.1 local 198.18.0.100 dev nic1 dstport 4790",
            "link add free1 type vxlan id 8 local 198.18.0.77 dstport 4789",
        ]
    )
    with Agent(lab, usual_group(lab)) as agent:

        def named() -> dict[str, str]:
            (group,) = agent.status()["groups"]
            found = [finding for finding in group["findings"] if finding["reason"] == "TunnelPinned"]
            return {finding["message"].split()[0]: finding["message"] for finding in found}

        found = wait_for(named, lambda found: len(found) == 2)
        assert "198.18.0.77) is no data address" in found["stuck1"]
        assert "239.1.1.1 is a multicast group" in found["group1"]
        assert lab.host.namespace.ip_json("link", "show", "dev", "stuck1")[0]["linkinfo"]["info_data"]["link"] == "nic1"
