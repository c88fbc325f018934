"""A command under the user-mode kernel sees these files, changes none of them, reaches nobody and ends in time."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab import uml, wait_for

pytestmark = pytest.mark.skipif(
    platform.machine() not in {"x86_64", "i686"}, reason="Debian has the user-mode kernel for x86 alone"
)


def test_command_runs_under_another_kernel_and_its_output_and_code_come_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = uml.run(["sh", "-c", f"uname -r; ls {uml.MODULES}; id -u > {uml.SHARE}/user; exit 7"], 60, share=tmp_path)
    assert code == 7
    release, modules = capfd.readouterr().out.split()
    assert release == modules
    assert release != platform.release()
    assert (tmp_path / "user").read_text().strip() == "0"
    assert [path.name for path in tmp_path.iterdir()] == ["user"]


def test_command_can_make_bonds_and_teams(capfd: pytest.CaptureFixture[str]) -> None:
    script = "ip link add bond1 type bond mode active-backup && ip link add team1 type team && ip -brief link"
    assert uml.run(["sh", "-c", script], 60) == 0
    names = {line.split()[0] for line in capfd.readouterr().out.splitlines()}
    assert names >= {"bond1", "team1"}


def test_command_changes_no_file_and_sees_no_interface_of_this_machine(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # Not below /tmp, which is another one inside.
    here = uml.__file__
    assert uml.run(["sh", "-c", f"echo x >> {here} || ip -brief link; touch {tmp_path}/made; true"], 60) == 0
    said = capfd.readouterr().out
    assert "Read-only file system" in said
    links = [line.split()[0] for line in said.splitlines() if "LOOPBACK" in line or "BROADCAST" in line]
    assert links == ["lo"]
    assert not list(tmp_path.iterdir())


def test_working_directory_below_tmp_is_there_as_it_is(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "said").write_text("here")
    monkeypatch.chdir(tmp_path)
    assert uml.run(["sh", "-c", "cat said; touch made || true"], 60) == 0
    said = capfd.readouterr().out
    assert said.startswith("here")
    assert "Read-only file system" in said


def test_command_that_takes_too_long_is_ended() -> None:
    began = time.monotonic()
    assert uml.run(["sleep", "600"], 1) == 124
    assert time.monotonic() - began < 60


def test_kernel_ends_with_a_caller_that_is_killed(tmp_path: Path) -> None:
    def processes() -> list[str]:
        """Those whose command line names the directory that this kernel was given."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked
            if str(tmp_path).encode() in words:
                found.append(path.parent.name)
        return found

    argv = [sys.executable, "-m", "tests.lab.uml", "sleep", "600"]
    caller = subprocess.Popen(argv, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.DEVNULL)
    try:
        wait_for(processes, lambda found: len(found) > 3, deadline=60, what="the kernel's processes")
    finally:
        caller.kill()
        caller.wait()
    wait_for(processes, lambda found: not found, deadline=60, what="the end of the kernel's processes")


def test_kernel_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ended before the command did"):
        uml.run(["true"], 60, share=tmp_path / "absent")
