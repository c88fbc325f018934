"""The Debian package: the same bytes from the same sources, and pages that say what the commands do."""

from __future__ import annotations

import argparse
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.cluster import debian
from tests.cluster.release import spdx_of_package

if TYPE_CHECKING:
    from pathlib import Path

UNIT = debian.SOURCES / "units/ipmp.service"
EPOCH = 1_700_000_000


def options(parser: argparse.ArgumentParser) -> set[str]:
    found = {word for action in parser._actions for word in action.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                found |= options(each)
    return found


def test_the_same_sources_make_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(EPOCH))
    first = debian.build_package(tmp_path / "a")
    monkeypatch.setenv("COLUMNS", "40")
    second = debian.build_package(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    told = subprocess.run(["dpkg-deb", "--contents", str(first)], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in told.splitlines()]
    assert {row[1] for row in rows} == {"root/root"}
    runs = {row[5] for row in rows if row[0] == "-rwxr-xr-x"}
    assert runs == {"./usr/bin/ipmpstat", "./usr/sbin/ipmp-agent", "./usr/sbin/ipmpadm"}
    assert "./etc/ipmp/" in {row[5] for row in rows}
    assert not [row[5] for row in rows if "operator" in row[5] or row[5].endswith(".pyc")]
    fields = subprocess.run(["dpkg-deb", "--field", str(first)], capture_output=True, text=True, check=True).stdout
    assert f"Version: {debian.version()}\n" in fields


@pytest.mark.parametrize("name", debian.COMMANDS)
def test_man_page_and_completion_have_every_option(name: str) -> None:
    wanted = options(debian.COMMANDS[name][3]())
    page = debian.man_page(name, "1.2.3", EPOCH)
    assert "ipmp 1.2.3" in page.splitlines()[0]
    assert f"{name.replace('-', chr(92) + '-')} \\- " in page or f"{name} - " in page.replace("\\-", "-")
    text = page.replace("\\-", "-")
    assert sorted(word for word in wanted - {"-h", "--help"} if word not in text) == []
    script = debian.completion(name)
    assert sorted(word for word in wanted if word not in script) == []
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_every_script_is_one_of_a_shell_without_extensions() -> None:
    for name in debian.SCRIPTS:
        path = debian.SOURCES / name
        assert path.read_text(encoding="utf-8").startswith("#!/bin/sh\nset -e\n")
        subprocess.run(["sh", "-n", str(path)], check=True)


def test_the_unit_asks_for_no_more_than_the_agents_pod() -> None:
    unit = UNIT.read_text(encoding="utf-8")
    template = (debian.CHECKOUT / "helm/ipmp/templates/_agent.tpl").read_text(encoding="utf-8")
    (pod,) = re.findall(r"add: \[([A-Z_, ]+)\]", template)
    (host,) = re.findall(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)
    assert {word.removeprefix("CAP_") for word in host.split()} == set(pod.split(", "))


def test_the_sbom_names_what_the_package_depends_on() -> None:
    document = spdx_of_package("2026-01-01T00:00:00Z")
    names = [package["name"] for package in document["packages"]]
    assert names == ["ipmp-agent", *debian.dependencies()]
    assert "python3-yaml" in names
