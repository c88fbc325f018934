"""The operator against a real API server: fake nodes, so no agents; what an agent would report is written by hand."""

from __future__ import annotations

import contextlib
import copy
import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_operator.kube.objects import FIELD_MANAGER, GROUPS_PATH, group_status_intent, read_group
from ipmp_operator.reconciler import RESYNC
from ipmp_service.api_server import ApiError, ApiServer, Kubeconfig
from tests.cluster.cluster import Cluster, condition
from tests.cluster.controlplane import API_SERVER
from tests.cluster.operating import (
    FAKES,
    OperatorProcess,
    data,
    events,
    group_manifest,
    node_groups,
    operating,
    prepare,
    report,
    wait_condition,
    wait_data,
    withdraw,
)
from tests.cluster.product import CHART, NAMESPACE, RELEASE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DEFINITIONS = ("crd", "ipmpgroups.ipmp.dev", "ipmpnodegroups.ipmp.dev")
STEPS = 'ipmp_operator_reconcile_duration_seconds_count{result="success"}'
VERSIONS = "jsonpath={range .items[*]}{.metadata.name} {.metadata.resourceVersion}{end}"


@pytest.fixture
def cluster(fakes: Cluster) -> Cluster:
    """The control plane with fake nodes."""
    return fakes


def agents(cluster: Cluster) -> dict[str, Any]:
    found: list[dict[str, Any]] = cluster.get("daemonsets", "--namespace", NAMESPACE)
    return found[0] if found else {}


def terms(daemonset: dict[str, Any]) -> Any:
    affinity = daemonset.get("spec", {}).get("template", {}).get("spec", {}).get("affinity", {}).get("nodeAffinity", {})
    return affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms")


def managers(thing: dict[str, Any]) -> set[tuple[str, str]]:
    return {(entry["manager"], entry["operation"]) for entry in thing["metadata"]["managedFields"]}


def define(cluster: Cluster) -> None:
    """Install the definitions."""
    cluster.kubectl("apply", "--server-side", "-f", str((CHART / "files/crds").resolve()))
    cluster.kubectl("wait", "--for=condition=Established", *DEFINITIONS, "--timeout=30s")


def strip(cluster: Cluster, node_group: str, field: str = "finalizers") -> None:
    """Take a field off a node group's metadata, as people do by hand."""
    patch = json.dumps({"metadata": {field: None}})
    cluster.kubectl("patch", "ipmpnodegroup", node_group, "--type=merge", "--patch", patch)


def test_group_becomes_a_node_group_on_every_node_and_agents(cluster: Cluster) -> None:
    with operating(cluster) as operator:
        cluster.apply(group_manifest())
        addresses = wait_data(cluster, FAKES)
        assert sorted(text for node in addresses.values() for text in node) == [
            f"198.18.7.{n}/32" for n in range(1, FAKES + 1)
        ]
        one = node_groups(cluster)["fake-0000"]
        assert one["metadata"]["name"] == "data.fake-0000"
        assert one["metadata"]["finalizers"] == ["ipmp.dev/withdraw"]
        assert one["metadata"]["labels"] == {"ipmp.dev/group": "data", "ipmp.dev/node": "fake-0000"}
        assert one["metadata"]["ownerReferences"][0]["uid"] == cluster.get("ipmpgroup", "data")["metadata"]["uid"]
        assert len(one["spec"]["peers"]) == FAKES - 1
        daemonset = cluster.wait(lambda: agents(cluster), what="the agents' DaemonSet")
        assert terms(daemonset) is None, "a group without a node selector is everywhere"
        assert wait_condition(cluster, "data", "Ready", "False")["reason"] in {"Progressing", "AgentsUnavailable"}
        for node in addresses:
            report(cluster, f"data.{node}", observedGeneration=node_groups(cluster)[node]["metadata"]["generation"])
        wait_condition(cluster, "data", "Ready", "True")
        row = cluster.kubectl("get", "ipmp", "data", "--no-headers").split()
        assert row[:5] == ["data", "True", str(FAKES), "0", "0"]
        assert operator.metric('ipmp_operator_groups{state="ready"}') == 1
        assert operator.metric("ipmp_operator_leader") == 1


