"""What a twin has from its route, the tables that rules lead to, and what becomes of routes whose member is out."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from ipaddress import ip_interface
from operator import eq
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core.actions import Announce, Move, MoveAddresses, SetOutbound
from ipmp_agent.core.events import Family, LinkChanged
from ipmp_agent.core.reasons import Reason
from ipmp_api.types import Existing
from tests.lab import CommandFailedError, Lab, wait_for
from tests.lab.kernel.running import GROUP, kernel_group, with_tests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab.kernel.running import RunningKernel

NODE4, NODE6 = ip_interface("198.18.0.50/24"), ip_interface("2001:db8:0:1::50/64")
BOTH = ("nic0", "nic1")
OURS, BESIDE_100 = "73", "730000100"
GATEWAY, GATEWAY6 = "198.18.0.1", "2001:db8:0:1::1"


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A host with its addresses and its default routes on nic0, and a router."""
    with Lab(router=True, nic_addresses={"nic0": (str(NODE4), str(NODE6))}) as running:
        running.host.namespace.batch(
            [f"route add default via {GATEWAY} dev nic0", f"route add default via {GATEWAY6} dev nic0"]
        )
        yield running


def configuration(**changes: Any) -> Any:
    tests = with_tests("198.18.0.101/24", "198.18.0.102/24")
    return kernel_group(*tests, **({"addresses": (NODE4, NODE6)} | changes))


def take_over(lab: Lab, kernel: RunningKernel, memory: Any = None) -> None:
    kernel.configure(configuration(), memory)
    for nic in BOTH:
        kernel.await_test_address(nic, Family.IPV4)
    kernel.perform(SetOutbound(BOTH, BOTH))
    for family in ("-4", "-6"):
        wait_for(partial(twin, lab, "default", family), partial(eq, set(BOTH)))


@pytest.fixture
def group(lab: Lab, kernel: RunningKernel) -> RunningKernel:
    """A group that has taken over."""
    take_over(lab, kernel)
    return kernel


def listed(lab: Lab, destination: str, family: str = "-4", table: str = "main") -> list[dict[str, Any]]:
    try:
        return lab.host.namespace.ip_json(family, "route", "show", destination, "table", table)
    except CommandFailedError:
        return []  # the kernel makes a table with its first route


def twin(lab: Lab, destination: str, family: str = "-4", table: str = OURS) -> set[str]:
    return {hop["dev"] for r in listed(lab, destination, family, table) for hop in r.get("nexthops", [r])}


def rules(lab: Lab, family: str = "-4") -> list[str]:
    """The rules as `ip` prints them, without what the kernel tags its own with."""
    lines = lab.host.namespace.run("ip", family, "rule", "show").splitlines()
    return [" ".join(line.removesuffix("proto kernel").split()) for line in lines]


def chosen(lab: Lab, target: str, *words: str) -> dict[str, Any]:
    return lab.host.namespace.ip_json("route", "get", target, *words)[0]


def way_out(lab: Lab, target: str, *words: str) -> str:
    return str(chosen(lab, target, *words)["dev"])


def move(source: str, destination: str) -> MoveAddresses:
    return MoveAddresses(tuple(Move(a, source, destination, Reason.FAILOVER) for a in (NODE4, NODE6)))


def fail(kernel: RunningKernel) -> None:
    kernel.perform(move("nic0", "nic1"), SetOutbound(("nic1",), ("nic1",)), Announce("nic1", (NODE4, NODE6)))


def repair(kernel: RunningKernel) -> None:
    kernel.perform(move("nic1", "nic0"), SetOutbound(BOTH, BOTH), Announce("nic0", (NODE4, NODE6)))


# -- attributes -------------------------------------------------------------------------------------------------------


