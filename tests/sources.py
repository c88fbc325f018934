"""The sources of any commit of this repository, to run another build beside this one."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]


def has(commit: str) -> bool:
    """Whether this clone of the repository holds a commit."""
    return subprocess.run(["git", "-C", ROOT, "cat-file", "-e", f"{commit}^{{commit}}"], check=False).returncode == 0


@contextmanager
def sources(commit: str | None) -> Iterator[Path]:
    """The directory of a commit's sources, for as long; of the sources as they are for None."""
    if commit is None:
        yield ROOT
        return
    directory = Path(tempfile.mkdtemp(prefix="ipmp-sources-"))
    try:
        archive = subprocess.run(["git", "-C", ROOT, "archive", commit], stdout=subprocess.PIPE, check=True)
        subprocess.run(["tar", "-x", "-C", directory], input=archive.stdout, check=True)
        yield directory
    finally:
        shutil.rmtree(directory)
