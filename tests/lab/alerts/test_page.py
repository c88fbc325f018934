"""docs/monitoring.md is run out of the page: its commands, and its configurations by the programs that read them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```yaml (\S+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
COMMANDS = re.findall(r"^    (promtool .*)$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus-hosts.yml"])
def test_configuration_of_prometheus_is_taken_with_the_rules(name: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "helm/ipmp/files/alerts.yaml", tmp_path)
    # Debian's Prometheus is built without Kubernetes discovery; all else of the configuration is checked as it stands.
    text = re.sub(r"kubernetes_sd_configs: .*", "static_configs: [{targets: []}]", FILES[name])
    (tmp_path / name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["promtool", "check", "config", str(tmp_path / name)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "30 rules found" in done.stdout


def test_configuration_of_alertmanager_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "alertmanager.yml"
    path.write_text(FILES["alertmanager.yml"], encoding="utf-8")
    done = subprocess.run(["amtool", "check-config", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 inhibit rules" in done.stdout


def test_commands_of_the_page_work() -> None:
    assert COMMANDS
    for command in COMMANDS:
        done = subprocess.run(shlex.split(command), cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def test_what_one_sees_after_a_pulled_cable_is_as_the_page_says(tmp_path: Path) -> None:
    """The page's query tells first a pending alert, then one that fires, in the minutes that the page names."""
    (query,) = re.findall(r"^    (ALERTS\{.*\})$", TEXT, re.MULTILINE)
    rows = re.findall(r"^\| (\d+) minutes later \| `(\w+)` fires", TEXT, re.MULTILINE)
    assert [name for _, name in rows] == ["IPMPInterfaceFailed", "IPMPGroupNotRedundant"]
    labels = 'group="data", interface="eth1", node="node1"'
    pulled = 10  # minutes after the start
    series = [
        {"series": f'ipmp_interface_state{{{labels}, state="failed"}}', "values": f"0x{pulled - 1} 1x40"},
        {"series": f'ipmp_interface_state{{{labels}, state="ok"}}', "values": f"1x{pulled - 1} 0x40"},
        {"series": f'ipmp_interface_state{{{labels.replace("eth1", "eth2")}, state="ok"}}', "values": "1x50"},
    ]

    def told(alert: str, minute: int, *states: str) -> dict[str, Any]:
        asked = query.replace("IPMPInterfaceFailed", alert)
        expected = [{"labels": state, "value": 1} for state in states]
        return {"expr": f"count by (alertstate) ({asked})", "eval_time": f"{minute}m", "exp_samples": expected}

    pending, firing = '{alertstate="pending"}', '{alertstate="firing"}'
    expected = [told("IPMPInterfaceFailed", pulled - 1)]
    for wait, alert in rows:
        expected += [told(alert, pulled + int(wait) - 1, pending), told(alert, pulled + int(wait), firing)]
    case = {"interval": "1m", "input_series": series, "promql_expr_test": expected}
    rules = {"rule_files": [str(ROOT / "helm/ipmp/files/alerts.yaml")], "evaluation_interval": "1m", "tests": [case]}
    path = tmp_path / "test.yaml"
    path.write_text(json.dumps(rules), encoding="utf-8")  # JSON is YAML
    done = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
