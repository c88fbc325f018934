"""Routing daemons on a host of the lab: the real ones, each with a directory of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.lab.bus import PATIENCE
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.lab.topology import Host

FRR = "/usr/lib/frr"
FRR_OWNER = "frr"
BIRD = "/usr/sbin/bird"


class _Daemons:
    """Programs in the network namespace of a host, which are ended one by one or all at exit."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self._log = stack.enter_context((self.directory / "log").open("w+b"))
            stack.callback(self.end)
            self.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self) -> None:
        """Start what there is to start."""
        raise NotImplementedError

    def _start(self, name: str, *argv: str) -> None:
        self._running[name] = self._host.namespace.popen(
            [*argv], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, env=os.environ
        )

    def _await_socket(self, path: Path) -> None:
        wait_for(path.is_socket, bool, deadline=PATIENCE, what=str(path))

    def end(self, *names: str) -> None:
        """End these, as an administrator does, or all, the last one first."""
        for name in names or tuple(reversed(self._running)):
            daemon = self._running.pop(name)
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(PATIENCE)


class Frr(_Daemons):
    """zebra and staticd.

    Args:
        host: where they route.
        static: lines of staticd's configuration.
        zebra: lines of zebra's.
    """

    def __init__(self, host: Host, *static: str, zebra: Sequence[str] = ()) -> None:
        super().__init__(host)
        self._static, self._zebra = static, zebra

    def start(self) -> None:
        """Start both; staticd has told zebra its routes soon after."""
        for name, lines in (("zebra", self._zebra), ("staticd", self._static)):
            configuration = self.directory / f"{name}.conf"
            configuration.write_text("".join(f"{line}\n" for line in lines))
            for path in (self.directory, configuration):
                shutil.chown(path, FRR_OWNER, FRR_OWNER)  # the daemons give root up
        self._start("zebra", f"{FRR}/zebra", *self._options("zebra"))
        self._await_socket(self.directory / "zserv.api")
        self._start("staticd", f"{FRR}/staticd", *self._options("staticd"))

    def _options(self, name: str) -> list[str]:
        return [
            *("-f", str(self.directory / f"{name}.conf"), "-i", str(self.directory / f"{name}.pid")),
            *("-z", str(self.directory / "zserv.api"), "--vty_socket", str(self.directory), "-P", "0"),
            *("--log", "stdout"),
        ]


class Bird(_Daemons):
    """BIRD 2, which looks at interfaces and the kernel's table every two seconds.

    Args:
        host: where it routes.
        static: lines of a static protocol of IPv4.
        learn: whether it learns the routes of others, as Calico's does.
    """

    def __init__(self, host: Host, *static: str, learn: bool = False) -> None:
        super().__init__(host)
        self._static, self._learn = static, learn

    def start(self) -> None:
        """Start it; it has laid its routes soon after."""
        lines = [
            "router id 198.18.0.50;",
            "protocol device { scan time 2; }",
            "protocol direct { ipv4; }",
            f"protocol kernel {{ {'learn; ' if self._learn else ''}scan time 2; ipv4 {{ import all; export all; }}; }}",
            "protocol static { ipv4; " + " ".join(self._static) + " }",
        ]
        (self.directory / "bird.conf").write_text("\n".join(lines) + "\n")
        control = self.directory / "bird.ctl"
        self._start("bird", BIRD, "-f", "-c", str(self.directory / "bird.conf"), "-s", str(control))
        self._await_socket(control)


class RouteNews:
    """Every message about a route of the host's own tables from entry on, as `ip monitor` writes it."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._output = stack.enter_context(tempfile.TemporaryFile())
            monitor = self._host.namespace.popen(
                ["ip", "monitor", "route"], stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT
            )
            stack.callback(monitor.wait, 10)
            stack.callback(monitor.kill)
            self._marked()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _marked(self) -> None:
        """Wait until the monitor tells what happens from now on."""
        mark = f"198.19.255.{1 + int(time.monotonic()) % 250}"

        def told() -> bool:
            for verb in ("add", "del"):
                self._host.namespace.ip("route", verb, "blackhole", mark)
            return mark in self._text()

        wait_for(told, bool, deadline=PATIENCE, what="ip monitor")

    def _text(self) -> str:
        return os.pread(self._output.fileno(), 1 << 24, 0).decode()

    def lines(self) -> list[str]:
        """What was told, without the local table and the marks."""
        return [line for line in self._text().splitlines() if "table local" not in line and "blackhole" not in line]
