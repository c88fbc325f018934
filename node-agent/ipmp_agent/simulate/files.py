"""The files of a simulation: YAML documents, among them one IPMPGroup and one FaultScript, in any order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from ipmp_agent.simulate import script
from ipmp_api.compile import compile_for_file
from ipmp_api.errors import FieldError, ManifestError, ValidationError
from ipmp_api.manifest import load_manifest
from ipmp_api.parse import parse_group
from ipmp_api.types import GROUP_KIND

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ipmp_agent.simulate.script import FaultScript
    from ipmp_api.types import NodeGroup

DEFAULT_NODE = "node"


class InputError(Exception):
    """Files that are no simulation; one line for each thing that is wrong."""


@dataclass(frozen=True, slots=True)
class _Document:
    where: str
    text: str  # on the same lines as in its file
    content: dict[str, Any]  # scalars as text


class _TextLoader(yaml.BaseLoader):
    """Every scalar as the text it is. A key written twice is refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, "a key is text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f'key "{key}" already set', key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def load(paths: Sequence[Path]) -> tuple[NodeGroup, FaultScript]:
    """The group and the script that these files hold. Raises InputError."""
    documents = [document for path in paths for document in _documents(path)]
    manifest = _the_one(documents, GROUP_KIND)
    faults = _the_one(documents, script.KIND)
    try:
        group = parse_group(load_manifest(manifest.text)[0].content)
    except (ManifestError, ValidationError) as error:
        raise _told(manifest.where, error) from error
    keys = tuple(interface.match.key for interface in group.interfaces)
    try:
        played = script.parse_script(faults.content, keys)
    except ValidationError as error:
        raise _told(faults.where, error) from error
    named = next((assignment.node_name for assignment in group.data_addresses.assigned), DEFAULT_NODE)
    try:
        return compile_for_file(group, played.node_name or named), played
    except ValidationError as error:
        raise _told(manifest.where, error) from error


def _documents(path: Path) -> Iterator[_Document]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise InputError(f"{path}: {reason}") from error
    loader = _TextLoader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is None or (isinstance(node, yaml.ScalarNode) and not node.value):
                continue  # an empty document, as after a last `---`
            if not isinstance(node, yaml.MappingNode):
                raise InputError(f"{path}: line {node.start_mark.line + 1}: a document must be an object with a kind")
            start, end = node.start_mark, node.end_mark
            inside = "\n" * start.line + " " * start.column + text[start.index : end.index]
            yield _Document(str(path), inside, loader.construct_document(node))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InputError(f"{path}: {line}{getattr(error, 'problem', None) or error}") from error
    finally:
        loader.dispose()


def _the_one(documents: Sequence[_Document], kind: str) -> _Document:
    found = [document for document in documents if document.content.get("kind") == kind]
    if len(found) == 1:
        return found[0]
    kinds = ", ".join(f"{d.content.get('kind', 'none')} in {d.where}" for d in documents) or "none"
    raise InputError(f"the files must hold exactly one document of kind {kind}, found {len(found)}; kinds: {kinds}")


def _told(where: str, error: ValidationError | ManifestError) -> InputError:
    errors: Sequence[FieldError | ManifestError] = error.errors if isinstance(error, ValidationError) else [error]
    return InputError("\n".join(f"{where}: {one}" for one in errors))
