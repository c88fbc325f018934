"""The rules of ranges and pools, in CEL and in Python side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipmp_api import cel
from ipmp_api.addresses import (
    BITS,
    NO_HOSTS,
    holds_hosts_only,
    is_address,
    is_cidr,
    overlap,
    parse_block,
    parse_interface_address,
    parse_range,
    usable_count,
)
from ipmp_api.rules import NO_HOST, PER_NODE_MAX
from ipmp_api.schema import Rule

if TYPE_CHECKING:
    from ipmp_api.types import AddressRange

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
RANGE_ORDER = Rule(
    "{value} ends before it begins",
    f"!{cel.is_pair('self')} || "
    + cel.let(
        "known",
        cel.bounds("self", hosts=False),
        f"(known[0][0] == -1) != (known[1][0] == -1) || {cel.distance('known[0]', 'known[1]')} >= 0",
    ),
    lambda value: not _is_pair(value) or not _is_of_one_family(value) or parse_block(value).size > 0,
)
_NO_HOSTS = ", ".join(f"[{cel.constant(block.first)}, {cel.constant(block.last)}]" for block in NO_HOSTS)
RANGE_HOSTS = Rule(
    "{value} holds addresses " + NO_HOST.replace("it is", "they are"),
    f"!{cel.is_shaped('self')} || "
    + cel.let(
        "known",
        cel.bounds("self", hosts=False),
        f"!{cel.is_range('known')} || ![{_NO_HOSTS}].exists(no, {cel.overlap('no', 'known')})",
    ),
    lambda value: not _is_range(value) or holds_hosts_only(parse_block(value)),
)
RANGE_IPV4 = Rule(
    "{value} is not IPv4; the IPv6 test addresses are the link-local ones",
    f"!{cel.is_shaped('self')} || !self.contains(':')",
    lambda value: not _is_shaped(value) or ":" not in value,
)

# -- one pool -------------------------------------------------------------------------------------------------------


def _known(pool: str, body: str, otherwise: str, *, hosts: bool = False) -> str:
    """Evaluate an expression with the bounds of a pool's ranges `given` and of its exclusions `taken`.

    Where one of them is refused by a rule of its own, the value is that of `otherwise`.
    """
    ranges, exclude = f"{pool}.ranges", f"{pool}.exclude"
    shaped = f"{ranges}.all(x, {cel.is_shaped('x')}) && (!has({exclude}) || {exclude}.all(x, {cel.is_shaped('x')}))"
    given = f"{ranges}.map(x, {cel.bounds('x', hosts=hosts)})"
    taken = f"has({exclude}) ? {exclude}.map(x, {cel.bounds('x', hosts=False)}) : []"
    valid = f"given.all(g, {cel.is_range('g')}) && taken.all(g, {cel.is_range('g')})"
    known = cel.let("given", given, cel.let("taken", taken, f"{valid} ? {body} : {otherwise}"))
    return f"({shaped} ? {known} : {otherwise})"


def _families(pool: dict[str, Any]) -> set[int]:
    return {block.first.version for block in _blocks(pool["ranges"])}


def _blocks(texts: list[str]) -> list[AddressRange]:
    return [parse_block(text) for text in texts]


def _overlapping(texts: list[str]) -> list[str]:
    blocks = _blocks(texts)
    return [
        text for index, text in enumerate(texts) if any(overlap(blocks[index], earlier) for earlier in blocks[:index])
    ]


def _apart(name: str, words: str, bounds: str, most: int) -> Rule:
    found = cel.let("known", bounds, cel.overlapping(most))
    first = f"{cel.let('found', found, 'found.size() > 0 ? found[0] : 0')}"
    return Rule(
        words,
        _known("self", f"{found}.size() == 0", "true"),
        lambda pool: not _overlapping(pool.get(name, [])),
        {"overlapping": (f"self.{name}[{_known('self', first, '0')}]", lambda pool: _overlapping(pool[name])[0])},
        at=name,
    )


RANGES_APART = _apart(
    "ranges", "{overlapping} holds addresses of a range before it: the ranges must not overlap", "given", RANGES_MAX
)
EXCLUDE_APART = _apart(
    "exclude", "{overlapping} holds addresses excluded before: the exclusions must not overlap", "taken", EXCLUDE_MAX
)
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


def _available(pool: str, otherwise: str) -> str:
    return _known(pool, cel.available(), otherwise, hosts=True)


POOL_SIZE = Rule(
    "the pool has {available} addresses after exclude, and one node needs {wanted}",
    f"{_available('self', 'self.perNode')} >= self.perNode",
    lambda pool: _overlaps_itself(pool) or available(pool) >= pool["perNode"],
    {
        "available": (cel.text(_available("self", "0")), lambda pool: str(available(pool))),
        "wanted": (cel.text("self.perNode"), lambda pool: str(pool["perNode"])),
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

_TEST_POOL = "self.testAddresses.ipv4.pool"


def _test_pool(spec: dict[str, Any]) -> dict[str, Any]:
    pool: dict[str, Any] = spec["testAddresses"]["ipv4"]["pool"]
    return pool


TEST_POOL_SIZE = Rule(
    "the pool has {available} addresses after exclude, and one node needs {wanted}: one for each interface",
    f"!has(self.testAddresses.ipv4) || {_available(_TEST_POOL, '16')} >= self.interfaces.size()",
    lambda spec: (
        "ipv4" not in spec["testAddresses"]
        or _overlaps_itself(_test_pool(spec))
        or available(_test_pool(spec)) >= len(spec["interfaces"])
    ),
    {
        "available": (cel.text(_available(_TEST_POOL, "0")), lambda spec: str(available(_test_pool(spec)))),
        "wanted": (cel.text("self.interfaces.size()"), lambda spec: str(len(spec["interfaces"]))),
    },
    at="testAddresses.ipv4.pool",
)