def test_operator_writes_its_own_fields_and_no_others(cluster: Cluster) -> None:
    with operating(cluster):
        cluster.apply(group_manifest())
        wait_data(cluster, FAKES)
        wait_condition(cluster, "data", "Accepted", "True")
        seen = cluster.get("ipmpgroup", "data", "--show-managed-fields")
        assert "finalizers" not in seen["metadata"]
        ours = [entry for entry in seen["metadata"]["managedFields"] if entry["manager"] == "ipmp-operator"]
        assert [(entry["operation"], entry["subresource"]) for entry in ours] == [("Apply", "status")]
        assert not any("kopf" in key for key in seen["metadata"]["annotations"])

        offline = ("--type=merge", "--field-manager=people", "--patch", '{"spec":{"offline":[{"interface":"net0"}]}}')
        cluster.kubectl("patch", "ipmpnodegroup", "data.fake-0000", *offline)
        cluster.kubectl(
            "patch", "ipmpnodegroup", "data.fake-0001", "--type=merge", "--patch", '{"spec":{"mode":"Observe"}}'
        )
        cluster.apply(group_manifest(failureDetection={"timeMilliseconds": 500}))
        cluster.wait(
            lambda: {one["spec"]["failureDetection"]["timeMilliseconds"] for one in node_groups(cluster).values()},
            lambda seen: seen == {500},
            what="the new detection time everywhere",
        )
        assert node_groups(cluster)["fake-0000"]["spec"]["offline"] == [{"interface": "net0"}], "it is people's"
        assert node_groups(cluster)["fake-0001"]["spec"]["mode"] == "Manage", "it is the operator's"
        whole = cluster.get("ipmpnodegroup", "data.fake-0000", "--show-managed-fields")
        assert managers(whole) == {("ipmp-operator", "Apply"), ("people", "Update")}


def test_addresses_stay_while_nodes_come_and_go_and_operators_change(cluster: Cluster) -> None:
    with operating(cluster):
        cluster.apply(group_manifest())
        before = wait_data(cluster, FAKES)
        cluster.kubectl("delete", "node", "fake-0002")
        cluster.wait(lambda: len(data(cluster)), lambda count: count == FAKES - 1, what="one node group less")
        cluster.control.add_fake_nodes(1, first=77)
        after = wait_data(cluster, FAKES)
        assert after["fake-0077"] != before["fake-0002"], "an address rests before another node gets it"
    assert {node: text for node, text in after.items() if node in before} == {
        node: text for node, text in before.items() if node in after
    }
    cluster.kubectl("delete", "node", "fake-0003")
    with operating(cluster):
        cluster.wait(
            lambda: len(data(cluster)), lambda count: count == FAKES - 1, what="the deletion is caught up with"
        )
        cluster.control.add_fake_nodes(1, first=2)
        last = wait_data(cluster, FAKES)
    assert all(last[node] == text for node, text in after.items() if node in last)
    assert len({text for node in last.values() for text in node}) == FAKES
    cluster.kubectl("delete", "node", "fake-0077")


def test_status_of_a_group_is_refused_by_a_later_one_of_its_name(cluster: Cluster) -> None:
    cluster.apply(group_manifest())
    seen = read_group(cluster.get("ipmpgroup", "data"))
    assert seen is not None
    cluster.kubectl("delete", "ipmpgroup", "data")
    cluster.apply(group_manifest())

    def write() -> None:
        api = ApiServer(Kubeconfig(cluster.control.kubeconfig), FIELD_MANAGER)
        api.apply(f"{GROUPS_PATH}/data/status", group_status_intent(seen, {"observedGeneration": 7}))

    with pytest.raises(ApiError, match="Conflict"):
        cluster.control.namespace.call(write)


