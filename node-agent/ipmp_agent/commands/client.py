"""The other end of the control socket, for the commands that speak with a running agent."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from ipmp_agent.disk.directories import SOCKET_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

RUNTIME_DIRECTORY = "/run/ipmp"
ANSWER_TIMEOUT = 5.0
"""Seconds to wait for an answer. libipmp IPMP_REQTIMEOUT."""


class UnreachableError(Exception):
    """No agent answers."""


class AgentRefusedError(Exception):
    """The agent answers, and says no."""


class ClientParser(argparse.ArgumentParser):
    """Options of a command; a wrong one ends it with 1, as in the original's ipmpstat and if_mpadm, instead of 2."""

    def error(self, message: str) -> NoReturn:
        """Say how it is used and what is wrong, and end."""
        self.print_usage(sys.stderr)
        self.exit(1, f"{self.prog}: {message}\n")


def runtime_directory(option: Path | None) -> Path:
    """Where the agent's socket is: the option, else $IPMP_RUNTIME_DIR, else /run/ipmp."""
    return option or Path(os.environ.get("IPMP_RUNTIME_DIR") or RUNTIME_DIRECTORY)


class Client:
    """One connection. A context manager."""

    def __init__(self, directory: Path) -> None:
        """Raises UnreachableError."""
        self.path = directory / SOCKET_NAME
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(ANSWER_TIMEOUT)
        try:
            self._socket.connect(str(self.path))
        except OSError as error:
            self._socket.close()
            raise self._unreachable(error) from error
        self._lines = self._socket.makefile("rb")

    def _unreachable(self, error: OSError) -> UnreachableError:
        if isinstance(error, PermissionError):
            return UnreachableError(f"may not use {self.path}: run this as root")
        why = error.strerror or error
        return UnreachableError(
            f"the agent does not answer at {self.path} ({why}): is IPMP in use on this node? "
            "Start ipmp-agent, or name its directory with --runtime-dir"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one request; return the answer. Raises UnreachableError and RefusedError."""
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            line = self._lines.readline()
        except OSError as error:
            raise self._unreachable(error) from error
        if not line:
            raise UnreachableError(f"the agent at {self.path} closed the connection: is it stopping?")
        answer: dict[str, Any] = json.loads(line)
        if not answer["ok"]:
            raise AgentRefusedError(answer["error"])
        return answer

    def stream(self, **request: Any) -> Iterator[dict[str, Any]]:
        """Send one request; return everything that comes until the agent ends."""
        self.ask(**request)
        self._socket.settimeout(None)
        for line in self._lines:
            yield json.loads(line)
