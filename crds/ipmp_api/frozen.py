"""Classes of values: an object is what its fields are, and never changes.

`@frozen` is `@dataclass(frozen=True, slots=True)` at a fraction of its cost. Of such a class `dataclasses` writes and
compiles six functions; here it writes `__init__` alone, and equality, hash and representation go over the fields'
values. That nothing is assigned later is left to the type checker, which knows these classes as frozen: so making an
object costs what assigning its fields costs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform

Value = TypeVar("Value")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[Value]) -> type[Value]:
    """The class as one of values: fields as a dataclass has them, `compare=False` and defaults included."""
    if cls.__doc__ is None:
        cls.__doc__ = cls.__name__  # dataclasses would write the signature there, which takes longer than all the rest
    made = dataclass(slots=True, eq=False, repr=False)(cls)
    compared = [each.name for each in fields(made) if each.compare]  # type: ignore[arg-type]  # it is one now
    values = attrgetter(*compared) if compared else _nothing

    def equal(self: Any, other: object) -> bool:
        return values(self) == values(other) if self.__class__ is other.__class__ else NotImplemented

    def hashed(self: Any) -> int:
        return hash(values(self))

    for name, function in ("__eq__", equal), ("__hash__", hashed), ("__repr__", _shown):
        if name not in cls.__dict__:
            setattr(made, name, function)
    return made


def _nothing(_: object) -> tuple[()]:
    return ()


def _shown(self: Any) -> str:
    shown = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.repr)
    return f"{self.__class__.__qualname__}({shown})"
