"""Makes a site of the Markdown files: `.venv/bin/python -m tests.docs.site DIRECTORY`, or `make site`.

Pages lie in it as they lie in the repository, so that the same links hold, and what a page links to comes along. The
order of pages is that of docs/README.md. Nothing is fetched when the site is made or read.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FRONT, INDEX, RUNBOOKS = ROOT / "README.md", ROOT / "docs/README.md", ROOT / "docs/runbooks/README.md"
LINK = re.compile(r"\]\(([^)\s]+)\)")
ENTRY = re.compile(
    r"^\| (?P<row>[a-z][^|]*?) \|"
    r"|(?P<label>[A-Z][a-z]+(?: [a-z]+)*)[^\[\]():|.\n]*:"
    r"|\[(?P<title>[^\]]+)\]\((?P<link>[^)\s]+)\)",
    re.MULTILINE,
)
"""What stands in the index: a row of its table or a paragraph begins, or a page is named."""

CONFIGURATION: dict[str, Any] = {
    "site_name": "IPMP for Kubernetes",
    "docs_dir": "pages",
    "site_dir": "site",
    "use_directory_urls": False,  # links lead to files, so that it can be read from a disk
    "theme": {
        "font": False,  # the reader's own: none is fetched
        "features": ["navigation.indexes", "navigation.sections", "navigation.top", "content.code.copy"],
        "palette": [
            {"media": f"(prefers-color-scheme: {which})", "scheme": scheme}
            for which, scheme in (("light", "default"), ("dark", "slate"))
        ],
    },
    "markdown_extensions": ["tables", "pymdownx.superfences", "pymdownx.highlight", {"toc": {"permalink": True}}],
}


def links(page: Path) -> list[Path]:
    """The files to which the links of a page lead."""
    text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = (link.partition("#")[0] for link in LINK.findall(text) if not re.match(r"[a-z]+:", link))
    return [(page.parent / link).resolve() for link in found if link]


def files() -> set[Path]:
    """Every file that can be reached from the front page and the index."""
    seen: set[Path] = set()
    todo = [FRONT, INDEX]
    while todo:
        file = todo.pop()
        if file not in seen:
            seen.add(file)
            todo += links(file) if file.suffix == ".md" else []
    return seen


def navigation() -> list[dict[str, Any]]:
    """The pages of docs/README.md under its headings, each where it is named first; runbooks below their index."""
    sections: dict[str, list[Any]] = {}
    named: set[Path] = set()
    entries: list[Any] = []
    for found in ENTRY.finditer(INDEX.read_text(encoding="utf-8")):
        if title := found["row"] or found["label"]:
            entries = sections.setdefault(title[0].upper() + title[1:], [])
            continue
        page = (INDEX.parent / found["link"]).resolve()
        if page not in named:
            named.add(page)
            entries.append({found["title"]: _below(page) if page == RUNBOOKS else _name(page)})
    front = [{"IPMP": _name(FRONT)}, {"Documentation": _name(INDEX)}]
    return [*front, *({title: pages} for title, pages in sections.items() if pages)]


def _below(page: Path) -> list[str]:
    """A page, and those of its directory that it links to."""
    return [_name(page), *dict.fromkeys(_name(one) for one in links(page) if one.parent == page.parent)]


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def make(target: Path) -> None:
    """Make the site in this directory, in place of what is there.

    Raises:
        SystemExit: a link leads nowhere, or the generator is not installed.
    """
    with tempfile.TemporaryDirectory() as name:
        stage = Path(name)
        for file in files():
            copy = stage / "pages" / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
        configuration = stage / "mkdocs.yml"
        configuration.write_text(yaml.safe_dump(CONFIGURATION | {"nav": navigation()}), encoding="utf-8")
        command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(configuration)]
        done = subprocess.run(command, cwd=stage, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{done.stdout}{done.stderr}")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(stage / "site", target)


def main() -> None:
    """Make it, and say where it is."""
    parser = argparse.ArgumentParser(prog="python -m tests.docs.site", description=__doc__)
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    make(directory)
    print(f"{sum(1 for _ in directory.rglob('*.html'))} pages: {directory / 'index.html'}")


if __name__ == "__main__":
    main()
