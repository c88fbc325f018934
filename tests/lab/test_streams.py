"""TCP streams of every kind through fifty failovers in a row: not one connection is lost, and not one byte."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.lab import Agent, Lab, TcpStream, wait_for
from tests.lab.pods import OVERLAY, SOURCE_CIDRS, UNDERLAY, following, lay, pod_behind
from tests.lab.scene import TEST_POOL, V4, V6, settle, usual_group
from tests.lab.status import group_view

if TYPE_CHECKING:
    from tests.lab import Host, Nic

PULLS = 50
ADDRESSES = (f"{V4}/24", f"{V6}/64")


def wait_moved(host: Host, nic: str) -> None:
    wait_for(lambda: host.holders(V4) + host.holders(V6), lambda seen: seen and nic not in seen)


def test_streams_survive_fifty_failovers_and_the_failbacks_between() -> None:
    """Each pull takes the NIC that holds the addresses; they go back after it as far as the move budget lets them."""
    assert UNDERLAY[4][0] == V4
    with Lab(hosts=("host", "other")) as lab, pod_behind(lab) as pod, contextlib.ExitStack() as stack:
        host, other, outside = lab.host, lab.hosts["other"], lab.peer(0)
        ours = usual_group(
            lab,
            addresses=ADDRESSES,
            podEgress={"sourceCIDRs": SOURCE_CIDRS},
            testAddresses={"ipv4": {"pool": TEST_POOL}},
        )
        theirs = usual_group(lab, **following(1, 4))
        for side, each in enumerate((host, other)):
            lay(each.namespace, side, 4, "entries")
        agent = stack.enter_context(Agent(lab, ours))
        stack.enter_context(Agent(lab, theirs, host=other))
        wait_for(lambda: [host.holders(V4), host.holders(V6), other.holders(UNDERLAY[4][1])], all, deadline=20)
        wait_for(lambda: host.namespace.run("nft", "list", "ruleset"), lambda seen: "snat ip to" in seen)
        streams = {
            "IPv4": TcpStream(outside.namespace, host.namespace, V4),
            "IPv6": TcpStream(outside.namespace, host.namespace, V6),
            "pod behind SNAT": TcpStream(pod, outside.namespace, outside.ipv4),
            "VXLAN": TcpStream(other.namespace, host.namespace, OVERLAY[0]),
        }
        for stream in streams.values():
            stack.enter_context(stream)
        moved = 0
        for _ in range(PULLS):
            flowing(streams)
            agent.wait_for(lambda status: group_view(status).state == "ok", what="ok", deadline=30)
            nic = holder(lab)
            nic.unplug()
            wait_moved(host, nic.name)
            moved += 1
            flowing(streams)
            nic.plug()
        reports = {kind: stream.stop() for kind, stream in streams.items()}
        agent.wait_for(lambda status: group_view(status).state == "ok", what="ok", deadline=30)
        settle(agent)
    assert moved == PULLS
    for kind, report in reports.items():
        print(f"{kind}, {PULLS} pulls: {report}")
    assert {kind: report.error for kind, report in reports.items()} == dict.fromkeys(reports)
    assert all(report.received == report.sent for report in reports.values())


def holder(lab: Lab) -> Nic:
    """The NIC that holds the IPv4 address."""
    (name,) = wait_for(lambda: lab.host.holders(V4), lambda seen: len(seen) == 1)
    return lab.host.nic(name)


def flowing(streams: dict[str, TcpStream]) -> None:
    for stream in streams.values():
        stream.wait_received(20, deadline=30)
