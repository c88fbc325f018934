"""The schedule, the history and the accounts of probes, and how each member is probed."""

from __future__ import annotations

import errno
import itertools
import random
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core import events, timers
from ipmp_agent.core.actions import ProbeProtocol, SendProbe
from ipmp_agent.core.events import Family, ProbeAnswered, ProbeKind
from ipmp_agent.core.probing import Probe, Prober, choose_protocol
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.targets import TargetOrigin
from ipmp_agent.core.words import ProbeWord, TargetMode
from ipmp_api.types import ProbeMethod
from tests.virtual_node import TARGET, VirtualNode, numbered_group

if TYPE_CHECKING:
    from ipmp_agent.core.snapshot import ProberSnapshot

INTERVAL = 0.142
A, B = IPv4Address("198.18.0.1"), IPv4Address("198.18.0.2")
SOURCE = IPv4Address("198.18.2.1")
LOCAL = IPv6Address("fe80::1")


class Alone:
    """One prober without a group around it."""

    def __init__(self, *targets: IPv4Address, seed: int = 1) -> None:
        self.prober = Prober("nic0", Family.IPV4, 0.0, random.Random(seed))
        self.prober.use(ProbeProtocol.ICMP, SOURCE, "")
        self.prober.targets.offer([(target, TargetOrigin.PIN) for target in targets or (A,)], 0.0)
        self.prober.start(0.0, INTERVAL)
        self.now = 0.0
        self.sent: list[SendProbe] = []

    def tick(self, late: float = 0.0) -> SendProbe:
        self.now = self.prober.probe_at + late
        if not self.prober.skip_if_late(self.now, INTERVAL):
            self.prober.begin_tick(self.now, INTERVAL)
        (probe,) = self.prober.send_next(self.now)
        self.sent.append(probe)
        return probe

    def answer(self, probe: SendProbe, rtt: float = 0.001, **fields: Any) -> Probe | None:
        answer = ProbeAnswered("nic0", Family.IPV4, probe.target, probe.sequence, probe.kind, rtt, rtt)
        return self.prober.answered(replace(answer, **fields), INTERVAL, measure=True)

    def play(self, pattern: str) -> None:
        """Tick once for each letter: a = answered, anything else = never."""
        for letter in pattern:
            probe = self.tick()
            if letter == "a":
                self.answer(probe)

    @property
    def accounts(self) -> tuple[int, int, int, int]:
        p = self.prober
        return p.sent_count, p.answered_count, p.lost_count, p.discarded_count


def accounts_add_up(p: ProberSnapshot) -> bool:
    return p.sent == p.answered + p.lost + p.outstanding + p.discarded


# --- schedule


@pytest.mark.parametrize("seed", range(20))
def test_first_probe_is_at_a_random_moment_of_the_first_interval(seed: int) -> None:
    assert 0 <= Alone(seed=seed).prober.probe_at <= INTERVAL


def test_members_do_not_probe_in_step() -> None:
    assert len({Alone(seed=seed).prober.probe_at for seed in range(20)}) == 20


def test_gaps_are_half_to_one_and_a_half_intervals_on_a_strictly_periodic_base() -> None:
    alone, at = Alone(), []
    for _ in range(2000):
        alone.play("a")
        at.append(alone.now)
    gaps = [b - a for a, b in itertools.pairwise(at)]
    assert 0.5 * INTERVAL - 1e-9 <= min(gaps) < 0.6 * INTERVAL
    assert 1.4 * INTERVAL < max(gaps) <= 1.5 * INTERVAL + 1e-9
    base = at[0] - INTERVAL
    offsets = [(t - base) / INTERVAL - k for k, t in enumerate(at)]
    assert all(0.5 - 1e-6 <= offset <= 1.0 + 1e-6 for offset in offsets)


def test_one_probe_a_tick_to_one_target_in_turn() -> None:
    alone = Alone(A, B)
    alone.play("aaaa")
    assert [probe.target for probe in alone.sent] == [A, B, A, B]


