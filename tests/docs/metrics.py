"""Writes docs/metrics.md from the metrics pages themselves. Run: .venv/bin/python -m tests.docs.metrics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from ipmp_agent.core.reasons import Reason
from ipmp_agent.measurements import Measurements
from ipmp_agent.publication import Reporting
from ipmp_agent.views.metrics import AgentCollector
from ipmp_operator.core.model import NodeGroupReport
from ipmp_operator.metrics import Metrics
from tests.unit.operator.build import World, api_group, nodes, pool, pools
from tests.unit.views.pictures import address, failed, interface, prober, publication, standby, view

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from ipmp_agent.publication import Publication

PATH = Path(__file__).parents[2] / "docs" / "metrics.md"

TEXT = """\
# Metrics

Generated from the pages that agent and operator serve: `.venv/bin/python -m tests.docs.metrics`. Alerts and how to
scrape: [monitoring.md](monitoring.md). Names, labels and the words of reasons are stable: alerts may rely on them.

- The scrape adds a label `node` to every series of an agent; no series of ours names the node itself.
- A state that is one of few words is a set of series of which one is 1. What is said only while it is wrong
  (`ipmp_condition`, `ipmp_interface_unusable`) has a series only then.
- Counters start at 0 with each agent and are there from the start, so that a rate sees the first event.
- `interface` is the name in the kernel, or what the member is matched by while it is not there.
- Buckets of `ipmp_outage_seconds` and `ipmp_failover_duration_seconds` carry the newest of their values as an exemplar:
  when it was, `interface` (the one that addresses had to leave) and `reason`. By that moment `ipmpstat -H` and
  `status.lastFailovers` have the rest. Exemplars are in the OpenMetrics form of the page, which Prometheus asks for.

## Agent

{agent}

## Operator

{operator}

Replicas that do not lead show no series by group and pool.

## How many series

| | series |
|---|---|
| one node with one group of two NICs, IPv4 and IPv6 alike | {node} |
| each further NIC | {nic} |
| each further group, without its NICs | {group} |
| 5,000 such nodes | {many:,} |

Agent and operator add six of their process (`process_*`: memory, processor, descriptors, start). A naive page would
have 209: the 128 that version 0.1.0 had with eleven to thirteen buckets in each histogram, a set of series for each
state of links, probes and conditions (18), an outage histogram of such buckets for three reasons (48), and fifteen for
the rest. What was left out are buckets that no alert
and no panel reads, sets for what is right, and counters that say what another one says.
"""


def agent_page() -> tuple[Metric, ...]:
    """Every family that an agent can show."""
    members = (
        interface("nic0", probers=(prober(),)),
        failed("nic1", Reason.PROBES_LOST, probers=(prober(),)),
        standby("nic2", probers=(prober(),)),
    )
    group = view(*members, addresses=(address("198.18.0.100/24", "nic0"), address("198.18.0.101/24", None)))
    return _collect(publication(replace(group, undone="198.18.0.1 fell silent")), 3)


def usual_page(nics: int = 2, groups: int = 1) -> tuple[Metric, ...]:
    """What an agent shows of groups that are well."""
    views = (
        view(
            *(interface(f"nic{n}", probers=(prober(),)) for n in range(nics)),
            name=f"g{number}",
            addresses=(address("198.18.0.100/24", "nic0"),),
        )
        for number in range(groups)
    )
    return _collect(publication(*views), nics)


def _collect(picture: Publication, nics: int) -> tuple[Metric, ...]:
    measurements = Measurements()
    for shown in picture.groups:
        measurements.group(shown.snapshot.group).watch([f"nic{n}" for n in range(nics)])
    registry = CollectorRegistry(auto_describe=False)
    registry.register(AgentCollector(lambda: picture, measurements, dict, lambda: Reporting(0.0, connected=True)))
    return tuple(registry.collect())


def operator_page() -> tuple[Metric, ...]:
    """Every family that an operator shows."""
    world = World(groups=[api_group(dataAddresses=pools(pool(ranges="198.18.0.1")))])
    world.add_nodes(nodes(2))
    world.agents = frozenset(world.nodes)
    world.settle()
    for holder, seen in world.there.items():
        world.there[holder] = replace(seen, status=NodeGroupReport("ok", observed_generation=seen.generation))
    metrics = Metrics(lambda: 0.0)
    metrics.show(world.plan())
    return tuple(metrics.registry.collect())


def series(page: tuple[Metric, ...]) -> int:
    """How many series a page has."""
    return sum(len(family.samples) for family in page)


def _rows(page: tuple[Metric, ...]) -> Iterator[str]:
    yield "| metric | type | labels | meaning |"
    yield "|---|---|---|---|"
    for family in page:
        labels = dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le")
        name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        yield f"| `{name}` | {family.type} | {', '.join(labels) or '-'} | {family.documentation} |"


def text() -> str:
    """The whole page."""
    node = series(usual_page())
    return TEXT.format(
        agent="\n".join(_rows(agent_page())),
        operator="\n".join(_rows(operator_page())),
        node=node,
        nic=series(usual_page(nics=3)) - node,
        group=series(usual_page(groups=2)) - node - 2 * (series(usual_page(nics=3)) - node),
        many=5000 * node,
    )


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
