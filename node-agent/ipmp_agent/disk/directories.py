"""The two directories of an agent, each belonging to one running agent at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LOCK_NAME = "agent.lock"
SOCKET_NAME = "agent.sock"

OF_THE_DISK = frozenset({errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE})
"""What a disk says that is broken or full: nobody chose a wrong directory, and the agent works without it."""

log = logging.getLogger(__name__)


class InUseError(Exception):
    """Another agent works in this directory."""


class Directory:
    """A directory held by this process until it ends, however it ends."""

    def __init__(self, path: Path, option: str, mode: int) -> None:
        """Raises InUseError naming the other agent's pid, and OSError where the directory cannot be made."""
        self.path = path
        self._descriptor = _open(path, option, mode)
        if self._descriptor is None:
            return
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _pid(path) or "unknown"
            os.close(self._descriptor)
            raise InUseError(
                f"another agent (pid {pid}) runs with {option} {path}: stop it first, or choose another directory"
            ) from None
        with contextlib.suppress(OSError):  # it only names the process: the lock holds without
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let others have it. The lock file stays: removing it would race with the next agent."""
        if self._descriptor is not None:
            os.close(self._descriptor)


def _open(path: Path, option: str, mode: int) -> int | None:
    """What is locked: the lock file; on a disk that takes nothing the directory; None where that cannot be had."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=mode)
        return os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in OF_THE_DISK:
            raise
        log.error("%s %s takes nothing: %s; working without it", option, path, error)  # noqa: TRY400 - all is said
    for locked in (path / LOCK_NAME, path):
        with contextlib.suppress(OSError):
            return os.open(locked, os.O_RDONLY | os.O_CLOEXEC)
    return None


def _pid(path: Path) -> str:
    try:
        text = (path / LOCK_NAME).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
    return text if text.isdigit() else ""


def holder(path: Path) -> int | None:
    """The pid of the agent that works in this directory; None when there is none."""
    for locked in (path / LOCK_NAME, path):
        try:
            descriptor = os.open(locked, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _pid(path)
            return int(pid) if pid else None
        except OSError:
            continue
        finally:
            os.close(descriptor)
    return None
