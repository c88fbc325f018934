"""The status that Kubernetes shows."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core.events import Family
from ipmp_agent.core.findings import Finding
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.words import InterfaceWord, ProbeWord, TargetMode, TargetState
from ipmp_agent.publication import PastFailover
from ipmp_agent.views import status
from ipmp_api.schema import validate
from ipmp_api.status import to_dict
from ipmp_api.status_fields import NODE_GROUP_STATUS
from tests.unit.agent.building import WALL
from tests.unit.views.pictures import address, failed, interface, prober, standby, view

if TYPE_CHECKING:
    from ipmp_agent.publication import GroupView
    from ipmp_api.status import Condition

MOVED = PastFailover(
    WALL + 0.25,
    "nic1",
    "nic0",
    Reason.LINK_DOWN,
    (ip_interface("198.18.0.100/24"), ip_interface("::1/128")),
    0.00069,
    first_loss=WALL + 0.125,
)
PROBED = prober(targets=("198.18.0.1",), dead=("198.18.0.3",))


def condition(picture: GroupView, kind: str) -> tuple[str, str, str]:
    found: Condition = next(c for c in status.build(picture, now=WALL).conditions if c.type == kind)
    return found.status, found.reason, found.message


def test_of_very_many_targets_those_that_matter_are_shown() -> None:
    """A network of pods may lay a route by each node of the cluster, and each of them is a gateway."""
    unused = tuple(f"198.18.{high}.{low}" for high in range(2) for low in range(1, 100))
    many = prober(targets=("198.18.9.1", *unused), dead=("198.18.9.3",))
    targets = tuple(
        replace(target, state=TargetState.UNUSED) if str(target.address) in unused else target
        for target in many.targets
    )
    shown = to_dict(status.build(view(interface("nic0", probers=(replace(many, targets=targets),))), now=WALL))
    assert not list(validate(NODE_GROUP_STATUS, shown, "status", strict=True))
    (nic,) = shown["interfaces"]
    states = {target["address"]: target["state"] for target in nic["targets"]}
    assert (states["198.18.9.1"], states["198.18.9.3"]) == ("active", "dead")


@pytest.mark.parametrize("mac", ["", ":".join(["80"] * 20), ":".join(["80"] * 32)])
def test_member_that_is_refused_for_it_is_no_ethernet_is_shown_whatever_its_address(mac: str) -> None:
    """Who names a tunnel or an InfiniBand interface must be told; the kernel's addresses have 32 bytes at most."""
    picture = view(interface("ib0", mac=mac, refusal=Reason.UNSUITABLE_DEVICE))
    assert not list(validate(NODE_GROUP_STATUS, to_dict(status.build(picture, now=WALL)), "status", strict=True))


SAME = ("eth9", "02:00:00:00:00:02", "0000:3b:00.1")  # three ways to match one interface


@pytest.mark.parametrize("user", [*SAME, None])
@pytest.mark.parametrize("keys", [*itertools.permutations(SAME)])
def test_members_that_mean_the_same_interface_are_shown_by_different_names(
    keys: tuple[str, ...], user: str | None
) -> None:
    """Of two with one name the API server would refuse the whole status; Prometheus would drop a sample."""
    conflict = Reason.INTERFACE_CONFLICT
    members = [interface(key, name="eth9", refusal=None if key == user else conflict) for key in keys]
    picture = view(*members, interface("eth8"))
    found = to_dict(status.build(picture, now=WALL))
    assert not list(validate(NODE_GROUP_STATUS, found, "status", strict=True))
    names = dict(zip((*keys, "eth8"), (one["name"] for one in found["interfaces"]), strict=True))
    assert set(names.values()) == {*SAME, "eth8"}
    assert names["eth8"] == "eth8"
    assert names[user or keys[0]] == "eth9"


