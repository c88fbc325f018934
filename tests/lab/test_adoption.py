"""A host's own addresses and routes, adopted: they survive what their NIC does not, and are given back bit for bit."""

from __future__ import annotations

import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from tests import invariants
from tests.lab import Agent, KernelDump, Lab, PingTrain, TcpStream, wait_for
from tests.lab.own_network import (
    ALL,
    HOST,
    V4,
    V6,
    dumped,
    homes,
    manifest,
    wait_home,
    withdraw,
)
from tests.lab.scene import settle
from tests.lab.status import all_heard, group_view

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def host() -> Iterator[Lab]:
    """A host that reaches a network behind a router by addresses and routes of its own on nic0."""
    lab = Lab(router=True, nic_addresses={"nic0": (f"{V4}/24", f"{V6}/64")})
    with lab:
        lab.host.namespace.batch(HOST)
        wait_for(lambda: dumped(lab), lambda dump: dump == dumped(lab), what="a kernel at rest", interval=0.5)
        yield lab


def reachable(lab: Lab) -> None:
    """Wait until a host behind the router has answers from both addresses."""
    remote = lab.hosts["remote"].namespace
    with PingTrain(remote, V4, 0.01) as ping4, PingTrain(remote, V6, 0.01) as ping6:
        ping4.wait_answered()
        ping6.wait_answered()


def test_everything_the_host_had_survives_a_cable_and_is_given_back(host: Lab) -> None:
    before = dumped(host)
    remote = host.hosts["remote"].namespace
    with Agent(host, manifest(host)) as agent:
        wait_home(agent, "nic0")
        assert agent.dump().addresses == before.addresses
        shown = agent.ipmpstat("-a", "-n")
        assert all(address in shown for address in ALL)
        agent.wait_for(lambda s: group_view(s).state == "ok", what="ok")
        with (
            PingTrain(remote, V4, 0.01) as ping4,
            PingTrain(remote, V6, 0.01) as ping6,
            TcpStream(remote, host.host.namespace, V4) as tcp4,
            TcpStream(remote, host.host.namespace, V6) as tcp6,
        ):
            flows = (ping4.wait_answered, ping6.wait_answered, tcp4.wait_received, tcp6.wait_received)
            for flow in flows:
                flow()
            host.host.nic("nic0").unplug()
            wait_home(agent, "nic1")
            for flow in flows:
                flow()
            settle(agent)
            host.host.nic("nic0").plug()
            wait_home(agent, "nic0")
            for flow in flows:
                flow()
            settle(agent)
            assert (tcp4.stop().error, tcp6.stop().error) == (None, None)
        wait_for(lambda: agent.dump().addresses, lambda found: found == before.addresses, what="as it was")
        invariants.as_it_was_found(before, withdraw(agent))


def test_deleted_while_everything_is_away_from_home(host: Lab) -> None:
    before = dumped(host)
    with Agent(host, manifest(host)) as agent:
        wait_home(agent, "nic0")
        host.host.nic("nic0").unplug()
        wait_home(agent, "nic1")
        host.host.nic("nic0").plug()
        invariants.as_it_was_found(before, withdraw(agent))


def test_deleted_while_the_home_has_no_carrier(host: Lab) -> None:
    """It gets everything back in any case, and works again when its carrier returns."""
    before = dumped(host)
    with Agent(host, manifest(host)) as agent:
        wait_home(agent, "nic0")
        host.host.nic("nic0").unplug()
        wait_home(agent, "nic1")
        invariants.as_it_was_found(before, withdraw(agent))
    host.host.nic("nic0").plug()
    reachable(host)
    invariants.as_it_was_found(before, dumped(host))


def test_deleted_while_the_home_is_taken_down(host: Lab) -> None:
    """The addresses are back at once; the routes by gateways it loses when it is taken down, with us or without."""
    before = dumped(host)
    with Agent(host, manifest(host)) as agent:
        wait_home(agent, "nic0")
        host.host.namespace.ip("link", "set", "nic0", "down")
        wait_home(agent, "nic1")
        after = withdraw(agent)
    own = [line for line in before.addresses if "fe80" not in line]
    assert [line for line in after.addresses if "fe80" not in line] == own
    assert (after.nexthops, after.rules, after.settings) == (before.nexthops, before.rules, before.settings)
    assert not [line for line in after.routes if "nic0" in line]
    host.host.namespace.ip("link", "set", "nic0", "up")
    wait_for(lambda: dumped(host).addresses, lambda found: found == before.addresses)
    by_gateway = {line for line in before.routes if "gateway" in line}
    wait_for(lambda: set(dumped(host).routes), lambda found: found == set(before.routes) - by_gateway)