def test_older_group_keeps_a_contested_interface(cluster: Cluster) -> None:
    with operating(cluster):
        cluster.apply(group_manifest("old"))
        wait_data(cluster, FAKES, "old")
        cluster.wait(lambda: cluster.get("ipmpgroup", "old")["metadata"]["creationTimestamp"], what="its age")
        cluster.apply(group_manifest("young", interfaces=[{"name": "net1"}, {"name": "net2"}]))
        wait_data(cluster, FAKES, "young")
        accepted = wait_condition(cluster, "young", "Accepted", "False")
        assert accepted["reason"] == "InterfaceConflict"
        assert "net1 on node fake-0000" in accepted["message"]
        left = node_groups(cluster, "young")["fake-0000"]["spec"]["interfaces"]
        assert [one["name"] for one in left] == ["net2"], "the rest of the group works"
        assert condition(cluster.get("ipmpgroup", "old"), "Accepted") == "True"
        (event,) = cluster.wait(lambda: events(cluster, "InterfaceConflict"), what="an event that says so")
        assert event["involvedObject"]["name"] == "young"
        assert event["type"] == "Warning"


def test_exhausted_pool_is_counted_and_takes_from_nobody(cluster: Cluster) -> None:
    with operating(cluster):
        small = {"pools": [{"name": "small", "ranges": ["198.18.7.1-198.18.7.4"]}]}
        cluster.apply(group_manifest(dataAddresses=small))
        degraded = wait_condition(cluster, "data", "Degraded", "True")
        assert degraded["reason"] == "PoolExhausted"
        status = cluster.get("ipmpgroup", "data")["status"]
        assert status["dataAddresses"] == {"total": FAKES, "unavailable": FAKES - 4}
        cluster.wait(lambda: len(data(cluster)), lambda count: count == FAKES, what="node groups on all nodes")
        larger = {"pools": [{"name": "small", "ranges": ["198.18.7.1-198.18.7.9"]}]}
        cluster.apply(group_manifest(dataAddresses=larger))
        wait_data(cluster, FAKES)
        wait_condition(cluster, "data", "Degraded", "False")


def test_nodes_that_lose_a_member_are_one_event_on_their_group(cluster: Cluster) -> None:
    with operating(cluster):
        cluster.apply(group_manifest())
        wait_data(cluster, FAKES)
        cluster.wait(lambda: agents(cluster).get("status", {}).get("numberReady"), lambda n: n == FAKES, what="agents")
        failed = {"name": "net1", "role": "Active", "active": False, "state": "failed", "link": "down", "probe": "ok"}
        for node in sorted(node_groups(cluster))[:3]:
            report(cluster, f"data.{node}", state="degraded", interfaces=[failed])
        group = cluster.get("ipmpgroup", "data")["metadata"]["uid"]

        def told() -> list[tuple[str, str]]:
            found = [one for one in events(cluster, "NodesDegraded") if one["involvedObject"]["uid"] == group]
            return [(one["type"], one["message"]) for one in found]

        said = f"of {FAKES} nodes 3 lack some; failed: net1 on 3; nodes: fake-0000 (GroupDegraded), "
        cluster.wait(
            told,
            lambda seen: any(kind == "Warning" and text.startswith(said) for kind, text in seen),
            what="a summary of all three",
            deadline=150,
        )
        assert "net1 on 3" in cluster.kubectl("describe", "ipmp", "data")
        assert len(told()) <= 2, "one for the first of them, if that was slow, and one for all"


