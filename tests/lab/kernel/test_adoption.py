"""Addresses that the host had on its members: taken as they are, moved, and given back bit for bit."""

from __future__ import annotations

import json
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core.actions import SetOutbound
from ipmp_agent.core.events import AddressAdopted, AddressReleased, InterfaceVanished
from ipmp_agent.core.reasons import Reason
from ipmp_api.types import DeletionPolicy, Existing, Mode
from tests.lab import wait_for
from tests.lab.kernel.dumps import differences, dump
from tests.lab.kernel.running import GROUP, kernel_group, moves, where, with_tests
from tests.lab.kernel.tables import tables

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.lab import Lab
    from tests.lab.kernel.running import RunningKernel

V4, V6 = ip_interface("198.18.0.50/24"), ip_interface("2001:db8:0:1::50/64")
SECOND_V4, SECOND_V6 = ip_interface("198.18.0.51/24"), ip_interface("2001:db8:0:1::51/64")
OTHER = ip_interface("198.18.64.7/20")
GIVEN = ip_interface("198.18.0.99/32")
HOST = (
    f"address add {V4} dev nic0 brd + label nic0:x",
    f"address add {SECOND_V4} dev nic0 brd 198.18.0.255",
    f"address add {OTHER} dev nic0",
    f"address add {V6} dev nic0 nodad",
    f"address add {SECOND_V6} dev nic0 nodad preferred_lft 0",
    "route add default via 198.18.0.201 dev nic0 metric 100 proto static",
    f"route add default via 198.18.0.202 dev nic0 metric 200 proto dhcp src {SECOND_V4.ip}",
    f"route add 198.19.7.0/24 via 198.18.0.202 dev nic0 src {V4.ip} mtu 1400",
    "route add 198.19.8.0/24 dev nic0 scope link proto static",
    "route add default via 2001:db8:0:1::201 dev nic0 metric 50",
    "route add 2001:db8:7::/48 via 2001:db8:0:1::202 dev nic0 metric 60",
    f"route add 2001:db8:8::/48 via 2001:db8:0:1::202 dev nic0 metric 70 src {V6.ip}",
)
ALL = (V4, SECOND_V4, OTHER, V6, SECOND_V6)


def adopting(*members: Any, **policies: Any) -> Any:
    return kernel_group(*members, **{"existing": Existing.ADOPT} | policies)


@pytest.fixture
def host(lab: Lab) -> Lab:
    """A host with addresses and routes of its own on nic0."""
    lab.host.namespace.batch(HOST)
    # The kernel takes a moment to make an IPv6 address usable.
    local = lambda: lab.host.namespace.run("ip", "-6", "route", "show", "table", "local")  # noqa: E731
    wait_for(local, lambda text: str(V6.ip) in text and str(SECOND_V6.ip) in text)
    return lab


def adopted(told: list[Any]) -> list[AddressAdopted]:
    return [event for event in told if isinstance(event, AddressAdopted)]


def test_static_addresses_are_adopted_where_they_are_and_stay_as_they_are(host: Lab, kernel: RunningKernel) -> None:
    before = dump(host)
    told = kernel.configure(adopting())
    assert {(e.address, e.home, e.interface) for e in adopted(told)} == {(a, "nic0", "nic0") for a in ALL}
    after = dump(host)
    after["addresses"] = after["addresses"].replace(" group 73 ", " group default ")
    assert after["addresses"] == before["addresses"]
    # Our table is new, and settings: nothing is gone.
    assert {name for name in before if set(before[name].splitlines()) - set(after[name].splitlines())} <= {"settings"}


def move_all(lab: Lab, kernel: RunningKernel, source: str, destination: str) -> None:
    kernel.perform(moves(*ALL, source=source, destination=destination))
    assert {str(a): where(lab, a) for a in ALL} == {str(a): [destination] for a in ALL}
    kernel.run(lambda k: k.reconcile(GROUP))


def test_withdrawal_puts_addresses_and_routes_back_bit_for_bit(host: Lab, kernel: RunningKernel) -> None:
    before = dump(host)
    kernel.configure(adopting())
    move_all(host, kernel, "nic0", "nic1")
    kernel.run(lambda k: k.withdraw(GROUP))
    assert "\n".join(differences(before, dump(host))) == ""


