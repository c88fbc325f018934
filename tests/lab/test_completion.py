"""Completion of `kubectl-ipmp` in the shells themselves, with their scripts as docs/kubectl.md installs them."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from kubectl_ipmp import completion

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 60.0


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    program = tmp_path / "kubectl-ipmp"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m kubectl_ipmp "$@"\n')
    program.chmod(0o755)
    return {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path), "TERM": "dumb", "LANG": "C.UTF-8"}


@pytest.mark.parametrize(
    ("typed", "wanted"), [("kubectl-ipmp stat", "status"), ("kubectl-ipmp status --for de", "degraded")]
)
def test_fish_completes(environment: dict[str, str], tmp_path: Path, typed: str, wanted: str) -> None:
    script = tmp_path / ".config/fish/completions/kubectl-ipmp.fish"
    script.parent.mkdir(parents=True)
    script.write_text(completion.SCRIPTS["fish"])
    done = subprocess.run(
        ["fish", "--command", f"complete --do-complete '{typed}'"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert [line.partition("\t")[0] for line in done.stdout.splitlines()] == [wanted], done.stderr


def test_fish_completes_files_where_a_file_is_wanted(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "group.yaml").touch()
    script = completion.SCRIPTS["fish"] + "complete --do-complete 'kubectl-ipmp check -f gro'\n"
    done = subprocess.run(
        ["fish", "--command", script],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert done.stdout.split() == ["group.yaml"], done.stderr


class Terminal:
    """A shell in a terminal, to which somebody types."""

    def __init__(self, *command: str, environment: dict[str, str], directory: Path) -> None:
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, cwd=directory, start_new_session=True
        )
        os.close(slave)
        self._seen = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait(self, text: str) -> None:
        """Wait until this is seen, after what was waited for before."""
        end = time.monotonic() + PATIENCE
        while text not in self._seen:
            left = end - time.monotonic()
            assert left > 0, f"{text!r} does not come: {self._seen!r}"
            if select.select([self._master], [], [], left)[0]:
                self._seen += os.read(self._master, 4096).decode(errors="replace")
        self._seen = self._seen.partition(text)[2]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)


@pytest.mark.parametrize("installed", ["by autoload", "by source"])
def test_zsh_completes_from_the_first_tab_on(environment: dict[str, str], tmp_path: Path, installed: str) -> None:
    (tmp_path / "functions").mkdir()
    script = tmp_path / "functions/_kubectl-ipmp"
    lines = ["PROMPT='ready> '", "unsetopt zle_bracketed_paste", "autoload -Uz compinit"]
    if installed == "by autoload":
        script.write_text(completion.SCRIPTS["zsh"])
        lines += ["fpath=($HOME/functions $fpath)", "compinit -u -D"]
    else:
        (tmp_path / "script").write_text(completion.SCRIPTS["zsh"])
        lines += ["compinit -u -D", "source $HOME/script"]
    (tmp_path / ".zshrc").write_text("\n".join([*lines, ""]))
    (tmp_path / "group.yaml").touch()
    zsh = Terminal("zsh", "-i", environment=environment, directory=tmp_path)
    try:
        zsh.wait("ready> ")
        zsh.type("kubectl-ipmp stat\t")
        zsh.wait("us ")
        zsh.type("--for de\t")
        zsh.wait("graded ")
        zsh.type("\x15kubectl-ipmp check -f gro\t")
        zsh.wait("up.yaml ")
    finally:
        zsh.close()
