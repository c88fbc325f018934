"""keepalived on a host of the lab: one VRRP instance with one VIP."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    import subprocess

    from tests.lab.topology import Host

CONFIGURATION = """
global_defs {{
  router_id {name}
}}
vrrp_instance VI {{
  state BACKUP
  {preempt}
  interface {interface}
  virtual_router_id 51
  priority {priority}
  advert_int {advert:g}
  version 3
  virtual_ipaddress {{
    {vip} dev {interface}
  }}
}}
"""
PATIENCE = 20.0


def prepare(
    directory: Path, host: str, interface: str, priority: int, vip: str, *, advert: float = 0.3, preempt: bool = True
) -> list[str]:
    """Write the configuration of one instance, which begins as a backup; returns the command that runs it.

    Args:
        directory: where configuration and pid files are.
        host: the router's name.
        interface: on which it speaks, and has the VIP.
        priority: who has the highest is master.
        vip: with or without prefix length.
        advert: seconds between advertisements.
        preempt: take the VIP from a living master of lower priority.
    """
    text = CONFIGURATION.format(
        name=host,
        preempt="" if preempt else "nopreempt",
        interface=interface,
        priority=priority,
        advert=advert,
        vip=vip,
    )
    (directory / "keepalived.conf").write_text(text, encoding="utf-8")
    return [
        *("keepalived", "--dont-fork", "--log-console", "--log-detail", "--vrrp"),
        *("--use-file", str(directory / "keepalived.conf")),
        *("--pid", str(directory / "pid")),
        *("--vrrp_pid", str(directory / "vrrp_pid")),
    ]


def states(log: str) -> list[str]:
    """The states that an instance entered, oldest first: BACKUP, MASTER, FAULT."""
    words = [line.split() for line in log.splitlines() if "Entering" in line and "STATE" in line]
    return [line[line.index("STATE") - 1] for line in words]


class Keepalived:
    """The real daemon, from `start` to `stop` and at the latest to the exit."""

    def __init__(self, host: Host, interface: str, priority: int, vip: str) -> None:
        self._host = host
        self._directory = tempfile.TemporaryDirectory()
        self._path = Path(self._directory.name)
        self._command = prepare(self._path, host.name, interface, priority, vip)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._directory.cleanup()

    def start(self) -> None:
        """Start it."""
        with (self._path / "log").open("wb") as log:
            self._process = self._host.namespace.popen(self._command, stdout=log, stderr=log)

    def stop(self) -> None:
        """SIGTERM: it gives its VIP up and tells the others."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(PATIENCE)
            self._process = None

    @property
    def state(self) -> str:
        """BACKUP, MASTER or FAULT."""
        entered = states((self._path / "log").read_text(encoding="utf-8", errors="replace"))
        return entered[-1] if entered else "INIT"

    def wait_for(self, state: str) -> None:
        """Wait until it is in a state."""
        wait_for(lambda: self.state, lambda now: now == state, deadline=PATIENCE, what=f"keepalived {state}")