def test_sequence_starts_at_one_and_wraps_at_sixteen_bits() -> None:
    alone = Alone()
    alone.play("a")
    assert alone.sent[0].sequence == 1
    alone.prober._sequence = 65535
    alone.play("aa")
    assert [probe.sequence for probe in alone.sent] == [1, 65535, 0]


def test_only_detection_probes_consume_sequence_numbers() -> None:
    node = VirtualNode(
        numbered_group(1, pins=(), discovery=True, test_addresses=["198.18.2.1/24"]), hosts=("198.18.0.9",)
    )
    node.remember_probes = True
    node.start()
    node.run(5)
    detection = [probe.sequence for _, probe in node.sent if probe.kind is ProbeKind.DETECTION]
    assert detection == list(range(1, len(detection) + 1))
    assert node.discovery_probes


@pytest.mark.parametrize("late", [0.3, 0.49])
def test_a_little_late_is_no_excuse(late: float) -> None:
    alone = Alone()
    alone.play("x")
    alone.tick(late=late * INTERVAL)
    alone.tick(late=late * INTERVAL)
    assert alone.accounts in ((3, 0, 1, 0), (3, 0, 2, 0))
    assert alone.prober.missed_count == 0


@pytest.mark.parametrize("intervals", [0.51, 1.2, 35.7])
def test_ticks_that_come_too_late_are_missed_and_nothing_is_lost(intervals: float) -> None:
    alone = Alone()
    alone.play("x")
    alone.tick(late=intervals * INTERVAL)
    assert alone.prober.missed_count == max(1, int(intervals))
    assert alone.accounts == (2, 0, 0, 1)
    assert alone.prober.probe_at == pytest.approx(alone.now + 0.75 * INTERVAL, abs=0.25 * INTERVAL)


# --- history


def test_probe_is_lost_after_its_round_trip_time_at_least_half_an_interval() -> None:
    alone = Alone()
    alone.play("aaaaaaaaaa")
    target = alone.sent[0]
    crtt = alone.prober.targets.active[0].rtt.crtt
    assert 0 < crtt < 0.5 * INTERVAL
    alone.tick()
    sent_at = alone.now
    assert alone.prober.expire(sent_at + 0.499 * INTERVAL, INTERVAL) == []
    (closed,) = alone.prober.expire(sent_at + 0.501 * INTERVAL, INTERVAL)
    assert (closed.rtt, closed.target) == (None, target.target)


def test_probe_to_a_slower_target_waits_for_its_conservative_round_trip() -> None:
    alone = Alone()
    for _ in range(100):
        alone.answer(alone.tick(), rtt=0.1)
    crtt = alone.prober.targets.active[0].rtt.crtt
    assert 0.5 * INTERVAL < crtt < INTERVAL
    alone.tick()
    assert alone.prober.expire(alone.now + crtt - 0.001, INTERVAL) == []
    assert len(alone.prober.expire(alone.now + crtt + 0.001, INTERVAL)) == 1


def test_probe_to_an_unknown_target_waits_a_whole_interval() -> None:
    alone = Alone()
    alone.tick()
    assert alone.prober.expire(alone.now + 0.99 * INTERVAL, INTERVAL) == []
    assert len(alone.prober.expire(alone.now + 1.01 * INTERVAL, INTERVAL)) == 1


def test_at_most_two_probes_are_under_way() -> None:
    alone = Alone()
    alone.prober.targets.active[0].rtt.average = 10.0  # nothing times out by itself
    for _ in range(30):
        alone.tick()
        assert alone.prober.outstanding <= timers.PROBES_OUTSTANDING
    assert alone.accounts == (30, 0, 28, 0)


def test_late_reply_to_a_lost_probe_counts_and_breaks_the_streak() -> None:
    alone = Alone()
    alone.play("aaaaaaaaaa" + "xxxxxx")
    lost = alone.prober.lost_count
    assert alone.prober.failing(alone.now, 1.0)
    assert alone.answer(alone.sent[-3], rtt=0.4)
    assert not alone.prober.failing(alone.now, 1.0)
    assert alone.prober.lost_count == lost - 1
    assert alone.prober.answered_count == 11


