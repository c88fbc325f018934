"""Groups that follow each other at once: the agents of the last one are ending while those of the next begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import invariants
from tests.cluster.product import Applied
from tests.lab.dump import KernelDump

if TYPE_CHECKING:
    from tests.cluster.cluster import Cluster


@pytest.mark.parametrize("turn", range(3))
def test_group_that_follows_the_last_one_at_once_leaves_the_kernel_as_it_was_found(
    installed: Cluster, turn: int
) -> None:
    with Applied(installed, f"turn{turn}"):
        pass


@pytest.mark.parametrize("turn", range(3))
def test_group_that_takes_over_from_one_that_is_being_deleted_leaves_the_kernel_as_it_was_found(
    installed: Cluster, turn: int
) -> None:
    nodes = installed.nodes
    before = {node: KernelDump.take(nodes[node].run) for node in nodes}
    with Applied(installed, f"old{turn}") as old:
        installed.kubectl("delete", "ipmpgroup", old.name, "--wait=false")
        with Applied(installed, f"new{turn}") as new:
            new._before = before
    for node in nodes:
        invariants.as_it_was_found(before[node], KernelDump.take(nodes[node].run))
