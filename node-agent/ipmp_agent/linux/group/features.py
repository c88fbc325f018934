"""All features of one group, and what is asked of all of them: configuration, memory, what they found on the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ipmp_agent.linux.group import settings
from ipmp_agent.linux.group.administrative_state import GroupAdministrativeState
from ipmp_agent.linux.group.data_addresses import GroupDataAddresses
from ipmp_agent.linux.group.fitness import Fitness
from ipmp_agent.linux.group.full_frames import FullFrames
from ipmp_agent.linux.group.membership import Membership
from ipmp_agent.linux.group.multicast import Multicast
from ipmp_agent.linux.group.neighbourhood import Neighbourhood
from ipmp_agent.linux.group.outsiders import GroupOutsiders
from ipmp_agent.linux.group.pinned import Pinned
from ipmp_agent.linux.group.pod_egress import PodEgress
from ipmp_agent.linux.group.reading import ROUTES
from ipmp_agent.linux.group.refresh import AnnouncementRefresh
from ipmp_agent.linux.group.routers import Routers
from ipmp_agent.linux.group.settings import InterfaceSettings
from ipmp_agent.linux.group.surroundings import GroupSurroundings
from ipmp_agent.linux.group.testaddresses import GroupTestAddresses
from ipmp_agent.linux.group.tunnels import GroupTunnels
from ipmp_agent.linux.group.twins import Twins
from ipmp_agent.linux.group.unfollowed import Unfollowed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from ipmp_agent.core.events import Event
    from ipmp_agent.core.findings import Finding
    from ipmp_agent.linux.group.reconcile import GroupReconciler
    from ipmp_agent.linux.messages.links import Link
    from ipmp_agent.linux.shared.host import Host
    from ipmp_agent.linux.shared.members import HostMember, Members
    from ipmp_api.types import Address, Network, NodeGroup

FITNESS, SETTINGS = "fitness of members", "settings"
DATA_ADDRESSES, TEST_ADDRESSES = "data addresses", "test addresses"
TUNNELS, OUTSIDERS = "tunnels", "other interfaces on the link"
FULL_FRAMES = "frames of full size"
"""Parts of a comparison, as people are told them."""


class Listeners(NamedTuple):
    """Whom features of a group tell what."""

    sink: Callable[[Event], None]
    tell: Callable[[Event], None]  # the same, for what is heard on the link
    tell_safely: Callable[[Event], None]  # the same, for what may be told only when the memory is on disk
    addresses_changed: Callable[[set[str], set[Address]], None]  # members that some left, and those that came or went
    ways_changed: Callable[[], None]  # other routers answer


class Features:
    """Makes the features of one group, each after those that it needs.

    Args:
        group: its name.
        host: what all groups share.
        members: of all groups.
        reconciler: of the group.
        listeners: told of what happens.
        is_observing: whether the kernel is only looked at.
    """

    def __init__(
        self,
        group: str,
        host: Host,
        members: Members,
        reconciler: GroupReconciler,
        listeners: Listeners,
        is_observing: Callable[[], bool],
    ) -> None:
        self._group = group
        self._host = host
        self._members = members
        self._is_observing = is_observing
        self._pods: frozenset[Network] = frozenset()
        self.data = GroupDataAddresses(group, host, members, listeners.tell_safely, listeners.addresses_changed)
        self.neighbourhood = Neighbourhood(group, host, self.data, listeners.tell, is_observing)
        self.tests = GroupTestAddresses(group, host, members, listeners.sink)
        self.settings = InterfaceSettings(host.counters, host.guarded.take)
        host.guarded.of_members[group] = self.settings.before
        self.surroundings = GroupSurroundings(group, members, self.data, self.tests)
        self.multicast = Multicast()
        self.fitness = Fitness(group, host, members, self.data, self.settings)
        self.outsiders = GroupOutsiders(group, host, members, self.surroundings)
        self.pinned = Pinned(host, members, self.surroundings)
        self.full_frames = FullFrames(group, host, self.surroundings)
        self.tunnels = GroupTunnels(host.tunnels, self.surroundings, self.data)
        self.pod_egress = PodEgress(group, host.nftables, self.surroundings, reconciler)
        self.routers = Routers(group, host, self.surroundings, listeners.ways_changed)
        self.twins = Twins(host, self.surroundings, listeners.sink, self.routers)
        self.unfollowed = Unfollowed(self.surroundings, host.devices)
        self.membership = Membership()
        self.administrative = GroupAdministrativeState()
        self.refresh = AnnouncementRefresh(self.data.announce_again)

    def configure(self, configuration: NodeGroup) -> list[bytes]:
        """Take a configuration; returns requests that remove what is wanted no more."""
        self._pods = frozenset(configuration.policies.pod_egress)
        self.data.configure(configuration)
        self.pod_egress.configure(configuration.policies.pod_egress)
        self.administrative.configure(configuration)
        self.refresh.configure(configuration)
        self.full_frames.configure(configuration)
        self.tunnels.configure(configuration)
        return self.tests.configure(configuration)

    def memory(self) -> dict[str, Any]:
        """What a restarted agent must know: JSON."""
        return {
            "addresses": self.data.memory(),
            "settings": self.settings.memory(),
            "interfaceGroups": self.membership.memory(),
            "administrativeState": self.administrative.memory(),
            "routes": self.twins.memory(),
            "tunnels": self.tunnels.memory(),
            "outsiders": self.outsiders.memory(),
        }

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Take over what an earlier run remembered, after its configuration was taken."""
        self.data.remember(memory["addresses"])
        self.settings.remember(memory["settings"])
        self.twins.remember(memory["routes"])
        self.membership.remember(memory["interfaceGroups"])
        self.administrative.remember(memory["administrativeState"])
        self.tunnels.remember(memory["tunnels"])
        self.outsiders.remember(memory["outsiders"])

    def note(self) -> bool:
        """Note what members are before anything of them is changed; returns whether any of it is new."""
        present = self.links()
        new = [each.note(present) for each in (self.settings, self.membership, self.administrative)]
        return any(new)

    async def rest(self) -> None:
        """End what an agent that ends would end: the group may have managed until now."""
        self.routers.close()
        self.data.rest()
        self.tests.rest()
        self.multicast.close()
        await self.pod_egress.close()

    def links(self) -> dict[str, Link]:
        """Every member that is present and stays, as the kernel describes it now."""
        present = [m for m in self._members.of(self._group).values() if m.index is not None and not m.leaving]
        return {member.key: self.link(member) for member in present}

    def link(self, member: HostMember) -> Link:
        """A member that is present, as the kernel describes it now. Raises ValueError: it is not."""
        if member.link is None:
            raise ValueError(f"{member.key} is not present")
        return self._host.link(member.link.index) or member.link

    # -- findings ----------------------------------------------------------------------------------------------------

    def to_look_at(self) -> Iterator[tuple[str, Callable[[], Iterable[Finding]]]]:
        """What tells what stands against the group on this host, by the name that people are told."""
        observing = self._is_observing()
        yield SETTINGS, settings.overridden
        yield "spreading of flows", lambda: settings.unspread(self.surroundings.outbound)
        yield TUNNELS, self.tunnels.findings
        yield "masquerading", self._masquerading
        yield "what hangs on members", self.pinned.findings
        yield FULL_FRAMES, self.full_frames.findings
        yield OUTSIDERS, lambda: self.outsiders.findings(observing=observing)
        yield "neighbours", self.neighbourhood.findings
        if not observing:
            yield ROUTES, self.twins.findings
            yield "routes that cannot follow", self.unfollowed.findings
            yield "interface groups", lambda: self.membership.findings(self.links())
        yield FITNESS, self.fitness.findings
        yield DATA_ADDRESSES, lambda: self.data.adoption.findings
        yield "rules for pods", self.pod_egress.findings

    def _masquerading(self) -> list[Finding]:
        # Who names the networks of pods says by that of which families they are.
        versions = {int(network.version) for network in self._pods} or set(self.surroundings.sources()[1])
        covered = self.pod_egress.covered(observing=self._is_observing())
        return self._host.masquerades.findings(self.surroundings.names(), covered, versions)
