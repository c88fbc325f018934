"""What `ipmpstat --json` says, brought into the form in which the invariants are stated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.invariants import GroupView, MemberView

if TYPE_CHECKING:
    from collections.abc import Mapping


def group_status(status: Mapping[str, Any], name: str = "lab") -> dict[str, Any]:
    """Return one group of a status."""
    found: dict[str, Any] = next(one for one in status["groups"] if one["group"] == name)
    return found


def interface_status(status: Mapping[str, Any], interface: str, name: str = "lab") -> dict[str, Any]:
    """Return one member of a group of a status."""
    interfaces = group_status(status, name)["interfaces"]
    found: dict[str, Any] = next(one for one in interfaces if one["interface"] == interface)
    return found


def group_view(status: Mapping[str, Any], name: str = "lab") -> GroupView:
    """Return one group as the invariants see it; addresses that the agent refused are not among them."""
    group = group_status(status, name)
    members = tuple(
        MemberView(one["name"], usable=one["usable"], active=one["active"], standby=one["role"] == "Standby")
        for one in group["interfaces"]
    )
    addresses = {
        one["address"].partition("/")[0]: one["interface"] for one in group["addresses"] if one["refusal"] is None
    }
    return GroupView(group["group"], group["state"], members, addresses)
