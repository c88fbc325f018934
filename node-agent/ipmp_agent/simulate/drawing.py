"""The picture of a group as a plotly figure. All that tells things apart does so by place, shape or hatching as well.

Each interface is a lane: a bar of its state, one of its link, a row of probes, and a bar for each data address while it
is there. Moves are arrows between lanes, verdicts numbered lines across them.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from ipmp_agent.core.words import InterfaceWord
from ipmp_agent.simulate.picture import NOWHERE
from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ipmp_agent.simulate.picture import Happened, Lane, Picture, Standing
    from ipmp_agent.simulate.timeline import Probed

ROW = 26
"""Pixels of one row."""
ABOVE, BELOW = 88, 104
"""Pixels above the rows, for the buttons and below them the marks, and below, for the axis and the legend."""
PROBES = 4000
"""Probes drawn of one interface, of those answered and of those lost; near verdicts all are."""
CROWD = 3 * PROBES
"""The most that are, however many verdicts there were."""
CROSSING = 300
"""Moves that get an arrow, and verdicts and faults that get a line, from the first on."""
NEAR = 15.0
"""Seconds around a verdict in which nothing is left out."""
MARGIN = 5.0
"""Seconds shown at first before and after what happened."""
ROOMY = 0.17
"""Share of what is shown at first that a bar needs for a reason in it."""
TOGETHER = 0.022
"""Marks closer than this share of what is shown at first are one mark."""


@frozen
class Look:
    """How a bar looks: its colour, the hatching over it, and the colour of text in it."""

    name: str
    colour: str
    shape: str = ""
    text: str = "#111"
    hatching: str = "#111"
    height: float = 0.78


STATES = {
    InterfaceWord.OK: Look("ok", "#d5e8d4"),
    InterfaceWord.UNKNOWN: Look("unknown", "#dbe7f5", "."),
    InterfaceWord.OFFLINE: Look("offline", "#f0c36a", "/"),
    InterfaceWord.FAILED: Look("failed", "#8c1515", "x", "#fff", "#5a0d0d"),
}
LINKS = {
    "up": Look("link up", "#9aa5b1", height=0.26),
    "unknown": Look("link not told", "#ffffff", ".", height=0.5),
    "down": Look("link down", "#ffffff", "x", height=0.5),
    "absent": Look("not there", "#ffffff", "-", height=0.5),
}
ADDRESS = Look("address is here", "#2b5c8a", text="#fff", height=0.6)
STRANDED = Look("address is nowhere", "#ffffff", "\\", height=0.6)


class _Rows:
    """Which row is what, from top to bottom, counted in rows; a gap is left below each lane."""

    def __init__(self, lanes: Iterable[Lane]) -> None:
        self.labels: dict[float, str] = {}
        self.of: dict[tuple[str, str], float] = {}  # by interface and what: state, link, probes, or an address
        self.height = 0.0
        for lane in lanes:
            kinds = [] if lane.interface == NOWHERE else ["state", "link", "probes"]
            for kind in [*kinds, *lane.addresses]:
                label = f"<b>{_escape(lane.interface)}</b>" if kind == "state" else kind
                if lane.interface == NOWHERE:
                    label = f"nowhere: {kind}"
                self.labels[self.height] = label
                self.of[lane.interface, kind] = self.height
                self.height += 1
            self.height += 0.5


def figure(picture: Picture) -> go.Figure:
    """The figure of one group."""
    lanes = [lane for lane in picture.lanes.values() if lane.interface != NOWHERE or _anywhere(lane)]
    rows = _Rows(lanes)
    drawn = go.Figure()
    shown = first_sight(picture)
    for trace in (*_bars(lanes, rows, (shown[1] - shown[0]) * ROOMY), *_probes(picture, lanes, rows)):
        drawn.add_trace(trace)
    drawn.update_layout(
        barmode="overlay",
        height=round(rows.height * ROW) + ABOVE + BELOW,
        margin={"l": 10, "r": 14, "t": ABOVE, "b": BELOW},
        paper_bgcolor="#fff",
        plot_bgcolor="#fff",
        font={"family": "system-ui, DejaVu Sans, sans-serif", "size": 12, "color": "#111"},
        hoverlabel={"font": {"size": 12}},
        uniformtext={"minsize": 9, "mode": "hide"},
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": -44 / (rows.height * ROW),
            "yanchor": "top",
            "itemclick": False,
            "itemdoubleclick": False,
            "font": {"size": 11},
        },
        dragmode="zoom",
        shapes=[*_lines(picture, rows)],
        annotations=[*_marks(picture, shown), *_arrows(picture, rows)],
    )
    drawn.update_xaxes(
        range=list(shown),
        title={"text": "seconds from the beginning", "standoff": 4},
        ticks="outside",
        showgrid=True,
        gridcolor="#e4e4e4",
        zeroline=False,
        showline=True,
        linecolor="#111",
    )
    drawn.update_yaxes(
        range=[rows.height - 0.4, -0.6],
        fixedrange=True,
        tickvals=list(rows.labels),
        ticktext=list(rows.labels.values()),
        tickfont={"size": 11},
        automargin=True,
        showgrid=False,
        zeroline=False,
    )
    return drawn


def first_sight(picture: Picture) -> tuple[float, float]:
    """What is shown at first: everything, or where verdicts and faults are, if they are but a part of it."""
    marks = [one.at for one in marked(picture)]
    whole = max(picture.over - picture.begin, 1e-3)
    edge = whole * 0.01
    everything = (picture.begin - edge, picture.over + edge)
    if not marks:
        return everything
    begin, end = max(picture.begin, marks[0] - MARGIN), min(picture.over, marks[-1] + MARGIN)
    return (begin, end) if end - begin < whole / 4 else everything


def _anywhere(lane: Lane) -> bool:
    return any(spans for spans in lane.addresses.values())


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# --- bars

_Bar = tuple[float, float, float, str, str]
"""Row, begin, end, the text in it, and what is told under the pointer."""


def _bars(lanes: Sequence[Lane], rows: _Rows, roomy: float) -> Iterator[go.Bar]:
    found: dict[Look, list[_Bar]] = {look: [] for look in (*STATES.values(), *LINKS.values(), ADDRESS, STRANDED)}
    for lane in lanes:
        for state in lane.states:
            words = _standing(state.value, lane.role)
            row = rows.of[lane.interface, "state"]
            text = words if state.end - state.begin > roomy else state.value.word.value
            found[STATES[state.value.word]].append((row, state.begin, state.end, text, f"{lane.interface}: {words}"))
        for link in lane.links:
            look = LINKS[link.value]
            row = rows.of[lane.interface, "link"]
            words = "" if link.value == "up" else look.name
            found[look].append((row, link.begin, link.end, words, f"{lane.interface}: {look.name}"))
        for address, spans in lane.addresses.items():
            look = STRANDED if lane.interface == NOWHERE else ADDRESS
            where = lane.interface or "no interface"
            row = rows.of[lane.interface, address]
            found[look] += [(row, span.begin, span.end, "", f"{address} on {where}") for span in spans]
    for look, bars in found.items():
        if bars:
            yield _trace(look, bars)


def _standing(standing: Standing, role: str) -> str:
    words = standing.word.value
    if standing.word is InterfaceWord.OK:
        return f"ok, {'active' if standing.active else 'standby' if role == 'standby' else 'not used'}"
    return words + (f" ({standing.reason.value})" if standing.reason else "")


def _trace(look: Look, bars: Sequence[_Bar]) -> go.Bar:
    pattern = {"shape": look.shape, "fgcolor": look.hatching, "bgcolor": look.colour, "size": 6, "solidity": 0.25}
    return go.Bar(
        name=look.name,
        orientation="h",
        y=[bar[0] for bar in bars],
        base=[bar[1] for bar in bars],
        x=[bar[2] - bar[1] for bar in bars],
        width=look.height,
        marker={
            "color": look.colour,
            "line": {"color": "#444", "width": 0.7},
            "pattern": pattern if look.shape else {},
        },
        text=[bar[3] for bar in bars],
        textposition="inside",
        insidetextanchor="start",
        textangle=0,
        insidetextfont={"color": look.text, "size": 11},
        customdata=[[bar[4], f"{bar[1]:.3f}", f"{bar[2]:.3f}", f"{bar[2] - bar[1]:.3f}"] for bar in bars],
        hovertemplate="%{customdata[0]}<br>%{customdata[1]} s to %{customdata[2]} s: %{customdata[3]} s<extra></extra>",
    )


# --- probes


def _probes(picture: Picture, lanes: Sequence[Lane], rows: _Rows) -> Iterator[go.Scatter]:
    verdicts = sorted(found.at for found in picture.found)
    answered: list[tuple[float, Probed]] = []
    lost: list[tuple[float, Probed]] = []
    for lane in lanes:
        if lane.interface != NOWHERE:
            row = rows.of[lane.interface, "probes"]
            answered += [(row, probe) for probe in thinned(lane.answered, verdicts)]
            lost += [(row, probe) for probe in thinned(lane.lost, verdicts)]
    yield _dots("probe answered", answered, {"symbol": "line-ns", "size": 9, "line": {"width": 1, "color": "#77828c"}})
    yield _dots("probe lost", lost, {"symbol": "x-thin", "size": 9, "line": {"width": 2.2, "color": "#b00020"}})


def thinned(probes: Sequence[Probed], verdicts: Sequence[float]) -> list[Probed]:
    """At most PROBES evenly, and all near verdicts where these are few."""
    step = -(-len(probes) // PROBES) or 1
    if step == 1:
        return list(probes)

    def near(probe: Probed) -> bool:
        after = bisect_left(verdicts, probe.sent - NEAR)
        return after < len(verdicts) and verdicts[after] <= probe.sent + NEAR

    kept = [probe for number, probe in enumerate(probes) if number % step == 0 or near(probe)]
    return kept if len(kept) <= CROWD else list(probes[::step])


def _dots(name: str, probes: Sequence[tuple[float, Probed]], marker: dict[str, Any]) -> go.Scatter:
    said = [f"answered in {p.rtt * 1000:.2f} ms" if p.rtt is not None else "not answered" for _, p in probes]
    return go.Scatter(
        name=name,
        mode="markers",
        x=[probe.sent for _, probe in probes],
        y=[row for row, _ in probes],
        marker=marker,
        customdata=[[p.interface, p.target, words] for (_, p), words in zip(probes, said, strict=True)],
        hovertemplate="%{customdata[0]} asked %{customdata[1]} at %{x:.3f} s: %{customdata[2]}<extra></extra>",
    )


# --- what crosses the lanes


def _lines(picture: Picture, rows: _Rows) -> Iterator[dict[str, Any]]:
    for one in marked(picture):
        line = {"color": "#111", "width": 1, "dash": "dot" if one.kind == "fault" else "dash"}
        yield {"type": "line", "x0": one.at, "x1": one.at, "y0": -0.6, "y1": rows.height - 0.4, "line": line}


def marked(picture: Picture) -> list[Happened]:
    """What gets a mark and a line."""
    return [one for one in picture.happened if one.mark][:CROSSING]


def _marks(picture: Picture, shown: tuple[float, float]) -> Iterator[dict[str, Any]]:
    """Numbers of verdicts above the lanes, letters of faults above those; where they would touch, one says both."""
    near = (shown[1] - shown[0]) * TOGETHER
    for kind, height in (("verdict", 6), ("fault", 28)):
        for cluster in _clusters([one for one in marked(picture) if one.kind == kind], near):
            first, last = cluster[0].mark, cluster[-1].mark
            yield {
                "x": cluster[0].at,
                "y": 1,
                "yref": "paper",
                "yshift": height,
                "yanchor": "bottom",
                "text": first if first == last else f"{first}-{last}",
                "showarrow": False,
                "font": {"size": 11, "color": "#fff" if kind == "verdict" else "#111"},
                "bgcolor": "#111" if kind == "verdict" else "#fff",
                "bordercolor": "#111",
                "borderwidth": 1,
                "borderpad": 2,
            }


def _clusters(marks: Sequence[Happened], near: float) -> Iterator[list[Happened]]:
    cluster: list[Happened] = []
    for one in marks:
        if cluster and one.at - cluster[0].at > near:
            yield cluster
            cluster = []
        cluster.append(one)
    if cluster:
        yield cluster


def _arrows(picture: Picture, rows: _Rows) -> Iterator[dict[str, Any]]:
    for move in picture.moves[:CROSSING]:
        yield {
            "x": move.at,
            "y": rows.of[move.destination, move.address],
            "ax": move.at,
            "ay": rows.of[move.source, move.address],
            "xref": "x",
            "yref": "y",
            "axref": "x",
            "ayref": "y",
            "text": "",
            "showarrow": True,
            "arrowhead": 2,
            "arrowsize": 1.1,
            "arrowwidth": 1.6,
            "arrowcolor": "#2b5c8a",
        }
