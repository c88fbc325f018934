"""What surrounds the data plane: directories, log, health pages, the command line, withdrawal."""

from __future__ import annotations

import argparse
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.commands import ipmp_agent as cli
from ipmp_agent.dataplane.withdrawal import withdraw
from ipmp_agent.disk import state
from ipmp_agent.disk.directories import Directory, InUseError, holder
from ipmp_agent.disk.state import SavedGroup, SavedState
from ipmp_agent.process.agent import STALE, StartError, alive, raise_descriptor_limit, ready, require_capabilities
from ipmp_agent.process.hangup import Hangup
from tests.fake_kernel import FakeKernel
from tests.unit.agent.building import unprobed_group
from tests.unit.views.pictures import interface, publication, view

if TYPE_CHECKING:
    from pathlib import Path

    from ipmp_agent.publication import Publication


# --- directories


def test_directory_belongs_to_one_agent_and_the_other_is_named(tmp_path: Path) -> None:
    mine = Directory(tmp_path / "run", "--runtime-dir", 0o755)
    assert holder(tmp_path / "run") == os.getpid()
    with pytest.raises(InUseError, match=rf"another agent \(pid {os.getpid()}\) runs with --runtime-dir .*/run"):
        Directory(tmp_path / "run", "--runtime-dir", 0o755)
    mine.release()
    assert holder(tmp_path / "run") is None
    Directory(tmp_path / "run", "--runtime-dir", 0o755).release()


