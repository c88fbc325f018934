"""Pieces of CEL, the expression language of the API server's validation rules.

CEL has no name for a part of an expression, and its estimate of an expression's cost is without bound for `join` and
for the size of a string that was computed. So `[x].map(name, ...)[0]`, written by `let`, gives x a name (and its size a
bound). What needs numbers larger than 64 bits is left to Python: written in CEL it can be done, and costs the API
server seconds of CPU whenever the definition is written or first used.
"""

from __future__ import annotations

IPV4 = "o[0] * 16777216 + o[1] * 65536 + o[2] * 256 + o[3]"
"""The value of an IPv4 address whose octets are `o`."""


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
    """Whether a string is an address, a block without host bits, or two addresses joined by '-'."""
    return f"(isIP({value}) || (isCIDR({value}) && cidr({value}) == cidr({value}).masked()) || {is_pair(value)})"


def is_pair(value: str) -> str:
    """Whether a string is two addresses joined by '-'."""
    # A third part is enough to see that there are too many.
    return f"({value}.split('-', 3).size() == 2 && {value}.split('-', 3).all(part, isIP(part)))"
