"""What happens between two awaits: news that is handled while a table is being read, and must not be undone by it."""

from __future__ import annotations

import asyncio
import errno
import inspect
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Interface, ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING

import pytest

from ipmp_agent.core.actions import Announce, SetOutbound
from ipmp_agent.core.events import (
    AddressAdopted,
    AddressFound,
    AddressRefused,
    AddressReleased,
    Family,
    InterfaceFound,
    InterfaceVanished,
    KernelRead,
    LinkChanged,
    TestAddressChanged,
)
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.kernel import Kernel
from ipmp_agent.linux.messages import netlink, routes
from ipmp_agent.linux.shared import slices
from ipmp_api.types import Existing, InterfaceMatch, Member, Mode, Switch
from tests.lab import wait_for
from tests.lab.kernel.running import GROUP, kernel_group, moves, place, where

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tests.lab import Lab
    from tests.lab.kernel.running import RunningKernel

V4, OTHER_V4 = ip_interface("198.18.0.50/24"), ip_interface("198.18.0.51/24")
BY_GATEWAY = ("via", "198.18.0.1", "dev", "nic0", "onlink")


def meanwhile(
    kernel: RunningKernel,
    kind: int,
    work: Callable[[], Any],
    *,
    heard: bool = True,
    due: Callable[[], object] = lambda: True,
) -> None:
    """Have something happen once, and be heard of, when a table has been dumped and nobody has acted on it yet."""
    ahead = [work]

    async def interrupt(dumped: int) -> None:
        if dumped == kind and ahead and due():
            done = ahead.pop()()
            if heard:
                kernel.kernel.drain()
            if inspect.isawaitable(done):
                await done

    kernel.dumper.arrange(interrupt)


# -- links ------------------------------------------------------------------------------------------------------------


def resync(kernel: RunningKernel) -> list[Any]:
    """Read all links anew, as is done regularly; returns what was told."""
    kernel.forget()
    kernel.run(lambda k: k.read_links())
    return [heard.event for heard in kernel.heard]


def test_an_interface_that_vanished_during_a_dump_of_all_stays_vanished(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group())
    meanwhile(kernel, netlink.RTM_GETLINK, lambda: lab.host.namespace.ip("link", "del", "nic0"))
    told = [e for e in resync(kernel) if isinstance(e, InterfaceFound | InterfaceVanished)]
    assert told.index(InterfaceVanished("nic0")) == len(told) - 1


