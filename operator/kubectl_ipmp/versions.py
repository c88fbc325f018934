"""`kubectl ipmp version`: of the plugin, of kubectl and the server, and of the agents that report."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import kubectl_ipmp
from kubectl_ipmp.kubectl import PluginError

if TYPE_CHECKING:
    import argparse

    from kubectl_ipmp.display import Display
    from kubectl_ipmp.kubectl import Kubectl, Object


def run(options: argparse.Namespace, kubectl: Kubectl, display: Display) -> int:
    """Show the versions; what cannot be asked is said, and the rest is shown."""
    found: Object = {"plugin": kubectl_ipmp.__version__}
    if not options.client:
        found |= _of_cluster(kubectl)
    if options.output == "json":
        display.line(json.dumps(found, indent=2))
        return 0
    for what, value in found.items():
        display.line(f"{what + ':':10}{_counted(value) if isinstance(value, dict) else value}")
    return 0


def _counted(versions: dict[str, int]) -> str:
    words = [f"{version} on {count} node{'s' if count > 1 else ''}" for version, count in versions.items()]
    return ", ".join(words) or "no node has a group"


def _of_cluster(kubectl: Kubectl) -> Object:
    found: Object = {}
    try:
        said = json.loads(kubectl.run("version", "--output=json"))
        found["kubectl"] = said["clientVersion"]["gitVersion"]
        found["server"] = said["serverVersion"]["gitVersion"]
        versions = Counter(
            str((each.get("status") or {}).get("agentVersion") or "not reported") for each in kubectl.node_groups()
        )
        found["agents"] = dict(sorted(versions.items()))
    except PluginError as error:
        found["server"] = f"not known: {error}"
    return found
