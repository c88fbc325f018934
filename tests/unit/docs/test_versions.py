"""Whatever says the version says that of pyproject.toml."""

from __future__ import annotations

import re
import tomllib

import ipmp_agent
import ipmp_operator
import kubectl_ipmp
from tests.unit.docs.pages import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def test_programs_say_the_version() -> None:
    assert {ipmp_agent.__version__, ipmp_operator.__version__, kubectl_ipmp.__version__} == {VERSION}


def test_commands_of_the_pages_name_the_files_of_this_version() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    named = {
        (page.name, found)
        for page in pages
        for found in re.findall(
            r"(?:ipmp[-_](?:agent_|v)?|/ipmp:|--version )v?(\d+\.\d+\.\d+)", page.read_text(encoding="utf-8")
        )
    }
    assert {page for page, _ in named} >= {"README.md", "install.md"}
    assert {found for _, found in named} == {VERSION}


def test_changelog_has_the_version_below_what_comes_next() -> None:
    titles = re.findall(r"^## \[(.*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert titles[:2] == ["Unreleased", VERSION]
