"""Writes the words that a release reads in its state file: of each place that takes one of a closed set, that set.

Run it with the code of that release, see README.md: `python words.py > COMMIT/words.json`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import typing
from enum import Enum
from types import NoneType
from typing import Any


def words(codec: Any, kind: Any, place: str = "") -> dict[str, list[str]]:
    """Return the values of every enumeration that a type holds, by the path of its fields.

    Args:
        codec: the release's own, which knows the names of its types.
        kind: the type, or one of its fields'.
        place: the path of that field.
    """
    if arguments := typing.get_args(kind):
        parts = [argument for argument in arguments if argument not in (NoneType, Ellipsis)]
        return {where: found for part in parts for where, found in words(codec, part, place).items()}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {place: sorted(word.value for word in kind)}
    if not dataclasses.is_dataclass(kind):
        return {}
    hints = typing.get_type_hints(kind, localns=codec._NAMES)
    fields = [field.name for field in dataclasses.fields(kind) if field.init]
    return {w: found for name in fields for w, found in words(codec, hints[name], f"{place}.{name}").items()}


if __name__ == "__main__":
    from ipmp_agent import codec, state  # type: ignore[attr-defined]

    json.dump(words(codec, state.State), sys.stdout, indent=1)
    sys.stdout.write("\n")
