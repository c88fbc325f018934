"""Writes helm/ipmp/files/board.json. Run: .venv/bin/python -m helm.board."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, VariableOption, VariableRefresh, VariableSort

from helm.board.panels import FAILURES, ROWS
from helm.board.views import RED, SOURCE, build

if TYPE_CHECKING:
    from collections.abc import Iterator

PATH = Path(__file__).parents[1] / "ipmp/files/board.json"
UID = "ipmp-overview"
"""Of the board, so that an upgrade replaces it and links to it stay."""


def _variables() -> Iterator[dashboard.DatasourceVariable | dashboard.QueryVariable]:
    yield dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    held = ""
    for name in ("cluster", "node", "group", "interface"):
        variable = dashboard.QueryVariable(name).label(name.capitalize()).datasource(SOURCE)
        variable.query(f"label_values(ipmp_interface_state{{{held}}}, {name})")
        variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)
        variable.multi(multi=True).include_all(include_all=True).all_value(".*")
        yield variable.current(VariableOption(text="All", value="$__all"))
        held += ("," if held else "") + f'{name}=~"${name}"'


def board() -> str:
    """The board as Grafana reads it."""
    made = dashboard.Dashboard("IPMP").uid(UID).tags(["ipmp"]).editable().timezone("browser").refresh("30s")
    made.description("IP network multipathing: which interfaces work, where the addresses are, and what moved.")
    made.time("now-3h", "now").tooltip(DashboardCursorSync.CROSSHAIR)
    for variable in _variables():
        made.with_variable(variable)
    marks = dashboard.AnnotationQuery().name("Failures").datasource(SOURCE).enable(enable=True).icon_color(RED)
    made.annotation(marks.expr(FAILURES))
    number = 1
    for title, (height, panels) in ROWS.items():
        made.with_row(dashboard.Row(title).id(number))
        for panel in panels:
            number += 1
            made.with_panel(build(panel, height, number))
        number += 1
    return json.dumps(made.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    PATH.write_text(board(), encoding="utf-8")
