"""An interface goes from one group to another: what the first did to it is undone before the second looks at it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests import invariants
from tests.lab import Agent, KernelDump, Lab, group_manifest, wait_for
from tests.lab.pods import pinned_to
from tests.lab.status import group_view, interface_status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

OWN = ("198.18.64.12", "2001:db8:0:3::12")
GIVEN = {"one": "198.18.0.100", "two": "198.18.0.110"}
NICS = ("nic0", "nic1", "nic2", "nic3")
BEFORE = {"one": ("nic0", "nic1", "nic2"), "two": ("nic3",)}
MOVED = {"one": ("nic0", "nic1"), "two": ("nic3", "nic2")}
SWAPPED = {"one": ("nic0", "nic1", "nic3"), "two": ("nic2",)}


@pytest.fixture
def host() -> Iterator[Lab]:
    """A host that has addresses, a route, settings and a tunnel of its own on nic2."""
    with Lab(NICS) as lab:
        settings = {"arp_announce": 1, "rp_filter": 1}
        lab.host.namespace.sysctl({f"ipv4/conf/nic2/{name}": value for name, value in settings.items()})
        lab.host.namespace.batch(
            [
                f"address add {OWN[0]}/24 brd + dev nic2",
                f"address add {OWN[1]}/64 dev nic2 nodad",
                "route add 198.19.77.0/24 via 198.18.64.1 dev nic2 metric 50",
                f"link add over1 type vxlan id 1 local {OWN[0]} remote 198.18.64.1 dev nic2 dstport 8472",
                "link set over1 addrgenmode none up",
            ]
        )
        wait_for(lambda: dump(lab), lambda found: found == dump(lab), what="a kernel at rest", interval=0.5)
        yield lab


def dump(lab: Lab) -> KernelDump:
    return KernelDump.take(lab.host.namespace.run)


def groups(lab: Lab, wanted: Mapping[str, Sequence[str]], first: str) -> list[dict[str, Any]]:
    """The two groups; agents take them in the order of the file."""
    found = [
        group_manifest(name, interfaces=interfaces, addresses=[f"{GIVEN[name]}/24"], targets=[lab.peer(0).ipv4])
        for name, interfaces in wanted.items()
    ]
    return sorted(found, key=lambda one: one["metadata"]["name"] != first)


def members(status: dict[str, Any]) -> dict[str, set[str]]:
    return {name: {member.name for member in group_view(status, name).members} for name in GIVEN}


def wait_usable(agent: Agent, name: str, interfaces: set[str]) -> None:
    agent.wait_for(lambda s: group_view(s, name).usable == interfaces, what=f"{sorted(interfaces)} in {name}")


def wait_working(agent: Agent, wanted: Mapping[str, Sequence[str]]) -> None:
    for name, interfaces in wanted.items():
        wait_usable(agent, name, set(interfaces))
        wait_for(partial(agent.host.holders, GIVEN[name]), lambda found: len(found) == 1, what=f"address of {name}")


def wait_own(agent: Agent, on: str) -> None:
    for address in OWN:
        wait_for(partial(agent.host.holders, address), lambda found: found == [on], what=f"{address} on {on}")
    wait_for(lambda: pinned_to(agent.host.namespace), lambda found: found == on, what=f"the tunnel on {on}")


def ways_out(lab: Lab) -> set[str]:
    """The interfaces by which the twin leaves of the route that the host has on nic2."""
    found = lab.host.namespace.ip_json("route", "show", "198.19.77.0/24", "table", "73")
    return {leg["dev"] for route in found for leg in route.get("nexthops", [route])}


def assert_left_as_found(agent: Agent, before: KernelDump, lab: Lab, *, running: bool = True) -> None:
    assert not running or agent.stop() == 0
    done = agent.withdraw()
    assert done.returncode == 0, done.stderr
    invariants.as_it_was_found(before, dump(lab))
    assert pinned_to(lab.host.namespace) == "nic2"
    invariants.no_unhandled_exception(agent.log_path.read_text())


@pytest.mark.parametrize("first", list(BEFORE))
@pytest.mark.parametrize("after", [MOVED, SWAPPED], ids=["moved", "swapped"])
@pytest.mark.parametrize("killed", [False, True], ids=["running", "killed before"])
@pytest.mark.parametrize("down", [None, "nic2"], ids=["works", "does not work"])
def test_interface_that_goes_to_another_group_is_left_as_it_was_found(
    host: Lab, first: str, after: Mapping[str, Sequence[str]], down: str | None, *, killed: bool
) -> None:
    before = dump(host)
    with Agent(host, groups(host, BEFORE, first)) as agent:
        wait_working(agent, BEFORE)
        wait_own(agent, "nic2")
        if down is not None:
            host.host.nic(down).unplug()
            wait_for(lambda: host.host.holders(OWN[0]), lambda found: found in (["nic0"], ["nic1"]), what="away")
        if killed:
            agent.kill()
        agent.write(groups(host, after, first))
        if killed:
            agent.start()
        else:
            agent.reload()
        if down is not None:
            agent.wait_for(lambda s: members(s) == {n: set(i) for n, i in after.items()}, what="the new configuration")
            host.host.nic(down).plug()
        wait_working(agent, after)
        wait_own(agent, "nic2")
        of_nic2 = next(set(interfaces) for interfaces in after.values() if "nic2" in interfaces)
        wait_for(lambda: ways_out(host), lambda ways: set() < ways <= of_nic2, what=f"a way by {of_nic2} alone")
        wanted = {"nic2/arp_ignore=1", "nic2/arp_announce=2", "nic2/rp_filter=2", "nic2/promote_secondaries=1"}
        wait_for(agent.dump, lambda found: wanted <= set(found.settings), what="settings of nic2", interval=0.2)
        assert_left_as_found(agent, before, host)


@pytest.mark.parametrize("killed", [False, True], ids=["running", "killed before"])
def test_interface_that_leaves_its_group_while_it_does_not_work_is_left_as_it_was_found(
    host: Lab, *, killed: bool
) -> None:
    before = dump(host)
    (one, _) = groups(host, BEFORE, "one")
    (less, _) = groups(host, MOVED, "one")
    with Agent(host, one) as agent:
        agent.wait_for(lambda s: group_view(s, "one").usable == set(BEFORE["one"]), what="all")
        host.host.nic("nic2").unplug()
        wait_for(lambda: host.host.holders(OWN[0]), lambda found: found in (["nic0"], ["nic1"]), what="away")
        if killed:
            agent.kill()
        agent.write(less)
        if killed:
            agent.start()
        else:
            agent.reload()
        wait_own(agent, "nic2")
        wait_for(lambda: ways_out(host), lambda ways: not ways, what="the host's own way alone")
        mine = [line for line in before.settings if line.startswith("nic2/")]
        wait_for(agent.dump, lambda found: set(mine) <= set(found.settings), what="settings of nic2", interval=0.2)
        assert_left_as_found(agent, before, host)


@pytest.mark.parametrize("restarted", [False, True], ids=["withdrawn", "started again"])
def test_agent_killed_while_a_group_waits_for_an_interface_leaves_it_to_the_next_one(
    host: Lab, *, restarted: bool
) -> None:
    """The first group has its addresses nowhere else: it keeps the interface until it has."""
    before = dump(host)
    waiting = {"one": ("nic2",), "two": ("nic1", "nic3")}
    with Agent(host, groups(host, {"one": ("nic1", "nic2"), "two": ("nic3",)}, "two")) as agent:
        wait_working(agent, {"one": ("nic1", "nic2"), "two": ("nic3",)})
        host.host.nic("nic2").unplug()
        wait_for(lambda: host.host.holders(OWN[0]), lambda found: found == ["nic1"], what="away")
        agent.write(groups(host, waiting, "two"))
        agent.reload()
        agent.wait_for(lambda s: members(s) == {n: set(i) for n, i in waiting.items()}, what="the new configuration")
        assert interface_status(agent.status(), "nic1", "two")["reason"] == "InterfaceConflict"
        agent.kill()
        if restarted:
            agent.start()
            assert interface_status(agent.status(), "nic1", "two")["reason"] == "InterfaceConflict"
            host.host.nic("nic2").plug()
            wait_working(agent, waiting)
            wait_own(agent, "nic2")
        assert_left_as_found(agent, before, host, running=restarted)


def test_group_that_only_ever_observed_keeps_no_interface_from_another(host: Lab) -> None:
    before = dump(host)

    def manifests(wanted: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
        one, two = groups(host, wanted, "one")
        one["spec"]["mode"] = "Observe"
        return [one, two]

    with Agent(host, manifests(BEFORE)) as agent:
        agent.wait_for(lambda s: group_view(s, "one").usable == set(BEFORE["one"]), what="all")
        agent.write(manifests(MOVED))
        agent.reload()
        agent.wait_for(lambda s: group_view(s, "two").usable == set(MOVED["two"]), what="both in the other group")
        assert_left_as_found(agent, before, host)
