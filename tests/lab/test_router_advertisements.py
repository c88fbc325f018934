"""A real router that advertises itself on the members' link: its route lives as long as it says, and no longer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.lab import Lab, wait_for
from tests.lab.routing import Radvd
from tests.lab.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE = ("198.18.0.11/24", "2001:db8:0:1::11/64")
LIFETIME = 600
BOTH = {"nic0", "nic1"}


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A host that hears router advertisements on nic0 alone."""
    with Lab(router=True, nic_addresses={"nic0": NODE}) as running:
        settings = {"ipv6/conf/nic0/accept_ra": 2, "ipv6/conf/nic1/accept_ra": 0}
        running.host.namespace.sysctl(settings)
        yield running


def advertised(lab: Lab) -> list[dict[str, Any]]:
    """The host's own default routes that a router advertised, with how long they live."""
    return lab.host.namespace.ip_json("-6", "route", "show", "default", "proto", "ra", "table", "main")


def twins(lab: Lab) -> set[str]:
    found = lab.host.namespace.ip_json("-6", "route", "show", "default", "table", "73")
    return {hop["dev"] for route in found for hop in route.get("nexthops", [route])}


def test_an_advertised_route_keeps_its_lifetime_through_an_outage_and_goes_with_the_routers_goodbye(lab: Lab) -> None:
    with Scene(lab=lab, watched=()) as scene, Radvd(lab.hosts["router"], LIFETIME) as router:
        wait_for(lambda: advertised(lab), bool, deadline=30)
        wait_for(lambda: twins(lab), BOTH.__eq__)
        lab.host.nic("nic0").unplug()
        scene.wait_state("degraded")
        wait_for(lambda: twins(lab), {"nic1"}.__eq__)
        lab.host.nic("nic0").plug()
        scene.wait_state("ok")
        wait_for(lambda: advertised(lab), lambda found: [route["dev"] for route in found] == ["nic0"], deadline=30)
        assert all(0 < route["expires"] <= LIFETIME for route in advertised(lab)), "never for good"
        wait_for(lambda: twins(lab), BOTH.__eq__)
        router.end()
        wait_for(lambda: advertised(lab), lambda found: not found)
        wait_for(lambda: twins(lab), lambda legs: not legs)
        scene.settle()
        assert advertised(lab) == []
