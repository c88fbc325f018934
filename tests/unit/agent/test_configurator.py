"""Groups that come, change, go, and come back after a restart: over the real core and the fake kernel."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core.actions import MoveAddresses, SetOutbound
from ipmp_agent.core.events import InterfaceVanished, KernelRead, LinkChanged, StateRestored
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.words import GroupState, InterfaceWord
from ipmp_agent.dataplane.configurator import RETRY_MINIMUM
from ipmp_agent.dataplane.loop import SECURING
from ipmp_agent.disk import state
from ipmp_agent.disk.state import SavedState
from ipmp_agent.disk.writer import StateWriter
from ipmp_api.types import Mode, ProbeMethod
from tests.unit.agent.building import Rig, ScriptedCore, unprobed_group

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from ipmp_api.types import NodeGroup

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

BOTH = {"198.18.0.100": "nic0", "198.18.0.101": "nic1"}


async def running(**options: object) -> Rig:
    rig = Rig()
    assert await rig.apply(unprobed_group(**options))  # type: ignore[arg-type]
    return rig


def down(rig: Rig, interface: str) -> None:
    rig.plane.submit(rig.plane.groups["lab"], LinkChanged(interface, up=False))


def pending(rig: Rig) -> tuple[str, ...]:
    return rig.plane.publication.pending


async def test_start_puts_each_address_on_one_member_and_moves_it_once() -> None:
    rig = await running()
    assert rig.holders == BOTH
    moves = [move for order in rig.kernel.orders(MoveAddresses) for move in order.moves]
    assert [move.reason for move in moves] == [Reason.ADDRESS_ADDED] * 2
    assert rig.plane.publication.configured
    assert rig.plane.publication.groups[0].ready


async def test_state_comes_first_and_what_the_kernel_says_is_held_until_all_is_read() -> None:
    core = ScriptedCore()
    rig = Rig(core=core)
    await rig.apply(unprobed_group())
    assert core.events[0] == StateRestored(())
    assert core.events[-1] == KernelRead()
    assert len({time for _, _, time in core.asked}) == 1


async def test_failure_during_a_change_of_configuration_is_not_held_up() -> None:
    rig = await running()
    entered, leave = asyncio.Event(), asyncio.Event()
    configure = rig.kernel.configure

    async def slow(group: NodeGroup, memory: Any, secure: Any) -> None:
        entered.set()
        await leave.wait()
        await configure(group, memory, secure)

    rig.kernel.configure = slow  # type: ignore[method-assign]
    changing = asyncio.create_task(rig.apply(unprobed_group(addresses=("198.18.0.100/24",))))
    await entered.wait()
    down(rig, "nic0")
    assert rig.holders == {"198.18.0.100": "nic1"}
    leave.set()
    assert await changing


@pytest.mark.parametrize("fails", [False, True])
async def test_group_that_only_observed_has_its_orders_carried_out_when_it_is_to_manage(fails: bool) -> None:
    manage = unprobed_group(interfaces=("nic0", "nic1", "nic2"), addresses=("198.18.0.100/24", "198.18.0.101/24"))
    rig = Rig()
    observe = unprobed_group()
    await rig.apply(observe.in_mode(Mode.OBSERVE))
    if fails:
        rig.kernel.faults["configure"] = [OSError(11, "dump interrupted 5 times")]
        assert not await rig.apply(manage)
    assert await rig.apply(manage)
    assert rig.holders == BOTH
    assert rig.kernel.orders(SetOutbound)[-1].ipv4 == ("nic0", "nic1", "nic2")
    assert rig.plane.groups["lab"].configuration == manage


async def test_removed_address_leaves_and_the_other_stays_where_it_is() -> None:
    rig = await running()
    rig.kernel.performed.clear()
    await rig.apply(unprobed_group(addresses=("198.18.0.101/24",)))
    assert rig.holders == {"198.18.0.101": "nic1"}


async def test_same_configuration_again_changes_nothing() -> None:
    rig = await running()
    rig.kernel.calls.clear()
    rig.kernel.performed.clear()
    assert await rig.apply(unprobed_group())
    assert rig.kernel.calls == []
    assert rig.kernel.performed == []


async def test_group_that_observed_and_is_to_manage_puts_its_addresses_into_place() -> None:
    observing = unprobed_group().in_mode(Mode.OBSERVE)
    rig = Rig()
    assert await rig.apply(observing)
    assert rig.holders == {}
    rig.kernel.faults["configure"] = [OSError("busy")]
    assert not await rig.apply(unprobed_group())
    assert await rig.apply(unprobed_group())
    assert rig.holders == BOTH
    down(rig, "nic0")
    assert rig.holders == dict.fromkeys(BOTH, "nic1")


async def test_group_that_is_no_longer_wanted_is_withdrawn() -> None:
    rig = await running()
    assert await rig.apply()
    assert rig.kernel.groups == {}
    assert rig.plane.groups == {}
    assert rig.plane.publication.groups == ()
    assert rig.plane.publication.pending == ()
    await asyncio.sleep(1)
    assert rig.saved[-1] == SavedState()


async def test_group_waits_for_one_that_cannot_be_withdrawn_from_the_same_interfaces() -> None:
    rig = await running()
    rig.kernel.faults["withdraw"] = [OSError(11, "dump interrupted")]
    rig.kernel.calls.clear()
    assert not await rig.apply(unprobed_group("next"), unprobed_group("other", interfaces=("nic2",)))
    assert ("configure", "next") not in rig.kernel.calls
    assert ("configure", "other") in rig.kernel.calls
    assert await rig.apply(unprobed_group("next"), unprobed_group("other", interfaces=("nic2",)))
    assert rig.kernel.calls.index(("withdraw", "lab")) < rig.kernel.calls.index(("configure", "next"))
    assert list(rig.plane.groups) == ["other", "next"]


async def test_restart_takes_over_without_moving_anything() -> None:
    first = await running()
    down(first, "nic0")
    before = first.holders
    first.plane.stop()
    again = Rig(first.saved[-1])
    again.kernel.interfaces["lab"] = ()
    await again.apply(unprobed_group())
    assert again.holders == before
    assert again.kernel.orders(MoveAddresses) == []


async def test_restart_remembers_who_had_failed() -> None:
    first = await running()
    down(first, "nic0")
    first.plane.stop()
    state = first.saved[-1]
    core = ScriptedCore()
    again = Rig(state, core=core)
    await again.apply(unprobed_group())
    restored = core.events[0]
    assert isinstance(restored, StateRestored)
    assert {i.interface: (i.failed, i.reason) for i in restored.interfaces} == {
        "nic0": (True, Reason.LINK_DOWN),
        "nic1": (False, None),
    }


async def test_restart_withdraws_what_is_no_longer_wanted() -> None:
    first = await running()
    first.plane.stop()
    again = Rig(first.saved[-1])
    assert await again.apply(unprobed_group("other", interfaces=("x0", "x1")))
    assert ("configure", "lab") in again.kernel.calls
    assert ("withdraw", "lab") in again.kernel.calls
    assert set(again.kernel.groups) == {"other"}


async def test_group_that_cannot_be_withdrawn_stays_in_the_state_file_and_is_tried_again() -> None:
    rig = await running()
    rig.kernel.faults["withdraw"] = [OSError(16, "Device or resource busy")]
    applying = asyncio.create_task(rig.configurator.run())
    rig.configurator.want(())
    await asyncio.sleep(RETRY_MINIMUM / 2)
    assert pending(rig) == ("lab",)
    assert set(rig.saved[-1].groups) == {"lab"}
    await asyncio.sleep(RETRY_MINIMUM)
    assert pending(rig) == ()
    assert rig.saved[-1] == SavedState()
    applying.cancel()


async def test_group_that_cannot_be_configured_stops_no_other_and_is_tried_again() -> None:
    rig = Rig()
    rig.kernel.faults["configure"] = [OSError(1, "Operation not permitted")] * 2
    working = asyncio.create_task(rig.configurator.run())
    rig.configurator.want(
        (unprobed_group("a", interfaces=("a0",)), unprobed_group("b", interfaces=("b0",)), unprobed_group())
    )
    await asyncio.sleep(0.1)
    assert set(rig.plane.groups) == {"lab"}
    assert rig.plane.measurements.errors["configure"] == 2
    await asyncio.sleep(RETRY_MINIMUM)
    assert set(rig.plane.groups) == {"a", "b", "lab"}
    working.cancel()


async def test_newest_configuration_wins() -> None:
    rig = Rig()
    working = asyncio.create_task(rig.configurator.run())
    rig.configurator.want((unprobed_group("old", interfaces=("o0",)),))
    rig.configurator.want((unprobed_group(),))
    await asyncio.sleep(0.1)
    assert set(rig.plane.groups) == {"lab"}
    assert ("configure", "old") not in rig.kernel.calls
    working.cancel()


async def test_nothing_is_done_after_the_stop() -> None:
    """The kernel's side may tell of something until it is closed, and nobody may ask it for replies after that."""
    rig = await running(targets=("198.18.0.1",), method=ProbeMethod.ICMP)
    rig.plane.stop()
    rig.kernel.calls.clear()
    rig.plane.sink("lab", LinkChanged("nic0", up=False))
    await asyncio.sleep(60)
    assert rig.holders == BOTH
    assert rig.kernel.calls == []


