"""The main job, end to end: a NIC fails, its addresses answer from the other, and everybody says so."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import pytest

from tests import invariants
from tests.cluster.cluster import condition
from tests.cluster.product import TEST_POOL, Applied, agent_pod

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster.cluster import Cluster

DETECTION_TIME = 1.0
FAULTS = {"cable": ("unplug", "plug"), "silence": ("silence", "restore")}


@pytest.fixture
def data(installed: Cluster) -> Iterator[Applied]:
    with Applied(installed, "data") as applied:
        yield applied


def give_wrong_verdicts_their_time(detection_times: float = 4) -> None:
    threading.Event().wait(detection_times * DETECTION_TIME)


def group_condition(cluster: Cluster, name: str, kind: str) -> str | None:
    return condition(cluster.get("ipmpgroup", name), kind)


@pytest.mark.parametrize("fault", FAULTS)
def test_failed_nic_hands_its_addresses_over_and_takes_them_back(data: Applied, fault: str) -> None:
    cluster = data.cluster
    fail, repair = FAULTS[fault]
    watched = [data.addresses("n1", family)[0] for family in (4, 6)]
    broken = data.holder("n1", watched[0])
    lost_with_it = [address for address, homes in data.homes("n1").items() if homes == (broken.name,)]
    pings = [data.ping("n1", address) for address in watched]
    streams = [data.stream("n1", address) for address in watched]
    moves = data.metric("n1", "ipmp_address_moves_total", group="data")
    failures = data.metric("n1", "ipmp_interface_failures_total", group="data", interface=broken.name)

    getattr(broken, fail)()
    for address in lost_with_it:
        data.wait_moved("n1", address, broken)
    for traffic in pings:
        traffic.wait_answered(20)
    view = data.wait_state("n1", "degraded")
    assert {member.name for member in view.members if not member.usable} == {broken.name}
    assert set(view.addresses.values()) == {data.other(broken).name}
    cluster.wait(lambda: group_condition(cluster, "data", "Degraded"), lambda seen: seen == "True", what="Degraded")
    header, row = (line.split() for line in cluster.kubectl("get", "ipmp", "data").splitlines())
    told_people = dict(zip(header, row, strict=True))
    assert (told_people["NODES"], told_people["DEGRADED"], told_people["FAILED"]) == ("2", "1", "0")
    told = cluster.wait(
        lambda: [
            event
            for event in data.events("LinkDown" if fault == "cable" else "ProbesLost")
            if broken.name in event["message"]
        ],
        what=f"an Event that names {broken.name} and the reason",
    )
    assert {event["type"] for event in told} == {"Warning"}
    said = f"IPMP group data: {broken.name}: {'LinkDown' if fault == 'cable' else 'ProbesLost'}"
    cluster.wait(lambda: said in cluster.kubectl("describe", "node", "n1"), what="an Event where people look first")
    assert data.metric("n1", "ipmp_address_moves_total", group="data") >= moves + len(lost_with_it)
    assert data.metric("n1", "ipmp_interface_failures_total", group="data", interface=broken.name) == failures + 1
    assert data.view("n2").state == "ok", "the other node has nothing to do with it"

    getattr(broken, repair)()
    view = data.wait_state("n1", "ok", deadline=90)
    assert broken.name in view.addresses.values(), "failback: both members carry addresses again"
    cluster.wait(lambda: group_condition(cluster, "data", "Degraded"), lambda seen: seen == "False", what="no longer")
    for traffic in pings:
        traffic.wait_answered(20)
    for stream in streams:
        stream.wait_received(20)
        assert stream.stop().error is None


def test_dead_target_moves_nothing_on_any_node(data: Applied) -> None:
    data.wait_kept()
    homes = {node: data.homes(node) for node in data.cluster.nodes}
    target = data.cluster.network.peers[0]
    target.ignore_probes()
    try:
        give_wrong_verdicts_their_time()
        for node, before in homes.items():
            invariants.nothing_moved(before, data.homes(node), "a target that answers no more")
            assert data.view(node).state == "ok"
    finally:
        target.ignore_probes(ignore=False)


def test_all_targets_dead_is_a_group_failure_and_moves_nothing(installed: Cluster) -> None:
    peers = installed.network.peers
    pins = [peers[0].ipv4, peers[1].ipv4]
    sources = {"addresses": pins, "routers": "Disabled", "peers": "Disabled"}
    spec = {"probes": {"targets": sources}, "testAddresses": {"ipv4": {"pool": TEST_POOL}, "ipv6": "Disabled"}}
    with Applied(installed, "lonely", spec) as lonely:
        lonely.wait_kept()
        homes = lonely.homes("n1")
        for peer in peers:
            peer.ignore_probes()
        try:
            lonely.cluster.wait(
                lambda: lonely.view("n1").state, lambda state: state == "failed", what="group failure", deadline=30
            )
            give_wrong_verdicts_their_time(2)
            invariants.nothing_moved(homes, lonely.homes("n1"), "the death of all targets")
            assert lonely.events("GroupFailed")
        finally:
            for peer in peers:
                peer.ignore_probes(ignore=False)
        lonely.wait_state("n1", "ok")


def test_peers_are_probed_over_ipv6_where_their_agents_say_that_they_answer(installed: Cluster) -> None:
    spec = {"probes": {"targets": {"routers": "Disabled"}}}
    with Applied(installed, "mutual", spec) as mutual:

        def probed(node: str) -> set[str]:
            members = mutual.node_group(node).get("status", {}).get("interfaces", ())
            targets = [target for member in members for target in member.get("targets", ())]
            return {target["address"] for target in targets if target["state"] == "active"}

        def answering(node: str) -> set[str]:
            members = mutual.node_group(node).get("status", {}).get("interfaces", ())
            return {text for member in members for text in member.get("testAddresses", ()) if text.startswith("fe80:")}

        for node, other in (("n1", "n2"), ("n2", "n1")):
            assert mutual.node_group(node)["spec"]["peerNodes"] == [other]
            assert not any(text.startswith("fe80:") for text in mutual.node_group(node)["spec"]["peers"])
            installed.wait(
                lambda one=node, two=other: probed(one) & answering(two),  # type: ignore[misc]
                what=f"{node} probes {other} over IPv6",
                deadline=120,
            )
            mutual.wait_state(node, "ok")


def test_killed_agent_and_a_new_pod_move_no_address(data: Applied) -> None:
    cluster = data.cluster
    homes = data.homes("n1")
    traffic = data.ping("n1", data.addresses("n1", 4)[0])
    cluster.nodes["n1"].signal("ipmp-agent", signal.SIGKILL)

    def restarts() -> int:
        statuses = agent_pod(cluster, "n1").get("status", {}).get("containerStatuses", ())
        return sum(one["restartCount"] for one in statuses if one["ready"])

    cluster.wait(restarts, what="the container restarted and ready")
    invariants.nothing_moved(homes, data.homes("n1"), "SIGKILL of the agent")

    old = agent_pod(cluster, "n1")["metadata"]
    cluster.kubectl("--namespace", old["namespace"], "delete", "pod", old["name"])
    cluster.wait(
        lambda: agent_pod(cluster, "n1"),
        lambda pod: pod and pod["metadata"]["uid"] != old["uid"] and condition(pod, "Ready") == "True",
        what="a new agent pod, ready",
    )
    invariants.nothing_moved(homes, data.homes("n1"), "a new pod of the agent")
    data.wait_state("n1", "ok")
    assert traffic.stop().lost == 0

    # And the new one does the work.
    address = data.addresses("n1", 4)[0]
    broken = data.holder("n1", address)
    broken.unplug()
    data.wait_moved("n1", address, broken)


@pytest.mark.parametrize("outage", ["hangs", "is dead"])
def test_failover_needs_no_api_server_and_status_catches_up(
    data: Applied, outage: str, later: Callable[..., object]
) -> None:
    processes = data.cluster.processes
    address = data.addresses("n1", 4)[0]
    broken = data.holder("n1", address)
    traffic = data.ping("n1", address)
    data.wait_kept()
    if outage == "hangs":
        processes.signal("kube-apiserver", signal.SIGSTOP)
        later(revive_hung, data.cluster)
    else:
        processes.stop("kube-apiserver", patience=0)
        later(revive_dead, data.cluster)

    broken.unplug()
    data.wait_moved("n1", address, broken)
    traffic.wait_answered(20)

    (revive_hung if outage == "hangs" else revive_dead)(data.cluster)
    view = data.wait_state("n1", "degraded", deadline=90)
    assert {member.name for member in view.members if not member.usable} == {broken.name}


def revive_hung(cluster: Cluster) -> None:
    cluster.processes.signal("kube-apiserver", signal.SIGCONT)
    cluster.control.wait_ready()


def revive_dead(cluster: Cluster) -> None:
    if not cluster.processes["kube-apiserver"].alive():
        cluster.processes.start("kube-apiserver")
    cluster.control.wait_ready()
