"""The agent as a process in a host of the lab, from a manifest, with everything one can do to a process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml

from ipmp_agent.commands.client import Client, UnreachableError
from tests.lab.dump import KernelDump
from tests.lab.namespaces import with_own_sysfs
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tests.lab.topology import Host, Lab

NODE_NAME = "lab1"
METRICS_ADDRESS = "127.0.0.1:9478"
LOG_TAIL = 30


def group_manifest(
    name: str = "lab",
    *,
    interfaces: Iterable[str | Mapping[str, Any]] = ("nic0", "nic1"),
    standby: Sequence[str] = (),
    addresses: Sequence[str] = (),
    targets: Sequence[str] = (),
    milliseconds: int = 1000,
    **spec: Any,
) -> dict[str, Any]:
    """Return an IPMPGroup manifest: members by name, data addresses for the lab's node, pinned targets.

    Further keywords are fields of the spec as the API names them.
    """
    members = [{"name": one} if isinstance(one, str) else dict(one) for one in interfaces]
    for member in members:
        if member.get("name") in standby:
            member["role"] = "Standby"
    return {
        "apiVersion": "ipmp.dev/v1alpha1",
        "kind": "IPMPGroup",
        "metadata": {"name": name},
        "spec": {
            "interfaces": members,
            "dataAddresses": {"assigned": [{"nodeName": NODE_NAME, "addresses": list(addresses)}] if addresses else []},
            "probes": {"targets": {"addresses": list(targets)}},
            "failureDetection": {"timeMilliseconds": milliseconds},
        }
        | spec,
    }


class Agent:
    """`ipmp-agent run` on a host of the lab. What it keeps (state, log) survives its restarts, not the context.

    Args:
        manifest: one IPMPGroup as a mapping, several as a list, or the path of a file.
        options: further words for the command line.
        trials: whether a change is undone by which the host loses what it reached. Most scenes cut wires at once.
    """

    FIRST_ANSWER = 30.0
    """Seconds until it has applied its manifest and says so."""

    def __init__(
        self,
        lab: Lab,
        manifest: Mapping[str, Any] | Sequence[Mapping[str, Any]] | Path,
        *,
        host: Host | None = None,
        node_name: str = NODE_NAME,
        options: Sequence[str] = (),
        trials: bool = False,
    ) -> None:
        self.host = host or lab.host
        self.node_name = node_name
        self.options = (*options, *(() if trials else ("--no-trial",)))
        self.directory = Path(tempfile.mkdtemp(prefix=f"{lab.tag}-agent-"))
        self.state_directory = self.directory / "state"
        self.runtime_directory = self.directory / "run"
        self.log_path = self.directory / "agent.log"
        self.manifest = self.directory / "group.yaml"
        self.process: subprocess.Popen[bytes] | None = None
        for directory in (self.state_directory, self.runtime_directory):
            directory.mkdir()
        self.write(manifest)

    # -- life ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException as error:
            self.__exit__(type(error))
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.resume()
            self.process.kill()
            self.process.wait(10)
        if kind is not None:
            print(f"---- end of the log of {self.node_name}\n{self.tail()}", file=sys.stderr)
        shutil.rmtree(self.directory, ignore_errors=True)

    def write(self, manifest: Mapping[str, Any] | Sequence[Mapping[str, Any]] | Path) -> None:
        """Put another manifest in place of the one the agent runs from; `reload` makes it read it."""
        if isinstance(manifest, Path):
            text = manifest.read_text(encoding="utf-8")
        else:
            documents = [manifest] if hasattr(manifest, "keys") else list(manifest)
            text = yaml.safe_dump_all(documents)
        fresh = self.manifest.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(self.manifest)

    @property
    def argv(self) -> list[str]:
        """The command line."""
        return [
            program("ipmp-agent"),
            "run",
            *("--file", str(self.manifest)),
            *("--node-name", self.node_name),
            *("--state-dir", str(self.state_directory)),
            *("--runtime-dir", str(self.runtime_directory)),
            *("--metrics-address", METRICS_ADDRESS),
            *("--log-format", "json"),
            *self.options,
        ]

    def start(self, *, wait: bool = True) -> Self:
        """Start it, and wait until it has applied its manifest and says so, unless told otherwise."""
        with self.log_path.open("ab") as log:
            self.process = self.host.namespace.popen(
                with_own_sysfs(self.argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONDEVMODE": ""},
            )
        if wait:
            wait_for(self._answers, deadline=self.FIRST_ANSWER, what="the agent's first answer", interval=0.1)
        return self

    def _answers(self) -> bool:
        if self.running.poll() is not None:
            raise AssertionError(f"the agent ended with code {self.running.returncode}; its log is below")
        try:
            return bool(self.status()["configured"])
        except UnreachableError:
            return False

    @property
    def running(self) -> subprocess.Popen[bytes]:
        """The process; raises if it was never started."""
        if self.process is None:
            raise AssertionError("the agent was not started")
        return self.process

    def stop(self, deadline: float = 10.0) -> int:
        """SIGTERM; returns the exit code."""
        self.running.terminate()
        return self.running.wait(deadline)

    def kill(self) -> None:
        """SIGKILL: no chance to say goodbye."""
        self.running.kill()
        self.running.wait(10)

    def reload(self) -> None:
        """SIGHUP: read the manifest again."""
        self.running.send_signal(signal.SIGHUP)

    def suspend(self) -> None:
        """SIGSTOP: the agent stands still and the world goes on."""
        self.running.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.running.send_signal(signal.SIGCONT)

    def withdraw(self) -> subprocess.CompletedProcess[str]:
        """Run `ipmp-agent withdraw` on the host, as one does after the agent was stopped for good."""
        argv = [program("ipmp-agent"), "withdraw", "--state-dir", str(self.state_directory)]
        argv += ["--runtime-dir", str(self.runtime_directory)]
        return self.host.namespace.call(subprocess.run, argv, capture_output=True, text=True, check=False, timeout=30)

    # -- what it says --------------------------------------------------------------------------------------------

    def command(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command that speaks with this agent, such as `ipmpadm`, to its end."""
        with self.begin(*argv) as process:
            try:
                output, errors = process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def begin(self, *argv: str) -> subprocess.Popen[str]:
        """Start such a command, and let it run."""
        environment = {**os.environ, "IPMP_RUNTIME_DIR": str(self.runtime_directory)}
        argv = (program(argv[0]), *argv[1:])
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    def ipmpstat(self, *words: str) -> str:
        """Return what `ipmpstat` prints; raises with its complaint if it fails."""
        done = self.command("ipmpstat", *words)
        if done.returncode:
            raise AssertionError(f"ipmpstat {' '.join(words)}: code {done.returncode}: {done.stderr}")
        return done.stdout

    def status(self) -> dict[str, Any]:
        """Return what the agent publishes: all groups at one moment, fresh from its data plane.

        Straight from its socket, since looking often by `ipmpstat` would load the machine that is being measured.
        """
        with Client(self.runtime_directory) as client:
            publication: dict[str, Any] = client.ask(op="snapshot", live=True)["publication"]
        return publication

    def wait_for(self, condition: Callable[[dict[str, Any]], object], deadline: float = 15.0, what: str = "") -> Any:
        """Wait until a condition holds of the status; returns that status, or raises with what it saw."""
        return wait_for(self.status, condition, deadline=deadline, what=what, interval=0.1)

    def metrics(self) -> str:
        """Return the metrics page, fetched inside the host."""
        script = (
            "import sys, urllib.request; "
            "sys.stdout.write(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"
        )
        return self.host.namespace.run(sys.executable, "-c", script, f"http://{METRICS_ADDRESS}/metrics")

    def log(self) -> list[dict[str, Any]]:
        """Return the log's JSON lines of all its lives; a line that is no JSON comes as {"text": line}."""
        found = []
        for line in self.log_path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                entry = None
            found.append(entry if isinstance(entry, dict) else {"text": line})
        return found

    def tail(self) -> str:
        """Return the end of the log for a person: one line an entry, an exception as it would be printed."""
        if not self.log_path.exists():
            return ""
        return "\n".join(_readable(entry) for entry in self.log()[-LOG_TAIL:])

    def dump(self) -> KernelDump:
        """Return what the kernel of its host holds."""
        return KernelDump.take(self.host.namespace.run)


def _readable(entry: Mapping[str, Any]) -> str:
    if "text" in entry:
        return str(entry["text"])
    words = [str(entry.get(key, "")) for key in ("time", "level", "group", "interface", "reason", "message")]
    exception = f"\n{entry['exception']}" if "exception" in entry else ""
    return " ".join(word for word in words if word) + exception


def program(name: str) -> str:
    """Return the path of a command of this project: beside the running Python, else on the PATH."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise AssertionError(f"{name} is not installed: make venv")
    return found
