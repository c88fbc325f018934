"""Real keepalived on the node and on a peer: of its VIP there is never a second owner."""

from __future__ import annotations

import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab import Agent, Lab, wait_for
from tests.lab.agent import group_manifest
from tests.lab.keepalived import Keepalived
from tests.lab.kernel.bare import Wire
from tests.lab.status import group_view

if TYPE_CHECKING:
    from collections.abc import Iterator

OWN, VIP = "198.18.0.10", "198.18.0.50"
WATCH = 1.5
"""Seconds in which an agent that holds a VIP against its owner's will has put it back."""


@pytest.fixture
def host() -> Iterator[Lab]:
    """A node with an address of its own, and a third host that asks who has what."""
    lab = Lab(nic_addresses={"nic0": (f"{OWN}/24",)})
    with lab:
        lab.host.namespace.ip("route", "add", "default", "via", lab.peer(0).ipv4)
        yield lab


def manifest(lab: Lab, **adoption: Any) -> dict[str, Any]:
    targets = [lab.peer(0).ipv4, lab.peer(1).ipv4]
    return group_manifest(targets=targets, dataAddresses={"adoption": adoption} if adoption else {})


def one_owner(lab: Lab) -> str:
    """Watch for a while, and return the only MAC address that answers for the VIP, as a third host hears it."""
    asking = lab.peer(0)
    owners: set[str] = set()
    with Wire(asking.only) as wire:
        end = time.monotonic() + WATCH
        while time.monotonic() < end:
            owners |= wire.who_has(ip_address(VIP), ip_address(asking.ipv4), 0.2)  # type: ignore[arg-type]
    assert len(owners) == 1, owners
    return owners.pop()


def handed_over(lab: Lab, new: Keepalived, to: str | None) -> None:
    """Wait until the daemons have handed the VIP over, and watch its only owner: nic0 or, without it, the peer."""
    new.wait_for("MASTER")
    wanted = [[to], []] if to else [[], ["eth0"]]
    holders = lambda: [lab.host.holders(VIP), lab.peer(1).holders(VIP)]  # noqa: E731
    wait_for(holders, lambda seen: seen == wanted, what=f"the VIP on {wanted}")
    assert one_owner(lab) == (lab.host.nic(to) if to else lab.peer(1).only).mac


def story(lab: Lab, node: Keepalived, other: Keepalived) -> None:
    """Section 1 of what real hosts did: stopped, started, cable pulled and plugged."""
    handed_over(lab, node, "nic0")
    node.stop()
    handed_over(lab, other, None)
    node.start()
    handed_over(lab, node, "nic0")
    lab.host.nic("nic0").unplug()
    wait_for(lambda: lab.host.holders(OWN), lambda holders: holders == ["nic1"])
    handed_over(lab, other, None)
    lab.host.nic("nic0").plug()
    handed_over(lab, node, "nic0")
    wait_for(lambda: lab.host.holders(OWN), lambda holders: holders == ["nic0"])


@pytest.mark.parametrize("length", [32, 24])
def test_vip_that_comes_after_the_agent_has_one_owner(host: Lab, length: int) -> None:
    vip = f"{VIP}/{length}"
    with Agent(host, manifest(host)) as agent:
        agent.wait_for(lambda s: group_view(s).addresses == {OWN: "nic0"})
        with (
            Keepalived(host.peer(1), "eth0", 100, vip) as other,
            Keepalived(host.host, "nic0", 150, vip) as node,
        ):
            story(host, node, other)
            (alone,) = agent.wait_for(lambda s: s["groups"][0]["not_adopted"])["groups"][0]["not_adopted"]
            assert (alone["address"], alone["reason"]) == (vip, "GuestAddress")
            assert VIP in agent.ipmpstat("-a", "-n")


@pytest.mark.parametrize(
    ("length", "adoption"),
    [(32, {}), (24, {}), (24, {"exclude": [f"{VIP}/32"]})],
    ids=["a single host address", "with the prefix length of the link", "excluded"],
)
def test_vip_that_is_there_before_the_agent_has_one_owner(host: Lab, length: int, adoption: dict[str, Any]) -> None:
    vip = f"{VIP}/{length}"
    with (
        Keepalived(host.peer(1), "eth0", 100, vip) as other,
        Keepalived(host.host, "nic0", 150, vip) as node,
    ):
        node.wait_for("MASTER")
        with Agent(host, manifest(host, **adoption)) as agent:
            agent.wait_for(lambda s: group_view(s).addresses == {OWN: "nic0"})
            story(host, node, other)
