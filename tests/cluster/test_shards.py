"""Two operators beside each other, each with groups of its own, as the chart sets up shards."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.operating import (
    FAKES,
    OperatorProcess,
    group_manifest,
    node_groups,
    report,
    wait_condition,
    wait_data,
)
from tests.cluster.product import NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.cluster import Cluster

SELECTORS = {"left": ("shard=left", "everywhere"), "rest": ("!shard", "elsewhere")}
NICS = {"left": ("net0", "net1"), "rest": ("net2", "net3")}
POOLS = {"left": "198.18.8.1-198.18.8.99", "rest": "198.18.9.1-198.18.9.99"}


def group(shard: str, **spec: Any) -> dict[str, Any]:
    """A group of this shard."""
    pool = {"name": "v4", "ranges": [POOLS[shard]]}
    spec |= {"interfaces": [{"name": nic} for nic in NICS[shard]], "dataAddresses": {"pools": [pool]}}
    labels = {"shard": shard} if shard == "left" else {}
    return group_manifest(shard, created_with={"labels": labels}, **spec)


def detection_times(cluster: Cluster, shard: str) -> set[int]:
    return {one["spec"]["failureDetection"]["timeMilliseconds"] for one in node_groups(cluster, shard).values()}


def operator(cluster: Cluster, shard: str, port: int) -> OperatorProcess:
    selector, agents = SELECTORS[shard]
    flags = (f"--group-selector={selector}", f"--agents={agents}", f"--lease-name=shard-{shard}")
    return OperatorProcess(cluster, name=f"operator-{shard}", flags=flags, port=port)


@pytest.fixture
def shards(fakes: Cluster) -> Iterator[dict[str, OperatorProcess]]:
    """Both operators, each of which leads its own shard."""
    # The chart gives each shard the right to its own lease; this cluster has the roles of one operator.
    leases = ("--verb=get,create,update", "--resource=leases.coordination.k8s.io")
    fakes.kubectl("--namespace", NAMESPACE, "create", "role", "shards", *leases)
    subject = f"--serviceaccount={NAMESPACE}:ipmp-operator"
    fakes.kubectl("--namespace", NAMESPACE, "create", "rolebinding", "shards", "--role=shards", subject)
    with contextlib.ExitStack() as stack:
        stack.callback(fakes.kubectl, "--namespace", NAMESPACE, "delete", "role,rolebinding", "shards")
        found = {shard: operator(fakes, shard, 9100 + at).start() for at, shard in enumerate(SELECTORS)}
        for one in found.values():
            stack.callback(one.kill)
            one.wait_leading()
        yield found


def test_each_group_belongs_to_one_of_two_operators_and_the_agents_to_the_first(
    fakes: Cluster, shards: dict[str, OperatorProcess]
) -> None:
    fakes.apply(group("left"), group("rest"))
    for shard in SELECTORS:
        addresses = wait_data(fakes, FAKES, shard)
        for node in addresses:
            report(fakes, f"{shard}.{node}", observedGeneration=1)
        wait_condition(fakes, shard, "Ready", "True")

    place = ("daemonsets", "--namespace", NAMESPACE)
    (daemonset,) = fakes.wait(lambda: fakes.get(*place), what="the agents' DaemonSet")
    assert "affinity" not in daemonset["spec"]["template"]["spec"], "agents are everywhere"
    assert daemonset["metadata"]["generation"] == 1, "nobody fights over it"
    assert "DaemonSet is applied" not in shards["rest"].said()

    # What one of them does not do alone: its groups wait for it, and keep what they have.
    before = {node: one["spec"] for node, one in node_groups(fakes, "rest").items()}
    shards["rest"].stop()
    fakes.apply(group("rest", failureDetection={"timeMilliseconds": 700}))
    fakes.apply(group("left", failureDetection={"timeMilliseconds": 600}))
    fakes.wait(lambda: detection_times(fakes, "left"), {600}.__eq__, what="the change of the other's group")
    assert {node: one["spec"] for node, one in node_groups(fakes, "rest").items()} == before
    shards["rest"].start().wait_leading()
    fakes.wait(lambda: detection_times(fakes, "rest"), {700}.__eq__, what="the change that waited")
    for node, one in node_groups(fakes, "rest").items():
        assert one["spec"]["dataAddresses"] == before[node]["dataAddresses"]

    # A group that gets another label is another operator's, with all that it has.
    fakes.kubectl("label", "ipmpgroup", "rest", "shard=left")
    fakes.apply(group("rest", failureDetection={"timeMilliseconds": 800}) | {"metadata": _moved()})
    fakes.wait(lambda: detection_times(fakes, "rest"), {800}.__eq__, what="a change by its new operator")
    for node, one in node_groups(fakes, "rest").items():
        assert one["spec"]["dataAddresses"] == before[node]["dataAddresses"]
    (daemonset,) = fakes.get(*place)
    assert daemonset["metadata"]["generation"] == 1


def _moved() -> dict[str, Any]:
    return {"name": "rest", "labels": {"shard": "left"}}
