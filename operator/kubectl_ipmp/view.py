"""What the objects of both kinds say, put together: a group, its nodes, their conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kubectl_ipmp.kubectl import PluginError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubectl_ipmp.kubectl import Kubectl, Object

GOOD = {
    "Accepted": "True",
    "Ready": "True",
    "Degraded": "False",
    "Stalled": "False",
    "Programmed": "True",
    "InterfacesConsistent": "True",
    "ProbesEnabled": "True",
    "OfflineHonored": "True",
    "HostSuitable": "True",
    "Withdrawn": "True",
}
"""The status of each condition that needs nobody's attention."""


class NodeView(NamedTuple):
    """One IPMPNodeGroup, whole or as far as it is reported."""

    whole: Object

    @property
    def name(self) -> str:
        """Of the object."""
        return str(self.whole["metadata"]["name"])

    @property
    def group(self) -> str:
        """Of the group."""
        return str(self.whole.get("spec", {}).get("groupName", ""))

    @property
    def node(self) -> str:
        """Of the node."""
        return str(self.whole.get("spec", {}).get("nodeName", ""))

    @property
    def status(self) -> Object:
        """What the agent reported; empty while none has."""
        found: Object = self.whole.get("status") or {}
        return found

    @property
    def state(self) -> str:
        """`ok`, `degraded`, `failed`; `unknown` while no agent has reported, or since its node stopped to answer."""
        return str(self.status.get("state") or "unknown")

    @property
    def current(self) -> bool:
        """Whether the agent has seen the present spec."""
        return bool(self.status.get("observedGeneration", -1) >= self.whole["metadata"].get("generation", 0))

    @property
    def interfaces(self) -> list[Object]:
        """The members as reported."""
        found: list[Object] = self.status.get("interfaces") or []
        return found

    @property
    def addresses(self) -> list[Object]:
        """The data addresses as reported."""
        found: list[Object] = self.status.get("addresses") or []
        return found

    def on(self, interface: str) -> list[str]:
        """The data addresses that an interface carries, without prefix lengths."""
        return [bare(each["address"]) for each in self.addresses if each.get("interface") == interface]

    def keys(self) -> list[str]:
        """What the members are called in the spec: name, PCI or MAC address."""
        spec = self.whole.get("spec", {}).get("interfaces") or []
        return [str(each.get("name") or each.get("pciAddress") or each.get("macAddress")) for each in spec]

    def troubles(self) -> list[Object]:
        """The conditions that want attention."""
        return [each for each in conditions(self.whole) if not good(each)]


class Whole(NamedTuple):
    """All groups, and all nodes of each, by name."""

    groups: Sequence[Object]
    nodes: Sequence[NodeView]

    def nodes_of(self, group: str) -> list[NodeView]:
        """The nodes of a group."""
        return [each for each in self.nodes if each.group == group]

    def group(self, name: str) -> Object:
        """A group. Raises PluginError."""
        found = [each for each in self.groups if each["metadata"]["name"] == name]
        if not found:
            raise PluginError(f"there is no group {name}; there is: {_listed(self.group_names())}")
        return found[0]

    def node(self, group: str, node: str) -> NodeView:
        """A group on a node. Raises PluginError."""
        self.group(group)
        nodes = self.nodes_of(group)
        found = [each for each in nodes if each.node == node]
        if not found:
            raise PluginError(f"group {group} is not on node {node}; it is on: {_listed([n.node for n in nodes])}")
        return found[0]

    def group_names(self) -> list[str]:
        """The names of all groups."""
        return [str(each["metadata"]["name"]) for each in self.groups]

    def only(self, groups: Sequence[str], nodes: Sequence[str]) -> Whole:
        """These groups and nodes; all where none is named. Raises PluginError for a name that is not there."""
        for name in groups:
            self.group(name)
        known = {each.node for each in self.nodes}
        for name in nodes:
            if name not in known:
                raise PluginError(f"no group is on node {name}; groups are on: {_listed(sorted(known))}")
        return Whole(
            [each for each in self.groups if not groups or each["metadata"]["name"] in groups],
            [each for each in self.nodes if (not groups or each.group in groups) and (not nodes or each.node in nodes)],
        )


def look(kubectl: Kubectl) -> Whole:
    """Read everything: two requests at once."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - 5 ms that a command without a cluster saves

    with ThreadPoolExecutor(2) as pool:
        groups, nodes = pool.submit(kubectl.groups), pool.submit(kubectl.node_groups)
        return Whole(groups.result(), sorted((NodeView(each) for each in nodes.result()), key=_place))


def _place(view: NodeView) -> tuple[str, str]:
    return view.group, view.node


def conditions(whole: Object) -> list[Object]:
    """The conditions of an object."""
    found: list[Object] = (whole.get("status") or {}).get("conditions") or []
    return found


def condition(whole: Object, kind: str) -> Object:
    """A condition of an object; empty where it has none."""
    return next((each for each in conditions(whole) if each.get("type") == kind), {})


def good(each: Object) -> bool:
    """Whether a condition needs nobody's attention. One that we do not know does not."""
    return GOOD.get(str(each.get("type")), each.get("status")) == each.get("status")


def observed(whole: Object) -> bool:
    """Whether the status is about the present spec."""
    generation = whole["metadata"].get("generation", 0)
    return bool((whole.get("status") or {}).get("observedGeneration", -1) >= generation)


def group_state(whole: Object, nodes: Sequence[NodeView]) -> str:
    """A group in one word: what is worst, or that nobody has looked at it yet."""
    if condition(whole, "Accepted").get("status") == "False":
        return "not accepted"
    if not observed(whole):
        return "unknown"
    if condition(whole, "Ready").get("status") != "True":
        return "failed" if any(each.state == "failed" for each in nodes) else "not ready"
    return "degraded" if condition(whole, "Degraded").get("status") == "True" else "ready"


def bare(address: str) -> str:
    """An address without its prefix length."""
    return address.partition("/")[0]


def plain(whole: Object) -> dict[str, Any]:
    """An object for programs: without what the API server keeps about who wrote it."""
    metadata = {k: v for k, v in whole["metadata"].items() if k != "managedFields"}
    return {**whole, "metadata": metadata}


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    return shown or "none"
