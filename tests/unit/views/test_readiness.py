"""When a host has the addresses it can have, and what its service manager is told."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface
from typing import TYPE_CHECKING

import pytest

from ipmp_agent.core.reasons import Reason
from ipmp_agent.process.supervision import PATIENCE, Supervision
from ipmp_agent.views.readiness import awaited, summary
from ipmp_api.types import Mode
from tests.unit.views.pictures import address, failed, interface, publication, view

if TYPE_CHECKING:
    from ipmp_agent.publication import GroupView, Publication
    from ipmp_api.types import InterfaceAddress

ADDRESS = "198.18.0.100/24"
WORKING, BROKEN = interface("nic0"), failed("nic0")
BEGAN = 100.0


def observing(one: GroupView) -> GroupView:
    policies = replace(one.configuration.policies, mode=Mode.OBSERVE)
    return replace(one, configuration=replace(one.configuration, policies=policies))


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (publication(configured=False), "the first configuration is being applied"),
        (publication(), ""),
        (publication(view(WORKING, ready=False)), "group net is not in the kernel yet"),
        (publication(view(BROKEN, addresses=[address(ADDRESS, "nic0")])), "no interface of group net works yet"),
        (publication(view(WORKING, addresses=[address(ADDRESS, None)])), f"group net has not got {ADDRESS} yet"),
        (publication(view(WORKING, addresses=[address(ADDRESS, None, refusal=Reason.ADDRESS_CONFLICT)])), ""),
        (publication(view(WORKING, BROKEN, addresses=[address(ADDRESS, "nic0")])), ""),
        (publication(observing(view(BROKEN, addresses=[address(ADDRESS, None)]))), ""),
        (publication(view(WORKING), view(BROKEN, name="b")), "no interface of group b works yet"),
    ],
)
def test_what_is_awaited(shown: Publication, words: str) -> None:
    assert awaited(shown, lambda _group: ()) == words


def test_an_address_is_awaited_until_nobody_else_has_it() -> None:
    shown = publication(view(WORKING, addresses=[address(ADDRESS, "nic0")]))
    assert awaited(shown, lambda _group: (ip_interface(ADDRESS),)) == f"group net has not got {ADDRESS} yet"


def test_summary_names_groups_and_what_does_not_work() -> None:
    assert summary(publication()) == "no group"
    both = publication(view(WORKING, failed("nic1")), view(WORKING, name="b"))
    assert summary(both) == "net degraded (nic1 failed); b ok"


class Manager:
    """A service manager that takes what it is told, or does not."""

    def __init__(self, watchdog: float | None = 8.0) -> None:
        self.watchdog = watchdog
        self.takes = True
        self.told: list[str] = []

    def tell(self, *assignments: str) -> bool:
        if self.takes:
            self.told += assignments
        return self.takes

    def reloading(self) -> bool:
        return self.tell("RELOADING=1")

    def taken(self) -> list[str]:
        told, self.told = self.told, []
        return told


def supervised() -> tuple[Manager, Supervision, list[InterfaceAddress]]:
    manager = Manager()
    arriving: list[InterfaceAddress] = []
    return manager, Supervision(manager, lambda _group: arriving, BEGAN), arriving  # type: ignore[arg-type]


def at(seconds: float, *views: GroupView) -> Publication:
    return publication(*views, monotonic=BEGAN + seconds)


def test_ready_comes_with_the_addresses_and_once() -> None:
    manager, supervision, arriving = supervised()
    arriving.append(ip_interface(ADDRESS))
    supervision.published(at(0.1, view(WORKING)))
    assert manager.taken() == [f"STATUS=waiting: group net has not got {ADDRESS} yet"]
    arriving.clear()
    supervision.published(at(0.2, view(WORKING)))
    assert manager.taken() == ["READY=1", "STATUS=net ok"]
    supervision.published(at(0.3, view(WORKING)))
    assert manager.taken() == []
    supervision.published(at(0.4, view(BROKEN)))
    assert manager.taken() == ["STATUS=net failed (nic0 failed)"], "a failure later is no matter of being ready"


def test_a_boot_does_not_wait_for_a_cable_for_ever() -> None:
    manager, supervision, _ = supervised()
    supervision.published(at(PATIENCE - 0.1, view(BROKEN)))
    assert "READY=1" not in manager.taken()
    supervision.published(at(PATIENCE, view(BROKEN)))
    assert "READY=1" in manager.taken()


def test_the_watchdog_hears_of_the_loop_often_enough_and_not_more() -> None:
    manager, supervision, _ = supervised()
    said = []
    for number in range(81):
        supervision.published(at(number / 10, view(WORKING)))
        said += ["WATCHDOG=1"] * manager.taken().count("WATCHDOG=1")
    assert len(said) == 4, "8 s, and a word each 2 s"


def test_what_was_not_taken_is_said_again() -> None:
    manager, supervision, _ = supervised()
    manager.takes = False
    supervision.published(at(5, view(WORKING)))
    manager.takes = True
    supervision.published(at(6, view(WORKING)))
    assert manager.taken() == ["READY=1", "STATUS=net ok", "WATCHDOG=1"]


def test_a_reload_is_told_from_its_begin_to_its_end() -> None:
    manager, supervision, _ = supervised()
    supervision.reloading()
    supervision.reloaded()
    assert manager.taken() == [], "not before it is ready"
    supervision.published(at(0, view(WORKING)))
    manager.taken()
    for step in (supervision.reloading, supervision.reloading, supervision.reloaded):
        step()
    assert manager.taken() == ["RELOADING=1", "RELOADING=1"]
    supervision.reloaded()
    assert manager.taken() == ["READY=1"]


def test_nothing_is_said_after_the_end() -> None:
    manager, supervision, _ = supervised()
    supervision.published(at(0, view(WORKING)))
    supervision.reloading()
    manager.taken()
    supervision.stopping()
    assert manager.taken()[0] == "STOPPING=1"
    supervision.reloaded()
    supervision.published(at(9, view(BROKEN)))
    assert manager.taken() == []
