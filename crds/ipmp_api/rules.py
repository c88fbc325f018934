"""Every rule beyond types and bounds, in CEL and in Python side by side, each with the one message both use.

The CEL of a rule assumes no more than its Python: a rule about several values holds where one of them is refused by
a rule of its own, so that a fault is told once.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ipmp_api import cel
from ipmp_api.addresses import (
    is_address,
    is_cidr,
    is_host_address,
    is_network,
    parse_address,
    parse_interface_address,
)
from ipmp_api.schema import Rule

if TYPE_CHECKING:
    from collections.abc import Iterable

PER_NODE_MAX = 4096
"""Addresses that one group may hold on one node."""

MATCHERS = ("name", "pciAddress", "macAddress")


def pattern(expression: str, message: str) -> Rule:
    """Make a rule that a string matches a regular expression, which RE2 and Python read alike."""
    compiled = re.compile(expression, re.ASCII)
    return Rule(
        message,
        f"self.matches({cel.quote(f'^(?:{expression})$')})",
        lambda value: compiled.fullmatch(value) is not None,
    )


# -- names ----------------------------------------------------------------------------------------------------------

_LABEL = "[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_NAME_PART = "[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
LABEL_KEY = f"(?:{_LABEL}(?:\\.{_LABEL})*/)?{_NAME_PART}"

DNS_LABEL = pattern(
    _LABEL, "{value} is not a DNS label: lower-case letters, digits and '-', with a letter or digit at both ends"
)
DNS_NAME = pattern(f"{_LABEL}(?:\\.{_LABEL})*", "{value} is not the name of a node: DNS labels joined by '.'")
LABEL_NAME = pattern(LABEL_KEY, "{value} is not a label key: a name, or a DNS prefix, '/' and a name")
LABEL_VALUE = pattern(f"(?:{_NAME_PART})?", "{value} is not a label value: letters, digits, '-', '_' and '.'")
LABEL_KEYS = Rule(
    "{bad} is not a label key: a name, or a DNS prefix, '/' and a name",
    f"self.all(k, k.matches({cel.quote(f'^(?:{LABEL_KEY})$')}))",
    lambda labels: all(re.fullmatch(LABEL_KEY, key, re.ASCII) for key in labels),
    {
        "bad": (
            f"self.filter(k, !k.matches({cel.quote(f'^(?:{LABEL_KEY})$')}))[0]",
            lambda labels: next(key for key in labels if not re.fullmatch(LABEL_KEY, key, re.ASCII)),
        )
    },
)
SELECTOR_VALUES = Rule(
    "operator {operator} needs {need}",
    "(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
    lambda requirement: (requirement["operator"] in {"In", "NotIn"}) == bool(requirement.get("values")),
    {
        "operator": ("self.operator", lambda requirement: requirement["operator"]),
        "need": (
            "(self.operator in ['In', 'NotIn'] ? 'at least one value in values' : 'no values')",
            lambda r: "at least one value in values" if r["operator"] in {"In", "NotIn"} else "no values",
        ),
    },
)

# -- interfaces -----------------------------------------------------------------------------------------------------

# What the kernel's dev_valid_name() takes, and no more than printable ASCII of it.
INTERFACE_NAME = pattern(
    r"[!-.0-9;-~]*[!-\-0-9;-~][!-.0-9;-~]*|\.{3,}",
    "{value} is no interface name: 1 to 15 printable characters without '/', ':' or space, not '.' or '..'",
)
PCI_ADDRESS = pattern(
    r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[01][0-9A-Fa-f]\.[0-7]",
    "{value} is no PCI address: domain:bus:device.function in hexadecimal, such as 0000:3b:00.1",
)
# The lowest bit of the first octet marks a group address, which no interface has.
MAC_ADDRESS = pattern(
    "[0-9A-Fa-f][02468ACEace](?::[0-9A-Fa-f]{2}){5}",
    "{value} is no MAC address of an interface: six octets in hexadecimal with ':' between, such as "
    "52:54:00:12:34:56, the first one even",
)


def _given(interface: dict[str, Any]) -> list[str]:
    return [name for name in MATCHERS if name in interface]


ONE_MATCHER = Rule(
    "exactly one of name, pciAddress and macAddress says which interface is meant; given:{given}",
    "[has(self.name), has(self.pciAddress), has(self.macAddress)].filter(given, given).size() == 1",
    lambda interface: len(_given(interface)) == 1,
    {
        "given": (
            "("
            + " + ".join(f"(has(self.{name}) ? ' {name} ' + self.{name} : '')" for name in MATCHERS)
            + " + (has(self.name) || has(self.pciAddress) || has(self.macAddress) ? '' : ' none'))",
            lambda interface: "".join(f" {name} {interface[name]}" for name in _given(interface)) or " none",
        )
    },
)


def _keys(interfaces: list[dict[str, Any]]) -> list[str]:
    # Device names differ by case; PCI and MAC addresses do not.
    return [
        i["name"] if "name" in i else (i.get("pciAddress") or i.get("macAddress") or "").lower() for i in interfaces
    ]


def _repeated(values: list[str]) -> list[str]:
    return [value for index, value in enumerate(values) if value in values[:index]]


_CEL_KEY = (
    "(has({0}.name) ? {0}.name : has({0}.pciAddress) ? {0}.pciAddress.lowerAscii() : "
    "has({0}.macAddress) ? {0}.macAddress.lowerAscii() : '')"
)
NO_MATCHER_TWICE = Rule(
    "the same interface is listed twice: {twice}",
    f"self.all(i, self.exists_one(j, {_CEL_KEY.format('i')} == {_CEL_KEY.format('j')}))",
    lambda interfaces: not _repeated(_keys(interfaces)),
    {
        "twice": (
            f"self.map(i, {_CEL_KEY.format('i')}).filter(k, self.filter(j, k == {_CEL_KEY.format('j')}).size() > 1)[0]",
            # The first of the list that comes again, as in CEL.
            lambda interfaces: next(k for k in _keys(interfaces) if _keys(interfaces).count(k) > 1),
        )
    },
)

# -- addresses ------------------------------------------------------------------------------------------------------

NO_HOST = "which no host can own on a network: it is loopback, link-local, multicast, broadcast or unspecified"


def _is_interface_address(value: str) -> bool:
    return is_address(value) or is_cidr(value)


ADDRESS = Rule("{value} is not an IPv4 or IPv6 address", "isIP(self)", is_address)
HOST_ADDRESS = Rule(
    "{value} is an address " + NO_HOST,
    "!isIP(self) || ip(self).isGlobalUnicast()",
    lambda value: not is_address(value) or is_host_address(parse_address(value)),
)
# A probe target is on the link, so it may well be link-local.
TARGET_ADDRESS = Rule(
    "{value} cannot be probed: it is loopback, multicast, broadcast or unspecified",
    "!isIP(self) || ip(self).isGlobalUnicast() || ip(self).isLinkLocalUnicast()",
    lambda value: not is_address(value) or is_host_address(parse_address(value)) or parse_address(value).is_link_local,
)
INTERFACE_ADDRESS = Rule(
    "{value} is not an IPv4 or IPv6 address with or without a prefix length, such as 198.18.0.10/24",
    "isIP(self) || isCIDR(self)",
    _is_interface_address,
)
HOST_INTERFACE_ADDRESS = Rule(
    "{value} is an address " + NO_HOST,
    "isIP(self) ? ip(self).isGlobalUnicast() : !isCIDR(self) || cidr(self).ip().isGlobalUnicast()",
    lambda value: not _is_interface_address(value) or is_host_address(parse_interface_address(value).ip),
)
INTERFACE_PREFIX_LENGTH = Rule(
    "{value} has prefix length 0; leave it out for an address that stands alone",
    "!isCIDR(self) || cidr(self).prefixLength() > 0",
    lambda value: not is_cidr(value) or parse_interface_address(value).network.prefixlen > 0,
)


def _reserved(value: str) -> str:
    """What an address is in its own prefix, where it is none that a host has there: "" for any other."""
    interface = parse_interface_address(value)
    network = interface.network
    if network.prefixlen >= network.max_prefixlen - 1:  # RFC 3021, RFC 6164: both ends are hosts
        return ""
    if interface.ip == network.network_address:
        return "network address" if interface.version == 4 else "subnet-router anycast address"
    return "broadcast address" if interface.version == 4 and interface.ip == network.broadcast_address else ""


UNRESERVED = Rule(
    "{value} is the {what} of its prefix: write an address of a host, or leave out the prefix length of one that "
    "stands alone",
    None,
    lambda value: not is_cidr(value) or not _reserved(value),
    {"what": ("", _reserved)},
)
IPV4_INTERFACE_ADDRESS = Rule(
    "{value} is not an IPv4 address with its prefix length",
    "isCIDR(self) && cidr(self).ip().family() == 4",
    lambda value: is_cidr(value) and parse_interface_address(value).version == 4,
)

NETWORK = Rule(
    "{value} is not a CIDR block: an IPv4 or IPv6 network and its prefix length, with no bit set behind the prefix",
    "isCIDR(self) && cidr(self) == cidr(self).masked()",
    is_network,
)


def _twice_assigned(assigned: list[dict[str, Any]]) -> str | None:
    """The first address that comes twice, of whatever nodes and prefix lengths."""
    seen = set()
    texts: Iterable[str] = (text for entry in assigned for text in entry["addresses"])
    for text in texts:
        host = parse_interface_address(text).ip
        if host in seen:
            return text
        seen.add(host)
    return None


ASSIGNED_ONCE = Rule(
    "{twice} is assigned twice",
    None,
    lambda assigned: _twice_assigned(assigned) is None,
    {"twice": ("", lambda assigned: str(_twice_assigned(assigned)))},
)

# -- whole objects --------------------------------------------------------------------------------------------------


def _at_name(rule: Rule) -> Rule:
    """The rule about a string, asked of the root about metadata.name."""
    assert rule.cel is not None  # noqa: S101 - it is the one for names
    return Rule(
        rule.message, rule.cel.replace("self", "self.metadata.name"), None, {"value": ("self.metadata.name", str)}
    )


GROUP_NAME = (_at_name(DNS_LABEL),)
NODE_GROUP_NAME = Rule(
    "the name must be <groupName>.<nodeName>, here {wanted}",
    "self.metadata.name == self.spec.groupName + '.' + self.spec.nodeName",
    None,
    {"wanted": ("self.spec.groupName + '.' + self.spec.nodeName", str)},
)
IMMUTABLE = Rule("cannot be changed: make another object", "self == oldSelf", None)
