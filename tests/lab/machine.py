"""A host of the lab as a whole machine: a Debian root whose systemd boots in the host's network namespace."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.cluster.cache import cache_directory, content_hash, locked
from tests.lab.namespaces import CommandFailedError
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.lab.topology import Host

SUITE = "bookworm"
PACKAGES = ("systemd", "systemd-sysv", "dbus", "python3", "python3-prometheus-client", "python3-yaml", "iproute2")
"""Of the root, beside what is essential: what the package needs, and what one looks with."""

BOOT = 60.0
"""Seconds that a machine may take to start or to end."""

DAEMONS = (
    "systemd-timesyncd.service",
    "systemd-logind.service",
    "getty.target",
    "apt-daily.timer",
    "e2scrub_all.timer",
)
"""What has nothing to do here."""


def debian_root() -> Path:
    """A root of Debian's packages in the cache, which nobody writes to; a minute from nothing."""
    recipe = f"{SUITE} {' '.join(PACKAGES)} {' '.join(DAEMONS)}"
    root = cache_directory() / "machine" / content_hash({}, recipe)
    with locked(root.with_suffix(".lock")):
        if not root.is_dir():
            unfinished = root.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            _run("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(unfinished))
            for directory in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
                shutil.rmtree(unfinished / directory)
                (unfinished / directory).mkdir()
            _run("systemctl", f"--root={unfinished}", "--quiet", "mask", *DAEMONS)
            unfinished.rename(root)
    return root


class Machine:
    """One machine. What it has on its disk survives its reboots, not the context.

    Args:
        host: whose network it has.
        files: texts by path that are on its disk at first.
    """

    def __init__(self, host: Host, files: Mapping[str, str] | None = None) -> None:
        self._host = host
        self._directory = Path(tempfile.mkdtemp(prefix=f"{host.namespace.name}-machine-"))
        self._files = files or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self.root = self._directory / "root"

    def __enter__(self) -> Self:
        lower = debian_root()
        for name in ("upper", "work", "root"):
            (self._directory / name).mkdir()
        layers = f"lowerdir={lower},upperdir={self._directory / 'upper'},workdir={self._directory / 'work'}"
        # On a file system in memory: the cache may be on one that cannot be the upper of another.
        _run("mount", "-t", "overlay", "-o", layers, "overlay", str(self.root))
        for path, text in self._files.items():
            self.write(path, text)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(BOOT)
        _run("umount", "--lazy", str(self.root))
        shutil.rmtree(self._directory, ignore_errors=True)

    def write(self, path: str, text: str) -> None:
        """Put a file on its disk."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")

    def copy(self, path: Path) -> str:
        """Put a file of this machine's on its disk; returns where it is there."""
        shutil.copy(path, self.root / "srv" / path.name)
        return f"/srv/{path.name}"

    def install(self, package: Path) -> None:
        """Install a package while the machine is off."""
        _run("chroot", str(self.root), "dpkg", "--install", self.copy(package))

    def enable(self, unit: str) -> None:
        """Have a unit started at boot."""
        _run("systemctl", f"--root={self.root}", "--quiet", "enable", unit)

    def files(self) -> set[str]:
        """What is on its disk and in its /run, but for logs, caches and what the package manager keeps."""
        found = self.run("find", "/", "/run", "-xdev", "-not", "-name", "*-old").splitlines()
        passing = (
            "/srv/",
            "/tmp/",
            "/var/cache/",
            "/var/log/",
            "/var/lib/dpkg/",
            "/var/tmp/",
            "/run/systemd/",
            "/run/log/",
        )
        return {path for path in found if not path.startswith(passing)}

    # -- power -----------------------------------------------------------------------------------------------------

    def boot(self) -> Self:
        """Switch it on, and wait until it is up, whatever has failed."""
        argv = [
            *("systemd-nspawn", "--quiet", "--boot", f"--directory={self.root}"),
            f"--network-namespace-path={self._host.namespace.path}",
            *("--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off", "--timezone=off"),
            *(f"--machine={self._host.namespace.name}", "--capability=CAP_NET_ADMIN", "--console=pipe"),
        ]
        with (self._directory / "console").open("wb") as console:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=console, stderr=console)
        try:
            wait_for(self._find_leader, deadline=BOOT, what="its first process")
            wait_for(self._state, lambda state: state in {"running", "degraded"}, deadline=BOOT, what="a booted system")
        except AssertionError as error:
            error.add_note((self._directory / "console").read_text(encoding="utf-8", errors="replace")[-2000:])
            raise
        return self

    def power_off(self) -> None:
        """Have its systemd shut it down."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(BOOT)

    def _find_leader(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"systemd-nspawn ended with {self._process.returncode}")
        pid = self._process.pid
        with contextlib.suppress(FileNotFoundError, IndexError, ValueError):
            self._leader = int(Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()[0])
            return Path(f"/proc/{self._leader}/comm").read_text(encoding="ascii").strip() == "systemd"
        return False

    def _state(self) -> str:
        try:
            return self.run("systemctl", "is-system-running", check=False).strip()
        except CommandFailedError:
            return ""

    # -- commands --------------------------------------------------------------------------------------------------

    def call(self, *argv: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program in it to its end, within a minute."""
        enter = ["nsenter", "--target", str(self._leader), "--all"]
        return subprocess.run([*enter, *argv], input=text, capture_output=True, text=True, check=False, timeout=BOOT)

    def run(self, *argv: str, check: bool = True) -> str:
        """Run a program to its end; returns its output. Raises CommandFailedError with its words."""
        done = self.call(*argv)
        if check and done.returncode:
            raise CommandFailedError(f"{' '.join(argv)}: code {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def place(self, path: str) -> Path:
        """A path in it, as seen from here while it runs."""
        return Path(f"/proc/{self._leader}/root", path.lstrip("/"))

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit."""
        lines = self.run("systemctl", "show", f"--property={','.join(properties)}", unit).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def journal(self, *words: str) -> list[dict[str, Any]]:
        """The entries of its journal in this boot."""
        return [json.loads(line) for line in self.run("journalctl", "--boot", "-o", "json", *words).splitlines()]


def main() -> None:
    """Make the root that the tests boot."""
    print(debian_root())


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
