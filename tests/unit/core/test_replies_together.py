"""Replies that waited together for a link-layer address say nothing about how slow a target is."""

from __future__ import annotations

import random
from ipaddress import ip_address

import pytest

from ipmp_agent.core.events import Family, ProbeAnswered, ProbeKind
from ipmp_agent.core.probing import Prober
from ipmp_agent.core.targets import TargetOrigin

TARGET = ip_address("198.18.0.1")
INTERVAL = 0.142


def prober_with_probes_at(*times: float) -> tuple[Prober, list[int]]:
    prober = Prober("nic0", Family.IPV4, 0.0, random.Random(1))
    prober.targets.offer({TARGET: TargetOrigin.PIN}.items(), 0.0)
    return prober, [probe.sequence for time in times for probe in prober.send_next(time)]


def answer(prober: Prober, sequence: int, sent: float, heard: float) -> None:
    event = ProbeAnswered("nic0", Family.IPV4, TARGET, sequence, ProbeKind.DETECTION, heard - sent, heard - sent)
    assert prober.answered(event, INTERVAL, measure=True) is not None


def test_burst_of_queued_replies_leaves_the_estimate_to_the_next_real_one() -> None:
    sent = (1.0, 1.142, 1.284, 2.2)
    prober, sequences = prober_with_probes_at(*sent)
    for sequence, at in zip(sequences[:3], sent[:3], strict=True):
        answer(prober, sequence, at, 2.155)
    answer(prober, sequences[3], sent[3], 2.2005)
    target = prober.targets.find(TARGET)
    assert target is not None
    assert target.rtt.crtt == pytest.approx(3 * 0.0005)
    assert prober.answered_count == 4


def test_replies_that_keep_coming_late_are_believed() -> None:
    sent = (1.0, 1.142)
    prober, sequences = prober_with_probes_at(*sent)
    for sequence, at in zip(sequences, sent, strict=True):
        answer(prober, sequence, at, at + 1.0)
    target = prober.targets.find(TARGET)
    assert target is not None
    assert target.rtt.crtt > INTERVAL
