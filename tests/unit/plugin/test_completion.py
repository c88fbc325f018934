"""Completion, and the plugin as one file."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest
import yaml

import kubectl_ipmp
from kubectl_ipmp import completion, single_file
from tests.unit.plugin.world import World, healthy

if TYPE_CHECKING:
    from pathlib import Path


def completed(world: World, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[list[str], str]:
    assert world.run("__complete", *words) == 0
    *lines, directive = capsys.readouterr().out.splitlines()
    return [line.partition("\t")[0] for line in lines], directive


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("st",), ["status"]),
        (("explain", ""), ["front"]),
        (("explain", "front", ""), ["n1", "n2"]),
        (("explain", "front", "n1", ""), []),
        (("offline", ""), ["n1", "n2"]),
        (("offline", "n1", ""), ["eth1", "eth2"]),
        (("offline", "n1", "eth2"), ["eth2"]),
        (("status", "--node", ""), ["n1", "n2"]),
        (("status", "--node=n"), ["--node=n1", "--node=n2"]),
        (("status", "--for", "de"), ["degraded"]),
        (("status", "front", "f"), ["front"]),
        (("--context", "edge", "history", "fr"), ["front"]),
        (("completion", ""), ["bash", "fish", "zsh"]),
    ],
)
def test_words_are_completed(words: tuple[str, ...], found: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    seen, directive = completed(healthy(), capsys, *words)
    assert (sorted(seen), directive) == (found, ":4")


def test_all_commands_are_offered_and_no_hidden_one(capsys: pytest.CaptureFixture[str]) -> None:
    seen, _ = completed(healthy(), capsys, "")
    assert {"status", "offline", "bundle", "check"} <= set(seen)
    assert not any(each.startswith("_") for each in seen)


def test_options_are_completed_and_files_left_to_the_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--wait" in completed(healthy(), capsys, "status", "--w")[0]
    assert completed(healthy(), capsys, "check", "-f", "") == ([], ":0")


def test_cluster_of_the_options_is_asked_and_silence_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    world = healthy()
    completed(world, capsys, "--context=edge", "explain", "")
    assert all(call[0] == "--context=edge" for call in world.calls)
    world.refusal = "connection refused"
    assert completed(world, capsys, "explain", "") == ([], ":4")


@pytest.mark.parametrize("shell", completion.SCRIPTS)
def test_script_of_each_shell_is_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert World().run("completion", shell) == 0
    assert "__complete" in capsys.readouterr().out


def test_bash_completes(tmp_path: Path) -> None:
    program = tmp_path / "kubectl-ipmp"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m kubectl_ipmp "$@"\n')
    program.chmod(0o755)
    script = completion.SCRIPTS["bash"] + (
        'COMP_WORDS=(kubectl-ipmp stat); COMP_CWORD=1; _kubectl_ipmp; echo "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "-c", script], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["status"], done.stderr


# -- one file


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return single_file.build(tmp_path_factory.mktemp("plugin"))


def test_one_file_runs_without_any_package(built: dict[str, Path], tmp_path: Path) -> None:
    manifest = single_file.__file__.partition("/operator/")[0] + "/examples/two-nics.yaml"
    python = [sys.executable, "-I", "-S", str(built["kubectl-ipmp"])]
    done = subprocess.run([*python, "check", "-f", manifest], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip().endswith("ok")
    done = subprocess.run([*python, "version", "--client"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["plugin:", kubectl_ipmp.__version__]


def test_two_builds_are_equal(built: dict[str, Path], tmp_path: Path) -> None:
    again = single_file.build(tmp_path)
    assert {name: path.read_bytes() for name, path in again.items()} == {
        name: path.read_bytes() for name, path in built.items()
    }


def test_krew_manifest_is_about_the_archive(built: dict[str, Path]) -> None:
    manifest = yaml.safe_load(built["ipmp.yaml"].read_text(encoding="utf-8"))
    (platform,) = manifest["spec"]["platforms"]
    archive = built[f"kubectl-ipmp-v{kubectl_ipmp.__version__}.tar.gz"]
    assert platform["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert platform["uri"].endswith(archive.name)
    with tarfile.open(archive) as opened:
        names = opened.getnames()
    assert platform["bin"] in names
    assert {"LICENSE", "LICENSE.PyYAML", "kubectl_complete-ipmp"} <= set(names)
    assert (manifest["metadata"]["name"], manifest["spec"]["version"]) == ("ipmp", f"v{kubectl_ipmp.__version__}")
