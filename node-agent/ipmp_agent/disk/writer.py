"""The thread that writes the state file: a disk that hangs, is full or read-only delays no failover."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from ipmp_agent.core.findings import Finding
from ipmp_agent.core.reasons import Reason
from ipmp_agent.disk import state
from ipmp_service.threads import kept

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ipmp_agent.disk.state import SavedState

log = logging.getLogger(__name__)


class StateWriter:
    """Writes the newest state in a thread of its own.

    States that come while one is being written replace each other. A failed write is said once and tried again, less
    and less often; until it succeeds the state is kept in another directory.

    Args:
        directory: of the state file.
        failed: called after each write that the directory did not take.
        beside: takes the state meanwhile; None: nothing does.
    """

    RETRY = 5.0
    """Seconds until a failed write is tried again, doubling."""
    RETRY_MAXIMUM = 60.0

    HANGING = 1.0
    """Seconds without a word from the disk after which people are told."""

    def __init__(self, directory: Path, failed: Callable[[], None], beside: Path | None = None) -> None:
        self._directory = directory
        self._failed = failed
        self._beside = beside
        self._newest: SavedState | None = None
        self._owed: SavedState | None = None  # what the directory did not take
        self._wait = self.RETRY
        self._closing = False
        self._trouble: Finding | None = None
        self._behind_since: float | None = None  # monotonic: nothing that was put is safe since
        self._wake = threading.Condition()
        self._thread = kept(self._run, "state")
        self._thread.start()

    def put(self, state: SavedState) -> None:
        """Have this written soon. Never blocks on the disk."""
        with self._wake:
            self._newest = state
            self._wake.notify_all()

    def written(self, timeout: float) -> bool:
        """Wait until all that was put is on a disk; False if it is not. From any thread.

        Args:
            timeout: seconds to wait at most. A disk that has taken nothing for so long hangs, and is not waited for
                anew: many who come one after the other wait once.
        """
        end = time.monotonic() + timeout
        with self._wake:
            while self._newest is not None or self._behind_since is not None:
                given_up = end if self._behind_since is None else min(end, self._behind_since + timeout)
                remaining = given_up - time.monotonic()
                if remaining <= 0:
                    return False
                self._wake.wait(remaining)
            return True

    def findings(self) -> tuple[Finding, ...]:
        """What stands in the way of a later agent that is to know what this one knows. From any thread."""
        trouble, behind = self._trouble, self._behind_since
        if trouble is None and behind is not None and time.monotonic() - behind > self.HANGING:
            trouble = self._not_kept("the disk does not answer")
        return () if trouble is None else (trouble,)

    def close(self, timeout: float = 5.0) -> None:
        """Write what is still to be written, waiting at most `timeout` seconds for the disk."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join(timeout)
        if self._thread.is_alive():
            log.error("the state file in %s could not be written within %.0f s", self._directory, timeout)

    def _run(self) -> None:
        while True:
            with self._wake:
                patience = self._wait if self._owed is not None else None
                self._wake.wait_for(lambda: self._newest is not None or self._closing, patience)
                fresh, self._newest = self._newest, None
                if fresh is not None and self._behind_since is None:
                    self._behind_since = time.monotonic()
                last = self._closing
            newest = fresh or self._owed
            if newest is None:
                return
            safe = self._write(newest)
            with self._wake:
                if safe:
                    self._behind_since = None
                    self._wake.notify_all()
            if last and self._owed is not None:
                return

    def _write(self, newest: SavedState) -> bool:
        """Write it; returns whether it is on any disk."""
        try:
            refusal = state.keep(self._directory, newest, self._beside)
        except OSError as error:
            self._complain(self._not_kept(str(error)), newest)
            return False
        if refusal is not None:
            message = f"cannot write the state file in {self._directory}: {refusal}; it is kept in {self._beside}"
            self._complain(Finding(Reason.STATE_ELSEWHERE, message), newest)
            return True
        if self._trouble is not None:
            log.info("the state file in %s is written again", self._directory)
        self._trouble = self._owed = None
        self._wait = self.RETRY
        return True

    def _complain(self, trouble: Finding, newest: SavedState) -> None:
        self._failed()
        if self._trouble is None or self._trouble.reason is not trouble.reason:
            log.error("%s; will go on trying", trouble.message)
        if self._owed is newest:
            self._wait = min(2 * self._wait, self.RETRY_MAXIMUM)
        self._trouble, self._owed = trouble, newest

    def _not_kept(self, why: str) -> Finding:
        message = (
            f"cannot write the state file in {self._directory}: {why}. What this host has cannot be remembered, so no"
            " further address of it is adopted, until the disk takes it"
        )
        return Finding(Reason.STATE_NOT_KEPT, message)