ATTRIBUTES = {
    "locked MTU": ("-4", "mtu lock 1400 advmss 1360"),
    "windows": ("-4", "initcwnd 20 initrwnd 30 window 60000"),
    "timers": ("-4", "rtt 300ms rttvar 100ms rto_min 250ms"),
    "congestion control": ("-4", "congctl lock reno quickack 1 features ecn"),
    "MTU and hop limit": ("-6", "mtu 1400 hoplimit 42 advmss 1300"),
    "preference": ("-6", "pref low"),
}


@pytest.mark.parametrize("kind", ATTRIBUTES)
def test_a_twin_has_every_attribute_of_its_route(lab: Lab, group: RunningKernel, kind: str) -> None:
    family, words = ATTRIBUTES[kind]
    net, via = {"-4": ("198.19.7.0/24", GATEWAY), "-6": ("2001:db8:7::/48", GATEWAY6)}[family]
    route = [family, "route", "add", net, "via", via, "dev", "nic0", *words.split()]
    try:
        lab.host.namespace.ip(*route)
    except CommandFailedError:
        lab.host.namespace.ip(*(word for word in route if word not in {"features", "ecn"}))
    wait_for(lambda: twin(lab, net, family), lambda legs: legs == set(BOTH))
    fields = ("metrics", "pref")
    (theirs,), (ours,) = listed(lab, net, family), listed(lab, net, family, OURS)
    assert {name: ours.get(name) for name in fields} == {name: theirs.get(name) for name in fields}
    group.run(lambda k: k.reconcile(GROUP))
    assert group.run(lambda k: k._groups[GROUP].reconcile()) == 0, "and nothing is left to be done"


def test_an_encapsulation_is_that_of_every_leg(lab: Lab, group: RunningKernel) -> None:
    words = ("encap", "ip", "id", "7", "dst", "198.18.0.201", "via", GATEWAY, "dev", "nic0")
    lab.host.namespace.ip("route", "add", "198.19.7.0/24", *words)
    wait_for(lambda: twin(lab, "198.19.7.0/24"), lambda legs: legs == set(BOTH))
    (ours,) = listed(lab, "198.19.7.0/24", table=OURS)
    assert [(hop["encap"], hop["dst"]) for hop in ours["nexthops"]] == [("ip", "198.18.0.201")] * 2
    assert group.run(lambda k: k._groups[GROUP].reconcile()) == 0


def test_weights_of_a_multipath_route_are_those_of_its_twin(lab: Lab, group: RunningKernel) -> None:
    hops = "nexthop via 198.18.0.201 dev nic0 weight 3 nexthop via 198.18.0.202 dev nic0 weight 5"
    lab.host.namespace.ip("route", "add", "198.19.7.0/24", *hops.split())
    wait_for(lambda: twin(lab, "198.19.7.0/24"), lambda legs: legs == set(BOTH))
    (ours,) = listed(lab, "198.19.7.0/24", table=OURS)
    weights = {(hop["gateway"], hop["dev"]): hop["weight"] for hop in ours["nexthops"]}
    assert weights == {(via, nic): w for via, w in (("198.18.0.201", 3), ("198.18.0.202", 5)) for nic in BOTH}
    assert group.run(lambda k: k._groups[GROUP].reconcile()) == 0


# -- tables that rules lead to ----------------------------------------------------------------------------------------


def source_rule(lab: Lab, gateway: str = GATEWAY) -> None:
    """What every guide for two NICs on one link says."""
    host = lab.host.namespace
    host.batch(
        [
            "route add 198.18.0.0/24 dev nic0 src 198.18.0.50 table 100",
            f"route add default via {gateway} dev nic0 table 100",
            "rule add from 198.18.0.50 lookup 100",
        ]
    )


PAIR = ["from 198.18.0.50 lookup 100 suppress_ifgroup 73 proto 73", f"from 198.18.0.50 lookup {BESIDE_100} proto 73"]


