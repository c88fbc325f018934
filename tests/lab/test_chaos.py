"""A short history of random faults, the same at every run; `make chaos` makes long ones."""

from __future__ import annotations

import pytest

from tests.chaos.history import Step
from tests.chaos.run import Settings, play

HISTORY = """
rest 1 909035
hangup 0 503013
plug 0 513348
unplug 1 167690
unplug 0 739031
slowclients 0 192549
silence 1 459871
bird 1 367354
rules 1 137506
bird 1 522079
flush 0 32828
change 1 921157
memory 0 11079
slowclients 0 325050
admindown 1 190822
switchhangs 1 175806
deadtarget 1 328319
runtimegone 0 887861
runtimegone 0 644017
loss 0 62946
readonlydisk 0 45806
rest 0 884202
networkd 0 1
clock 0 7
unplug 0 3
clock 1 19
"""
"""Drawn once, and written down, but for its end: another kind of faults would be another history of the same seed."""
NIC_BACK_WITHOUT_A_LINK = """
rest 0 1
switchdies 1 618150
hotunplug 0 456348
admindown 0 587193
"""
"""Nobody works, and its addresses were put back in the kernel while the status said that they are nowhere."""
PATIENCE = 60.0


@pytest.mark.parametrize(
    ("shape", "history"), [("two", HISTORY), ("twins", NIC_BACK_WITHOUT_A_LINK)], ids=["drawn", "NIC back, no link"]
)
def test_invariants_hold_after_every_fault_of_a_short_history(shape: str, history: str) -> None:
    steps = [Step.read(line) for line in history.split("\n") if line]
    outcome = play(Settings(shape, patience=PATIENCE), steps, progress=print)
    assert not outcome.violated, f"{outcome.violated}\n{outcome.log}"
    assert outcome.done == steps