async def test_stop_before_anything_was_applied_keeps_the_old_state() -> None:
    first = await running()
    first.plane.stop()
    again = Rig(first.saved[-1])
    again.plane.stop()
    assert again.saved == []


async def test_stop_right_after_the_first_of_two_groups_was_taken_over_saves_it() -> None:
    rig = Rig()
    two, arrived = unprobed_group("two", interfaces=("b0", "b1"), addresses=()), asyncio.Event()
    configure = rig.kernel.configure

    async def slow(group: NodeGroup, memory: Any, secure: Any) -> None:
        if group is two:
            arrived.set()
            await asyncio.sleep(3600)
        await configure(group, memory, secure)

    rig.kernel.configure = slow  # type: ignore[method-assign]
    applying = asyncio.create_task(rig.apply(unprobed_group(), two))
    await arrived.wait()
    applying.cancel()
    await asyncio.wait((applying,))
    rig.plane.stop()
    assert [member.interface for member in rig.saved[-1].groups["lab"].interfaces] == ["nic0", "nic1"]


async def test_stop_while_a_group_is_being_taken_over_keeps_what_was_saved_of_it() -> None:
    first = Rig()
    await first.apply(unprobed_group(), unprobed_group("b", interfaces=("b0", "b1"), addresses=()))
    first.plane.stop()
    again = Rig(first.saved[-1])
    configure = again.kernel.configure

    async def slow(group: NodeGroup, memory: Any, secure: Any) -> None:
        if group.group_name == "b":
            await asyncio.sleep(3600)
        await configure(group, memory, secure)

    again.kernel.configure = slow  # type: ignore[method-assign]
    working = asyncio.create_task(again.configurator.run())
    again.configurator.want((unprobed_group(), unprobed_group("b", interfaces=("b0", "b1"), addresses=())))
    await asyncio.sleep(10)
    assert set(again.saved[-1].groups) == {"lab", "b"}
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    assert set(again.plane._unfinished.groups) == {"b"}


