"""Processes that outlive the program that started them, known by pid and start time, and kept in a file."""

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.lab.namespaces import NETNS_DIRECTORY


def start_time(pid: int) -> str | None:
    """Tell a process from a later one with the same pid: its start in clock ticks; None once it has ended."""
    try:
        # The command name may hold spaces and parentheses, so fields are counted after the last one.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]  # a zombie may wait long for its parent


def processes_in(namespace: str, command: str) -> Iterator[int]:
    """Pids, as seen from outside, of the processes of this command name in a network namespace."""
    inode = (NETNS_DIRECTORY / namespace).stat().st_ino
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            name = (entry / "comm").read_text(encoding="utf-8").rstrip()
            if name == command[:15] and (entry / "ns/net").stat().st_ino == inode:
                yield int(entry.name)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked


@dataclass
class Process:
    """What it takes to start a process again, and to know whether it still runs."""

    argv: list[str]
    pid: int = 0
    started: str | None = None

    def alive(self) -> bool:
        """Whether exactly this process still runs."""
        return self.started is not None and start_time(self.pid) == self.started


class ProcessTable:
    """The named processes of one cluster; every change is on disk before it returns."""

    def __init__(self, directory: Path) -> None:
        self.logs = directory / "logs"
        self._file = directory / "processes.json"
        self._table: dict[str, Process] = {}
        if self._file.exists():
            loaded = json.loads(self._file.read_text(encoding="utf-8"))
            self._table = {name: Process(**fields) for name, fields in loaded.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._table

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._table))

    def __getitem__(self, name: str) -> Process:
        return self._table[name]

    def _save(self) -> None:
        text = json.dumps({name: asdict(process) for name, process in self._table.items()}, indent=1)
        unfinished = self._file.with_suffix(".unfinished")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.rename(self._file)

    def spawn(self, name: str, namespace: str, *argv: object) -> None:
        """Start a command in a network namespace; its output goes to logs/NAME.log."""
        # nsenter becomes the command, so that the pid is the command's own.
        enter = ["/usr/bin/nsenter", f"--net={NETNS_DIRECTORY / namespace}", "--"]
        self._table[name] = Process([*enter, *map(str, argv)])
        self.start(name)

    def start(self, name: str) -> None:
        """Start a process of the table, again after its end: with the same arguments, hence the same data."""
        process = self._table[name]
        if process.alive():
            raise RuntimeError(f"{name} runs already, as pid {process.pid}")
        self.logs.mkdir(parents=True, exist_ok=True)
        log = str(self.logs / f"{name}.log")
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        process.pid = os.posix_spawn(
            process.argv[0],
            process.argv,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, append, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,  # Ctrl-C is for the tests, which then take the cluster down in order
        )
        process.started = start_time(process.pid)
        self._save()

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal; a process that has ended is an error."""
        process = self._table[name]
        if not process.alive():
            raise RuntimeError(f"{name} does not run: see {self.logs / name}.log")
        os.kill(process.pid, number)

    def stop(self, name: str, *, patience: float = 5.0) -> None:
        """End a process: SIGTERM, and SIGKILL once `patience` seconds are over. Nothing to do if it has ended."""
        process = self._table[name]
        if process.alive():
            os.kill(process.pid, signal.SIGTERM if patience else signal.SIGKILL)
            os.kill(process.pid, signal.SIGCONT)  # one that a test has stopped would never hear the other signal
        deadline = time.monotonic() + patience
        while process.alive():
            if time.monotonic() > deadline:
                os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.02)
        _reap(process.pid)


def _reap(pid: int, deadline: float = 10.0) -> None:
    """Wait for the last thread: until it has ended the process holds its sockets, though it is a zombie already."""
    end = time.monotonic() + deadline
    try:
        while os.waitpid(pid, os.WNOHANG)[0] == 0 and time.monotonic() < end:
            time.sleep(0.01)
    except ChildProcessError:
        return  # started by an earlier program
