"""FRR's bfdd as a peer: two daemons on two hosts of a lab with sessions between all their addresses.

BFD is the nearest thing to probing that routers have: each session sends at its interval and expects to hear as often.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Self

from benchmarks.peers.process import Peer
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.lab import Host

PROGRAM = Path("/usr/lib/frr/bfdd")  # where Debian puts it
OWNER = "frr"  # the package's user: the daemon gives root up

SESSION = """ peer {peer} local-address {local}
  transmit-interval {milliseconds}
  receive-interval {milliseconds}
"""


class Speaker(Peer):
    """One bfdd, without the routing daemon beside it."""

    def __init__(self, host: Host, pairs: Sequence[tuple[str, str]], milliseconds: int) -> None:
        super().__init__(host, "bfdd")
        configuration = self.directory / "bfdd.conf"
        sessions = [SESSION.format(peer=p, local=a, milliseconds=milliseconds) for a, p in pairs]
        configuration.write_text("bfd\n" + "".join(sessions), encoding="utf-8")
        for path in (self.directory, configuration):
            shutil.chown(path, OWNER, OWNER)
        self.start(
            [
                *(str(PROGRAM), "--config_file", str(configuration), "--pid_file", str(self.directory / "pid")),
                *("--socket", str(self.directory / "zebra"), "--vty_socket", str(self.directory), "--vty_port", "0"),
                *("--bfdctl", str(self.directory / "control"), "--log", "stdout"),
            ]
        )

    def up(self) -> int:
        """Sessions that are up."""
        argv = ["vtysh", "--vty_socket", str(self.directory), "-c", "show bfd peers json"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        self.demand_running()
        found = json.loads(done.stdout) if done.returncode == 0 else []
        return sum(session["status"] == "up" for session in found)


class Sessions:
    """Sessions between pairs of addresses, up while the context is open. bfdd has one for each address of the peer."""

    def __init__(self, near: Host, far: Host, pairs: Sequence[tuple[str, str]], milliseconds: int) -> None:
        self._start = (near, far, pairs, milliseconds)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        near, far, pairs, milliseconds = self._start
        with contextlib.ExitStack() as stack:
            self.near = Speaker(near, pairs, milliseconds)
            stack.callback(self.near.close)
            stack.callback(Speaker(far, [(there, here) for here, there in pairs], milliseconds).close)
            wanted = len(pairs)
            wait_for(self.near.up, lambda up: up == wanted, deadline=60, what=f"{wanted} sessions up", interval=0.5)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
