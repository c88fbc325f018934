"""The status of both kinds as values, to and from the dictionaries of the API. Times are aware datetimes, given."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ipmp_api.frozen import frozen

_T = TypeVar("_T")

NOT_ADOPTED_MAX = 64
"""Addresses in a status that a group leaves alone."""

LAST_FAILOVERS_MAX = 10
STATUS_ADDRESSES_MAX = 4160
STATUS_TARGETS_MAX = 64
"""Targets shown of one interface."""
TROUBLED_NODES_MAX = 10
MESSAGE_MAX = 1024
"""Characters of a condition's message, and of an event's note."""


@frozen
class Condition:
    """A Kubernetes condition; `status` is "True", "False" or "Unknown"."""

    type: str
    status: str
    reason: str  # CamelCase, never empty
    last_transition_time: datetime
    message: str = ""
    observed_generation: int = 0


BAD_WHEN_TRUE = frozenset({"Degraded", "Stalled"})
"""Conditions of either kind that are well while False; all others are well while True."""


def is_well(kind: str, *, holds: bool) -> bool:
    """Whether a condition of this type wants nobody to look while it is True, or is not."""
    return holds is not (kind in BAD_WHEN_TRUE)


def cut(message: str) -> str:
    """The message within what the API takes; one that was longer ends with an ellipsis."""
    return message if len(message) <= MESSAGE_MAX else message[: MESSAGE_MAX - 1] + "…"


def set_condition(conditions: tuple[Condition, ...], new: Condition) -> tuple[Condition, ...]:
    """The conditions with one set, its message cut; its transition time stays while its status stays."""
    new = replace(new, message=cut(new.message))
    known = {condition.type: condition for condition in conditions}
    old = known.get(new.type)
    if old is not None and old.status == new.status:
        new = replace(new, last_transition_time=old.last_transition_time)
    known[new.type] = new  # in its old place, or last
    return tuple(known.values())


@frozen
class TargetStatus:
    """One probe target of an interface."""

    address: str
    state: str  # active, unused, slow, dead


@frozen
class InterfaceStatus:
    """One member, in the words of ipmpstat."""

    name: str
    role: str
    active: bool
    state: str  # ok, failed, offline, unknown
    link: str  # up, down, unknown
    probe: str  # ok, failed, unknown, disabled
    mac_address: str | None = None
    reason: str | None = None
    since: datetime | None = None
    speed_megabits: int | None = None
    test_addresses: tuple[str, ...] = ()
    targets: tuple[TargetStatus, ...] = ()


@frozen
class AddressStatus:
    """One data address; without an interface it is on none."""

    address: str
    state: str  # up, down
    interface: str | None = None
    reason: str | None = None
    origin: str | None = None  # Assigned, Pool, Adopted


@frozen
class NotAdoptedStatus:
    """One address that the host has on a member and that the group leaves alone."""

    address: str
    interface: str
    reason: str
    message: str


@frozen
class Failover:
    """One move of addresses; an interface is absent when the addresses came from, or went to, none."""

    time: datetime
    reason: str
    addresses: int  # how many moved
    duration_microseconds: int  # from the cause seen to the last announcement of the first round
    from_: str | None = None
    to: str | None = None
    first_loss: datetime | None = None


@frozen
class NodeGroupStatus:
    """IPMPNodeGroup.status, written by the agent of that node."""

    state: str  # ok, degraded, failed
    interfaces: tuple[InterfaceStatus, ...] = ()
    addresses: tuple[AddressStatus, ...] = ()
    not_adopted: tuple[NotAdoptedStatus, ...] = ()  # at most NOT_ADOPTED_MAX
    failure_detection_time_milliseconds: int | None = None
    last_failovers: tuple[Failover, ...] = ()  # newest first, at most LAST_FAILOVERS_MAX
    conditions: tuple[Condition, ...] = ()
    observed_generation: int = 0
    agent_version: str | None = None


@frozen
class NodeCounts:
    """Nodes of a group by the state of their node group."""

    selected: int = 0
    ready: int = 0
    degraded: int = 0
    failed: int = 0
    unknown: int = 0


@frozen
class InterfaceCounts:
    """Members on all nodes."""

    total: int = 0
    failed: int = 0


@frozen
class AddressCounts:
    """Data addresses on all nodes; unavailable: wanted and on no interface, or not to be had."""

    total: int = 0
    unavailable: int = 0


@frozen
class TroubledNode:
    """A node that wants a look."""

    node_name: str
    state: str  # degraded, failed, unknown
    reason: str


@frozen
class GroupStatus:
    """IPMPGroup.status, written by the operator. Its size does not grow with the cluster."""

    nodes: NodeCounts = NodeCounts()
    interfaces: InterfaceCounts = InterfaceCounts()
    data_addresses: AddressCounts = AddressCounts()
    troubled_nodes: tuple[TroubledNode, ...] = ()  # at most TROUBLED_NODES_MAX
    conditions: tuple[Condition, ...] = ()
    observed_generation: int = 0


def to_dict(status: Any) -> dict[str, Any]:
    """A status as the API has it: camelCase, RFC 3339 times in UTC, without what is None.

    Raises:
        ValueError: a time has no zone.
    """
    return {api_name(f.name): _plain(value) for f in fields(status) if (value := getattr(status, f.name)) is not None}


def from_dict(kind: type[_T], data: Any) -> _T:
    """Read a status (or a part of one) back; what is unknown is ignored, what is absent gets its default.

    Raises:
        ValueError: a field that has no default is absent, or a time is none.
    """
    hints = get_type_hints(kind)
    given = {}
    for f in fields(kind):  # type: ignore[arg-type]
        if (data or {}).get(api_name(f.name)) is not None:
            given[f.name] = _value(hints[f.name], data[api_name(f.name)])
    try:
        return kind(**given)
    except TypeError as error:
        raise ValueError(f"incomplete {kind.__name__}: {error}") from error


def api_name(name: str) -> str:
    """The API's camelCase name of an attribute."""
    first, *rest = name.rstrip("_").split("_")
    return first + "".join(word.capitalize() for word in rest)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"time {value} has no zone")
        spec = "microseconds" if value.microsecond else "seconds"
        return value.astimezone(UTC).isoformat(timespec=spec).replace("+00:00", "Z")
    if is_dataclass(value):
        return to_dict(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def _value(hint: Any, value: Any) -> Any:
    arguments = get_args(hint)
    if type(None) in arguments:
        return _value(arguments[0], value)
    if get_origin(hint) is tuple:
        return tuple(_value(arguments[0], item) for item in value)
    if hint is datetime:
        return datetime.fromisoformat(value)
    if isinstance(hint, type) and is_dataclass(hint):
        return from_dict(hint, value)
    return value