@pytest.mark.parametrize("restarted", [False, True])
def test_deleted_while_the_home_is_gone_leaves_the_node_to_be_reached(host: Lab, *, restarted: bool) -> None:
    """What it had belongs to the member that held it, as if the host had laid it there."""
    before = dumped(host)
    with Agent(host, manifest(host)) as agent:
        wait_home(agent, "nic0")
        host.host.nic("nic0").remove()
        wait_home(agent, "nic1")
        if restarted:
            agent.kill()
            agent.start()
            wait_home(agent, "nic1")
        after = withdraw(agent)
        reachable(host)
        moved = [line.replace("nic0:b", "nic1").replace("nic0", "nic1") for line in before.addresses]
        assert {a for a in after.addresses if "fe80" not in a} == {a for a in moved if "fe80" not in a}
        ours = [line.replace("nic0", "nic1") for line in before.routes if '"nic0"' in line and "fe80" not in line]
        assert {line for line in after.routes if "fe80" not in line} == set(ours) | {
            line for line in before.routes if '"nic0"' not in line and "fe80" not in line
        }
        assert (after.nexthops, after.rules) == (before.nexthops, before.rules)
        agent.start()
        wait_home(agent, "nic1")
        reachable(host)
        invariants.as_it_was_found(after, withdraw(agent))


@pytest.mark.parametrize("killed", [False, True], ids=["running", "killed before"])
def test_home_that_is_gone_and_then_taken_out_of_the_group_leaves_the_node_to_be_reached(
    host: Lab, *, killed: bool
) -> None:
    with Agent(host, manifest(host)) as agent:
        wait_home(agent, "nic0")
        host.host.nic("nic0").remove()
        wait_home(agent, "nic1")
        if killed:
            agent.kill()
        agent.write(manifest(host, interfaces=["nic1"]))
        if killed:
            agent.start()
        else:
            agent.reload()
        agent.wait_for(lambda s: len(group_view(s).members) == 1, what="one member")
        wait_home(agent, "nic1")
        reachable(host)
        settle(agent)
        after = withdraw(agent)
        assert {address for address in ALL if after.holders(address) == ["nic1"]} == ALL
        assert not [line for line in (*after.routes, *after.nexthops) if '"73"' in line]
        reachable(host)


@pytest.mark.parametrize("fault", ["unplug", "remove"])
def test_retained_while_the_home_is_dead_goes_on(host: Lab, fault: str) -> None:
    with Agent(host, manifest(host, deletionPolicy="Retain")) as agent:
        wait_home(agent, "nic0")
        getattr(host.host.nic("nic0"), fault)()
        wait_home(agent, "nic1")
        last = agent.dump()
        invariants.as_it_was_found(last, withdraw(agent))
        reachable(host)


@pytest.mark.parametrize("milliseconds", [0, 2, 5, 10, 20, 40, 80])
def test_killed_in_the_middle_of_a_failover(host: Lab, milliseconds: int) -> None:
    before = dumped(host)
    with Agent(host, manifest(host)) as agent:
        wait_home(agent, "nic0")
        host.host.nic("nic0").unplug()
        threading.Event().wait(milliseconds / 1000)
        agent.kill()
        agent.start()
        wait_home(agent, "nic1")
        host.host.nic("nic0").plug()
        wait_home(agent, "nic0")
        invariants.as_it_was_found(before, withdraw(agent))


def test_killed_as_soon_as_it_starts(host: Lab) -> None:
    before = dumped(host)
    with Agent(host, manifest(host)) as agent:
        agent.stop()
        agent.withdraw()
        for milliseconds in range(100, 900, 100):
            agent.start(wait=False)
            threading.Event().wait(milliseconds / 1000)
            agent.kill()
            done = agent.withdraw()
            assert done.returncode == 0, done.stderr
            invariants.as_it_was_found(before, agent.dump())


def test_retain_leaves_the_last_state_and_ignore_gives_back(host: Lab) -> None:
    before = dumped(host)
    with Agent(host, manifest(host, deletionPolicy="Retain")) as agent:
        wait_home(agent, "nic0")
        host.host.nic("nic0").unplug()
        wait_home(agent, "nic1")
        last = agent.dump()
        invariants.as_it_was_found(last, withdraw(agent))
        # An agent without memory takes what it finds, and does not lose it.
        agent.write(manifest(host))
        agent.start()
        wait_home(agent, "nic1")
    assert {address: host.host.holders(address) for address in ALL} == {address: ["nic1"] for address in ALL}
    assert before.held("nic0") != KernelDump.take(host.host.namespace.run).held("nic0")


