"""The files of a simulation: YAML documents, one of them the group and one the FaultScript, in any order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from ipmp_agent.simulate import script
from ipmp_api.compile import compile_for_file
from ipmp_api.errors import ManifestError, ValidationError
from ipmp_api.frozen import frozen
from ipmp_api.manifest import Shallow, load_manifest
from ipmp_api.parse import parse_group, parse_node_group
from ipmp_api.types import GROUP_KIND, NODE_GROUP_KIND
from ipmp_service.command import BadInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ipmp_agent.simulate.script import FaultScript
    from ipmp_api.types import NodeGroup

DEFAULT_NODE = "node"


@frozen
class _Document:
    where: str
    text: str  # on the same lines as in its file
    content: dict[str, Any]  # scalars as text

    @property
    def kind(self) -> str:
        """The kind it says it is."""
        return str(self.content.get("kind", "none"))


class _TextLoader(Shallow, yaml.BaseLoader):
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
    """The group, as an IPMPGroup or IPMPNodeGroup, and the script that these files hold. Raises BadInputError."""
    documents = [document for path in paths for document in _documents(path)]
    manifest = _the_one(documents, GROUP_KIND, NODE_GROUP_KIND)
    faults = _the_one(documents, script.KIND)
    where = manifest.where
    try:
        content = load_manifest(manifest.text)[0].content
        if manifest.kind == NODE_GROUP_KIND:
            compiled = parse_node_group(content)
            keys = tuple(member.key for member in compiled.members)
            where = faults.where
            return compiled, script.parse_script(faults.content, keys)
        group = parse_group(content)
        where = faults.where
        played = script.parse_script(faults.content, tuple(i.match.key for i in group.interfaces))
        where = manifest.where
        named = next((assignment.node_name for assignment in group.data_addresses.assigned), DEFAULT_NODE)
        return compile_for_file(group, played.node_name or named), played
    except ValidationError as error:
        raise BadInputError([f"{where}: {fault}" for fault in error.errors]) from error
    except ManifestError as error:
        raise BadInputError([f"{manifest.where.rpartition(':')[0]}: {error}"]) from error


def _documents(path: Path) -> Iterator[_Document]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise BadInputError([f"{path}: {reason}"]) from error
    try:
        loader = _TextLoader(text)
    except yaml.reader.ReaderError as error:
        raise BadInputError([f"{path}: {error.reason} (position {error.position})"]) from error
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is None or (isinstance(node, yaml.ScalarNode) and not node.value):
                continue  # an empty document, as after a last `---`
            if not isinstance(node, yaml.MappingNode):
                raise BadInputError([f"{path}:{node.start_mark.line + 1}: a document must be an object with a kind"])
            start, end = node.start_mark, node.end_mark
            inside = "\n" * start.line + " " * start.column + text[start.index : end.index]
            yield _Document(f"{path}:{start.line + 1}", inside, loader.construct_document(node))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise BadInputError([f"{where}: {getattr(error, 'problem', None) or error}"]) from error
    finally:
        loader.dispose()


def _the_one(documents: Sequence[_Document], *kinds: str) -> _Document:
    found = [document for document in documents if document.kind in kinds]
    if len(found) == 1:
        return found[0]
    there = [f"{document.where}: kind {document.kind}" for document in documents]
    wanted = " or ".join(kinds)
    raise BadInputError([f"exactly one document of kind {wanted} is needed, found {len(found)} among these:", *there])
