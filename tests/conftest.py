"""What every test needs."""

from __future__ import annotations

import asyncio

import hypothesis
import pytest

# How long an example takes says how busy the machine is, and nothing of the product.
hypothesis.settings.register_profile("timeless", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("timeless")


@pytest.fixture(scope="session", autouse=True)
def _no_stray_event_loop() -> None:
    """Keep looptime from making, and never closing, an event loop for a test that has none."""
    asyncio.set_event_loop(None)
