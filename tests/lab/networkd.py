"""systemd-networkd on a host of the lab: the real daemon, with a /run and a message bus of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.lab.topology import Host

DAEMON = "/lib/systemd/systemd-networkd"
PATIENCE = 10.0

# It takes links for ready at once where no udev can be: in a container, with a /sys that is not to be written.
PREPARE = """
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/dbus /run/host
echo systemd-nspawn > /run/host/container-manager
cp -r "$1"/. /run/systemd/network
chown -R systemd-network:systemd-network /run/systemd/netif
mount -t sysfs -o ro sysfs /sys
exec dbus-daemon --system --nofork --nopidfile
"""


class Networkd:
    """The daemon, from entry to exit.

    Args:
        host: whose interfaces it manages.
        files: texts of /etc/systemd/network by path below it.
    """

    def __init__(self, host: Host, files: Mapping[str, str]) -> None:
        self._host = host
        self._files = files
        self._daemon: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for name, text in self._files.items():
                path = directory / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            self._log = stack.enter_context((directory / "log").open("w+b"))
            prepare = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", PREPARE, "sh", str(directory)]
            bus = self._host.namespace.popen(prepare, stdout=self._log, stderr=self._log)
            stack.callback(_end, bus)
            self._bus = bus.pid
            bus_there = ("test", "-S", "/run/dbus/system_bus_socket")
            wait_for(lambda: self._on_bus(*bus_there).returncode, lambda code: code == 0, what="a message bus")
            stack.callback(self.stop)
            self.start()
            self.configured()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self) -> None:
        """Start the daemon, and wait until it answers."""
        environment = {**os.environ, "container": "lab", "SYSTEMD_LOG_TARGET": "console"}
        argv = [*self._inside(), DAEMON]
        self._daemon = self._host.namespace.popen(argv, stdout=self._log, stderr=self._log, env=environment)
        wait_for(self._states, bool, deadline=PATIENCE, what="networkd")

    def stop(self) -> None:
        """End the daemon as a service ends it."""
        if self._daemon is not None:
            _end(self._daemon)
            self._daemon = None

    def configured(self) -> None:
        """Wait until every interface that it has a file for is configured, for which it needs a carrier."""
        wait_for(self._states, lambda states: "configured" in states and "configuring" not in states, deadline=PATIENCE)

    def reconfigure(self, interface: str) -> None:
        """Have an interface configured anew."""
        done = self._on_bus("networkctl", "reconfigure", interface)
        assert done.returncode == 0, done.stderr

    def _states(self) -> list[str]:
        listed = self._on_bus("networkctl", "list", "--no-legend", "--no-pager").stdout
        return [line.split()[-1] for line in listed.splitlines() if line.split()]

    def _on_bus(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return self._host.namespace.call(
            subprocess.run, [*self._inside(), *argv], capture_output=True, text=True, check=False, timeout=PATIENCE
        )

    def _inside(self) -> list[str]:
        return ["nsenter", f"--target={self._bus}", "--mount"]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(PATIENCE)
