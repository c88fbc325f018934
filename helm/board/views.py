"""Panels as values, and how Grafana is told of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCE = DataSourceRef("prometheus", "${datasource}")

GREEN, YELLOW, RED, BLUE, GREY = "green", "dark-yellow", "dark-red", "blue", "text"
STATES = {0: ("ok", GREEN), 1: ("unknown", BLUE), 2: ("offline", YELLOW), 3: ("failed", RED)}
"""How bad a state is, what it is called and its colour."""


Steps = Mapping[float, str]
"""Colours, each from a value on."""


@dataclass(frozen=True, slots=True)
class Query:
    """One query, and how its series are called; braces take labels. `exemplars`: single values are shown, too."""

    expression: str
    legend: str = ""
    exemplars: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: what it is called, what it means, the unit of its values, its queries and how they are shown."""

    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    width: int
    view: View


@dataclass(frozen=True, slots=True)
class Number:
    """Values of now, as large figures, in colours from a value on; `colours` are those of single series above 0."""

    steps: Steps
    colours: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Lines:
    """Values over time; `bars` for what is counted."""

    bars: bool = False


@dataclass(frozen=True, slots=True)
class Columns:
    """A table of now. Columns of values are Value, or Value #A and on; those not named in `names` are left out."""

    names: Mapping[str, str]
    words: Mapping[str, Mapping[int, tuple[str, str]]] | None = None  # of values, by column


@dataclass(frozen=True, slots=True)
class Timeline:
    """A band a series, with STATES as its values."""


@dataclass(frozen=True, slots=True)
class Gauges:
    """A bar a series, in colours from a value on."""

    steps: Steps


View = Number | Lines | Columns | Timeline | Gauges


def _mapping(words: Mapping[int, tuple[str, str]]) -> ValueMap:
    options = {
        str(value): ValueMappingResult(text=word, color=colour, index=value) for value, (word, colour) in words.items()
    }
    return ValueMap(options)


def _thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    first, *later = steps.items()
    found = [Threshold(None, first[1]), *(Threshold(value, colour) for value, colour in later)]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(found)


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"])


def _number(view: Number) -> stat.Panel:
    panel = stat.Panel().thresholds(_thresholds(view.steps)).reduce_options(_last()).no_value("-")
    panel.color_mode(common_models.BigValueColorMode.VALUE).graph_mode(common_models.BigValueGraphMode.NONE)
    for name, colour in (view.colours or {}).items():
        steps = _thresholds({0: GREEN, 1: colour}).build()
        panel.override_by_name(name, [DynamicConfigValue("thresholds", steps)])
    return panel


def _lines(view: Lines) -> timeseries.Panel:
    legend = common.VizLegendOptions().show_legend(show_legend=True)
    legend.display_mode(common_models.LegendDisplayMode.LIST).placement(common_models.LegendPlacement.BOTTOM)
    panel = timeseries.Panel().legend(legend).line_width(1).fill_opacity(70 if view.bars else 10)
    panel.tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI))
    panel.show_points(common_models.VisibilityMode.NEVER)
    if view.bars:
        panel.draw_style(common_models.GraphDrawStyle.BARS)
        panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    return panel.min(0)


def _columns(view: Columns, queries: Sequence[Query]) -> table.Panel:
    panel = table.Panel().show_header(show_header=True)
    if len(queries) > 1:
        panel.with_transformation(DataTransformerConfig("merge", options={}))
    chosen = {"include": {"names": list(view.names)}}
    panel.with_transformation(DataTransformerConfig("filterFieldsByName", options=chosen))
    order = {name: position for position, name in enumerate(view.names)}
    panel.with_transformation(
        DataTransformerConfig("organize", options={"indexByName": order, "renameByName": dict(view.names)})
    )
    for column, words in (view.words or {}).items():
        panel.override_by_name(column, [DynamicConfigValue("mappings", [_mapping(words)])])
    return panel


def _timeline() -> statetimeline.Panel:
    panel = statetimeline.Panel().mappings([_mapping(STATES)]).merge_values(merge_values=True)
    panel.show_value(common_models.VisibilityMode.AUTO).row_height(0.8).fill_opacity(80)
    return panel.thresholds(_thresholds({value: colour for value, (_, colour) in STATES.items()}))


def _gauges(view: Gauges) -> bargauge.Panel:
    panel = bargauge.Panel().thresholds(_thresholds(view.steps)).reduce_options(_last()).min(0).no_value("-")
    return panel.orientation(common_models.VizOrientation.HORIZONTAL)


AnyPanel = stat.Panel | timeseries.Panel | table.Panel | statetimeline.Panel | bargauge.Panel


def build(panel: Panel, height: int, number: int) -> AnyPanel:
    """The panel for Grafana, `height` rows high, with its number on the board."""
    built: AnyPanel
    match panel.view:
        case Number():
            built = _number(panel.view)
        case Lines():
            built = _lines(panel.view)
        case Columns():
            built = _columns(panel.view, panel.queries)
        case Timeline():
            built = _timeline()
        case Gauges():
            built = _gauges(panel.view)
    built.title(panel.title).description(panel.description).unit(panel.unit).datasource(SOURCE).id(number)
    for name, query in zip("ABCDEFGH", panel.queries, strict=False):
        built.with_target(_target(query, panel.view).ref_id(name))
    return built.height(height).span(panel.width)


def _target(query: Query, view: View) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expression).datasource(SOURCE)
    if query.legend:
        target.legend_format(query.legend)
    if isinstance(view, Columns):
        target.instant().format(PromQueryFormat.TABLE)
    elif isinstance(view, Number | Gauges):
        target.instant()
    else:
        target.range()
    if query.exemplars:
        target.exemplar(True)
    return target
