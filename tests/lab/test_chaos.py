"""A short history of random faults, the same at every run; `make chaos` makes long ones."""

from __future__ import annotations

from tests.chaos.run import Settings, history, play

SEED, FAULTS, PATIENCE = "short/1", 20, 60.0


def test_invariants_hold_after_every_fault_of_a_short_history() -> None:
    _, steps = history(SEED, FAULTS)
    outcome = play(Settings("two", patience=PATIENCE), steps, progress=print)
    assert not outcome.violated, f"{outcome.violated}\n{outcome.log}"
    assert sum(outcome.counts.values()) == FAULTS
