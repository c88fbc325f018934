"""What every test needs."""

from __future__ import annotations

import asyncio

import pytest


@pytest.fixture(scope="session", autouse=True)
def _no_stray_event_loop() -> None:
    """Keep looptime from making, and never closing, an event loop for a test that has none."""
    asyncio.set_event_loop(None)
