"""An incident in a cluster: its recording is fetched as docs/simulator.md says, replayed and drawn."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from ipmp_agent.commands.ipmp_agent import main
from ipmp_agent.simulate.__main__ import main as simulate
from tests.cluster.product import Applied

if TYPE_CHECKING:
    import pytest

    from tests.cluster.cluster import Cluster

PAGE = (Path(__file__).parents[2] / "docs/simulator.md").read_text(encoding="utf-8")


def fetch(cluster: Cluster, tools: Path, node: str, directory: Path) -> Path:
    """Run the page's command."""
    (command,) = re.findall(r"^kubectl exec .*?incident\.jsonl$", PAGE, re.MULTILINE | re.DOTALL)
    environment = os.environ | {
        "KUBECONFIG": str(cluster.control.kubeconfig),
        "PATH": f"{tools}:{os.environ['PATH']}",
    }
    line = re.sub(r"\bNODE\b", node, command)
    *host, _ = cluster.control.command("kubectl")
    done = subprocess.run(
        [*host, "bash", "-c", line], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return directory / "incident.jsonl"


def test_recording_of_a_node_is_fetched_replayed_and_drawn(
    installed: Cluster, tools: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Applied(installed, "taped") as taped:
        broken = taped.nic("n1", "net0")
        broken.unplug()
        taped.wait_state("n1", "degraded")

        def told() -> str:
            assert simulate(["--replay", str(fetch(installed, tools, "n1", tmp_path))]) == 0, capsys.readouterr().err
            return capsys.readouterr().out

        installed.wait(told, lambda text: "group taped is degraded" in text, what="a recording with the failure")
        page = tmp_path / "incident.html"
        assert main(["report", str(tmp_path / "incident.jsonl"), "-o", str(page)]) == 0
        text = page.read_text(encoding="utf-8")
        assert "Group taped on node n1" in text
        assert "net0 has failed (LinkDown)" in text
