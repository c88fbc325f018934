"""The site as its reader sees it: `make site-check`. Served as it would be, looked at in Chromium."""

from __future__ import annotations

import functools
import http.server
import re
import threading
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest

from tests.docs import site
from tests.lab import browser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOOKED_AT = ("index.html", "docs/index.html", "docs/comparison.html", "docs/api.html", "docs/states.html")
"""The front page, and those with the most, widest and longest tables, code and a drawing."""
SIZES = {"telephone": (500, 900), "desktop": (1400, 900)}
"""Chromium has no window that is narrower than 500."""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing: a test does."""


class Page(HTMLParser):
    """The anchors and links of a page, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors, self.links, self.loads = set[str](), list[str](), list[str]()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if anchor := found.get("id") or found.get("name"):
            self.anchors.add(anchor)
        if tag == "a" and (link := found.get("href")) is not None:
            self.links.append(link)
        if tag in {"script", "img"} and (source := found.get("src")):
            self.loads.append(source)
        if tag == "link" and found.get("rel") in {"stylesheet", "preload", "icon"} and (source := found.get("href")):
            self.loads.append(source)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site") / "site"
    site.make(directory)
    return directory


@pytest.fixture(scope="module")
def address(built: Path) -> Iterator[str]:
    for page in built.rglob("*.html"):
        page.write_text(browser.marked(page.read_text(encoding="utf-8")), encoding="utf-8")
    handler = functools.partial(Quiet, directory=str(built))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


def test_every_link_and_anchor_of_the_site_leads_somewhere(built: Path) -> None:
    pages = {path: Page(path) for path in built.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 70
    broken = []
    for path, page in pages.items():
        for link in (*page.links, *page.loads):
            name, _, anchor = unquote(link).partition("#")
            if re.match(r"[a-z]+:|//", link):
                assert link not in page.loads, f"{path} loads {link}"
                continue
            target = (path.parent / name).resolve() if name else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists() or (anchor and target in pages and anchor not in pages[target].anchors):
                broken.append(f"{path.relative_to(built)}: {link}")
    assert broken == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LOOKED_AT)
def test_page_fits_its_window_and_asks_nobody_else(
    built: Path, address: str, name: str, size: str, tmp_path: Path
) -> None:
    assert (built / name).is_file()
    seen = browser.look_at(f"{address}{name}", *SIZES[size], tmp_path).measured
    assert seen["heard"] == []
    assert [asked for asked in seen["asked"] if not asked.startswith(address)] == []
    assert seen["asked"], "it has a style"
    assert seen["content"] <= seen["width"], "it can be moved sideways"
    assert [text for text, left, _, right, _ in seen["texts"] if left >= 0 and text.strip()], "nothing is to be read"