@pytest.mark.parametrize("first", [True, False], ids=["before the agent", "later"])
def test_a_table_that_a_rule_leads_to_has_twins_and_a_pair_right_before_it(
    lab: Lab, kernel: RunningKernel, *, first: bool
) -> None:
    if first:
        source_rule(lab)
    take_over(lab, kernel)
    if not first:
        source_rule(lab)
    for destination in ("default", "198.18.0.0/24"):
        wait_for(partial(twin, lab, destination, table=BESIDE_100), partial(eq, set(BOTH)))

    def around() -> list[str]:
        lines = [line.partition(": ")[2] for line in rules(lab)]
        at = lines.index("from 198.18.0.50 lookup 100")
        return lines[max(at - 2, 0) : at]

    wait_for(around, lambda before: before == PAIR)
    fail(kernel)
    for target in ("203.0.113.9", "198.18.0.202"):
        wait_for(partial(way_out, lab, target, "from", "198.18.0.50"), partial(eq, "nic1"))
    repair(kernel)
    wait_for(lambda: twin(lab, "default", table=BESIDE_100), lambda legs: legs == set(BOTH))
    lab.host.namespace.ip("rule", "del", "from", "198.18.0.50", "lookup", "100")
    wait_for(lambda: [line for line in rules(lab) if "198.18.0.50" in line], lambda lines: not lines)
    wait_for(lambda: twin(lab, "default", table=BESIDE_100), lambda legs: not legs)


def test_a_gateway_that_is_the_hosts_own_address_means_the_link(lab: Lab, kernel: RunningKernel) -> None:
    """A storage vendor's guide: the subnet by its own address, a table and a rule for each port."""
    source_rule(lab)
    lab.host.namespace.ip("route", "replace", "198.18.0.0/24", "via", "198.18.0.50", "dev", "nic0", "table", "100")
    take_over(lab, kernel)
    wait_for(lambda: twin(lab, "198.18.0.0/24", table=BESIDE_100), lambda legs: legs == set(BOTH))
    (ours,) = listed(lab, "198.18.0.0/24", table=BESIDE_100)
    assert not [hop for hop in ours["nexthops"] if "gateway" in hop]


def test_rules_of_others_keep_their_place_and_ours_theirs(lab: Lab, group: RunningKernel) -> None:
    """As wg-quick lays them: below the lowest number there is."""
    host = lab.host.namespace
    four = [line for line in rules(lab) if line.startswith("32765:")]
    assert len(four) == 4
    host.ip("rule", "add", "table", "main", "suppress_prefixlength", "0")
    pair = ["from all lookup main suppress_prefixlength 0 suppress_ifgroup 73 proto 73"]
    pair += ["from all lookup 73 suppress_prefixlength 0 proto 73"]
    wanted = [*(f"32763: {line}" for line in pair), "32764: from all lookup main suppress_prefixlength 0", *four]
    wait_for(lambda: rules(lab)[1:-2], lambda now: now == wanted)
    fail(group)
    wait_for(lambda: chosen(lab, "198.18.0.202")["dev"], lambda dev: dev == "nic1")
    # As wg-quick takes it away: by words that fit ours, too, until it sees no such line any more.
    for _ in range(5):
        if "from all lookup main suppress_prefixlength 0" not in host.run("ip", "-4", "rule", "show"):
            break
        host.ip("-4", "rule", "delete", "table", "main", "suppress_prefixlength", "0")
    else:
        raise AssertionError("wg-quick would go on for ever")
    wait_for(lambda: rules(lab)[1:-2], lambda now: now == four)


def test_a_rule_that_cannot_be_followed_is_told_with_its_table(lab: Lab, group: RunningKernel) -> None:
    source_rule(lab)
    host = lab.host.namespace
    wait_for(lambda: twin(lab, "default", table=BESIDE_100), lambda legs: legs == set(BOTH))
    assert group.call(lambda k: k._groups[GROUP]._features.twins.findings()) == []
    host.ip("rule", "add", "pref", "9", "goto", "32764")
    group.run(lambda k: k.reconcile(GROUP))
    (finding,) = group.call(lambda k: k._groups[GROUP]._features.twins.findings())
    assert finding.reason is Reason.ROUTES_NOT_FOLLOWED
    assert "rule 32764" in finding.message
    assert "table 100" in finding.message


