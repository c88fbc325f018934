"""Every page is in the index, every relative link leads somewhere, every alert and reason has its entry."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from ipmp_agent.core.reasons import ADVICE, OBSTACLES, Reason
from ipmp_agent.measurements import ERRORS
from ipmp_agent.views import status
from ipmp_operator.core import rollup
from tests.unit.docs.pages import ROOT

DOCS = ROOT / "docs"
INDEX = DOCS / "README.md"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), ROOT / "helm/ipmp/README.md"])
TROUBLESHOOTING = DOCS / "troubleshooting.md"
LINK = re.compile(r"\]\(([^)\s]+)\)")
EVENTS = {
    # What an Event or a log line says went well, or is in nobody's way.
    Reason.INTERFACE_APPEARED,
    Reason.LINK_UP,
    Reason.PROBES_ANSWERED,
    Reason.TARGETS_FOUND,
    Reason.ONLINE,
    Reason.RESTORED,
    Reason.STANDBY_ACTIVATED,
    Reason.GROUP_OK,
    Reason.DETECTION_TIME_LOWERED,
    Reason.CONFIGURED,
    Reason.ADDRESS_ADDED,
    Reason.ADDRESS_ADOPTED,
    Reason.ADDRESS_REMOVED,
    Reason.FAILOVER,
    Reason.FAILBACK,
    Reason.REBALANCE,
}


def links(page: Path) -> list[str]:
    text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [link for link in LINK.findall(text) if not re.match(r"[a-z]+:", link)]


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_is_in_the_index() -> None:
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in links(INDEX)}
    wanted = {page for page in DOCS.rglob("*.md") if page.parent.name != "runbooks" or page.name == "README.md"}
    assert sorted(str(page.relative_to(DOCS)) for page in wanted - linked - {INDEX}) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_alert_has_an_entry_by_symptom() -> None:
    groups = yaml.safe_load((ROOT / "helm/ipmp/files/alerts.yaml").read_text(encoding="utf-8"))["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    assert alerts - {link.removeprefix("runbooks/").removesuffix(".md") for link in links(TROUBLESHOOTING)} == set()


def test_every_reason_of_host_suitable_is_explained_in_one_table() -> None:
    """The runbook of IPMPHostUnsuitable sends people there."""
    table = (DOCS / "operations.md").read_text(encoding="utf-8").partition("| reason in `HostSuitable` |")[2]
    first = "".join(line.split("|")[1] for line in table.partition("\n\n")[0].splitlines()[1:])
    assert {f"`{reason}`" for reason in OBSTACLES | ADVICE} == set(re.findall(r"`\w+`", first))


def test_reference_names_every_condition() -> None:
    group, node_group = re.findall(
        r"^\| `conditions\[\]` .*$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    for line, module, made in ((group, rollup, "Verdict"), (node_group, status, "_(?:condition|verdict)")):
        source = Path(str(module.__file__)).read_text(encoding="utf-8")
        types = set(re.findall(rf'\b{made}\(\s*"(\w+)"', source))
        assert len(types) > 3
        assert sorted(each for each in types if not re.search(rf"\b{each}\b", line)) == []


def test_every_part_in_which_an_agent_catches_errors_is_in_its_runbook() -> None:
    text = (DOCS / "runbooks/IPMPAgentErrors.md").read_text(encoding="utf-8")
    assert [part for part in ERRORS if f"`{part}`" not in text] == []


def test_every_reason_of_a_trouble_has_an_entry_by_symptom() -> None:
    text = TROUBLESHOOTING.read_text(encoding="utf-8")
    said = set(re.findall(r"`([A-Z][A-Za-z]+)`", text))
    assert set(Reason) - EVENTS >= OBSTACLES | ADVICE
    missing = {str(reason) for reason in set(Reason) - EVENTS} - said
    assert missing == set(), "docs/troubleshooting.md names each reason of a trouble, under what its reader sees"
    source = ROOT / "operator/ipmp_operator/core" / f"{rollup.__name__.rpartition('.')[2]}.py"
    theirs = set(re.findall(r'(?:True|False|UNKNOWN), "([A-Z][A-Za-z]+)"', source.read_text(encoding="utf-8")))
    assert len(theirs) > 10
    assert theirs - said - {"Accepted", "Ready", "AsExpected"} == set()
