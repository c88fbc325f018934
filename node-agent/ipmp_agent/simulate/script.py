"""What happens in a simulation, as people write it: a YAML document of `kind: FaultScript`.

    kind: FaultScript
    seed: 1
    duration: 300                      # seconds
    network:
      targets: {198.18.0.1: 1}         # address: round trip in milliseconds
    faults:
      - {at: 30, cable: nic0, up: false}

Unknown keys and values out of range are refused, all of them in one go, each with its field. Every scalar comes as
text and is read by the field it is in: to YAML 1.1 the key `on` is the boolean true, and a MAC address is a number.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ipmp_api.addresses import parse_address
from ipmp_api.errors import DUPLICATE, INVALID, REQUIRED, UNKNOWN, FieldError, ValidationError
from ipmp_api.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from ipmp_api.types import Address

KIND = "FaultScript"
DEFAULT_LATENCY = "1"
"""Round trip in milliseconds of a target that is only named."""

FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}

LONGEST = 30 * 86400
"""Seconds; far more than anybody waits for, and a slip of the unit is caught."""


@frozen
class PlayedTarget:
    """A system on the link that answers probes."""

    address: Address
    latency: float  # round trip, seconds
    router: bool = False  # the node's routing table knows it as a gateway
    discoverable: bool = False  # answers the all-hosts multicast


@frozen
class Cable:
    """The link of an interface comes or goes, and its driver says so."""

    interface: str
    up: bool

    def __str__(self) -> str:
        return f"the cable of {self.interface} is {'plugged in' if self.up else 'pulled'}"


@frozen
class Silent:
    """Frames of an interface vanish in both directions while its link stays up."""

    interface: str
    on: bool

    def __str__(self) -> str:
        return f"frames of {self.interface} {'vanish, its link stays up' if self.on else 'pass again'}"


@frozen
class TargetPower:
    """A target dies or comes back."""

    target: Address
    up: bool

    def __str__(self) -> str:
        return f"target {self.target} {'answers again' if self.up else 'dies'}"


@frozen
class Loss:
    """An interface loses this share of its frames, each direction on its own."""

    interface: str
    percent: float

    def __str__(self) -> str:
        return f"{self.interface} loses {self.percent:g} % of its frames"


@frozen
class Latency:
    """The round trip to a target changes."""

    target: Address
    milliseconds: float

    def __str__(self) -> str:
        return f"target {self.target} answers after {self.milliseconds:g} ms"


@frozen
class TakeOffline:
    """Somebody asks for an interface to be taken out of use."""

    interface: str

    def __str__(self) -> str:
        return f"offline {self.interface} is asked for"


@frozen
class Online:
    """Somebody gives an interface back."""

    interface: str

    def __str__(self) -> str:
        return f"online {self.interface} is asked for"


@frozen
class Remove:
    """An interface vanishes from the node."""

    interface: str

    def __str__(self) -> str:
        return f"{self.interface} is removed from the node"


@frozen
class Add:
    """An interface appears, under another index than before."""

    interface: str

    def __str__(self) -> str:
        return f"{self.interface} is added to the node"


@frozen
class Suspend:
    """The agent does not run for a time; whatever happens waits for it."""

    seconds: float

    def __str__(self) -> str:
        return f"the agent is stopped for {self.seconds:g} s"


InterfaceHappening = Cable | Silent | Loss | Remove | Add
TargetHappening = TargetPower | Latency
Happening = InterfaceHappening | TargetHappening | TakeOffline | Online | Suspend


@frozen
class Fault:
    """Something that happens at a time."""

    at: float  # seconds from the start
    what: Happening


@frozen
class FaultScript:
    """One simulation: how long, on what network, with which faults, in the order in which they happen."""

    duration: float  # seconds
    seed: int = 0
    targets: tuple[PlayedTarget, ...] = ()
    faults: tuple[Fault, ...] = ()
    node_name: str | None = None  # which node of the manifest this is


class _Reading:
    """One pass over a document, which collects every error."""

    def __init__(self) -> None:
        self.errors: list[FieldError] = []

    def refuse(self, path: str, value: Any, message: str, kind: str = INVALID) -> None:
        """Note a wrong field."""
        self.errors.append(FieldError(path, value, message, kind))

    def object(self, path: str, value: Any, known: Collection[str], required: Iterable[str] = ()) -> dict[str, Any]:
        """The value as an object whose keys are all known; an empty one when it is not."""
        if not isinstance(value, dict):
            self.refuse(path, value, "must be an object")
            return {}
        inside = f"{path}." if path else ""
        for key in value:
            if key not in known:
                message = f'unknown field "{inside}{key}"; the fields here are {", ".join(known)}'
                self.refuse(f"{inside}{key}", value[key], message, UNKNOWN)
        for key in required:
            if key not in value:
                self.refuse(f"{inside}{key}", None, "", REQUIRED)
        return value

    def number(self, path: str, value: Any, lowest: float, highest: float) -> float | None:
        """The value as a number within bounds."""
        try:
            number = float(value) if isinstance(value, str) else math.nan
        except ValueError:
            number = math.nan
        if not lowest <= number <= highest:
            self.refuse(path, value, f"must be a number from {lowest:g} to {highest:g}")
            return None
        return number

    def whole(self, path: str, value: Any) -> int:
        """The value as a whole number; 0 when it is none."""
        try:
            return int(value)
        except (ValueError, TypeError):
            self.refuse(path, value, "must be a whole number")
            return 0

    def flag(self, path: str, value: Any) -> bool | None:
        """The value as true or false."""
        flag = FLAGS.get(value.lower()) if isinstance(value, str) else None
        if flag is None:
            self.refuse(path, value, "must be true or false")
        return flag

    def address(self, path: str, value: Any) -> Address | None:
        """The value as an address."""
        try:
            return parse_address(value)
        except (ValueError, AttributeError, TypeError):
            self.refuse(path, value, "must be an IPv4 or IPv6 address")
            return None


def parse_script(document: Any, interfaces: Collection[str]) -> FaultScript:
    """The script in a YAML document. Raises ValidationError with every wrong field.

    Args:
        document: what YAML made of the text, scalars as text.
        interfaces: the keys of the group's interfaces, which faults may name.
    """
    reading = _Reading()
    known = ("apiVersion", "kind", "metadata", "nodeName", "seed", "duration", "network", "faults")
    fields = reading.object("", document, known, ["duration"])
    duration = _duration(reading, fields)
    seed = reading.whole("seed", fields.get("seed", "0"))
    node_name = fields.get("nodeName")
    if node_name is not None and not isinstance(node_name, str):
        reading.refuse("nodeName", node_name, "must be the name of a node")
    targets = _network(reading, fields.get("network"))
    faults = _faults(reading, fields.get("faults"), duration, interfaces, {target.address for target in targets})
    if reading.errors:
        raise ValidationError(tuple(reading.errors))
    return FaultScript(duration, seed, targets, faults, node_name)


def _duration(reading: _Reading, fields: dict[str, Any]) -> float:
    if "duration" not in fields:
        return LONGEST
    duration = reading.number("duration", fields["duration"], 0, LONGEST)
    return LONGEST if duration is None else duration


# --- the network


def _network(reading: _Reading, value: Any) -> tuple[PlayedTarget, ...]:
    if value is None or value == "":
        return ()
    if isinstance(value, list) or (isinstance(value, dict) and value and not {"targets", "routers"} & set(value)):
        return tuple(_targets(reading, "network", value, router=False))  # the targets without a word around them
    fields = reading.object("network", value, ("targets", "routers"))
    found = [
        *_targets(reading, "network.targets", fields.get("targets"), router=False),
        *_targets(reading, "network.routers", fields.get("routers"), router=True),
    ]
    targets: dict[Address, PlayedTarget] = {}
    for target in found:
        if target.address in targets:
            reading.refuse("network", str(target.address), "a router is no target beside that", DUPLICATE)
        targets[target.address] = target
    return tuple(targets.values())


def _targets(reading: _Reading, path: str, value: Any, *, router: bool) -> Iterable[PlayedTarget]:
    """The targets, written `{ADDRESS: ms}`, `{ADDRESS: {latency: ms}}`, `[ADDRESS]` or `[{address:, latency:}]`."""
    if value is None or value == "":
        return
    if isinstance(value, dict):
        entries = [(f"{path}[{key}]", key, entry) for key, entry in value.items()]
    elif isinstance(value, list):
        entries = []
        for position, entry in enumerate(value):
            where = f"{path}[{position}]"
            if isinstance(entry, dict):
                if "address" not in entry:
                    reading.refuse(f"{where}.address", None, "", REQUIRED)
                    continue
                entries.append((where, entry["address"], {k: v for k, v in entry.items() if k != "address"}))
            else:
                entries.append((where, entry, {}))
    else:
        reading.refuse(path, value, "must map addresses to milliseconds")
        return
    seen = set()
    for where, key, entry in entries:
        address = reading.address(where, key)
        if address in seen:
            reading.refuse(where, key, "", DUPLICATE)
            continue
        seen.add(address)
        target = _target(reading, where, address, entry, router=router)
        if target is not None:
            yield target


def _target(reading: _Reading, path: str, address: Address | None, value: Any, *, router: bool) -> PlayedTarget | None:
    fields = value if isinstance(value, dict) else {"latency": value}
    names = ("latency", "latencyMilliseconds", "milliseconds")
    fields = reading.object(path, fields, (*names, "router", "discoverable"))
    given = [name for name in names if name in fields]
    if len(given) > 1:
        reading.refuse(f"{path}.{given[1]}", fields[given[1]], f"is {given[0]} once more", DUPLICATE)
    where = f"{path}.{given[0]}" if given and isinstance(value, dict) else path
    milliseconds = reading.number(where, fields[given[0]] if given else DEFAULT_LATENCY, 0, 3_600_000)
    is_router = reading.flag(f"{path}.router", fields["router"]) if "router" in fields else router
    discoverable = reading.flag(f"{path}.discoverable", fields.get("discoverable", "false"))
    if address is None or milliseconds is None or is_router is None or discoverable is None:
        return None
    return PlayedTarget(address, milliseconds / 1000, is_router, discoverable)


# --- the faults


def _boolean(reading: _Reading, path: str, value: Any) -> Any:
    return reading.flag(path, value)


def _percent(reading: _Reading, path: str, value: Any) -> Any:
    return reading.number(path, value, 0, 100)


def _milliseconds(reading: _Reading, path: str, value: Any) -> Any:
    return reading.number(path, value, 0, 3_600_000)


# what happens -> (what it happens to, the key of the other value and how that is read, what it becomes)
_VERBS: dict[str, tuple[str, tuple[str, Callable[[_Reading, str, Any], Any]] | None, Callable[..., Happening]]] = {
    "cable": ("interface", ("up", _boolean), Cable),
    "silent": ("interface", ("on", _boolean), Silent),
    "target": ("address", ("up", _boolean), TargetPower),
    "loss": ("interface", ("percent", _percent), Loss),
    "latency": ("address", ("milliseconds", _milliseconds), Latency),
    "offline": ("interface", None, TakeOffline),
    "online": ("interface", None, Online),
    "remove": ("interface", None, Remove),
    "add": ("interface", None, Add),
    "suspend": ("seconds", None, Suspend),
}


def _faults(
    reading: _Reading, value: Any, duration: float, interfaces: Collection[str], targets: Collection[Address]
) -> tuple[Fault, ...]:
    if value is None or value == "":
        return ()
    if not isinstance(value, list):
        reading.refuse("faults", value, "must be a list")
        return ()
    faults = [_fault(reading, f"faults[{i}]", entry, duration, interfaces, targets) for i, entry in enumerate(value)]
    return tuple(sorted((fault for fault in faults if fault is not None), key=lambda fault: fault.at))


def _fault(
    reading: _Reading,
    path: str,
    value: Any,
    duration: float,
    interfaces: Collection[str],
    targets: Collection[Address],
) -> Fault | None:
    verbs = [key for key in value if key in _VERBS] if isinstance(value, dict) else []
    if len(verbs) != 1:
        reading.refuse(path, value, f"must have exactly one of {', '.join(_VERBS)}")
        return None
    verb = verbs[0]
    kind, other, make = _VERBS[verb]
    keys = ("at", verb) if other is None else ("at", verb, other[0])
    errors = len(reading.errors)
    fields = reading.object(path, value, keys, keys)
    at = reading.number(f"{path}.at", fields["at"], 0, duration) if "at" in fields else None
    arguments = [_subject(reading, f"{path}.{verb}", kind, fields[verb], interfaces, targets)]
    if other is not None and other[0] in fields:
        arguments.append(other[1](reading, f"{path}.{other[0]}", fields[other[0]]))
    return Fault(at, make(*arguments)) if at is not None and len(reading.errors) == errors else None


def _subject(
    reading: _Reading, path: str, kind: str, value: Any, interfaces: Collection[str], targets: Collection[Address]
) -> Any:
    if kind == "seconds":
        return reading.number(path, value, 0, LONGEST)
    if kind == "address":
        address = reading.address(path, value)
        if address is not None and address not in targets:
            reading.refuse(path, value, "is not in the network: nobody answers there")
        return address
    if value not in interfaces:
        reading.refuse(path, value, f"is not an interface of the group; those are {', '.join(interfaces)}")
    return value
