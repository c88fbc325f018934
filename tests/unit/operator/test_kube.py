"""What the operator makes of API objects, and what it wants written."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ipmp_api.compile import matches
from ipmp_api.parse import parse_node_group
from ipmp_api.schema import validate
from ipmp_api.status_fields import GROUP_STATUS
from ipmp_operator.core.model import Holder
from ipmp_operator.core.rollup import Findings, roll_up
from ipmp_operator.kube.daemonset import TemplateError, digest, load_template, read_daemonset
from ipmp_operator.kube.groups import GroupCache, parse_selector
from ipmp_operator.kube.lease import LEASE_DURATION, Election
from ipmp_operator.kube.objects import (
    group_status,
    group_status_intent,
    node_group_intent,
    read_agent_pod,
    read_group,
    read_node_group,
)
from ipmp_service.api_server import ApiError
from tests.unit.operator.build import World, api_group, nodes, pool, pools

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER = datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC)


def node_group(**metadata: Any) -> dict[str, Any]:
    world = World([api_group(dataAddresses=pools(pool(prefixLength=24)))])
    world.add_nodes(nodes(1))
    spec = world.plan().desired[Holder("data", "n0000")]
    obj = node_group_intent(spec, "owner-uid")
    obj["metadata"] |= {"uid": "u", "generation": 3, "resourceVersion": "7"} | metadata
    return obj


def test_node_group_reads_back_as_it_was_meant() -> None:
    obj = node_group()
    holder, seen = read_node_group(obj)
    assert holder == Holder("data", "n0000")
    assert seen.spec == parse_node_group(obj)
    assert (seen.owner_uid, seen.generation, seen.finalizer, seen.deleting_since) == ("owner-uid", 3, True, None)
    assert seen.held == (ip_address("198.18.0.1"),)


def test_spec_is_read_once_a_generation() -> None:
    obj = node_group()
    holder, first = read_node_group(obj)
    known = {holder: first}.get
    _, reported = read_node_group(obj | {"status": {"state": "degraded"}}, known)
    assert reported.spec is first.spec
    assert reported.status.state == "degraded"
    for metadata in ({"generation": 4}, {"uid": "another"}, {"generation": 0}):
        assert read_node_group(node_group(**metadata), known)[1].spec is not first.spec


def test_what_people_took_offline_makes_no_difference_to_the_plan() -> None:
    obj = node_group()
    obj["spec"]["offline"] = [{"interface": "eth1"}]
    assert read_node_group(obj)[1].spec == read_node_group(node_group())[1].spec


def test_unreadable_node_group_still_holds_its_addresses() -> None:
    obj = node_group(deletionTimestamp="2026-01-02T03:04:05Z")
    obj["spec"]["mode"] = "Nonsense"
    _, seen = read_node_group(obj)
    assert seen.spec is None
    assert seen.held == (ip_address("198.18.0.1"),)
    assert seen.deleting_since == NOW.timestamp()


@pytest.mark.parametrize(
    "status",
    [
        None,
        [],
        "x",
        {"conditions": "x", "interfaces": {}, "addresses": 7, "observedGeneration": "many"},
        {"conditions": [None, 7], "interfaces": ["x", {"testAddresses": [7, None]}], "addresses": [[], {"address": 7}]},
        {"interfaces": [{"testAddresses": "x"}], "addresses": [{"address": {}, "interface": "eth1"}]},
    ],
)
def test_status_of_whatever_shape_lets_go_of_nothing(status: Any) -> None:
    _, seen = read_node_group(node_group() | {"status": status})
    assert seen.held == (ip_address("198.18.0.1"),)
    assert seen.spec is not None
    assert (seen.status.present, seen.status.withdrawn) == ((), False)


def test_report_of_an_agent_is_read() -> None:
    interfaces = [
        {"name": "eth1", "macAddress": "52:54:00:00:00:01", "state": "failed", "testAddresses": ["198.18.1.1/24"]},
        {"name": "eth2", "state": "ok", "testAddresses": ["198.18.1.2", "fe80::2%eth2", "no address"]},
    ]
    status = {
        "state": "degraded",
        "observedGeneration": 2,
        "interfaces": interfaces,
        "addresses": [
            {"address": "198.18.0.1/24", "state": "up", "interface": "eth2"},
            {"address": "198.18.0.2/24", "state": "down"},
        ],
        "conditions": [
            {"type": "Degraded", "status": "True", "reason": "LinkDown"},
            {"type": "Withdrawn", "status": "False", "reason": "Present"},
        ],
    }
    _, seen = read_node_group(node_group() | {"status": status})
    said = seen.status
    assert (said.state, said.reason, said.observed_generation, said.withdrawn) == ("degraded", "LinkDown", 2, False)
    assert [(i.name, i.failed) for i in said.interfaces] == [("eth1", True), ("eth2", False)]
    assert said.unavailable_addresses == 1
    assert list(map(str, said.present)) == ["198.18.0.1", "198.18.1.1", "198.18.1.2"]


def test_name_of_a_node_that_no_label_can_hold_goes_without_the_label() -> None:
    _, seen = read_node_group(node_group())
    assert seen.spec is not None
    long = node_group_intent(replace(seen.spec, node_name="n" * 64), "u")
    assert long["metadata"]["labels"] == {"ipmp.dev/group": "data"}


@pytest.mark.parametrize(
    ("conditions", "deleted", "ready"),
    [
        ([{"type": "Ready", "status": "True"}], False, True),
        ([{"type": "Ready", "status": "False"}], False, False),
        ([{"type": "Ready", "status": "True"}], True, False),
        ([], False, False),
    ],
)
def test_agent_is_ready_when_its_pod_is_and_stays(conditions: list[Any], deleted: bool, ready: bool) -> None:
    metadata = {"uid": "u"} | ({"deletionTimestamp": "2026-01-02T03:04:05Z"} if deleted else {})
    pod = {"metadata": metadata, "spec": {"nodeName": "n1"}, "status": {"conditions": conditions}}
    assert read_agent_pod(pod) == ("u", ("n1", ready))


class TestGroupStatus:
    def rollup(self, invalid: str = "") -> Any:
        return roll_up((), Findings(invalid=invalid))

    def test_same_verdicts_make_the_same_status_whenever(self) -> None:
        first = group_status(self.rollup(), 1, {}, NOW)
        assert group_status(self.rollup(), 1, first, LATER) == first

    def test_transition_time_is_that_of_the_last_change_of_status(self) -> None:
        first = group_status(self.rollup(), 1, {}, NOW)
        second = group_status(self.rollup("spec is wrong"), 2, first, LATER)
        times = {one["type"]: one["lastTransitionTime"] for one in second["conditions"]}
        assert times["Accepted"] == "2026-01-02T03:04:06Z"
        assert times["Ready"] == "2026-01-02T03:04:05Z"
        assert second["observedGeneration"] == 2

    def test_status_is_of_the_group_as_it_was_seen(self) -> None:
        seen = read_group(group_object(version=7))
        assert seen is not None
        assert group_status_intent(seen, {})["metadata"] == {"name": "data", "resourceVersion": "7"}

    def test_long_reason_is_cut_to_what_the_api_server_takes(self) -> None:
        status = group_status(self.rollup("spec.dataAddresses.pools: many faults; " * 200), 1, {}, NOW)
        assert not list(validate(GROUP_STATUS, status, "status", strict=True))

    def test_unreadable_status_is_replaced(self) -> None:
        assert group_status(self.rollup(), 1, {"conditions": [{"type": "Ready"}]}, NOW)["conditions"]


def group_object(name: str = "data", uid: str = "u1", version: int = 1, **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "uid": uid, "resourceVersion": str(version), "generation": 1} | more.pop("metadata", {})
    spec = {"interfaces": [{"name": "eth1"}]} | more
    return {"apiVersion": "ipmp.dev/v1alpha1", "kind": "IPMPGroup", "metadata": metadata, "spec": spec}


def test_group_that_cannot_be_read_says_why_and_one_that_goes_is_gone() -> None:
    broken = read_group(group_object(mode="Nonsense"))
    assert broken is not None
    assert broken.group is None
    assert "spec.mode" in broken.invalid
    assert read_group(group_object(metadata={"deletionTimestamp": "2026-01-02T03:04:05Z"})) is None


class Listing:
    """Stands where the API server does in a list of groups."""

    def __init__(self, version: int, *objects: dict[str, Any]) -> None:
        self.answer = (list(objects), str(version))

    def list_all(self, path: str, query: dict[str, str]) -> tuple[list[dict[str, Any]], str]:
        return self.answer


class Refusing:
    """Stands where the API server does that answers a list with an error."""

    def __init__(self, status: int, *groups: str, resources: tuple[str, ...] = ()) -> None:
        self.status = status
        self.says: dict[str, dict[str, Any]] = {
            "/apis": {"kind": "APIGroupList", "groups": [{"name": name} for name in groups]},
            "/apis/ipmp.dev/v1alpha1": {"kind": "APIResourceList", "resources": [{"name": r} for r in resources]},
        }

    def list_all(self, path: str, query: dict[str, str]) -> Any:
        raise ApiError(self.status, "", "")

    def get(self, path: str) -> Any:
        return self.says[path]


@pytest.mark.parametrize(
    ("text", "labels", "selected"),
    [
        ("a=1", {"a": "1", "b": "2"}, True),
        ("a=1", {"a": "2"}, False),
        ("a=1, b=", {"a": "1", "b": ""}, True),
        ("!a", {"b": "1"}, True),
        ("!a,b=1", {"a": "", "b": "1"}, False),
    ],
)
def test_selector_of_groups(text: str, labels: dict[str, str], selected: bool) -> None:
    assert matches(parse_selector(text), labels) is selected


@pytest.mark.parametrize("text", ["", "a", "=1", "!", "!a=1", "a=1,,b=2"])
def test_selector_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        parse_selector(text)


def test_spec_that_is_what_was_planned_is_that_very_value() -> None:
    world = World([api_group(dataAddresses=pools(pool()))])
    world.add_nodes(nodes(3))
    for holder, spec in world.plan().desired.items():
        obj = node_group_intent(spec, "u")
        obj["metadata"] |= {"uid": "n", "generation": 1}
        found, seen = read_node_group(obj, expected={holder: spec}.get)
        assert (found, seen.spec, seen.held) == (holder, spec, tuple(a.address.ip for a in spec.data_addresses))
        assert seen.spec is spec
        obj["spec"]["offline"] = [{"interface": "eth1"}]
        _, seen = read_node_group(obj, expected={holder: spec}.get)
        assert seen.spec == spec
        obj["spec"]["failback"] = "Disabled"
        _, seen = read_node_group(obj, expected={holder: spec}.get)
        assert seen.spec != spec


class TestGroupCache:
    def names(self, cache: GroupCache) -> set[str]:
        return {one.name for one in cache.snapshot()}

    def test_group_deleted_while_nobody_watched_goes_with_the_next_list(self) -> None:
        cache = GroupCache()
        cache.observe(None, group_object(version=5))
        assert not cache.synced
        assert cache.refresh(Listing(9))  # type: ignore[arg-type]
        assert cache.synced
        assert self.names(cache) == set()

    def test_group_created_after_the_list_was_read_stays(self) -> None:
        cache = GroupCache()
        cache.observe("ADDED", group_object(version=12))
        cache.refresh(Listing(9))  # type: ignore[arg-type]
        assert self.names(cache) == {"data"}

    def test_group_deleted_after_the_list_was_read_does_not_come_back(self) -> None:
        cache = GroupCache()
        cache.observe("ADDED", group_object(version=5))
        cache.observe("DELETED", group_object(version=12))
        cache.refresh(Listing(9, group_object(version=5)))  # type: ignore[arg-type]
        assert self.names(cache) == set()
        cache.refresh(Listing(20))  # type: ignore[arg-type]
        assert self.names(cache) == set()

    def test_late_deletion_of_a_namesake_does_not_take_the_new_group(self) -> None:
        cache = GroupCache()
        cache.observe("ADDED", group_object(version=5))
        cache.observe("ADDED", group_object(uid="u2", version=8))
        cache.observe("DELETED", group_object(version=7))
        assert [one.uid for one in cache.snapshot()] == ["u2"]

    def test_namesake_takes_the_place_of_a_group_whose_deletion_nobody_told(self) -> None:
        cache = GroupCache()
        cache.observe("ADDED", group_object(version=5))
        assert cache.observe("ADDED", group_object(uid="u2", version=8))
        assert [one.uid for one in cache.snapshot()] == ["u2"], "a plan for both would give every node new addresses"
        assert not cache.observe("MODIFIED", group_object(version=6)), "an event of before"
        assert [one.uid for one in cache.snapshot()] == ["u2"]

    def test_group_of_another_operator_is_absent_from_when_its_label_says_so(self) -> None:
        cache = GroupCache(parse_selector("shard=left"))
        there, other = group_object(version=5), group_object(uid="u2", version=6)
        there["metadata"]["labels"] = {"shard": "left"}
        other["metadata"] |= {"name": "other", "labels": {"shard": "right"}}
        cache.refresh(Listing(9, there, other))  # type: ignore[arg-type]
        assert self.names(cache) == {"data"}
        moved = group_object(version=10)
        assert cache.observe("MODIFIED", moved)
        assert self.names(cache) == set()
        moved = group_object(version=11)
        moved["metadata"]["labels"] = {"shard": "left"}
        assert cache.observe("MODIFIED", moved)
        assert self.names(cache) == {"data"}

    def test_event_that_changes_nothing_is_no_change(self) -> None:
        cache = GroupCache()
        assert cache.observe("ADDED", group_object(version=5))
        assert not cache.observe("MODIFIED", group_object(version=6))
        assert not cache.observe("MODIFIED", group_object(version=4, mode="Observe")), "an old event"

    def test_list_that_fails_changes_nothing(self) -> None:
        cache = GroupCache()
        cache.observe("ADDED", group_object(version=5))
        with pytest.raises(ApiError):
            cache.refresh(Refusing(0))  # type: ignore[arg-type]
        assert self.names(cache) == {"data"}
        assert not cache.synced

    @pytest.mark.parametrize(
        "server",
        [
            Refusing(404, "apps"),
            Refusing(404, "apps", "ipmp.dev"),
            Refusing(404, "ipmp.dev", resources=("ipmpnodegroups",)),
        ],
    )
    def test_groups_go_with_their_kind(self, server: Refusing) -> None:
        cache = GroupCache()
        cache.observe("ADDED", group_object(version=5))
        assert cache.refresh(server)  # type: ignore[arg-type]
        assert self.names(cache) == set()
        assert cache.synced

    def test_groups_stay_where_whoever_finds_none_knows_their_kind(self) -> None:
        cache = GroupCache()
        cache.observe("ADDED", group_object(version=5))
        with pytest.raises(ApiError):
            cache.refresh(Refusing(404, "ipmp.dev", resources=("ipmpgroups",)))  # type: ignore[arg-type]
        assert self.names(cache) == {"data"}

    @pytest.mark.parametrize(
        "answer", [{}, {"kind": "APIGroupList"}, {"kind": "Status"}, {"kind": "APIGroupList", "groups": None}]
    )
    def test_groups_stay_where_nobody_can_say_whether_their_kind_is_there(self, answer: dict[str, Any]) -> None:
        cache = GroupCache()
        cache.observe("ADDED", group_object(version=5))
        confused = Refusing(404)
        confused.says["/apis"] = {"kind": ""} | answer
        with pytest.raises(ApiError):
            cache.refresh(confused)  # type: ignore[arg-type]
        assert self.names(cache) == {"data"}


class TestElection:
    def lease(self, holder: str = "other", renewed: str = "t0", **more: Any) -> dict[str, Any]:
        return {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 15} | more

    def test_lease_of_another_is_taken_after_it_stood_still_for_its_duration(self) -> None:
        me = Election("me")
        assert not me.may_take(self.lease(), 100.0)
        assert not me.may_take(self.lease(), 100.0 + LEASE_DURATION - 0.1)
        assert me.may_take(self.lease(), 100.0 + LEASE_DURATION)

    def test_renewal_starts_the_wait_again_whatever_the_other_clock_says(self) -> None:
        me = Election("me")
        assert not me.may_take(self.lease(renewed="1999-01-01"), 100.0)
        assert not me.may_take(self.lease(renewed="1999-01-02"), 114.0)
        assert not me.may_take(self.lease(renewed="1999-01-02"), 128.9)
        assert me.may_take(self.lease(renewed="1999-01-02"), 129.0)

    def test_free_lease_and_own_lease_are_taken_at_once(self) -> None:
        assert Election("me").may_take(self.lease(holder=""), 0.0)
        assert Election("me").may_take(self.lease(holder="me"), 0.0)

    def test_taking_counts_a_transition_and_renewing_does_not(self) -> None:
        me = Election("me")
        taken = me.claim(self.lease(leaseTransitions=4, acquireTime="then"), NOW)
        assert (taken["leaseTransitions"], taken["acquireTime"]) == (5, taken["renewTime"])
        renewed = me.claim(taken, LATER)
        assert (renewed["leaseTransitions"], renewed["acquireTime"]) == (5, taken["acquireTime"])
        assert renewed["renewTime"] > taken["renewTime"]

    @pytest.mark.parametrize(
        ("holder", "transitions", "ours"), [("me", 5, True), ("other", 6, False), ("", 6, False), ("me", 7, False)]
    )
    def test_lease_is_held_only_if_nobody_had_it_in_between(self, holder: str, transitions: int, ours: bool) -> None:
        assert Election("me").holds(self.lease(holder, leaseTransitions=transitions), 5) is ours


class TestTemplate:
    def manifest(self) -> dict[str, Any]:
        labels = {"app": "agent"}
        return {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "agents"},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": dict(labels)},
                    "spec": {"containers": [{"name": "agent", "image": "a:1"}]},
                },
            },
        }

    def load(self, tmp_path: Path, manifest: Any, image: str | None = None) -> Any:
        path = tmp_path / "daemonset.yaml"
        path.write_text(yaml.safe_dump(manifest), encoding="utf-8")
        return load_template(path, "system", image)

    def test_intent_carries_place_owner_and_image(self, tmp_path: Path) -> None:
        template = self.load(tmp_path, self.manifest(), "b:2")
        term = {"matchExpressions": [{"key": "rack", "operator": "Exists"}]}
        intent = template.intent((term,), {"name": "operator"})
        name, seen = read_daemonset(intent | {"metadata": intent["metadata"] | {"uid": "u", "generation": 2}})
        assert (name, seen.terms, seen.generation) == ("agents", (term,), 2)
        assert intent["metadata"]["namespace"] == "system"
        assert intent["metadata"]["ownerReferences"] == [{"name": "operator"}]
        assert intent["spec"]["template"]["spec"]["containers"][0]["image"] == "b:2"
        assert digest(intent) != digest(template.intent(None, {"name": "operator"}))
        assert digest(intent) == digest(template.intent((term,), {"name": "operator"}))

    def restricted(self, *terms: dict[str, Any]) -> dict[str, Any]:
        manifest = self.manifest()
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}
        manifest["spec"]["template"]["spec"]["affinity"] = {"nodeAffinity": required, "podAffinity": {"x": []}}
        return manifest

    def test_what_the_template_asks_of_nodes_holds_in_every_term(self, tmp_path: Path) -> None:
        bare = {"key": "virtual", "operator": "DoesNotExist"}
        template = self.load(tmp_path, self.restricted({"matchExpressions": [bare]}))
        by_rack = {"matchExpressions": [{"key": "rack", "operator": "Exists"}]}
        by_name = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
        intent = template.intent((by_rack, by_name), None)
        seen = read_daemonset(intent | {"metadata": intent["metadata"] | {"uid": "u", "generation": 2}})[1]
        assert seen.terms == (
            {"matchExpressions": [*by_rack["matchExpressions"], bare]},
            by_name | {"matchExpressions": [bare]},
        )
        assert intent["spec"]["template"]["spec"]["affinity"]["podAffinity"] == {"x": []}
        assert template.group_terms(seen.terms) == (by_rack, by_name), "so that a kept term does not grow"
        assert digest(template.intent(template.group_terms(seen.terms), None)) == digest(intent)

    def test_agents_on_every_node_are_on_every_node_that_the_template_allows(self, tmp_path: Path) -> None:
        bare = {"matchExpressions": [{"key": "virtual", "operator": "DoesNotExist"}]}
        template = self.load(tmp_path, self.restricted(bare))
        intent = template.intent(None, None)
        seen = read_daemonset(intent | {"metadata": intent["metadata"] | {"uid": "u", "generation": 2}})[1]
        assert seen.terms == (bare,)
        assert template.group_terms(seen.terms) is None
        assert template.group_terms(None) is None

    @pytest.mark.parametrize(
        "terms",
        [
            ({"matchExpressions": []}, {"matchExpressions": []}),
            ({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]},),
        ],
    )
    def test_template_whose_affinity_cannot_be_joined_is_refused(self, tmp_path: Path, terms: Any) -> None:
        with pytest.raises(TemplateError, match="one required node selector term"):
            self.load(tmp_path, self.restricted(*terms))

    @pytest.mark.parametrize(
        ("spoil", "words"),
        [
            (lambda m: m.update(kind="Deployment"), "not a DaemonSet"),
            (lambda m: m["metadata"].pop("name"), "'name'"),
            (lambda m: m["spec"]["selector"]["matchLabels"].update(other="x"), "does not select"),
            (lambda m: m["spec"]["template"]["spec"]["containers"][0].update(name="x"), "named 'agent', found 0"),
            (lambda m: m["spec"].pop("template"), "'template'"),
        ],
    )
    def test_template_that_cannot_work_is_refused_with_the_reason(self, tmp_path: Path, spoil: Any, words: str) -> None:
        manifest = self.manifest()
        spoil(manifest)
        with pytest.raises(TemplateError, match=words):
            self.load(tmp_path, manifest)

    def test_missing_file_and_broken_yaml_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(TemplateError, match=r"absent\.yaml"):
            load_template(tmp_path / "absent.yaml", "system", None)
        (tmp_path / "broken.yaml").write_text("a: [", encoding="utf-8")
        with pytest.raises(TemplateError, match=r"broken\.yaml"):
            load_template(tmp_path / "broken.yaml", "system", None)
