"""`kubectl ipmp status`: groups, their nodes and NICs as a tree, and waiting for a state."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from kubectl_ipmp.display import ago
from kubectl_ipmp.kubectl import PluginError
from kubectl_ipmp.view import bare, condition, conditions, good, group_state, look, observed

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from kubectl_ipmp.display import Display
    from kubectl_ipmp.kubectl import Kubectl, Object
    from kubectl_ipmp.view import NodeView, Whole

NO_GROUPS = "there are no IPMP groups: apply one (examples/two-nics.yaml), and look again"

POLL = 1.0
"""Seconds between two looks of a wait."""


def run(options: argparse.Namespace, kubectl: Kubectl, display: Display) -> int:
    """Show the groups; returns the exit status."""
    whole, code = _wait(options, kubectl) if options.wait else (_look(options, kubectl), 0)
    if options.output == "json":
        display.line(json.dumps(as_json(whole), indent=2))
    else:
        show(whole, display)
    return code


def _look(options: argparse.Namespace, kubectl: Kubectl) -> Whole:
    return look(kubectl).only(options.groups, options.nodes)


# -- showing


def show(whole: Whole, display: Display) -> None:
    """The tree."""
    if not whole.groups:
        display.line(NO_GROUPS)
    for number, group in enumerate(whole.groups):
        if number:
            display.line()
        _show_group(group, whole.nodes_of(group["metadata"]["name"]), display)


def _show_group(group: Object, nodes: Sequence[NodeView], display: Display) -> None:
    name, state = group["metadata"]["name"], group_state(group, nodes)
    display.line(f"{display.bold(name)}  {display.state(state)}{_counted(nodes)}")
    pending = "" if observed(group) else ": the operator has not looked at this version of the group yet"
    for trouble in [each for each in conditions(group) if not good(each)]:
        display.line(f"  ! {trouble['type']} is {trouble['status']} ({trouble['reason']}): {trouble['message']}")
    if pending:
        display.line(f"  ! waiting{pending}")
    fork, end, bar = display.branches
    for number, node in enumerate(nodes):
        last = number == len(nodes) - 1
        display.line(f"{end if last else fork}{_node_words(node, display)}")
        _show_node(node, "   " if last else bar, display)


def _counted(nodes: Sequence[NodeView]) -> str:
    if not nodes:
        return ": on no node"
    counts = {state: sum(each.state == state for each in nodes) for state in ("ok", "degraded", "failed", "unknown")}
    words = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return f": {len(nodes)} node{'s' if len(nodes) > 1 else ''}, {words}"


def _node_words(node: NodeView, display: Display) -> str:
    usable = sum(each.get("state") == "ok" for each in node.interfaces)
    words = f"{node.node}  {display.state(node.state)}"
    if not node.interfaces:
        return f"{words}: no agent has reported yet"
    words += f": {usable} of {len(node.interfaces)} interfaces usable"
    if node.whole.get("spec", {}).get("mode") == "Observe":
        words += ", observes only"
    return words if node.current else f"{words}; the agent has not seen the latest change yet"


def _show_node(node: NodeView, indent: str, display: Display) -> None:
    fork, end, _ = display.branches
    homeless = [each for each in node.addresses if each.get("state") == "down"]
    lines = [f"! {each['type']} ({each['reason']}): {each['message']}" for each in _told(node)]
    lines += [f"! {bare(each['address'])} is on no interface{_because(each)}" for each in homeless]
    names = [str(each["name"]) for each in node.interfaces]
    width = max((len(name) for name in names), default=0)
    for each in lines:
        display.line(f"{indent}{each}")
    for number, interface in enumerate(node.interfaces):
        branch = end if number == len(node.interfaces) - 1 else fork
        display.line(f"{indent}{branch}{_interface_words(interface, node, width, display)}".rstrip())


def _told(node: NodeView) -> list[Object]:
    """The conditions that say more than the tree does."""
    return [each for each in node.troubles() if each["type"] not in {"Ready", "Degraded"}]


def _because(each: Object) -> str:
    return f" ({each['reason']})" if each.get("reason") else ""


def _interface_words(interface: Object, node: NodeView, width: int, display: Display) -> str:
    name, state = str(interface["name"]), str(interface.get("state", "unknown"))
    role = "standby" if interface.get("role") == "Standby" else "active"
    if state == "ok" and not interface.get("active"):
        role = f"{role}, not in use"
    words = [name.ljust(width), display.state(state, 7), f"link {interface.get('link', 'unknown')},"]
    words += [f"probes {interface.get('probe', 'unknown')}, {role}"]
    if state != "ok" and interface.get("reason"):
        words.append(f"({interface['reason']}, for {ago(interface.get('since'))})")
    if carried := node.on(name):
        shown = ", ".join(carried[:4]) + (f" and {len(carried) - 4} more" if len(carried) > 4 else "")
        words.append(f"carries {shown}")
    return "  ".join(words[:2]) + "  " + " ".join(words[2:])


def as_json(whole: Whole) -> Object:
    """The same for programs: what the objects say, by group and node."""
    return {
        "groups": [
            {
                "name": group["metadata"]["name"],
                "state": group_state(group, whole.nodes_of(group["metadata"]["name"])),
                "observed": observed(group),
                "status": group.get("status") or {},
                "nodes": [
                    {"name": node.node, "state": node.state, "observed": node.current, "status": node.status}
                    for node in whole.nodes_of(group["metadata"]["name"])
                ],
            }
            for group in whole.groups
        ]
    }


# -- waiting


def _wait(options: argparse.Namespace, kubectl: Kubectl) -> tuple[Whole, int]:
    """Look until every group is as wanted; a group that cannot come to it ends the wait at once."""
    deadline = time.monotonic() + options.timeout
    while True:
        whole = _look(options, kubectl)
        if not whole.groups:
            raise PluginError(NO_GROUPS)
        missing = {each["metadata"]["name"]: why for each in whole.groups if (why := _missing(each, whole, options))}
        if not missing:
            return whole, 0
        if stalled := [each for each in whole.groups if observed(each) and _refused(each)]:
            name, accepted = stalled[0]["metadata"]["name"], condition(stalled[0], "Accepted")
            raise PluginError(f"group {name} is refused, and waiting does not help: {accepted.get('message')}")
        if time.monotonic() >= deadline:
            words = "; ".join(f"{name}: {why}" for name, why in missing.items())
            raise PluginError(f"not {options.state} after {options.timeout:.0f} s: {words}")
        time.sleep(min(POLL, max(0.0, deadline - time.monotonic())))


def _refused(group: Object) -> bool:
    return condition(group, "Accepted").get("status") == "False"


def _missing(group: Object, whole: Whole, options: argparse.Namespace) -> str:
    """Why a group is not as it is waited for; "" if it is."""
    nodes = whole.nodes_of(group["metadata"]["name"])
    if not observed(group):
        return "the operator has not looked at it yet"
    ready = condition(group, "Ready")
    if options.nodes:
        return _missing_on(nodes, options.state)
    if options.state in {"degraded", "failed"}:
        return "" if any(each.state == options.state for each in nodes) else f"no node is {options.state}"
    if ready.get("status") != "True":
        return str(ready.get("message") or "not ready")
    if options.state == "ready":
        return ""
    if not nodes:
        return "it is on no node"
    return _missing_on(nodes, "ok")


def _missing_on(nodes: Sequence[NodeView], wanted: str) -> str:
    good_states = {"ready": ("ok", "degraded")}.get(wanted, (wanted,))
    bad = [f"{each.node} is {each.state}" for each in nodes if each.state not in good_states or not each.current]
    return ", ".join(bad[:5]) + (", ..." if len(bad) > 5 else "")
