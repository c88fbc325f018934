"""Given up or swept away: what the deletions of others on one member say, in virtual time."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from ipmp_agent.linux.group.departures import LONGEST, QUIET, Departures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipmp_api.types import Address

OWN, VIP, OTHER_VIP, OURS = (ip_address(f"198.18.0.{last}") for last in (10, 50, 51, 99))
V6, LINK_LOCAL = ip_address("2001:db8::10"), ip_address("fe80::10")


def deleted(departures: Departures, *gone: Address, stood: set[Address], at: float = 0.0, apart: float = 0.001) -> None:
    for position, address in enumerate(gone):
        departures.deleted(
            "nic0",
            address,
            stood,
            at + position * apart,
            ours=address in (OURS, LINK_LOCAL),
            adopted=address not in (OURS, LINK_LOCAL),
        )


def test_a_single_deletion_is_the_owners_word_when_nothing_follows() -> None:
    departures = Departures()
    deleted(departures, VIP, stood={OWN, VIP})
    assert departures.waiting == {VIP}
    assert departures.judge(QUIET / 2) == []
    (verdict,) = departures.judge(QUIET)
    assert (verdict.member, verdict.addresses, verdict.swept) == ("nic0", frozenset({VIP}), False)
    assert departures.due is None
    assert departures.waiting == set()


def test_the_only_address_of_its_version_may_be_given_up_too() -> None:
    departures = Departures()
    deleted(departures, OWN, stood={OWN, V6})
    (verdict,) = departures.judge(QUIET)
    assert not verdict.swept


def test_two_vips_that_leave_together_are_given_up() -> None:
    departures = Departures()
    deleted(departures, VIP, OTHER_VIP, stood={OWN, VIP, OTHER_VIP})
    (verdict,) = departures.judge(1.0)
    assert (verdict.addresses, verdict.swept) == (frozenset({VIP, OTHER_VIP}), False)


@pytest.mark.parametrize(
    "gone",
    [(OWN, VIP), (OURS, OWN), (OWN, OURS), (OWN, LINK_LOCAL)],
    ids=["all of a version", "ours first", "ours last", "the kernel's own"],
)
def test_a_sweep_is_known_before_it_is_over(gone: tuple[Address, ...]) -> None:
    departures = Departures()
    stood = {OWN, VIP} if VIP in gone else {OWN, VIP, OURS}
    deleted(departures, *gone, stood=stood)
    (verdict,) = departures.judge(0.001)
    assert verdict.swept
    assert verdict.addresses == {each for each in gone if each not in (OURS, LINK_LOCAL)}


def test_many_single_host_addresses_that_leave_together_are_given_up_though_nothing_else_is_there() -> None:
    departures = Departures()
    for position, address in enumerate((VIP, OTHER_VIP)):
        departures.deleted("nic1", address, {VIP, OTHER_VIP}, position * 0.001, ours=False, adopted=True, single=True)
    (verdict,) = departures.judge(1.0)
    assert (verdict.addresses, verdict.swept) == (frozenset({VIP, OTHER_VIP}), False)


def test_single_host_addresses_that_leave_with_the_network_they_are_on_were_swept() -> None:
    departures = Departures()
    for position, (address, single) in enumerate(((VIP, True), (OWN, False))):
        departures.deleted("nic0", address, {VIP, OWN}, position * 0.001, ours=False, adopted=True, single=single)
    assert departures.judge(0.002)[0].swept


def test_all_of_one_version_says_nothing_of_a_single_one_of_the_other_unless_it_went_too() -> None:
    departures = Departures()
    deleted(departures, OWN, VIP, stood={OWN, VIP, V6})
    (verdict,) = departures.judge(0.0)
    assert verdict.swept
    assert V6 not in verdict.addresses


def test_what_is_put_back_meanwhile_does_not_hide_a_sweep() -> None:
    departures = Departures()
    deleted(departures, OWN, stood={OWN, VIP})
    departures.deleted("nic0", VIP, {OWN, VIP}, 0.002, ours=False, adopted=True)
    assert departures.judge(0.002)[0].swept


def test_what_comes_back_by_itself_is_not_judged() -> None:
    departures = Departures()
    deleted(departures, VIP, stood={OWN, VIP})
    departures.returned(VIP)
    assert departures.judge(QUIET) == []
    assert departures.due is None


def test_deletions_without_end_are_judged_all_the_same() -> None:
    departures = Departures()
    deleted(departures, VIP, stood={OWN, VIP})
    other, now = ip_address("198.18.7.7"), 0.0
    while now + QUIET / 2 < LONGEST:
        now += QUIET / 2
        departures.deleted("nic0", other, {other}, now, ours=False, adopted=False)
        assert departures.judge(now) == [] or now >= LONGEST
    assert [v.swept for v in departures.judge(LONGEST)] == [False]


def test_deletions_a_while_apart_are_two_deeds() -> None:
    departures = Departures()
    deleted(departures, OWN, stood={OWN, VIP})
    assert not departures.judge(QUIET)[0].swept
    deleted(departures, VIP, stood={VIP}, at=1.0)
    assert not departures.judge(1.0 + QUIET)[0].swept


def test_what_stood_is_looked_through_once_for_many_that_go_together() -> None:
    """Thousands of addresses go with one link: their number is not squared."""
    departures = Departures()
    looked: list[Address] = []
    everything = [ip_address(f"198.18.{n // 250}.{n % 250}") for n in range(1000)]

    def stood() -> Iterator[Address]:
        for each in everything:
            looked.append(each)
            yield each

    for position, address in enumerate(everything):
        departures.deleted("nic0", address, stood(), position * 0.00001, ours=False, adopted=False)
    assert looked == everything
