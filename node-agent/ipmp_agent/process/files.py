"""Configuration from files: the IPMPGroup manifests that kubectl takes, compiled for this node."""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import TYPE_CHECKING

from ipmp_agent.core.reasons import Reason
from ipmp_api import files
from ipmp_api.compile import assigned_elsewhere, compile_for_file
from ipmp_api.errors import ValidationError
from ipmp_api.parse import parse_group, parse_node_group
from ipmp_api.types import NODE_GROUP_KIND
from ipmp_service.command import BadInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from ipmp_agent.disk.state import SavedState
    from ipmp_api.manifest import Document
    from ipmp_api.types import Address, NodeGroup

log = logging.getLogger(__name__)


def read(paths: Sequence[Path], node_name: str, warn: Callable[[str], None] = log.warning) -> tuple[NodeGroup, ...]:
    """Compile all groups of these files, and of the manifests in these directories, for one node.

    Args:
        paths: of files and directories; `-` is standard input.
        node_name: of the node.
        warn: told of what is right and yet hardly meant.

    Raises:
        BadInputError: names every fault of every file.
    """
    problems: list[str] = []
    groups: list[tuple[str, NodeGroup]] = []
    for source in files.read(paths, problems):
        try:
            groups.append((source.where, _compile(source.document, node_name, partial(_warn, warn, source.where))))
        except ValidationError as error:
            problems += [f"{source.where}: {fault}" for fault in error.errors]
    problems += _conflicts(groups)
    if problems:
        raise BadInputError(problems)
    return tuple(group for _, group in groups)


def _warn(warn: Callable[[str], None], where: str, words: str) -> None:
    warn(f"{where}: {words}")


def _compile(document: Document, node_name: str, warn: Callable[[str], None]) -> NodeGroup:
    if document.kind == NODE_GROUP_KIND:
        return parse_node_group(document.content)
    group = parse_group(document.content)
    if nodes := assigned_elsewhere(group, node_name):
        shown = ", ".join(nodes[:3]) + (", ..." if len(nodes) > 3 else "")
        warn(
            f"group {group.name} assigns addresses to {shown} and none to {node_name}: "
            f"with an entry for {node_name} in spec.dataAddresses.assigned this node has some, too"
        )
    return compile_for_file(group, node_name)


def _conflicts(groups: Sequence[tuple[str, NodeGroup]]) -> Iterator[str]:
    """One line for everything that two groups both claim."""
    names: dict[str, str] = {}
    interfaces: dict[str, str] = {}
    addresses: dict[Address, str] = {}
    for where, group in groups:
        if group.group_name in names:
            yield f"{where}: metadata.name: Duplicate value: {group.group_name!r}: also at {names[group.group_name]}"
            continue
        names[group.group_name] = where
        for position, member in enumerate(group.members):
            other = interfaces.setdefault(member.key, group.group_name)
            if other != group.group_name:
                field = f"spec.interfaces[{position}]"
                yield f"{where}: {field}: Duplicate value: {member.key!r}: is already in group {other}"
        wanted = [(data.address.ip, "spec.dataAddresses") for data in group.data_addresses]
        wanted += [(m.test_ipv4.ip, "spec.testAddresses") for m in group.members if m.test_ipv4 is not None]
        for address, field in wanted:
            other = addresses.setdefault(address, group.group_name)
            if other != group.group_name:
                words = f"{Reason.ADDRESS_CONFLICT}: group {other} has it already"
                yield f"{where}: {field}: Duplicate value: {str(address)!r}: {words}"


class FileSource:
    """Hands over what is in the files, at the start and at every reload."""

    def __init__(self, paths: Sequence[Path], node_name: str) -> None:
        """Raises BadInputError."""
        self._paths = paths
        self._node_name = node_name
        self._first = read(paths, node_name)
        self._want: Callable[[tuple[NodeGroup, ...]], None] | None = None
        self._reloading = threading.Lock()

    def start(self, want: Callable[[tuple[NodeGroup, ...]], None], saved: SavedState) -> None:
        """Hand over what was read; what was saved is older."""
        del saved
        self._want = want
        want(self._first)

    def reload(self) -> None:
        """Read again; keep what there is if anything is wrong."""
        with self._reloading:  # of two reloads at once the later one read what is true
            try:
                groups = read(self._paths, self._node_name)
            except BadInputError as error:
                log.error("not reloaded, everything stays as it is: %s", "; ".join(error.problems))  # noqa: TRY400 - no fault of ours
                return
            if self._want:
                self._want(groups)
        log.info("reloaded: %d groups", len(groups))

    def api_server_answers(self) -> None:
        """There is none."""

    def reporting(self) -> None:
        """There is nobody to report to."""

    def close(self) -> None:
        """Nothing is open."""