def test_whole_status() -> None:
    picture = view(
        interface("0000:3b:00.1", name="nic0", probers=(PROBED,)),
        failed("nic1", mac=None, speed_megabits=None),
        addresses=(
            address("198.18.0.100/24", "0000:3b:00.1"),
            address("198.18.0.101/24", None, refusal=Reason.ADDRESS_CONFLICT, detail="02:… has it"),
        ),
        history=(PastFailover(WALL, "a", "b", Reason.FAILBACK, (), 0.0), MOVED),
    )
    found: dict[str, Any] = to_dict(status.build(picture, now=WALL, generation=7))
    assert not list(validate(NODE_GROUP_STATUS, found, "status", strict=True))
    assert found["state"] == "degraded"
    assert found["observedGeneration"] == 7
    assert found["failureDetectionTimeMilliseconds"] == 10000
    assert found["interfaces"] == [
        {
            "name": "nic0",
            "role": "Active",
            "active": True,
            "state": "ok",
            "link": "up",
            "probe": "ok",
            "macAddress": "02:00:00:00:00:02",
            "reason": "InterfaceAppeared",
            "since": "2023-11-14T22:13:20Z",
            "speedMegabits": 25000,
            "testAddresses": ["198.18.0.11"],
            "targets": [{"address": "198.18.0.1", "state": "active"}, {"address": "198.18.0.3", "state": "dead"}],
        },
        {
            "name": "nic1",
            "role": "Active",
            "active": False,
            "state": "failed",
            "link": "down",
            "probe": "failed",
            "reason": "LinkDown",
            "since": "2023-11-14T22:13:20Z",
            "testAddresses": [],
            "targets": [],
        },
    ]
    assert found["addresses"] == [
        {"address": "198.18.0.100/24", "state": "up", "interface": "nic0", "origin": "Assigned"},
        {"address": "198.18.0.101/24", "state": "down", "reason": "AddressConflict", "origin": "Assigned"},
    ]
    assert found["lastFailovers"][0] == {
        "time": "2023-11-14T22:13:20.250000Z",
        "firstLoss": "2023-11-14T22:13:20.125000Z",
        "from": "nic1",
        "to": "nic0",
        "reason": "LinkDown",
        "addresses": 2,
        "durationMicroseconds": 690,
    }
    assert found["lastFailovers"][1]["reason"] == "Failback"
    assert [c["type"] for c in found["conditions"]] == [
        "Programmed",
        "Ready",
        "Degraded",
        "InterfacesConsistent",
        "ProbesEnabled",
        "OfflineHonored",
        "HostSuitable",
    ]


def test_round_of_probes_changes_nothing_that_is_written() -> None:
    """Targets are listed by name, not in firing order: else every probe would be a write to the API server."""
    before = view(interface("nic0", probers=(prober(targets=("198.18.0.1", "198.18.0.2"), sent=1),)))
    after = view(interface("nic0", probers=(prober(targets=("198.18.0.2", "198.18.0.1"), sent=2, answered=1),)))
    assert status.build(before, now=WALL) == status.build(after, now=WALL)


def test_transition_time_stays_while_the_status_stays() -> None:
    fine, broken = view(interface("nic0"), interface("nic1")), view(interface("nic0"), failed("nic1"))
    first = status.build(fine, now=WALL).conditions
    second = status.build(broken, now=WALL + 60, previous=first).conditions
    times = {c.type: c.last_transition_time for c in second}
    assert times["Ready"] == datetime.fromtimestamp(WALL, UTC)
    assert times["Degraded"] == datetime.fromtimestamp(WALL + 60, UTC)


OK = interface("nic0", probers=(PROBED,))
OFFLINE = interface(
    "nic1", active=False, usable=False, offline=True, state=InterfaceWord.OFFLINE, reason=Reason.OFFLINE
)


