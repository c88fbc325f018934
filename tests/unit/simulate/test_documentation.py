import re
from pathlib import Path

import pytest
import yaml

from ipmp_agent.simulate import script
from ipmp_agent.simulate.__main__ import main

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "simulator.md").read_text(encoding="utf-8")


def test_every_fault_is_in_the_page() -> None:
    table = re.findall(r"\{at, (\w+):", PAGE)
    assert sorted(table) == sorted(script._VERBS)


def test_the_script_of_the_page_is_one() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    parsed = script.parse_script(yaml.load(text, yaml.BaseLoader), ("nic0", "nic1"))
    assert len(parsed.targets) == 3
    assert len(parsed.faults) == 2


def test_the_lines_of_the_page_are_what_its_command_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = next(line for line in PAGE.splitlines() if line.startswith("python -m ipmp_agent.simulate examples"))
    monkeypatch.chdir(ROOT)
    assert main([*command.split()[3:], "--json"]) == 0
    printed = [line.partition(", ")[2] for line in capsys.readouterr().out.splitlines()]
    shown = [line.partition(", ")[2] for line in PAGE.splitlines() if line.startswith('{"at"')]
    assert shown
    assert set(shown) <= set(printed)
