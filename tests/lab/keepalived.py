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
  interface {interface}
  virtual_router_id 51
  priority {priority}
  advert_int 0.3
  version 3
  virtual_ipaddress {{
    {vip} dev {interface}
  }}
}}
"""
PATIENCE = 20.0


class Keepalived:
    """The real daemon, from `start` to `stop` and at the latest to the exit."""

    def __init__(self, host: Host, interface: str, priority: int, vip: str) -> None:
        self._host = host
        self._directory = tempfile.TemporaryDirectory()
        self._path = Path(self._directory.name)
        text = CONFIGURATION.format(name=host.name, interface=interface, priority=priority, vip=vip)
        (self._path / "keepalived.conf").write_text(text, encoding="utf-8")
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
            self._process = self._host.namespace.popen(
                [
                    *("keepalived", "--dont-fork", "--log-console", "--log-detail", "--vrrp"),
                    *("--use-file", str(self._path / "keepalived.conf")),
                    *("--pid", str(self._path / "pid")),
                    *("--vrrp_pid", str(self._path / "vrrp_pid")),
                ],
                stdout=log,
                stderr=log,
            )

    def stop(self) -> None:
        """SIGTERM: it gives its VIP up and tells the others."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(PATIENCE)
            self._process = None

    @property
    def state(self) -> str:
        """BACKUP, MASTER or FAULT."""
        lines = (self._path / "log").read_text(encoding="utf-8", errors="replace").splitlines()
        words = [line.split() for line in lines if "Entering" in line and "STATE" in line]
        return words[-1][words[-1].index("STATE") - 1] if words else "INIT"

    def wait_for(self, state: str) -> None:
        """Wait until it is in a state."""
        wait_for(lambda: self.state, lambda now: now == state, deadline=PATIENCE, what=f"keepalived {state}")