def test_an_interface_that_came_during_a_dump_of_all_is_not_lost_again(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.nic("nic1").remove()
    kernel.configure(kernel_group())
    meanwhile(kernel, netlink.RTM_GETLINK, lambda: lab.host.nic("nic1").insert())
    told = [e for e in resync(kernel) if isinstance(e, InterfaceFound | InterfaceVanished)]
    assert told
    assert all(isinstance(e, InterfaceFound) and e.interface == "nic1" for e in told)


def test_a_mac_address_changed_during_a_dump_of_all_is_not_changed_back(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group())
    new = "02:00:00:00:99:03"
    meanwhile(kernel, netlink.RTM_GETLINK, lambda: lab.host.namespace.ip("link", "set", "nic0", "address", new))
    assert [e.mac for e in resync(kernel) if isinstance(e, InterfaceFound)] == [new]


@pytest.mark.parametrize("heard", [True, False])
def test_a_carrier_that_came_back_during_a_dump_of_all_is_not_told_lost_again(
    lab: Lab, kernel: RunningKernel, heard: bool
) -> None:
    kernel.configure(kernel_group())
    nic = lab.host.nic("nic0")
    nic.unplug()
    kernel.await_event(LinkChanged, lambda e: e == LinkChanged("nic0", up=False))

    def plug() -> None:
        nic.plug()
        member = kernel.kernel._members.owner(nic.index)
        assert member is not None
        assert member.carrier is not None
        wait_for(member.carrier.ask)
        kernel.kernel._members.poll()

    meanwhile(kernel, netlink.RTM_GETLINK, plug, heard=heard)
    assert [e for e in resync(kernel) if isinstance(e, LinkChanged)] == [LinkChanged("nic0", up=True)]


def test_a_tunnel_pinned_elsewhere_during_a_dump_of_all_is_known_to_be(lab: Lab, kernel: RunningKernel) -> None:
    host = lab.host.namespace
    host.batch(["link add vx9 type vxlan id 9 dev nic0 local 198.18.0.77 dstport 4789", "link set vx9 up"])
    kernel.configure(kernel_group())
    meanwhile(kernel, netlink.RTM_GETLINK, lambda: host.ip("link", "set", "vx9", "type", "vxlan", "dev", "nic1"))
    resync(kernel)
    (tunnel,) = kernel.call(lambda k: list(k._host.tunnels.found.values()))
    assert tunnel.link == lab.host.nic("nic1").index


# -- addresses and routes ---------------------------------------------------------------------------------------------


def test_a_link_local_address_that_got_ready_during_a_comparison_is_probed_from(
    lab: Lab, kernel: RunningKernel
) -> None:
    host = lab.host.namespace
    kernel.configure(kernel_group())
    kernel.await_event(TestAddressChanged, lambda e: e.interface == "nic0" and e.address is not None)
    host.ip("-6", "address", "flush", "dev", "nic0", "scope", "link")
    kernel.await_event(TestAddressChanged, lambda e: e == TestAddressChanged("nic0", Family.IPV6, None))
    kernel.forget()
    meanwhile(kernel, netlink.RTM_GETADDR, lambda: host.ip("address", "add", "fe80::99/64", "dev", "nic0", "nodad"))
    kernel.run(lambda k: k.reconcile(GROUP))
    told = [e.address for e in kernel.events(TestAddressChanged) if e.interface == "nic0"]
    assert told == [ip_address("fe80::99")]


def test_an_address_that_its_owner_deletes_during_the_first_look_is_not_adopted(
    lab: Lab, kernel: RunningKernel
) -> None:
    host = lab.host.namespace
    host.ip("address", "add", str(V4), "dev", "nic0")
    meanwhile(kernel, netlink.RTM_GETADDR, lambda: host.ip("address", "del", str(V4), "dev", "nic0"))
    kernel.configure(kernel_group(existing=Existing.ADOPT))
    assert kernel.events(AddressAdopted) == []
    assert where(lab, V4) == []


def twin(lab: Lab, destination: str) -> list[Any]:
    return lab.host.namespace.ip_json("route", "show", destination, "table", "73")


@pytest.fixture
def carrying(lab: Lab, kernel: RunningKernel) -> RunningKernel:
    """A group that both members carry for, with a data address on each and a route that has a twin."""
    kernel.configure(kernel_group(addresses=(V4, OTHER_V4)))
    place(lab, kernel, V4, on="nic0")
    place(lab, kernel, OTHER_V4, on="nic1")
    kernel.perform(SetOutbound(("nic0", "nic1"), ("nic0", "nic1")))
    for destination in ("198.19.6.0/24", "198.19.7.0/24"):
        lab.host.namespace.ip("route", "add", destination, *BY_GATEWAY)
    wait_for(lambda: twin(lab, "198.19.7.0/24"))
    kernel.run(lambda k: k.reconcile(GROUP))
    return kernel


def there_and_back(kernel: RunningKernel) -> None:
    """A failover of nic0 and its failback: what the kernel takes along with the address is put back."""
    for source, destination in (("nic0", "nic1"), ("nic1", "nic0")):
        kernel.perform(moves(V4, source=source, destination=destination))
        kernel.run(lambda k: k.reconcile(GROUP))


def test_a_route_that_its_owner_deletes_during_a_comparison_is_not_brought_back_by_a_failback(
    lab: Lab, carrying: RunningKernel
) -> None:
    host = lab.host.namespace
    meanwhile(carrying, netlink.RTM_GETROUTE, lambda: host.ip("route", "del", "198.19.7.0/24", "proto", "boot"))
    carrying.run(lambda k: k.reconcile(GROUP))
    there_and_back(carrying)
    assert host.ip_json("route", "show", "198.19.7.0/24") == []


def test_a_route_that_comes_during_a_comparison_is_brought_back_by_a_failback(
    lab: Lab, carrying: RunningKernel
) -> None:
    host = lab.host.namespace
    meanwhile(carrying, netlink.RTM_GETROUTE, lambda: host.ip("route", "add", "198.19.8.0/24", *BY_GATEWAY))
    carrying.run(lambda k: k.reconcile(GROUP))
    there_and_back(carrying)
    assert [r["protocol"] for r in host.ip_json("route", "show", "198.19.8.0/24")] == ["boot"]
    assert twin(lab, "198.19.8.0/24")


@pytest.mark.parametrize("kind", [netlink.RTM_GETLINK, netlink.RTM_GETADDR, netlink.RTM_GETROUTE])
def test_news_of_a_route_while_an_agent_takes_over_disturbs_no_nexthop_of_the_one_before(
    lab: Lab,
    carrying: RunningKernel,
    start_kernel: Callable[[], RunningKernel],
    kind: int,
) -> None:
    host = lab.host.namespace
    memory = carrying.call(lambda k: k.memory(GROUP))
    carrying.close()
    before = host.ip_json("nexthop", "show")
    following = start_kernel()
    way = ("via", "198.18.0.2", "dev", "nic1", "onlink")
    meanwhile(following, kind, lambda: host.ip("route", "add", "198.19.8.0/24", *way))
    following.configure(kernel_group(addresses=(V4, OTHER_V4)), memory)
    following.perform(SetOutbound(("nic0", "nic1"), ("nic0", "nic1")))
    wait_for(lambda: twin(lab, "198.19.8.0/24"))
    now = host.ip_json("nexthop", "show")
    assert [nexthop for nexthop in before if nexthop not in now] == []
    assert following.call(lambda k: k.counters).get("kernel_refusals", 0) == 0


# -- groups that come, change and go -----------------------------------------------------------------------------------


def never_still() -> None:
    raise netlink.InterruptedDumpError(errno.EAGAIN, "the tables never held still")


def told_of_all(told: list[Any]) -> bool:
    """Whether a caller who knows nothing was told everything that there is."""
    members = {e.interface for e in told if isinstance(e, InterfaceFound)}
    found = [(e.address, e.interface) for e in told if isinstance(e, AddressFound)]
    return (members, found, told[-1]) == ({"nic0", "nic1"}, [(V4, "nic0")], KernelRead())


@pytest.mark.parametrize("kind", [netlink.RTM_GETNEXTHOP, netlink.RTM_GETROUTE])
@pytest.mark.parametrize("reading", ["first", "second"])
def test_a_first_configuration_tells_all_though_the_routes_cannot_be_read(
    lab: Lab, kernel: RunningKernel, kind: int, reading: str
) -> None:
    lab.host.namespace.ip("address", "add", str(V4), "dev", "nic0")

    def due() -> bool:
        """Whether it is this reading, and the group itself that reads and not what compares beside it."""
        group = kernel.kernel._groups[GROUP]
        return group._configured is (reading == "second") and asyncio.current_task() is not group.reconciler._task

    def reasons() -> list[Reason]:
        return [each.reason for each in kernel.call(lambda k: k.findings(GROUP))]

    async def configure(facade: Kernel) -> list[Reason]:
        """Returns what stands against it at once: the next comparison may come any moment."""
        await facade.configure(kernel_group(addresses=(V4,)), None)
        return [each.reason for each in facade.findings(GROUP)]

    meanwhile(kernel, kind, never_still, due=due)
    found = kernel.run(configure)
    assert told_of_all([heard.event for heard in kernel.heard])
    assert (Reason.COMPARISON_INCOMPLETE in found) is (reading == "second"), "the first reading is followed by another"
    wait_for(reasons, lambda found: Reason.COMPARISON_INCOMPLETE not in found)


def test_a_group_wanted_again_after_its_withdrawal_failed_is_told_of_all(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.namespace.ip("address", "add", str(V4), "dev", "nic0")
    kernel.configure(kernel_group(addresses=(V4,)))
    meanwhile(kernel, netlink.RTM_GETROUTE, never_still)
    with pytest.raises(netlink.InterruptedDumpError):
        kernel.run(lambda k: k.withdraw(GROUP))
    assert told_of_all(kernel.configure(kernel_group(addresses=(V4,))))


def test_a_member_that_had_not_left_yet_is_told_of_when_it_is_wanted_again(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group("nic0", "nic1", addresses=(V4,)))
    place(lab, kernel, V4, on="nic1")
    kernel.configure(kernel_group("nic0", addresses=(V4,)))
    told = kernel.configure(kernel_group("nic0", "nic1", addresses=(V4,)))
    assert [e.interface for e in told if isinstance(e, InterfaceFound)] == ["nic1"]


def test_what_is_heard_of_a_route_while_the_table_is_taken_in_slices_counts(
    lab: Lab, kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = lab.host.namespace
    nets = [f"198.19.{i // 250 + 16}.{i % 250}/32" for i in range(4 * slices.AT_ONCE)]
    host.batch([f"address add {V4} dev nic0", *(f"route add {net} via 198.18.0.201 dev nic0" for net in nets)])
    kernel.configure(kernel_group(addresses=(V4,)))
    kernel.perform(SetOutbound(("nic0",), ("nic0",)))
    kernel.run(lambda k: k.reconcile(GROUP))
    last = routes.prefix_of(ip_network(nets[-1]))
    host.ip("route", "add", "198.19.99.0/24", "via", "198.18.0.201", "dev", "nic0")  # or there is nothing to compare

    group = kernel.kernel._groups[GROUP]
    take = group._take_addresses

    def delete() -> None:
        host.ip("route", "del", nets[-1], "dev", "nic0")
        kernel.kernel.drain()

    def take_and_delete_in_the_first_pause(found: Any) -> Any:
        monkeypatch.setattr(group, "_take_addresses", take)
        asyncio.get_running_loop().call_soon(delete)
        return take(found)

    async def compare(facade: Kernel) -> tuple[int, bool]:
        monkeypatch.setattr(slices, "SLICE", 0.0)
        monkeypatch.setattr(group, "_take_addresses", take_and_delete_in_the_first_pause)
        await facade.reconcile(GROUP)
        main = group._features.twins._main
        return len(main.foreign.to(last)), last in main.wanted

    assert kernel.run(compare) == (0, False)
    wait_for(lambda: host.run("ip", "route", "show", "table", "73", "exact", nets[-1]), "".__eq__)


def putting_back(kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    """Whether the group is making an interface again what it was before."""
    former = kernel.kernel._groups[GROUP]._former
    put_back, under_way = former.put_back, []

    async def noted(member: Any) -> None:
        under_way.append(member.key)
        await put_back(member)

    monkeypatch.setattr(former, "put_back", noted)
    return lambda: under_way


def test_a_member_wanted_again_while_it_is_put_back_stays_one(
    lab: Lab, kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = kernel_group("nic0", "nic1", addresses=(V4,))
    kernel.configure(both)
    place(lab, kernel, V4, on="nic1")
    kernel.configure(kernel_group("nic0", addresses=(V4,)))
    kernel.forget()
    configuring = []

    async def want_again() -> None:
        configuring.append(asyncio.ensure_future(kernel.kernel.configure(both, None)))
        await asyncio.sleep(0)
        assert not kernel.kernel._members.of(GROUP)["nic1"].leaving

    meanwhile(kernel, netlink.RTM_GETADDR, want_again, due=putting_back(kernel, monkeypatch))
    kernel.perform(moves(V4, source="nic1", destination="nic0"))
    wait_for(lambda: configuring)
    kernel.run(lambda _: configuring[0])
    assert [e.interface for e in kernel.events(InterfaceFound)] == ["nic1"]
    assert sorted(kernel.call(lambda k: list(k._members.of(GROUP)))) == ["nic0", "nic1"]
    assert kernel.call(lambda k: (GROUP, "nic1") in k._host.ports)


def test_a_former_member_that_vanishes_while_it_is_put_back_stops_no_withdrawal(
    lab: Lab, kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.configure(kernel_group("nic0", "nic1", addresses=(V4,)))
    place(lab, kernel, V4, on="nic1")
    kernel.configure(kernel_group("nic0", addresses=(V4,)))
    remove = lab.host.nic("nic1").remove
    meanwhile(kernel, netlink.RTM_GETADDR, remove, due=putting_back(kernel, monkeypatch))
    kernel.run(lambda k: k.withdraw(GROUP))
    assert kernel.call(lambda k: list(k._members)) == []


def test_a_member_that_vanishes_while_addresses_are_read_stops_no_configuration(
    lab: Lab, kernel: RunningKernel
) -> None:
    meanwhile(kernel, netlink.RTM_GETADDR, lab.host.nic("nic1").remove)
    told = kernel.configure(kernel_group(addresses=(V4,)))
    assert InterfaceVanished("nic1") in told
    assert told[-1] == KernelRead()
    assert kernel.call(lambda k: list(k._host.ports)) == [(GROUP, "nic0")]


def test_a_member_replaced_while_addresses_are_read_has_none_of_the_old_one(lab: Lab, kernel: RunningKernel) -> None:
    nic = lab.host.nic("nic0")
    lab.host.namespace.ip("address", "add", str(V4), "dev", "nic0")

    def exchange() -> None:
        nic.remove()
        nic.insert(index=77)

    meanwhile(kernel, netlink.RTM_GETADDR, exchange)
    told = kernel.configure(kernel_group(addresses=(V4,)))
    assert [e for e in told if isinstance(e, AddressFound)] == []
    assert kernel.call(lambda k: k._groups[GROUP]._features.data.placement) == {}


def test_a_new_configuration_forgets_nothing_that_happened_since_the_memory_was_taken(
    lab: Lab, kernel: RunningKernel
) -> None:
    host = lab.host.namespace
    tunnel = f"type vxlan id 1 local {V4.ip} remote 198.18.0.201 dev nic0 dstport 8472"
    host.batch([f"link add vx1 {tunnel}", "link set vx1 up"])
    kernel.configure(kernel_group(addresses=(V4,)))
    place(lab, kernel, V4, on="nic0")
    memory = kernel.call(lambda k: k.memory(GROUP))
    meanwhile(
        kernel,
        netlink.RTM_GETLINK,
        lambda: kernel.kernel.perform(GROUP, moves(V4, source="nic0", destination="nic1")),
    )
    kernel.configure(kernel_group(addresses=(V4, OTHER_V4)), memory)
    kernel.run(lambda k: k.withdraw(GROUP))
    assert "dev nic0" in host.run("ip", "-d", "link", "show", "vx1")


def test_routes_to_be_put_back_are_remembered_once_however_often_the_configuration_changes(
    lab: Lab, carrying: RunningKernel
) -> None:
    carrying.perform(moves(V4, source="nic0", destination="nic1"))
    carrying.run(lambda k: k.reconcile(GROUP))
    once = carrying.call(lambda k: k.memory(GROUP)["routes"])
    assert [route["missing"] for route in once] == [True, True]
    for count in range(3):
        memory = carrying.call(lambda k: k.memory(GROUP))
        carrying.configure(kernel_group(addresses=(V4, OTHER_V4), pod_egress=(), failback=bool(count % 2)), memory)
    assert carrying.call(lambda k: k.memory(GROUP)["routes"]) == once


# -- addresses that come and go ----------------------------------------------------------------------------------------


def test_an_adopted_address_that_is_let_go_before_it_was_told_is_not_told_after(
    lab: Lab, kernel: RunningKernel
) -> None:
    host = lab.host.namespace
    disk = asyncio.Event()

    async def secure() -> bool:
        return await disk.wait()

    adopting = kernel_group(existing=Existing.ADOPT)
    kernel.call(lambda _: disk.set())
    kernel.run(lambda k: k.configure(adopting, None, secure))
    kernel.call(lambda _: disk.clear())
    host.ip("address", "add", str(V4), "dev", "nic0")
    wait_for(lambda: kernel.call(lambda k: k._groups[GROUP]._features.data.is_data(V4.ip)))
    host.ip("address", "change", str(V4), "dev", "nic0", "valid_lft", "1000", "preferred_lft", "1000")
    wait_for(lambda: kernel.call(lambda k: not k._groups[GROUP]._features.data.is_data(V4.ip)))
    kernel.call(lambda _: disk.set())
    wait_for(lambda: kernel.call(lambda k: not k._groups[GROUP]._memory.writing), deadline=10)
    assert kernel.events(AddressReleased)
    assert kernel.events(AddressAdopted) == []


def test_an_order_that_crosses_the_release_of_an_address_moves_nothing(lab: Lab, kernel: RunningKernel) -> None:
    host = lab.host.namespace
    host.ip("address", "add", str(V4), "dev", "nic0")
    kernel.configure(kernel_group(existing=Existing.ADOPT))
    host.ip("address", "change", str(V4), "dev", "nic0", "valid_lft", "1000", "preferred_lft", "1000")
    kernel.await_event(AddressReleased)
    kernel.perform(moves(V4, source="nic0", destination="nic1"), Announce("nic1", (V4,)))

    def end_check(facade: Kernel) -> None:
        check = facade._host.checks._end(V4.ip)
        if check is not None:
            check.done(None)

    kernel.call(end_check)
    assert where(lab, V4) == ["nic0"]
    assert kernel.call(lambda k: k._groups[GROUP]._features.data.placement) == {}


def test_an_order_that_crosses_the_refusal_of_an_address_has_it_tried_again_all_the_same(
    lab: Lab, kernel: RunningKernel
) -> None:
    lab.peer(0).namespace.ip("address", "add", str(V4), "dev", "eth0")
    kernel.configure(kernel_group(addresses=(V4,)))
    kernel.perform(moves(V4, source=None, destination="nic0"))
    kernel.await_event(AddressRefused)

    def cross(facade: Kernel) -> tuple[Any, Any]:
        facade.perform(GROUP, moves(V4, source="nic0", destination="nic1"))
        data = facade._groups[GROUP]._features.data
        return dict(data.placement), list(data._retries)

    assert kernel.call(cross) == ({}, [V4])


def test_an_address_whose_member_vanishes_at_the_end_of_its_check_is_not_refused(
    lab: Lab, kernel: RunningKernel
) -> None:
    kernel.configure(kernel_group(addresses=(V4,)))

    def end_check(facade: Kernel) -> None:
        facade.perform(GROUP, moves(V4, source=None, destination="nic0"))
        lab.host.nic("nic0").remove()
        check = facade._host.checks._end(V4.ip)
        assert check is not None
        check.done(None)

    kernel.call(end_check)
    kernel.await_event(InterfaceVanished)
    assert kernel.events(AddressRefused) == []


def test_a_check_goes_on_when_its_member_is_renamed(lab: Lab, kernel: RunningKernel) -> None:
    nic = lab.host.nic("nic0")
    lab.peer(0).namespace.ip("address", "add", str(V4), "dev", "eth0")
    kernel.configure(kernel_group(Member(InterfaceMatch(mac_address=nic.mac)), "nic1", addresses=(V4,)))

    def check(facade: Kernel) -> None:
        facade.perform(GROUP, moves(V4, source=None, destination=nic.mac))
        nic.rename("uplink7")
        facade.drain()

    kernel.call(check)
    assert kernel.await_event(AddressRefused).reason is Reason.ADDRESS_CONFLICT
    assert where(lab, V4) == []


def test_an_address_placed_on_a_member_without_access_to_its_link_comes_with_the_access(
    lab: Lab, kernel: RunningKernel
) -> None:
    nic = lab.host.nic("nic0")
    kernel.configure(kernel_group(Member(InterfaceMatch(mac_address=nic.mac)), "nic1", addresses=(V4,)))

    def place_between_two_names(facade: Kernel) -> None:
        nic.rename("first")
        nic.rename("second")
        member = facade._members.of(GROUP)[nic.mac]
        while member.link is None or member.link.name != "first":
            for message in netlink.read(facade._monitor._socket):
                facade._heard(message)
        assert (GROUP, nic.mac) not in facade._host.ports
        facade.perform(GROUP, moves(V4, source=None, destination=nic.mac))
        facade.drain()

    kernel.call(place_between_two_names)
    wait_for(lambda: where(lab, V4), lambda holders: holders == ["second"])


def test_a_member_is_probed_without_a_pause_when_its_mac_address_changes(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group())
    local = kernel.await_event(TestAddressChanged, lambda e: e.interface == "nic0" and e.address is not None).address

    def change(facade: Kernel) -> Any:
        lab.host.namespace.ip("link", "set", "nic0", "address", "02:00:00:00:99:04")
        facade.drain()
        port = facade._host.ports[GROUP, "nic0"]
        return port.link.mac, port.sender.test_address(Family.IPV6)

    assert kernel.call(change) == ("02:00:00:00:99:04", local)


def test_a_test_address_that_goes_with_a_change_of_mac_address_is_told_gone(lab: Lab, kernel: RunningKernel) -> None:
    host = lab.host.namespace
    kernel.configure(kernel_group())
    kernel.await_event(TestAddressChanged, lambda e: e.interface == "nic0" and e.address is not None)
    kernel.forget()

    def change(facade: Kernel) -> None:
        host.ip("link", "set", "nic0", "address", "02:00:00:00:99:04")
        host.ip("-6", "address", "flush", "dev", "nic0", "scope", "link")
        facade.drain()

    kernel.call(change)
    kernel.await_event(TestAddressChanged, lambda e: e == TestAddressChanged("nic0", Family.IPV6, None))


def test_a_group_that_is_to_observe_finishes_no_check_before_it_manages_again(lab: Lab, kernel: RunningKernel) -> None:
    test_address = IPv4Interface("198.18.0.101/24")
    tested = Member(InterfaceMatch(name="nic0"), test_ipv4=test_address)
    manage = kernel_group(tested, "nic1", addresses=(V4,))
    observe = manage.in_mode(Mode.OBSERVE)

    async def stop_checking(facade: Kernel) -> list[bool]:
        await facade.configure(manage, None)
        facade.perform(GROUP, moves(V4, source=None, destination="nic1"))
        checks = facade._host.checks
        assert all(address in checks for address in (V4, test_address)), "both are being checked"
        await facade.configure(observe, None)
        return [address in checks for address in (V4, test_address)]

    assert kernel.run(stop_checking) == [False, False]
    kernel.configure(manage)
    wait_for(lambda: [where(lab, a) for a in (V4, test_address)], lambda seen: seen == [["nic1"], ["nic0"]])


# -- what fails --------------------------------------------------------------------------------------------------------


def test_a_comparison_that_failed_is_made_again_before_the_regular_one(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=(V4,)))
    place(lab, kernel, V4, on="nic0")
    kernel.run(lambda k: k.reconcile(GROUP))
    failed = []

    def fail() -> None:
        failed.append(True)
        never_still()

    kernel.call(lambda k: k._timers["reconcile"].cancel())
    meanwhile(kernel, netlink.RTM_GETNEXTHOP, fail)
    lab.host.namespace.ip("address", "del", str(V4), "dev", "nic0")
    wait_for(lambda: where(lab, V4), lambda holders: holders == ["nic0"], what="the address, put back")
    assert failed


def test_lost_notifications_are_made_up_for_although_the_first_dump_fails(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group())
    host = lab.host.namespace

    def starve(facade: Kernel) -> None:
        """Hear nothing while more happens than the socket can hold."""
        facade._timers["reconcile"].cancel()
        facade._monitor._socket.setsockopt(1, 8, 2048)  # SO_RCVBUF
        host.batch([f"address add 198.18.9.{i}/32 dev nic1" for i in range(1, 200)])
        host.ip("link", "set", "nic0", "address", "02:00:00:00:99:02")

    meanwhile(kernel, netlink.RTM_GETLINK, never_still)
    kernel.call(starve)
    kernel.await_event(InterfaceFound, lambda e: e.mac == "02:00:00:00:99:02")


def test_news_while_groups_are_closed_has_nobody_write_any_more(lab: Lab, kernel: RunningKernel) -> None:
    host = lab.host.namespace
    written: list[str] = []

    async def secure() -> bool:
        written.append("memory")
        return True

    one = replace(kernel_group("nic0", existing=Existing.ADOPT), group_name="one")
    two = replace(kernel_group("nic1", existing=Existing.ADOPT), group_name="two")
    host.ip("address", "add", str(V4), "dev", "nic0")
    for group in (one, two):
        kernel.run(partial(Kernel.configure, configuration=group, memory=None, secure=secure))
    wait_for(
        lambda: kernel.call(lambda k: [g for g in k._groups.values() if g._memory.writing]), lambda keeping: not keeping
    )
    written.clear()
    closing = kernel.kernel._groups["two"].close

    async def interrupted() -> None:
        host.ip("route", "add", "198.19.7.0/24", *BY_GATEWAY)
        for _ in range(20):
            await asyncio.sleep(0.01)
        await closing()

    kernel.kernel._groups["two"].close = interrupted  # type: ignore[method-assign]
    kernel.close()
    assert written == []


# -- two groups --------------------------------------------------------------------------------------------------------


def test_a_former_member_dismissed_before_its_configuration_is_taken_spoils_no_comparison(
    lab: Lab, kernel: RunningKernel
) -> None:
    kernel.configure(kernel_group("nic0", "nic1", addresses=(V4,)))

    async def compare() -> None:
        for _ in range(2):
            await kernel.kernel.reconcile(GROUP)

    meanwhile(kernel, netlink.RTM_GETLINK, compare)
    kernel.configure(kernel_group("nic0", addresses=(V4,)))
    assert kernel.call(lambda k: list(k._members.of(GROUP))) == ["nic0"]


@pytest.mark.parametrize("when", ["before its configuration is taken", "while it does not know of the loss"])
def test_home_that_is_gone_and_dismissed_leaves_its_routes_to_its_heir(
    lab: Lab, kernel: RunningKernel, when: str
) -> None:
    host = lab.host.namespace
    host.batch([f"address add {V4} dev nic0", "route add default via 198.18.0.1 dev nic0"])
    kernel.configure(kernel_group(existing=Existing.ADOPT))
    kernel.await_event(AddressAdopted)
    left = kernel_group("nic1", existing=Existing.ADOPT)

    def lose() -> None:
        lab.host.nic("nic0").remove()
        kernel.kernel.drain()
        for order in (moves(V4, source="nic0", destination="nic1"), Announce("nic1", (V4,))):
            kernel.kernel.perform(GROUP, order)

    async def compare() -> None:
        for _ in range(2):
            await kernel.kernel.reconcile(GROUP)

    if when.startswith("before"):
        kernel.call(lambda _: lose())
        meanwhile(kernel, netlink.RTM_GETLINK, compare)
        kernel.configure(left)
    else:
        configuring: list[asyncio.Task[None]] = []

        async def lose_and_configure() -> None:
            lose()
            configuring.append(asyncio.create_task(kernel.kernel.configure(left, None)))
            await asyncio.sleep(0)

        kernel.kernel._host.neighbors._groups[GROUP].read_at = float("-inf")
        meanwhile(kernel, netlink.RTM_GETNEIGH, lose_and_configure)
        kernel.run(lambda k: k.reconcile(GROUP))

        async def configured(_: Kernel) -> None:
            await asyncio.gather(*configuring)

        kernel.run(configured)
    kernel.run(lambda k: k.withdraw(GROUP))
    assert where(lab, V4) == ["nic1"]
    assert [route["dev"] for route in host.ip_json("route", "show", "default")] == ["nic1"]


@pytest.mark.parametrize("when", ["before it is heard of", "while the kernel is read", "while it is put back"])
def test_interface_that_is_deleted_right_after_the_configuration_without_it_leaves_its_addresses(
    lab: Lab, kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    host = lab.host.namespace
    host.batch([f"address add {V4} dev nic0", "route add default via 198.18.0.1 dev nic0"])
    kernel.configure(kernel_group(existing=Existing.ADOPT))
    kernel.await_event(AddressAdopted)
    removed: list[str] = []

    def remove() -> None:
        if not removed:
            removed.append("nic0")
            lab.host.nic("nic0").remove()

    async def remove_and_hear() -> None:
        remove()
        kernel.kernel.drain()

    former = kernel.kernel._groups[GROUP]._former
    put_back = former.put_back

    async def remove_meanwhile(member: Any) -> None:
        remove()
        await put_back(member)

    async def change(facade: Kernel) -> None:
        """As the configurator does: the core's order first, then the kernel's side, in one turn of the loop."""
        if when == "before it is heard of":
            remove()
        facade.perform(GROUP, moves(V4, source="nic0", destination=None))
        await facade.configure(kernel_group("nic1", existing=Existing.ADOPT), None)

    if when == "while it is put back":
        monkeypatch.setattr(former, "put_back", remove_meanwhile)
    if when == "while the kernel is read":
        meanwhile(kernel, netlink.RTM_GETADDR, remove_and_hear)
    kernel.run(change)
    kernel.await_event(AddressAdopted, lambda event: event.interface == "nic1")
    wait_for(lambda: kernel.call(lambda k: list(k._members.of(GROUP))), ["nic1"].__eq__)
    assert where(lab, V4) == ["nic1"]
    kernel.run(lambda k: k.withdraw(GROUP))
    assert where(lab, V4) == ["nic1"]
    assert [route["dev"] for route in host.ip_json("route", "show", "default")] == ["nic1"]


def test_counters_are_read_in_a_thread_while_the_loop_forgets_a_group(lab: Lab, kernel: RunningKernel) -> None:
    for name, nic in (("one", "nic0"), ("two", "nic1")):
        kernel.configure(replace(kernel_group(nic), group_name=name))
    reconciler = kernel.kernel._groups["one"].reconciler

    class Read(type(reconciler)):  # type: ignore[misc]
        @property
        def foreign_changes(self) -> int:
            """The loop has its turn just when this is read."""
            kernel.run(lambda k: k.withdraw("two"))
            return 3

    reconciler.__class__ = Read
    assert kernel.kernel.counters["foreign_changes"] == 3


@pytest.mark.parametrize("lab", [{"nics": ("nic0", "nic1", "nic2", "nic3")}], indirect=True)
def test_two_groups_are_configured_at_once_while_one_has_failovers(lab: Lab, kernel: RunningKernel) -> None:
    host = lab.host.namespace
    one = replace(kernel_group("nic0", "nic1", addresses=(V4,)), group_name="one")
    two = replace(kernel_group("nic2", "nic3", addresses=(OTHER_V4,)), group_name="two")
    host.batch([f"address add {OTHER_V4} dev nic2", "route add default via 198.18.0.1 dev nic2"])
    kernel.configure(one)
    kernel.call(lambda k: k.perform("one", moves(V4, source=None, destination="nic0")))
    wait_for(lambda: where(lab, V4), lambda holders: holders == ["nic0"])
    ways = [("nic0", "nic1"), ("nic1", "nic0")] * 6

    async def fail_over(_kind: int) -> None:
        if ways:
            source, destination = ways.pop(0)
            for order in (
                moves(V4, source=source, destination=destination),
                SetOutbound((destination,), (destination,)),
            ):
                kernel.kernel.perform("one", order)
            assert where(lab, V4) == [destination], "it waited for something"
            kernel.kernel.drain()

    kernel.dumper.arrange(fail_over)
    changed = replace(one, policies=replace(one.policies, failback=Switch.DISABLED))

    async def configure_both(facade: Kernel) -> None:
        await asyncio.gather(facade.configure(changed, None), facade.configure(two, None))

    kernel.run(configure_both)
    assert ways == []
    assert (where(lab, V4), where(lab, OTHER_V4)) == (["nic0"], ["nic2"])
    told = [heard.event for heard in kernel.heard if heard.group == "two"]
    assert [e.interface for e in told if isinstance(e, InterfaceFound)] == ["nic2", "nic3"]
    assert [e.interface for e in told if isinstance(e, AddressFound)] == ["nic2"]
    kernel.call(lambda k: k.perform("two", SetOutbound(("nic2", "nic3"), ("nic2", "nic3"))))

    async def compare(facade: Kernel) -> list[int]:
        return [await facade._groups[name].reconcile() for name in ("one", "two", "one", "two")]

    assert kernel.run(compare)[2:] == [0, 0], "what is in the kernel is what is wanted"
    assert (where(lab, V4), where(lab, OTHER_V4)) == (["nic0"], ["nic2"])
    (default,) = twin(lab, "default")
    assert default["dev"] == "nic2"
    assert kernel.call(lambda k: k.counters).get("kernel_refusals", 0) == 0
