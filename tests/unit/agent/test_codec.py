"""Every value has one form in JSON, and comes back from it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import get_args

import pytest

from ipmp_agent.core import actions, events
from ipmp_agent.disk.codec import decode, encode
from tests.unit.agent.values import VALUES


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_value_survives_json(value: object) -> None:
    assert decode(type(value), json.loads(json.dumps(encode(value)))) == value


@pytest.mark.parametrize("kind", [*get_args(events.Event), *get_args(actions.Action)], ids=lambda kind: kind.__name__)
def test_every_event_and_action_can_be_read(kind: type) -> None:
    """A new field of a type that has no JSON form fails here, not in an agent that starts."""
    with pytest.raises(ValueError, match="is not an object"):
        decode(kind, [])


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