def test_withdrawal_takes_rules_and_tables_and_nothing_else(lab: Lab, kernel: RunningKernel) -> None:
    source_rule(lab)
    before = [rules(lab, family) for family in ("-4", "-6")]
    take_over(lab, kernel)
    wait_for(lambda: twin(lab, "default", table=BESIDE_100), lambda legs: legs == set(BOTH))
    kernel.run(lambda k: k.withdraw(GROUP))
    assert [rules(lab, family) for family in ("-4", "-6")] == before
    left = lab.host.namespace.run("ip", "-4", "route", "show", "table", "all", "protocol", OURS)
    left += lab.host.namespace.run("ip", "-6", "route", "show", "table", "all", "protocol", OURS)
    assert (left, lab.host.namespace.ip_json("nexthop", "show")) == ("", [])
    assert len(listed(lab, "default", table="100")) == 1


@pytest.mark.parametrize("restarted", [True, False])
def test_a_group_of_the_hosts_is_noted_told_and_put_back(
    lab: Lab, start_kernel: Callable[[], RunningKernel], *, restarted: bool
) -> None:
    host = lab.host.namespace
    host.ip("link", "set", "nic1", "group", "5")
    kernel = start_kernel()
    take_over(lab, kernel)

    def read() -> list[str]:
        return [str(host.ip_json("link", "show", "dev", nic)[0]["group"]) for nic in BOTH]

    wait_for(read, lambda groups: groups == [OURS, OURS])
    if restarted:
        memory = kernel.call(lambda k: k.memory(GROUP))
        kernel.close()
        kernel = start_kernel()
        take_over(lab, kernel, memory)
    found = [f for f in kernel.call(lambda k: k.findings(GROUP)) if f.reason is Reason.INTERFACE_GROUP_TAKEN]
    assert [(f.interface, "group 5" in f.message) for f in found] == [("nic1", True)]
    kernel.run(lambda k: k.withdraw(GROUP))
    assert read() == ["default", "5"]


# -- routes whose member is out ---------------------------------------------------------------------------------------


def add(lab: Lab, *words: str) -> None:
    lab.host.namespace.ip("route", "add", "198.19.7.0/24", "via", "198.18.0.201", *words)
    wait_for(lambda: twin(lab, "198.19.7.0/24"), lambda legs: legs)


def test_a_route_that_its_owner_withdraws_while_its_member_is_dead_is_gone_for_good(
    lab: Lab, group: RunningKernel
) -> None:
    add(lab, "dev", "nic0")
    lab.host.nic("nic0").unplug()
    group.await_event(LinkChanged)
    fail(group)
    group.run(lambda k: k.reconcile(GROUP))
    assert twin(lab, "198.19.7.0/24") == {"nic1"}
    lab.host.namespace.ip("route", "del", "198.19.7.0/24")
    wait_for(lambda: twin(lab, "198.19.7.0/24"), lambda legs: not legs)
    lab.host.nic("nic0").plug()
    group.await_event(LinkChanged, lambda e: e.up)
    repair(group)
    group.run(lambda k: k.reconcile(GROUP))
    assert (listed(lab, "198.19.7.0/24"), twin(lab, "198.19.7.0/24")) == ([], set())


