"""Random histories of a group, the same at every run; `make chaos-virtual` runs others, and as many as one likes."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

from tests.chaos.core import Group

TestGroup = Group.TestCase
TestGroup.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    derandomize=True,
    phases=[Phase.generate],  # shrinking takes minutes; the failing history is printed as it is
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
