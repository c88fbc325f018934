"""Where the agents run."""

from __future__ import annotations

from typing import Any

from ipmp_api.types import LabelRequirement, LabelSelector
from ipmp_operator.core.model import Node
from ipmp_operator.core.selection import MAX_NAMED_NODES, agent_terms

RACK_A = LabelSelector(match_labels=(("rack", "a"),))
RACK_B = LabelSelector(match_expressions=(LabelRequirement("rack", "In", ("b", "a")),))
NO_GPU = LabelSelector(match_expressions=(LabelRequirement("gpu", "DoesNotExist"),))
TERM_A = {"matchExpressions": [{"key": "rack", "operator": "In", "values": ["a"]}]}
TERM_B = {"matchExpressions": [{"key": "rack", "operator": "In", "values": ["a", "b"]}]}


def test_agents_run_where_any_group_selects() -> None:
    no_gpu = {"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]}
    assert agent_terms([RACK_A, NO_GPU], [], ()) == (no_gpu, TERM_A)


def test_one_group_for_all_nodes_is_enough_to_run_everywhere() -> None:
    assert agent_terms([RACK_A, LabelSelector()], [], ()) is None


def test_same_selectors_in_any_order_make_the_same_terms() -> None:
    assert agent_terms([RACK_A, RACK_B, RACK_A], [], ()) == agent_terms([RACK_B, RACK_A], [], ())


def test_terms_of_a_deleted_group_stay_while_its_nodes_withdraw() -> None:
    withdrawing = [Node("x", {"rack": "a"})]
    assert agent_terms([], withdrawing, (TERM_A, TERM_B)) == (TERM_A,)
    assert agent_terms([NO_GPU], [], (TERM_A,)) == agent_terms([NO_GPU], [], ())


def test_node_that_no_term_covers_any_more_is_named_until_it_has_withdrawn() -> None:
    named = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["x"]}]}
    withdrawing = [Node("x", {"rack": "c"}), Node("y", {"rack": "a"})]
    terms = agent_terms([RACK_A], withdrawing, (TERM_A,))
    assert terms == (TERM_A, named)
    assert agent_terms([RACK_A], withdrawing, terms) == terms
    assert agent_terms([RACK_A], [], terms) == (TERM_A,)


def test_too_many_single_nodes_to_name_means_everywhere() -> None:
    crowd = [Node(f"n{number}") for number in range(MAX_NAMED_NODES + 1)]
    assert agent_terms([RACK_A], crowd, (TERM_A,)) is None
    assert agent_terms([RACK_A], crowd[1:], (TERM_A,)) is not None


def test_agents_that_run_everywhere_stay_there_while_any_node_withdraws() -> None:
    assert agent_terms([RACK_A], [Node("x")], None) is None
    assert agent_terms([RACK_A], [], None) == (TERM_A,)


def test_kept_term_may_compare_numbers_as_the_affinity_of_an_earlier_template_did() -> None:
    def term(operator: str) -> dict[str, Any]:
        numbered = {"key": "slots", "operator": operator, "values": ["2"]}
        return {"matchExpressions": [*TERM_A["matchExpressions"], numbered]}

    named = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["x"]}]}
    for slots, kept in (("4", "Gt"), ("1", "Lt")):
        node = Node("x", {"rack": "a", "slots": slots})
        assert agent_terms([], [node], (term("Gt"), term("Lt"))) == (term(kept),)
    for labels in ({"rack": "a"}, {"rack": "a", "slots": "many"}):
        assert agent_terms([], [Node("x", labels)], (term("Gt"), term("Lt"))) == (named,)