@pytest.mark.parametrize("lab", [{"nics": ("nic0", "nic1", "nic2")}], indirect=True)
def test_what_a_member_that_is_gone_had_is_gathered_on_one_that_is_left(host: Lab, kernel: RunningKernel) -> None:
    before = dump(host)
    kernel.configure(adopting("nic0", "nic1", "nic2"))
    move_all(host, kernel, "nic0", "nic1")
    kernel.perform(moves(SECOND_V4, SECOND_V6, source="nic1", destination="nic2"))
    host.host.nic("nic0").remove()
    kernel.await_event(InterfaceVanished)
    kernel.run(lambda k: k.withdraw(GROUP))
    after = dump(host)
    assert {str(a): where(host, a) for a in ALL} == {str(a): ["nic1"] for a in ALL}
    for family in ("routes4", "routes6"):
        by_gateway = [line for line in before[family].splitlines() if " via " in line]
        assert {line.replace("nic0", "nic1") for line in by_gateway} <= set(after[family].splitlines())
        assert by_gateway
        assert "proto 73" not in after[family]
    assert after["nexthops"] == before["nexthops"]


def test_failback_puts_addresses_and_routes_back_bit_for_bit(host: Lab, kernel: RunningKernel) -> None:
    kernel.configure(adopting())
    before = dump(host)
    move_all(host, kernel, "nic0", "nic1")
    kernel.perform(moves(*ALL, source="nic1", destination="nic0"))
    wait_for(lambda: differences(before, dump(host)), lambda seen: not seen, deadline=3)


def test_withdrawal_without_a_move_leaves_everything_as_it_was(host: Lab, kernel: RunningKernel) -> None:
    before = dump(host)
    kernel.configure(adopting())
    kernel.run(lambda k: k.withdraw(GROUP))
    assert "\n".join(differences(before, dump(host))) == ""


def test_ignoring_again_gives_back_what_was_moved(host: Lab, kernel: RunningKernel) -> None:
    before = dump(host)
    kernel.configure(kernel_group())
    ignoring = dump(host)
    kernel.configure(adopting())
    move_all(host, kernel, "nic0", "nic1")
    kernel.perform(moves(*ALL, source="nic1", destination=None))
    kernel.configure(kernel_group(), json.loads(json.dumps(kernel.call(lambda k: k.memory(GROUP)))))
    wait_for(lambda: differences(ignoring, dump(host)), lambda seen: not seen, deadline=3)
    kernel.run(lambda k: k.withdraw(GROUP))
    assert "\n".join(differences(before, dump(host))) == ""


@pytest.mark.parametrize("existing", list(Existing))
def test_a_restart_with_another_wish_obeys_it(
    host: Lab, start_kernel: Callable[[], RunningKernel], existing: Existing
) -> None:
    before = dump(host)
    first = start_kernel()
    first.configure(adopting())
    move_all(host, first, "nic0", "nic1")
    memory = json.loads(json.dumps(first.call(lambda k: k.memory(GROUP))))
    first.close()
    second = start_kernel()
    told = adopted(second.configure(kernel_group(existing=existing), memory))
    if existing is Existing.ADOPT:
        assert {(e.address, e.home, e.interface) for e in told} == {(a, "nic0", "nic1") for a in ALL}
    else:
        assert told == []
        wait_for(lambda: {str(a): where(host, a) for a in ALL}, lambda w: all(x == ["nic0"] for x in w.values()))
    second.run(lambda k: k.withdraw(GROUP))
    assert "\n".join(differences(before, dump(host))) == ""


def test_ignored_addresses_are_nobodys(host: Lab, kernel: RunningKernel) -> None:
    assert adopted(kernel.configure(kernel_group())) == []


