"""The loop: order, lateness, faults."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core.actions import (
    Announce,
    InterfaceVerdict,
    Move,
    MoveAddresses,
    Notify,
    ProbeClosed,
    ProbeProtocol,
    SendProbe,
    SetOutbound,
    Severity,
)
from ipmp_agent.core.events import Family, LinkChanged, ProbeAnswered, ProbeKind, SavedInterface, StateRestored
from ipmp_agent.core.reasons import Reason
from ipmp_agent.dataplane.loop import ERROR_PAUSE, REFRESH, SAVE_DELAY
from tests.unit.agent.building import WALL, Rig, ScriptedCore, unprobed_group

if TYPE_CHECKING:
    from ipmp_agent.dataplane.running import RunningGroup

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

ADDRESS = ip_interface("198.18.0.100/24")
MOVE = MoveAddresses((Move(ADDRESS, "nic0", "nic1", Reason.LINK_DOWN),))
ANNOUNCE = Announce("nic1", (ADDRESS,))
OUTBOUND = SetOutbound(("nic1",), ("nic1",))
TOLD = Notify(Reason.LINK_DOWN, "failure of nic0 detected", Severity.ERROR, "nic0")
TARGET = ip_address("198.18.0.1")
PROBE = SendProbe("nic0", Family.IPV4, TARGET, 7, ProbeKind.DETECTION, ProbeProtocol.ICMP)
ANSWER = ProbeAnswered("nic0", Family.IPV4, TARGET, 7, ProbeKind.DETECTION, rtt=0.002, network_rtt=0.001)
DOWN, UP = LinkChanged("nic0", up=False), LinkChanged("nic0", up=True)


async def scripted() -> tuple[Rig, ScriptedCore]:
    core = ScriptedCore()
    rig = Rig(core=core)
    assert await rig.apply(unprobed_group())
    core.asked.clear()
    rig.kernel.performed.clear()
    rig.kernel.calls.clear()
    return rig, core


def group_of(rig: Rig) -> RunningGroup:
    return rig.plane.groups["lab"]


async def test_orders_are_carried_out_in_order() -> None:
    rig, core = await scripted()
    core.on_event = lambda _: [MOVE, ANNOUNCE, OUTBOUND, TOLD]
    rig.plane.submit(group_of(rig), DOWN)
    assert [action for _, action in rig.kernel.performed] == [MOVE, ANNOUNCE, OUTBOUND]
    assert [o.message for o in rig.watcher.occurrences] == ["failure of nic0 detected"]


async def test_event_during_perform_waits_until_the_batch_is_done() -> None:
    rig, core = await scripted()
    core.on_event = lambda event: [MOVE, ANNOUNCE] if event == DOWN else [OUTBOUND]
    rig.kernel.interrupt = lambda group, action: rig.kernel.sink(group, UP) if action == MOVE else None
    rig.plane.submit(group_of(rig), DOWN)
    assert core.events == [DOWN, UP]
    assert [action for _, action in rig.kernel.performed] == [MOVE, ANNOUNCE, OUTBOUND]


async def test_sink_never_handles_at_once() -> None:
    rig, core = await scripted()
    rig.kernel.sink("lab", DOWN)
    assert core.events == []
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert core.events == [DOWN]


async def test_what_a_read_sinks_is_handled_when_the_read_is_done() -> None:
    rig, core = await scripted()
    seen: list[object] = []

    def read() -> None:
        rig.kernel.sink("lab", DOWN)
        rig.kernel.sink("lab", UP)
        seen.extend(core.events)

    rig.kernel.hear(read)
    assert seen == []
    assert core.events == [DOWN, UP]
    await asyncio.sleep(1)
    assert core.events == [DOWN, UP]


async def test_a_read_that_fails_loses_nothing_it_sank() -> None:
    rig, core = await scripted()

    def read() -> None:
        rig.kernel.sink("lab", DOWN)
        raise ValueError("not a message")

    with pytest.raises(ValueError, match="not a message"):
        rig.kernel.hear(read)
    assert core.events == [DOWN]


async def test_event_of_a_withdrawn_group_goes_nowhere() -> None:
    rig, core = await scripted()
    rig.kernel.sink("lab", DOWN)
    rig.plane.remove("lab")
    rig.kernel.sink("lab", UP)
    await asyncio.sleep(1)
    assert core.events == []


async def test_replies_are_drained_before_the_tick_judges() -> None:
    rig, core = await scripted()
    loop = asyncio.get_running_loop()
    core.deadline = loop.time() + 5
    rig.plane.submit(group_of(rig))
    rig.kernel.waiting.append(("lab", ANSWER))
    await asyncio.sleep(6)
    assert [kind for kind, _, _ in core.asked] == ["handle", "tick"]
    assert rig.kernel.calls == [("drain", "")]
    assert core.asked[1][2] == pytest.approx(5, abs=0.01)


@pytest.mark.parametrize("way", ["submit", "hear", "sink"])
async def test_nothing_but_a_wake_up_ticks_for_it_has_drained_the_replies(way: str) -> None:
    rig, core = await scripted()
    core.deadline = asyncio.get_running_loop().time() - 0.001
    rig.kernel.waiting.append(("lab", ANSWER))
    if way == "submit":
        rig.plane.submit(group_of(rig), DOWN)
    elif way == "hear":
        rig.kernel.hear(lambda: rig.kernel.sink("lab", DOWN))
    else:
        rig.kernel.sink("lab", DOWN)
    await asyncio.sleep(0.01)
    assert [(kind, event) for kind, event, _ in core.asked] == [("handle", DOWN), ("handle", ANSWER), ("tick", None)]


async def test_late_wake_up_is_measured_and_still_drains_first() -> None:
    rig, core = await scripted()
    core.deadline = asyncio.get_running_loop().time() - 3
    rig.kernel.waiting.append(("lab", ANSWER))
    rig.plane._wake(core.deadline)
    assert [kind for kind, _, _ in core.asked] == ["handle", "tick"]
    buckets, total = rig.plane.measurements.lag.cumulative()
    assert total == pytest.approx(3)
    assert dict(buckets)["1.0"] == 0
    assert dict(buckets)["5.0"] == 1


async def test_only_the_group_that_is_due_is_ticked() -> None:
    rig = Rig()
    cores = {"a": ScriptedCore(), "b": ScriptedCore()}
    rig.plane._make_core = lambda configuration, _: cores[configuration.group_name]
    await rig.apply(unprobed_group("a", interfaces=("a0", "a1")), unprobed_group("b", interfaces=("b0", "b1")))
    now = asyncio.get_running_loop().time()
    cores["a"].deadline, cores["b"].deadline = now + 1, now + 2
    rig.plane._arm()
    await asyncio.sleep(1.5)
    assert [kind for kind, _, _ in cores["a"].asked][-1] == "tick"
    assert all(kind == "handle" for kind, _, _ in cores["b"].asked)
    await asyncio.sleep(1)
    assert cores["b"].asked[-1][0] == "tick"


async def test_earlier_deadline_replaces_a_later_one() -> None:
    rig, core = await scripted()
    core.deadline = asyncio.get_running_loop().time() + 60
    rig.plane._arm()
    core.deadline = asyncio.get_running_loop().time() + 1
    rig.plane._arm()
    await asyncio.sleep(2)
    expected: list[Any] = [("tick", None, pytest.approx(1, abs=0.01))]
    assert core.asked == expected


async def test_refused_order_spoils_no_other_and_has_the_kernel_mended() -> None:
    rig, core = await scripted()
    core.on_event = lambda _: [MOVE, ANNOUNCE, TOLD]

    def refuse(_: str, action: object) -> None:
        if action is MOVE:
            raise OSError(13, "Permission denied")

    rig.kernel.refuse = refuse
    mending = asyncio.create_task(rig.configurator._mend_forever())
    rig.plane.submit(group_of(rig), DOWN)
    assert [action for _, action in rig.kernel.performed] == [ANNOUNCE]
    assert [o.reason for o in rig.watcher.occurrences] == [Reason.LINK_DOWN]
    assert rig.plane.measurements.errors["kernel"] == 1
    await asyncio.sleep(0.5)
    assert rig.kernel.calls == [("reconcile", "lab")]
    mending.cancel()


async def test_core_that_refuses_an_event_gets_the_next_one(caplog: pytest.LogCaptureFixture) -> None:
    rig, core = await scripted()

    def answer(event: object) -> list[object]:
        if event == DOWN:
            raise KeyError("nic0")
        return [MOVE]

    core.on_event = answer  # type: ignore[assignment]
    rig.plane.submit(group_of(rig), DOWN, UP)
    assert [action for _, action in rig.kernel.performed] == [MOVE]
    assert rig.plane.measurements.errors["core"] == 1
    assert "the core refused LinkChanged" in caplog.text


async def test_core_that_fails_in_a_tick_does_not_spin() -> None:
    rig, core = await scripted()
    ticks = []

    def tick(now: float) -> list[object]:
        ticks.append(now)
        raise ZeroDivisionError

    core.tick = tick  # type: ignore[method-assign, assignment]
    core.deadline = asyncio.get_running_loop().time()
    rig.plane._arm()
    await asyncio.sleep(10 * ERROR_PAUSE)
    assert 5 <= len(ticks) <= 11


async def test_drain_that_fails_does_not_stop_the_clock() -> None:
    rig, core = await scripted()
    rig.kernel.faults["drain"] = [OSError(105, "No buffer space available")]
    core.deadline = asyncio.get_running_loop().time() + 1
    rig.plane._arm()
    await asyncio.sleep(2)
    assert [kind for kind, _, _ in core.asked] == ["tick"]
    assert rig.plane.measurements.errors["drain"] == 1


async def test_failover_is_measured_from_the_event_to_the_announcement() -> None:
    rig, core = await scripted()
    loop = asyncio.get_running_loop()
    core.on_event = lambda _: [MOVE, ANNOUNCE, OUTBOUND]
    clock = iter([10.0, 10.0, 10.002, 10.004, *[10.1] * 50])  # queued, handled, moved, announced, ...
    real, loop.time = loop.time, lambda: next(clock)  # type: ignore[method-assign]
    try:
        rig.plane.submit(group_of(rig), DOWN)
    finally:
        loop.time = real  # type: ignore[method-assign]
    (failover,) = group_of(rig).history
    assert failover.duration == pytest.approx(0.004)
    assert (failover.source, failover.destination, failover.reason) == ("nic0", "nic1", Reason.LINK_DOWN)
    assert failover.addresses == (ADDRESS,)
    assert failover.time == WALL
    buckets, total = group_of(rig).measurements.failover.cumulative()
    assert total == pytest.approx(0.004)
    assert dict(buckets)["0.005"] == 1
    assert dict(buckets)["0.001"] == 0
    (example,) = filter(None, group_of(rig).measurements.failover.examples())
    assert (example.value, example.time) == (failover.duration, failover.time)
    assert (example.interface, example.reason) == ("nic0", Reason.LINK_DOWN)


async def test_outage_is_measured_from_the_first_loss_and_once() -> None:
    rig, core = await scripted()
    loop = asyncio.get_running_loop()
    lost = InterfaceVerdict("nic0", failed=True, reason=Reason.PROBES_LOST, since=loop.time() - 0.7)
    two = MoveAddresses(
        tuple(Move(address, "nic0", "nic1", Reason.PROBES_LOST) for address in (ADDRESS, ip_interface("198.18.0.7/24")))
    )
    core.on_event = lambda _: [lost, two, ANNOUNCE]
    rig.plane.submit(group_of(rig), DOWN)
    outage = group_of(rig).measurements.outage[Reason.PROBES_LOST]
    buckets, total = outage.cumulative()
    assert dict(buckets)["+Inf"] == 1
    assert total == pytest.approx(0.7)
    (example,) = filter(None, outage.examples())
    assert (example.value, example.time, example.interface) == (total, WALL, "nic0")
    (remembered,) = group_of(rig).history
    assert remembered.first_loss == pytest.approx(WALL - 0.7)
    assert len(remembered.addresses) == 2


async def test_failback_is_remembered_and_not_measured_as_a_failover() -> None:
    rig, core = await scripted()
    core.on_event = lambda _: [MoveAddresses((Move(ADDRESS, "nic1", "nic0", Reason.FAILBACK),))]
    rig.plane.submit(group_of(rig), UP)
    assert group_of(rig).history[-1].reason is Reason.FAILBACK
    assert group_of(rig).measurements.moves[Reason.FAILBACK] == 1
    assert group_of(rig).measurements.failover.cumulative()[1] == 0


async def test_probes_are_counted_and_shown_to_watchers() -> None:
    rig, core = await scripted()
    lost = ProbeClosed("nic0", Family.IPV4, TARGET, 7, 1.0, None, None, 0.0, 0.0)
    answered = ProbeClosed("nic0", Family.IPV4, TARGET, 7, 1.0, 0.002, 0.001, 0.002, 0.001)
    rig.plane.watchers.add(rig.watcher.watch)
    core.on_event = lambda _: [PROBE, lost, answered]
    before = len(rig.watcher.publications)
    rig.plane.submit(group_of(rig), ANSWER)
    counters = group_of(rig).measurements
    assert (counters.sent["nic0"], counters.lost["nic0"], counters.answered["nic0"]) == (1, 1, 1)
    assert counters.round_trip["nic0"].cumulative()[1] == pytest.approx(0.002)
    assert rig.watcher.probes == [("lab", lost), ("lab", answered)]
    assert len(rig.watcher.publications) == before, "a probe alone is no news"


async def test_somebody_who_begins_to_watch_probes_stops_no_failover() -> None:
    rig, core = await scripted()
    lost = ProbeClosed("nic0", Family.IPV4, TARGET, 7, 1.0, None, None, 0.0, 0.0)
    # Watchers come from the thread of the control socket: here between two of a batch.
    rig.plane.watchers.add(lambda _group, _probe: rig.plane.watchers.add(rig.watcher.watch))
    core.on_event = lambda _: [lost, MOVE]
    rig.plane.submit(group_of(rig), ANSWER)
    assert rig.kernel.orders(MoveAddresses) == [MOVE]


async def test_state_is_saved_after_a_change_and_a_burst_is_saved_once() -> None:
    rig, core = await scripted()
    await asyncio.sleep(1)
    rig.saved.clear()
    core.on_event = lambda _: [MOVE]
    for _ in range(10):
        rig.plane.submit(group_of(rig), DOWN)
    assert rig.saved == []
    await asyncio.sleep(2 * SAVE_DELAY)
    (state,) = rig.saved
    assert state.groups["lab"].kernel == {"holders": {"198.18.0.100/24": "nic1"}}


async def test_what_a_core_learns_without_an_order_is_saved_within_a_second_and_once() -> None:
    rig, core = await scripted()
    rig.plane.refresh()
    await asyncio.sleep(10 * REFRESH)
    rig.saved.clear()
    core.known = StateRestored((SavedInterface("nic0", failed=False, inactive=False, offline=False, answered=True),))
    await asyncio.sleep(10 * REFRESH)
    (state,) = rig.saved
    assert state.groups["lab"].interfaces == core.known.interfaces


async def test_publication_is_refreshed_while_nothing_happens() -> None:
    rig, _ = await scripted()
    rig.plane.refresh()
    before = len(rig.watcher.publications)
    await asyncio.sleep(10 * REFRESH + 0.5)
    assert len(rig.watcher.publications) == before + 10
    assert rig.plane.publication.configured
    rig.plane.stop()
    await asyncio.sleep(10 * REFRESH)
    assert len(rig.watcher.publications) == before + 10


async def test_stop_in_a_batch_lets_it_finish_and_saves_it() -> None:
    """SIGTERM is a callback of the loop: it comes between batches, never inside one."""
    rig, core = await scripted()
    core.on_event = lambda _: [MOVE, ANNOUNCE, OUTBOUND]
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    rig.kernel.interrupt = lambda _group, action: loop.call_soon(stopping.set) if action == MOVE else None
    rig.kernel.sink("lab", DOWN)
    await stopping.wait()
    rig.plane.stop()
    assert [action for _, action in rig.kernel.performed] == [MOVE, ANNOUNCE, OUTBOUND]
    assert rig.saved[-1].groups["lab"].kernel == {"holders": {"198.18.0.100/24": "nic1"}}
    core.asked.clear()
    core.deadline = loop.time() + 1
    await asyncio.sleep(5)
    assert core.asked == []


async def test_what_happens_while_the_kernel_is_being_closed_moves_nothing_that_nobody_saves() -> None:
    rig, core = await scripted()
    core.on_event = lambda _: [MOVE]
    rig.kernel.sink("lab", DOWN)  # has not had its turn yet
    rig.plane.stop()
    rig.kernel.sink("lab", DOWN)
    await asyncio.sleep(1)
    assert rig.kernel.performed == []
    await rig.plane.secure()  # as a group that is being closed may still ask for
    assert [saved.groups["lab"].kernel for saved in rig.saved[-2:]] == [{"holders": {}}] * 2


async def test_call_runs_in_the_loop_and_brings_back_result_or_error() -> None:
    rig, _ = await scripted()
    assert await asyncio.wrap_future(rig.plane.call(lambda: 42)) == 42
    with pytest.raises(ZeroDivisionError):
        await asyncio.wrap_future(rig.plane.call(lambda: 1 // 0))


async def test_call_after_the_end_is_refused() -> None:
    rig, _ = await scripted()
    loop = asyncio.new_event_loop()
    loop.close()
    rig.plane._loop = loop
    with pytest.raises(RuntimeError, match="stopping"):
        rig.plane.call(lambda: 42).result()
