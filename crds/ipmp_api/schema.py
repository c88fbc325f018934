"""The words in which the API is stated: nodes of a structural schema, and rules said once for CEL and for Python.

The same tree gives the CRDs (`crd.py`), the check of manifests in files (`validate` here) and the reference
(`docs/api.md`), so that the API server and the agent refuse the same things with the same words.
"""

from __future__ import annotations

import re
from dataclasses import field
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ipmp_api.cel import quote
from ipmp_api.errors import DUPLICATE, REQUIRED, TOO_LONG, TOO_MANY, UNKNOWN, UNSUPPORTED, FieldError
from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from enum import StrEnum

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@frozen
class Rule:
    """One check in both languages, with one message.

    `message` may hold `{value}`, the value itself, and the names of `words`, each a CEL expression and the Python
    function that says the same. A rule without `cel` is beyond the cost budget of the API server and is checked by
    the operator and the agent only; one without `holds` compares with the object before (`oldSelf`).
    """

    message: str
    cel: str | None
    holds: Callable[[Any], bool] | None
    words: Mapping[str, tuple[str, Callable[[Any], str]]] = field(default_factory=dict)
    at: str = ""  # path of the property to blame, when a rule about several is about one of them

    def text(self, value: Any) -> str:
        """The message for a value, from Python."""
        words = {name: say(value) for name, (_, say) in self.words.items()}
        return _PLACEHOLDER.sub(lambda m: words[m[1]] if m[1] in words else str(value), self.message)

    def message_expression(self) -> str | None:
        """The message for a value, as a CEL expression; None for a message that is always the same."""
        parts = []
        for position, part in enumerate(_PLACEHOLDER.split(self.message)):
            if position % 2:
                parts.append(self.words[part][0] if part in self.words else "self")
            elif part:
                parts.append(quote(part))
        return " + ".join(parts) if len(parts) > 1 else None


@frozen
class Text:
    """A string; `choices` makes it an enum."""

    description: str
    max_length: int = 0  # of choices: unused
    min_length: int = 1
    choices: tuple[str, ...] = ()
    default: str | None = None
    rules: tuple[Rule, ...] = ()
    timestamp: bool = False


@frozen
class Number:
    """An integer within bounds."""

    description: str
    minimum: int
    maximum: int
    default: int | None = None
    rules: tuple[Rule, ...] = ()


@frozen
class Flag:
    """A boolean; status only, for people choose between words."""

    description: str


@frozen
class Sequence:
    """A list; with `key` one of objects told apart by that property, with `unique` a set of scalars."""

    description: str
    items: Node
    max_items: int
    min_items: int = 0
    key: str | None = None
    unique: bool = False
    rules: tuple[Rule, ...] = ()


@frozen
class Struct:
    """An object with named properties; `filled` ones exist, with their defaults, when nobody writes them."""

    description: str
    properties: Mapping[str, Node]
    required: tuple[str, ...] = ()
    filled: bool = False
    rules: tuple[Rule, ...] = ()


@frozen
class Dictionary:
    """An object of any names, with strings."""

    description: str
    values: Text
    max_properties: int
    rules: tuple[Rule, ...] = ()


Node = Text | Number | Flag | Sequence | Struct | Dictionary


def choice(description: str, words: type[StrEnum], default: StrEnum | None = None) -> Text:
    """Make a string of which the values are those of an enum."""
    return Text(
        description, choices=tuple(word.value for word in words), default=None if default is None else default.value
    )


def filled(node: Node, value: Any) -> Any:
    """The value with the defaults that the API server would add; null counts as absent, as it does there."""
    if isinstance(node, Struct) and isinstance(value, dict):
        given = {key: item for key, item in value.items() if item is not None}
        for name, prop in node.properties.items():
            if name in given:
                given[name] = filled(prop, given[name])
            elif isinstance(prop, Text | Number) and prop.default is not None:
                given[name] = prop.default
            elif isinstance(prop, Struct) and prop.filled:
                given[name] = filled(prop, {})
        return given
    if isinstance(node, Sequence) and isinstance(value, list):
        return [filled(node.items, item) for item in value]
    return value


def validate(node: Node, value: Any, path: str, *, strict: bool) -> list[FieldError]:
    """Every fault of a value whose defaults are filled in; `strict` refuses unknown fields too.

    The rules of a value are asked only when it and all inside it have the right shape.
    """
    match node:
        case Text():
            errors = _text(node, value, path)
        case Number():
            errors = _number(node, value, path)
        case Flag():
            errors = [] if isinstance(value, bool) else [_wrong_type(path, value, "boolean")]
        case Sequence():
            errors = _sequence(node, value, path, strict=strict)
        case Struct():
            errors = _struct(node, value, path, strict=strict)
        case Dictionary():
            errors = _dictionary(node, value, path, strict=strict)
    if not errors and not isinstance(node, Flag):
        errors.extend(_broken(node.rules, value, path))
    return errors


