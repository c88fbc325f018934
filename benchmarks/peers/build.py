"""Another build of the agent: sources of this repository, run by this Python."""

from __future__ import annotations

import sys
import tomllib
from typing import TYPE_CHECKING

from tests.lab import Agent

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from tests.lab import Lab

PACKAGES = ("crds", "common", "node-agent", "operator")


def command(root: Path) -> list[str]:
    """The words that begin `ipmp-agent` of the sources in `root`, the first of them for env(1)."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    module, _, function = project["project"]["scripts"]["ipmp-agent"].partition(":")
    return [
        f"PYTHONPATH={':'.join(str(root / name) for name in PACKAGES)}",
        *(sys.executable, "-c", f"import sys; from {module} import {function}; sys.exit({function}())"),
    ]


class BuildAgent(Agent):
    """`ipmp-agent run` with a manifest, of the sources in `root`."""

    def __init__(self, lab: Lab, manifest: Mapping[str, Any], root: Path) -> None:
        super().__init__(lab, manifest)
        self._root = root

    @property
    def argv(self) -> list[str]:
        """The command line."""
        return ["env", *command(self._root), *super().argv[1:]]
