"""Which other nodes of a group each node probes.

Rendezvous hashing in its ring form: every node has one hash for the group, and a node's peers are those that follow
it on the ring. It costs n log n where scoring every pair costs n squared, a node that comes or goes changes the peers
of at most `PEERS_PER_NODE` others, and no node is probed by more than that many.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

PEERS_PER_NODE = 5
"""Other nodes that one node probes."""


def choose_peers(group: str, nodes: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """For every node up to `PEERS_PER_NODE` other nodes, the nearest on the ring first."""
    ring = sorted(nodes, key=lambda node: (_hash(group, node), node))
    count = min(PEERS_PER_NODE, len(ring) - 1)
    wrapped = ring + ring[:count]
    return {node: tuple(wrapped[at + 1 : at + 1 + count]) for at, node in enumerate(ring)}


def _hash(group: str, node: str) -> bytes:
    return blake2b(f"{group}/{node}".encode(), digest_size=8).digest()
