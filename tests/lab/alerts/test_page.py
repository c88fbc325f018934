"""docs/monitoring.md is run out of the page: its commands, and its configurations by the programs that read them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

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
