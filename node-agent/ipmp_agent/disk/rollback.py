"""What a state file says so that a release before 0.2.0 reads it, too, when an image is rolled back.

Such a release sets a whole state file aside for one word that it does not know, and takes the agent's settings for the
host's own. Where it reads one of a closed set of words, a word that came later is written as one that it knows, and
ours beside it under a key that it ignores. It knows nothing of interfaces that are guarded and no members: they are
written as former members, too, whose settings it puts back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipmp_agent.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

EXACT = "exact_reason"
"""The key of the word as it is, where another one stands in its place."""

_GUARDED = "guarded"
"""The key of what is written of an interface that is no member; true."""

NEWER = frozenset(
    {
        Reason.DRILL,
        Reason.NOT_HEARD,
        Reason.NOT_SELECTED,
        Reason.GUEST_ADDRESS,
        Reason.PEER_ADDRESS,
        Reason.DUPLICATE_ADDRESS,
        Reason.TENTATIVE_ADDRESS,
        Reason.OTHER_SCOPE,
        Reason.DEVICE_PINNED,
        Reason.MEMBERS_DIFFER,
        Reason.FULL_FRAMES_LOST,
        Reason.PROXY_NEIGHBOR,
        Reason.PROGRAM_PINNED,
        Reason.FIREWALL_PINNED,
        Reason.REVERSE_PATH_FILTERED,
        Reason.ADDRESS_ELSEWHERE,
        Reason.SERVICE_ADDRESS,
        Reason.VIRTUAL_ADDRESS,
        Reason.OUTSIDER_ON_LINK,
        Reason.ROUTES_NOT_FOLLOWED,
        Reason.MANY_ROUTES,
        Reason.INTERFACE_GROUP_TAKEN,
        Reason.STATE_ELSEWHERE,
        Reason.STATE_NOT_KEPT,
        Reason.CONTROL_SOCKET_LOST,
        Reason.COMPARISON_INCOMPLETE,
    }
)
"""The reasons that came after 0.1.0."""

_INSTEAD = {"interfaces": None, "history": Reason.FAILOVER.value}
"""What a group remembers with a reason, and the word there for one that is not known: none is a failure restored."""


def for_older(document: dict[str, Any]) -> None:
    """Put words that every release knows in the place of newer ones, which go beside them.

    Args:
        document: a state file's, as it is to be written; changed in place.
    """
    for part, entry in _entries(document):
        if entry.get("reason") in NEWER:
            entry[EXACT], entry["reason"] = entry["reason"], _INSTEAD[part]
    for kernel in _kernels(document):
        settings = kernel.get("settings", {})
        for each in kernel.get("outsiders", ()):
            if (name := each["name"]) not in settings:
                values = each["others"] | each["values"]
                settings[name] = {"index": each["index"], "values": values, _GUARDED: True}
                kernel["members"].append({"name": name})


def exact(document: dict[str, Any]) -> None:
    """Undo `for_older`.

    Args:
        document: a state file's, as it was read, whatever is in it; changed in place.
    """
    for _, entry in _entries(document):
        if EXACT in entry:
            entry["reason"] = entry[EXACT]
    for kernel in _kernels(document):
        members, settings = kernel.get("members"), kernel.get("settings")
        if isinstance(members, list) and isinstance(settings, dict):
            guarded = [key for key, each in settings.items() if isinstance(each, dict) and each.get(_GUARDED) is True]
            kernel["settings"] = {key: each for key, each in settings.items() if key not in guarded}
            kernel["members"] = [each for each in members if each not in [{"name": key} for key in guarded]]


def _groups(document: dict[str, Any]) -> list[dict[str, Any]]:
    groups = document.get("groups")
    return [each for each in groups.values() if isinstance(each, dict)] if isinstance(groups, dict) else []


def _kernels(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [kernel for group in _groups(document) if isinstance(kernel := group.get("kernel"), dict)]


def _entries(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for group in _groups(document):
        for part in _INSTEAD:
            entries = group.get(part)
            for entry in entries if isinstance(entries, list) else ():
                if isinstance(entry, dict):
                    yield part, entry