async def test_offline_moves_addresses_away_and_online_brings_them_back() -> None:
    rig = await running()
    assert rig.configurator.take_offline("nic0", None, force=False) == "nic0 of group lab is offline"
    assert set(rig.holders.values()) == {"nic1"}
    with pytest.raises(ValueError, match="already offline"):
        rig.configurator.take_offline("nic0", "lab", force=False)
    assert rig.configurator.bring_online("nic0", "lab") == "nic0 of group lab is online"
    assert sorted(rig.holders.values()) == ["nic0", "nic1"]
    with pytest.raises(ValueError, match="not offline"):
        rig.configurator.bring_online("nic0", None)


async def test_absent_interface_is_taken_offline_and_brought_online_like_any_other() -> None:
    rig = await running()
    rig.plane.submit(rig.plane.groups["lab"], InterfaceVanished("nic0"))
    told = rig.configurator.take_offline("nic0", None, force=False)
    assert told == "nic0 is kept offline as soon as it is here"
    with pytest.raises(ValueError, match="already offline"):
        rig.configurator.take_offline("nic0", None, force=False)
    assert rig.configurator.bring_online("nic0", None) == "nic0 is not kept offline any more, and is not here"
    with pytest.raises(ValueError, match="not offline"):
        rig.configurator.bring_online("nic0", None)


async def test_last_usable_interface_stays_online_unless_forced() -> None:
    rig = await running()
    down(rig, "nic0")
    before = rig.holders
    with pytest.raises(ValueError, match="no other interface of the group works"):
        rig.configurator.take_offline("nic1", None, force=False)
    assert rig.holders == before
    rig.configurator.take_offline("nic1", None, force=True)
    assert rig.plane.publish().groups[0].snapshot.state is GroupState.FAILED


@pytest.mark.parametrize(
    ("interface", "group", "words"),
    [("nic9", None, "nic9 is not in any group"), ("nic0", "x", "no group x here; there is: lab"), ("x", "lab", "x is")],
)
async def test_unknown_interface_or_group_is_named(interface: str, group: str | None, words: str) -> None:
    rig = await running()
    with pytest.raises(ValueError, match=words):
        rig.configurator.take_offline(interface, group, force=False)


