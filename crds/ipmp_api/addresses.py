"""Addresses as manifests write them. Every parser raises ValueError for text that is not what it parses.

What is accepted is what the API server's `ip()` and `cidr()` accept: no zone, no IPv4-mapped IPv6, no netmask, no
leading zeros.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING

from ipmp_api.types import Address, AddressRange, InterfaceAddress, Network

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BITS = {4: 32, 6: 128}
"""Bits of an address, by IP version."""

SEEN = 1 << 15
"""Addresses that are remembered by their text: the rules of a field parse them again, each for itself; and in a cluster
the peers and reports of thousands of nodes name the same ones."""

_PREFIX_LENGTH = re.compile(r"0|[1-9][0-9]{0,2}", re.ASCII)
_LIMITED_BROADCAST = IPv4Address("255.255.255.255")


@lru_cache(maxsize=SEEN)
def parse_address(text: str) -> Address:
    """Parse an IPv4 or IPv6 address."""
    address = ip_address(text)
    if isinstance(address, IPv6Address) and (address.scope_id is not None or address.ipv4_mapped is not None):
        raise ValueError(f"{text!r} has a zone or maps an IPv4 address")
    return address


@lru_cache(maxsize=SEEN)
def parse_interface_address(text: str) -> InterfaceAddress:
    """Parse an address with or without a prefix length; without one it stands alone (/32, /128)."""
    address, slash, length = text.partition("/")
    if slash and not _PREFIX_LENGTH.fullmatch(length):
        raise ValueError(f"{length!r} is not a prefix length")
    return ip_interface(f"{parse_address(address)}{slash}{length}")


def parse_network(text: str) -> Network:
    """Parse a CIDR block; bits set behind the prefix are a mistake."""
    if "/" not in text:
        raise ValueError(f"{text!r} has no prefix length")
    interface = parse_interface_address(text)
    return ip_network(interface.with_prefixlen)


def is_cidr(text: str) -> bool:
    """Whether text is an address with a prefix length."""
    return "/" in text and _parses(parse_interface_address, text)


def is_network(text: str) -> bool:
    """Whether text is a CIDR block with no bit set behind the prefix."""
    return _parses(parse_network, text)


def is_address(text: str) -> bool:
    """Whether text is an address."""
    return _parses(parse_address, text)


def parse_block(text: str) -> AddressRange:
    """Parse an address, a whole CIDR block, or `first-last`, in the order and family written."""
    first, dash, last = text.partition("-")
    if dash:
        return AddressRange(parse_address(first), parse_address(last))
    if "/" in text:
        network = parse_network(text)
        return AddressRange(network.network_address, network.broadcast_address)
    return AddressRange(parse_address(text), parse_address(text))


def parse_range(text: str) -> AddressRange:
    """Parse what a pool may give away: like `parse_block`, but of a CIDR block only its hosts.

    As `ipaddress` has it: not the network and broadcast address of an IPv4 block shorter than /31, not the
    subnet-router anycast address (RFC 4291 2.6.1) of an IPv6 block shorter than /127.
    """
    block = parse_block(text)
    if "/" not in text or block.size <= 2:
        return block
    last = block.last if block.last.version == 6 else block.last - 1
    return AddressRange(block.first + 1, last)


def is_host_address(address: Address) -> bool:
    """Whether a host may own the address on a network: no loopback, link-local, multicast, unspecified, broadcast."""
    return not (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address == _LIMITED_BROADCAST
    )


NO_HOSTS = tuple(
    parse_block(block)
    for block in (
        "0.0.0.0",  # noqa: S104 - not an address to bind, but one to refuse
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/4",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::/10",
        "ff00::/8",
    )
)


def holds_hosts_only(block: AddressRange) -> bool:
    """Whether a host may own every address of the range."""
    return not any(overlap(block, special) for special in NO_HOSTS)


def overlap(one: AddressRange, other: AddressRange) -> bool:
    """Whether two ranges share an address."""
    if one.first.version != other.first.version:
        return False
    return int(one.first) <= int(other.last) and int(other.first) <= int(one.last)


def gaps(block: AddressRange, exclude: Sequence[AddressRange]) -> Iterator[AddressRange]:
    """What is left of a range when others are taken out, in order."""
    start, end = int(block.first), int(block.last)
    kind = type(block.first)
    for taken in sorted((e for e in exclude if overlap(block, e)), key=lambda e: int(e.first)):
        if start < int(taken.first):
            yield AddressRange(kind(start), kind(int(taken.first) - 1))
        start = max(start, int(taken.last) + 1)
    if start <= end:
        yield AddressRange(kind(start), kind(end))


def usable_count(ranges: Sequence[AddressRange], exclude: Sequence[AddressRange]) -> int:
    """How many addresses the ranges hold beside those excluded; the ranges do not overlap."""
    return sum(gap.size for block in ranges for gap in gaps(block, exclude))


def addresses_of(ranges: Sequence[AddressRange], exclude: Sequence[AddressRange]) -> Iterator[Address]:
    """The usable addresses in the order of the ranges, without walking through what is excluded."""
    for block in ranges:
        for gap in gaps(block, exclude):
            kind = type(gap.first)
            for number in range(int(gap.first), int(gap.last) + 1):
                yield kind(number)


def _parses(parser: object, text: str) -> bool:
    try:
        parser(text)  # type: ignore[operator]
    except ValueError:
        return False
    return True
