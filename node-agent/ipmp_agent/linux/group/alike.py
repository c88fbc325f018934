"""In what members must be alike, or what works by one is lost once it goes by the other. Told, never changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ipmp_agent.core.findings import Finding
from ipmp_agent.core.reasons import Reason
from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Collection

    from ipmp_agent.linux.messages.links import Link

SYSCTL = Path("/proc/sys/net")


@frozen
class Alike:
    """A setting of the kernel for each interface, which some members need because others have it.

    Attributes:
        name: below net, `{}` for the interface.
        why: what becomes of packets by a member where it is less than on another.
    """

    name: str
    why: str


SETTINGS = (
    Alike(
        "ipv4/conf/{}/forwarding", "what this host forwards (pods, machines, routing) is dropped when it comes in there"
    ),
    Alike(
        "ipv6/conf/{}/forwarding", "what this host forwards (pods, machines, routing) is dropped when it comes in there"
    ),
    Alike(
        "ipv6/conf/{}/proxy_ndp", "neighbours that come in there are not answered for those that this host stands for"
    ),
    Alike("ipv6/conf/{}/seg6_enabled", "packets with a segment routing header are dropped when they come in there"),
    Alike("mpls/conf/{}/input", "packets with MPLS labels are dropped when they come in there"),
)
"""docs/host.md names them."""


def differences(members: Collection[Link]) -> list[Finding]:
    """What some of these members have less of than others.

    Args:
        members: of one group, those that are present and stay.
    """
    found = [_mtu(members)] if len({link.mtu for link in members}) > 1 else []
    for each in SETTINGS:
        values = {link.name: value for link in members if (value := _value(each.name.format(link.name))) is not None}
        most = max(values.values(), default=0)
        less = {name: value for name, value in values.items() if value < most}
        if less:
            sysctl = "net." + each.name.replace("/", ".")
            message = (
                f"{sysctl.format(' and '.join(sorted(less)))} {'is' if len(less) == 1 else 'are'} less than on"
                f" {', '.join(sorted(values.keys() - less))}, which has {most}: {each.why}, as all of it may after a"
                " failover. Set it alike on all members."
            )
            found.append(Finding(Reason.MEMBERS_DIFFER, message, min(less)))
    return found


def _mtu(members: Collection[Link]) -> Finding:
    listed = ", ".join(f"{link.name} {link.mtu}" for link in sorted(members, key=lambda link: link.name))
    least = min(members, key=lambda link: link.mtu)
    message = (
        f"the MTUs of members differ ({listed}): frames of more than {least.mtu} bytes, which others on the link send"
        f" to an address on another member, are lost without a word once it is on {least.name}. Set the same MTU on all"
        " members and on their switch ports."
    )
    return Finding(Reason.MEMBERS_DIFFER, message, least.name)


def _value(path: str) -> int | None:
    """The value of a setting; None: this kernel does not have it, or the interface has just gone."""
    try:
        return int((SYSCTL / path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
