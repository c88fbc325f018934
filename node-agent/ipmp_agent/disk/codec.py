"""Dataclasses of this project to plain JSON values and back, by their type hints.

The state file, recordings and the control socket share it, so that each value has one form on disk and on the wire.
Unknown keys are ignored and missing ones take their default: an older and a newer agent read each other's files.
"""

from __future__ import annotations

import dataclasses
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
from ipmp_agent.core import actions, events, findings, reasons, snapshot, words

T = TypeVar("T")
Decoder = Callable[[Any], Any]

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
    decoded: T = _decoder(hint)(value)
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
        return lambda value: value
    if kind in _PLAIN:
        return _plain(kind)
    if kind in _IP_TYPES:
        return _parsed(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _dataclass(kind)
    raise TypeError(f"no JSON form for {kind}")


def _plain(kind: type) -> Decoder:
    accepted = (int, float) if kind is float else (kind,)

    def read(value: Any) -> Any:
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{value!r} is not {kind.__name__}")
        return kind(value)

    return read


def _parsed(parse: Callable[[str], Any]) -> Decoder:
    def read(value: Any) -> Any:
        if not isinstance(value, str):
            raise ValueError(f"{value!r} is not an address")  # noqa: TRY004 - all wrong input is a ValueError here
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
    return lambda value: None if value is None else read(value)


def _tuple(kinds: tuple[Any, ...]) -> Decoder:
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        item = _decoder(kinds[0])
        return lambda value: tuple(item(each) for each in _list(value))
    items = tuple(_decoder(kind) for kind in kinds)
    return lambda value: tuple(item(each) for item, each in zip(items, _list(value), strict=True))


def _mapping(kind: Any) -> Decoder:
    item = _decoder(kind)
    return lambda value: {key: item(each) for key, each in _object(value).items()}


def _dataclass(kind: type) -> Decoder:
    hints = get_type_hints(kind, localns=_NAMES)
    fields = [(field.name, hints[field.name]) for field in dataclasses.fields(kind) if field.init]

    def read(value: Any) -> Any:
        found = _object(value)
        arguments = {}
        for name, hint in fields:
            if name in found:
                try:
                    arguments[name] = _decoder(hint)(found[name])
                except ValueError as error:
                    raise ValueError(f"{kind.__name__}.{name}: {error}") from error
        try:
            return kind(**arguments)
        except TypeError as error:  # a field without a default is missing
            raise ValueError(f"{kind.__name__}: {error}") from error

    return read


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is not a list")  # noqa: TRY004 - all wrong input is a ValueError here
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not an object")  # noqa: TRY004 - all wrong input is a ValueError here
    return value
