"""A valid manifest that cuts the host off is undone by the agent alone; one that does not is kept."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from tests import invariants
from tests.lab import Agent, KernelDump, Lab, PingTrain, TcpStream, wait_for
from tests.lab.status import group_view
from tests.lab.trials import (
    GATEWAY,
    GATEWAY_V6,
    OWN,
    OWN_V6,
    PROVEN,
    cuts_off,
    dump,
    good,
    host_behind_a_router,
    view,
    wait_kept,
    wait_undone,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def host() -> Iterator[Lab]:
    with host_behind_a_router() as lab:
        yield lab


def nameless(lab: Lab) -> KernelDump:
    return dump(lab).without_identifiers()


def wait_as_it_was(lab: Lab, before: KernelDump, look: Callable[[Lab], KernelDump] = dump) -> None:
    wait_for(lambda: before.difference(look(lab)), lambda found: not found, what="the kernel as it was", interval=0.2)


def test_change_that_a_firewall_defeats_is_undone_and_the_firewall_is_named(host: Lab) -> None:
    rules = (
        'table inet fw { chain out { type filter hook output priority 0; oifname "nic1" ip daddr != 0.0.0.0 drop; }; }'
    )
    host.host.namespace.run("nft", "-f", "-", text=rules)
    changes = {"standby": ("nic0",), "addresses": ("198.18.0.100/24",)}
    with Agent(host, good(host, **changes), trials=True) as agent:
        words = wait_undone(agent)["undone"]
        assert "answered this node, and not after it" in words
        assert "nftables inet fw out (nic1)" in words


def test_switch_port_that_lets_an_address_pass_by_one_member_only_is_found_by_the_trial(host: Lab) -> None:
    """Whatever the hash makes of the few who are asked: all of them are asked by each member."""
    host.uplinks[1].plug()
    guard = f'type filter hook forward priority 0; iifname "host-nic1" ip saddr {OWN} drop;'
    host.switches[1].namespace.run("nft", "-f", "-", text=f"table bridge guard {{ chain pass {{ {guard} }}; }}")
    with Agent(host, good(host, addresses=("198.18.0.100/24",)), trials=True) as agent:
        words = wait_undone(agent)["undone"]
        assert "answers, but not what leaves by nic1" in words


def test_new_group_that_cuts_the_host_off_is_taken_out_again_and_connections_survive(host: Lab) -> None:
    before = dump(host)
    remote = host.hosts["remote"].namespace
    with (
        TcpStream(remote, host.host.namespace, OWN) as stream4,
        TcpStream(remote, host.host.namespace, OWN_V6) as stream6,
    ):
        stream4.wait_received()
        stream6.wait_received()
        with Agent(host, cuts_off(host), trials=True) as agent:
            undone = wait_undone(agent)
            assert GATEWAY in undone["undone"]
            assert GATEWAY_V6 in undone["undone"]
            wait_as_it_was(host, before)
            stream4.wait_received(deadline=30)
            stream6.wait_received(deadline=30)
            assert stream4.stop().error is None
            assert stream6.stop().error is None
            assert "nic2" in agent.ipmpstat("-i"), "it is still looked at"
            assert [line for line in agent.log() if line.get("reason") == "ChangeUndone" and line["level"] == "error"]
            assert 'ipmp_changes_undone_total{group="lab"} 1.0' in agent.metrics()

            agent.kill()
            agent.start()
            assert view(agent)["undone"]
            invariants.as_it_was_found(before, dump(host))

            agent.write(good(host))
            agent.reload()
            wait_for(lambda: view(agent), lambda v: v["on_trial"], what="the good group on trial")
            wait_kept(agent)
            invariants.no_unhandled_exception(agent.log_path.read_text())


def test_new_member_that_leads_nowhere_is_found_by_its_probes_before_anything_need_be_undone(host: Lab) -> None:
    remote = host.hosts["remote"].namespace
    with (
        TcpStream(remote, host.host.namespace, OWN) as stream,
        Agent(host, cuts_off(host, method="Auto"), trials=True) as agent,
    ):
        stream.wait_received()
        wait_kept(agent)
        assert group_view(agent.status()).active == {"nic0"}
        stream.wait_received(deadline=30)
        assert [line for line in agent.log() if line.get("reason") == "NotHeard"]


def test_change_that_cuts_the_host_off_is_undone_to_what_was_proven(host: Lab) -> None:
    remote = host.hosts["remote"].namespace
    with Agent(host, good(host), trials=True) as agent:
        wait_kept(agent)
        agent.wait_for(lambda s: group_view(s).addresses.get(OWN) == "nic0", what="adopted")
        before = nameless(host)
        with TcpStream(remote, host.host.namespace, OWN) as stream:
            stream.wait_received()
            agent.write(cuts_off(host))
            agent.reload()
            wait_undone(agent)
            agent.wait_for(lambda s: group_view(s).addresses.get(OWN) == "nic0", what="home again")
            stream.wait_received(deadline=30)
            assert stream.stop().error is None
        assert {member.name for member in group_view(agent.status()).members} == {"nic0", "nic1"}
        wait_as_it_was(host, before, nameless)
        host.host.nic("nic0").unplug()
        agent.wait_for(lambda s: group_view(s).addresses.get(OWN) == "nic1", what="failover as before the change")


def test_agent_killed_while_the_host_is_cut_off_leaves_the_rest_to_the_next_one(host: Lab) -> None:
    before = dump(host)
    with Agent(host, cuts_off(host), trials=True) as agent:
        wait_for(lambda: view(agent)["on_trial"], what="on trial", interval=0.05)
        wait_for(lambda: before.difference(dump(host)), what="something in the kernel", interval=0.05)
        agent.kill()
        assert before.difference(dump(host))
        agent.start()
        wait_undone(agent)
        wait_as_it_was(host, before)


def test_cable_that_breaks_during_a_trial_is_a_failover_and_no_reason_to_undo(host: Lab) -> None:
    remote = host.hosts["remote"].namespace
    with Agent(host, good(host), trials=True) as agent, PingTrain(remote, OWN) as pings:
        pings.wait_answered()
        agent.wait_for(lambda s: group_view(s).addresses.get(OWN) == "nic0", what="adopted")
        assert view(agent)["on_trial"]
        host.host.nic("nic0").unplug()
        agent.wait_for(lambda s: group_view(s).addresses.get(OWN) == "nic1", what="failed over")
        wait_kept(agent)
        pings.wait_answered()


def test_agent_that_stands_still_during_a_trial_undoes_nothing(host: Lab) -> None:
    with Agent(host, good(host), trials=True) as agent:
        assert view(agent)["on_trial"]
        agent.suspend()
        stopped = dump(host)
        threading.Event().wait(8)  # longer than three looks take
        agent.resume()
        wait_kept(agent)
        assert not stopped.difference(dump(host))


def test_router_that_dies_during_a_trial_has_the_change_tried_again_when_it_is_back(host: Lab) -> None:
    router = host.hosts["router"].nic("eth0")
    with Agent(host, good(host), trials=True) as agent:
        assert view(agent)["on_trial"]
        router.silence()
        wait_undone(agent)
        wait_for(lambda: view(agent)["configuration"]["policies"]["mode"], lambda mode: mode == "Observe")
        with pytest.raises(AssertionError):  # it stays so while the router is away
            wait_for(lambda: view(agent)["undone"], lambda why: not why, deadline=12, interval=0.5)
        router.restore()
        wait_for(lambda: view(agent), lambda v: not v["undone"], deadline=PROVEN, what="tried again", interval=0.2)
        wait_kept(agent)
