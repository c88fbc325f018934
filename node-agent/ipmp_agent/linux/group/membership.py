"""The interface group that members are in while they are managed: what our policy rules know them by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipmp_agent.core.findings import Finding
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.messages import links
from ipmp_agent.linux.messages.rules import MEMBER_GROUP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ipmp_agent.linux.messages.links import Link


class Membership:
    """The groups of interfaces that one group's members were in, and the one that they are to be in."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[int, int]] = {}  # by member: interface index, group

    def memory(self) -> dict[str, Any]:
        """What a restarted agent must know to restore them: JSON."""
        return {key: {"index": index, "group": group} for key, (index, group) in self._before.items()}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Take over what an earlier run remembered."""
        self._before = {key: (found["index"], found["group"]) for key, found in memory.items()}

    def note(self, members: Mapping[str, Link]) -> bool:
        """Remember what is there, to be kept before anything is changed; returns whether any of it is new."""
        new = {key: link for key, link in members.items() if not self._is_noted(key, link)}
        for key, link in new.items():
            # A member whose memory was lost has ours; what it was in before is not known any more.
            self._before[key] = (link.index, link.group if link.group != MEMBER_GROUP else 0)
        return bool(new)

    def _is_noted(self, key: str, link: Link) -> bool:
        return key in self._before and self._before[key][0] == link.index

    def differences(self, members: Mapping[str, Link]) -> list[bytes]:
        """Requests that put members into our group, where noted."""
        return [
            links.set_group(link.index, MEMBER_GROUP)
            for key, link in members.items()
            if self._is_noted(key, link) and link.group != MEMBER_GROUP
        ]

    def restore(self, members: Mapping[str, Link]) -> list[bytes]:
        """Requests that put members back into the groups they were in; who is not in ours any more is left alone."""
        requests = []
        for key, link in members.items():
            index, group = self._before.pop(key, (None, 0))
            if index == link.index and link.group == MEMBER_GROUP:
                requests.append(links.set_group(link.index, group))
        return requests

    def findings(self, members: Mapping[str, Link]) -> list[Finding]:
        """Members that the host had in a group of its own."""
        return [
            Finding(
                Reason.INTERFACE_GROUP_TAKEN,
                f"{link.name} was in interface group {self._before[key][1]}, and is in {MEMBER_GROUP} while it is a"
                " member: firewall rules and tools that know it by its group miss it. Name the interface there.",
                key,
            )
            for key, link in members.items()
            if self._is_noted(key, link) and self._before[key][1]
        ]
