"""What the plan is made from: nodes and node groups as last seen, reduced to what decides."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, NamedTuple

from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ipmp_api.types import Address, Group, NodeGroup


class Holder(NamedTuple):
    """Who an address belongs to: one group on one node."""

    group: str
    node: str

    @property
    def object_name(self) -> str:
        """The name of the IPMPNodeGroup, `<group>.<node>`."""
        return f"{self.group}.{self.node}"


@frozen
class Node:
    """A cluster node: its name and labels, and where the operator marks nodes, what it said on this one.

    A condition of ours is its type, status, reason, message and time of transition.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    conditions: tuple[tuple[str, str, str, str, str], ...] = ()
    tainted: bool = False

    @property
    def marked(self) -> bool:
        """Whether anything of ours is on it."""
        return bool(self.conditions) or self.tainted


@frozen
class InterfaceReport:
    """One member as its agent last reported it."""

    name: str
    mac_address: str | None = None
    failed: bool = False


@frozen
class NodeGroupReport:
    """IPMPNodeGroup.status, as far as the plan and the group's status need it."""

    state: str = ""  # ok, degraded, failed; empty before the first report
    reason: str = ""
    observed_generation: int = 0
    withdrawn: bool = False
    interfaces: tuple[InterfaceReport, ...] = ()
    unavailable_addresses: int = 0
    present: tuple[Address, ...] = ()  # data and test addresses that are on an interface, wanted or not
    programmed: bool = True  # False: its agent says that the kernel is not as the group wants it


@frozen
class Observed:
    """One IPMPNodeGroup as last seen.

    `spec` is None where it cannot be read; `held` names every address in it even then, so that none is given twice.
    `deleting_since` is the deletion timestamp in seconds since the epoch.
    """

    holder: Holder
    uid: str = ""
    owner_uid: str = ""
    generation: int = 0
    spec: NodeGroup | None = None
    held: tuple[Address, ...] = ()
    finalizer: bool = False
    deleting_since: float | None = None
    status: NodeGroupReport = field(default_factory=NodeGroupReport)


def seniority(group: Group) -> tuple[str, str]:
    """Sort key that puts the older group first: creation time (RFC 3339 sorts as text), then name."""
    return group.creation_timestamp, group.name
