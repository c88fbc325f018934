"""A peer's program in a host of the lab: started, asked what it says, ended."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.lab import Host

PATIENCE = 5.0  # seconds to end by itself


def processor_seconds(pids: Iterable[int]) -> float:
    """Processor time that these processes have used so far, in all their threads."""
    # clock_getcpuclockid(3): the kernel's number of a process's clock.
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)


class Peer:
    """One program with a directory of its own, which goes when it is closed. Configure it there, then `start` it."""

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.name = name
        self.directory = Path(tempfile.mkdtemp(prefix=f"{host.namespace.name}-{name}-"))
        self.log_path = self.directory / "log"

    def start(self, argv: Sequence[str]) -> None:
        """Start it; what it prints is its log."""
        with self.log_path.open("wb") as log:
            self.process = self.host.namespace.popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def log(self) -> str:
        """What it printed so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def demand_running(self) -> None:
        """Raise with its last words if it has ended."""
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended: {self.log}")

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(PATIENCE)
        shutil.rmtree(self.directory, ignore_errors=True)
