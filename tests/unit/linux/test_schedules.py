"""What happens when: announcements, conflict checks and comparisons, in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from itertools import pairwise
from typing import Any

import pytest

from ipmp_agent.core import timers
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.group.reconcile import LONGEST_WAIT, REPAIRS_AT_ONCE, RETRY, GroupReconciler
from ipmp_agent.linux.messages import frames
from ipmp_agent.linux.shared import conflicts
from ipmp_agent.linux.shared.announce import BURST, Announcer
from ipmp_agent.linux.shared.conflicts import ConflictChecks

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

V4, V6 = IPv4Interface("198.18.0.1/32"), IPv6Interface("2001:db8::1/128")


class FakeWire:
    """Records what is sent, and when; refuses while it is down."""

    def __init__(self) -> None:
        self.name = "nic0"
        self.mac = bytes.fromhex("020000000001")
        self.sent: list[tuple[float, bytes]] = []
        self.up = True

    def send(self, frame: bytes) -> None:
        if not self.up:
            raise OSError(100, "Network is down")
        self.sent.append((asyncio.get_running_loop().time(), frame))

    def times(self) -> list[float]:
        return [when for when, _ in self.sent]


def make_wire() -> Any:
    """Stands in for a `Wire`."""
    return FakeWire()


def announcer() -> tuple[Any, Counter[str]]:
    counters: Counter[str] = Counter()
    return Announcer(counters), counters


async def test_an_address_is_announced_on_the_schedule_in_both_forms() -> None:
    speaker, counters = announcer()
    wire = make_wire()
    speaker.announce(wire, [V4], router=False)
    assert len(wire.sent) == 2, "at once, before the call returns"
    await asyncio.sleep(10)
    assert [round(when, 3) for when in wire.times()] == [t for t in timers.ANNOUNCE_AT for _ in range(2)]
    request, reply = frames.gratuitous_arp_request(wire.mac, V4.ip), frames.gratuitous_arp_reply(wire.mac, V4.ip)
    assert [frame for _, frame in wire.sent] == [request, reply] * len(timers.ANNOUNCE_AT)
    assert counters["announcements_sent"] == len(wire.sent)


async def test_the_pace_holds_over_all_addresses_and_the_first_round_comes_first() -> None:
    speaker, _ = announcer()
    wire = make_wire()
    addresses = [ip_interface(f"198.18.{i // 250}.{i % 250}/32") for i in range(400)]
    speaker.announce(wire, addresses, router=False)
    assert len(wire.sent) == BURST
    await asyncio.sleep(30)
    assert len(wire.sent) == 400 * 2 * len(timers.ANNOUNCE_AT)
    times = wire.times()
    for start in range(0, len(times), 50):
        within = sum(1 for when in times if times[start] <= when < times[start] + 0.1)
        assert within <= BURST + timers.ANNOUNCE_RATE * 0.1 + 1
    first = [frame[38:42] for _, frame in wire.sent[:400]]
    assert first == [address.ip.packed for address in addresses], "every address once, in the order given"


async def test_what_is_said_of_many_addresses_is_made_when_it_is_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands that move together keep nobody else waiting: one turn makes what one turn sends."""
    speaker, _ = announcer()
    old, new = make_wire(), make_wire()
    made: list[bytes] = []
    real = frames.gratuitous_arp_request

    def count(mac: bytes, address: Any) -> bytes:
        made.append(address.packed)
        return real(mac, address)

    monkeypatch.setattr(frames, "gratuitous_arp_request", count)
    addresses = [ip_interface(f"198.18.{i // 250}.{i % 250}/32") for i in range(5000)]
    asked: list[int] = []

    def ask(version: int) -> tuple[()]:
        asked.append(version)
        return ()

    speaker.announce(old, addresses, router=False, asked=ask)
    assert made == [address.ip.packed for address in addresses[:BURST]]
    await asyncio.sleep(0.05)
    assert len(made) == len(old.sent) < 4 * BURST
    made.clear()
    speaker.announce(new, addresses, router=False, asked=ask)
    assert len(made) < 2 * BURST, "what the older schedules had left is not made"
    await asyncio.sleep(5)
    assert not asked, "questions come after the announcements of all"
    before = len(old.sent)
    await asyncio.sleep(90)
    assert len(old.sent) == before
    assert len(new.sent) == len(addresses) * 2 * len(timers.ANNOUNCE_AT)
    assert len(asked) == 2 * len(addresses)


