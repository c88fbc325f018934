"""`kubectl ipmp check`: files, directories, lists, standard input."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import TYPE_CHECKING

from kubectl_ipmp.cli import main
from tests.unit.docs.pages import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

GOOD = (ROOT / "examples/two-nics.yaml").read_text(encoding="utf-8")
BAD = GOOD.replace("interfaces:", "interfacez:")


def test_examples_are_good(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(("check", "-f", str(ROOT / "examples/two-nics.yaml"))) == 0
    assert capsys.readouterr().out.rstrip().endswith("ok")


def test_every_fault_is_named_and_the_status_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(BAD)
    (tmp_path / "b.yaml").write_text(GOOD)
    (tmp_path / "c.yaml").write_text("{")
    assert main(("check", "--file", str(tmp_path))) == 2
    shown = capsys.readouterr()
    assert "a.yaml:" in shown.err
    assert "interfacez" in shown.err
    assert "c.yaml: line 1" in shown.err or "c.yaml:" in shown.err
    assert "b.yaml" in shown.out


def test_standard_input_and_lists(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    items = "\n".join(f"  {line}" for line in GOOD.splitlines() if not line.startswith(("#", "---")) and line)
    whole = "apiVersion: v1\nkind: List\nitems:\n- " + items.lstrip() + "\n"
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(whole.encode())))
    assert main(("check", "-f", "-")) == 0, capsys.readouterr().err


def test_one_name_twice_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(GOOD)
    assert main(("check", "-f", str(tmp_path))) == 2
    assert "Duplicate value" in capsys.readouterr().err
