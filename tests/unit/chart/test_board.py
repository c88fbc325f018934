"""The board of the chart: generated, whole, and laid out without gaps in what a reader needs."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from helm.board.__main__ import PATH, board
from tests.docs import metrics

TEXT = PATH.read_text(encoding="utf-8")
BOARD: dict[str, Any] = json.loads(TEXT)
ROWS = [panel for panel in BOARD["panels"] if panel["type"] == "row"]
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
VARIABLES = {variable["name"]: variable for variable in BOARD["templating"]["list"]}
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
EXPRESSIONS += [mark["expr"] for mark in BOARD["annotations"]["list"]]
UNITS = {"none", "s", "bytes", "percentunit", "pps", "ops"}
"""Units that the board uses, by Grafana's names: each is right for what is counted in it."""
ENDINGS = {"seconds": "s", "bytes": "bytes"}
OF_PROMETHEUS = {"up", "ALERTS"}


def test_board_is_the_generated_one() -> None:
    assert board() == TEXT, "run: .venv/bin/python -m helm.board"


def test_links_to_the_board_outlive_an_upgrade() -> None:
    assert BOARD["uid"] == "ipmp-overview"
    assert "id" not in BOARD
    assert BOARD["title"] == "IPMP"


def test_rows_are_those_of_the_outline() -> None:
    assert [row["title"] for row in ROWS] == ["Now", "Where", "Moves", "Probing", "Agents", "Operator"]


def test_no_two_panels_overlap_and_none_leaves_the_grid() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24, panel["title"]
        for cell in itertools.product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        ):
            assert cell not in taken, f"{panel['title']} lies on {taken[cell]}"
            taken[cell] = panel["title"]
    rows = {y for _, y in taken}
    assert rows == set(range(max(rows) + 1)), "an empty row"
    assert len(taken) == 24 * len(rows), "a hole"


def test_numbers_of_panels_are_their_own() -> None:
    numbers = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panel_has_a_title_a_description_a_unit_and_the_chosen_data_source(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    for holder in (panel, *panel["targets"]):
        assert holder["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_unit_is_that_of_the_metric(panel: dict[str, Any]) -> None:
    unit = panel["fieldConfig"]["defaults"]["unit"]
    for expression in (target["expr"] for target in panel["targets"]):
        if "histogram_quantile" in expression:
            assert unit == "s"
        elif " / " in expression or "cpu_seconds" in expression:
            assert unit == "percentunit"
        elif "rate(" in expression:
            assert unit in {"pps", "ops"}
        elif "increase(" not in expression:
            (metric, *_) = re.findall(r"([a-zA-Z_]+)\{", expression)
            assert unit == ENDINGS.get(metric.rpartition("_")[2], "none")
        else:
            assert unit == "none"


def test_every_metric_of_a_query_is_on_a_page_of_agent_or_operator() -> None:
    pages = (metrics.agent_page(), metrics.operator_page())
    shown = {sample.name for page in pages for family in page for sample in family.samples} | OF_PROMETHEUS
    used = {name for expression in EXPRESSIONS for name in re.findall(r"([a-zA-Z_]+)\{", expression)}
    assert used - shown == set()


def test_every_query_obeys_the_variables_that_its_metric_has_labels_for() -> None:
    for expression in EXPRESSIONS:
        for metric, selector in re.findall(r"([a-zA-Z_]+)\{([^}]*)\}", expression):
            if metric == "ALERTS":
                continue  # an alert of the operator has neither node nor group
            assert 'cluster=~"$cluster"' in selector, expression
            if metric.startswith("ipmp_interface_"):
                assert 'group=~"$group"' in selector, expression
                assert 'node=~"$node"' in selector, expression


def test_variables_are_the_outlines_and_none_hides_a_cluster_without_that_label() -> None:
    assert list(VARIABLES) == ["datasource", "cluster", "node", "group", "interface"]
    for name, variable in VARIABLES.items():
        if name != "datasource":
            assert (variable["multi"], variable["includeAll"], variable["allValue"]) == (True, True, ".*")
            assert variable["current"]["value"] == "$__all"
    used = set(re.findall(r"\$\{?([a-z]\w*)", TEXT))
    assert used == set(VARIABLES)


def test_page_on_monitoring_names_the_board() -> None:
    page = (Path(__file__).parents[3] / "docs/monitoring.md").read_text(encoding="utf-8")
    assert "helm/ipmp/files/board.json" in page
    assert "monitoring.dashboard.enabled=true" in page
