from __future__ import annotations

from collections import Counter
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from ipmp_operator.core.peers import PEERS_PER_NODE, choose_peers

NAMES = st.integers(0, 999).map(lambda number: f"n{number}")
NODES = st.sets(NAMES, max_size=40)


@given(nodes=NODES)
def test_every_node_has_five_others_or_all_there_are_and_none_is_probed_by_more(nodes: set[str]) -> None:
    chosen = choose_peers("g", nodes, {})
    assert set(chosen) == nodes
    for node, peers in chosen.items():
        assert len(set(peers)) == len(peers) == min(PEERS_PER_NODE, len(nodes) - 1)
        assert set(peers) <= nodes - {node}
    probed = Counter(chain.from_iterable(chosen.values()))
    assert all(count <= PEERS_PER_NODE for count in probed.values())


@given(nodes=NODES, turns=st.lists(st.tuples(NODES, NODES), max_size=4))
def test_who_has_peers_keeps_those_that_stay_whoever_comes_and_goes(
    nodes: set[str], turns: list[tuple[set[str], set[str]]]
) -> None:
    chosen = choose_peers("g", nodes, {})
    for come, go in turns:
        before, nodes = chosen, (nodes | come) - go
        chosen = choose_peers("g", nodes, before)
        for node, peers in chosen.items():
            assert len(set(peers)) == len(peers) == min(PEERS_PER_NODE, len(nodes) - 1)
            assert set(peers) <= nodes - {node}
            kept = [peer for peer in before.get(node, ()) if peer in nodes]
            assert list(peers[: len(kept)]) == kept
        assert choose_peers("g", nodes, chosen) == chosen


def test_nodes_that_come_are_probed_too_and_nobody_by_many() -> None:
    """Of thousands, one in ten goes and as many come, ten times over."""
    nodes = {f"n{number}" for number in range(500)}
    chosen = choose_peers("g", nodes, {})
    for turn in range(10):
        gone = set(sorted(nodes)[turn::10])
        nodes = (nodes - gone) | {f"m{turn}.{number}" for number in range(len(gone))}
        chosen = choose_peers("g", nodes, chosen)
    probed = Counter(chain.from_iterable(chosen.values()))
    assert max(probed.values()) <= PEERS_PER_NODE + 1
    assert min(probed[node] for node in nodes) >= PEERS_PER_NODE - 2


def test_order_in_which_nodes_are_given_does_not_matter() -> None:
    nodes = [f"n{number}" for number in range(20)]
    assert choose_peers("g", nodes, {}) == choose_peers("g", reversed(nodes), {})


def test_groups_differ() -> None:
    nodes = [f"n{number}" for number in range(20)]
    assert choose_peers("g", nodes, {}) != choose_peers("h", nodes, {})
