"""A build that takes long says that it lives, and one that fails says why."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from tests.cluster.build import alive

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SLOW = """
import pathlib, sys, time
print("k8s.io/api/core/v1", file=sys.stderr, flush=True)
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.01)
"""


def test_slow_build_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    release = tmp_path / "go on"

    def shown(line: str, *, flush: bool) -> None:
        assert flush
        seen.append(line)
        if "packages, now" in line:
            release.touch()

    monkeypatch.setattr("builtins.print", shown)
    status, _ = alive(
        [sys.executable, "-c", SLOW, str(release)], "  [ 2/17] kube-apiserver", cwd=tmp_path, env=os.environ, every=0.01
    )
    assert status == 0
    assert seen[-1].endswith("so far: 1 packages, now k8s.io/api/core/v1")
    assert seen[0].startswith("  [ 2/17] kube-apiserver")


def test_failed_build_says_why(tmp_path: Path) -> None:
    script = "import sys; sys.exit('no such package')"
    status, said = alive([sys.executable, "-c", script], "x", cwd=tmp_path, env=os.environ)
    assert status == 1
    assert said == "no such package\n"
