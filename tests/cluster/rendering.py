"""The chart as helm renders it, without a cluster."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import yaml

from tests.cluster.product import CHART, NAMESPACE, RELEASE

if TYPE_CHECKING:
    from pathlib import Path


def render(
    tools: Path, *settings: str, kubernetes: str = "1.37.0", values: dict[str, Any] | None = None
) -> subprocess.CompletedProcess[str]:
    """What helm makes of the chart with `--set` of each setting, and with a file of values."""
    flags = [word for setting in settings for word in ("--set", setting)]
    place = ("--namespace", NAMESPACE, "--kube-version", kubernetes, "--values", "-")
    command = [str(tools / "helm"), "template", RELEASE, str(CHART), *place, *flags]
    return subprocess.run(command, input=json.dumps(values or {}), capture_output=True, text=True, check=False)


def objects(tools: Path, *settings: str, values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The objects of the chart."""
    done = render(tools, *settings, values=values)
    assert done.returncode == 0, done.stderr
    return [part for part in yaml.safe_load_all(done.stdout) if part]


def only(parts: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    """The one object of this kind that has this in its name."""
    (found,) = [part for part in parts if part["kind"] == kind and name in part["metadata"]["name"]]
    return found


def daemonset(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The agents' DaemonSet, which the operator applies."""
    found: dict[str, Any] = yaml.safe_load(only(parts, "ConfigMap")["data"]["daemonset.yaml"])
    return found
