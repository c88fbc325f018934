"""An agent that finds what a former version of it laid: shadows among the host's own routes, and their nexthops."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.lab import Lab, PingTrain, wait_for
from tests.lab.agent import Agent
from tests.lab.scene import usual_group

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE4, NODE6 = "198.18.0.11", "2001:db8:0:1::11"
ROUTES = ("route add default via 198.18.0.1 dev nic0 mtu 1400", "route add default via 2001:db8:0:1::1 dev nic0")
FIRST = 0x49504D50
# As version 0.1.0 laid them: legs, one group for each way of leaving, shadows better by one, prefixes in `default`.
SHADOWS = (
    *(f"nexthop add id {FIRST + i} dev nic{i} protocol 73" for i in (0, 1)),
    *(f"nexthop add id {FIRST + 2 + i} via 198.18.0.1 dev nic{i} onlink protocol 73" for i in (0, 1)),
    *(f"-6 nexthop add id {FIRST + 4 + i} dev nic{i} protocol 73" for i in (0, 1)),
    *(f"nexthop add id {FIRST + 10 + i} group {FIRST + 2 * i}/{FIRST + 2 * i + 1} protocol 73" for i in range(3)),
    f"route prepend 198.18.0.0/24 nhid {FIRST + 10} protocol 73 scope link src {NODE4}",
    f"route prepend default nhid {FIRST + 11} protocol 73 src {NODE4}",
    f"-6 route add 2001:db8:0:1::/64 nhid {FIRST + 12} protocol 73 metric 255",
    *(f"-6 nexthop add id {FIRST + 6 + i} via 2001:db8:0:1::1 dev nic{i} protocol 73" for i in (0, 1)),
    f"nexthop add id {FIRST + 13} group {FIRST + 6}/{FIRST + 7} protocol 73",
    f"-6 route add default nhid {FIRST + 13} protocol 73 metric 1023 src {NODE6}",
    *(f"route add 198.18.0.0/24 dev nic{i} table default protocol 73 metric {i + 2}" for i in (0, 1)),
)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A host with addresses and default routes of its own, and a router."""
    with Lab(router=True, nic_addresses={"nic0": (f"{NODE4}/24", f"{NODE6}/64")}) as running:
        running.host.namespace.batch(ROUTES)
        yield running


def routing(lab: Lab) -> list[str]:
    """The routes of `main` and `default`, which are the host's alone."""
    run = lab.host.namespace.run
    looks = [run("ip", family, "route", "show", "table", "main") for family in ("-4", "-6")]
    return [*looks, run("sh", "-c", "ip -4 route show table default 2>/dev/null || true")]


def test_shadows_of_a_former_version_become_twins_and_no_packet_is_lost(lab: Lab) -> None:
    before = routing(lab)
    host = lab.host.namespace
    host.batch(f"address add 198.18.0.4{i}/32 dev nic{i} scope link" for i in (0, 1))
    for command in SHADOWS:
        host.ip(*command.split())
    assert routing(lab) != before
    targets = (lab.hosts["remote"].ipv4, lab.hosts["remote"].ipv6, lab.peer(1).ipv4, lab.peer(1).ipv6)
    trains = [PingTrain(host, target, 0.005) for target in targets]
    inbound = [PingTrain(lab.peer(0).namespace, target, 0.005) for target in (NODE4, NODE6)]
    for train in (*trains, *inbound):
        train.__enter__()
        train.wait_answered()
    with Agent(lab, usual_group(lab)):
        wait_for(lambda: routing(lab), lambda now: now == before, what="the host's own routes alone")
        words = ("route", "show", "default", "table", "73")
        for family in ("-4", "-6"):
            wait_for(partial(host.ip_json, family, *words), lambda found: len(found[0].get("nexthops", ())) == 2)
        wait_for(
            lambda: [nexthop for nexthop in host.ip_json("nexthop", "show") if "gateway" in nexthop],
            lambda found: not found,
            what="no nexthop of a shadow",
        )
        for train in (*trains, *inbound):
            assert train.stop().lost == 0
