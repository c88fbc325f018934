"""What hangs on one member and stays there when it fails: devices, programs, rules of others. Named, never changed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ipmp_agent.core.findings import Finding
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.group import alike, proxied, settings
from ipmp_agent.linux.group.multicast import speakers_of_vrrp
from ipmp_agent.linux.messages import addresses, netlink, traffic_control
from ipmp_agent.linux.messages.links import IFF_LOOPBACK, IFF_NOARP

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipmp_agent.linux.group.surroundings import GroupSurroundings
    from ipmp_agent.linux.messages.addresses import InstalledAddress
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
        """Look again; what was found last stands where that fails, and the group works on."""
        try:
            await self._look()
        except Exception:
            log.exception("could not look for what hangs on single members")

    async def _look(self) -> None:
        self._programs = {key: await self._filters(index) for key, index in self._around.by_key().items()}
        await self._host.interface_rules.refresh()
        self._found = [
            *self._devices(),
            *self._programs_of_some(),
            *self._host.interface_rules.findings(self._around.by_name()),
            *self._settings(),
            *self._addresses(),
            *self._virtual(),
            *await proxied.findings(self._host.dumper, {i: name for name, i in self._around.by_name().items()}),
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

    def _settings(self) -> list[Finding]:
        """What members have otherwise than they need, and the group does not set."""
        links = [link for index in self._around.by_key().values() if (link := self._host.link(index)) is not None]
        found = [*settings.left_to_others(links), *alike.differences(links)]
        if any(prefix.version == 6 for prefix in self._around.prefixes()):
            mute = {key for key in self._around.by_key() if not self._around.has_link_local(key)}
            found += settings.without_link_local(link for link in links if self._around.key_of(link.index) in mute)
        return found

    def _addresses(self) -> list[Finding]:
        """Addresses on interfaces that are no members, and that neighbours are to find on this link."""
        found: list[Finding] = []
        services: list[str] = []
        for device in self._host.devices.all():
            link = device.link
            if self._members.owner(link.index) is not None:
                continue
            here = self._host.addresses.found.get(link.index, ())
            if link.flags & (IFF_LOOPBACK | IFF_NOARP):
                services += [f"{each.address.ip} ({link.name})" for each in self._on_the_link(here)]
                continue
            for each in here:
                if self._around.is_data(each.address.ip):
                    message = (
                        f"{each.address.ip} is a data address and is on {link.name}, too, which is no member:"
                        " neighbours find it by two MAC addresses. Take it off there."
                    )
                    found.append(Finding(Reason.ADDRESS_ELSEWHERE, message))
        if services:
            more = f" and {len(services) - NAMED_MAX} more" if len(services) > NAMED_MAX else ""
            message = (
                f"{', '.join(services[:NAMED_MAX])}{more}: members do not answer ARP for addresses that no NIC has, and"
                " whoever answers for them instead (MetalLB, kube-vip) tells one NIC's MAC address, which nobody"
                " corrects when that NIC fails. Have the group assign them as data addresses, and the other not answer."
            )
            found.append(Finding(Reason.SERVICE_ADDRESS, message))
        return found

    def _on_the_link(self, here: Iterable[InstalledAddress]) -> list[InstalledAddress]:
        """Those that are in a prefix of the members' link, and none of the group's."""
        prefixes = self._around.prefixes()
        return [
            each
            for each in here
            if each.scope == netlink.RT_SCOPE_UNIVERSE
            and not self._around.is_data(each.address.ip)
            and any(p.version == each.address.version and each.address.ip in p for p in prefixes)
        ]

    def _virtual(self) -> list[Finding]:
        """Daemons that bring addresses to a member for a while: they know one NIC, and not the group."""
        names = self._around.by_name()
        speaking = sorted(names.keys() & speakers_of_vrrp())
        held = sorted(
            f"{each.address.ip} on {name}"
            for name, index in names.items()
            for each in self._host.addresses.found.get(index, ())
            if each.protocol == addresses.IFAPROT_KEEPALIVED and not self._around.is_data(each.address.ip)
        )
        if not speaking and not held:
            return []
        what = f" (it holds {', '.join(held)})" if held else ""
        message = (
            f"a daemon of VRRP uses {', '.join(speaking or held)}{what}: it sees the cable of that NIC and no silent"
            " failure, and its addresses go by it, not by the group. Name them in dataAddresses.adoption.exclude."
        )
        return [Finding(Reason.VIRTUAL_ADDRESS, message)]
