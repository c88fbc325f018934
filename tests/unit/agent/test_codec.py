"""Every value has one form in JSON, and comes back from it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from typing import get_args

import pytest

from ipmp_agent.core import actions, events
from ipmp_agent.core.events import (
    AddressRefused,
    ConfigurationChanged,
    Family,
    InterfaceFound,
    MacAddress,
    ProbeAnswered,
    ProbeKind,
    SavedInterface,
    StateRestored,
)
from ipmp_agent.core.reasons import Reason
from ipmp_agent.disk.codec import decode, encode
from ipmp_api.types import (
    InterfaceMatch,
    Member,
    NodeGroup,
    Policies,
    Switch,
)
from tests.unit.agent.building import node_group

VALUES = [
    node_group(),
    NodeGroup(
        "g",
        "n",
        (Member(InterfaceMatch(pci_address="0000:3b:00.1"), test_ipv4=ip_interface("198.18.0.11/24")),),  # type: ignore[arg-type]
        peers=(ip_address("fe80::1"), ip_address("198.18.0.2")),
        policies=Policies(failback=Switch.DISABLED, pod_egress=(ip_network("10.0.0.0/8"),)),
        offline=("0000:3b:00.1",),
    ),
    InterfaceFound("nic0", "eth7", 3, "02:00:00:00:00:01", link=None, speed_megabits=25000, refusal=Reason.BOND_MEMBER),
    AddressRefused(ip_interface("2001:db8::1/64"), Reason.ADDRESS_CONFLICT, "02:… has it"),
    ProbeAnswered("nic0", Family.IPV6, ip_address("fe80::2"), 65535, ProbeKind.RTT, 0.1 + 0.2, 1e-9),
    ProbeAnswered("nic0", Family.LINK, MacAddress("02:00:00:00:00:02"), 1, ProbeKind.DETECTION, 0.5, 0.25),
    StateRestored((SavedInterface("nic0", failed=True, inactive=False, offline=True, reason=Reason.LINK_DOWN),)),
    ConfigurationChanged(node_group()),
]


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
