"""What `make demo` shows is what it says, and a failed act is a failed demo."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.demo import Result, Stage, verdict
from tests.lab.scene import V4, Scene

if TYPE_CHECKING:
    import pytest

REPOSITORY = Path(__file__).parents[2]


def test_demo_plays_every_act_and_ends_well() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.lab.demo"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.endswith("as it should")]
    assert len(rows) == 6
    assert done.stdout.count("$ ipmpstat") >= 6


def test_act_that_does_not_end_as_it_should_fails_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    def never(_: float) -> None:
        raise AssertionError("nothing moved")

    with Scene(spacing=0.01) as scene:
        stage = Stage(scene)
        stage.act("nothing happens", lambda: None, never)
        assert stage.results[0].trouble == "nothing moved"
        assert stage.results[0].pings_lost[V4] == 0
        assert verdict(stage.results) == 1
    assert "nothing happens: nothing moved" in capsys.readouterr().err
    assert verdict([Result("good", {}, {}, {}, None)]) == 0
