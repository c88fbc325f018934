"""The alerting rules: valid for Prometheus, each with a case in which it fires and one in which it is silent."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.lab.alerts.cases import PAIRS

if TYPE_CHECKING:
    from tests.lab.alerts.cases import Case

ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "helm/ipmp/files/alerts.yaml"
RUNBOOKS = ROOT / "docs/runbooks"
BY_NAME: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
}


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *words], capture_output=True, text=True, check=False, timeout=60)


def as_test(case: Case) -> dict[str, Any]:
    """One case as promtool reads it."""
    rule = BY_NAME[case.alert]
    expected = []
    if case.labels is not None:
        annotations = {"summary": case.summary, "runbook_url": rule["annotations"]["runbook_url"]}
        expected = [{"exp_labels": {**rule["labels"], **case.labels}, "exp_annotations": annotations}]
    return {
        "name": f"{case.alert} {case.name}",
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "alert_rule_test": [{"alertname": case.alert, "eval_time": f"{case.minute}m", "exp_alerts": expected}],
    }


def test_rules_are_valid() -> None:
    done = promtool("check", "rules", str(RULES))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(BY_NAME)} rules found" in done.stdout


def test_every_alert_has_a_firing_and_a_silent_case() -> None:
    assert [pair.alert for pair in PAIRS] == list(BY_NAME)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.alert)
def test_alert_fires_and_is_silent(pair: Any, tmp_path: Path) -> None:
    document = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "30s",
        "tests": [as_test(case) for case in pair.cases()],
    }
    path = tmp_path / "cases.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    done = promtool("test", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_runbook_page_with_its_four_parts() -> None:
    assert {path.stem for path in RUNBOOKS.glob("IPMP*.md")} == set(BY_NAME)
    for name, rule in BY_NAME.items():
        path = ROOT / rule["annotations"]["runbook_url"]
        assert path == RUNBOOKS / f"{name}.md"
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {name}\n")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Meaning", "Impact", "Diagnosis", "Mitigation"]
        assert f"Severity: {rule['labels']['severity']}" in text
