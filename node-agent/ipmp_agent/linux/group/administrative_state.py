"""Members that are administratively down, set up where that is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipmp_agent.linux.messages import links
from ipmp_api.types import AdministrativeState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ipmp_agent.linux.messages.links import Link
    from ipmp_api.types import NodeGroup


class GroupAdministrativeState:
    """Which members of one group were found down, and are to be up."""

    def __init__(self) -> None:
        self._offline: frozenset[str] = frozenset()
        self._wanted = False
        self._before: dict[str, int] = {}  # members that were found down: interface index

    def configure(self, configuration: NodeGroup) -> None:
        """Take whether members are to be up; those that people took offline stay as they are."""
        self._wanted = configuration.policies.administrative_state is AdministrativeState.UP
        self._offline = frozenset(configuration.offline)

    def memory(self) -> dict[str, Any]:
        """What a restarted agent must know to set them down again: JSON."""
        return {key: {"index": index} for key, index in self._before.items()}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Take over what an earlier run remembered."""
        self._before = {key: found["index"] for key, found in memory.items()}

    def wants(self, key: str, link: Link) -> bool:
        """Whether a member is down and is to be up."""
        return self._wanted and not link.up and key not in self._offline

    def note(self, members: Mapping[str, Link]) -> bool:
        """Remember who is down, before anything is changed; returns whether any of it is new."""
        found = {key: link.index for key, link in members.items() if self.wants(key, link)}
        new = found.items() - self._before.items()
        self._before.update(found)
        return bool(new)

    def differences(self, members: Mapping[str, Link]) -> list[bytes]:
        """Requests that set members up, where noted."""
        return [
            links.set_up(link.index, up=True)
            for key, link in members.items()
            if self.wants(key, link) and self._before.get(key) == link.index
        ]

    def restore(self, members: Mapping[str, Link], in_use: Collection[int]) -> list[bytes]:
        """Requests that set members down which were found so, unless they have got other users meanwhile.

        Args:
            members: to put back.
            in_use: interfaces (by index) on which somebody else has laid an address.
        """
        requests = []
        for key, link in members.items():
            if self._before.pop(key, None) == link.index and link.up and link.index not in in_use:
                requests.append(links.set_up(link.index, up=False))
        return requests
