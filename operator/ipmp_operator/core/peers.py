"""Which other nodes of a group each node probes.

Every node has one hash for the group, and in a new group a node's peers are those that follow it on the ring of hashes.
A node keeps its peers as long as they are there: to change them costs a write of its node group, and nothing is better
about a nearer one. Only a node that lacks some is given others, the next on the ring that are probed by the fewest.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from hashlib import blake2b
from itertools import chain, count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

PEERS_PER_NODE = 5
"""Other nodes that one node probes."""


def choose_peers(group: str, nodes: Iterable[str], before: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """For every node up to `PEERS_PER_NODE` other nodes.

    Args:
        group: its name, so that groups differ.
        nodes: all nodes of the group.
        before: by node, the peers that it has; it keeps those that are among `nodes`.
    """
    ring = sorted(nodes, key=lambda node: (_hash(group, node), node))
    place = {node: at for at, node in enumerate(ring)}
    wanted = min(PEERS_PER_NODE, len(ring) - 1)
    chosen = {node: [peer for peer in before.get(node, ()) if peer in place and peer != node][:wanted] for node in ring}
    probed = Counter(chain.from_iterable(chosen.values()))
    lacking = [node for node in ring if len(chosen[node]) < wanted]
    for limit in count(PEERS_PER_NODE):
        if not lacking:
            return {node: tuple(peers) for node, peers in chosen.items()}
        free = [node for node in ring if probed[node] < limit]
        places = [place[node] for node in free]
        for node in lacking:
            peers = chosen[node]
            for peer in _onward(free, bisect_right(places, place[node])):
                if len(peers) == wanted:
                    break
                if probed[peer] < limit and peer != node and peer not in peers:
                    peers.append(peer)
                    probed[peer] += 1
        lacking = [node for node in lacking if len(chosen[node]) < wanted]
    raise AssertionError("the limits have no end")


def _onward(ring: Sequence[str], start: int) -> Iterator[str]:
    """All of them, from a place on the ring and round it."""
    return (ring[(start + step) % len(ring)] for step in range(len(ring)))


def _hash(group: str, node: str) -> bytes:
    return blake2b(f"{group}/{node}".encode(), digest_size=8).digest()
