"""`kubectl ipmp explain`: why a group on a node is as it is, each condition in words, and what to do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kubectl_ipmp.advice import advice
from kubectl_ipmp.display import ago, milliseconds
from kubectl_ipmp.view import bare, condition, conditions, good, look, observed

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from kubectl_ipmp.display import Display
    from kubectl_ipmp.kubectl import Kubectl, Object
    from kubectl_ipmp.view import NodeView, Whole

HOLDS = {
    "Accepted": ("the group is in force", "the group is refused, and what was before stays in force"),
    "Ready": ("it carries traffic", "it does not carry traffic"),
    "Degraded": ("something is lost, and the rest carries on", "nothing is lost"),
    "Stalled": ("it does not come further by itself", "it comes further by itself"),
    "Programmed": ("the kernel is as the group wants it", "the kernel is not as the group wants it"),
    "InterfacesConsistent": ("the members fit together", "a member is missing, or does not fit"),
    "ProbesEnabled": ("silent failures are found", "silent failures of some interface are not found"),
    "OfflineHonored": ("what people took offline is offline", "an interface that was to go offline is in use"),
    "HostSuitable": ("nothing on the host is in the way", "something on the host is in the way"),
    "Withdrawn": ("the agent took back what it added", "the agent has not taken back yet what it added"),
}
"""What each condition means when it is True, and when it is False."""


def run(options: argparse.Namespace, kubectl: Kubectl, display: Display) -> int:
    """Explain a group on a node."""
    whole = look(kubectl)
    group = whole.group(options.group)
    there = [each for each in whole.nodes_of(options.group) if each.node == options.node]
    if options.output == "json":
        display.line(json.dumps(as_json(group, there[0] if there else None, options.node), indent=2))
        return 0
    for line in _lines(group, there, whole, options, kubectl, display):
        display.line(line)
    return 0


def _lines(
    group: Object,
    there: list[NodeView],
    whole: Whole,
    options: argparse.Namespace,
    kubectl: Kubectl,
    display: Display,
) -> Iterator[str]:
    accepted = condition(group, "Accepted")
    if not observed(group):
        yield "The operator has not looked at this version of the group yet."
        yield f"  do: kubectl --namespace {kubectl.namespace} get pods: is the operator running?"
    elif accepted.get("status") == "False":
        yield from _condition(accepted, display)
    if there:
        yield f"{display.bold(f'{options.group} on {options.node}')} is {display.state(there[0].state)}"
        yield from _reported(there[0], kubectl)
        yield from _node(there[0], display)
    else:
        yield from _absent(whole, options)


def _reported(node: NodeView, kubectl: Kubectl) -> Iterator[str]:
    if not node.interfaces:
        yield "  No agent has reported yet."
        yield (
            f"  do: kubectl --namespace {kubectl.namespace} get pods --field-selector spec.nodeName={node.node}: "
            "is an agent running there, and what does its log say?"
        )
    elif not node.current:
        yield "  The agent has not seen the latest change yet: what follows is about the version before."


def _node(node: NodeView, display: Display) -> Iterator[str]:
    for interface in node.interfaces:
        yield from _interface(interface, node, display)
    for each in node.addresses:
        if each.get("state") != "up":
            yield f"{bare(each['address'])} is on no interface ({each.get('reason') or 'the group has failed'})"
            yield f"  do: {advice(str(each.get('reason') or 'GroupFailed'))}"
    yield ""
    for each in sorted(conditions(node.whole), key=good):
        yield from _condition(each, display)
    if moves := node.status.get("lastFailovers"):
        yield ""
        yield f"last move: {_move(moves[0])}"


def _absent(whole: Whole, options: argparse.Namespace) -> Iterator[str]:
    nodes = [each.node for each in whole.nodes_of(options.group)]
    yield f"{options.group} is not on {options.node}; it is on: {', '.join(nodes[:10]) or 'no node'}"
    yield (
        f"  do: compare spec.nodeSelector of the group with kubectl get node {options.node} --show-labels; "
        "the node must be there, and run Linux"
    )


def _interface(interface: Object, node: NodeView, display: Display) -> Iterator[str]:
    state = str(interface.get("state", "unknown"))
    words = f"{interface['name']} is {display.state(state)}"
    reason = str(interface.get("reason") or "")
    if state != "ok":
        words += f" for {ago(interface.get('since'))} ({reason or 'no reason is known'})"
    words += f": link {interface.get('link')}, probes {interface.get('probe')}"
    carried = node.on(str(interface["name"]))
    yield f"{words}, carries {len(carried)} of {len(node.addresses)} addresses"
    if state != "ok" and reason:
        yield f"  do: {advice(reason)}"
    elif state == "ok" and not interface.get("active"):
        yield "  It works and is kept in reserve: a standby, or failback is disabled, or it is new."


def _condition(each: Object, display: Display) -> Iterator[str]:
    kind, status, reason = str(each["type"]), str(each["status"]), str(each.get("reason"))
    fine = good(each)
    true, false = HOLDS.get(kind, ("it holds", "it does not hold"))
    meaning = {"True": true, "False": false}.get(status, "nobody knows")
    mark = display.state("ok") if fine else display.state("failed") if status != "Unknown" else display.state("unknown")
    yield f"{mark}  {kind} is {status}: {meaning} ({reason}, for {ago(each.get('lastTransitionTime'))})"
    if not fine:
        yield f"  {each.get('message')}"
        yield f"  do: {advice(reason)}"


def _move(move: Object) -> str:
    count = move.get("addresses")
    words = f"{ago(move.get('time'))} ago, {move.get('reason')}: {count} address{'es' if count != 1 else ''}"
    words += f" from {move.get('from') or 'nowhere'} to {move.get('to') or 'several or none'}"
    return f"{words} in {milliseconds(move.get('durationMicroseconds'))}"


def as_json(group: Object, node: NodeView | None, name: str) -> Object:
    """The same for programs."""
    found = conditions(group) + (conditions(node.whole) if node else [])
    bad = [each | {"advice": advice(str(each.get("reason")))} for each in found if not good(each)]
    members = node.interfaces if node else []
    return {
        "group": group["metadata"]["name"],
        "node": name,
        "present": node is not None,
        "state": node.state if node else "absent",
        "observed": bool(node and node.current),
        "interfaces": [
            each | ({"advice": advice(str(each["reason"]))} if each.get("reason") and each["state"] != "ok" else {})
            for each in members
        ],
        "conditions": bad,
    }