def test_replies_that_do_not_count() -> None:
    alone = Alone(A, B)
    alone.play("aaaa")
    before = alone.accounts
    probe = alone.sent[-1]
    assert alone.answer(probe) is None, "a duplicate"
    assert alone.answer(probe, sequence=999) is None, "nobody asked"
    probe = alone.tick()
    assert alone.answer(probe, target=IPv4Address("198.18.0.77")) is None, "the wrong source"
    alone.prober.targets.offer([(B, TargetOrigin.PIN)], alone.now)
    to_a = probe if probe.target == A else alone.sent[-2]
    assert alone.answer(to_a) is None, "its target is no target any more"
    assert alone.accounts[1] == before[1]
    assert alone.prober.duplicates == 4


def test_reply_to_a_probe_that_left_the_history_is_ignored() -> None:
    alone = Alone()
    alone.play("x" * (timers.PROBE_HISTORY + 1))
    assert alone.answer(alone.sent[0]) is None
    assert alone.answer(alone.sent[1]) is not None


def test_history_is_long_enough_for_ten_answers_of_one_target_among_five() -> None:
    assert timers.PROBE_HISTORY == 52
    alone = Alone(*(IPv4Address(f"198.18.0.{n}") for n in range(1, 6)))
    alone.play("axxxx" * 9)
    assert not alone.prober.repaired()
    alone.play("a")
    assert alone.prober.repaired()


def test_answer_closes_the_probe_with_its_round_trips() -> None:
    alone = Alone()
    answered = alone.answer(alone.tick(), rtt=0.02, network_rtt=0.01)
    assert answered is not None
    closed = alone.prober.closed(answered, 0.02, 0.01)
    assert (closed.rtt, closed.network_rtt, closed.average, closed.deviation) == (0.02, 0.01, 0.01, 0.005)


@pytest.mark.parametrize("rtt", [-0.001, 52 * INTERVAL + 0.1])
def test_impossible_round_trips_are_not_measured(rtt: float) -> None:
    alone = Alone()
    assert alone.answer(alone.tick(), rtt=rtt)
    assert alone.prober.targets.active[0].rtt.crtt == 0


@pytest.mark.parametrize("pattern", ["a" * 60, "x" * 60, "ax" * 40, "aaxxx" * 20, "x" * 7 + "a" * 70])
def test_accounts_add_up(pattern: str) -> None:
    alone = Alone(A, B)
    alone.play(pattern)
    sent, answered, lost, discarded = alone.accounts
    assert (sent, answered) == (len(pattern), pattern.count("a"))
    assert sent == answered + lost + discarded + alone.prober.outstanding
    alone.prober.forget()
    assert alone.accounts[0] == sum(alone.accounts[1:])
    assert alone.prober.outstanding == 0


# --- sending fails


def test_single_refused_send_is_no_loss() -> None:
    alone = Alone()
    alone.play("aaaa")
    probe = alone.tick()
    alone.prober.not_sent(probe.sequence, alone.now)
    assert alone.prober.not_sent_count == 1
    assert alone.accounts == (4, 4, 0, 0)
    assert not alone.prober.failing(alone.now + 0.9, 1.0)


def test_sends_refused_for_the_whole_detection_time_fail_the_member() -> None:
    node = VirtualNode(numbered_group(2, adaptive=False))
    node.start()
    node.run(3)

    def refuse(probe: SendProbe) -> bool:
        return probe.interface == "nic0"

    send = node._send
    node._send = lambda probe: (  # type: ignore[method-assign]
        node.tell(events.ProbeNotSent(probe.interface, probe.family, probe.sequence, errno.ENETUNREACH))
        if refuse(probe)
        else send(probe)
    )
    start = node.now
    assert node.run(3, lambda: not node.interface("nic0").usable)
    assert 1.0 <= node.now - start <= 1.4
    assert node.interface("nic0").reason is Reason.PROBES_LOST
    assert node.interface("nic0").probers[0].not_sent >= 5
    assert accounts_add_up(node.interface("nic0").probers[0])


