"""Another build of the agent: the sources of any commit of this repository, run by this Python."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import tomllib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab import Agent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from tests.lab import Lab

ROOT = Path(__file__).parents[2]
PACKAGES = ("crds", "common", "node-agent", "operator")


@contextmanager
def sources(commit: str | None) -> Iterator[Path]:
    """The directory of a commit's sources, for as long; of the sources as they are for None."""
    if commit is None:
        yield ROOT
        return
    directory = Path(tempfile.mkdtemp(prefix="ipmp-bench-"))
    try:
        archive = subprocess.run(["git", "-C", ROOT, "archive", commit], stdout=subprocess.PIPE, check=True)
        subprocess.run(["tar", "-x", "-C", directory], input=archive.stdout, check=True)
        yield directory
    finally:
        shutil.rmtree(directory)


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
