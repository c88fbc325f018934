"""Groups that follow each other at once: the agents of the last one are ending while those of the next begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster.product import Applied

if TYPE_CHECKING:
    from tests.cluster.cluster import Cluster


@pytest.mark.parametrize("turn", range(5))
def test_group_that_follows_the_last_one_at_once_leaves_the_kernel_as_it_was_found(
    installed: Cluster, turn: int
) -> None:
    with Applied(installed, f"turn{turn}"):
        pass