def test_refused_sends_on_every_member_are_group_failure() -> None:
    node = VirtualNode(numbered_group(2))
    node.start()
    node.run(3)
    node.refuse_to_send = errno.EPERM
    node.run(3)
    assert node.failed
    assert node.failovers == []


# --- how a member is probed


@pytest.mark.parametrize(
    ("family", "method", "source", "addressed", "protocol", "why"),
    [
        (Family.IPV4, ProbeMethod.AUTO, SOURCE, True, ProbeProtocol.ICMP, "has an IPv4 test address"),
        (Family.IPV4, ProbeMethod.AUTO, None, True, ProbeProtocol.ARP, "not ready"),
        (Family.IPV4, ProbeMethod.AUTO, None, False, ProbeProtocol.ARP, "no IPv4 test address"),
        (Family.IPV4, ProbeMethod.ICMP, SOURCE, True, ProbeProtocol.ICMP, "has an IPv4 test address"),
        (Family.IPV4, ProbeMethod.ICMP, None, True, None, "not ready"),
        (Family.IPV4, ProbeMethod.ICMP, None, False, None, "needs an IPv4 test address"),
        (Family.IPV4, ProbeMethod.ARP, SOURCE, True, ProbeProtocol.ARP, "probes.method is ARP"),
        (Family.IPV4, ProbeMethod.ARP, None, False, ProbeProtocol.ARP, "probes.method is ARP"),
        (Family.IPV4, ProbeMethod.DISABLED, SOURCE, True, None, "Disabled"),
        (Family.IPV6, ProbeMethod.AUTO, LOCAL, True, ProbeProtocol.ICMP, "link-local"),
        (Family.IPV6, ProbeMethod.AUTO, None, True, None, "not ready"),
        (Family.IPV6, ProbeMethod.AUTO, None, False, None, "Disabled"),
        (Family.IPV6, ProbeMethod.ICMP, LOCAL, True, ProbeProtocol.ICMP, "link-local"),
        (Family.IPV6, ProbeMethod.ARP, LOCAL, True, ProbeProtocol.NEIGHBOR, "probes.method is ARP"),
        (Family.IPV6, ProbeMethod.DISABLED, LOCAL, True, None, "Disabled"),
    ],
)
def test_choice_of_protocol_and_its_reason(
    family: Family, method: ProbeMethod, source: object, addressed: bool, protocol: object, why: str
) -> None:
    chosen, words = choose_protocol(family, method, source, addressed=addressed)  # type: ignore[arg-type]
    assert chosen is protocol
    assert why in words


def test_global_ipv6_target_is_asked_by_neighbour_solicitation_and_a_link_local_one_by_echo() -> None:
    node = VirtualNode(numbered_group(1, pins=("2001:db8::1", "fe80::99")), link_local=True)
    node.remember_probes = True
    node.start()
    node.run(2)
    protocols = {str(probe.target): probe.protocol for _, probe in node.sent}
    assert protocols == {"2001:db8::1": ProbeProtocol.NEIGHBOR, "fe80::99": ProbeProtocol.ICMP}


