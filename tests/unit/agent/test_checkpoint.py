"""The core of a group, frozen and thawed: it goes on as if nothing had been, and nothing else comes of a recording."""

from __future__ import annotations

import base64
import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import ipmp_agent
from ipmp_agent.core import interface
from ipmp_agent.core.multipathing import Multipathing
from ipmp_agent.disk.checkpoint import freeze, thaw
from ipmp_agent.disk.recording import Resumed, encode_entry
from ipmp_agent.simulate import simulation
from ipmp_agent.simulate.__main__ import main as simulate
from tests.unit.simulate.playing import make_group
from tests.unit.simulate.recorded import HEAD

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES = Path(__file__).parents[3] / "examples"
OFTEN = 97
"""Calls of the core between two that it is frozen after."""


class Thawing:
    """A core that is frozen and thawed again and again; whoever asks it notices nothing."""

    def __init__(self, core: Multipathing) -> None:
        self._core = core
        self._calls = 0

    def __getattr__(self, name: str) -> Any:
        self._calls += 1
        if self._calls % OFTEN == 0:
            self._core = thaw(freeze(self._core))
        return getattr(self._core, name)


@pytest.mark.parametrize("script", sorted((EXAMPLES / "simulations").glob("*.yaml")), ids=lambda path: path.stem)
def test_thawed_core_decides_as_the_one_that_was_frozen(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = next(line for line in script.read_text().splitlines() if "python -m ipmp_agent.simulate" in line)
    files = [str(EXAMPLES.parent / name) for name in command.partition("ipmp_agent.simulate ")[2].split()]
    assert simulate(files) == 0
    expected = capsys.readouterr().out
    thawed = []

    def thawing(*arguments: Any, **more: Any) -> Thawing:
        thawed.append(Thawing(Multipathing(*arguments, **more)))
        return thawed[-1]

    monkeypatch.setattr(simulation, "Multipathing", thawing)
    assert simulate(files) == 0
    assert capsys.readouterr().out == expected
    assert thawed[0]._calls > 10 * OFTEN


class Calls:
    """A pickle that calls something when it is read."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._what = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._what


@pytest.mark.parametrize(
    "made",
    [
        Calls(eval, "1"),
        Calls(Path, "/"),
        Calls(open, "/dev/null"),
        Calls(interface.group_state, ()),
        Calls(getattr, Multipathing, "tick"),
    ],
    ids=["eval", "Path", "open", "a function of the core", "getattr"],
)
def test_nothing_is_called_that_is_no_class_of_the_core(made: Calls) -> None:
    with pytest.raises(ValueError, match="is nothing of the core"):
        thaw(base64.b64encode(pickle.dumps(made)).decode())


@pytest.mark.parametrize(
    "text", ["", "!", "AAAA", "gASVAAAA", base64.b64encode(b"cos\nsystem\n(S'true'\ntR.").decode()]
)
def test_bytes_that_are_no_core_are_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="not the state of a group"):
        thaw(text)


@pytest.mark.parametrize(
    ("core", "version", "words"),
    [
        ("AAAA", None, "not the state of a group"),
        (freeze(make_group()), None, "not the state of a group: NodeGroup"),
        (freeze(Multipathing(make_group(), seed=1)), "0.0.1", "which ipmp-agent 0.0.1 alone can replay"),
    ],
)
def test_recording_that_cannot_go_on_says_why(
    tmp_path: Path, core: str, version: str | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = Resumed("storage", 1.0, make_group(), core, version or ipmp_agent.__version__)
    path = tmp_path / "r"
    path.write_text(json.dumps(HEAD) + "\n" + json.dumps(encode_entry(entry)) + "\n")
    assert simulate(["--replay", str(path)]) == 2
    assert words in capsys.readouterr().err