def test_a_route_that_went_with_its_member_comes_back_unless_its_owner_laid_another(
    lab: Lab, group: RunningKernel
) -> None:
    add(lab, "dev", "nic0")
    other = ("198.19.8.0/24", "via", "198.18.0.201")
    lab.host.namespace.ip("route", "add", *other, "dev", "nic0")
    wait_for(lambda: twin(lab, other[0]), lambda legs: legs == set(BOTH))
    lab.host.namespace.ip("link", "set", "nic0", "down")
    group.await_event(LinkChanged)
    fail(group)
    group.run(lambda k: k.reconcile(GROUP))
    assert [listed(lab, net) for net in ("198.19.7.0/24", other[0])] == [[], []], "the kernel took them"
    assert [twin(lab, net) for net in ("198.19.7.0/24", other[0])] == [{"nic1"}, {"nic1"}]
    lab.host.namespace.ip("route", "add", *other, "dev", "nic1", "onlink")
    lab.host.namespace.ip("link", "set", "nic0", "up")
    group.await_event(LinkChanged, lambda e: e.up)
    repair(group)
    wait_for(lambda: listed(lab, "198.19.7.0/24"), lambda found: [r["dev"] for r in found] == ["nic0"])
    group.run(lambda k: k.reconcile(GROUP))
    assert [route["dev"] for route in listed(lab, other[0])] == ["nic1"]


def advertised(lab: Lab, lifetime: int) -> None:
    """A default route as the kernel lays it for a router, which nobody renews."""
    lab.host.namespace.ip("-6", "route", "del", "default")
    words = ["default", "via", GATEWAY6, "dev", "nic0", "proto", "ra", "metric", "512", "expires", str(lifetime)]
    lab.host.namespace.ip("-6", "route", "add", *words)


def test_a_routers_route_that_expires_while_its_member_is_out_is_followed_and_never_laid_for_good(
    lab: Lab, group: RunningKernel
) -> None:
    lab.host.nic("nic0").silence()
    advertised(lab, 3)
    fail(group)
    wait_for(lambda: listed(lab, "default", "-6"), lambda found: not found, deadline=60, interval=0.2)
    group.run(lambda k: k.reconcile(GROUP))
    assert twin(lab, "default", "-6") == {"nic1"}
    lab.host.nic("nic0").restore()
    repair(group)
    for _ in range(3):
        group.run(lambda k: k.reconcile(GROUP))
        time.sleep(0.2)
    assert listed(lab, "default", "-6") == []
    time.sleep(3)
    group.run(lambda k: k.reconcile(GROUP))
    assert twin(lab, "default", "-6") == set(), "the router had a lifetime to be heard again"


def test_a_routers_route_that_went_with_its_member_comes_back_for_the_rest_of_its_life(
    lab: Lab, group: RunningKernel
) -> None:
    advertised(lab, 600)
    wait_for(lambda: twin(lab, "default", "-6"), lambda legs: legs == set(BOTH))
    group.run(lambda k: k.reconcile(GROUP))
    lab.host.namespace.ip("link", "set", "nic0", "down")
    group.await_event(LinkChanged)
    fail(group)
    group.run(lambda k: k.reconcile(GROUP))
    assert (listed(lab, "default", "-6"), twin(lab, "default", "-6")) == ([], {"nic1"})
    lab.host.namespace.ip("link", "set", "nic0", "up")
    group.await_event(LinkChanged, lambda e: e.up)
    repair(group)
    (back,) = wait_for(lambda: listed(lab, "default", "-6"), bool)
    assert 500 < back["expires"] <= 600


def test_a_router_that_says_goodbye_is_gone(lab: Lab, group: RunningKernel) -> None:
    advertised(lab, 600)
    wait_for(lambda: twin(lab, "default", "-6"), lambda legs: legs == set(BOTH))
    lab.host.namespace.ip("-6", "route", "del", "default")
    wait_for(lambda: twin(lab, "default", "-6"), lambda legs: not legs)


# -- what cannot follow ------------------------------------------------------------------------------------------------


def told(group: RunningKernel) -> list[str]:
    """What is said of routes that do not follow the members that work, after a comparison."""
    group.run(lambda k: k.reconcile(GROUP))
    found = group.call(lambda k: k.findings(GROUP))
    return [finding.message for finding in found if finding.reason is Reason.ROUTES_NOT_FOLLOWED]


