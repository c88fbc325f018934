"""Whether the host has its addresses, and how the groups are, in one line: for the service manager that starts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_agent.core.words import GroupState, InterfaceWord
from ipmp_api.types import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ipmp_agent.publication import GroupView, Publication
    from ipmp_api.types import InterfaceAddress

NO_GROUP = "no group"


def awaited(publication: Publication, arriving: Callable[[str], Collection[InterfaceAddress]]) -> str:
    """What the host still waits for; empty: it has every address that it can have.

    An address that is refused is not waited for: that is known. A group without a single interface that works is, since
    links come up seconds after the machine.

    Args:
        publication: of all groups.
        arriving: the data addresses of a group that have a place and are checked for duplicates before they come.
    """
    if not publication.configured:
        return "the first configuration is being applied"
    return next((words for view in publication.groups if (words := _missing(view, arriving))), "")


def _missing(view: GroupView, arriving: Callable[[str], Collection[InterfaceAddress]]) -> str:
    snapshot = view.snapshot
    if not view.ready:
        return f"group {snapshot.group} is not in the kernel yet"
    if view.configuration.policies.mode is Mode.OBSERVE:
        return ""
    if snapshot.state is GroupState.FAILED:
        return f"no interface of group {snapshot.group} works yet"
    homeless = [one.address for one in snapshot.addresses if one.interface is None and one.refusal is None]
    missing = homeless or list(arriving(snapshot.group))
    return f"group {snapshot.group} has not got {missing[0]} yet" if missing else ""


def summary(publication: Publication) -> str:
    """The groups with their states, and the interfaces that do not work."""
    return "; ".join(map(_said, publication.groups)) or NO_GROUP


def _said(view: GroupView) -> str:
    snapshot = view.snapshot
    out = [
        f"{member.name} {member.state.value}"
        for member in snapshot.interfaces
        if member.state in (InterfaceWord.FAILED, InterfaceWord.OFFLINE)
    ]
    return f"{snapshot.group} {snapshot.state.value}" + (f" ({', '.join(out)})" if out else "")
