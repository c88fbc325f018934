"""The two directories of an agent, each belonging to one running agent at a time."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LOCK_NAME = "agent.lock"
SOCKET_NAME = "agent.sock"


class InUseError(Exception):
    """Another agent works in this directory."""


class Directory:
    """A directory held by this process until it ends, however it ends."""

    def __init__(self, path: Path, option: str, mode: int) -> None:
        """Raises InUseError naming the other agent's pid, and OSError where the directory cannot be made."""
        self.path = path
        path.mkdir(parents=True, exist_ok=True, mode=mode)
        self._descriptor = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            raise InUseError(
                f"another agent (pid {pid}) runs with {option} {path}: stop it first, or choose another directory"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let others have it. The lock file stays: removing it would race with the next agent."""
        os.close(self._descriptor)


def holder(path: Path) -> int | None:
    """The pid of the agent that works in this directory; None when there is none."""
    try:
        with (path / LOCK_NAME).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = (path / LOCK_NAME).read_text(encoding="utf-8", errors="replace").strip()
        return int(text) if text.isdigit() else None
    except OSError:
        return None
    return None