def test_probing_begins_when_the_test_address_is_ready_and_ends_when_it_goes() -> None:
    node = VirtualNode(numbered_group(2, probe_method=ProbeMethod.ICMP))
    node.start()
    node.run(2)
    assert node.interface("nic0").probers[0].mode is TargetMode.DISABLED
    node.handle(events.TestAddressChanged("nic0", Family.IPV4, SOURCE))
    assert node.run(1, lambda: node.interface("nic0").probers[0].answered > 0)
    assert node.interface("nic0").probe is ProbeWord.OK
    assert node.interface("nic0").probers[0].test_address == SOURCE
    node.handle(events.TestAddressChanged("nic0", Family.IPV4, None))
    assert node.interface("nic0").probers[0].mode is TargetMode.DISABLED
    sent = node.interface("nic0").probers[0].sent
    node.run(2)
    assert node.interface("nic0").probers[0].sent == sent


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({}, ProbeWord.OK),
        ({"pins": (), "active": 1}, ProbeWord.UNKNOWN),
        ({"pins": (), "active": 1, "probe_method": ProbeMethod.ICMP}, ProbeWord.DISABLED),
        ({"probe_method": ProbeMethod.DISABLED}, ProbeWord.DISABLED),
    ],
)
def test_what_is_said_of_probes(fields: dict[str, object], word: ProbeWord) -> None:
    node = VirtualNode(numbered_group(**{"active": 2, **fields}))  # type: ignore[arg-type]
    node.start()
    node.run(2)
    assert node.interface("nic0").probe is word
    assert node.snapshot().probing == (word is not ProbeWord.DISABLED)
    if word is ProbeWord.OK:
        node.link("nic0", up=False)
        assert node.interface("nic0").probe is ProbeWord.FAILED


def test_member_whose_test_address_goes_while_it_is_failed_is_repaired_by_its_link() -> None:
    node = VirtualNode(
        numbered_group(2, probe_method=ProbeMethod.ICMP, test_addresses=["198.18.2.1/24", "198.18.2.2/24"])
    )
    node.start()
    node.run(3)
    node.silence("nic0")
    node.run(2)
    assert node.active == ["nic1"]
    node.handle(events.TestAddressChanged("nic0", Family.IPV4, None))
    assert node.active == ["nic0", "nic1"]


def test_standby_inactive_and_failed_members_are_probed_like_active_ones_and_offline_ones_are_not() -> None:
    node = VirtualNode(numbered_group(2, 2))
    node.start()
    node.run(3)
    node.silence("nic0")
    node.offline("nic1")
    node.run(3)
    before = {i.interface: i.probers[0].sent for i in node.snapshot().interfaces}
    node.run(14.2)
    sent = {i.interface: i.probers[0].sent - before[i.interface] for i in node.snapshot().interfaces}
    assert sent["nic1"] == 0
    assert all(sent[key] == pytest.approx(100, abs=2) for key in ("nic0", "nic2", "nic3"))


def test_a_new_detection_time_takes_effect_at_once() -> None:
    node = VirtualNode(numbered_group(2))
    node.start()
    node.run(3)
    node.configure(numbered_group(2, detection_time=0.1))
    assert node.snapshot().detection_time == 0.1
    before = node.interface("nic0").probers[0].sent
    node.run(1.4)
    assert node.interface("nic0").probers[0].sent - before == pytest.approx(100, abs=3)
    node.silence("nic0")
    assert node.run(0.1, lambda: node.active == ["nic1"])


def test_target_of_the_scene_is_the_pinned_one() -> None:
    assert str(numbered_group().policies.targets.addresses[0]) == TARGET


def test_older_probe_is_given_up_at_the_next_tick_even_if_newer_ones_are_answered() -> None:
    alone = Alone()
    alone.prober.targets.active[0].rtt.average = 10.0  # nothing times out by itself
    alone.play("xa")
    assert alone.prober.outstanding == 1
    alone.play("a")
    assert alone.accounts == (3, 2, 1, 0)
    alone.play("aaa")
    assert alone.prober.outstanding == 0


def test_answer_to_an_older_probe_is_not_measured_however_it_came_late() -> None:
    alone = Alone()
    alone.play("aaaaaaaaaa")
    before = alone.prober.targets.active[0].rtt.crtt
    older = alone.tick()
    sent_at = alone.now
    newer = alone.tick()
    alone.answer(newer)
    waited = alone.now + 2 * INTERVAL - sent_at  # in the socket
    average = alone.prober.targets.active[0].rtt.average
    assert alone.answer(older, rtt=waited, network_rtt=0.02)
    assert alone.prober.targets.active[0].rtt.average == average
    assert alone.prober.targets.active[0].rtt.crtt <= before
