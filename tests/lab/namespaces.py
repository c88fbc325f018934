"""One network namespace: made, entered, used and removed.

Everything that happens inside a namespace happens in a thread that has entered it, or in a process such a thread
started: both stay where they were born, and the caller's own thread never moves.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

P = ParamSpec("P")
T = TypeVar("T")

NETNS_DIRECTORY = Path("/run/netns")
TAG_PREFIX = "ipmplab"
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)
_counter = itertools.count()


class CommandFailedError(AssertionError):
    """A program in the lab ended badly; the message holds its words."""


def _start_time(pid: int) -> str:
    """Start time of a process in clock ticks since boot; with the pid it names one process for ever."""
    # The command name may hold spaces and parentheses, so count fields after the last one.
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]


def new_tag() -> str:
    """Return a tag that no other lab carries and that says which process owns it."""
    return f"{TAG_PREFIX}-{os.getpid()}-{_start_time(os.getpid())}-{next(_counter)}"


def _owner_lives(tag: str) -> bool:
    _, pid, started, _ = tag.split("-", 3)
    try:
        return _start_time(int(pid)) == started
    except (FileNotFoundError, ProcessLookupError):
        return False


def batch(lines: Iterable[str]) -> None:
    """Run lines of `ip` in one process, in the caller's namespace; the first that fails raises with its words."""
    text = "\n".join(lines)
    done = subprocess.run(["ip", "-batch", "-"], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandFailedError(f"ip -batch: {done.stderr.strip()}\n{text}")


def remove(names: Sequence[str]) -> None:
    """End every process inside the named namespaces and remove them; one that is gone already is not an error."""
    present = [name for name in names if (NETNS_DIRECTORY / name).exists()]
    if not present:
        return
    _end_processes({(NETNS_DIRECTORY / name).stat().st_ino for name in present})
    batch(f"netns del {name}" for name in present)


def remove_stale() -> list[str]:
    """Remove the namespaces of labs whose process is dead, and their files; returns the namespaces' names."""
    for directory in _stale(Path(tempfile.gettempdir())):
        shutil.rmtree(directory, ignore_errors=True)
    stale = [path.name for path in _stale(NETNS_DIRECTORY)]
    remove(stale)
    return stale


def _stale(directory: Path) -> list[Path]:
    found = directory.glob(f"{TAG_PREFIX}-*-*-*") if directory.is_dir() else ()
    return [path for path in found if not _owner_lives(path.name)]


def _end_processes(inodes: set[int], patience: float = 2.0) -> None:
    """Kill what still runs in these namespaces: SIGKILL, since the namespace goes away under it in any case."""
    deadline = time.monotonic() + patience
    while pids := [pid for pid in _processes_in(inodes) if pid != os.getpid()]:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise CommandFailedError(f"processes {pids} survive SIGKILL in a namespace that is being removed")
        time.sleep(0.01)


def _processes_in(inodes: set[int]) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        # A process may end, or be a zombie without namespaces, while we look.
        with contextlib.suppress(OSError):
            if (entry / "ns/net").stat().st_ino in inodes:
                found.append(int(entry.name))
    return found


def enter(path: Path) -> None:
    """Move the calling thread (and no other) into the network namespace at `path`."""
    with path.open("rb") as handle:
        if _libc.setns(handle.fileno(), CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"setns {path}: {os.strerror(number)}")


class Namespace:
    """A named network namespace that exists already (see `batch` for "netns add")."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = NETNS_DIRECTORY / name

    def __repr__(self) -> str:
        return f"Namespace({self.name})"

    def thread(self, work: Callable[[], None], title: str) -> threading.Thread:
        """Return a daemon thread, not yet started, that enters the namespace and then does `work`."""

        def body() -> None:
            enter(self.path)
            work()

        return threading.Thread(target=body, name=f"{title}@{self.name}", daemon=True)

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` inside the namespace and return what it returns, or raise what it raises."""
        outcome: list[T] = []
        failure: list[BaseException] = []

        def body() -> None:
            try:
                enter(self.path)
                outcome.append(function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - it is raised again in the caller's thread
                failure.append(error)

        thread = threading.Thread(target=body, name=f"call@{self.name}", daemon=True)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return outcome[0]

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Return a socket of this namespace; it stays one whoever uses it."""
        return self.call(socket.socket, family, kind, protocol)

    def run(self, *argv: str, text: str | None = None, check: bool = True) -> str:
        """Run a program to its end, within 30 s; returns its standard output.

        Raises:
            CommandFailedError: it ended with another code than 0, and `check` is set.
        """
        done = self.call(subprocess.run, argv, input=text, capture_output=True, text=True, check=False, timeout=30)
        if check and done.returncode:
            raise CommandFailedError(f"{self.name}: {' '.join(argv)}: code {done.returncode}: {done.stderr.strip()}")
        return str(done.stdout)

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a program inside; whoever starts it ends it, and removing the namespace does so at the latest."""

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(argv, **options)

        return self.call(start)

    def ip(self, *words: str) -> None:
        """Run one `ip` command."""
        self.run("ip", *words)

    def ip_json(self, *words: str) -> list[dict[str, Any]]:
        """Run one `ip -json` command and return its objects (with details)."""
        objects: list[dict[str, Any]] = json.loads(self.run("ip", "-details", "-json", *words) or "[]")
        return [found for found in objects if found]

    def batch(self, lines: Iterable[str]) -> None:
        """Run lines of `ip` in one process, inside."""
        self.call(batch, lines)

    def sysctl(self, settings: dict[str, int]) -> None:
        """Write settings below /proc/sys/net, which shows the writer's own namespace. Keys use slashes."""

        def write() -> None:
            for key, value in settings.items():
                Path("/proc/sys/net", key).write_text(str(value), encoding="utf-8")

        self.call(write)


def with_own_sysfs(argv: Sequence[str]) -> list[str]:
    """Return `argv` so wrapped that the program sees the /sys of its network namespace and not the outer one."""
    script = 'mount -t sysfs sysfs /sys && exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *argv]
