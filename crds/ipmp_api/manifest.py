"""YAML text to documents, as kubectl reads it, with lines for people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from ipmp_api.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document: the line it begins at, from 1, and its content."""

    line: int
    content: dict[str, Any]

    @property
    def kind(self) -> str:
        """The kind it says it is; "" when it says none."""
        return str(self.content.get("kind", ""))


class _Loader(yaml.SafeLoader):
    """Safe YAML without the two readings that kubectl's parser lacks: dates, and numbers of base sixty.

    An unquoted MAC address such as 52:54:00:12:34:56 is such a number to plain PyYAML. A key written twice is refused,
    where plain PyYAML silently keeps the last.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not a string", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f'key "{key}" already set', key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in {"timestamp", "int", "float"}]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"[-+]?(?:0b[01_]+|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$", re.ASCII),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"(?:[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        re.ASCII,
    ),
    list("-+0123456789."),
)


def load_manifest(text: str) -> tuple[Document, ...]:
    """Parse YAML (or JSON) into its documents, without the empty ones.

    Raises:
        ManifestError: no YAML, a key twice, or a document that is no object; with line and column.
    """
    try:
        return tuple(_documents(text))
    except yaml.MarkedYAMLError as error:
        where = error.problem_mark or error.context_mark
        problem = ": ".join(part for part in (error.context, error.problem) if part)
        raise ManifestError(problem, where.line + 1 if where else 0, where.column + 1 if where else 0) from error
    except yaml.reader.ReaderError as error:  # it knows a position and no line
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - before.rfind("\n")
        raise ManifestError(f"character U+{error.character:04X} is not allowed in YAML", line, column) from error


def _documents(text: str) -> Iterator[Document]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is None or node.tag == "tag:yaml.org,2002:null":
                continue
            line = node.start_mark.line + 1
            if not isinstance(node, yaml.MappingNode):
                raise ManifestError("a manifest is an object: apiVersion, kind, metadata, spec", line, 1)
            yield Document(line, loader.construct_document(node))
    finally:
        loader.dispose()