UNFOLLOWED = {
    "by type of service": (["route add 203.0.113.0/24 tos 0x10 via 198.18.0.1 dev nic0"], "203.0.113.0/24 tos 0x10"),
    "by source prefix": (
        ["route add 2001:db8:7::/64 from 2001:db8:8::/64 via 2001:db8:0:1::1 dev nic0"],
        "2001:db8:7::/64 from 2001:db8:8::/64 in table 254",
    ),
    "over a member and another NIC": (
        [
            "link add other type veth peer name beyond",
            "link set beyond up",
            "address add 198.51.100.1/24 dev other",
            "link set other up",
            "route add 203.0.113.0/24 nexthop via 198.18.0.1 dev nic0 nexthop via 198.51.100.9 dev other",
        ],
        "203.0.113.0/24 in table 254",
    ),
    "in a table of a great number": (
        ["route add default via 198.18.0.1 dev nic0 table 200000000", "rule add from 192.0.2.1 lookup 200000000"],
        "table 200000000",
    ),
}


@pytest.mark.parametrize("kind", UNFOLLOWED)
def test_a_route_that_no_twin_can_stand_for_is_told_by_name(lab: Lab, group: RunningKernel, kind: str) -> None:
    assert told(group) == []
    commands, words = UNFOLLOWED[kind]
    lab.host.namespace.batch(commands)
    (message,) = told(group)
    assert words in message
    undo = commands[-1] if not kind.endswith("number") else commands[0]
    lab.host.namespace.batch([undo.replace(" add ", " del ")])
    assert told(group) == []


def test_a_twin_that_the_kernel_refuses_is_told_and_tried_again_when_something_changes(
    lab: Lab, group: RunningKernel
) -> None:
    host = lab.host.namespace
    host.ip("route", "add", "203.0.113.0/24", "via", "198.18.0.201", "dev", "nic0")
    wait_for(partial(twin, lab, "203.0.113.0/24"), partial(eq, set(BOTH)))
    assert told(group) == []
    host.ip("address", "add", "198.18.0.201/32", "dev", "lo")  # no gateway any more
    group.perform(SetOutbound(("nic1",), ("nic1",)))
    (message,) = told(group)
    assert "203.0.113.0/24 of metric 0 in table 254" in message
    assert "Nexthop has invalid gateway" in message
    host.ip("address", "del", "198.18.0.201/32", "dev", "lo")
    wait_for(partial(twin, lab, "203.0.113.0/24"), partial(eq, {"nic1"}))
    assert told(group) == []


def test_a_gateway_that_nobody_reaches_yet_is_told_and_has_its_twin_when_it_is_reached(
    lab: Lab, group: RunningKernel
) -> None:
    host = lab.host.namespace
    host.ip("-6", "route", "add", "2001:db8:7::/64", "via", "2001:db8:9::1", "dev", "nic0", "onlink")
    wait_for(partial(told, group), lambda messages: len(messages) == 1 and "2001:db8:7::/64" in messages[0])
    host.ip("-6", "route", "add", "2001:db8:9::/64", "dev", "nic0")
    wait_for(partial(twin, lab, "2001:db8:7::/64", "-6"), partial(eq, set(BOTH)))
    assert told(group) == []


# -- whose doing it was ------------------------------------------------------------------------------------------------


