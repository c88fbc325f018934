"""Pieces of CEL, the expression language of the API server's validation rules.

CEL has no big numbers, no hexadecimal and no name for a part of an expression, and its estimate of an expression's cost
is without bound for `join` and for the size of a string that was computed. So an address is a list of three integers
here, and `[x].map(name, ...)[0]`, written by `let`, gives x a name (and its size a bound).

An address is [bits 0-47, bits 48-95, bits 96-127]; an IPv4 address is [-1, 0, its value].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

HEXADECIMAL = "'0123456789abcdef'"
_POWERS = "[" + ", ".join(str(2**n) for n in range(49)) + "]"


def quote(text: str) -> str:
    """Write text as a CEL string."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def let(name: str, value: str, body: str) -> str:
    """Name a value in an expression of any type."""
    return f"[{value}].map({name}, {body})[0]"


def text(value: str) -> str:
    """Write a number, address or block in a message."""
    return let("shown", f"string({value})", "shown")


def is_shaped(value: str) -> str:
    """Whether `bounds` can parse a string: an address, a block without host bits, or two addresses joined by '-'."""
    return f"(isIP({value}) || (isCIDR({value}) && cidr({value}) == cidr({value}).masked()) || {is_pair(value)})"


def is_pair(value: str) -> str:
    """Whether a string is two addresses joined by '-'."""
    # A third part is enough to see that there are too many.
    return f"({value}.split('-', 3).size() == 2 && {value}.split('-', 3).all(part, isIP(part)))"


def address(value: str) -> str:
    """Parse an address."""
    ipv4 = let("octets", "written.split('.', 4).map(o, int(o))", f"[-1, 0, {_join('octets', 0, 4, 256)}]")
    group = let(
        "digits",
        "('000' + word).substring(word.size() - 1)",
        " + ".join(f"{HEXADECIMAL}.indexOf(digits.substring({n}, {n + 1})) * {16 ** (3 - n)}" for n in range(4)),
    )
    words = f"half.split(':', 8).filter(word, word != '').map(word, {group})"
    left, right = (let("half", f"halves[{n}]", words) for n in (0, 1))
    halves = f"[{left}, halves.size() > 1 ? {right} : []]"
    at = "n < sides[0].size() ? sides[0][n] : n + sides[1].size() < 8 ? 0 : sides[1][n + sides[1].size() - 8]"
    parts = ", ".join(_join("words", first, last, 65536) for first, last in ((0, 3), (3, 6), (6, 8)))
    ipv6 = let("halves", "written.split('::', 2)", halves)
    ipv6 = let("words", let("sides", ipv6, f"[0, 1, 2, 3, 4, 5, 6, 7].map(n, {at})"), f"[{parts}]")
    return let("written", let("address", value, "string(ip(address))"), f"ip(written).family() == 4 ? {ipv4} : {ipv6}")


def _join(words: str, first: int, last: int, base: int) -> str:
    return " + ".join(f"{words}[{n}] * {base ** (last - 1 - n)}" for n in range(first, last))


def constant(known: IPv4Address | IPv6Address) -> str:
    """Write an address known now."""
    value = int(known)
    parts = (-1, 0, value) if known.version == 4 else (value >> 80, (value >> 32) % 2**48, value % 2**32)
    return f"[{', '.join(map(str, parts))}]"


def bounds(value: str, *, hosts: bool) -> str:
    """Parse a range that is shaped into [first, last]; with `hosts`, a block into the first and last of its hosts."""
    # Of the hosts of a block with more than two addresses, the first is one more, IPv4's last one less.
    up = " + (bits < 127 ? 1 : 0)" if hosts else ""
    down = " - (bits < 127 && last[0] == -1 ? 1 : 0)" if hosts else ""
    block = (
        f"[[first[0], first[1], first[2]{up}], ["
        "last[0] + powers[bits < 48 ? 48 - bits : 0] - 1, "
        "last[1] + powers[bits < 48 ? 48 : bits < 96 ? 96 - bits : 0] - 1, "
        f"last[2] + powers[bits < 96 ? 32 : 128 - bits] - 1{down}]]"
    )
    ends = f"[parts[0], parts[parts.size() - 1]].map(end, {address('end')})"
    ends = let("net", f"{value}.split('/', 2)[0]", let("parts", "net.split('-', 2)", ends))
    length = f"{value}.contains('/') ? cidr({value}).prefixLength() + (cidr({value}).ip().family() == 4 ? 96 : 0) : 128"
    block = let("powers", _POWERS, let("first", "ends[0]", let("last", "ends[1]", block)))
    return let("bits", length, let("ends", ends, block))


def is_range(known: str) -> str:
    """Whether bounds are in order and of one family."""
    return f"(({known}[0][0] == -1) == ({known}[1][0] == -1) && {distance(f'{known}[0]', f'{known}[1]')} >= 0)"


def overlap(one: str, other: str) -> str:
    """Whether two ranges, given as bounds, share an address."""
    return f"({distance(f'{one}[0]', f'{other}[1]')} >= 0 && {distance(f'{other}[0]', f'{one}[1]')} >= 0)"


def distance(start: str, end: str) -> str:
    """By how much one address comes after another: exact to some millions, right in sign beyond."""
    cap = "(far > 2 ? 2 : far < -2 ? -2 : far)"
    return (
        f"[{end}[0] - {start}[0]].map(far, {cap} * {2**48} + {end}[1] - {start}[1])"
        f".map(far, {cap} * {2**32} + {end}[2] - {start}[2])[0]"
    )


def overlapping(most: int) -> str:
    """List the indices of those of the bounds `known` that share an address with some before them."""
    indices = "[" + ", ".join(map(str, range(most))) + "]"
    return f"{indices}.filter(i, i < known.size() && {indices}.exists(j, j < i && {overlap('known[i]', 'known[j]')}))"


def available() -> str:
    """Count the addresses of the bounds `given` beside those `taken`; neither overlap among themselves.

    What is left of a range is a gap at its start and one behind each exclusion that ends in it.
    """
    first_gap = (
        f"taken.exists(e, {distance('e[0]', 'r[0]')} >= 0 && {distance('r[0]', 'e[1]')} >= 0) ? 0 : "
        f"([{distance('r[0]', 'r[1]')} + 1] + taken.map(e, {distance('r[0]', 'e[0]')}).filter(d, d > 0)).min()"
    )
    next_gap = f"([{distance('s[1]', 'r[1]')}] + taken.map(e, {distance('s[1]', 'e[0]')} - 1).filter(d, d >= 0)).min()"
    ends_in = f"{distance('r[0]', 's[1]')} >= 0 && {distance('s[1]', 'r[1]')} >= 0"
    return f"given.map(r, ({first_gap}) + taken.filter(s, {ends_in}).map(s, {next_gap}).sum()).sum()"
