"""docs/metrics.md is what the pages are, and what alerts read exists."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs import metrics

RULES = Path(__file__).parents[3] / "helm/ipmp/files/alerts.yaml"


def test_page_is_generated() -> None:
    assert metrics.PATH.read_text(encoding="utf-8") == metrics.text(), ".venv/bin/python -m tests.docs.metrics"


def test_every_series_that_an_alert_reads_is_shown() -> None:
    shown = {
        sample.name for page in (metrics.agent_page(), metrics.operator_page()) for f in page for sample in f.samples
    }
    read = set(re.findall(r"\bipmp_[a-z_]+", RULES.read_text(encoding="utf-8")))
    assert len(read) > 20
    assert read <= shown
