"""Each invariant accepts what is right and refuses, by name, what is not."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from tests import invariants
from tests.invariants import GroupView, MemberView, ViolatedError
from tests.lab.dump import KernelDump

if TYPE_CHECKING:
    from tests.lab import Lab

ADDRESS = "198.18.0.100"
OK = GroupView(
    "lab", "ok", (MemberView("nic0", usable=True, active=True), MemberView("nic1", usable=True, active=True)), {}
)


def member(name: str, *, usable: bool = True, active: bool = True, standby: bool = False) -> MemberView:
    return MemberView(name, usable=usable, active=active, standby=standby)


def group(*members: MemberView, on: str | None = "nic0") -> GroupView:
    return GroupView("lab", "ok", members, {ADDRESS: on})


def dump_with(lab: Lab, *interfaces: str) -> KernelDump:
    for interface in interfaces:
        lab.host.namespace.ip("address", "add", f"{ADDRESS}/32", "dev", interface)
    return KernelDump.take(lab.host.namespace.run)


def test_address_at_home_and_one_story_is_fine(lab: Lab) -> None:
    invariants.settled(group(member("nic0"), member("nic1")), dump_with(lab, "nic0"))


@pytest.mark.parametrize("interfaces", [(), ("nic0", "nic1")])
def test_address_on_none_or_two_members_is_refused(lab: Lab, interfaces: tuple[str, ...]) -> None:
    with pytest.raises(ViolatedError, match=rf"I1: {ADDRESS}"):
        invariants.every_address_has_one_home(group(member("nic0"), member("nic1")), dump_with(lab, *interfaces))


def test_address_on_a_dead_member_is_refused_while_another_works(lab: Lab) -> None:
    kernel = dump_with(lab, "nic0")
    broken = member("nic0", usable=False, active=False)
    with pytest.raises(ViolatedError, match="I1"):
        invariants.every_address_has_one_home(group(broken, member("nic1")), kernel)
    invariants.every_address_has_one_home(group(broken, dataclasses.replace(broken, name="nic1")), kernel)


def test_move_is_named_with_its_cause() -> None:
    with pytest.raises(ViolatedError, match="I2: moved by restart"):
        invariants.nothing_moved({ADDRESS: ("nic0",)}, {ADDRESS: ("nic1",)}, "restart")
    invariants.nothing_moved({ADDRESS: ("nic0",)}, {ADDRESS: ("nic0",)}, "restart")


@pytest.mark.parametrize(
    "members",
    [
        (member("nic0"), member("nic1", active=False)),
        (member("nic0"), member("nic1", standby=True)),
        (member("nic0", usable=False), member("nic1")),
        (member("nic0", standby=True, active=False), member("nic1", standby=True, active=False)),
    ],
    ids=["idle", "too many", "active but broken", "nobody"],
)
def test_wrong_number_active_is_refused(members: tuple[MemberView, ...]) -> None:
    with pytest.raises(ViolatedError, match="I3"):
        invariants.as_many_active_as_possible(group(*members))


def test_capacity_rule_holds_for_standbys() -> None:
    invariants.as_many_active_as_possible(group(member("nic0"), member("nic1", standby=True, active=False)))
    invariants.as_many_active_as_possible(group(member("a", usable=False, active=False), member("b", standby=True)))


def test_fifth_unforced_move_in_three_minutes_is_refused() -> None:
    invariants.budget_kept({ADDRESS: [0, 10, 20, 30, 181]})
    with pytest.raises(ViolatedError, match="I4"):
        invariants.budget_kept({ADDRESS: [0, 10, 20, 30, 40]})
    invariants.budget_kept({ADDRESS: [0, 10, 20, 30, 40]}, unforced={ADDRESS: [30]})


def test_difference_of_two_dumps_is_told(lab: Lab) -> None:
    namespace = lab.host.namespace
    before = KernelDump.take(namespace.run)
    invariants.as_it_was_found(before, KernelDump.take(namespace.run))
    lab.host.nic("nic0").unplug()
    lab.host.nic("nic0").plug()
    invariants.as_it_was_found(before, KernelDump.take(namespace.run))
    namespace.ip("address", "add", f"{ADDRESS}/24", "dev", "nic0")
    namespace.sysctl({"ipv4/conf/nic1/arp_ignore": 1})
    with pytest.raises(ViolatedError, match=rf"(?s)I5.*\+ addresses .*{ADDRESS}.*\+ routes.*nic1/arp_ignore=1"):
        invariants.as_it_was_found(before, KernelDump.take(namespace.run))


def test_status_that_the_kernel_does_not_confirm_is_refused(lab: Lab) -> None:
    kernel = dump_with(lab, "nic0")
    with pytest.raises(ViolatedError, match="I6"):
        invariants.one_story(group(member("nic0"), on="nic1"), kernel)
    with pytest.raises(ViolatedError, match="I6: two stories"):
        invariants.one_story(OK, kernel, [dataclasses.replace(OK, state="degraded")])


def test_traceback_in_a_log_is_shown() -> None:
    invariants.no_unhandled_exception("all is well\n")
    with pytest.raises(ViolatedError, match=r"(?s)I7.*KeyError"):
        invariants.no_unhandled_exception("fine\nTraceback (most recent call last):\n  x\nKeyError: 'nic0'\n")


def test_address_given_twice_is_found() -> None:
    assert invariants.duplicates([ADDRESS, "198.18.0.101", ADDRESS]) == [ADDRESS]