async def test_a_new_schedule_ends_the_old_one_and_a_cancelled_one_ends() -> None:
    speaker, _ = announcer()
    old, new = make_wire(), make_wire()
    speaker.announce(old, [V4, V6], router=False)
    sent = len(old.sent)
    speaker.announce(new, [V4], router=False)
    speaker.cancel([V6])
    await asyncio.sleep(10)
    assert len(old.sent) == sent
    assert len(new.sent) == 2 * len(timers.ANNOUNCE_AT)


async def test_a_wire_that_is_left_is_silent_and_a_dead_one_is_tried_again() -> None:
    speaker, counters = announcer()
    gone, dead = make_wire(), make_wire()
    dead.up = False
    speaker.announce(gone, [V4], router=False)
    speaker.announce(dead, [V6], router=True)
    speaker.leave(gone)
    sent = len(gone.sent)
    await asyncio.sleep(0.05)
    dead.up = True
    await asyncio.sleep(10)
    assert len(gone.sent) == sent
    assert counters["announcements_failed"] == 1
    assert len(dead.sent) == len(timers.ANNOUNCE_AT) - 1
    assert {frame for _, frame in dead.sent} == {frames.neighbor_advertisement(dead.mac, V6.ip, router=True)}


# -- conflicts --------------------------------------------------------------------------------------------------------


async def test_nobody_answers_and_the_address_is_free() -> None:
    checks, wire = ConflictChecks(), make_wire()
    verdicts: list[bytes | None] = []
    checks.start(V4, wire, verdicts.append)
    await asyncio.sleep(conflicts.PROBE_INTERVAL * conflicts.PROBE_NUM - 0.01)
    assert verdicts == []
    await asyncio.sleep(0.02)
    assert verdicts == [None]
    assert [frame for _, frame in wire.sent] == [frames.arp_probe(wire.mac, V4.ip)] * conflicts.PROBE_NUM
    assert V4 not in checks


async def test_a_claim_ends_the_check_and_one_of_another_address_does_not() -> None:
    checks, wire = ConflictChecks(), make_wire()
    verdicts: list[bytes | None] = []
    checks.start(V6, wire, verdicts.append)
    checks.heard(ip_address("2001:db8::2"), b"other!")
    assert verdicts == []
    checks.heard(V6.ip, b"owner!")
    checks.heard(V6.ip, b"owner!")
    await asyncio.sleep(1)
    assert verdicts == [b"owner!"]


async def test_a_check_that_is_cancelled_or_started_anew_gives_no_verdict() -> None:
    checks, old, new = ConflictChecks(), make_wire(), make_wire()
    verdicts: list[str] = []
    checks.start(V4, old, lambda _: verdicts.append("old"))
    checks.start(V4, new, lambda _: verdicts.append("new"))
    checks.start(V6, new, lambda _: verdicts.append("cancelled"))
    checks.cancel(V6)
    await asyncio.sleep(1)
    assert verdicts == ["new"]


async def test_a_link_that_is_down_has_no_conflict() -> None:
    checks, wire = ConflictChecks(), make_wire()
    wire.up = False
    verdicts: list[bytes | None] = []
    checks.start(V4, wire, verdicts.append)
    await asyncio.sleep(1)
    assert verdicts == [None]


# -- comparisons ------------------------------------------------------------------------------------------------------


class Fight:
    """A comparison that always finds something, undone by somebody at once."""

    def __init__(self, *, repairs: int = 1, undone: bool = True) -> None:
        self.at: list[float] = []
        self.repairs, self.undone = repairs, undone
        self.reconciler = GroupReconciler("data", self.compare)

    async def compare(self) -> int:
        self.at.append(asyncio.get_running_loop().time())
        if self.undone:
            asyncio.get_running_loop().call_later(0.001, self.reconciler.changed)
        return self.repairs


