"""Runs an agent with a wall clock that is set from outside: `python -P launch.py CLOCK TREE ARGUMENT...`.

CLOCK is a file with the seconds by which the clock is off (a little-endian float64), which are read at every look.
Programs here ask `time`; the kernel stamps packets, as it does on a host whose clock is set. TREE is the source tree of
a release; empty: the one that is installed.
"""

from __future__ import annotations

import importlib
import mmap
import socket
import struct
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

SO_TIMESTAMPNS = 35
_OFFSET, _TIMESPEC = struct.Struct("<d"), struct.Struct("qq")
SECOND = 10**9


def set_clock(path: Path) -> None:
    """Let this process live by the clock of a file."""
    with path.open("rb") as file:
        clock = mmap.mmap(file.fileno(), _OFFSET.size, access=mmap.ACCESS_READ)
    right, recvmsg = time.time_ns, socket.socket.recvmsg

    def off() -> int:
        seconds: float = _OFFSET.unpack_from(clock)[0]
        return round(seconds * SECOND)

    def stamped(level: int, kind: int, data: bytes) -> tuple[int, int, bytes]:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            data = _TIMESPEC.pack(*divmod(seconds * SECOND + nanoseconds + off(), SECOND))
        return level, kind, data

    def receive(self: socket.socket, *arguments: Any) -> Any:
        packet, ancillary, *rest = recvmsg(self, *arguments)
        return packet, [stamped(*each) for each in ancillary], *rest

    setattr(time, "time_ns", lambda: right() + off())  # noqa: B010 - mypy knows no clock that can be replaced
    setattr(time, "time", lambda: (right() + off()) / SECOND)  # noqa: B010
    setattr(socket.socket, "recvmsg", receive)  # noqa: B010


def main() -> int:
    """Run the agent of a tree."""
    clock, tree, *sys.argv[1:] = sys.argv[1:]
    set_clock(Path(clock))
    entry = "ipmp_agent.commands.entry:main"
    if tree:
        rooms = [str(Path(tree, room)) for room in ("crds", "common", "node-agent")]
        sys.path[:0] = rooms
        entry = tomllib.loads(Path(tree, "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"][
            "ipmp-agent"
        ]
    module, _, function = entry.partition(":")
    code: int = getattr(importlib.import_module(module), function)()
    return code


if __name__ == "__main__":
    sys.exit(main())
