"""Fixtures of the lab ladder: it needs root, `ip` and `nft`, and says what is missing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab import Lab
from tests.prerequisites import LADDERS, missing_packages

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.lab)


@pytest.fixture(scope="session", autouse=True)
def _able() -> None:
    """Fail, never skip: a ladder that was asked for is climbed."""
    missing = missing_packages(LADDERS["lab"])
    if missing:
        pytest.fail(f"the lab needs {', '.join(missing)}: python -m tests.prerequisites lab", pytrace=False)
    if os.geteuid() != 0:
        pytest.fail("the lab makes network namespaces: run it as root", pytrace=False)


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """One host with two NICs on two switches, a peer on each switch; a parameter has what differs."""
    with Lab(**getattr(request, "param", {})) as running:
        yield running