async def test_what_somebody_undoes_is_put_right_at_once_and_then_with_growing_waits() -> None:
    fight = Fight()
    fight.reconciler.changed()
    await asyncio.sleep(120)
    gaps = [after - before for before, after in pairwise(fight.at)]
    at_once = 2 * REPAIRS_AT_ONCE - 2  # two repairs in a row count as one
    assert all(gap < timers.REPAIR_FOREIGN for gap in gaps[:at_once])
    assert gaps[at_once : at_once + 6] == sorted(gaps[at_once : at_once + 6])
    assert LONGEST_WAIT - 1 < max(gaps) <= LONGEST_WAIT + 0.1
    assert len(fight.at) < 30, "never a fight at full speed"
    assert fight.reconciler.findings()[0].reason is Reason.FOREIGN_CHANGE
    fight.undone = False
    await asyncio.sleep(80)
    assert fight.reconciler.findings() == []


async def test_changes_that_take_two_repairs_each_are_put_right_at_once_as_often_as_others() -> None:
    fight = Fight(undone=False)
    waits = []
    for _ in range(REPAIRS_AT_ONCE + 1):
        for _ in range(2):
            began = asyncio.get_running_loop().time()
            fight.reconciler.changed()
            await asyncio.sleep(timers.REPAIR_FOREIGN / 4)
            waits.append(fight.at[-1] - began)
        await asyncio.sleep(1)
    assert max(waits[: 2 * REPAIRS_AT_ONCE]) < timers.REPAIR_FOREIGN / 4
    assert fight.reconciler.findings()


async def test_what_is_heard_meanwhile_brings_no_repair_forward() -> None:
    """Who takes ours away mostly changes something else, too; and our own repairs are heard."""
    fight = Fight()
    fight.reconciler.changed()
    for _ in range(1200):
        fight.reconciler.heard()
        await asyncio.sleep(0.1)
    assert len(fight.at) < 30, "never a fight at full speed"
    before = len(fight.at)
    fight.reconciler.soon()
    await asyncio.sleep(0.01)
    assert len(fight.at) == before + 1, "what cannot wait does not"
    await fight.reconciler.close()


async def test_a_change_that_left_nothing_to_repair_is_not_counted() -> None:
    fight = Fight(repairs=0, undone=False)
    for _ in range(10):
        fight.reconciler.changed()
        await asyncio.sleep(0.5)
    assert fight.reconciler.foreign_changes == 0
    assert fight.reconciler.findings() == []


async def test_requests_while_a_comparison_runs_are_one_more_comparison() -> None:
    running = asyncio.Event()
    count = 0

    async def slow() -> int:
        nonlocal count
        count += 1
        running.set()
        await asyncio.sleep(1)
        return 0

    reconciler = GroupReconciler("data", slow)
    reconciler.soon()
    await running.wait()
    for _ in range(5):
        reconciler.soon()
    await asyncio.sleep(5)
    assert count == 2


async def test_a_comparison_that_fails_is_made_again_and_knows_what_it_was_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ahead = [OSError(105, "No buffer space available")] * 2
    at: list[float] = []

    async def compare() -> int:
        at.append(asyncio.get_running_loop().time())
        if ahead:
            raise ahead.pop()
        return 1

    reconciler = GroupReconciler("data", compare)
    reconciler.changed()
    await asyncio.sleep(10 * RETRY)
    assert [round(when, 3) for when in at] == [0, RETRY, 2 * RETRY]
    assert len([r for r in caplog.records if "tried again" in r.message]) == 2
    assert reconciler.foreign_changes == 1


async def test_a_closed_reconciler_compares_no_more() -> None:
    fight = Fight()
    fight.reconciler.soon()
    await fight.reconciler.close()
    fight.reconciler.changed()
    await asyncio.sleep(1)
    assert fight.at == []


async def test_a_comparison_under_way_has_ended_when_close_returns() -> None:
    ended: list[str] = []

    async def slow() -> int:
        try:
            await asyncio.sleep(10)
        finally:
            ended.append("broken off")
        return 0

    reconciler = GroupReconciler("data", slow)
    reconciler.soon()
    await asyncio.sleep(1)
    await reconciler.close()
    assert ended == ["broken off"]
