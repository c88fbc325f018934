"""What the kernel holds in one namespace, in a form that can be compared and asked."""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., str]

SETTINGS = ("arp_ignore", "arp_announce", "rp_filter", "promote_secondaries", "arp_filter")
# Words of `ip -json` that change by themselves: counters, timers, neighbour and carrier state.
VOLATILE = {
    "tentative",
    "expires",
    "cache",
    "used",
    "age",
    "users",
    "stats",
    "stats64",
    "preferred_life_time",
    "valid_life_time",
}
CARRIER_FLAGS = {"linkdown", "dead", "NO-CARRIER", "LOWER_UP"}


def _stable(value: Any) -> Any:
    """Strip what differs between two looks at an unchanged kernel."""
    if isinstance(value, dict):
        return {key: _stable(inner) for key, inner in value.items() if key not in VOLATILE}
    if isinstance(value, list):
        return [_stable(inner) for inner in value if not (isinstance(inner, str) and inner in CARRIER_FLAGS)]
    return value


def _lines(objects: list[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(sorted(json.dumps(_stable(found), sort_keys=True) for found in objects))


@dataclass(frozen=True)
class KernelDump:
    """Addresses, routes, nexthops and rules as sorted JSON lines; settings as `interface/name=value`.

    Two dumps are equal when the kernel holds the same, wherever carriers and timers stand.
    """

    addresses: tuple[str, ...]
    routes: tuple[str, ...]
    nexthops: tuple[str, ...]
    rules: tuple[str, ...]
    settings: tuple[str, ...]
    nftables: str

    @staticmethod
    def take(run: Run) -> KernelDump:
        """Dump the namespace in which `run(*argv)` runs a program and returns its output."""

        def objects(*words: str) -> list[dict[str, Any]]:
            found = json.loads(run("ip", "-details", "-json", *words) or "[]")
            return [one for one in found if one]

        links = objects("address", "show")
        script = " ".join(f"/proc/sys/net/ipv4/conf/*/{name}" for name in SETTINGS)
        settings = run("sh", "-c", f"grep -H . {script}").replace("/proc/sys/net/ipv4/conf/", "")
        return KernelDump(
            addresses=_lines([{"dev": link["ifname"], **one} for link in links for one in link.get("addr_info", [])]),
            routes=_lines(
                [
                    one
                    for family in ("-4", "-6")
                    for one in objects(family, "route", "show", "table", "all")
                    if one.get("type") not in {"local", "broadcast", "anycast", "multicast"}
                ]
            ),
            nexthops=_lines(objects("nexthop", "show")),
            rules=_lines(objects("-4", "rule", "show") + objects("-6", "rule", "show")),
            settings=tuple(sorted(line.replace(":", "=") for line in settings.splitlines())),
            nftables=run("sh", "-c", "command -v nft >/dev/null && nft --stateless list ruleset || true"),
        )

    def holders(self, address: str) -> list[str]:
        """Return the interfaces that hold an address (with or without prefix length), one entry for each time."""
        wanted = ipaddress.ip_address(address.partition("/")[0])
        found = [json.loads(line) for line in self.addresses]
        return [one["dev"] for one in found if ipaddress.ip_address(one["local"]) == wanted]

    def held(self, interface: str) -> list[str]:
        """Return the addresses of an interface with their prefix lengths."""
        found = [json.loads(line) for line in self.addresses]
        return [f"{one['local']}/{one['prefixlen']}" for one in found if one["dev"] == interface]

    def without_identifiers(self) -> KernelDump:
        """The same with every nexthop called 0: for comparing objects that were made anew."""

        def anonymous(lines: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(sorted(re.sub(r'"(id|nhid)": [0-9]+', r'"\1": 0', line) for line in lines))

        return replace(self, routes=anonymous(self.routes), nexthops=anonymous(self.nexthops))

    def difference(self, other: KernelDump) -> str:
        """Return what is only here (-) and only in the other (+), one line each; empty if they are equal."""
        lines: list[str] = []
        for name in ("addresses", "routes", "nexthops", "rules", "settings"):
            mine, theirs = set(getattr(self, name)), set(getattr(other, name))
            lines += [f"- {name} {line}" for line in sorted(mine - theirs)]
            lines += [f"+ {name} {line}" for line in sorted(theirs - mine)]
        if self.nftables != other.nftables:
            lines.append(f"nftables:\n{self.nftables}\nagainst\n{other.nftables}")
        return "\n".join(lines)
