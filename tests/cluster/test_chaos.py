"""A short history of faults of Kubernetes, the same at every run; `make chaos-cluster` makes long ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos.cluster import ClusterOutcome, play
from tests.chaos.history import Step

if TYPE_CHECKING:
    from tests.cluster.cluster import Cluster

HISTORY = """
agentkilled 0 810532
watchescut 0 410533
finalizerremoved 1 241804
operatorkilled 0 587737
cable 1 984050
nodegroupdeleted 0 299920
"""
"""Drawn once, of those that are over within seconds, and written down."""


def test_invariants_hold_after_every_fault_of_a_short_history(installed: Cluster) -> None:
    steps, outcome = [Step.read(line) for line in HISTORY.split("\n") if line], ClusterOutcome()
    play(installed, steps, outcome)
    assert outcome.done == steps