def test_ignore_by_a_reload_gives_back_what_was_moved(host: Lab) -> None:
    before = dumped(host)
    with Agent(host, manifest(host)) as agent:
        wait_home(agent, "nic0")
        host.host.nic("nic0").unplug()
        wait_home(agent, "nic1")
        agent.write(manifest(host, dataAddresses={"existing": "Ignore"}))
        agent.reload()
        wait_for(lambda: agent.dump().addresses, lambda found: found == before.addresses, what="all at home")
        assert homes(agent) == {}
        host.host.nic("nic0").plug()
        invariants.as_it_was_found(before, withdraw(agent))


def test_ignored_addresses_stay_where_they_are(host: Lab) -> None:
    before = dumped(host)
    with Agent(host, manifest(host, dataAddresses={"existing": "Ignore"})) as agent:
        host.host.nic("nic0").unplug()
        agent.wait_for(lambda s: group_view(s).state == "degraded", what="degraded")
        assert homes(agent) == {}
        assert agent.dump().addresses == before.addresses


def test_a_leased_address_is_left_alone_and_named(host: Lab) -> None:
    host.host.namespace.ip(
        "address", "add", "198.18.0.14/24", "dev", "nic0", "valid_lft", "900", "preferred_lft", "900"
    )
    with Agent(host, manifest(host)) as agent:
        wait_home(agent, "nic0")
        (found,) = [one for one in agent.status()["groups"][0]["findings"] if one["reason"] == "DHCPManaged"]
        assert "198.18.0.14 on nic0" in found["message"]
        host.host.nic("nic0").unplug()
        wait_home(agent, "nic1")
        assert host.host.holders("198.18.0.14") == ["nic0"]


def test_what_a_flush_takes_away_is_back_at_once(host: Lab) -> None:
    with Agent(host, manifest(host)) as agent:
        wait_home(agent, "nic0")
        before = agent.dump()
        host.host.namespace.ip("-4", "address", "flush", "dev", "nic0")
        wait_for(agent.dump, lambda dump: not before.difference(dump), deadline=2, what="all back")


def test_an_address_that_its_owner_deletes_is_let_go_and_said_so(host: Lab) -> None:
    gone = "198.18.32.13"
    with Agent(host, manifest(host)) as agent:
        wait_home(agent, "nic0")
        host.host.namespace.ip("address", "del", f"{gone}/20", "dev", "nic0")
        agent.wait_for(lambda s: group_view(s).addresses == dict.fromkeys(ALL - {gone}, "nic0"), what="let go")
        host.host.nic("nic0").unplug()
        agent.wait_for(lambda s: group_view(s).addresses == dict.fromkeys(ALL - {gone}, "nic1"), what="failover")
        assert host.host.holders(gone) == []
        assert f"{gone}/20 was taken away by its owner" in agent.tail()


def test_observe_writes_nothing(host: Lab) -> None:
    """What the kernel tells of a namespace is the proof: every change of an address, route, nexthop or rule."""
    with Agent(host, manifest(host, mode="Observe")) as agent:
        agent.stop()
        argv = ["ip", "monitor", "address", "route", "nexthop", "rule", "netconf"]
        # To stderr goes what it cannot make sense of: a namespace elsewhere on this machine that ended just then.
        watching = host.host.namespace.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            threading.Event().wait(0.5)
            agent.start()
            wait_home(agent, "nic0")
            agent.wait_for(all_heard, what="an answer to a probe on every member")
            silenced = host.host.nic("nic0")
            silenced.silence()
            agent.wait_for(lambda s: group_view(s).usable == {"nic1"}, what="the failure in the status")
            silenced.restore()
            agent.wait_for(lambda s: group_view(s).state == "ok", what="the repair in the status")
            agent.write(manifest(host, mode="Observe", addresses=["198.18.0.99/24"], failback="Disabled"))
            agent.reload()
            agent.wait_for(lambda s: "198.18.0.99" in group_view(s).addresses, what="the new address in the status")
            agent.kill()
            assert agent.withdraw().returncode == 0
            host.host.namespace.ip("route", "add", "198.19.99.0/24", "dev", "nic1")
        finally:
            threading.Event().wait(0.5)
            watching.terminate()
            told, _ = watching.communicate(timeout=10)
    changes = [line for line in told.decode().splitlines() if "dev lo" not in line]
    assert changes == ["198.19.99.0/24 dev nic1 scope link "], "only what the test did itself"