def test_lock_of_a_killed_agent_does_not_last(tmp_path: Path) -> None:
    script = (
        "import os, sys, signal, pathlib; from ipmp_agent.disk.directories import Directory;"
        "Directory(pathlib.Path(sys.argv[1]), '--state-dir', 0o700); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    Directory(tmp_path, "--state-dir", 0o700).release()


def test_missing_capability_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    require_capabilities()  # the tests run as root
    monkeypatch.setattr("pathlib.Path.read_text", lambda *_, **__: "Name:\tx\nCapEff:\t0000000000001000\n")
    with pytest.raises(StartError, match=r"needs CAP_NET_RAW: .*securityContext\.capabilities\.add"):
        require_capabilities()


# --- signals


def test_a_hangup_is_kept_in_mind_until_somebody_obeys() -> None:
    before = signal.getsignal(signal.SIGHUP)
    hangup, reloads = Hangup(), []
    try:
        hangup.catch()
        for _ in range(2):
            signal.raise_signal(signal.SIGHUP)
        hangup.obey(lambda: reloads.append(1))
        assert reloads == [1]
        signal.raise_signal(signal.SIGHUP)
        assert reloads == [1, 1]
        hangup.ignore()
        signal.raise_signal(signal.SIGHUP)
        assert reloads == [1, 1]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_hangups_are_heard_before_anything_that_takes_long_is_imported() -> None:
    script = """
import signal, sys
from ipmp_agent.commands import entry
print(sorted({"argparse", "asyncio", "ipmp_agent.commands.ipmp_agent", "logging", "yaml"} & set(sys.modules)))
sys.argv[1:] = sys.argv[2:]
class Stop:
    def find_spec(self, name, *rest):
        if name == "ipmp_agent.commands.ipmp_agent":
            print(callable(signal.getsignal(signal.SIGHUP)))
            sys.exit(7)
sys.meta_path.insert(0, Stop())
entry.main()
"""
    for command, heard in (("run", True), ("check", False), ("withdraw", False)):
        argv = [sys.executable, "-c", script, "ipmp-agent", command]
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        assert (done.returncode, done.stdout.splitlines()) == (7, ["[]", str(heard)]), done.stderr


def test_group_is_in_the_kernel_before_anybody_waits_for_a_library_of_metrics_or_of_yaml() -> None:
    script = """
import sys
from ipmp_agent.commands import ipmp_agent
from ipmp_agent.process import agent
from ipmp_agent.kube import source
late = {"kubernetes", "prometheus_client", "yaml", "ipmp_agent.views.metrics"}
print(sorted(late & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


# --- log


@pytest.mark.parametrize(
    ("style", "end"),
    [
        ("text", "Z ERROR   lab nic0: failure of nic0 detected [LinkDown]"),
        ("json", '"group": "lab", "interface": "nic0", "reason": "LinkDown", "logger": "ipmp_agent.test"}'),
    ],
)
def test_log_names_group_interface_and_reason(style: str, end: str, capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    records = cli._log(argparse.Namespace(log_format=style, log_level="info"))
    try:
        extra = {"group": "lab", "interface": "nic0", "reason": "LinkDown"}
        logging.getLogger("ipmp_agent.test").error("failure of nic0 detected", extra=extra)
        records.close(30)
    finally:
        root.handlers = before
        root.setLevel(level)
        logging.raiseExceptions = True
    assert capfd.readouterr().err.endswith(end + "\n")


# --- health


class Plane:
    def __init__(self, shown: Publication) -> None:
        self.publication = shown


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (publication(configured=False), (False, "no configuration yet")),
        (publication(), (True, "ok")),
        (publication(view(interface("nic0"))), (True, "ok")),
        (publication(view(interface("nic0"), name="a", ready=False)), (False, "not in the kernel: a")),
    ],
)
def test_ready_when_every_group_is_in_the_kernel(shown: Publication, expected: tuple[bool, str]) -> None:
    assert ready(Plane(shown)) == expected  # type: ignore[arg-type]


def test_alive_while_publications_come() -> None:
    assert alive(Plane(publication(monotonic=time.monotonic()))) == (True, "ok")  # type: ignore[arg-type]
    well, words = alive(Plane(publication(monotonic=time.monotonic() - STALE - 1)))  # type: ignore[arg-type]
    assert not well
    assert "has not turned for 31 s" in words


# --- command line


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "the following arguments are required"),
        (["run", "--metrics-address", "9478"], 2, "'9478' is not HOST:PORT, such as"),
        (["run", "--metrics-address", "h:99999"], 2, "is not HOST:PORT"),
        (["run"], 2, "name this node with --node-name or $NODE_NAME"),
        (["run", "--node-name", "n"], 2, "outside a cluster give --kubeconfig or --file"),
        (["run", "--node-name", "n", "--kubeconfig", "/nonexistent/config"], 2, "cannot use --kubeconfig"),
        (["run", "--node-name", "n", "--stand-in", "--kubeconfig", "f"], 2, "leave --kubeconfig out"),
        (["check"], 2, "--file"),
        (["run", "--log-level", "loud"], 2, "invalid choice"),
    ],
)
def test_wrong_options_end_with_2_and_say_why(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NODE_NAME", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    try:
        found = cli.main(arguments)
    except SystemExit as ended:
        found = ended.code  # type: ignore[assignment]
    assert found == code
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["check", "--help"], ["withdraw", "--help"]])
def test_help_states_the_exit_codes(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 0
    assert "Exit status: 0 when told to stop; 1 when something failed" in capsys.readouterr().out


# --- withdrawal


def kernel_with(faults: dict[str, list[Exception]]) -> tuple[list[FakeKernel], Any]:
    made: list[FakeKernel] = []

    def make(*ways: Any) -> FakeKernel:
        kernel = FakeKernel(*ways)
        kernel.faults = faults
        made.append(kernel)
        return kernel

    return made, make


async def test_withdrawal_takes_every_saved_group_out_of_the_kernel(tmp_path: Path) -> None:
    state.save(tmp_path, SavedState({name: SavedGroup(unprobed_group(name)) for name in ("a", "b")}))
    made, make = kernel_with({})
    assert await withdraw(tmp_path, make) == SavedState()
    assert [call for call in made[0].calls if call[0] == "withdraw"] == [("withdraw", "a"), ("withdraw", "b")]
    assert not made[0].is_open
    assert state.load(tmp_path) == SavedState()


async def test_group_that_cannot_be_withdrawn_stays_in_the_file(tmp_path: Path) -> None:
    saved = SavedState({name: SavedGroup(unprobed_group(name)) for name in ("a", "b")})
    state.save(tmp_path, saved)
    _, make = kernel_with({"withdraw": [OSError(16, "busy")]})
    left = await withdraw(tmp_path, make)
    assert set(left.groups) == {"a"}
    assert state.load(tmp_path) == left


def test_withdrawal_beside_a_running_agent_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state.save(tmp_path, SavedState({"a": SavedGroup(unprobed_group("a"))}))
    agent = Directory(tmp_path, "--state-dir", 0o700)
    before = logging.getLogger().handlers[:]
    try:
        assert cli.main(["withdraw", "--state-dir", str(tmp_path)]) == 1
    finally:
        agent.release()
        logging.getLogger().handlers = before
        logging.raiseExceptions = True
    assert f"the agent (pid {os.getpid()}) still runs: stop it first" in capfd.readouterr().err
    assert set(state.load(tmp_path).groups) == {"a"}


# --- limits


@pytest.mark.parametrize(
    ("limits", "raised"),
    [
        ((1024, 524288), (65536, 524288)),
        ((1024, 4096), (4096, 4096)),
        ((1024, resource.RLIM_INFINITY), (65536, resource.RLIM_INFINITY)),
        ((100_000, 200_000), None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None),
    ],
)
def test_the_soft_limit_of_open_files_is_raised_to_what_is_permitted(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], raised: tuple[int, int] | None
) -> None:
    now: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: now.append(wanted))
    raise_descriptor_limit()
    assert now == ([raised] if raised else [])
