"""SIGHUP, which asks for a reload: it never ends an agent, be it one that still starts or one that stops.

Imports next to nothing, so that it can be installed before what takes long to import.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


class Hangup:
    """What SIGHUP does. For the main thread only, as signals are."""

    def __init__(self) -> None:
        self._reload: Callable[[], object] | None = None
        self._missed = False

    def catch(self) -> None:
        """From now on the signal is heard; until somebody obeys it is kept in mind."""
        signal.signal(signal.SIGHUP, self._heard)

    def obey(self, reload: Callable[[], object]) -> None:
        """Have this called, between two instructions of the main thread, at every signal and for those kept in mind."""
        self._reload = reload
        if self._missed:
            self._missed = False
            reload()

    def ignore(self) -> None:
        """From now to the end of the process the signal does nothing: Python gives its own handlers up before that."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _heard(self, _number: int, _frame: FrameType | None) -> None:
        if self._reload is None:
            self._missed = True
        else:
            self._reload()