async def test_spec_offline_is_obeyed_and_not_undone_by_hand() -> None:
    rig = await running()
    rig.kernel.calls.clear()
    assert await rig.apply(unprobed_group(offline=("nic0",)))
    assert rig.kernel.calls == [], "an interface under maintenance is no new configuration of the kernel"
    assert set(rig.holders.values()) == {"nic1"}
    with pytest.raises(ValueError, match=r"spec\.offline of the IPMPNodeGroup lab\.node1: remove it there"):
        rig.configurator.bring_online("nic0", None)
    await rig.apply(unprobed_group())
    assert sorted(rig.holders.values()) == ["nic0", "nic1"]


async def test_refused_spec_offline_is_a_finding() -> None:
    rig = await running()
    down(rig, "nic1")
    await rig.apply(unprobed_group(offline=("nic0",)))
    assert set(rig.holders.values()) == {"nic0"}
    findings = rig.plane.publish().groups[0].snapshot.findings
    assert [(each.interface, each.reason) for each in findings] == [("nic0", Reason.MINIMUM_REDUNDANCY)]


async def test_failure_moves_addresses_counts_and_remembers() -> None:
    rig = await running()
    down(rig, "nic0")
    assert set(rig.holders.values()) == {"nic1"}
    assert rig.kernel.orders(SetOutbound)[-1] == SetOutbound(("nic1",), ("nic1",))
    view = rig.plane.publication.groups[0]
    assert view.snapshot.state is GroupState.DEGRADED
    assert view.snapshot.interfaces[0].state is InterfaceWord.FAILED
    assert [(f.source, f.destination, f.reason) for f in view.history] == [("nic0", "nic1", Reason.LINK_DOWN)]
    counters = rig.plane.measurements.groups["lab"]
    assert counters.failures["nic0", Reason.LINK_DOWN] == 1
    assert counters.failures["nic1", Reason.LINK_DOWN] == 0
    assert {o.reason for o in rig.watcher.occurrences} >= {Reason.LINK_DOWN, Reason.GROUP_DEGRADED}


async def test_changed_member_list_starts_its_counters_at_zero() -> None:
    rig = await running()
    await rig.apply(replace(unprobed_group(interfaces=("nic0", "nic1", "nic2"))))
    assert rig.plane.measurements.groups["lab"].failures["nic2", Reason.LINK_DOWN] == 0


async def test_memory_is_saved_before_a_group_changes_the_kernel() -> None:
    rig = Rig()
    saved: list[bool] = []
    rig.kernel.refuse = lambda group, _: saved.append(
        bool(rig.saved) and rig.saved[-1].groups[group].kernel is not None
    )
    await rig.apply(unprobed_group())
    assert saved
    assert all(saved)


async def test_memory_that_is_saved_later_does_not_make_a_running_group_one_to_be_taken_over() -> None:
    rig = Rig()
    later = []
    configure = rig.kernel.configure

    async def noted(group: NodeGroup, memory: Any, secure: Callable[[], Awaitable[bool]]) -> None:
        later.append(secure)
        await configure(group, memory, secure)

    rig.kernel.configure = noted  # type: ignore[method-assign]
    await rig.apply(unprobed_group())
    await later[0]()  # a route of the host came, and is kept in memory
    assert rig.saved[-1].groups["lab"].interfaces
    assert rig.plane.publish().pending == ()


async def test_a_disk_that_hangs_stops_no_group(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.plane.written = lambda _timeout: False
    assert await rig.apply(unprobed_group())
    assert set(rig.holders.values()) == {"nic0", "nic1"}
    assert "the disk takes nothing" in caplog.text


async def test_groups_do_not_wait_one_after_the_other_for_a_disk_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works, save = threading.Event(), state.save

    def hang(directory: Path, value: SavedState, instead_of: str | None = None) -> None:
        assert works.wait(30)
        save(directory, value, instead_of)

    monkeypatch.setattr(state, "save", hang)
    writer = StateWriter(tmp_path, lambda: None)
    rig = Rig()
    rig.plane._save, rig.plane.written = writer.put, writer.written
    groups = [unprobed_group(f"g{n}", interfaces=(f"nic{n}",), addresses=(f"198.18.0.{n}/24",)) for n in range(1, 11)]
    began = time.monotonic()
    assert await rig.apply(*groups)
    assert time.monotonic() - began < 5 * SECURING, "once, and not for each"
    assert len(rig.holders) == len(groups)
    rig.plane.save_now()
    works.set()
    assert writer.written(30)
    assert state.load(tmp_path).groups == rig.plane._unfinished.groups | {
        name: group.to_save(rig.kernel.memory(name)) for name, group in rig.plane.groups.items()
    }
    writer.close()
