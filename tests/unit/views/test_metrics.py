"""The metrics page."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import ipmp_agent
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.words import InterfaceWord, LinkWord, ProbeWord
from ipmp_agent.measurements import Example, GroupMeasurements, Histogram, Measurements
from ipmp_agent.publication import Reporting
from ipmp_agent.views.metrics import COUNTED_BY_INTERFACE, KERNEL_COUNTERS, AgentCollector
from tests.unit.views.pictures import address, failed, interface, prober, publication, standby, view

if TYPE_CHECKING:
    from prometheus_client.samples import Exemplar

    from ipmp_agent.publication import Publication

PICTURE = publication(
    view(
        interface("0000:3b:00.1", name="nic0", probers=(prober(missed=2, not_sent=1),)),
        failed("nic1"),
        addresses=(address("198.18.0.100/24", "0000:3b:00.1"), address("198.18.0.101/24", None)),
    )
)


KERNEL = {"netlink_overruns": 3, "probes_sent": 7, "probes_answered": 6}
"""What the kernel's side counts."""


def registry(picture: Publication, measurements: Measurements, reporting: Reporting | None = None) -> CollectorRegistry:
    made = CollectorRegistry(auto_describe=False)
    made.register(AgentCollector(lambda: picture, measurements, lambda: dict(KERNEL), lambda: reporting))
    return made


def page(picture: Publication, measurements: Measurements, reporting: Reporting | None = None) -> str:
    return generate_latest(registry(picture, measurements, reporting)).decode()


def asked_for(kind: str, measurements: Measurements) -> str:
    encode, _ = choose_encoder(kind)
    return encode(registry(PICTURE, measurements)).decode()


def exemplars(measurements: Measurements) -> dict[tuple[str, str], Exemplar]:
    """By family and bucket."""
    return {
        (family.name, sample.labels["le"]): sample.exemplar
        for family in registry(PICTURE, measurements).collect()
        for sample in family.samples
        if sample.exemplar is not None
    }


