"""`kubectl ipmp check`: what is wrong with manifests, by the rules of the API server and the operator; no cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_api.errors import ValidationError
from ipmp_api.files import read
from ipmp_api.parse import parse_group, parse_node_group
from ipmp_api.types import GROUP_KIND, NODE_GROUP_KIND
from kubectl_ipmp.kubectl import PluginError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

    from ipmp_api.files import SourceDocument
    from kubectl_ipmp.display import Display

BAD = 2
"""Exit status where something is wrong with a manifest."""


def run(options: argparse.Namespace, display: Display) -> int:
    """Check all manifests; every wrong field of every one is named. Raises PluginError."""
    lines = list(_verdicts(options.files))
    for good, line in lines:
        if good:
            display.line(line)
    bad = [line for good, line in lines if not good]
    if not lines:
        raise PluginError("there is no manifest in what was given")
    if bad:
        raise BadManifestError(bad)
    return 0


class BadManifestError(PluginError):
    """Manifests are wrong; a line for every fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def _verdicts(paths: list[Path]) -> Iterator[tuple[bool, str]]:
    names: dict[str, str] = {}
    problems: list[str] = []
    for source in read(paths, problems):
        found = list(_faults(source, names))
        where = source.where
        for fault in found:
            yield False, f"{where}: {fault}"
        if not found:
            yield True, f"{where}: {source.document.kind} {source.document.content['metadata']['name']}: ok"
    for problem in problems:
        yield False, problem


def _faults(source: SourceDocument, names: dict[str, str]) -> Iterator[str]:
    content, kind = source.document.content, source.document.kind
    try:
        if kind == NODE_GROUP_KIND:
            parse_node_group(content)
            return
        parse_group(content)
    except ValidationError as error:
        yield from (str(fault) for fault in error.errors)
        return
    name = str(content["metadata"]["name"])
    if kind == GROUP_KIND and name in names:
        yield f"metadata.name: Duplicate value: {name!r}: also at {names[name]}"
    names.setdefault(name, source.where)
