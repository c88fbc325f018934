from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ipmp_operator.core.peers import PEERS_PER_NODE, choose_peers

NODES = st.sets(st.integers(0, 999).map(lambda number: f"n{number}"), max_size=40)


@given(nodes=NODES)
def test_every_node_has_five_others_or_all_there_are_and_none_is_probed_by_more(nodes: set[str]) -> None:
    chosen = choose_peers("g", nodes)
    assert set(chosen) == nodes
    for node, peers in chosen.items():
        assert len(set(peers)) == len(peers) == min(PEERS_PER_NODE, len(nodes) - 1)
        assert set(peers) <= nodes - {node}
    probed = Counter(peer for peers in chosen.values() for peer in peers)
    assert all(count <= PEERS_PER_NODE for count in probed.values())


@given(nodes=NODES)
def test_node_that_comes_changes_few_others(nodes: set[str]) -> None:
    before = choose_peers("g", nodes)
    after = choose_peers("g", nodes | {"new"})
    changed = [node for node in before if before[node] != after[node]]
    assert len(changed) <= PEERS_PER_NODE
    assert all("new" in after[node] for node in changed)


def test_order_in_which_nodes_are_given_does_not_matter() -> None:
    nodes = [f"n{number}" for number in range(20)]
    assert choose_peers("g", nodes) == choose_peers("g", reversed(nodes))


def test_groups_differ() -> None:
    nodes = [f"n{number}" for number in range(20)]
    assert choose_peers("g", nodes) != choose_peers("h", nodes)
