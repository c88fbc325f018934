"""How an agent that obeys the API server has the one that stands in for it hand over its host."""

from __future__ import annotations

import json
import logging
import socket
import time
from typing import TYPE_CHECKING

from ipmp_agent.disk.directories import SOCKET_NAME, InUseError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATIENCE = 15.0
"""Seconds in which the other agent must be gone: it may be starting just now, and answers when it is there."""

PAUSE = 0.02
"""Seconds between attempts: nobody looks after the host in this time."""

ANSWER = 2.0
"""Seconds that an answer may take."""

MARK = "cluster"
"""A file of the state directory: the API server has had its say about this host."""

log = logging.getLogger(__name__)


def obtain(runtime_directory: Path, occupy: Callable[[], None]) -> None:
    """Occupy the host, asking the agent that is here for it. Raises the last InUseError where it does not go."""
    deadline = time.monotonic() + PATIENCE
    said = ""
    granted = False
    while True:
        try:
            occupy()
        except InUseError as error:
            if time.monotonic() > deadline:
                raise
            if not granted:
                answer = _ask(runtime_directory)
                granted = answer.get("ok") is True
                words = str(answer.get("error", "")) or str(error)
                if not granted and words != said:
                    log.info("waiting for another agent: %s", words)
                    said = words
        else:
            return
        time.sleep(PAUSE)


def _ask(runtime_directory: Path) -> dict[str, object]:
    """What the agent that is here answers; empty: nothing that can be understood."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(ANSWER)
            line.connect(str(runtime_directory / SOCKET_NAME))
            line.sendall(b'{"op": "hand over"}\n')
            with line.makefile("rb") as answers:
                answer = json.loads(answers.readline(4096))
    except (OSError, ValueError):
        return {}
    return answer if isinstance(answer, dict) else {}


def mark(state_directory: Path) -> None:
    """Note that this host is the API server's: what stands in goes by the last configuration from there."""
    try:
        (state_directory / MARK).touch()
    except OSError as error:  # the state directory's own trouble is told elsewhere
        log.debug("%s", error)


def is_marked(state_directory: Path) -> bool:
    """Whether an agent that obeys the API server has been here."""
    return (state_directory / MARK).exists()
