"""A message bus on a host of the lab, and a place to run network daemons that speak on it: a /run of their own."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.lab.topology import Host

PATIENCE = 60.0

# A /sys that is not to be written tells daemons that no udev can be: they take links for ready at once.
PREPARE = """
mount -t tmpfs tmpfs /run
mkdir /run/dbus
mount -t sysfs -o ro sysfs /sys
{}
exec dbus-daemon --system --nofork --nopidfile
"""


class Bus:
    """Mounts and a system bus of their own in the network namespace of a host, from entry to exit.

    Args:
        host: whose interfaces the daemons are to manage.
        files: texts by path, below a directory that `prepare` gets as $1.
        prepare: lines of a shell that put everything in its place; its mounts are seen inside only.
    """

    def __init__(self, host: Host, files: Mapping[str, str], prepare: str) -> None:
        self._host = host
        self._files = files
        self._prepare = prepare

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for name, text in self._files.items():
                path = directory / "files" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            self.log = stack.enter_context((directory / "log").open("w+b"))
            shell = ["sh", "-ec", PREPARE.format(self._prepare), "sh", str(directory / "files")]
            prepare = ["unshare", "--mount", "--uts", "--propagation", "private", *shell]
            bus = self._host.namespace.popen(prepare, stdout=self.log, stderr=self.log)
            stack.callback(end, bus)
            self._pid = bus.pid
            bus_there = ("test", "-S", "/run/dbus/system_bus_socket")
            wait_for(lambda: self.run(*bus_there).returncode, lambda code: code == 0, what="a message bus")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program inside, to its end."""
        inside = [*self._inside(), *argv]
        return self._host.namespace.call(
            subprocess.run, inside, capture_output=True, text=True, check=False, timeout=PATIENCE
        )

    def start(self, argv: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a daemon inside; who starts it ends it."""
        return self._host.namespace.popen(
            [*self._inside(), *argv], stdout=self.log, stderr=self.log, env=dict(environment)
        )

    def _inside(self) -> list[str]:
        return ["nsenter", f"--target={self._pid}", "--mount", "--uts"]


class Daemon:
    """A network daemon on a bus of its own, from entry to exit."""

    def __init__(self, host: Host, files: Mapping[str, str], prepare: str) -> None:
        self._bus = Bus(host, files, prepare)
        self._daemon: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._bus)
            stack.callback(self.stop)
            self.start()
            self.configured()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self) -> None:
        """Start the daemon, and wait until it answers."""
        raise NotImplementedError

    def stop(self) -> None:
        """End the daemon as a service ends it."""
        if self._daemon is not None:
            end(self._daemon)
            self._daemon = None

    def configured(self) -> None:
        """Wait until it has done what its files say."""
        raise NotImplementedError


def end(process: subprocess.Popen[bytes]) -> None:
    """End a daemon as a service ends it, and by force if that takes too long."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(PATIENCE)
