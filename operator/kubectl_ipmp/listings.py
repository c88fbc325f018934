"""The tables: interfaces, addresses, targets, history, events; each also as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kubectl_ipmp.display import ago, milliseconds
from kubectl_ipmp.kubectl import event_time
from kubectl_ipmp.view import bare, look

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from kubectl_ipmp.display import Display
    from kubectl_ipmp.kubectl import Kubectl, Object
    from kubectl_ipmp.view import NodeView, Whole

    Row = dict[str, Any]


def interfaces(options: argparse.Namespace, kubectl: Kubectl, display: Display) -> int:
    """Every member on every node."""
    rows = [_place(node) | each for node in _nodes(options, kubectl) for each in node.interfaces]
    head = ("GROUP", "NODE", "INTERFACE", "STATE", "LINK", "PROBE", "ROLE", "ACTIVE", "SPEED", "REASON", "FOR")
    return _show(options, display, rows, head, _interface_cells)


def _interface_cells(row: Row) -> Sequence[str]:
    speed = f"{row['speedMegabits']}M" if row.get("speedMegabits") else "-"
    active = "yes" if row.get("active") else "no"
    words = [_text(row, key) for key in ("group", "node", "name", "state", "link", "probe", "role")]
    return [*words, active, speed, _text(row, "reason"), ago(row.get("since"))]


def addresses(options: argparse.Namespace, kubectl: Kubectl, display: Display) -> int:
    """Every data address, and what a group leaves alone."""
    rows: list[Row] = []
    for node in _nodes(options, kubectl):
        rows += [_place(node) | each for each in node.addresses]
        left = node.status.get("notAdopted") or []
        rows += [_place(node) | {"state": "not adopted", "origin": "Host"} | each for each in left]
    head = ("GROUP", "NODE", "ADDRESS", "STATE", "INTERFACE", "ORIGIN", "REASON")
    return _show(options, display, rows, head, _address_cells)


def _address_cells(row: Row) -> Sequence[str]:
    return [_text(row, key) for key in ("group", "node", "address", "state", "interface", "origin", "reason")]


def targets(options: argparse.Namespace, kubectl: Kubectl, display: Display) -> int:
    """What every member probes."""
    rows = []
    for node in _nodes(options, kubectl):
        for each in node.interfaces:
            sources = [bare(source) for source in each.get("testAddresses") or []]
            for target in each.get("targets") or []:
                family = [source for source in sources if (":" in source) == (":" in target["address"])]
                rows.append(_place(node) | {"interface": each["name"], "testAddresses": family} | target)
    if not options.all:
        rows = [row for row in rows if row["state"] != "unused"]
    head = ("GROUP", "NODE", "INTERFACE", "TARGET", "STATE", "FROM")
    return _show(options, display, rows, head, _target_cells)


def _target_cells(row: Row) -> Sequence[str]:
    words = [_text(row, key) for key in ("group", "node", "interface", "address", "state")]
    return [*words, ",".join(row["testAddresses"]) or "-"]


def history(options: argparse.Namespace, kubectl: Kubectl, display: Display) -> int:
    """The last moves on every node, newest first."""
    rows = [_place(node) | each for node in _nodes(options, kubectl) for each in node.status.get("lastFailovers") or []]
    rows.sort(key=lambda row: str(row.get("time")), reverse=True)
    head = ("TIME", "GROUP", "NODE", "REASON", "FROM", "TO", "ADDRESSES", "TOOK")
    return _show(options, display, rows, head, _history_cells)


def _history_cells(row: Row) -> Sequence[str]:
    words = [_second(row.get("time")), *(_text(row, key) for key in ("group", "node", "reason", "from", "to"))]
    return [*words, _text(row, "addresses"), milliseconds(row.get("durationMicroseconds"))]


def events(options: argparse.Namespace, kubectl: Kubectl, display: Display) -> int:
    """What operator and agents told, oldest first."""
    whole = look(kubectl).only(options.groups, options.nodes)
    rows = list(_event_rows(kubectl.events(), whole, everything=not options.groups and not options.nodes))
    head = ("TIME", "TYPE", "REASON", "OBJECT", "COUNT", "MESSAGE")
    return _show(options, display, rows, head, _event_cells)


def _event_rows(found: Sequence[Object], whole: Whole, *, everything: bool) -> Iterator[Row]:
    names = {node.name for node in whole.nodes} | set(whole.group_names())
    for event in found:
        regarding = event.get("regarding") or {}
        if not everything and regarding.get("name") not in names:
            continue
        yield {
            "time": event_time(event),
            "type": event.get("type"),
            "reason": event.get("reason"),
            "kind": regarding.get("kind"),
            "object": regarding.get("name"),
            "count": (event.get("series") or {}).get("count") or event.get("deprecatedCount") or 1,
            "message": event.get("note", ""),
        }


def _event_cells(row: Row) -> Sequence[str]:
    return [_second(row["time"]), *(_text(row, key) for key in ("type", "reason", "object", "count", "message"))]


# -- what all have in common


def _nodes(options: argparse.Namespace, kubectl: Kubectl) -> Sequence[NodeView]:
    return look(kubectl).only(options.groups, options.nodes).nodes


def _place(node: NodeView) -> Row:
    return {"group": node.group, "node": node.node}


def _text(row: Row, key: str) -> str:
    value = row.get(key)
    return "-" if value is None or value == "" else str(value)


def _second(time: object) -> str:
    """An RFC 3339 time without what is below a second."""
    return str(time or "-").partition(".")[0].rstrip("Z") + ("Z" if time else "")


def _show(
    options: argparse.Namespace,
    display: Display,
    rows: Sequence[Row],
    head: Sequence[str],
    cells: Callable[[Row], Sequence[str]],
) -> int:
    if options.output == "json":
        display.line(json.dumps(rows, indent=2))
    elif rows:
        display.table(head, [cells(row) for row in rows])
    else:
        display.line("nothing to show")
    return 0
