"""Where the agents have to run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from ipmp_api.types import LabelSelector
    from ipmp_operator.core.model import Node

MAX_NAMED_NODES = 100
"""Nodes named one by one in the affinity. Beyond, it would be longer than the objects it belongs to: agents then run
everywhere for the moment it takes to withdraw, which does no harm where no node group exists."""

Term = dict[str, Any]


def affinity_term(selector: LabelSelector) -> Term | None:
    """The node selector term that selects the same nodes; None for the empty selector, which has none."""
    expressions: list[Term] = [
        {"key": key, "operator": "In", "values": [value]} for key, value in sorted(selector.match_labels)
    ]
    for requirement in sorted(selector.match_expressions, key=lambda r: (r.key, r.operator, r.values)):
        expression: Term = {"key": requirement.key, "operator": requirement.operator}
        if requirement.values:
            expression["values"] = sorted(requirement.values)
        expressions.append(expression)
    return {"matchExpressions": expressions} if expressions else None


def _term_selects(term: Term, node: Node) -> bool:
    """Whether a term of our own making selects the node; the empty term selects nothing."""
    by_label = term.get("matchExpressions") or ()
    by_name = term.get("matchFields") or ()
    return bool(by_label or by_name) and all(
        _holds(e["operator"], labels.get(e["key"]), e.get("values") or ())
        for expressions, labels in ((by_label, node.labels), (by_name, {"metadata.name": node.name}))
        for e in expressions
    )


def _holds(operator: str, value: str | None, values: Collection[str]) -> bool:
    match operator:
        case "In":
            return value in values
        case "NotIn":
            return value not in values  # a missing label is not in the set either: the API server's rule
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt":  # of a template's own affinity, by an earlier template
            number, bound = _integer(value), _integer(*values)
            return number is not None and bound is not None and (number > bound if operator == "Gt" else number < bound)
    raise ValueError(f"unknown label selector operator {operator!r}")


def _integer(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None


def agent_terms(
    selectors: Iterable[LabelSelector], withdrawing: Iterable[Node], existing: Sequence[Term] | None
) -> tuple[Term, ...] | None:
    """The node affinity terms of the agents: None for all nodes.

    Agents run where a group selects, and stay where a node group is still being withdrawn. For the latter the
    existing terms (of the group that went away) are kept while they cover such a node, and single nodes are named
    otherwise. `existing` is None where the agents run everywhere now, empty where none run. The result is sorted,
    because any change of a pod template restarts every agent.
    """
    terms: dict[str, Term] = {}
    for selector in selectors:
        term = affinity_term(selector)
        if term is None:
            return None
        terms[repr(term)] = term
    uncovered = [node for node in withdrawing if not any(_term_selects(term, node) for term in terms.values())]
    if uncovered and existing is None:
        return None
    for term in existing or ():
        left = [node for node in uncovered if not _term_selects(term, node)]
        if len(left) < len(uncovered):
            terms[repr(term)] = term
            uncovered = left
    if len(uncovered) > MAX_NAMED_NODES:
        return None
    for node in uncovered:
        term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node.name]}]}
        terms[repr(term)] = term
    return tuple(terms[key] for key in sorted(terms))
