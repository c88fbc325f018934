"""A class of values beside the dataclass that it stands for: whatever one does, the other does."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Callable

    Maker = Callable[..., Any]


@frozen
class Empty:
    """No field."""


@frozen
class Single:
    """One field."""

    name: str


@frozen
class Route:
    """Defaults, a field that is not compared, and one that is not shown."""

    KIND: ClassVar[str] = "route"
    destination: str
    metric: int = 0
    ways: tuple[Single, ...] = ()
    seen: float | None = field(default=None, compare=False)
    secret: str = field(default="", repr=False)

    @property
    def words(self) -> str:
        """Something computed."""
        return f"{self.destination} {self.metric}"


@frozen
class Child(Route):
    """One more field than its parent."""

    table: int = 254


@dataclass(frozen=True, slots=True)
class TheirEmpty:
    """As Empty."""


@dataclass(frozen=True, slots=True)
class TheirSingle:
    """As Single."""

    name: str


@dataclass(frozen=True, slots=True)
class TheirRoute:
    """As Route."""

    destination: str
    metric: int = 0
    ways: tuple[Any, ...] = ()
    seen: float | None = field(default=None, compare=False)
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class TheirChild(TheirRoute):
    """As Child."""

    table: int = 254


PAIRS = [(Empty, TheirEmpty), (Single, TheirSingle), (Route, TheirRoute), (Child, TheirChild)]
ARGUMENTS: dict[type, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {
    Empty: [((), {})],
    Single: [(("a",), {}), ((), {"name": "b"})],
    Route: [(("::/0",), {}), (("::/0", 5), {"seen": 1.0}), (("::/0", 5), {"seen": 2.0}), (("::/0",), {"secret": "x"})],
    Child: [(("::/0",), {}), (("::/0",), {"table": 7})],
}


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_equality_hash_and_representation_are_those_of_a_dataclass(ours: Maker, theirs: Maker) -> None:
    arguments = ARGUMENTS[ours]  # type: ignore[index]
    mine = [ours(*values, **named) for values, named in arguments]
    others = [theirs(*values, **named) for values, named in arguments]
    for one, other in zip(mine, others, strict=True):
        assert repr(one) == repr(other).replace("Their", "")
        assert [getattr(one, each.name) for each in fields(one)] == [getattr(other, f.name) for f in fields(other)]
    assert [[a == b for b in mine] for a in mine] == [[a == b for b in others] for a in others]
    assert len(set(mine)) == len(set(others))


def test_only_objects_of_one_class_are_equal() -> None:
    assert Route("::/0") != Child("::/0")
    assert Child("::/0") != Route("::/0")
    foreign: list[object] = ["a", ()]
    assert [Single("a") == other or Empty() == other for other in foreign] == [False, False]


def test_an_object_is_copied_replaced_and_pickled_as_one_of_a_dataclass() -> None:
    route = Child("::/0", 5, (Single("a"),), seen=1.0, table=9)
    for again in copy.copy(route), copy.deepcopy(route), pickle.loads(pickle.dumps(route)), replace(route):
        assert again == route
        assert again.seen == 1.0
    assert replace(route, metric=6) == Child("::/0", 6, (Single("a"),), table=9)


def test_fields_are_slots_matched_by_position_and_named_in_errors() -> None:
    assert not hasattr(Child("::/0"), "__dict__")
    match Route("::/0", 5):
        case Route(destination, metric):
            assert (destination, metric) == ("::/0", 5)
    with pytest.raises(TypeError, match="unexpected keyword argument 'metrics'"):
        Route("::/0", metrics=3)  # type: ignore[call-arg]  # that is the point


def test_an_object_with_a_field_that_has_no_hash_has_none() -> None:
    with pytest.raises(TypeError, match="unhashable type: 'list'"):
        hash(Route("::/0", ways=[]))  # type: ignore[arg-type]  # that is the point


def test_what_a_class_defines_itself_stays() -> None:
    @frozen
    class Loose:
        name: str

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Loose) and self.name.lower() == other.name.lower()

        def __hash__(self) -> int:
            return hash(self.name.lower())

        def __repr__(self) -> str:
            return "loose"

    assert Loose("A") == Loose("a")
    assert hash(Loose("A")) == hash(Loose("a"))
    assert repr(Loose("A")) == "loose"
