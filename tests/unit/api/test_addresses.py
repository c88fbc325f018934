"""Ranges and what is left of them, against a slow and obvious model."""

from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipmp_api.addresses import addresses_of, is_host_address, parse_range, usable_count
from ipmp_api.types import AddressRange

BASE = int(IPv4Address("198.18.0.0"))
RANGES = st.tuples(st.integers(0, 40), st.integers(0, 12)).map(
    lambda pair: AddressRange(IPv4Address(BASE + pair[0]), IPv4Address(BASE + sum(pair)))
)


def held(ranges: list[AddressRange]) -> list[int]:
    return [n for r in ranges for n in range(int(r.first), int(r.last) + 1)]


@given(RANGES, st.lists(RANGES, max_size=6))
def test_what_exclusions_leave_is_what_they_do_not_hold(block: AddressRange, exclude: list[AddressRange]) -> None:
    left = [n for n in held([block]) if n not in set(held(exclude))]
    assert [int(a) for a in addresses_of([block], exclude)] == left
    assert usable_count([block], exclude) == len(left)


def test_exclusions_are_jumped_over_and_not_walked_through() -> None:
    ranges, exclude = (
        [parse_range("2001:db8::-2001:db8:0:1::")],
        [parse_range("2001:db8::-2001:db8::ffff:ffff:ffff:fffe")],
    )
    assert [str(a) for a in addresses_of(ranges, exclude)] == ["2001:db8::ffff:ffff:ffff:ffff", "2001:db8:0:1::"]


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("198.18.1.0/24", "198.18.1.1", "198.18.1.254"),
        ("198.18.1.0/30", "198.18.1.1", "198.18.1.2"),
        ("198.18.1.0/31", "198.18.1.0", "198.18.1.1"),
        ("198.18.1.7/32", "198.18.1.7", "198.18.1.7"),
        ("2001:db8::/64", "2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"),
        ("2001:db8::/127", "2001:db8::", "2001:db8::1"),
        ("198.18.1.0-198.18.1.255", "198.18.1.0", "198.18.1.255"),
        ("198.18.1.0", "198.18.1.0", "198.18.1.0"),
    ],
)
def test_a_block_stands_for_its_hosts(text: str, first: str, last: str) -> None:
    assert parse_range(text) == AddressRange(ip_address(first), ip_address(last))


@pytest.mark.parametrize(
    "text", ["::", "::1", "0.0.0.0", "127.9.9.9", "169.254.0.1", "fe80::1", "ff02::1", "239.1.1.1"]
)
def test_no_host_owns_a_special_address(text: str) -> None:
    assert not is_host_address(ip_address(text))
