"""`kubectl ipmp drill`: a failure on purpose, played and measured by the agent; on all nodes, one after the other.

The agent ends a drill by itself, also when this command, its connection or the API server is gone.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from kubectl_ipmp.kubectl import KubectlError, PluginError
from kubectl_ipmp.view import condition, look

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from kubectl_ipmp.display import Display
    from kubectl_ipmp.kubectl import Kubectl, Object
    from kubectl_ipmp.view import NodeView

PATIENCE = 120.0
"""Seconds beyond the drill in which an agent takes the interface back and answers."""

TRIAL_PATIENCE, LOOK = 60.0, 1.0
"""Seconds for a change that is on trial, in which an agent drills nothing; and between looks at it."""

HEAD = ("NODE", "INTERFACE", "KIND", "VERDICT", "FOUND", "GAP", "ANSWERED", "BACK")


def run(options: argparse.Namespace, kubectl: Kubectl, display: Display) -> int:
    """Drill; returns 0 when all of it passed."""
    if options.interface and options.all_nodes:
        raise PluginError("an interface is of one node: name the node instead of --all-nodes")
    if bool(options.node) == options.all_nodes:
        raise PluginError("name a node, or give --all-nodes: they are drilled one after the other")
    whole = look(kubectl)
    nodes = whole.nodes_of(options.group) if options.all_nodes else [whole.node(options.group, options.node)]
    whole.group(options.group)
    if not nodes:
        raise PluginError(f"group {options.group} is on no node")
    done = list(_drills(nodes, options, kubectl))
    if options.output == "json":
        display.line(json.dumps(done, indent=2))
    else:
        _report(done, display)
        if left := len(nodes) - len(done):
            display.line(f"{left} node{'s' if left > 1 else ''} not drilled: repair first, or give --keep-going")
    return 0 if all(each["passed"] for each in done) else 1


def _drills(nodes: list[NodeView], options: argparse.Namespace, kubectl: Kubectl) -> Iterator[Object]:
    """The results, node by node, up to the first that does not pass."""
    for listed in nodes:
        node = _after_trial(listed, kubectl)
        result = {"node": node.node} | _drill(node, options, kubectl)
        yield result
        if not result["passed"] and not options.keep_going:
            return


def _after_trial(node: NodeView, kubectl: Kubectl) -> NodeView:
    """The node when no change is on trial there any more, or after a while."""
    until = time.monotonic() + TRIAL_PATIENCE
    while condition(node.whole, "Programmed").get("reason") == "ChangeOnTrial" and time.monotonic() < until:
        time.sleep(LOOK)
        node = look(kubectl).node(node.group, node.node)
    return node


def _drill(node: NodeView, options: argparse.Namespace, kubectl: Kubectl) -> Object:
    interface = options.interface or _busiest(node)
    words = ["ipmpadm", "drill", interface, f"--group={node.group}", f"--kind={options.kind}"]
    words += [f"--seconds={options.duration:g}", "--json"]
    try:
        said = kubectl.in_agent(kubectl.agent_pod(node.node), *words, timeout=options.duration + PATIENCE)
    except KubectlError as error:
        said = error.output
        if not said.strip():
            return _refused(interface, options.kind, _words(str(error)))
    except PluginError as error:
        return _refused(interface, options.kind, str(error))
    try:
        result: Object = json.loads(said)
    except ValueError:
        return _refused(interface, options.kind, f"the agent on {node.node} answered with what is no JSON: {said[:80]}")
    return result


def _busiest(node: NodeView) -> str:
    """The interface that carries most: its failure matters most."""
    working = [str(each["name"]) for each in node.interfaces if each.get("state") == "ok"]
    if not working:
        raise PluginError(f"no interface of group {node.group} on {node.node} works: there is nothing to drill")
    return max(working, key=lambda name: len(node.on(name)))


def _words(said: str) -> str:
    """What the agent said, without what kubectl adds."""
    lines = [line.removeprefix("ipmpadm: ") for line in said.splitlines() if "terminated with exit code" not in line]
    if "(Forbidden)" in said:
        lines.append("A drill needs the verb create on pods/exec where IPMP is installed.")
    return "; ".join(lines) or said


def _refused(interface: str, kind: str, why: str) -> Object:
    return {"interface": interface, "kind": kind, "passed": False, "refused": True, "faults": [why]}


def _report(done: list[Object], display: Display) -> None:
    display.table(HEAD, [_row(each) for each in done])
    for each in done:
        for fault in each["faults"]:
            display.line(f"{each['node']}: {fault}")


def _row(each: Object) -> tuple[str, ...]:
    verdict = "ok" if each["passed"] else "refused" if each.get("refused") else "failed"
    figures = [_figure(each.get(key)) for key in ("detected", "gap", "answered", "returned")]
    return (str(each["node"]), str(each["interface"]), str(each["kind"]), verdict, *figures)


def _figure(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f}ms" if seconds < 0.1 else f"{seconds:.2f}s"
