"""The order of the site's pages is that of docs/README.md, with nothing left out."""

from __future__ import annotations

from typing import Any

from tests.docs import site


def pages(entries: list[Any]) -> list[str]:
    found = []
    for entry in entries:
        if isinstance(entry, dict):
            found += [
                page for value in entry.values() for page in (pages(value) if isinstance(value, list) else [value])
            ]
        else:
            found.append(entry)
    return found


def test_navigation_has_every_page_of_the_index_once() -> None:
    found = pages(site.navigation())
    wanted = {str(page.relative_to(site.ROOT)) for page in (*site.links(site.INDEX), *site.links(site.RUNBOOKS))}
    assert len(found) == len(set(found))
    assert {page for page in wanted if page.endswith(".md")} <= set(found)


def test_navigation_has_the_headings_of_the_index() -> None:
    titles = [title for entry in site.navigation() for title in entry]
    assert titles[:4] == ["IPMP", "Documentation", "Begin", "Who runs it"]
    assert titles[-2:] == ["Decisions", "The inside"]


def test_what_a_page_of_the_site_links_to_is_in_the_site() -> None:
    found = site.files()
    assert all(file.is_file() for file in found), "a link to a directory leads nowhere on a site"
    assert set((site.ROOT / "docs").rglob("*.md")) <= found