def test_what_the_kernel_and_this_agent_take_away_is_laid_to_nobodys_charge(
    lab: Lab, group: RunningKernel, caplog: pytest.LogCaptureFixture
) -> None:
    """A member set down, moves there and back, a tunnel that comes, and nexthop objects of ours that go."""
    host = lab.host.namespace
    for carriers in (("nic1",), BOTH, ("nic0",), BOTH):
        group.perform(SetOutbound(carriers, carriers))
        group.run(lambda k: k.reconcile(GROUP))
    for source, destination in (("nic0", "nic1"), ("nic1", "nic0")) * 3:
        move = tuple(Move(address, source, destination, Reason.FAILOVER) for address in (NODE4, NODE6))
        group.perform(MoveAddresses(move), Announce(destination, (NODE4, NODE6)))
    group.run(lambda k: k.reconcile(GROUP))
    host.ip("link", "add", "vx", "type", "vxlan", "id", "7", "dev", "nic1", "local", str(NODE4.ip), "dstport", "4789")
    wait_for(lambda: host.ip_json("-details", "link", "show", "vx")[0]["linkinfo"]["info_data"]["link"], "nic0".__eq__)
    host.ip("link", "set", "nic1", "down")
    group.await_event(LinkChanged, lambda e: e.interface == "nic1" and not e.up)
    group.perform(SetOutbound(("nic0",), ("nic0",)))
    host.ip("link", "set", "nic1", "up")
    group.run(lambda k: k.reconcile(GROUP))
    quiet = replace(configuration(), members=(configuration().members[0],))
    group.configure(quiet)
    group.run(lambda k: k.reconcile(GROUP))
    assert group.call(lambda k: k.counters["foreign_changes"]) == 0, caplog.text


# -- very many routes --------------------------------------------------------------------------------------------------


def test_more_routes_than_were_measured_are_told(
    lab: Lab, group: RunningKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ipmp_agent.linux.group.twins.ROUTES_MEASURED", 20)

    def reasons() -> set[Reason]:
        return {finding.reason for finding in group.call(lambda k: k.findings(GROUP))}

    lab.host.namespace.batch(f"route add 198.19.{n}.0/24 via {GATEWAY} dev nic0" for n in range(30))
    wait_for(reasons, lambda found: Reason.MANY_ROUTES in found)
    lab.host.namespace.batch(f"route del 198.19.{n}.0/24" for n in range(30))
    wait_for(reasons, lambda found: Reason.MANY_ROUTES not in found)


def test_a_legs_loss_lays_every_twin_anew_though_its_members_are_those_of_before(
    lab: Lab, group: RunningKernel
) -> None:
    lab.host.namespace.ip("route", "add", "203.0.113.0/24", "via", GATEWAY, "dev", "nic1")
    wait_for(partial(twin, lab, "203.0.113.0/24"), partial(eq, set(BOTH)))
    lab.host.namespace.ip("link", "set", "nic0", "down")  # the kernel takes whole routes along
    group.await_event(LinkChanged, lambda e: e.interface == "nic0" and not e.up)
    lab.host.namespace.ip("link", "set", "nic0", "up")
    lab.host.namespace.ip("address", "replace", str(NODE4), "dev", "nic0")
    group.perform(SetOutbound(BOTH, BOTH))
    wait_for(partial(twin, lab, "203.0.113.0/24"), partial(eq, set(BOTH)))


def test_the_memory_holds_no_route_that_a_routing_daemon_lays_anew(lab: Lab, group: RunningKernel) -> None:
    """Else an agent that starts during an outage would revive what its owner withdrew."""
    host = lab.host.namespace
    host.ip("route", "add", "203.0.113.0/24", "via", GATEWAY, "dev", "nic0", "proto", "bird")
    host.ip("route", "add", "198.51.100.0/24", "via", GATEWAY, "dev", "nic0")
    wait_for(partial(twin, lab, "203.0.113.0/24"), partial(eq, set(BOTH)))
    wait_for(partial(twin, lab, "198.51.100.0/24"), partial(eq, set(BOTH)))
    adopting = replace(configuration(), policies=replace(configuration().policies, existing=Existing.ADOPT))
    group.configure(adopting)
    messages = [bytes.fromhex(entry["message"]) for entry in group.call(lambda k: k.memory(GROUP))["routes"]]
    assert not [each for each in messages if bytes((203, 0, 113, 0)) in each]
    assert [each for each in messages if bytes((198, 51, 100, 0)) in each]
