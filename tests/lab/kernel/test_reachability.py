"""Who answers the host by its ordinary routes."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import TYPE_CHECKING

from ipmp_agent.core.actions import SetOutbound
from ipmp_agent.linux.shared import reachability
from ipmp_api.types import Existing
from tests.lab.kernel.running import GROUP, kernel_group

if TYPE_CHECKING:
    from ipmp_agent.linux.kernel import Kernel
    from ipmp_api.types import Address
    from tests.lab import Lab
    from tests.lab.kernel.running import RunningKernel

GUARD = """
table bridge guard { chain pass {
    type filter hook forward priority 0;
    iifname "host-nic1" ip saddr 198.18.0.11 drop
}; }
"""
"""Source guard of a switch port."""

SILENT, SILENT_V6 = "198.18.0.77", "2001:db8:0:1::77"


def answering(kernel: RunningKernel, *targets: str) -> set[str]:
    found = kernel.run(lambda k: k.answering({ip_address(target) for target in targets}))
    return {str(address) for address in found}


def cut_off(kernel: RunningKernel, *targets: str) -> dict[str, tuple[str, ...]]:
    found = kernel.run(lambda k: k.cut_off({ip_address(target) for target in targets}))
    return {str(address): members for address, members in found.items()}


def gateways(kernel: RunningKernel) -> set[str]:
    return {str(address) for address in kernel.run(lambda k: k.gateways())}


def give_addresses(lab: Lab) -> None:
    lab.host.namespace.batch(["address add 198.18.0.11/24 dev nic0", "address add 2001:db8:0:1::11/64 dev nic0"])


def test_neighbours_answer_in_both_families_and_who_is_not_there_does_not(lab: Lab, kernel: RunningKernel) -> None:
    give_addresses(lab)
    there = {lab.peer(0).ipv4, lab.peer(1).ipv4, lab.peer(0).ipv6, lab.peer(1).ipv6}
    assert answering(kernel, *there, SILENT, SILENT_V6) == there
    assert answering(kernel) == set()


def test_host_without_a_route_hears_nobody(lab: Lab, kernel: RunningKernel) -> None:
    assert answering(kernel, lab.peer(0).ipv4, lab.peer(0).ipv6) == set()


def test_one_who_answers_arp_and_no_echo_does_not_count(lab: Lab, kernel: RunningKernel) -> None:
    give_addresses(lab)
    lab.peer(0).ignore_probes()
    assert answering(kernel, lab.peer(0).ipv4, lab.peer(1).ipv4) == {lab.peer(1).ipv4}


def test_address_that_has_become_our_own_is_not_somebody_who_answers(lab: Lab, kernel: RunningKernel) -> None:
    give_addresses(lab)
    assert answering(kernel, "198.18.0.11", "2001:db8:0:1::11", lab.peer(0).ipv4) == {lab.peer(0).ipv4}


def test_address_that_becomes_our_own_while_it_is_asked_is_not_somebody_who_answers(
    lab: Lab, kernel: RunningKernel
) -> None:
    give_addresses(lab)

    async def look(facade: Kernel) -> frozenset[Address]:
        asking = asyncio.ensure_future(facade.answering({ip_address(SILENT)}))
        await asyncio.sleep(0)
        lab.host.namespace.ip("address", "add", f"{SILENT}/24", "dev", "nic1")
        return await asking

    assert kernel.run(look) == frozenset()


def test_who_is_not_reached_by_one_of_the_members_that_carry_is_told_with_it(lab: Lab, kernel: RunningKernel) -> None:
    give_addresses(lab)
    lab.host.namespace.batch(["address add 198.18.0.12/24 dev nic1"])
    kernel.configure(kernel_group(existing=Existing.ADOPT))
    kernel.perform(SetOutbound(("nic0", "nic1"), ("nic0", "nic1")))
    kernel.run(lambda k: k.reconcile(GROUP))
    there = {lab.peer(0).ipv4, lab.peer(1).ipv4}
    assert cut_off(kernel, *there) == {}
    lab.switches[1].namespace.run("nft", "-f", "-", text=GUARD)
    assert cut_off(kernel, *there) == dict.fromkeys(there, ("nic1",))
    assert cut_off(kernel, "198.19.0.1") == {}, "who is not on the link is asked by nobody"
    kernel.perform(SetOutbound(("nic1",), ("nic1",)))
    assert cut_off(kernel, *there) == {}, "where one carries the routes say all"


def test_gateways_are_those_of_the_hosts_own_routes_without_the_link_local_ones(
    lab: Lab, kernel: RunningKernel
) -> None:
    give_addresses(lab)
    lab.host.namespace.batch(
        [
            "route add default via 198.18.0.1",
            "route add 198.19.0.0/24 nexthop via 198.18.0.2 nexthop via 198.18.0.3",
            "route add 198.19.1.0/24 via 198.18.0.4 proto 0x49",
            "route add default via 2001:db8:0:1::1 metric 5",
            "route add 2001:db8:0:9::/64 via fe80::1 dev nic0",
        ]
    )
    found = gateways(kernel)
    assert found == {"198.18.0.1", "198.18.0.2", "198.18.0.3", "2001:db8:0:1::1"}


def test_router_with_very_many_gateways_asks_a_few_of_each_family(lab: Lab, kernel: RunningKernel) -> None:
    give_addresses(lab)
    lab.host.namespace.batch(
        [
            "route add default via 198.18.0.1",
            *(f"route add 198.19.{number}.0/24 via 198.18.0.{number}" for number in range(100, 140)),
            "route add default via 2001:db8:0:1::1 metric 5",
        ]
    )
    found = gateways(kernel)
    assert {"198.18.0.1", "2001:db8:0:1::1"} <= found
    assert len(found) == reachability.GATEWAYS_MAXIMUM + 1
