"""YAML text to documents, as kubectl reads it, with lines for people."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from ipmp_api.errors import ManifestError
from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator


@frozen
class Document:
    """One YAML document: the line it begins at, from 1, and its content."""

    line: int
    content: dict[str, Any]

    @property
    def kind(self) -> str:
        """The kind it says it is; "" when it says none."""
        return str(self.content.get("kind", ""))


DEPTH = 64
"""How deep a manifest may nest. An IPMPGroup needs seven levels; the managed fields of an object some more."""

_SHOWN = 60
_INTEGERS = range(-(2**63), 2**64)
"""What an API object can hold as an integer."""


class Shallow(yaml.composer.Composer):
    """To be mixed into a loader: refuses what nests deeper than DEPTH, which would exhaust the stack."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As the base class says."""
        self._depth += 1
        if self._depth > DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[attr-defined]
            raise yaml.composer.ComposerError(None, None, f"nested deeper than {DEPTH} levels", mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Loader(Shallow, yaml.SafeLoader):
    """Safe YAML without the two readings that kubectl's parser lacks: dates, and numbers of base sixty.

    An unquoted MAC address such as 52:54:00:12:34:56 is such a number to plain PyYAML. A key written twice is refused,
    where plain PyYAML silently keeps the last. What cannot be made into a value is refused where it stands.
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise _refusal(node) from error
        if isinstance(value, int) and value not in _INTEGERS:
            raise _refusal(node, ": it has more than 64 bits")
        if isinstance(value, str) and not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            raise _refusal(node, ": it has half of a character")
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in _pairs(node):
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not a string", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f'key "{key}" already set', key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _pairs(node: yaml.Node) -> list[tuple[yaml.Node, yaml.Node]]:
    """The keys and values of a node: none where a tag calls another kind of node a mapping."""
    return node.value if isinstance(node, yaml.MappingNode) else []


def _refusal(node: yaml.Node, why: str = "") -> yaml.constructor.ConstructorError:
    kind = node.tag.rpartition(":")[2]
    shown = ascii(node.value) if isinstance(node, yaml.ScalarNode) else f"a {type(node).__name__}"
    if len(shown) > _SHOWN:
        shown = f"{shown[:_SHOWN]}..."
    return yaml.constructor.ConstructorError(None, None, f"{shown} is no {kind}{why}", node.start_mark)


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
    """Parse YAML (or JSON) into its documents, without the empty ones; a List stands for its items.

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


def is_empty_list(text: str) -> bool:
    """Whether a text that `load_manifest` takes is a List that says that there is nothing."""
    loader = _Loader(text)
    while loader.check_node():
        node = loader.get_node()
        whole = loader.construct_document(node) if isinstance(node, yaml.MappingNode) else {}
        if whole.get("items") == [] and str(whole.get("kind", "")).endswith("List"):
            return True
    return False


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
            content: dict[str, Any] = loader.construct_document(node)
            if str(content.get("kind", "")).endswith("List") and "items" in content:
                yield from _items(node, content["items"])
            else:
                yield Document(line, content)
    finally:
        loader.dispose()


def _items(list_node: yaml.MappingNode, items: Any) -> Iterator[Document]:
    """The objects of a List, as `kubectl get -o yaml` shows several."""
    at = next((value for key, value in list_node.value if key.value == "items"), list_node)
    places = at.value if isinstance(at, yaml.SequenceNode) else []
    if not isinstance(items, list) or len(items) != len(places):
        raise ManifestError("items of a List is no list", at.start_mark.line + 1, at.start_mark.column + 1)
    for node, item in zip(places, items, strict=True):
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        if not isinstance(item, dict):
            raise ManifestError("an item of a List is an object: apiVersion, kind, metadata, spec", line, column)
        yield Document(line, item)
