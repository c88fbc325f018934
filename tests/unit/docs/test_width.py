import re
from pathlib import Path

import pytest

from tests.unit.docs.pages import ROOT

WIDTH = 120
PAGES = sorted(page for folder in (".", "docs", "docs/design") for page in ROOT.glob(f"{folder}/*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_prose_is_wrapped(page: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    prose = [line.strip() for line in text.splitlines() if len(line) > WIDTH and not line.lstrip().startswith("|")]
    assert [line for line in prose if " " in line] == []  # a link of one word cannot be broken
