"""A change of configuration on trial: it stays only if what answered the node before it answers after it.

What answers has a name here and nothing more. A look is one attempt to hear from all of it.
"""

from __future__ import annotations

import math
from enum import Enum

from ipmp_agent.core import timers


class TrialVerdict(Enum):
    """What becomes of a change."""

    OPEN = "open"
    KEPT = "kept"
    LOST = "lost"  # something that answered before does not any more


class Blame(Enum):
    """Whether an undone change was the reason for what was lost."""

    OPEN = "open"
    CHANGE = "change"
    OTHERS = "others"


class Trial:
    """One change, or several that came together, until it is known whether they may stay.

    Looks are counted, not seconds of silence: an agent that was stopped for a while did not look.

    Args:
        before: what answered before the change.
        now: monotonic seconds, before anything was changed.
        patience: until then, silence says nothing of what has not answered yet in this trial.
    """

    def __init__(self, before: frozenset[str], now: float, patience: float = -math.inf) -> None:
        self.before = before
        self._until = now + timers.TRIAL
        self._patience = patience
        # Looks in a row without an answer, counted twice. A change that joins the trial may be what mends a silence, so
        # it starts `_silent` anew; changes that keep coming must not hide a loss for ever, so `_away` goes on.
        self._silent = dict.fromkeys(before, 0)
        self._away = dict.fromkeys(before, 0)
        self._heard: set[str] = set()

    def joined(self, reached: frozenset[str]) -> None:
        """Another change comes: this answered before it, too."""
        self.before |= reached
        self._silent = dict.fromkeys(self.before, 0) | self._silent
        self._away = dict.fromkeys(self.before, 0) | self._away

    def applied(self, now: float) -> None:
        """The change has been carried out, or another one that joined it: it may be what mends the silence."""
        self._until = now + timers.TRIAL
        self._silent = dict.fromkeys(self.before, 0)

    def unplugged(self, now: float) -> None:
        """A group has lost every link it had: silence is the cables' until they are back, and then the switches'.

        From now on it counts of who has answered since, or once the time is over that a switch may take.
        """
        self._silent = dict.fromkeys(self.before, 0)
        self._away = dict.fromkeys(self.before, 0)
        self._heard.clear()
        self._patience = now + timers.QUIET_PERIOD

    def looked(self, answered: frozenset[str], now: float) -> TrialVerdict:
        """Take what answered in one look."""
        self._count(self._silent, self.before, answered, now)
        if self.overtaken(self.before, answered, now) is TrialVerdict.LOST:
            return TrialVerdict.LOST
        return TrialVerdict.KEPT if now >= self._until and self.before <= answered else TrialVerdict.OPEN

    def overtaken(self, asked: frozenset[str], answered: frozenset[str], now: float) -> TrialVerdict:
        """Take a look during which another change came: it says nothing of that one, but silence goes on."""
        self._count(self._away, asked, answered, now)
        return TrialVerdict.LOST if self.lost else TrialVerdict.OPEN

    def _count(self, silence: dict[str, int], asked: frozenset[str], answered: frozenset[str], now: float) -> None:
        # Within the patience only what has answered in this trial can fall silent.
        self._heard |= answered
        for name in asked if now >= self._patience else asked & self._heard:
            silence[name] = 0 if name in answered else silence[name] + 1

    @property
    def lost(self) -> frozenset[str]:
        """What answered before and is silent now."""
        silent = {name for name, looks in self._silent.items() if looks >= timers.TRIAL_LOOKS}
        return frozenset(silent | {name for name, looks in self._away.items() if looks >= timers.TRIAL_LOOKS_AT_MOST})


class Aftermath:
    """What follows an undone change: if what was lost comes back at once, the change was to blame.

    If it comes back later, it was gone for another reason, and the change deserves another trial.

    Args:
        lost: what the change was undone for.
        now: monotonic seconds, once the change was undone.
    """

    def __init__(self, lost: frozenset[str], now: float) -> None:
        self.lost = lost
        self._until = now + timers.TRIAL

    def looked(self, answered: frozenset[str], now: float) -> Blame:
        """Take what answered in one look."""
        if not self.lost <= answered:
            return Blame.OPEN
        return Blame.CHANGE if now <= self._until else Blame.OTHERS
