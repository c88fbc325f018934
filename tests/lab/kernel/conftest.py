"""Fixtures of the kernel tests: the façade, running inside the lab's host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab.kernel.running import RunningKernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab import Lab


@pytest.fixture
def start_kernel(lab: Lab) -> Iterator[Callable[[], RunningKernel]]:
    """Start a façade on the host; what still runs at the end is closed."""
    running: list[RunningKernel] = []

    def start() -> RunningKernel:
        running.append(RunningKernel(lab.host.namespace))
        return running[-1]

    yield start
    for each in running:
        each.close()


@pytest.fixture
def kernel(start_kernel: Callable[[], RunningKernel]) -> RunningKernel:
    """A façade on the host with two NICs."""
    return start_kernel()
