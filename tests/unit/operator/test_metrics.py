"""The operator's metrics page: what the last plan says of each group and pool."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ipmp_operator.core.model import NodeGroupReport
from ipmp_operator.metrics import Metrics
from tests.unit.operator.build import World, api_group, nodes, pool, pools

if TYPE_CHECKING:
    from ipmp_operator.core.plan import Plan


def shown(planned: Plan) -> dict[tuple[str, frozenset[str]], float]:
    metrics = Metrics(lambda: 0.0)
    metrics.show(planned)
    text = generate_latest(metrics.registry).decode()
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def world(count: int = 3, ranges: str = "198.18.0.1-198.18.0.4") -> World:
    made = World(groups=[api_group(dataAddresses=pools(pool(ranges=ranges, per_node=1)))])
    made.add_nodes(nodes(count))
    made.agents = frozenset(made.nodes)
    return made


def test_pool_use_is_shown_before_it_is_exhausted() -> None:
    found = shown(world().settle())
    assert found["ipmp_operator_pool_addresses", frozenset({"data", "v4"})] == 4
    assert found["ipmp_operator_pool_addresses_allocated", frozenset({"data", "v4"})] == 3


def test_pool_of_test_addresses_is_shown_too() -> None:
    made = world()
    test = {"ipv4": {"pool": {"ranges": ["198.18.1.1-198.18.1.10"], "prefixLength": 24}}}
    made.groups = [api_group(testAddresses=test)]
    found = shown(made.settle())
    assert found["ipmp_operator_pool_addresses", frozenset({"data", "testAddresses.ipv4"})] == 10
    assert found["ipmp_operator_pool_addresses_allocated", frozenset({"data", "testAddresses.ipv4"})] == 6


def test_nodes_are_counted_by_state_and_those_behind_apart() -> None:
    made = world()
    made.settle()
    for number, (holder, seen) in enumerate(sorted(made.there.items())):
        status = NodeGroupReport(("ok", "degraded", "failed")[number], observed_generation=number and seen.generation)
        made.there[holder] = replace(seen, status=status)
    found = shown(made.plan())
    counts = {state: found["ipmp_operator_group_nodes", frozenset({"data", state})] for state in STATES}
    assert counts == {"ready": 1, "degraded": 1, "failed": 1, "unknown": 0, "behind": 1}


STATES = ("ready", "degraded", "failed", "unknown", "behind")


def test_conditions_name_the_group_and_the_reason_while_somebody_should_look() -> None:
    made = world(ranges="198.18.0.1-198.18.0.2")
    made.settle()
    for holder, seen in made.there.items():
        made.there[holder] = replace(seen, status=NodeGroupReport("ok", observed_generation=seen.generation))
    found = shown(made.plan())
    conditions = {labels for name, labels in found if name == "ipmp_operator_group_condition"}
    assert conditions == {
        frozenset({"data", "Ready", "PoolExhausted"}),
        frozenset({"data", "Degraded", "PoolExhausted"}),
    }


def test_group_that_is_gone_leaves_no_series_behind() -> None:
    made = world()
    made.settle()
    made.groups = []
    assert not [
        name for name, _ in shown(made.plan()) if name.startswith(("ipmp_operator_group_", "ipmp_operator_pool"))
    ]