def _broken(rules: tuple[Rule, ...], value: Any, path: str) -> Iterator[FieldError]:
    for rule in rules:
        if rule.holds is not None and not rule.holds(value):
            blamed = value
            for name in rule.at.split(".") if rule.at else ():
                blamed = blamed[name]
            yield FieldError(f"{path}.{rule.at}" if rule.at else path, blamed, rule.text(value))


def _text(node: Text, value: Any, path: str) -> list[FieldError]:
    if not isinstance(value, str):
        return [_wrong_type(path, value, "string")]
    if node.choices:
        if value in node.choices:
            return []
        supported = ", ".join(f'"{word}"' for word in node.choices)
        return [FieldError(path, value, f"supported values: {supported}", UNSUPPORTED)]
    if node.timestamp:
        return [] if _is_timestamp(value) else [FieldError(path, value, f"{path} in body must be of type date-time")]
    if len(value) > node.max_length:
        return [FieldError(path, value, f"may not be more than {node.max_length} bytes", TOO_LONG)]
    if len(value) < node.min_length:
        return [FieldError(path, value, f"{path} in body should be at least {node.min_length} chars long")]
    return []


def _is_timestamp(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _number(node: Number, value: Any, path: str) -> list[FieldError]:
    if not isinstance(value, int) or isinstance(value, bool):
        return [_wrong_type(path, value, "integer")]
    if value < node.minimum:
        return [FieldError(path, value, f"{path} in body should be greater than or equal to {node.minimum}")]
    if value > node.maximum:
        return [FieldError(path, value, f"{path} in body should be less than or equal to {node.maximum}")]
    return []


def _sequence(node: Sequence, value: Any, path: str, *, strict: bool) -> list[FieldError]:
    if not isinstance(value, list):
        return [_wrong_type(path, value, "array")]
    if len(value) > node.max_items:
        return [FieldError(path, len(value), f"must have at most {node.max_items} items", TOO_MANY)]
    errors = []
    if len(value) < node.min_items:
        errors.append(FieldError(path, len(value), f"{path} in body should have at least {node.min_items} items"))
    for index, item in enumerate(value):
        errors.extend(validate(node.items, item, f"{path}[{index}]", strict=strict))
    errors.extend(_duplicates(node, value, path))
    return errors


def _duplicates(node: Sequence, value: list[Any], path: str) -> Iterator[FieldError]:
    if not node.key and not node.unique:
        return
    seen = set()
    for index, item in enumerate(value):
        told_by = item.get(node.key) if node.key and isinstance(item, dict) else item
        if not isinstance(told_by, str | int):
            continue  # reported as missing or of the wrong type
        if told_by in seen:
            yield FieldError(f"{path}[{index}]", {node.key: told_by} if node.key else told_by, "", DUPLICATE)
        seen.add(told_by)


def _struct(node: Struct, value: Any, path: str, *, strict: bool) -> list[FieldError]:
    if not isinstance(value, dict):
        return [_wrong_type(path, value, "object")]
    errors = [FieldError(f"{path}.{name}", None, "", REQUIRED) for name in node.required if name not in value]
    for name, item in value.items():
        if name in node.properties:
            errors.extend(validate(node.properties[name], item, f"{path}.{name}", strict=strict))
        elif strict:
            known = ", ".join(sorted(node.properties))
            message = f'unknown field "{path}.{name}"; the fields here are {known}'
            errors.append(FieldError(f"{path}.{name}", item, message, UNKNOWN))
    return errors


def _dictionary(node: Dictionary, value: Any, path: str, *, strict: bool) -> list[FieldError]:
    if not isinstance(value, dict):
        return [_wrong_type(path, value, "object")]
    if len(value) > node.max_properties:
        return [FieldError(path, len(value), f"must have at most {node.max_properties} items", TOO_MANY)]
    errors = []
    for key, item in value.items():
        if isinstance(key, str):
            errors.extend(validate(node.values, item, f"{path}[{key}]", strict=strict))
        else:
            errors.append(_wrong_type(path, key, "string"))
    return errors


_JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def _wrong_type(path: str, value: Any, wanted: str) -> FieldError:
    found = "null" if value is None else _JSON_TYPES.get(type(value), type(value).__name__)
    return FieldError(path, value, f'{path} in body must be of type {wanted}: "{found}"')
