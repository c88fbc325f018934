"""Conditions and taint of ours on Nodes: read, and as intents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_api.status import cut
from ipmp_operator.core.model import Node

if TYPE_CHECKING:
    from datetime import datetime

    from ipmp_operator.core.node_marks import Marks
    from ipmp_service.api_server import Object

FAILED, DEGRADED = "IPMPFailed", "IPMPDegraded"
"""Types of our conditions."""

TAINT = "ipmp.dev/failed"
"""Key of our taint; pods that are there stay, new ones go elsewhere."""


def read_marked_node(obj: Object) -> tuple[str, Node]:
    """Read a Node with what we said on it."""
    metadata = obj["metadata"]
    conditions = (obj.get("status") or {}).get("conditions") or ()
    said = sorted(
        (one["type"], *(str(one.get(part) or "") for part in ("status", "reason", "message", "lastTransitionTime")))
        for one in conditions
        if one.get("type") in (FAILED, DEGRADED)
    )
    taints = (obj.get("spec") or {}).get("taints") or ()
    tainted = any(taint.get("key") == TAINT for taint in taints)
    return metadata["name"], Node(metadata["name"], metadata.get("labels") or {}, tuple(said), tainted)


def conditions_intent(node: Node, marks: Marks, now: datetime) -> Object | None:
    """The status of a Node as far as it is ours, for server-side apply; None: it says all that already.

    A condition keeps its time of transition while its status stays.
    """
    wanted = []
    if marks.health is not None:
        for kind, text, reason in (
            (DEGRADED, marks.health.degraded, "MembersFailed"),
            (FAILED, marks.health.failed, "NoUsableMember"),
        ):
            well = "every group has a usable member" if kind == FAILED else "every group has all its members"
            wanted.append((kind, str(bool(text)), reason if text else "AsExpected", cut(text or well)))
    if [said[:4] for said in node.conditions] == wanted:
        return None
    since = {(kind, status): time for kind, status, _, _, time in node.conditions}
    date = now.isoformat().replace("+00:00", "Z")
    conditions = [
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": since.get((kind, status)) or date,
        }
        for kind, status, reason, message in wanted
    ]
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name}, "status": {"conditions": conditions}}


def taints_patch(obj: Object, *, tainted: bool) -> Object | None:
    """A merge patch that gives just this version of a Node our taint, or takes it; None: it is so."""
    taints = (obj.get("spec") or {}).get("taints") or []
    others = [taint for taint in taints if taint.get("key") != TAINT]
    if (len(others) != len(taints)) is tainted:
        return None
    if tainted:
        others = [*others, {"key": TAINT, "effect": "NoSchedule"}]
    return {"metadata": {"resourceVersion": obj["metadata"]["resourceVersion"]}, "spec": {"taints": others}}
