"""Dataclasses of this project to plain JSON values and back, by their type hints.

The state file, recordings and the control socket share it, so that each value has one form on disk and on the wire.
Unknown keys are ignored and missing ones take their default: an older and a newer agent read each other's files. What
cannot be read, such as a word that only a newer agent knows, is an error to `decode`; `salvage` leaves out the smallest
part that the rest stands without.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from functools import cache
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import ipmp_api.types
from ipmp_agent.core import actions, drill, events, findings, reasons, snapshot, words

T = TypeVar("T")
Lost = Callable[[str], object]
Decoder = Callable[[Any, Lost | None], Any]  # from a value; told of what is left out, None: nothing may be

_PLAIN = (str, int, float, bool)
_MAC = re.compile("[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def _address_or_mac(text: str) -> Any:
    return events.MacAddress(text) if _MAC.fullmatch(text) else ip_address(text)


_IP_PARSERS: dict[frozenset[type], Callable[[str], Any]] = {
    frozenset({IPv4Address, IPv6Address}): ip_address,
    frozenset({IPv4Address, IPv6Address, events.MacAddress}): _address_or_mac,
    frozenset({IPv4Interface, IPv6Interface}): ip_interface,
    frozenset({IPv4Network, IPv6Network}): ip_network,
}
_IP_TYPES = (IPv4Address, IPv6Address, IPv4Interface, IPv6Interface, IPv4Network, IPv6Network)

# The core imports types for checking only, so its hints are looked up here.
_NAMES: dict[str, Any] = {
    **vars(ipmp_api.types),
    **vars(reasons),
    **vars(events),
    **vars(actions),
    **vars(findings),
    **vars(words),
    **vars(snapshot),
    **vars(drill),
}


def encode(value: Any) -> Any:
    """The JSON value of a dataclass, enum, address, sequence, mapping or plain value; TypeError for anything else."""
    if value is None:
        return None
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, _IP_TYPES):
        return str(value)
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    raise TypeError(f"no JSON form for {type(value).__name__}")


def decode(kind: type[T], value: Any) -> T:
    """The `kind` that `encode` made `value` from; ValueError names what does not fit."""
    hint: Any = kind
    decoded: T = _decoder(hint)(value, None)
    return decoded


def salvage(kind: type[T], value: Any, lost: Lost) -> T:
    """As `decode`, but without the entries and fields that cannot be read, where the rest can do without.

    Args:
        kind: what it is.
        value: what `encode` made of it, perhaps in another version.
        lost: told of each part that is left out, where it was and why.

    Raises:
        ValueError: the whole cannot do without what cannot be read.
    """
    hint: Any = kind
    decoded: T = _decoder(hint)(value, lost)
    return decoded


@cache
def _decoder(kind: Any) -> Decoder:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _union(get_args(kind))
    if origin is tuple:
        return _tuple(get_args(kind))
    if origin in (dict, Mapping, typing.Mapping):
        return _mapping(get_args(kind)[1])
    if kind is Any:
        return lambda value, _: value
    if kind in _PLAIN:
        return _plain(kind)
    if kind in _IP_TYPES:
        return _parsed(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return lambda value, _: kind(value)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _dataclass(kind)
    raise TypeError(f"no JSON form for {kind}")


def _plain(kind: type) -> Decoder:
    accepted = (int, float) if kind is float else (kind,)

    def read(value: Any, _: Lost | None) -> Any:
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{_shown(value)} is not {kind.__name__}")
        try:
            plain = kind(value)
        except OverflowError as error:
            raise ValueError(f"{_shown(value)}: {error}") from error
        if kind is float and not math.isfinite(plain):
            raise ValueError(f"{value!r} is no finite number")
        return plain

    return read


def _parsed(parse: Callable[[str], Any]) -> Decoder:
    def read(value: Any, _: Lost | None) -> Any:
        if not isinstance(value, str):
            raise ValueError(f"{_shown(value)} is not an address")  # noqa: TRY004 - all wrong input is a ValueError here
        return parse(value)

    return read


def _union(kinds: tuple[Any, ...]) -> Decoder:
    present = frozenset(kind for kind in kinds if kind is not types.NoneType)
    if present in _IP_PARSERS:
        read = _parsed(_IP_PARSERS[present])
    elif len(present) == 1:
        read = _decoder(next(iter(present)))
    else:
        raise TypeError(f"no JSON form for a union of {kinds}")
    if len(present) == len(kinds):
        return read
    return lambda value, lost: None if value is None else read(value, lost)


def _tuple(kinds: tuple[Any, ...]) -> Decoder:
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        item = _decoder(kinds[0])
        return lambda value, lost: tuple(
            read for position, each in enumerate(_list(value)) for read in _entry(item, each, lost, f"[{position}]")
        )
    items = tuple(_decoder(kind) for kind in kinds)
    return lambda value, lost: tuple(item(each, lost) for item, each in zip(items, _list(value), strict=True))


def _mapping(kind: Any) -> Decoder:
    item = _decoder(kind)
    return lambda value, lost: {
        key: read for key, each in _object(value).items() for read in _entry(item, each, lost, f"[{_shown(key)}]")
    }


def _entry(item: Decoder, value: Any, lost: Lost | None, where: str) -> tuple[Any, ...]:
    """The entry of a container, or none where it may be left out."""
    try:
        return (item(value, _within(where, lost)),)
    except ValueError as error:
        if lost is None:
            raise
        lost(f"{where}: {error}")
        return ()


def _within(where: str, lost: Lost | None) -> Lost | None:
    return None if lost is None else lambda what: lost(f"{where}{what}")


def _dataclass(kind: type) -> Decoder:
    hints = get_type_hints(kind, localns=_NAMES)
    missing = dataclasses.MISSING
    fields = [
        (field.name, hints[field.name], (field.default, field.default_factory) == (missing, missing))
        for field in dataclasses.fields(kind)
        if field.init
    ]

    def read(value: Any, lost: Lost | None) -> Any:
        found = _object(value)
        arguments = {}
        for name, hint, needed in fields:
            if name in found:
                try:
                    arguments[name] = _decoder(hint)(found[name], _within(f".{name}", lost))
                except ValueError as error:
                    if lost is None or needed:
                        raise ValueError(f"{kind.__name__}.{name}: {error}") from error
                    lost(f".{name}: {error}")
        try:
            return kind(**arguments)
        except TypeError as error:  # a field without a default is missing
            raise ValueError(f"{kind.__name__}: {error}") from error

    return read


def _shown(value: Any) -> str:
    """A value for people: of a huge one its kind and its beginning."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) < 60 else f"{text[:60]}..."


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{_shown(value)} is not a list")  # noqa: TRY004 - all wrong input is a ValueError here
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{_shown(value)} is not an object")  # noqa: TRY004 - all wrong input is a ValueError here
    return value
