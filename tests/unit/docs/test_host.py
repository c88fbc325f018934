"""docs/host.md says what the agent sets, and the tests and findings that it names are there."""

import re

from ipmp_agent.linux.group.settings import SETTINGS
from tests.unit.docs.pages import NAME, ROOT, functions_of

PAGE = (ROOT / "docs/host.md").read_text(encoding="utf-8")


def test_every_setting_is_in_the_table_with_its_value_and_who_sets_it() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d) \| the (group|host)", PAGE, flags=re.MULTILINE)
    assert rows == [(each.name, str(each.needed), "group" if each.is_set else "host") for each in SETTINGS]


def test_every_file_named_is_there() -> None:
    named = set(re.findall(r"`((?:tests|findings)/[\w/.-]+)`", PAGE))
    assert len(named) > 5
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []


def test_every_kind_is_handled_or_told_and_names_tests_that_exist() -> None:
    table = [line for line in PAGE.partition("## Kind by kind")[2].splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    assert len(rows) > 40
    for what, handled, told, _neither, shown in rows:
        assert handled or told, what
        tests = NAME.findall(shown)
        assert tests, f"no test is named: {what}"
        assert not NAME.sub("", shown).strip(), f"beside the tests stands something else: {what}"
        assert [f"{path}::{test}" for path, test in tests if test not in functions_of(path)] == []


def test_findings_are_listed_once_and_are_there() -> None:
    listed = re.findall(r"^\| \[([\w.-]+)\]\(\1\)", (ROOT / "findings/README.md").read_text(), flags=re.MULTILINE)
    assert len(listed) == len(set(listed)) > 5
    assert sorted(name for name in listed if not (ROOT / "findings" / name).is_file()) == []
