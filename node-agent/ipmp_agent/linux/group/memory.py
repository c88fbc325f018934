"""What an earlier agent remembered of a group, read with care: it may be newer than this one, or broken.

The form is what `memory` of the parts returns. An entry that cannot be read is left out and named, and no other with
it.
"""

from __future__ import annotations

import struct
from dataclasses import fields
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

from ipmp_agent.linux.group.settings import WANTED
from ipmp_agent.linux.messages import addresses, routes
from ipmp_api.types import InterfaceMatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

VERSION = 1

_UNREADABLE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error)
_MATCHERS = tuple(field.name for field in fields(InterfaceMatch))


def read(memory: Any) -> tuple[dict[str, Any] | None, list[str]]:
    """The memory of a group with every entry in its form, and what was left out of it. Never raises.

    Returns:
        None where nothing is remembered, or in a form that only another version knows.
    """
    if memory is None:
        return None, []
    if not isinstance(memory, dict) or memory.get("version") != VERSION:
        version = memory.get("version") if isinstance(memory, dict) else None
        return None, [f"all of it: it is of version {version!r}, and this agent reads version {VERSION}"]
    found = _Reader()
    located = memory.get("addresses")
    located = located if isinstance(located, dict) else {}
    return {
        "version": VERSION,
        "members": found.entries("members", memory.get("members"), _match),
        "addresses": {
            "placement": found.mapping("placement", located.get("placement"), _placed),
            "foreign": found.mapping("foreign", located.get("foreign"), _adopted),
            "looked_at": found.entries("looked_at", located.get("looked_at"), _text),
        },
        "settings": found.mapping("settings", memory.get("settings"), _settings),
        "interfaceGroups": found.mapping("interfaceGroups", memory.get("interfaceGroups"), _interface_group),
        "administrativeState": found.mapping("administrativeState", memory.get("administrativeState"), _found_down),
        "routes": found.entries("routes", memory.get("routes"), _route),
        "tunnels": found.entries("tunnels", memory.get("tunnels"), _tunnel),
        "outsiders": found.entries("outsiders", memory.get("outsiders"), _outsider),
    }, found.problems


def former_members(memory: Mapping[str, Any] | None) -> list[InterfaceMatch]:
    """The members that an earlier run changed anything about, those that were leaving included."""
    if memory is None:
        return []
    had = [InterfaceMatch(**match) for match in memory["members"]]
    return [match for match in had if match.key in memory["settings"]]


class _Reader:
    def __init__(self) -> None:
        self.problems: list[str] = []

    def entries(self, part: str, value: Any, checked: Callable[[Any], Any]) -> list[Any]:
        listed = value if isinstance(value, list | tuple) else self._none(part, value, ())
        return [entry for _, entry in self._good(part, enumerate(listed), lambda _, entry: checked(entry))]

    def mapping(self, part: str, value: Any, checked: Callable[[str, Any], Any]) -> dict[str, Any]:
        listed = value if isinstance(value, dict) else self._none(part, value, {})
        return dict(self._good(part, listed.items(), checked))

    def _none(self, part: str, value: Any, nothing: Any) -> Any:
        if value is not None:
            self.problems.append(f"{part}: {_shown(value)}")
        return nothing

    def _good(
        self, part: str, entries: Iterable[tuple[Any, Any]], checked: Callable[[Any, Any], Any]
    ) -> list[tuple[Any, Any]]:
        good = []
        for key, value in entries:
            try:
                good.append((key, checked(key, value)))
            except _UNREADABLE as error:
                self.problems.append(f"{part}, {_shown(key)}: {type(error).__name__}: {error}")
        return good


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:60]}..."


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{_shown(value)} is no name")
    return value


def _number(value: Any, bits: int = 31) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << bits:
        raise ValueError(f"{_shown(value)} is no number of {bits} bits")
    return value


def _moment(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise ValueError(f"{_shown(value)} is no moment since the host was started")
    return value


def _match(entry: Any) -> dict[str, str | None]:
    given = {name: _text(entry[name]) for name in _MATCHERS if entry.get(name) is not None}
    if len(given) != 1:
        raise ValueError(f"{_shown(entry)} says of no interface which it is")
    return dict.fromkeys(_MATCHERS) | given


def _placed(address: str, member: Any) -> str:
    ip_interface(address)
    return _text(member)


def _adopted(address: str, entry: Any) -> dict[str, str]:
    found = addresses.decode(bytes.fromhex(entry["message"]))
    if found is not None:
        addresses.restore(found.index, found.body)
    if found is None or found.address.ip != ip_interface(address).ip:
        raise ValueError("its message is of another address")
    return {"member": _text(entry["member"]), "message": entry["message"]}


def _settings(_: str, entry: Any) -> dict[str, Any]:
    values = entry["values"]
    return {
        "index": _number(entry["index"]),
        "values": {name: _number(values[name], 32) for name in WANTED if name in values},
    }


def _interface_group(_: str, entry: Any) -> dict[str, int]:
    return {"index": _number(entry["index"]), "group": _number(entry["group"], 32)}


def _found_down(_: str, entry: Any) -> dict[str, int]:
    return {"index": _number(entry["index"])}


def _route(entry: Any) -> dict[str, Any]:
    found = routes.decode(bytes.fromhex(entry["message"]))
    if found is not None:
        routes.restore(found.body, {})
    members = {str(_number(int(index))): _text(member) for index, member in entry["members"].items()}
    until = {"until": _moment(entry["until"])} if "until" in entry else {}
    return {"members": members, "message": entry["message"], "missing": bool(entry.get("missing", True)), **until}


def _tunnel(entry: Any) -> dict[str, Any]:
    return {
        "index": _number(entry["index"]),
        "name": _text(entry["name"]),
        "member": _text(entry["member"]),
        "origin": _number(entry.get("origin", 0)),
        "link": _number(entry["link"]),
    }


def _outsider(entry: Any) -> dict[str, Any]:
    values, others = (
        {_text(name): _number(value, 32) for name, value in found.items()}
        for found in (entry["values"], entry.get("others", {}))
    )
    return {"index": _number(entry["index"]), "name": _text(entry["name"]), "values": values, "others": others}