class TestDeletion:
    def test_group_goes_once_every_agent_has_withdrawn(self, cluster: Cluster) -> None:
        with operating(cluster):
            cluster.apply(group_manifest())
            wait_data(cluster, FAKES)
            cluster.kubectl("delete", "ipmpgroup", "data")
            cluster.wait(
                lambda: [one["metadata"].get("deletionTimestamp") for one in node_groups(cluster).values()],
                lambda seen: len(seen) == FAKES and all(seen),
                what="every node group is asked to go",
            )
            assert agents(cluster), "the agents outlive the node groups"
            for node in list(node_groups(cluster))[:-1]:
                withdraw(cluster, f"data.{node}")
            cluster.wait(lambda: len(node_groups(cluster)), lambda count: count == 1, what="all but one have gone")
            assert agents(cluster), "one still needs its agent"
            (last,) = node_groups(cluster)
            withdraw(cluster, f"data.{last}")
            cluster.wait(lambda: node_groups(cluster), lambda left: left == {}, what="all have gone")
            cluster.wait(lambda: agents(cluster), lambda left: left == {}, what="the agents go with the last group")

    def test_node_that_is_gone_holds_nothing_up(self, cluster: Cluster) -> None:
        with operating(cluster):
            cluster.apply(group_manifest())
            wait_data(cluster, FAKES)
            cluster.kubectl("delete", "node", "fake-0001")
            cluster.wait(lambda: set(node_groups(cluster)), lambda seen: "fake-0001" not in seen, what="its node group")

    def test_agent_that_never_answers_is_let_go_with_a_warning(self, cluster: Cluster) -> None:
        with operating(cluster, "--withdraw-timeout", "3"):
            cluster.apply(group_manifest())
            wait_data(cluster, FAKES)
            cluster.kubectl("delete", "ipmpgroup", "data")
            cluster.wait(lambda: node_groups(cluster), lambda left: left == {}, what="the node groups are let go")
            told = cluster.wait(
                lambda: events(cluster, "WithdrawTimeout"), lambda seen: len(seen) == FAKES, what="warnings"
            )
            assert {event["type"] for event in told} == {"Warning"}

    def test_node_that_leaves_the_selector_keeps_its_agent_until_it_has_withdrawn(self, cluster: Cluster) -> None:
        cluster.kubectl("label", "nodes", "fake-0000", "fake-0001", "rack=a")
        try:
            with operating(cluster):
                cluster.apply(group_manifest(nodeSelector={"matchLabels": {"rack": "a"}}))
                wait_data(cluster, 2)
                rack = {"matchExpressions": [{"key": "rack", "operator": "In", "values": ["a"]}]}
                cluster.wait(lambda: terms(agents(cluster)), lambda seen: seen == [rack], what="agents in rack a only")
                cluster.kubectl("label", "node", "fake-0001", "rack-")
                named = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["fake-0001"]}]}
                cluster.wait(
                    lambda: terms(agents(cluster)), lambda seen: seen == [rack, named], what="its agent stays for that"
                )
                assert node_groups(cluster)["fake-0001"]["metadata"]["deletionTimestamp"]
                withdraw(cluster, "data.fake-0001")
                cluster.wait(lambda: set(node_groups(cluster)), lambda seen: seen == {"fake-0000"}, what="gone")
                cluster.wait(lambda: terms(agents(cluster)), lambda seen: seen == [rack], what="so is its agent")
        finally:
            cluster.kubectl("label", "nodes", "fake-0000", "fake-0001", "rack-")


def test_daemonset_that_others_change_or_delete_is_put_right(cluster: Cluster) -> None:
    with operating(cluster):
        cluster.apply(group_manifest())
        before = cluster.wait(lambda: agents(cluster), what="the agents")
        image = before["spec"]["template"]["spec"]["containers"][0]["image"]
        name = before["metadata"]["name"]
        cluster.kubectl("--namespace", NAMESPACE, "set", "image", f"daemonset/{name}", "agent=elsewhere.test/other:1")
        cluster.wait(
            lambda: agents(cluster)["spec"]["template"]["spec"]["containers"][0]["image"],
            lambda seen: seen == image,
            what="the image is ours again",
        )
        cluster.kubectl("--namespace", NAMESPACE, "delete", "daemonset", name)
        cluster.wait(
            lambda: agents(cluster).get("metadata", {}).get("uid"),
            lambda uid: uid not in {None, before["metadata"]["uid"]},
            what="another DaemonSet",
        )


