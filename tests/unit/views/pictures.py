"""Snapshots drawn by hand, for tests of what people see."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, Any

from ipmp_agent.core.actions import ProbeProtocol
from ipmp_agent.core.events import Family
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.snapshot import AddressSnapshot, GroupSnapshot, InterfaceSnapshot, ProberSnapshot, TargetSnapshot
from ipmp_agent.core.words import GroupState, InterfaceWord, LinkWord, ProbeWord, TargetMode, TargetState
from ipmp_agent.publication import GroupView, PastFailover, Publication
from ipmp_api.types import Role
from tests.unit.agent.building import WALL, unprobed_group

if TYPE_CHECKING:
    from collections.abc import Iterable


def prober(
    family: Family = Family.IPV4,
    *,
    mode: TargetMode = TargetMode.ROUTES,
    test_address: str | None = "198.18.0.11",
    targets: Iterable[str] = ("198.18.0.1",),
    dead: Iterable[str] = (),
    choice: str = "ICMP from the test address",
    **counts: int,
) -> ProberSnapshot:
    alive = tuple(TargetSnapshot(ip_address(t), TargetState.ACTIVE, 0.001) for t in targets)
    return ProberSnapshot(
        family=family,
        mode=mode,
        protocol=None if mode is TargetMode.DISABLED else ProbeProtocol.ICMP,
        choice=choice,
        test_address=ip_address(test_address) if test_address else None,
        targets=alive + tuple(TargetSnapshot(ip_address(t), TargetState.DEAD, 0.0) for t in dead),
        **{"sent": 0, "answered": 0, "lost": 0, "missed": 0, "not_sent": 0, "outstanding": 0, **counts},
    )


def interface(key: str, **changes: Any) -> InterfaceSnapshot:
    """A working, active NIC without probers, with changes."""
    picture: dict[str, Any] = {
        "interface": key,
        "name": key,
        "role": Role.ACTIVE,
        "present": True,
        "state": InterfaceWord.OK,
        "active": True,
        "inactive": False,
        "link": LinkWord.UP,
        "probe": ProbeWord.OK,
        "flags": "-------",
        "reason": Reason.INTERFACE_APPEARED,
        "since": 5.0,
        "usable": True,
        "refusal": None,
        "index": 2,
        "mac": "02:00:00:00:00:02",
        "speed_megabits": 25000,
        "failed": False,
        "offline": False,
        "probers": (),
    }
    return InterfaceSnapshot(**{**picture, **changes})


def failed(key: str, reason: Reason = Reason.LINK_DOWN, **changes: Any) -> InterfaceSnapshot:
    return interface(
        key,
        **{
            "state": InterfaceWord.FAILED,
            "active": False,
            "usable": False,
            "failed": True,
            "link": LinkWord.DOWN if reason is Reason.LINK_DOWN else LinkWord.UP,
            "probe": ProbeWord.FAILED,
            "reason": reason,
            **changes,
        },
    )


def standby(key: str, **changes: Any) -> InterfaceSnapshot:
    return interface(key, **{"role": Role.STANDBY, "active": False, "inactive": True, "flags": "is-----", **changes})


def address(text: str, holder: str | None, **changes: Any) -> AddressSnapshot:
    return AddressSnapshot(**{"address": ip_interface(text), "interface": holder, "refusal": None, **changes})


def view(
    *interfaces: InterfaceSnapshot,
    name: str = "net",
    addresses: Iterable[AddressSnapshot] = (),
    history: tuple[PastFailover, ...] = (),
    ready: bool = True,
    findings: Any = (),
    **changes: Any,
) -> GroupView:
    usable = [i.usable for i in interfaces]
    active = tuple(i.interface for i in interfaces if i.active)
    picture: dict[str, Any] = {
        "group": name,
        "state": GroupState.OK if all(usable) else GroupState.DEGRADED if any(usable) else GroupState.FAILED,
        "detection_time": 10.0,
        "detection_time_configured": 10.0,
        "probing": True,
        "interfaces": interfaces,
        "addresses": tuple(addresses),
        "outbound_ipv4": active,
        "outbound_ipv6": active,
        "nominee_ipv4": next(iter(active), None),
        "nominee_ipv6": next(iter(active), None),
        "findings": (),
    }
    return GroupView(
        configuration=unprobed_group(name, interfaces=[i.interface for i in interfaces] or ("nic0",)),
        snapshot=GroupSnapshot(**{**picture, **changes}),
        findings=findings,
        history=history,
        since={i.interface: WALL for i in interfaces},
        ready=ready,
    )


def publication(*views: GroupView, **changes: Any) -> Publication:
    return Publication(**{"monotonic": 100.0, "time": WALL, "groups": views, "configured": True, **changes})
