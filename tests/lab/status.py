"""What the agent publishes, brought into the form in which the invariants are stated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.invariants import GroupView, MemberView

if TYPE_CHECKING:
    from collections.abc import Mapping


def group_status(publication: Mapping[str, Any], name: str = "lab") -> dict[str, Any]:
    """Return the snapshot of one group."""
    snapshots = [one["snapshot"] for one in publication["groups"]]
    found: dict[str, Any] | None = next((one for one in snapshots if one["group"] == name), None)
    if found is None:
        raise AssertionError(f"no group {name} among {[one['group'] for one in snapshots]}")
    return found


def interface_status(publication: Mapping[str, Any], key: str, name: str = "lab") -> dict[str, Any]:
    """Return one member of a group by the value it is matched by."""
    interfaces = group_status(publication, name)["interfaces"]
    found: dict[str, Any] = next(one for one in interfaces if one["interface"] == key)
    return found


def all_heard(publication: Mapping[str, Any], name: str = "lab") -> bool:
    """Whether every member has had an answer: until then losses are ignored for the 40 s of the quiet period."""
    members = group_status(publication, name)["interfaces"]
    return all(any(prober["answered"] for prober in member["probers"]) for member in members)


def targets_heard(publication: Mapping[str, Any], name: str = "lab") -> bool:
    """Whether every target has answered every member: one that is silent from the start is asked by ARP."""
    probers = [prober for one in group_status(publication, name)["interfaces"] for prober in one["probers"]]
    targets = [target for prober in probers for target in prober["targets"] if target["state"] == "active"]
    return bool(targets) and all(target["crtt"] > 0 for target in targets)


def group_view(publication: Mapping[str, Any], name: str = "lab") -> GroupView:
    """Return one group as the invariants see it; addresses that the agent refused are not among them."""
    group = group_status(publication, name)
    names = {one["interface"]: one["name"] for one in group["interfaces"]}
    members = tuple(
        MemberView(one["name"], usable=one["usable"], active=one["active"], standby=one["role"] == "Standby")
        for one in group["interfaces"]
    )
    addresses = {
        one["address"].partition("/")[0]: names.get(one["interface"])
        for one in group["addresses"]
        if one["refusal"] is None
    }
    return GroupView(group["group"], group["state"], members, addresses)