def test_leased_addresses_are_refused_and_named(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.namespace.batch(
        [
            f"address add {V4} dev nic0 valid_lft 3600 preferred_lft 3600",
            f"address add {V6} dev nic1 nodad valid_lft 3600 preferred_lft 3600",
        ]
    )
    assert adopted(kernel.configure(adopting())) == []
    found = kernel.call(lambda k: k.findings(GROUP))
    assert {(f.reason, f.interface) for f in found} == {(Reason.DHCP_MANAGED, "nic0"), (Reason.DHCP_MANAGED, "nic1")}
    assert {f.message.split()[0] for f in found} == {str(V4.ip), str(V6.ip)}


def test_an_address_that_a_lease_takes_over_is_released(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.namespace.ip("address", "add", str(V4), "dev", "nic0")
    kernel.configure(adopting())
    lab.host.namespace.ip("address", "change", str(V4), "dev", "nic0", "valid_lft", "600", "preferred_lft", "600")
    assert kernel.await_event(AddressReleased).address == V4
    assert [f.reason for f in kernel.call(lambda k: k.findings(GROUP))] == [Reason.DHCP_MANAGED]


def test_an_address_on_two_members_is_left_alone_and_said_so(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.namespace.batch([f"address add {V4} dev nic0", f"address add {V4} dev nic1"])
    assert adopted(kernel.configure(adopting())) == []
    kernel.run(lambda k: k.reconcile(GROUP))
    assert where(lab, V4) == ["nic0", "nic1"]
    assert [f.reason for f in kernel.call(lambda k: k.findings(GROUP))] == [Reason.ADDRESS_CONFLICT]


def test_an_address_added_later_is_adopted(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(adopting())
    lab.host.namespace.ip("address", "add", str(V4), "dev", "nic1")
    assert kernel.await_event(AddressAdopted) == AddressAdopted(V4, "nic1", "nic1")


def test_an_adopted_address_that_is_taken_away_is_put_back_with_its_routes(host: Lab, kernel: RunningKernel) -> None:
    kernel.configure(adopting())
    before = dump(host)
    # In the agent's own thread: `ip address flush` meets nothing that was put back, which would change the order.
    kernel.call(lambda _: host.host.namespace.ip("address", "flush", "dev", "nic0", "scope", "global"))
    wait_for(lambda: differences(before, dump(host)), lambda seen: not seen, deadline=3)
    assert kernel.call(lambda k: k.counters["foreign_changes"]) >= 1


def test_route_laid_anew_with_an_address_that_is_elsewhere_is_given_back(host: Lab, kernel: RunningKernel) -> None:
    """Who configures an interface anew finds its address taken off again, and the kernel takes its routes along.

    That is not told, and another address may be there before anybody looks.
    """
    kernel.configure(adopting())
    move_all(host, kernel, "nic0", "nic1")
    facade_host = kernel.kernel._host
    send, guest = facade_host.send, ip_interface("198.18.128.7/20")

    def send_and_be_late(requests: Sequence[bytes], **options: Any) -> Any:
        failures = send(requests, **options)
        if where(host, V4) == ["nic1"] and not where(host, guest):
            host.host.namespace.ip("address", "add", str(guest), "dev", "nic0")
        return failures

    default = "default via 198.18.0.203 dev nic0 metric 300 proto static"
    kernel.call(lambda _: setattr(facade_host, "send", send_and_be_late))
    # Both before anybody takes the address off again: the loop waits for it.
    kernel.call(lambda _: host.host.namespace.batch([f"address add {V4} dev nic0", f"route add {default}"]))
    wait_for(lambda: (where(host, V4), where(host, guest)), lambda seen: seen == (["nic1"], ["nic0"]))
    kernel.run(lambda k: k.reconcile(GROUP))
    kernel.run(lambda k: k.withdraw(GROUP))
    assert "via 198.18.0.203 dev nic0" in host.host.namespace.run("ip", "route", "show", "default")


@pytest.mark.parametrize("on", ["nic0", "nic1"])
def test_address_that_its_owner_takes_while_no_agent_runs_is_given_up(
    host: Lab, start_kernel: Callable[[], RunningKernel], on: str
) -> None:
    first = start_kernel()
    first.configure(adopting())
    if on == "nic1":
        first.perform(moves(V4, V6, source="nic0", destination="nic1"))
    memory = first.call(lambda k: k.memory(GROUP))
    first.close()
    for address in (V4, V6):
        host.host.namespace.ip("address", "del", str(address), "dev", on)
    second = start_kernel()
    second.configure(adopting(), memory)
    wait_for(lambda: {e.address for e in second.events(AddressReleased) if e.given_up}, lambda gone: gone == {V4, V6})
    second.run(lambda k: k.withdraw(GROUP))
    assert [where(host, address) for address in ALL] == [[], ["nic0"], ["nic0"], [], ["nic0"]]


def test_address_that_goes_with_an_interface_while_no_agent_runs_is_put_back(
    host: Lab, start_kernel: Callable[[], RunningKernel]
) -> None:
    first = start_kernel()
    first.configure(adopting())
    first.perform(moves(V4, V6, source="nic0", destination="nic1"))
    memory = first.call(lambda k: k.memory(GROUP))
    first.close()
    host.host.nic("nic1").remove()
    second = start_kernel()
    told = second.configure(adopting(), memory)
    assert {(e.address, e.interface) for e in adopted(told)} >= {(V4, "nic0"), (V6, "nic0")}
    wait_for(lambda: [where(host, address) for address in ALL], lambda seen: seen == [["nic0"]] * 5)


def test_retain_leaves_the_last_state(host: Lab, kernel: RunningKernel) -> None:
    kernel.configure(adopting(deletion_policy=DeletionPolicy.RETAIN))
    move_all(host, kernel, "nic0", "nic1")
    before = dump(host)
    kernel.run(lambda k: k.withdraw(GROUP))
    assert "\n".join(differences(before, dump(host))) == ""


def test_an_address_whose_memory_is_lost_is_not_lost(host: Lab, start_kernel: Callable[[], RunningKernel]) -> None:
    first = start_kernel()
    first.configure(adopting())
    move_all(host, first, "nic0", "nic1")
    first.close()
    second = start_kernel()
    told = adopted(second.configure(adopting()))
    assert {(e.address.ip, e.home) for e in told} == {(a.ip, "nic1") for a in ALL}
    second.run(lambda k: k.withdraw(GROUP))
    assert {str(a): where(host, a) for a in ALL} == {str(a): ["nic1"] for a in ALL}
    assert "198.18.0.0/24 dev nic1 proto kernel" in host.host.namespace.run("ip", "route")


@pytest.mark.parametrize("withdrawn", [False, True], ids=["restarted", "withdrawn"])
def test_a_lost_memory_leaves_no_host_without_the_routes_that_went_with_its_addresses(
    host: Lab, start_kernel: Callable[[], RunningKernel], *, withdrawn: bool
) -> None:
    """What went with the addresses is in nobody's memory then: the twins are all that is left of it."""
    first = start_kernel()
    first.configure(adopting())
    first.perform(SetOutbound(("nic1",), ("nic1",)))
    move_all(host, first, "nic0", "nic1")
    first.run(lambda k: k.reconcile(GROUP))
    first.close()
    second = start_kernel()
    second.configure(adopting())
    second.perform(SetOutbound(("nic1",), ("nic1",)))
    second.run(lambda k: k.reconcile(GROUP))
    if withdrawn:
        second.run(lambda k: k.withdraw(GROUP))
    run = host.host.namespace.run
    assert "via 198.18.0.201 dev nic1" in run("ip", "route", "get", "203.0.113.1")
    assert "via 198.18.0.202 dev nic1" in run("ip", "route", "get", "198.19.7.1")
    assert "via 2001:db8:0:1::202" in run("ip", "route", "get", "2001:db8:7::1")
    table = run("ip", "route", "show", "table", "main")
    assert table.count("default") == 2, "those of both metrics"
    assert [line for line in table.splitlines() if line.startswith("198.19.7.0/24") and "mtu 1400" in line]


def test_an_address_that_the_configuration_names_too_is_assigned(host: Lab, kernel: RunningKernel) -> None:
    before = dump(host)
    kernel.configure(adopting())
    named = ip_interface(f"{V4.ip}/32")
    configuration = adopting()
    configuration = kernel_group(addresses=(named,), existing=Existing.ADOPT)
    kernel.configure(configuration, json.loads(json.dumps(kernel.call(lambda k: k.memory(GROUP)))))
    kernel.perform(moves(named, source="nic0", destination="nic1"))
    assert where(host, V4) == ["nic1"]
    kernel.run(lambda k: k.withdraw(GROUP))
    assert "\n".join(differences(before, dump(host))) == ""


def test_observing_adopts_in_the_report_only(host: Lab, kernel: RunningKernel) -> None:
    before = dump(host)
    told = kernel.configure(adopting(mode=Mode.OBSERVE))
    assert len(adopted(told)) == len(ALL)
    kernel.perform(moves(*ALL, source="nic0", destination="nic1"))
    kernel.run(lambda k: k.reconcile(GROUP))
    kernel.run(lambda k: k.withdraw(GROUP))
    assert "\n".join(differences(before, dump(host))) == ""


@pytest.mark.parametrize("policy", list(DeletionPolicy))
@pytest.mark.parametrize("restarted", [False, True], ids=["same agent", "next agent"])
def test_group_that_managed_and_then_observed_is_deleted_by_its_policy(
    host: Lab, start_kernel: Callable[[], RunningKernel], policy: DeletionPolicy, *, restarted: bool
) -> None:
    def group(mode: Mode) -> Any:
        given = {"addresses": (GIVEN,), "pod_egress": (GIVEN.network,), "deletion_policy": policy}
        return adopting(*with_tests("198.18.0.101/24", "198.18.0.102/24"), mode=mode, **given)

    tunnel = f"type vxlan id 1 local {V4.ip} remote 198.18.0.201 dev nic0 dstport 8472"
    host.host.namespace.batch([f"link add over1 {tunnel}", "link set over1 addrgenmode none up"])
    before = dump(host)
    kernel = start_kernel()
    kernel.configure(group(Mode.MANAGE))
    kernel.perform(SetOutbound(("nic1",), ("nic1",)), moves(GIVEN, source=None, destination="nic1"))
    wait_for(lambda: where(host, GIVEN), lambda seen: seen == ["nic1"])
    move_all(host, kernel, "nic0", "nic1")
    assert "snat ip to" in tables(host)
    left = dump(host)
    assert "dev nic1 srcport" in left["addresses"], "the tunnel has followed"
    memory = json.loads(json.dumps(kernel.call(lambda k: k.memory(GROUP))))
    if restarted:
        kernel.close()
        kernel = start_kernel()
    kernel.configure(group(Mode.OBSERVE), memory)
    kernel.run(lambda k: k.reconcile(GROUP))
    assert "\n".join(differences(left, dump(host))) == "", "observing changes nothing"
    kernel.run(lambda k: k.withdraw(GROUP))
    restored = policy is DeletionPolicy.RESTORE
    assert "\n".join(differences(before if restored else left, dump(host))) == ""
    assert bool(tables(host)) is not restored


# -- killed between any two steps -------------------------------------------------------------------------------------


class Mortal:
    """A kernel side that dies when it has sent so many requests, and the memory that was on disk by then."""

    def __init__(self, kernel: RunningKernel, lifetime: int) -> None:
        self.kernel = kernel
        self.left = lifetime
        self.memory: Any = None
        channel = kernel.kernel._host.channel
        self._really_send = channel.send
        channel.send = self._send  # type: ignore[method-assign]

    def _send(self, requests: Sequence[bytes], *rest: Any, **words: Any) -> Any:
        alive = requests[: self.left]
        self.left -= len(alive)
        return self._really_send(alive, *rest, **words) if alive else []

    async def secure(self) -> bool:
        if self.left:
            self.memory = json.loads(json.dumps(self.kernel.kernel.memory(GROUP)))
        return True

    def live(self) -> None:
        """Adopt, fail over, and fail back; the state file is written shortly after each."""
        self.kernel.run(lambda k: k.configure(adopting(), None, self.secure))
        for source, destination in (("nic0", "nic1"), ("nic1", "nic0")):
            self.kernel.perform(SetOutbound((destination,), (destination,)))
            self.kernel.perform(moves(*ALL, source=source, destination=destination))
            self.kernel.run(lambda k: k.reconcile(GROUP))
            self.kernel.run(lambda _: self.secure())


def test_killed_between_any_two_steps_another_agent_gives_everything_back(
    host: Lab, start_kernel: Callable[[], RunningKernel]
) -> None:
    before = dump(host)
    lifetime, survived = 0, False
    while not survived:
        first = start_kernel()
        mortal = Mortal(first, lifetime)
        mortal.live()
        survived = mortal.left > 0
        first.close()
        second = start_kernel()
        second.configure(adopting(), mortal.memory)
        second.run(lambda k: k.withdraw(GROUP))
        second.close()
        assert "\n".join(differences(before, dump(host))) == "", f"killed after {lifetime} requests"
        lifetime += 1
    assert lifetime > 4 * len(ALL)
