"""Addresses that the host brought: where they stay, where they go, and where they return to."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_interface

import pytest

from ipmp_agent.core import events
from ipmp_agent.core.reasons import Reason
from ipmp_agent.disk.recording import Handled, decode_entry, encode_entry
from ipmp_api.types import DataAddress, Existing, Mode, Origin, ProbeMethod
from tests.virtual_node import VirtualNode, numbered_group

HOST = tuple(ip_interface(f"198.18.7.{n}/24") for n in (1, 2, 3))


def node(active: int = 2, standby: int = 0, *, homes: tuple[str, ...] = ("nic0",) * 3, **fields: object) -> VirtualNode:
    """A node whose host has addresses of its own, each on its home, and whose group has none."""
    wanted = {"pins": (), "probe_method": ProbeMethod.DISABLED, "addresses": 0} | fields
    made = VirtualNode(numbered_group(active, standby, **wanted))  # type: ignore[arg-type]
    for member in made.configuration.members:
        for event in made.appearance(member.key):
            made.handle(event)
    for address, home in zip(HOST, homes, strict=False):
        made.kernel[address] = {home}
        made.handle(events.AddressAdopted(address, home, home))
    made.handle(events.KernelRead())
    return made


def homes(made: VirtualNode) -> list[str | None]:
    held = {each.address: each.interface for each in made.snapshot().addresses}
    return [held.get(address) for address in HOST]


def changed(made: VirtualNode, **policies: object) -> None:
    policy = dataclasses.replace(made.configuration.policies, **policies)  # type: ignore[arg-type]
    made.configure(dataclasses.replace(made.configuration, policies=policy))


def test_nothing_moves_at_adoption_and_no_claim_lends_them() -> None:
    made = node(3)
    assert homes(made) == ["nic0"] * 3
    made.link("nic2", up=False)
    made.link("nic2", up=True)
    assert made.moves == []
    assert {each.origin for each in made.snapshot().addresses} == {Origin.ADOPTED}


def test_they_leave_a_home_that_fails_and_return_there_in_their_order() -> None:
    made = node()
    made.link("nic0", up=False)
    assert homes(made) == ["nic1"] * 3
    made.link("nic0", up=True)
    assert homes(made) == ["nic0"] * 3
    assert [move.address for _, move in made.moves] == [*HOST, *HOST]
    assert [move.reason for _, move in made.moves[3:]] == [Reason.FAILBACK] * 3


def test_each_returns_to_its_own_home() -> None:
    made = node(3, homes=("nic0", "nic1", "nic0"))
    made.link("nic0", up=False)
    made.link("nic1", up=False)
    assert homes(made) == ["nic2"] * 3
    made.link("nic1", up=True)
    assert homes(made) == ["nic2", "nic1", "nic2"]
    made.link("nic0", up=True)
    assert homes(made) == ["nic0", "nic1", "nic0"]


def test_without_failback_they_stay_where_they_went() -> None:
    made = node(1, 1, failback=False)
    made.link("nic0", up=False)
    made.link("nic0", up=True)
    assert homes(made) == ["nic1"] * 3


def test_with_a_standby_they_return_home() -> None:
    made = node(1, 1)
    made.link("nic0", up=False)
    assert homes(made) == ["nic1"] * 3
    made.link("nic0", up=True)
    assert homes(made) == ["nic0"] * 3


def test_on_a_standby_that_works_they_stay() -> None:
    made = node(1, 1, homes=("nic1",))
    assert homes(made)[0] == "nic1"
    made.link("nic1", up=False)
    assert homes(made)[0] == "nic0"


def test_others_are_shared_around_them() -> None:
    made = node(2, addresses=4)
    held = [each.interface for each in made.snapshot().addresses if each.origin is not Origin.ADOPTED]
    assert held.count("nic1") > held.count("nic0"), "the member with adopted ones gets fewer others"
    made.link("nic1", up=False)
    made.link("nic1", up=True)
    assert homes(made) == ["nic0"] * 3
    held = [each.interface for each in made.snapshot().addresses if each.origin is not Origin.ADOPTED]
    assert held.count("nic1") == 3


def test_ignoring_gives_all_back() -> None:
    made = node()
    made.link("nic0", up=False)
    made.moves.clear()
    changed(made, existing=Existing.IGNORE)
    assert [(move.source, move.destination, move.reason) for _, move in made.moves] == [
        ("nic1", None, Reason.ADDRESS_REMOVED)
    ] * 3
    assert made.snapshot().addresses == ()
    made.handle(events.AddressAdopted(HOST[0], "nic0", "nic0"))
    assert made.snapshot().addresses == (), "told too late"


def test_a_home_that_leaves_the_group_takes_its_addresses_along() -> None:
    made = node(3)
    made.configure(dataclasses.replace(made.configuration, members=made.configuration.members[1:]))
    assert made.snapshot().addresses == ()


def test_a_released_address_is_nobodys() -> None:
    made = node()
    made.handle(events.AddressReleased(HOST[1]))
    assert homes(made) == ["nic0", None, "nic0"]
    assert made.moves == []


@pytest.mark.parametrize("prefix_length", [24, 32])
def test_one_that_the_configuration_names_stays_where_it_is(prefix_length: int) -> None:
    made = node()
    named = ip_interface(f"{HOST[0].ip}/{prefix_length}")
    made.configure(dataclasses.replace(made.configuration, data_addresses=(DataAddress(named),)))
    found = {each.address: (each.interface, each.origin) for each in made.snapshot().addresses}
    assert found[named] == ("nic0", Origin.ASSIGNED)
    assert len(found) == 3
    assert made.moves == []


def test_where_it_is_after_a_restart_counts_and_not_where_it_was() -> None:
    made = node(homes=())
    made.handle(events.AddressAdopted(HOST[0], "nic0", "nic1"))
    made.handle(events.AddressAdopted(HOST[1], "nic0", None))
    assert homes(made)[:2] == ["nic1", "nic0"]


def test_observing_adopts_and_moves_nothing() -> None:
    made = node(mode=Mode.OBSERVE)
    made.link("nic0", up=False)
    assert homes(made) == ["nic0"] * 3
    assert made.moves == []


@pytest.mark.parametrize(
    "event",
    [events.AddressAdopted(HOST[0], "nic0", None), events.AddressReleased(HOST[0])],
    ids=lambda e: type(e).__name__,
)
def test_a_recording_holds_it(event: events.Event) -> None:
    entry = Handled("lab", 1.5, event)
    assert decode_entry(encode_entry(entry)) == entry
