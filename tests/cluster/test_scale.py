"""A few hundred nodes before the operator: what is written, and what is not; `make scale` plays it with thousands.

Counts only: how long it takes, and what it costs, is for benchmarks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scale import scenes
from tests.scale.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NODES = 150


@pytest.fixture(scope="module")
def stage(tools: Path) -> Iterator[Stage]:
    """A control plane with played nodes and the operator of these sources."""
    with Stage(NODES) as up:
        yield up


def test_hundreds_of_nodes_are_written_once_and_again_only_for_a_cause(stage: Stage) -> None:
    applied = stage.bill(scenes.apply)
    assert (applied.created, applied.respecified, applied.faults) == (NODES, 0, [])
    failed = stage.bill(scenes.switch)
    assert (failed.created, failed.respecified, failed.faults) == (0, 0, [])
    assert failed.reports == 2 * NODES
    turned = stage.bill(scenes.turnover)
    assert turned.faults == []
    assert turned.facts["rewritten as others came"] == 0
    assert turned.created == NODES // scenes.TURNOVER
    succeeded = stage.bill(scenes.killed)
    assert (succeeded.created, succeeded.respecified, succeeded.faults) == (0, 0, [])
    assert succeeded.requests["APPLY ipmpnodegroups"] == 0, "what is there already is not written again"
    deleted = stage.bill(scenes.deletion)
    assert (deleted.created, deleted.respecified, deleted.faults) == (0, 0, [])
