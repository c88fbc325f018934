"""One self-contained page of an incident: the picture of each group, and all of it again as text."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING

from plotly.offline import get_plotlyjs

import ipmp_agent
from ipmp_agent.core.actions import Severity
from ipmp_agent.simulate.drawing import CROSSING, figure, thinned
from ipmp_agent.simulate.picture import NOWHERE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ipmp_agent.simulate.picture import DrawnVerdict, Picture

FAILURES = 12
"""Failures told above the picture."""
ROWS = 2000
"""Lines of the table of what happened; what is left out is said."""

SERIOUS = {Severity.WARNING.value, Severity.ERROR.value, "verdict"}

STYLE = """
body { font: 15px/1.45 system-ui, "DejaVu Sans", sans-serif; color: #111; background: #fff; margin: 0 auto;
  padding: 1rem clamp(.6rem, 2.5vw, 2rem) 3rem; max-width: 100rem; }
h1 { font-size: 1.5rem; margin: .2rem 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .3rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { margin: .4rem 0; max-width: 60rem; }
.facts, .hint { color: #333; }
.hint { font-size: .85rem; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th, td { text-align: left; vertical-align: top; padding: .22rem .6rem .22rem 0; border-bottom: 1px solid #ccc;
  overflow-wrap: break-word; }
td:last-child { overflow-wrap: anywhere; }
.happened th:not(:last-child), .happened td:not(:last-child) { width: 1%; }
th { border-bottom: 2px solid #111; }
td.time { font-variant-numeric: tabular-nums; white-space: nowrap; text-align: right; }
th.time { text-align: right; }
td.number { font-variant-numeric: tabular-nums; text-align: right; } th.number { text-align: right; }
tr.serious td { font-weight: 600; }
tr.fault td { font-style: italic; }
.mark { display: inline-block; min-width: 1.1em; padding: 0 .2em; text-align: center; border: 1px solid #111;
  font-weight: 600; font-style: normal; font-size: .85em; }
.mark.verdict { background: #111; color: #fff; }
@media print { body { padding: 0; max-width: none; } tr { break-inside: avoid; } .modebar { display: none; } }
"""

CONFIG = {"displaylogo": False, "responsive": True, "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"]}


def page(title: str, pictures: Sequence[Picture], began: float | None) -> str:
    """The page.

    Args:
        title: what it is of, such as the name of the recording.
        pictures: of the groups, ended.
        began: seconds since the epoch at the beginning; None: nobody knows.
    """
    return "\n".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            '<link rel="icon" href="data:,">',
            f"<style>{STYLE}</style>",
            f"<script>{get_plotlyjs()}</script>\n</head>\n<body>",
            f"<h1>{escape(title)}</h1>",
            f'<p class="facts">{escape(_facts(pictures, began))}</p>',
            *(line for number, picture in enumerate(pictures) for line in _section(picture, number, began)),
            "</body>\n</html>\n",
        )
    )


def _facts(pictures: Sequence[Picture], began: float | None) -> str:
    length = max((picture.over for picture in pictures), default=0.0)
    when = f" from {_date(began, 0)} UTC" if began is not None else ""
    return f"{length:.1f} seconds{when}, drawn by ipmp-agent {ipmp_agent.__version__}."


def _date(began: float, at: float) -> str:
    return datetime.fromtimestamp(began + at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _section(picture: Picture, number: int, began: float | None) -> Iterator[str]:
    yield f"<h2>Group {escape(picture.group)} on node {escape(picture.node)}</h2>"
    failures = [(str(mark), found) for mark, found in enumerate(picture.found, start=1) if found.verdict.failed]
    for mark, found in failures[:FAILURES]:
        yield f"<p>{_mark('verdict', mark)} {escape(_failure(picture, found))}</p>"
    if len(failures) > FAILURES:
        yield f"<p>{len(failures) - FAILURES} more failures are in the table.</p>"
    if not failures:
        yield "<p>No interface was found to have failed.</p>"
    yield figure(picture).to_html(
        full_html=False, include_plotlyjs=False, config=CONFIG, div_id=f"lanes{number}", default_width="100%"
    )
    yield (
        '<p class="hint">Drag to zoom, double-click for everything, point at anything for its figures. '
        "Black marks are verdicts, white ones faults of a script: both stand in the table below.</p>"
    )
    yield from _left_out(picture)
    yield "<noscript><p>The picture needs JavaScript; the tables have all of it.</p></noscript>"
    yield "<h3>Interfaces</h3>"
    yield _table(
        ("interface", "role", "failures", "repairs", "probes answered", "lost", "state at the end"), _lanes(picture)
    )
    yield "<h3>What happened</h3>"
    yield _happened(picture, began)


def _left_out(picture: Picture) -> Iterator[str]:
    """What is not drawn, in words: nobody is to take a thinned row for a quiet one."""
    verdicts = sorted(found.at for found in picture.found)
    for lane in picture.lanes.values():
        for kind, probes in (("answered", lane.answered), ("lost", lane.lost)):
            drawn = len(thinned(probes, verdicts))
            if drawn < len(probes):
                text = f"Of {len(probes)} probes of {lane.interface} that were {kind}, {drawn} are drawn."
                yield f'<p class="hint">{escape(text)}</p>'
    crossing = max(len(picture.moves), sum(bool(one.mark) for one in picture.happened))
    if crossing > CROSSING:
        yield f'<p class="hint">Lines and arrows end after {CROSSING} verdicts and as many moves.</p>'


def _failure(picture: Picture, found: DrawnVerdict) -> str:
    moved = [move for move in picture.moves if move.at == found.at and move.source == found.verdict.interface]
    words = f"{found.verdict.interface} failed at {found.at:.3f} s ({found.verdict.reason.value})"
    if found.first_loss is not None and found.first_loss < found.at:
        words += f", {(found.at - found.first_loss) * 1000:.0f} ms after the first loss"
    if moved:
        words += f"; {len(moved)} data address{'es' if len(moved) > 1 else ''} moved at once"
    return words + "."


def _lanes(picture: Picture) -> Iterator[tuple[str, ...]]:
    for lane in picture.lanes.values():
        if lane.interface == NOWHERE:
            continue
        verdicts = [found.verdict.failed for found in picture.found if found.verdict.interface == lane.interface]
        counts = (sum(verdicts), len(verdicts) - sum(verdicts), len(lane.answered), len(lane.lost))
        end = str(lane.states[-1].value) if lane.states else "--"
        yield (lane.interface, lane.role, *map(str, counts), end)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def cells(tag: str, words: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=number' if 2 <= place < len(head) - 1 else ''}>{escape(word)}</{tag}>"
            for place, word in enumerate(words)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"


def _mark(kind: str, text: str) -> str:
    return f'<span class="mark {kind}">{text}</span>'


def _happened(picture: Picture, began: float | None) -> str:
    date = "<th class=time>UTC</th>" if began is not None else ""
    head = f"<tr><th></th><th class=time>second</th>{date}<th>what</th></tr>"
    lines = [f"<table class=happened><thead>{head}</thead><tbody>"]
    for one in picture.happened[:ROWS]:
        style = "serious" if one.kind in SERIOUS else one.kind
        mark = _mark(one.kind, one.mark) if one.mark else ""
        when = f"<td class=time>{_date(began, one.at)[11:]}</td>" if began is not None else ""
        time = f"<td class=time>{one.at:.3f}</td>{when}"
        lines.append(f'<tr class="{style}"><td>{mark}</td>{time}<td>{escape(one.text)}</td></tr>')
    lines.append("</tbody></table>")
    if len(picture.happened) > ROWS:
        lines.append(f"<p>{len(picture.happened) - ROWS} more lines are left out.</p>")
    return "".join(lines)
