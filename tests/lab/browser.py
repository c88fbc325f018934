"""A page as Chromium shows it: what is cut off or overlaps, what it complains of, what it asks the network for."""

from __future__ import annotations

import html
import json
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # of a page of our own, as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--virtual-time-budget=20000",
)
PATIENCE = 240
"""Seconds for one look; it takes two when the machine is idle."""

HEARD = """<script>
window.heard = [];
window.addEventListener('error', (event) => window.heard.push(String(event.message)), true);
window.addEventListener('unhandledrejection', (event) => window.heard.push(String(event.reason)));
for (const kind of ['error', 'warn']) {
  console[kind] = (...words) => window.heard.push(kind + ': ' + words.join(' '));
}
</script>"""

MEASURED = """<script>
window.addEventListener('load', () => setTimeout(() => {
  const box = (element) => {
    const edges = element.getBoundingClientRect();
    return [element.textContent, ...['left', 'top', 'right', 'bottom'].map((edge) => Math.round(edges[edge]))];
  };
  const all = (selector) => [...document.querySelectorAll(selector)].map(box).filter((b) => b[3] > b[1]);
  const bars = all('.barlayer .point path').filter((b) => b[3] - b[1] > 1);
  document.documentElement.setAttribute('data-seen', JSON.stringify({
    width: window.innerWidth,
    content: document.documentElement.scrollWidth,
    plots: all('.js-plotly-plot .main-svg:first-of-type'),
    xticks: all('.xtick text'), yticks: all('.ytick text'), titles: all('.xtitle'),
    legend: all('.legendtext'), buttons: all('.modebar'), marks: all('.annotation-text'),
    cells: all('td, th'), texts: all('h1, h2, h3, p, li'),
    bars: bars.length, dots: document.querySelectorAll('.scatterlayer .point').length,
    heard: window.heard,
    asked: performance.getEntriesByType('resource').map((r) => r.name).filter((n) => !/^(data|blob):/.test(n)),
  }));
}, 1500));
</script>"""

Box = tuple[str, int, int, int, int]
"""The text of an element, and its left, upper, right and lower edge in pixels."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was measured of a page at one width."""

    measured: dict[str, Any]

    def boxes(self, kind: str) -> list[Box]:
        """The visible elements of a kind."""
        return [tuple(box) for box in self.measured[kind]]

    def faults(self) -> list[str]:
        """Everything that is wrong with it, in words; empty: it is as it should be."""
        width = self.measured["width"]
        found = [f"console: {words}" for words in self.measured["heard"]]
        found += [f"asked the network for {name}" for name in self.measured["asked"]]
        if self.measured["content"] > width:
            found.append(f"is {self.measured['content']} wide where {width} are shown")
        kinds = ("plots", "xticks", "yticks", "titles", "legend", "marks", "cells", "texts")
        for kind in kinds:
            found += [
                f"{kind}: {text[:60]!r} is cut off: {left} to {right} of {width}"
                for text, left, _, right, _ in self.boxes(kind)
                if left < 0 or right > width
            ]
        for kind, others in (("yticks", "yticks"), ("xticks", "xticks"), ("legend", "legend"), ("marks", "marks")):
            found += _overlaps(kind, self.boxes(kind), self.boxes(others))
        for kind in ("xticks", "titles", "yticks"):
            found += _overlaps(f"{kind} and legend", self.boxes(kind), self.boxes("legend"))
        found += _overlaps("marks and buttons", self.boxes("marks"), self.boxes("buttons"))
        return found


def _overlaps(kind: str, some: list[Box], others: list[Box]) -> list[str]:
    return [
        f"{kind}: {a[0]!r} lies on {b[0]!r}"
        for number, a in enumerate(some)
        for b in (others[number + 1 :] if some == others else others)
        if min(a[3], b[3]) - max(a[1], b[1]) > 1 and min(a[4], b[4]) - max(a[2], b[2]) > 1
    ]


def marked(text: str) -> str:
    """A page that measures itself."""
    return text.replace("<head>", f"<head>{HEARD}", 1).replace("</body>", f"{MEASURED}</body>")


def look(page: Path, width: int, height: int, directory: Path) -> Seen:
    """Open a copy of the page in a window of this size, and measure it."""
    copy = directory / f"measured-{width}.html"
    copy.write_text(marked(page.read_text(encoding="utf-8")), encoding="utf-8")
    return look_at(copy.as_uri(), width, height, directory)


def look_at(address: str, width: int, height: int, directory: Path) -> Seen:
    """Open a page that measures itself in a window of this size."""
    dumped = _chromium(address, width, height, directory, "--dump-dom")
    (found,) = re.findall(r'data-seen="([^"]*)"', dumped)
    return Seen(json.loads(html.unescape(found)))


def photograph(page: Path, width: int, height: int, target: Path) -> None:
    """Write a picture of the page, as PNG."""
    _chromium(page.as_uri(), width, height, target.parent, f"--screenshot={target}")


def _chromium(address: str, width: int, height: int, directory: Path, *words: str) -> str:
    profile = f"--user-data-dir={directory / f'profile-{width}'}"
    command = ["chromium", *FLAGS, profile, f"--window-size={width},{height}", *words, address]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