def values(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def measurements() -> Measurements:
    taken = Measurements()
    taken.group("net").watch(["0000:3b:00.1", "nic1"])
    return taken


def test_counters_are_there_from_the_start_at_zero(measurements: Measurements) -> None:
    found = values(page(PICTURE, measurements))
    for reason in ("LinkDown", "ProbesLost", "GroupFailed"):
        assert found["ipmp_interface_failures_total", "net", "nic0", reason] == 0
        assert found["ipmp_interface_failures_total", "net", "nic1", reason] == 0
    assert found["ipmp_interface_repairs_total", "net", "nic1", "ProbesAnswered"] == 0
    assert found["ipmp_address_moves_total", "net", "LinkDown"] == 0
    assert found["ipmp_address_moves_total", "net", "Failback"] == 0
    assert found["ipmp_failover_duration_seconds_count", "net"] == 0
    assert found["ipmp_probes_sent_total", "net", "nic0"] == 0
    assert found["ipmp_probe_rtt_seconds_count", "net", "nic0"] == 0
    assert found["ipmp_agent_errors_total", "kernel"] == 0


def test_what_the_api_server_is_told_is_shown_where_there_is_one(measurements: Measurements) -> None:
    found = values(page(PICTURE, measurements, Reporting(lag=12.5, connected=False)))
    assert (found[("ipmp_report_lag_seconds",)], found[("ipmp_api_connected",)]) == (12.5, 0.0)
    assert ("ipmp_api_connected",) not in values(page(PICTURE, measurements)), "configured from a file"


def test_counts_are_shown_under_the_name_of_the_interface(measurements: Measurements) -> None:
    group = measurements.group("net")
    group.failures["0000:3b:00.1", Reason.LINK_DOWN] += 2
    group.moves[Reason.LINK_DOWN] += 5
    group.failover.observe(0.0007)
    group.failover.observe(0.3)
    group.round_trip["nic1"].observe(0.002)
    group.probe_sent("nic1")
    group.probe_closed("nic1", answered=False)
    found = values(page(PICTURE, measurements))
    assert found["ipmp_interface_failures_total", "net", "nic0", "LinkDown"] == 2
    assert found["ipmp_address_moves_total", "net", "LinkDown"] == 5
    assert found["ipmp_failover_duration_seconds_count", "net"] == 2
    assert found["ipmp_failover_duration_seconds_sum", "net"] == pytest.approx(0.3007)
    assert found["ipmp_failover_duration_seconds_bucket", "net", "0.001"] == 1
    assert found["ipmp_probe_rtt_seconds_bucket", "net", "nic1", "0.002"] == 1
    assert found["ipmp_probes_sent_total", "net", "nic1"] == 1
    assert found["ipmp_probes_lost_total", "net", "nic1"] == 1
    assert found["ipmp_probes_received_total", "net", "nic1"] == 0


def test_newest_outage_and_failover_of_each_bucket_say_of_which_interface_they_were(measurements: Measurements) -> None:
    group = measurements.group("net")
    group.failover.observe(0.3)
    assert exemplars(measurements) == {}
    group.failover.show(Example(0.0007, 1699.0, "nic1", Reason.LINK_DOWN))
    group.failover.show(Example(0.0006, 1700.25, "0000:3b:00.1", Reason.PROBES_LOST))
    group.outage[Reason.PROBES_LOST].show(Example(0.8, 1700.25, "0000:3b:00.1", Reason.PROBES_LOST))
    found = exemplars(measurements)
    assert found.keys() == {("ipmp_failover_duration_seconds", "0.001"), ("ipmp_outage_seconds", "1.0")}
    newest = found["ipmp_failover_duration_seconds", "0.001"]
    assert (newest.labels, newest.value) == ({"interface": "nic0", "reason": "ProbesLost"}, 0.0006)
    assert float(newest.timestamp or 0) == 1700.25
    assert found["ipmp_outage_seconds", "1.0"].value == 0.8
    shown = ' # {interface="nic0",reason="ProbesLost"} 0.8 1700.25\n'
    assert shown in asked_for("application/openmetrics-text", measurements)
    assert shown not in asked_for("text/plain", measurements)


def test_exemplar_of_a_member_with_a_very_long_key_is_within_what_prometheus_takes(measurements: Measurements) -> None:
    longest = max(Reason, key=len)
    measurements.group("net").failover.show(Example(0.0007, 1700.0, "n" * 300, longest))
    ((_, found),) = exemplars(measurements).items()
    assert found.labels["interface"] == "n" * 64
    assert sum(map(len, (*found.labels, *found.labels.values()))) <= 128


def test_state_is_read_from_the_publication(measurements: Measurements) -> None:
    found = values(page(PICTURE, measurements))
    assert found["ipmp_interface_state", "net", "nic0", "ok"] == 1
    assert found["ipmp_interface_state", "net", "nic0", "failed"] == 0
    assert found["ipmp_interface_state", "net", "nic1", "failed"] == 1
    assert found["ipmp_interface_active", "net", "nic1"] == 0
    assert found["ipmp_group_state", "net", "degraded"] == 1
    assert found["ipmp_group_degraded", "net"] == 1
    assert found["ipmp_data_addresses", "net", "nic0"] == 1
    assert found["ipmp_data_addresses_unavailable", "net"] == 1
    assert found["ipmp_failure_detection_time_seconds", "net"] == 10
    assert found["ipmp_probes_missed_total", "net", "nic0"] == 2
    assert found["ipmp_probes_refused_total", "net", "nic0"] == 1
    assert found["ipmp_probe_targets", "net", "nic0"] == 1
    assert found["ipmp_netlink_overruns_total",] == 3


def test_what_alerts_tell_apart_has_a_series_of_its_own(measurements: Measurements) -> None:
    picture = publication(
        view(
            interface("nic0", probe=ProbeWord.UNKNOWN, link=LinkWord.UNKNOWN, speed_megabits=None),
            failed("nic1", Reason.PROBES_LOST),
            standby("nic2", state=InterfaceWord.OFFLINE, usable=False, offline=True, reason=Reason.OFFLINE),
        )
    )
    found = values(page(picture, measurements))
    assert ("ipmp_interface_link_up", "net", "nic0") not in found, "the driver cannot tell"
    assert ("ipmp_interface_probes_answered", "net", "nic0") not in found, "nobody is probed"
    assert found["ipmp_interface_link_up", "net", "nic1"] == 1, "a cable is not to blame"
    assert found["ipmp_interface_probes_answered", "net", "nic1"] == 0
    assert found["ipmp_interface_unusable", "net", "nic1", "ProbesLost"] == 1
    assert found["ipmp_interface_unusable", "net", "nic2", "Offline"] == 1
    assert not [key for key in found if key[:3] == ("ipmp_interface_unusable", "net", "nic0")]
    assert found["ipmp_interface_info", "net", "nic2", "02:00:00:00:00:02", "Standby"] == 1
    assert found["ipmp_interface_speed_bits", "net", "nic1"] == 25e9
    assert found["ipmp_failure_detection_time_configured_seconds", "net"] == 10


def test_interface_that_a_person_took_out_does_not_degrade_the_group(measurements: Measurements) -> None:
    out = interface("nic1", state=InterfaceWord.OFFLINE, active=False, usable=False, offline=True)
    found = values(page(publication(view(interface("nic0"), out)), measurements))
    assert found["ipmp_group_degraded", "net"] == 0


def test_conditions_are_shown_while_somebody_should_look(measurements: Measurements) -> None:
    healthy = values(page(publication(view(interface("nic0"), interface("nic1"))), measurements))
    assert not [key for key in healthy if key[0] == "ipmp_condition"]
    undone = replace(view(interface("nic0"), interface("nic1")), undone="198.18.0.1 fell silent")
    shown = values(page(publication(undone), measurements))
    assert {key[2:]: value for key, value in shown.items() if key[0] == "ipmp_condition"} == {
        ("ChangeUndone", "Programmed"): 1,
        ("ChangeUndone", "Degraded"): 1,
    }


def test_every_counter_of_the_kernels_side_is_explained() -> None:
    """A counter without words would not be shown at all."""
    linux = Path(ipmp_agent.__file__).parent / "linux"
    text = "".join(path.read_text(encoding="utf-8") for path in linux.rglob("*.py"))
    counted = set(re.findall(r'counters\["([a-z_]+)"\] \+=', text))
    facade = (linux / "kernel.py").read_text(encoding="utf-8")
    counted |= set(re.findall(r'^ {12}"([a-z_]+)": ', facade, re.MULTILINE))
    assert {"probes_sent", "netlink_overruns"} <= counted
    assert counted <= KERNEL_COUNTERS.keys() | COUNTED_BY_INTERFACE


def test_everything_that_is_counted_is_shown() -> None:
    shown = (Path(ipmp_agent.__file__).parent / "views/metrics.py").read_text(encoding="utf-8")
    for counted, by in ((Measurements, "self._measurements"), (GroupMeasurements, "group")):
        missing = [each.name for each in fields(counted) if f"{by}.{each.name}" not in shown]
        assert missing == [], counted.__name__


NAIVE_SERIES = 209
"""Series of a node with one group of two NICs before anything was left out: docs/metrics.md counts them."""
PROCESS_SERIES = 6


def test_usual_node_has_at_most_two_thirds_of_the_series_of_a_naive_page(measurements: Measurements) -> None:
    series = [line for line in page(PICTURE, measurements).splitlines() if not line.startswith("#")]
    assert len(series) + PROCESS_SERIES <= 2 / 3 * NAIVE_SERIES


def test_group_that_is_gone_leaves_no_state_behind(measurements: Measurements) -> None:
    found = values(page(publication(), measurements))
    assert not [key for key in found if key[0].startswith(("ipmp_interface_state", "ipmp_group_state"))]


def test_no_two_samples_have_the_same_labels() -> None:
    """Prometheus would drop one of them, and nobody knows which."""
    conflict = Reason.INTERFACE_CONFLICT
    mac = "02:00:00:00:00:01"
    measurements = Measurements()
    measurements.group("net").watch(["eth0", "eth1"])  # eth1 was matched by its name
    measurements.group("net").watch(["eth0", mac, "0000:3b:00.1"])
    members = (
        interface(mac, name="eth0"),
        interface("eth0", refusal=conflict),
        interface("0000:3b:00.1", name="eth1"),
    )
    text = page(publication(view(*members)), measurements)
    samples = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert sorted(samples) == sorted(set(samples))
    assert 'ipmp_interface_active{group="net",interface="eth0"} 1.0' in text


def test_build_info_and_help_for_everything(measurements: Measurements) -> None:
    text = page(PICTURE, measurements)
    assert 'ipmp_build_info{component="agent",python="' in text
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.name.startswith("ipmp_")


def test_no_name_stands_for_two_metrics(measurements: Measurements) -> None:
    names = [line.split()[2] for line in page(PICTURE, measurements).splitlines() if line.startswith("# TYPE")]
    assert sorted(names) == sorted(set(names))


def test_histogram_counts_a_value_on_a_bound_below_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 9.0):
        histogram.observe(value)
    assert histogram.cumulative() == ([("1.0", 2), ("2.0", 4), ("+Inf", 5)], 14.0)