def test_api_server_that_restarts_is_survived(cluster: Cluster) -> None:
    with operating(cluster) as operator:
        cluster.apply(group_manifest())
        before = wait_data(cluster, FAKES)
        cluster.control.restart(API_SERVER)
        cluster.apply(group_manifest("later", interfaces=[{"name": "net5"}]))
        wait_data(cluster, FAKES, "later")
        cluster.kubectl("delete", "node", "fake-0004")
        cluster.wait(lambda: len(data(cluster)), lambda count: count == FAKES - 1, what="nodes are still watched")
        assert operator.process.poll() is None, "it is the same process"
    assert {n: a for n, a in before.items() if n != "fake-0004"} == data(cluster)


@contextlib.contextmanager
def unwatched(cluster: Cluster, operator: OperatorProcess) -> Iterator[None]:
    """What happens meanwhile is told to no watch: the operator stands still, and the API server begins anew."""
    operator.process.send_signal(signal.SIGSTOP)
    try:
        cluster.control.restart(API_SERVER)
        yield
    finally:
        operator.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("let_go", [withdraw, strip])
def test_group_deleted_while_nobody_watched_is_not_brought_back(
    cluster: Cluster, let_go: Callable[[Cluster, str], None]
) -> None:
    """kopf tells nothing of it; made again, its node groups would be deleted and made again without end."""
    with operating(cluster) as operator:
        cluster.apply(group_manifest())
        wait_data(cluster, FAKES)
        known = {one["metadata"]["uid"] for one in node_groups(cluster).values()}
        with unwatched(cluster, operator):
            cluster.kubectl("delete", "ipmpgroup", "data")
            going = "jsonpath={.items[*].metadata.deletionTimestamp}"
            cluster.wait(
                lambda: cluster.kubectl("get", "ipmpnodegroups", "-o", going).split(),
                lambda dates: len(dates) == FAKES,
                what="the garbage collector's work",
                deadline=120,
            )
            for node in node_groups(cluster):
                let_go(cluster, f"data.{node}")
        unknown: list[str] = []

        def left() -> list[str]:
            there = [one["metadata"]["uid"] for one in node_groups(cluster).values()]
            unknown.extend(set(there) - known)
            return there

        cluster.wait(left, lambda uids: uids == [], what="no node groups", deadline=RESYNC / 2)
        cluster.wait(lambda: agents(cluster), lambda found: found == {}, what="no agents", deadline=RESYNC / 2)
        assert not unknown
        assert not left()


def test_what_a_deletion_leaves_is_not_given_back_to_the_group(cluster: Cluster) -> None:
    """With --cascade=orphan the node groups stay, without an owner; given a dead one, they would be collected."""
    with operating(cluster) as operator:
        cluster.apply(group_manifest())
        before = wait_data(cluster, FAKES)
        with unwatched(cluster, operator):
            cluster.kubectl("delete", "ipmpgroup", "data", "--cascade=orphan")
            for node in before:  # a garbage collector that knows no node groups yet leaves that to others
                strip(cluster, f"data.{node}", "ownerReferences")
        cluster.apply(group_manifest("later", interfaces=[{"name": "net5"}]))
        wait_data(cluster, FAKES, "later")
        cluster.kubectl("delete", "ipmpnodegroup", "later.fake-0000", "--wait=false")
        withdraw(cluster, "later.fake-0000")
        cluster.wait(
            lambda: node_groups(cluster, "later").get("fake-0000", {}).get("metadata", {}),
            lambda metadata: metadata and "deletionTimestamp" not in metadata,
            what="a node group that goes was seen, so what is left was, too",
        )
    left = [one["metadata"] for one in node_groups(cluster).values()]
    assert not [one for one in left if "deletionTimestamp" in one or "ownerReferences" in one]
    cluster.apply(group_manifest())
    with operating(cluster):
        cluster.wait(
            lambda: [one["metadata"].get("ownerReferences") for one in node_groups(cluster).values()],
            lambda owners: len(owners) == FAKES and all(owners),
            what="the next group of the name has them",
        )
    assert data(cluster) == before


