"""The rules of ranges and pools: in Python, and beside it in CEL as far as an API server can afford it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipmp_api import cel
from ipmp_api.addresses import (
    BITS,
    holds_hosts_only,
    is_address,
    is_cidr,
    is_host_address,
    overlap,
    parse_address,
    parse_block,
    parse_interface_address,
    parse_range,
    usable_count,
)
from ipmp_api.rules import NO_HOST, PER_NODE_MAX
from ipmp_api.schema import Rule

if TYPE_CHECKING:
    from ipmp_api.types import Address, AddressRange

RANGES_MAX = 8
EXCLUDE_MAX = 32

# -- one range ------------------------------------------------------------------------------------------------------


def _is_pair(value: str) -> bool:
    return all(map(is_address, value.split("-"))) and value.count("-") == 1


def _block(value: str) -> str:
    return str(parse_interface_address(value).network)


def _is_shaped(value: str) -> bool:
    """Whether `parse_block` can parse a string, be it of two families or in the wrong order."""
    return is_address(value) or _is_pair(value) or (is_cidr(value) and _has_no_host_bits(value))


def _has_no_host_bits(cidr: str) -> bool:
    interface = parse_interface_address(cidr)
    return interface.ip == interface.network.network_address


def _ends(value: str) -> tuple[Address, ...]:
    """The addresses that a string which is shaped names."""
    if is_cidr(value):
        return (parse_interface_address(value).ip,)
    return tuple(map(parse_address, value.split("-")))


def _is_of_one_family(pair: str) -> bool:
    block = parse_block(pair)
    return block.first.version == block.last.version


def _is_range(value: str) -> bool:
    """Whether a string is a range with which nothing is wrong."""
    return _is_shaped(value) and _is_of_one_family(value) and parse_block(value).size > 0


RANGE = Rule(
    "{value} is not an address, a CIDR block or first-last",
    f"isIP(self) || isCIDR(self) || {cel.is_pair('self')}",
    lambda value: is_address(value) or is_cidr(value) or _is_pair(value),
)
RANGE_HOST_BITS = Rule(
    "{value} has bits set behind its prefix; the block is {block}",
    "!isCIDR(self) || cidr(self) == cidr(self).masked()",
    lambda value: not is_cidr(value) or _has_no_host_bits(value),
    {"block": (cel.text("cidr(self).masked()"), _block)},
)
RANGE_FAMILY = Rule(
    "{value} mixes IPv4 and IPv6",
    f"!{cel.is_pair('self')} || ip(self.split('-')[0]).family() == ip(self.split('-')[1]).family()",
    lambda value: not _is_pair(value) or _is_of_one_family(value),
)
_NUMBERS = "self.split('-', 2).map(end, " + cel.let("o", "end.split('.', 4).map(octet, int(octet))", cel.IPV4) + ")"
_ORDER = "{value} ends before it begins"
RANGE_ORDER = Rule(
    _ORDER,
    f"!{cel.is_pair('self')} || self.contains(':') || {cel.let('ends', _NUMBERS, 'ends[0] <= ends[1]')}",
    lambda value: ":" in value or not _is_pair(value) or parse_block(value).size > 0,
)
RANGE_ORDER_IPV6 = Rule(
    _ORDER,
    None,
    lambda value: (
        ":" not in value or not _is_pair(value) or not _is_of_one_family(value) or parse_block(value).size > 0
    ),
)
_HOSTS = "{value} holds addresses " + NO_HOST.replace("it is", "they are")
_ENDS = "self.split('-', 3).all(end, isIP(end) ? ip(end).isGlobalUnicast() : "
RANGE_HOSTS = Rule(
    _HOSTS,
    f"{_ENDS}!isCIDR(end) || cidr(end).ip().isGlobalUnicast())",
    lambda value: not _is_shaped(value) or all(map(is_host_address, _ends(value))),
)
RANGE_HOSTS_WITHIN = Rule(
    _HOSTS,
    None,
    lambda value: (
        not _is_range(value) or not all(map(is_host_address, _ends(value))) or holds_hosts_only(parse_block(value))
    ),
)
RANGE_IPV4 = Rule(
    "{value} is not IPv4; the IPv6 test addresses are the link-local ones",
    f"!{cel.is_shaped('self')} || !self.contains(':')",
    lambda value: not _is_shaped(value) or ":" not in value,
)

# -- one pool -------------------------------------------------------------------------------------------------------


def _families(pool: dict[str, Any]) -> set[int]:
    return {block.first.version for block in _blocks(pool["ranges"])}


def _blocks(texts: list[str]) -> list[AddressRange]:
    return [parse_block(text) for text in texts]


def _overlapping(texts: list[str]) -> list[str]:
    blocks = _blocks(texts)
    return [
        text for index, text in enumerate(texts) if any(overlap(blocks[index], earlier) for earlier in blocks[:index])
    ]


# The arithmetic of ranges cost the API server ten times the CPU of all other rules together, at each write of the
# definition: the operator says it in the condition Accepted, and `ipmp-agent check` says it in the same words.


def _apart(name: str, words: str) -> Rule:
    return Rule(
        words,
        None,
        lambda pool: not _overlapping(pool.get(name, [])),
        {"overlapping": ("", lambda pool: _overlapping(pool[name])[0])},
        at=name,
    )


RANGES_APART = _apart("ranges", "{overlapping} holds addresses of a range before it: the ranges must not overlap")
EXCLUDE_APART = _apart("exclude", "{overlapping} holds addresses excluded before: the exclusions must not overlap")
ONE_FAMILY = Rule(
    "a pool is of one family, and this one mixes IPv4 and IPv6: write two pools",
    "self.ranges.all(r, r.contains(':') == self.ranges[0].contains(':'))",
    lambda pool: len(_families(pool)) == 1,
    at="ranges",
)
PREFIX_LENGTH = Rule(
    "prefix length {length} is more than the 32 bits of an IPv4 address",
    "!has(self.prefixLength) || self.prefixLength <= 32 || self.ranges.exists(r, r.contains(':'))",
    lambda pool: pool.get("prefixLength", 0) <= max(BITS[family] for family in _families(pool)),
    {"length": (cel.text("self.prefixLength"), lambda pool: str(pool["prefixLength"]))},
    at="prefixLength",
)


def _overlaps_itself(pool: dict[str, Any]) -> bool:
    return bool(_overlapping(pool["ranges"]) or _overlapping(pool.get("exclude", [])))


def available(pool: dict[str, Any]) -> int:
    """How many addresses a pool gives away; its ranges are valid and do not overlap."""
    return usable_count([parse_range(text) for text in pool["ranges"]], _blocks(pool.get("exclude", [])))


POOL_SIZE = Rule(
    "the pool has {available} addresses after exclude, and one node needs {wanted}",
    None,
    lambda pool: _overlaps_itself(pool) or available(pool) >= pool["perNode"],
    {
        "available": ("", lambda pool: str(available(pool))),
        "wanted": ("", lambda pool: str(pool["perNode"])),
    },
    at="perNode",
)
PER_NODE_TOTAL = Rule(
    f"the pools give {{total}} addresses to one node; at most {PER_NODE_MAX} are possible",
    f"self.map(p, p.perNode).sum() <= {PER_NODE_MAX}",
    lambda pools: sum(pool["perNode"] for pool in pools) <= PER_NODE_MAX,
    {"total": (cel.text("self.map(p, p.perNode).sum()"), lambda pools: str(sum(pool["perNode"] for pool in pools)))},
)

# -- the test pool against the interfaces ---------------------------------------------------------------------------


def _test_pool(spec: dict[str, Any]) -> dict[str, Any]:
    pool: dict[str, Any] = spec["testAddresses"]["ipv4"]["pool"]
    return pool


TEST_POOL_SIZE = Rule(
    "the pool has {available} addresses after exclude, and one node needs {wanted}: one for each interface",
    None,
    lambda spec: (
        "ipv4" not in spec["testAddresses"]
        or _overlaps_itself(_test_pool(spec))
        or available(_test_pool(spec)) >= len(spec["interfaces"])
    ),
    {
        "available": ("", lambda spec: str(available(_test_pool(spec)))),
        "wanted": ("", lambda spec: str(len(spec["interfaces"]))),
    },
    at="testAddresses.ipv4.pool",
)
