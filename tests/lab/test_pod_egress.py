"""A pod behind the host talks to the outside: its connection survives failovers with podEgress, and only with it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab import Agent, Lab, TcpStream, wait_for
from tests.lab.pods import SOURCE_CIDRS, pod_behind
from tests.lab.scene import DATA_ADDRESSES, OTHER_V4, OTHER_V6, V4, V6, settle, usual_group
from tests.lab.status import group_view

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab import Namespace

DATA = {4: {V4, OTHER_V4}, 6: {V6, OTHER_V6}}
PULLS = 6


def peers_of(server: Namespace, version: int) -> set[str]:
    """Where the connections that a server has come from."""
    lines = server.run("ss", "-Htn", f"-{version}", "state", "established").splitlines()
    return {line.split()[3].rpartition(":")[0].strip("[]").removeprefix("::ffff:") for line in lines}


def stands_still(stream: TcpStream, seconds: float = 1.0) -> Callable[[], bool]:
    """Whether nothing has arrived for some time, whenever it is asked."""
    return lambda: time.monotonic() - stream.report().arrivals[-1] > seconds


def wait_left(lab: Lab, address: str, nic: str) -> None:
    wait_for(lambda: lab.host.holders(address), lambda seen: nic not in seen, what=f"{address} away from {nic}")


def wait_masqueraded(lab: Lab, names: list[str]) -> None:
    """Wait until what leaves through these interfaces, and no others, is masqueraded."""
    jumps = [f'oifname "{name}" jump pods' for name in names]
    wait_for(
        lambda: lab.host.namespace.run("nft", "list", "ruleset"),
        lambda seen: seen.count("jump pods") == len(jumps) and all(j in seen for j in jumps),
    )


def wait_within(lab: Lab, address: str, names: list[str]) -> None:
    wait_for(lambda: lab.host.holders(address), lambda seen: set(seen) <= set(names) and seen)


@pytest.mark.parametrize("version", [4, 6])
def test_connection_of_a_pod_survives_failovers_and_failbacks(version: int) -> None:
    with Lab() as lab, pod_behind(lab) as pod:
        manifest = usual_group(lab, podEgress={"sourceCIDRs": SOURCE_CIDRS})
        server = lab.peer(0)
        with Agent(lab, manifest) as agent:
            agent.wait_for(lambda status: group_view(status).state == "ok", what="ok")
            wait_for(lambda: lab.host.namespace.run("nft", "list", "ruleset"), lambda seen: seen.count("snat ip") == 4)
            with TcpStream(pod, server.namespace, server.ipv4 if version == 4 else server.ipv6) as stream:
                stream.wait_received(100, deadline=20)
                (source,) = peers_of(server.namespace, version)
                assert source in DATA[version]
                for pull in range(PULLS):
                    nic = list(lab.host.nics.values())[pull % 2]
                    nic.unplug()
                    stream.wait_received(100, deadline=30)
                    wait_left(lab, source, nic.name)
                    nic.plug()
                    agent.wait_for(lambda status: group_view(status).state == "ok", what="ok", deadline=20)
                report = stream.stop()
            settle(agent)
        assert report.error is None
        assert report.received == report.sent
        print(f"IPv{version}, {PULLS} pulls: {report}")


@pytest.mark.parametrize("version", [4, 6])
def test_connection_of_the_host_keeps_its_address_beside_somebody_who_masquerades(version: int) -> None:
    """As kube-proxy masquerades what the host sends to a service."""
    with Lab() as lab:
        family = "ip" if version == 4 else "ip6"
        chain = "chain post { type nat hook postrouting priority 100; oifname nic* masquerade; }"
        lab.host.namespace.run("nft", f"table {family} masq {{ {chain}; }}")
        server = lab.peer(0)
        with Agent(lab, usual_group(lab, podEgress={"sourceCIDRs": SOURCE_CIDRS})) as agent:
            agent.wait_for(lambda status: group_view(status).state == "ok", what="ok")
            wait_for(lambda: lab.host.namespace.run("nft", "list", "ruleset"), lambda seen: seen.count("snat ip") == 4)
            outside = server.ipv4 if version == 4 else server.ipv6
            with TcpStream(lab.host.namespace, server.namespace, outside) as stream:
                stream.wait_received(50)
                (source,) = peers_of(server.namespace, version)
                assert source in DATA[version]
                for pull in range(PULLS):
                    nic = list(lab.host.nics.values())[pull % 2]
                    nic.unplug()
                    wait_left(lab, source, nic.name)
                    stream.wait_received(100, deadline=30)
                    nic.plug()
                    agent.wait_for(lambda status: group_view(status).state == "ok", what="ok", deadline=20)
                report = stream.stop()
        assert report.error is None
        assert report.received == report.sent


def test_masquerade_loses_what_source_nat_keeps() -> None:
    with Lab() as lab, pod_behind(lab) as pod:
        lab.host.namespace.run(
            "nft", "table ip masq { chain post { type nat hook postrouting priority 100; oifname nic* masquerade; }; }"
        )
        server = lab.peer(0)
        with Agent(lab, usual_group(lab)) as agent:
            agent.wait_for(lambda status: group_view(status).state == "ok", what="ok")
            wait_for(lambda: [lab.host.holders(one) for one in (V4, OTHER_V4)], all)
            wait_for(lambda: lab.host.namespace.run("ip", "route", "show", "table", "all", "198.18.0.0/24"))
            with TcpStream(pod, server.namespace, server.ipv4) as stream:
                stream.wait_received(50)
                (source,) = peers_of(server.namespace, 4)
                assert source in DATA[4]
                (holder,) = lab.host.holders(source)
                lab.host.nic(holder).unplug()
                wait_for(lambda: lab.host.holders(source), lambda seen: seen and holder not in seen)
                # The kernel has forgotten the flow: what goes on is a stranger to the server, who resets it.
                report = wait_for(stream.report, lambda report: report.error is not None, deadline=30)
        assert "reset" in str(report.error)


@pytest.mark.parametrize("version", [4, 6])
def test_connection_of_a_pod_survives_a_change_of_members_and_ends_only_with_its_address(version: int) -> None:
    egress = {"sourceCIDRs": SOURCE_CIDRS}
    with Lab() as lab, pod_behind(lab) as pod:
        server = lab.peer(0)
        outside = server.ipv4 if version == 4 else server.ipv6

        def change(agent: Agent, **group: Any) -> None:
            agent.write(usual_group(lab, podEgress=egress, **group))
            agent.reload()

        with Agent(lab, usual_group(lab, podEgress=egress)) as agent:
            agent.wait_for(lambda status: group_view(status).state == "ok", what="ok")
            wait_for(lambda: lab.host.namespace.run("nft", "list", "ruleset"), lambda seen: seen.count("snat ip") == 4)
            with TcpStream(pod, server.namespace, outside) as stream:
                stream.wait_received(100, deadline=20)
                (source,) = peers_of(server.namespace, version)
                for names in (["nic1"], ["nic0", "nic1"], ["nic0"], ["nic0", "nic1"]):
                    change(agent, interfaces=names)
                    wait_masqueraded(lab, names)
                    wait_within(lab, source, names)
                    stream.wait_received(100, deadline=30)
                assert peers_of(server.namespace, version) == {source}
                assert stream.report().error is None

                left = [each for each in DATA_ADDRESSES if not each.startswith(f"{source}/")]
                change(agent, addresses=left)
                wait_for(lambda: lab.host.holders(source), lambda seen: not seen)
                (other,) = DATA[version] - {source}
                wait_for(
                    lambda: lab.host.namespace.run("nft", "list", "ruleset"),
                    lambda seen: source not in seen and f"to {other}" in seen,
                )
                with TcpStream(pod, server.namespace, outside) as later:
                    later.wait_received(100, deadline=20)
                    assert other in peers_of(server.namespace, version)
                    assert later.stop().error is None
                # What was under way lives on for as long as the neighbours remember; nobody answers when they ask.
                assert stream.report().error is None
                server.namespace.ip("neighbour", "flush", "all")
                wait_for(stands_still(stream), bool, deadline=20)
            settle(agent)
