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
    from collections.abc import Mapping, Sequence

    from tests.lab.suites import Suite
    from tests.lab.topology import Host

FRR = "/usr/lib/frr"
FRR_OWNER = "frr"
YANG = Path("/usr/share/yang")
CONFINED = """
set -e
for place in /etc/frr /run/frr; do mount --bind "$1" "$place"; done
mount --bind "$2" /usr/share/yang
shift 2
exec "$@"
"""
OPTIONS = ("-P", "0", "--log", "stdout")
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
    """zebra and staticd, and what of FRR they are configured by.

    Args:
        host: where they route.
        static: lines of staticd's configuration.
        zebra: lines of zebra's.
        suite: of Debian that they are from; None: the system's own.
    """

    def __init__(self, host: Host, *static: str, zebra: Sequence[str] = (), suite: Suite | None = None) -> None:
        super().__init__(host)
        self._static, self._zebra, self._suite = static, zebra, suite

    def start(self) -> None:
        """Start them; staticd has told zebra its routes soon after."""
        give_to_frr(self.directory, {"zebra.conf": self._zebra, "staticd.conf": self._static})
        self._start("zebra", *frr_program("zebra", self.directory, self._suite))
        self._await_socket(self.directory / "zserv.api")
        if self._suite:  # newer releases have one daemon that reads the configuration of these two
            self._start("mgmtd", *frr_program("mgmtd", self.directory, self._suite))
            self._await_socket(self.directory / "mgmtd_be.sock")
        self._start("staticd", *frr_program("staticd", self.directory, self._suite))


def give_to_frr(directory: Path, files: Mapping[str, Sequence[str]]) -> None:
    """Write configurations; the directory becomes that of FRR's user, which the daemons take on."""
    for name, lines in files.items():
        (directory / name).write_text("".join(f"{line}\n" for line in lines))
    for path in (directory, *map(directory.joinpath, files)):
        shutil.chown(path, FRR_OWNER, FRR_OWNER)


def frr_program(name: str, directory: Path, suite: Suite | None = None) -> list[str]:
    """The words that start a daemon of FRR which sees a directory in the place of /etc/frr and /run/frr."""
    program = f"{FRR}/{name}"
    schemas = suite.root / "usr/share/yang" if suite else YANG
    words = suite.command(program) if suite else [program]
    return ["unshare", "--mount", "sh", "-c", CONFINED, "sh", *map(str, (directory, schemas)), *words, *OPTIONS]


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


class Radvd(_Daemons):
    """radvd on a router: it advertises itself every three or four seconds, and says goodbye when it ends.

    Args:
        host: the router.
        lifetime: seconds, of the default route that it offers.
    """

    def __init__(self, host: Host, lifetime: int) -> None:
        super().__init__(host)
        self._lifetime = lifetime

    def start(self) -> None:
        """Start it; its first advertisement follows soon."""
        configuration = self.directory / "radvd.conf"
        configuration.write_text(
            "interface eth0 { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4;"
            f" AdvDefaultLifetime {self._lifetime}; }};\n"
        )
        configuration.chmod(0o644)
        identifier = str(self.directory / "radvd.pid")
        self._start("radvd", "/usr/sbin/radvd", "-n", "-C", str(configuration), "-p", identifier, "-m", "stderr")


class Speakers(_Daemons):
    """Two that speak BGP to each other: BIRD on a router, and BIRD or FRR's bgpd on a host, from an address of it.

    Each says every second that it lives. The host's takes a session for what the peer's address
    is, and not for what an interface is (`multihop`).

    Args:
        host: where one runs, which is asked for the session.
        router: where the other one runs.
        addresses: of the host and of the router.
        frr: whether the host has bgpd.
        suite: of Debian that bgpd is from; None: the system's own.
    """

    def __init__(
        self, host: Host, router: Host, addresses: tuple[str, str], *, frr: bool, suite: Suite | None = None
    ) -> None:
        super().__init__(router)
        self._near, self._addresses, self._frr, self._suite = host, addresses, frr, suite

    def start(self) -> None:
        """Start both."""
        near, far = self._addresses
        self._write_bird("far", far, 65001, near, 65002)
        self._start("far", *self._bird("far"))
        self._host = self._near
        if self._frr:
            give_to_frr(self.directory, {"bgpd.conf": self._bgpd(near, far)})
            self._start("near", *frr_program("bgpd", self.directory, self._suite), "-n", "-Z", "-p", "179")
        else:
            self._write_bird("near", near, 65002, far, 65001)
            self._start("near", *self._bird("near"))
        self._await_socket(self.directory / "far.ctl")

    def _bird(self, name: str) -> list[str]:
        return [BIRD, "-f", "-c", str(self.directory / f"{name}.conf"), "-s", str(self.directory / f"{name}.ctl")]

    def _write_bird(self, name: str, own: str, own_as: int, peer: str, peer_as: int) -> None:
        lines = [
            f"router id {own};",
            "protocol device { scan time 2; }",
            f"protocol bgp session {{ local {own} as {own_as}; neighbor {peer} as {peer_as}; multihop 2;",
            "hold time 30; keepalive time 1; connect retry time 2; connect delay time 1; error wait time 1, 2;",
            "ipv4 { import all; export none; }; }",
        ]
        (self.directory / f"{name}.conf").write_text("\n".join(lines) + "\n")

    @staticmethod
    def _bgpd(own: str, peer: str) -> list[str]:
        return [
            "router bgp 65002",
            f" bgp router-id {own}",
            " no bgp fast-external-failover",
            " no bgp ebgp-requires-policy",
            f" neighbor {peer} remote-as 65001",
            f" neighbor {peer} update-source {own}",
            f" neighbor {peer} ebgp-multihop 2",
            f" neighbor {peer} timers 1 30",
            f" neighbor {peer} timers connect 2",
        ]

    def session(self) -> str:
        """Since when the router has had the session, as BIRD tells it; empty: it has none."""
        line = next((line.split() for line in self._shown() if line.startswith("session")), [])
        return line[4] if line[5:6] == ["Established"] else ""

    def silence(self) -> float:
        """Seconds since the router heard the host last."""
        words = next(line.split() for line in self._shown() if line.strip().startswith("Hold timer:"))
        left, _, whole = words[2].partition("/")
        return float(whole) - float(left)

    def _shown(self) -> list[str]:
        command = ["birdc", "-s", str(self.directory / "far.ctl"), "show", "protocols", "all", "session"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
        return done.stdout.splitlines()


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
