"""docs/host.md says what the agent sets, and the tests and findings that it names are there."""

import re

from ipmp_agent.linux.group.settings import SETTINGS
from tests.unit.docs.pages import ROOT

PAGE = (ROOT / "docs/host.md").read_text(encoding="utf-8")


def test_every_setting_is_in_the_table_with_its_value_and_who_sets_it() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d) \| the (group|host)", PAGE, flags=re.MULTILINE)
    assert rows == [(each.name, str(each.needed), "group" if each.is_set else "host") for each in SETTINGS]


def test_every_file_named_is_there() -> None:
    named = set(re.findall(r"`((?:tests|findings)/[\w/.-]+)`", PAGE))
    assert len(named) > 5
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []


def test_findings_are_listed_once_and_are_there() -> None:
    listed = re.findall(r"^\| \[([\w.-]+)\]\(\1\)", (ROOT / "findings/README.md").read_text(), flags=re.MULTILINE)
    assert len(listed) == len(set(listed)) > 5
    assert sorted(name for name in listed if not (ROOT / "findings" / name).is_file()) == []
