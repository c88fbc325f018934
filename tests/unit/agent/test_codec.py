"""Every value has one form in JSON, and comes back from it."""

from __future__ import annotations

import json
from dataclasses import dataclass, is_dataclass
from typing import Any, get_args, get_type_hints

import pytest

from ipmp_agent.core import actions, events
from ipmp_agent.disk import codec
from ipmp_agent.disk.codec import decode, encode
from ipmp_agent.disk.state import SavedState
from tests.unit.agent.values import VALUES


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_value_survives_json(value: object) -> None:
    assert decode(type(value), json.loads(json.dumps(encode(value)))) == value


def dataclasses_in(hint: Any) -> set[Any]:
    """The dataclasses that a type hint is made of."""
    return {hint} if is_dataclass(hint) else {each for part in get_args(hint) for each in dataclasses_in(part)}


def without_form(kind: Any, known: set[Any]) -> list[Any]:
    """The type hints of a dataclass, and of those in its fields, that have no form in JSON."""
    if kind in known:
        return []
    known.add(kind)
    found = []
    for hint in get_type_hints(kind, localns=codec._NAMES).values():
        try:
            codec._decoder(hint)
        except TypeError:
            found.append(hint)
        found += [each for part in dataclasses_in(hint) for each in without_form(part, known)]
    return found


@pytest.mark.parametrize(
    "kind", [SavedState, *get_args(events.Event), *get_args(actions.Action)], ids=lambda kind: kind.__name__
)
def test_everything_that_is_written_can_be_read(kind: type) -> None:
    """A new field of a type that has no JSON form fails here, not in an agent that starts."""
    assert without_form(kind, set()) == []


@dataclass(frozen=True)
class Unreadable:
    numbers: set[int]


@dataclass(frozen=True)
class Outer:
    deep: tuple[dict[str, Unreadable], ...] | None = None


def test_a_field_that_cannot_be_read_is_found_however_deep() -> None:
    assert [str(hint) for hint in without_form(Outer, set())] == ["set[int]"]


@dataclass(frozen=True)
class Older:
    name: str


@dataclass(frozen=True)
class Newer:
    name: str
    level: int = 3


def test_newer_and_older_read_each_other() -> None:
    assert decode(Newer, encode(Older("x"))) == Newer("x")
    assert decode(Older, encode(Newer("x", 9))) == Older("x")


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (events.LinkChanged, {"interface": "nic0", "up": "yes"}, "LinkChanged.up: 'yes' is not bool"),
        (events.LinkChanged, {"interface": "nic0"}, "missing 1 required positional argument: 'up'"),
        (events.AddressCleared, {"address": "not"}, "AddressCleared.address"),
        (events.AddressCleared, {"address": 7}, "7 is not an address"),
        (events.InterfaceVanished, {"interface": None}, "None is not str"),
        (events.SavedInterface, {"reason": "Because"}, "'Because' is not a valid Reason"),
        (events.StateRestored, {"interfaces": {}}, "{} is not a list"),
        (Newer, {"name": "x", "level": True}, "True is not int"),
    ],
)
def test_what_does_not_fit_is_named(kind: type, value: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        decode(kind, value)


def test_what_has_no_form_is_refused() -> None:
    with pytest.raises(TypeError, match="no JSON form for object"):
        encode(object())
