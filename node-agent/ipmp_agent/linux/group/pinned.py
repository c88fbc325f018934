"""What hangs on one member and stays there when it fails: devices, programs, rules of others. Named, never changed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ipmp_agent.core.findings import Finding
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.messages import traffic_control

if TYPE_CHECKING:
    from ipmp_agent.linux.group.surroundings import GroupSurroundings
    from ipmp_agent.linux.shared.host import Host
    from ipmp_agent.linux.shared.members import Members

log = logging.getLogger(__name__)

NAMED_MAX = 5
"""Devices of one member that a finding names."""


class Pinned:
    """Looks for what hangs on single members of one group."""

    def __init__(self, host: Host, members: Members, around: GroupSurroundings) -> None:
        self._host = host
        self._members = members
        self._around = around
        self._programs: dict[str, frozenset[str]] = {}  # by member
        self._found: list[Finding] = []

    async def refresh(self) -> None:
        """Look again."""
        self._programs = {key: await self._filters(index) for key, index in self._around.by_key().items()}
        await self._host.interface_rules.refresh()
        self._found = [
            *self._devices(),
            *self._programs_of_some(),
            *self._host.interface_rules.findings(self._around.by_name()),
        ]

    def findings(self) -> list[Finding]:
        """What was found at the last look."""
        return self._found

    def _devices(self) -> list[Finding]:
        """Children of members, unless they are members themselves: a group of theirs looks after them."""
        children: dict[str, list[str]] = {}
        for device in self._host.devices.all():
            key = self._around.key_of(device.below) if device.is_child else None
            if key is not None and self._members.owner(device.link.index) is None:
                children.setdefault(key, []).append(f"{device.link.name} ({device.link.kind})")
        found = []
        for key, names in children.items():
            more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
            message = (
                f"{', '.join(names[:NAMED_MAX])}{more} works by {key} alone and fails with it: the group cannot move a"
                " device. Make one on each member and a group of those, or have its user take two."
            )
            found.append(Finding(Reason.DEVICE_PINNED, message, key))
        return found

    async def _filters(self, index: int) -> frozenset[str]:
        found = set()
        for direction, parent in traffic_control.PARENTS.items():
            try:
                bodies = await self._host.dumper.dump(
                    traffic_control.RTM_GETTFILTER, traffic_control.get_request(index, parent)
                )
            except OSError as error:
                # It has just vanished, or the kernel is without traffic control.
                log.debug("cannot look for filters of interface %d: %s", index, error)
                continue
            found |= {f"{what} ({direction})" for body in bodies if (what := traffic_control.describe(body))}
        return frozenset(found)

    def _programs_of_some(self) -> list[Finding]:
        """Programs that some members have and others have not: on all of them they are somebody's plan."""
        indexes = self._around.by_key()
        with_xdp = {device.link.index for device in self._host.devices.all() if device.has_program}
        of = {
            key: self._programs.get(key, frozenset()) | ({"XDP"} if index in with_xdp else set())
            for key, index in indexes.items()
        }
        found = []
        for program in sorted(frozenset().union(*of.values())):
            having = sorted(key for key, programs in of.items() if program in programs)
            lacking = sorted(of.keys() - having)
            if lacking:
                message = (
                    f"a program of {program} is on {', '.join(having)} and not on {', '.join(lacking)}: what it does to"
                    " packets ends when they go by the other. Attach it to every member, or to none."
                )
                found.append(Finding(Reason.PROGRAM_PINNED, message, having[0]))
        return found
