"""A pod behind the host talks to the outside: its connection survives failovers with podEgress, and only with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab import Agent, Lab, TcpStream, wait_for
from tests.lab.pods import SOURCE_CIDRS, pod_behind
from tests.lab.scene import OTHER_V4, OTHER_V6, V4, V6, settle, usual_group
from tests.lab.status import group_view

if TYPE_CHECKING:
    from tests.lab import Namespace

DATA = {4: {V4, OTHER_V4}, 6: {V6, OTHER_V6}}
PULLS = 6


def peers_of(server: Namespace, version: int) -> set[str]:
    """Where the connections that a server has come from."""
    lines = server.run("ss", "-Htn", f"-{version}", "state", "established").splitlines()
    return {line.split()[3].rpartition(":")[0].strip("[]").removeprefix("::ffff:") for line in lines}


@pytest.mark.parametrize("version", [4, 6])
def test_connection_of_a_pod_survives_failovers_and_failbacks(version: int) -> None:
    with Lab() as lab, pod_behind(lab) as pod:
        manifest = usual_group(lab, podEgress={"sourceCIDRs": SOURCE_CIDRS})
        server = lab.peer(0)
        with Agent(lab, manifest) as agent:
            agent.wait_for(lambda status: group_view(status).state == "ok", what="ok")
            wait_for(lambda: lab.host.namespace.run("nft", "list", "ruleset"), lambda seen: seen.count("snat ip") == 2)
            with TcpStream(pod, server.namespace, server.ipv4 if version == 4 else server.ipv6) as stream:
                stream.wait_received(100, deadline=20)
                (source,) = peers_of(server.namespace, version)
                assert source in DATA[version]
                for pull in range(PULLS):
                    nic = list(lab.host.nics.values())[pull % 2]
                    nic.unplug()
                    stream.wait_received(100, deadline=30)
                    wait_for(lambda nic=nic: lab.host.holders(source), lambda seen, nic=nic: nic.name not in seen)
                    nic.plug()
                    agent.wait_for(lambda status: group_view(status).state == "ok", what="ok", deadline=20)
                report = stream.stop()
            settle(agent)
        assert report.error is None
        assert report.received == report.sent
        print(f"IPv{version}, {PULLS} pulls: {report}")


def test_masquerade_loses_what_source_nat_keeps() -> None:
    with Lab() as lab, pod_behind(lab) as pod:
        lab.host.namespace.run(
            "nft", "table ip masq { chain post { type nat hook postrouting priority 100; oifname nic* masquerade; }; }"
        )
        server = lab.peer(0)
        with Agent(lab, usual_group(lab)) as agent:
            agent.wait_for(lambda status: group_view(status).state == "ok", what="ok")
            wait_for(lambda: [lab.host.holders(one) for one in (V4, OTHER_V4)], all)
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