@pytest.mark.parametrize(
    ("picture", "kind", "expected"),
    [
        (view(OK), "Programmed", ("True", "Configured", "the kernel is as the group wants it")),
        (view(OK), "Ready", ("True", "GroupOk", "1 of 1 interfaces are usable")),
        (view(OK), "Degraded", ("False", "GroupOk", "every interface is usable")),
        (view(OK), "InterfacesConsistent", ("True", "Configured", "the interfaces fit together")),
        (view(OK), "ProbesEnabled", ("True", "TargetsFound", "every interface is probed")),
        (view(OK), "OfflineHonored", ("True", "Configured", "every interface of spec.offline is out of use")),
        (view(OK), "HostSuitable", ("True", "Configured", "nothing on the host stands in the group's way")),
        (view(OK, ready=False), "Programmed", ("False", "KernelRefused", status.NOT_PROGRAMMED)),
        (view(OK, ready=False), "Ready", ("False", "KernelRefused", status.NOT_PROGRAMMED)),
        (
            view(OK, addresses=[address("198.18.0.9/32", None, refusal=Reason.ADDRESS_CONFLICT, detail="02:… has it")]),
            "Programmed",
            ("False", "AddressConflict", "198.18.0.9/32: 02:… has it"),
        ),
        (
            view(OK, findings=(Finding(Reason.SETTINGS_OVERRIDDEN, "conf/all/arp_ignore is 2: set it to 0"),)),
            "Programmed",
            ("False", "SettingsOverridden", "conf/all/arp_ignore is 2: set it to 0"),
        ),
        (view(OK, failed("nic1")), "Degraded", ("True", "GroupDegraded", "nic1: LinkDown")),
        (view(OK, OFFLINE), "Degraded", ("True", "GroupDegraded", "nic1: Offline")),
        (view(failed("nic1")), "Ready", ("False", "GroupFailed", "all interfaces are unusable")),
        (view(failed("nic1")), "Degraded", ("True", "GroupFailed", "nic1: LinkDown")),
        (view(OK, standby("nic1")), "Degraded", ("False", "GroupOk", "every interface is usable")),
        (
            view(OK, failed("nic1", Reason.BOND_MEMBER, refusal=Reason.BOND_MEMBER, present=False)),
            "InterfacesConsistent",
            ("False", "BondMember", "nic1 cannot be a member: BondMember"),
        ),
        (
            view(OK, failed("nic1", Reason.INTERFACE_MISSING, present=False, index=None, mac=None)),
            "InterfacesConsistent",
            ("False", "InterfaceMissing", "nic1 is not on this node"),
        ),
        (
            view(OK, interface("nic1", flags="------h", probers=(PROBED,))),
            "InterfacesConsistent",
            ("False", "DuplicateMAC", "nic1 is offline: another member has its MAC address"),
        ),
        (
            view(OK, interface("nic1", probe=ProbeWord.DISABLED, probers=(
                prober(Family.IPV4, mode=TargetMode.DISABLED, choice="no test address"),))),
            "ProbesEnabled",
            ("False", "NotJudged", "nic1: no test address"),
        ),
        (
            view(OK, interface("nic1", probe=ProbeWord.UNKNOWN)),
            "ProbesEnabled",
            ("False", "TargetsLost", "nic1 has no targets"),
        ),
    ],
)  # fmt: skip
def test_condition(picture: GroupView, kind: str, expected: tuple[str, str, str]) -> None:
    assert condition(picture, kind) == expected


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (Reason.MINIMUM_REDUNDANCY, "OfflineHonored"),
        (Reason.NOT_ONE_LINK, "InterfacesConsistent"),
        (Reason.FAMILY_MISSING, "InterfacesConsistent"),
        (Reason.TEST_ADDRESS_DUPLICATE, "ProbesEnabled"),
        (Reason.TEST_ADDRESS_MISSING, "ProbesEnabled"),
        (Reason.ADDRESS_CONFLICT, "Programmed"),
        (Reason.MASQUERADED, "HostSuitable"),
        (Reason.EGRESS_ADDRESS_MISSING, "HostSuitable"),
    ],
)
def test_finding_of_the_core_is_in_one_condition(reason: Reason, kind: str) -> None:
    picture = view(OK)
    object.__setattr__(picture.snapshot, "findings", (Finding(reason, "words", "nic0"),))
    holds = {c.type: c.status for c in status.build(picture, now=WALL).conditions if c.type != "Degraded"}
    assert [name for name, value in holds.items() if value == "False"] == [kind]
    assert condition(picture, kind) == ("False", reason.value, "words")


HASH = Finding(Reason.MULTIPATH_HASH_POLICY, "the hash policy is 0: set it to 1")
TUNNEL = Finding(Reason.TUNNEL_PINNED, "over1 is pinned to nic0")


def test_advice_leaves_the_host_suitable_and_is_said() -> None:
    found = condition(view(OK, findings=(HASH,)), "HostSuitable")
    words = "nothing on the host stands in the group's way; advice: the hash policy is 0: set it to 1"
    assert found == ("True", "MultipathHashPolicy", words)


def test_obstacle_is_said_before_advice() -> None:
    found = condition(view(OK, findings=(HASH, TUNNEL)), "HostSuitable")
    assert found == ("False", "TunnelPinned", "over1 is pinned to nic0; advice: the hash policy is 0: set it to 1")


def test_endless_message_is_cut() -> None:
    many = [failed(f"nic{n}", name="x" * 100) for n in range(16)]
    message = condition(view(OK, *many), "Degraded")[2]
    assert len(message) == 1024
    assert message.endswith("…")
