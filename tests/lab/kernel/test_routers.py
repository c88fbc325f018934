"""Several routers of one route: those that do not answer are no ways out until they answer again."""

from __future__ import annotations

from functools import partial
from ipaddress import ip_interface
from operator import eq
from typing import TYPE_CHECKING

import pytest

from ipmp_agent.core.actions import SetOutbound
from ipmp_agent.core.events import Family
from tests.lab import Lab, PingTrain, wait_for
from tests.lab.kernel.running import kernel_group, with_tests

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.kernel.running import RunningKernel

BOTH = ("nic0", "nic1")
NODE4, NODE6 = ip_interface("198.18.0.50/24"), ip_interface("2001:db8:0:1::50/64")
DEADLINE = 40.0
"""Seconds: an entry is confirmed every 5 s and fails after 3 more, on a machine that does other things, too."""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(router=True, nic_addresses={"nic0": (str(NODE4), str(NODE6))}) as running:
        yield running


@pytest.fixture
def group(lab: Lab, kernel: RunningKernel) -> RunningKernel:
    kernel.configure(kernel_group(*with_tests("198.18.0.101/24", "198.18.0.102/24"), addresses=(NODE4, NODE6)))
    for nic in BOTH:
        kernel.await_test_address(nic, Family.IPV4)
    kernel.perform(SetOutbound(BOTH, BOTH))
    return kernel


def gateways(lab: Lab, destination: str, family: str) -> set[str]:
    found = lab.host.namespace.ip_json(family, "route", "show", destination, "table", "73")
    return {hop["gateway"] for route in found for hop in route.get("nexthops", [route]) if "gateway" in hop}


ROUTES = {
    "one IPv4 route over both": [
        "route add 198.19.0.0/24 nexthop via 198.18.0.1 dev nic0 nexthop via 198.18.0.201 dev nic0"
    ],
    "two IPv4 routes of one metric": [
        "route add 198.19.0.0/24 via 198.18.0.1 dev nic0",
        "route append 198.19.0.0/24 via 198.18.0.201 dev nic0",
    ],
    "two IPv6 routes of one metric": [
        "route add 2001:db8:0:2::/64 via 2001:db8:0:1::1 dev nic0",
        "route append 2001:db8:0:2::/64 via 2001:db8:0:1::201 dev nic0",
    ],
}


@pytest.mark.parametrize("kind", ROUTES)
@pytest.mark.usefixtures("group")
def test_a_router_that_is_silent_is_no_way_out_until_it_answers_again(lab: Lab, kind: str) -> None:
    host, other = lab.host.namespace, lab.peer(0)
    six = "IPv6" in kind
    family, destination = ("-6", "2001:db8:0:2::/64") if six else ("-4", "198.19.0.0/24")
    routers = {"2001:db8:0:1::1", "2001:db8:0:1::201"} if six else {"198.18.0.1", "198.18.0.201"}
    (alive,) = {router for router in routers if router.endswith(("::1", ".1"))}
    host.batch(ROUTES[kind])
    wait_for(partial(gateways, lab, destination, family), partial(eq, routers))
    other.namespace.ip("link", "set", "eth0", "down")
    wait_for(partial(gateways, lab, destination, family), partial(eq, {alive}), deadline=DEADLINE)
    remote = lab.hosts["remote"]
    with PingTrain(host, remote.ipv6 if six else remote.ipv4, 0.02) as train:
        train.wait_answered()
        train.wait_answered()
    other.namespace.ip("link", "set", "eth0", "up")
    if six:
        other.namespace.ip("address", "replace", "2001:db8:0:1::201/64", "dev", "eth0", "nodad")
    wait_for(partial(gateways, lab, destination, family), partial(eq, routers), deadline=DEADLINE)


@pytest.mark.usefixtures("group")
def test_where_no_router_answers_all_are_kept_and_a_worse_one_is_used_while_the_better_is_silent(lab: Lab) -> None:
    """The second route of one metric has attributes of its own: the host takes the first while that is of use."""
    host = lab.host.namespace
    host.batch(
        [
            "route add 198.19.0.0/24 via 198.18.0.201 dev nic0 mtu 1400",
            "route append 198.19.0.0/24 via 198.18.0.1 dev nic0 mtu 1300",
        ]
    )
    now = partial(gateways, lab, "198.19.0.0/24", "-4")
    wait_for(now, partial(eq, {"198.18.0.201"}))
    lab.peer(0).namespace.ip("link", "set", "eth0", "down")
    wait_for(now, partial(eq, {"198.18.0.1"}), deadline=DEADLINE)
    lab.hosts["router"].namespace.ip("link", "set", "eth0", "down")
    wait_for(now, partial(eq, {"198.18.0.201"}), deadline=DEADLINE)
