"""A failure on purpose: what is found, moved and measured, and that it never costs what it is to prove."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ipmp_agent.core import events, timers
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.words import DrillKind, InterfaceWord
from ipmp_api.types import Mode, ProbeMethod
from tests.virtual_node import VirtualNode, numbered_group

if TYPE_CHECKING:
    from ipmp_agent.core.drill import DrillSnapshot

KINDS = tuple(DrillKind)
BOTH = pytest.mark.parametrize("kind", KINDS)


def settled(active: int = 2, standby: int = 0, **fields: object) -> VirtualNode:
    node = VirtualNode(numbered_group(active, standby, **fields))  # type: ignore[arg-type]
    node.start()
    node.run(60)
    return node


def drill(node: VirtualNode, key: str = "nic0", kind: DrillKind = DrillKind.LINK, seconds: float = 5.0) -> None:
    node.tell(events.DrillRequested(key, kind, seconds))


def result(node: VirtualNode) -> DrillSnapshot:
    found = node.snapshot().drill
    assert found is not None
    return found


@BOTH
def test_drill_is_found_as_a_failure_moves_addresses_and_gives_them_back(kind: DrillKind) -> None:
    node = settled()
    before = {key: node.held_by(key) for key in ("nic0", "nic1")}
    drill(node, kind=kind)
    node.run(4)
    assert node.interface("nic0").state is InterfaceWord.FAILED
    assert node.held_by("nic1") == [1, 2]
    node.run(30)
    assert {key: node.held_by(key) for key in before} == before
    found = result(node)
    assert found.over
    assert found.faults == ()
    assert found.failed is not None
    assert found.failed <= (0.0 if kind is DrillKind.LINK else 1.0)
    assert found.moved == found.failed
    assert found.proven is not None
    assert found.proven - found.failed < 0.5
    assert found.ended == pytest.approx(5.0)
    assert found.repaired is not None
    assert found.ended <= found.repaired <= found.returned <= found.ended + 5  # type: ignore[operator]


@BOTH
def test_drill_is_told_and_in_the_history(kind: DrillKind) -> None:
    node = settled()
    drill(node, kind=kind)
    node.run(30)
    assert {move.reason for _, move in node.failovers if move.source == "nic0"} == {Reason.DRILL}
    assert node.told(Reason.DRILL) == [
        f"drill: nic0 is treated as failed ({kind.value}) for 5 s",
        "drill: nic0 is treated as it is again",
    ]


@BOTH
def test_failure_of_the_other_member_ends_a_drill_at_once(kind: DrillKind) -> None:
    node = settled()
    drill(node, kind=kind, seconds=60)
    node.run(4)
    assert node.held_by("nic1") == [1, 2]
    node.link("nic1", up=False)
    assert node.held_by("nic0") == [1, 2]
    assert node.interface("nic0").state is InterfaceWord.OK
    assert "no other interface works" in result(node).aborted
    assert result(node).over


@BOTH
def test_silence_of_the_other_member_ends_a_drill(kind: DrillKind) -> None:
    node = settled()
    drill(node, kind=kind, seconds=60)
    node.run(4)
    node.silence("nic1")
    node.run(5)
    assert node.held_by("nic0") == [1, 2]
    assert result(node).aborted


def test_real_failure_under_a_drill_is_found_when_it_ends() -> None:
    node = settled()
    drill(node, seconds=5)
    node.run(1)
    node.link("nic0", up=False)
    node.run(10)
    assert node.interface("nic0").state is InterfaceWord.FAILED
    assert node.held_by("nic1") == [1, 2]
    node.run(timers.DRILL_RETURN)
    assert any("not used again" in fault for fault in result(node).faults)
    node.link("nic0", up=True)
    node.run(20)
    assert node.interface("nic0").state is InterfaceWord.OK


def test_drills_do_not_count_as_flapping() -> None:
    node = settled(pins=(), probe_method=ProbeMethod.DISABLED)
    for _ in range(timers.LINK_UPS_PERMITTED + 2):
        drill(node, seconds=1)
        node.run(3)
        assert result(node).faults == () or result(node).faults == (
            "no probe of the interfaces that took over was answered after the move",
        )
        assert node.interface("nic0").state is InterfaceWord.OK
    assert node.told(Reason.LINK_FLAPPING) == []


@BOTH
def test_a_member_that_nobody_has_an_address_left_for_is_used_again(kind: DrillKind) -> None:
    node = settled(3)
    assert [len(node.held_by(key)) for key in ("nic0", "nic1", "nic2")] == [1, 1, 0]
    drill(node, kind=kind)
    node.run(30)
    assert [len(node.held_by(key)) for key in ("nic0", "nic1", "nic2")] == [0, 1, 1]
    assert result(node).faults == ()
    assert result(node).over


@pytest.mark.parametrize("seed", range(20))
def test_a_drill_right_after_others_were_offline_passes(seed: int) -> None:
    pick = random.Random(seed)
    active, standby = pick.choice([(2, 0), (2, 1), (3, 0), (3, 1)])
    node = settled(active, standby)
    for _ in range(pick.randint(1, 4)):
        key = f"nic{pick.randrange(active)}"
        node.offline(key)
        node.run(pick.choice([0, 0.5, 2, 5, 20]))
        node.online(key)
        node.run(pick.choice([0.2, 1, 3, 10]))
    drill(node, f"nic{pick.randrange(active)}", pick.choice(KINDS))
    node.run(timers.DRILL_RETURN + 10)
    assert result(node).faults == ()


@pytest.mark.parametrize("standby", [0, 1])
def test_without_redundancy_there_is_no_drill(standby: int) -> None:
    node = settled(1 if standby else 2, standby)
    node.link("nic1", up=False)
    drill(node)
    assert node.snapshot().drill is None
    assert node.interface("nic0").state is InterfaceWord.OK
    assert "no other interface of the group works" in node.told(Reason.DRILL)[0]


def test_with_something_failed_there_is_no_drill() -> None:
    node = settled(3)
    node.link("nic2", up=False)
    drill(node)
    assert "nic2 failed: repair that first" in node.told(Reason.DRILL)[0]
    drill(node, "nic2")
    assert "it is failed already" in node.told(Reason.DRILL)[1]
    assert node.snapshot().drill is None


def test_silence_that_nobody_would_find_is_not_drilled() -> None:
    node = settled(pins=(), probe_method=ProbeMethod.DISABLED)
    drill(node, kind=DrillKind.SILENT)
    assert "not probed" in node.told(Reason.DRILL)[0]


def test_group_that_only_observes_is_not_drilled() -> None:
    node = settled(mode=Mode.OBSERVE)
    drill(node)
    assert "observes only" in node.told(Reason.DRILL)[0]


def test_one_drill_at_a_time() -> None:
    node = settled(3)
    drill(node)
    drill(node, "nic1")
    assert "not over yet" in node.told(Reason.DRILL)[1]
    assert result(node).interface == "nic0"


@BOTH
def test_change_of_configuration_ends_a_drill(kind: DrillKind) -> None:
    node = settled()
    drill(node, kind=kind, seconds=60)
    node.run(4)
    node.configure(replace(node.configuration, offline=()))
    assert result(node).aborted == "the configuration has changed"
    node.run(5)
    assert node.interface("nic0").state is InterfaceWord.OK


@BOTH
def test_member_that_goes_ends_its_drill(kind: DrillKind) -> None:
    node = settled()
    drill(node, kind=kind, seconds=60)
    node.run(2)
    node.remove("nic0")
    node.run(1)
    assert result(node).over
    node.add("nic0")
    node.run(60)
    assert node.interface("nic0").state is InterfaceWord.OK


def test_member_that_leaves_the_group_after_its_drill_is_waited_for_no_longer_than_any() -> None:
    node = settled(3)
    node.silence("nic0")  # or it were back at once
    drill(node, seconds=2)
    node.run(3)
    node.configure(replace(node.configuration, members=node.configuration.members[1:]))
    node.run(timers.DRILL_RETURN + 1)
    assert result(node).over
    drill(node, "nic1")
    assert result(node).interface == "nic1"


@BOTH
def test_member_taken_offline_stays_offline(kind: DrillKind) -> None:
    node = settled()
    drill(node, kind=kind, seconds=60)
    node.run(4)
    node.offline("nic0")
    node.run(5)
    assert node.interface("nic0").state is InterfaceWord.OFFLINE
    assert result(node).over
    node.online("nic0")
    node.run(20)
    assert node.interface("nic0").state is InterfaceWord.OK


@BOTH
def test_agent_that_starts_again_takes_the_member_back(kind: DrillKind) -> None:
    node = settled()
    drill(node, kind=kind, seconds=300)
    node.run(4)
    assert node.interface("nic0").state is InterfaceWord.FAILED
    node.restart()
    node.run(30)
    assert node.snapshot().drill is None
    assert node.interface("nic0").state is InterfaceWord.OK
    assert node.held_by("nic0") != []


def test_standby_without_addresses_is_drilled_too() -> None:
    node = settled(1, 1)
    drill(node, "nic1")
    node.run(30)
    found = result(node)
    assert (found.addresses, found.moved, found.faults) == (0, None, ())
    assert found.over


def test_disabled_failback_keeps_the_member_in_reserve_and_passes() -> None:
    node = settled(failback=False)
    drill(node)
    node.run(30)
    assert result(node).over
    assert result(node).faults == ()


def test_addresses_that_moved_too_often_come_back_later_and_the_drill_passes() -> None:
    node = settled()
    for _ in range(timers.MOVE_BUDGET):
        drill(node, seconds=2)
        node.run(20)
        assert result(node).over
        assert result(node).faults == ()
    assert node.held_by("nic0") == []
    node.run(timers.MOVE_WINDOW)
    assert node.held_by("nic0") != []


def test_verdict_of_a_late_detection() -> None:
    node = settled()
    drill(node)
    node.run(30)
    late = replace(result(node), failed=2.5)
    assert any("was found after 2.50 s" in fault for fault in late.faults)