def test_daemonset_replaced_while_nobody_watched_is_put_right(cluster: Cluster) -> None:
    """Its generation is that of the one before: each begins with 1."""
    with operating(cluster) as operator:
        cluster.apply(group_manifest())
        ours = cluster.wait(lambda: agents(cluster), what="the agents")
        name, image = ours["metadata"]["name"], "elsewhere.test/other:1"
        theirs = copy.deepcopy(ours)
        theirs["metadata"] = {key: ours["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}
        theirs["spec"]["template"]["spec"]["containers"][0]["image"] = image
        with unwatched(cluster, operator):
            cluster.kubectl("--namespace", NAMESPACE, "delete", "daemonset", name)
            cluster.apply(theirs)
        cluster.wait(
            lambda: agents(cluster)["spec"]["template"]["spec"]["containers"][0]["image"],
            lambda seen: seen != image,
            what="the image is ours again",
            deadline=RESYNC / 2,
        )


def test_api_server_that_is_away_for_longer_than_the_lease_is_survived(cluster: Cluster) -> None:
    with operating(cluster) as operator:
        cluster.apply(group_manifest())
        before = wait_data(cluster, FAKES)
        cluster.control.processes.stop(API_SERVER)
        try:
            cluster.wait(lambda: operator.metric("ipmp_operator_leader"), lambda leads: leads == 0, what="no lease")
        finally:
            cluster.control.processes.start(API_SERVER)
            cluster.control.wait_ready()
        operator.wait_leading()  # nobody else took the lease, so it is the same process
        cluster.apply(group_manifest(failback="Disabled"))
        cluster.wait(
            lambda: {one["spec"]["failback"] for one in node_groups(cluster).values()},
            lambda seen: seen == {"Disabled"},
            what="it goes on",
        )
        assert data(cluster) == before


def test_operator_that_slept_while_another_took_the_lease_ends(cluster: Cluster) -> None:
    sleeper = OperatorProcess(cluster, "operator-0").start().wait_leading()
    successor = OperatorProcess(cluster, "operator-1", port=9101).start()
    try:
        sleeper.process.send_signal(signal.SIGSTOP)
        successor.wait_leading()
        sleeper.process.send_signal(signal.SIGCONT)
        assert sleeper.process.wait(30) == 1, sleeper.said()
        assert "another leads" in sleeper.said()
        successor.stop()
    finally:
        for one in (sleeper, successor):
            if one.process.poll() is None:
                one.kill()


def test_of_two_operators_one_leads_and_the_other_takes_over(cluster: Cluster) -> None:
    first = OperatorProcess(cluster, "operator-0").start().wait_leading()
    second = OperatorProcess(cluster, "operator-1", port=9101).start()
    try:
        cluster.apply(group_manifest())
        before = wait_data(cluster, FAKES)
        cluster.wait(
            lambda: second.metric("ipmp_operator_leader"), lambda leads: leads == 0, what="the second one waits"
        )
        first.kill()
        second.wait_leading()
        cluster.kubectl("delete", "node", "fake-0005")
        cluster.wait(lambda: len(data(cluster)), lambda count: count == FAKES - 1, what="the second one works")
        assert all(before[node] == text for node, text in data(cluster).items())
        third = OperatorProcess(cluster, "operator-2").start()
        second.stop()
        third.wait_leading(deadline=14)  # given back, the lease is free at once and not only after 15 s
        third.stop()
    finally:
        for one in (first, second):
            if one.process.poll() is None:
                one.kill()


def test_five_hundred_nodes_are_served_and_then_left_alone(tools: Path) -> None:
    many = 500
    with Cluster() as cluster:  # to remove it is quicker than to delete so many nodes
        cluster.control.add_fake_nodes(many)
        prepare(cluster)
        with operating(cluster) as operator:
            cluster.apply(
                group_manifest("many", dataAddresses={"pools": [{"name": "v4", "ranges": ["198.18.8.0/22"]}]})
            )
            cluster.wait(
                lambda: len(cluster.kubectl("get", "ipmpnodegroups", "-o", "name").splitlines()),
                lambda count: count == many,
                what=f"{many} node groups",
                deadline=120,
            )
            addresses = [text for node in wait_data(cluster, many, "many").values() for text in node]
            assert len(set(addresses)) == many
            status = cluster.wait(
                lambda: cluster.get("ipmpgroup", "many").get("status", {}),
                lambda seen: seen.get("nodes", {}).get("selected") == many,
                what="all nodes counted",
            )
            assert len(status["troubledNodes"]) == 10
            assert len(json.dumps(status)) < 4096, "its size does not grow with the cluster"
            versions = cluster.kubectl("get", "ipmpnodegroups", "-o", VERSIONS)
            done = operator.metric(STEPS)
            cluster.kubectl("label", "node", "fake-0000", "ipmp.test/touched=1")
            cluster.wait(
                lambda: operator.metric(STEPS), lambda now: None not in {now, done} and now > done, what="another pass"
            )
            assert versions == cluster.kubectl("get", "ipmpnodegroups", "-o", VERSIONS), "nothing is written again"


def test_definitions_that_go_are_not_held_up(cluster: Cluster) -> None:
    """What goes with them is let go, also once there is no kind of group any more. Without it, kopf ends."""
    operator = OperatorProcess(cluster, "operator-3").start().wait_leading()
    try:
        cluster.apply(group_manifest())
        going = wait_data(cluster, FAKES)
        cluster.kubectl("delete", *DEFINITIONS, "--wait=false")
        assert operator.process.wait(60) == 1, operator.said()
        operator.start()  # as its kubelet would
        for node in going:
            withdraw(cluster, f"data.{node}")
        cluster.kubectl("wait", "--for=delete", *DEFINITIONS, "--timeout=30s")
    except BaseException:
        print(operator.said())
        raise
    finally:
        operator.kill()
        define(cluster)


def test_definitions_that_come_after_the_operator_are_watched_like_any(cluster: Cluster) -> None:
    soon = RESYNC / 2  # the list that makes up for a watch is not what brings them
    cluster.kubectl("delete", *DEFINITIONS)
    operator = OperatorProcess(cluster).start()
    try:
        cluster.wait(lambda: "page not found" in operator.said(), what="the operator misses them")
        define(cluster)
        operator.wait_leading()
        cluster.apply(group_manifest())
        cluster.wait(lambda: len(data(cluster)), lambda count: count == FAKES, what="node groups", deadline=soon)
    except BaseException:
        print(operator.said())
        raise
    finally:
        operator.stop()


@pytest.mark.parametrize(
    ("verb", "thing", "where"),
    [
        ("get", "secrets", "--all-namespaces"),
        ("list", "configmaps", "--all-namespaces"),
        ("patch", "nodes", ""),
        ("update", "nodes/status", ""),
        ("update", "ipmpgroups.ipmp.dev", ""),
        ("create", "pods", NAMESPACE),
        ("create", "daemonsets.apps", "default"),
    ],
)
@pytest.mark.parametrize("who", ["operator", "agent"])
def test_neither_may_do_what_it_need_not(cluster: Cluster, who: str, verb: str, thing: str, where: str) -> None:
    account = f"--as=system:serviceaccount:{NAMESPACE}:{RELEASE}-{who}"
    thing, _, part = thing.partition("/")  # kubectl takes a slash for a name
    place = [where] if where.startswith("--") else ["--namespace", where] if where else []
    place += [f"--subresource={part}"] if part else []
    assert cluster.try_kubectl("auth", "can-i", verb, thing, account, *place).stdout.strip() == "no"
