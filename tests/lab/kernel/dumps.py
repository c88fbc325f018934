"""What a host has, as text to compare."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.lab import Lab


def dump(lab: Lab) -> dict[str, str]:
    """Everything of the host that this agent could touch, as text to compare."""
    read = {
        "addresses": lab.host.namespace.run("ip", "-d", "address", "show"),
        "routes4": lab.host.namespace.run("ip", "-4", "-d", "route", "show", "table", "all"),
        "routes6": lab.host.namespace.run("ip", "-6", "-d", "route", "show", "table", "all"),
        "nexthops": lab.host.namespace.run("ip", "nexthop", "show"),
        "settings": lab.host.namespace.run("sh", "-c", "grep . /proc/sys/net/ipv4/conf/nic*/*"),
    }
    read["addresses"] = read["addresses"].replace("tentative ", "")  # link-local addresses of a young lab
    texts = {name: text.splitlines() for name, text in read.items()}
    for family in ("routes4", "routes6"):
        # Order is meaningful among equal routes of the main table only: of the others the kernel picks by interface.
        main = [line for line in texts[family] if " table local " not in line]
        texts[family] = main + sorted(line for line in texts[family] if " table local " in line)
    return {name: "\n".join(lines) for name, lines in texts.items()}


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [
        line
        for name in before
        for line in difflib.unified_diff(before[name].splitlines(), after[name].splitlines(), name, lineterm="", n=0)
    ]
