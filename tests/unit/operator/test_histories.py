"""Random histories of a cluster, the same at every run; `make chaos-virtual` runs others."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

from tests.chaos.plan import Cluster

TestCluster = Cluster.TestCase
TestCluster.settings = settings(
    max_examples=30,
    stateful_step_count=20,
    derandomize=True,
    phases=[Phase.generate],  # `make chaos-virtual` shrinks
    suppress_health_check=list(HealthCheck),
)
