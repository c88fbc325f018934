"""Manifests in files, in directories and on standard input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ipmp_api.errors import ManifestError
from ipmp_api.frozen import frozen
from ipmp_api.manifest import is_empty_list, load_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ipmp_api.manifest import Document

SUFFIXES = (".yaml", ".yml", ".json")
"""Of the files that are read in a directory."""
STANDARD_INPUT = Path("-")


@frozen
class SourceDocument:
    """A document and the file it stands in."""

    path: Path
    document: Document

    @property
    def where(self) -> str:
        """File and line."""
        return f"{self.path}:{self.document.line}"


def read(paths: Sequence[Path], problems: list[str]) -> Iterator[SourceDocument]:
    """The documents of files, of the manifests in directories, and of standard input, which is `-`.

    What cannot be read gets a line in `problems`, and the rest is read.
    """
    for path in _manifests(paths, problems):
        try:
            text = _text(path)
            documents = load_manifest(text)
        except (OSError, UnicodeDecodeError, ManifestError) as error:
            problems.append(f"{path}: {_words(error)}")
            continue
        if not documents and not is_empty_list(text):
            problems.append(f"{path}: holds no manifest; a List whose items are [] says that there is no group")
        for document in documents:
            yield SourceDocument(path, document)


def _manifests(paths: Sequence[Path], problems: list[str]) -> Iterator[Path]:
    for path in paths:
        try:
            if path == STANDARD_INPUT or not path.is_dir():
                yield path
                continue
            found = sorted(each for each in path.iterdir() if each.suffix in SUFFIXES)
        except OSError as error:
            problems.append(f"{path}: {_words(error)}")
            continue
        if not found:
            problems.append(f"{path}: no manifests here ({', '.join('*' + suffix for suffix in SUFFIXES)})")
        yield from found


def _words(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _text(path: Path) -> str:
    return sys.stdin.buffer.read().decode() if path == STANDARD_INPUT else path.read_text(encoding="utf-8")
