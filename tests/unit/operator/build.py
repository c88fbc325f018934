"""Groups, nodes and node groups for tests, and a small cluster that does what a plan says."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ipmp_api.parse import parse_group
from ipmp_operator.core.model import Holder, Node, NodeGroupReport, Observed
from ipmp_operator.core.plan import Memory, Plan, View, plan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipmp_api.types import Address, Group, NodeGroup

V4_POOL = {"name": "v4", "ranges": ["198.18.0.1-198.18.0.100"]}


def api_group(name: str = "data", *, created: str = "2026-01-01T00:00:00Z", **spec: Any) -> Group:
    """A group of two members on every node."""
    whole = {"interfaces": [{"name": "eth1"}, {"name": "eth2"}]} | spec
    metadata = {"name": name, "uid": f"uid-{name}", "generation": 1, "creationTimestamp": created}
    return parse_group({"apiVersion": "ipmp.dev/v1alpha1", "kind": "IPMPGroup", "metadata": metadata, "spec": whole})


def pool(name: str = "v4", ranges: str = "198.18.0.1-198.18.0.100", per_node: int = 1, **more: Any) -> dict[str, Any]:
    return {"name": name, "ranges": ranges.split(), "perNode": per_node} | more


def pools(*chosen: dict[str, Any]) -> dict[str, Any]:
    return {"pools": list(chosen)}


def nodes(count: int, **labels: str) -> list[Node]:
    return [Node(f"n{number:04}", labels) for number in range(count)]


def observed(spec: NodeGroup, **more: Any) -> Observed:
    """A node group as it is once its spec was written."""
    given = [data.address.ip for data in spec.data_addresses]
    given += [member.test_ipv4.ip for member in spec.members if member.test_ipv4]
    holder = Holder(spec.group_name, spec.node_name)
    seen = Observed(holder, f"uid-{spec.name}", f"uid-{spec.group_name}", 1, spec, tuple(given), finalizer=True)
    return replace(seen, **more)


@dataclass
class World:
    """Groups, nodes and node groups. `step` plans; what was planned is there at the next step."""

    groups: list[Group] = field(default_factory=list)
    nodes: dict[str, Node] = field(default_factory=dict)
    there: dict[Holder, Observed] = field(default_factory=dict)
    invalid: dict[str, str] = field(default_factory=dict)
    agents: frozenset[str] = frozenset()
    memory: Memory = field(default_factory=Memory)
    now: float = 1_000_000.0

    def add_nodes(self, more: Iterable[Node]) -> None:
        self.nodes.update({node.name: node for node in more})

    @property
    def view(self) -> View:
        """What is seen now."""
        return View(list(self.groups), dict(self.invalid), dict(self.nodes), dict(self.there), self.agents, self.now)

    def plan(self) -> Plan:
        planned = plan(self.view, self.memory)
        self.memory = planned.memory
        return planned

    def step(self, *, write: bool = True) -> Plan:
        """Plan, and do what the plan says: write, ask for deletion, let go."""
        planned = self.plan()
        if not write:
            return planned
        for holder, spec in planned.desired.items():
            seen = self.there.get(holder)
            if seen is None:
                self.there[holder] = observed(spec)
            elif seen.spec != spec:
                status = seen.status
                self.there[holder] = replace(observed(spec), generation=seen.generation + 1, status=status)
        for holder in planned.delete:
            self.there[holder] = replace(self.there[holder], deleting_since=self.now)
        for holder in planned.release:
            del self.there[holder]
        return planned

    def settle(self) -> Plan:
        """Step until nothing changes."""
        for _ in range(10):
            before = dict(self.there)
            planned = self.step()
            if before == self.there:
                return planned
        raise AssertionError("the plan does not come to rest")

    def withdrawn(self, holder: Holder) -> None:
        """The agent reports that nothing of the node group is left."""
        self.there[holder] = replace(self.there[holder], status=NodeGroupReport(withdrawn=True))

    def restart(self) -> None:
        """Another operator takes over: it knows only what is there."""
        self.memory = Memory()

    def data(self, group: str = "data") -> dict[str, tuple[str, ...]]:
        """The data addresses of each node, as they are in the node groups."""
        return {
            holder.node: tuple(str(data.address.ip) for data in seen.spec.data_addresses)
            for holder, seen in sorted(self.there.items())
            if holder.group == group and seen.spec is not None
        }

    def holders(self) -> dict[Address, list[Holder]]:
        """Who has each address."""
        result: dict[Address, list[Holder]] = {}
        for holder, seen in self.there.items():
            for address in seen.held:
                result.setdefault(address, []).append(holder)
        return result
