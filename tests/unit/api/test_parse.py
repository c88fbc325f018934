"""Manifests to values and back; what is refused, with which words."""

import copy
import json
from ipaddress import ip_address, ip_interface
from typing import Any

import pytest

from ipmp_api.errors import REQUIRED, UNKNOWN, FieldError, ValidationError
from ipmp_api.parse import node_group_spec, parse_group, parse_node_group
from ipmp_api.types import (
    AddressRange,
    DataAddresses,
    DeletionPolicy,
    Existing,
    FailureDetection,
    Group,
    GroupInterface,
    InterfaceMatch,
    LabelRequirement,
    LabelSelector,
    Mode,
    NodeGroup,
    Policies,
    Pool,
    Role,
    Switch,
    TestAddresses,
)
from tests.node_groups import node_group_manifest
from tests.unit.api.manifests import (
    ACCEPTED,
    GROUP,
    INTERFACES,
    NODE_GROUP,
    POOLS,
    REFUSED,
    REFUSED_BY_PARSER,
    TEST_POOL,
    Refused,
    changed,
    most,
)


def parse(manifest: dict[str, Any]) -> Group | NodeGroup:
    return parse_node_group(manifest) if manifest["kind"] == "IPMPNodeGroup" else parse_group(manifest)


@pytest.mark.parametrize("case", [*REFUSED, *REFUSED_BY_PARSER], ids=lambda case: case.name)
def test_a_bad_field_is_refused_by_name_and_its_manifest_stays_as_it_was(case: Refused) -> None:
    manifest = case.manifest
    before = copy.deepcopy(manifest)
    with pytest.raises(ValidationError) as refused:
        (parse_node_group if case.base == "IPMPNodeGroup" else parse_group)(manifest)
    assert [error.field for error in refused.value.errors] == [case.field]
    assert case.words in str(refused.value)
    assert manifest == before


@pytest.mark.parametrize(("name", "manifest"), ACCEPTED, ids=[name for name, _ in ACCEPTED])
def test_a_good_manifest_is_accepted_and_stays_as_it_was(name: str, manifest: dict[str, Any]) -> None:
    before = copy.deepcopy(manifest)
    assert parse(manifest).policies.failback is Switch.ENABLED
    assert manifest == before


def test_the_largest_group_is_accepted() -> None:
    group = parse_group(most())
    assert len(group.data_addresses.assigned) == 1024
    assert sum(pool.per_node for pool in group.data_addresses.pools) == 4096


def test_every_wrong_field_is_told_and_not_only_the_first() -> None:
    manifest = changed(
        GROUP,
        {
            "metadata.name": "Front",
            "spec.mode": "Passive",
            INTERFACES: [{"name": "eth/1"}, {}],
            "spec.failureDetection.timeMilliseconds": 5,
            POOLS: [{"name": "a", "ranges": ["198.18.1.0/24", "198.18.2"]}],
            "spec.colour": "red",
        },
    )
    with pytest.raises(ValidationError) as refused:
        parse_group(manifest)
    assert {error.field for error in refused.value.errors} == {
        "metadata.name",
        "spec.mode",
        f"{INTERFACES}[0].name",
        f"{INTERFACES}[1]",
        "spec.failureDetection.timeMilliseconds",
        f"{POOLS}[0].ranges[1]",
        "spec.colour",
    }
    assert len(str(refused.value).splitlines()) == 7


def test_an_error_is_printed_as_the_api_server_prints_it() -> None:
    assert str(FieldError("spec.a", 5, "too small")) == "spec.a: Invalid value: 5: too small"
    assert str(FieldError("spec.a", None, "", REQUIRED)) == "spec.a: Required value"
    assert str(FieldError("spec.a", 5, 'unknown field "spec.a"', UNKNOWN)) == 'unknown field "spec.a"'


def test_an_object_of_a_newer_api_server_may_hold_unknown_fields() -> None:
    group = parse_group(changed(GROUP, {"spec.future": {"a": 1}, "other": 5}), strict=False)
    assert group == parse_group(GROUP)
    node_group = parse_node_group(changed(NODE_GROUP, {"spec.probes.future": 1}), strict=False)
    assert node_group == parse_node_group(NODE_GROUP)


def test_defaults_are_those_of_the_types() -> None:
    assert parse_group(GROUP) == Group(
        name="front",
        interfaces=(GroupInterface(InterfaceMatch("eth1")), GroupInterface(InterfaceMatch("eth2"))),
        node_selector=LabelSelector(),
        data_addresses=DataAddresses(),
        test_addresses=TestAddresses(),
        policies=Policies(),
    )


def test_every_field_arrives() -> None:
    manifest = changed(
        GROUP,
        {
            "metadata": {"name": "front", "uid": "u-1", "generation": 7, "creationTimestamp": "2026-11-22T21:00:00Z"},
            "spec": {
                "nodeSelector": {
                    "matchLabels": {"b": "2", "a": "1"},
                    "matchExpressions": [{"key": "c", "operator": "In", "values": ["x"]}],
                },
                "mode": "Observe",
                "interfaces": [{"pciAddress": "0000:3B:00.1"}, {"macAddress": "52:54:00:AA:BB:CC", "role": "Standby"}],
                "dataAddresses": {
                    "pools": [
                        {
                            "name": "a",
                            "ranges": ["198.18.1.0/30", "198.18.2.1-198.18.2.2"],
                            "perNode": 2,
                            "prefixLength": 24,
                            "exclude": ["198.18.1.0/31"],
                        }
                    ],
                    "assigned": [{"nodeName": "n1", "addresses": ["198.18.3.1", "2001:DB8::1/64"]}],
                    "existing": "Ignore",
                },
                "testAddresses": {
                    "ipv4": {"pool": {"ranges": ["198.18.4.0/24"], "prefixLength": 24}},
                    "ipv6": "Disabled",
                },
                "probes": {
                    "method": "ARP",
                    "targets": {
                        "routers": "Disabled",
                        "peers": "Disabled",
                        "discovery": "Enabled",
                        "addresses": ["fe80::1"],
                    },
                },
                "failureDetection": {"timeMilliseconds": 250, "adaptive": "Disabled"},
                "failback": "Disabled",
                "outboundSpreading": "Disabled",
                "tunnels": "Ignore",
                "deletionPolicy": "Retain",
            },
        },
    )
    group = parse_group(manifest)
    assert (group.uid, group.generation, group.creation_timestamp) == ("u-1", 7, "2026-11-22T21:00:00Z")
    assert group.node_selector == LabelSelector((("a", "1"), ("b", "2")), (LabelRequirement("c", "In", ("x",)),))
    assert [i.match.key for i in group.interfaces] == ["0000:3b:00.1", "52:54:00:aa:bb:cc"]
    assert [i.role for i in group.interfaces] == [Role.ACTIVE, Role.STANDBY]
    a = ip_address
    assert group.data_addresses.pools == (
        Pool(
            name="a",
            ranges=(
                AddressRange(a("198.18.1.1"), a("198.18.1.2")),  # a block stands for its hosts
                AddressRange(a("198.18.2.1"), a("198.18.2.2")),
            ),
            per_node=2,
            prefix_length=24,
            exclude=(AddressRange(a("198.18.1.0"), a("198.18.1.1")),),  # and an excluded one for all of it
        ),
    )
    (assigned,) = group.data_addresses.assigned
    assert assigned.addresses == (ip_interface("198.18.3.1/32"), ip_interface("2001:db8::1/64"))
    assert group.test_addresses.ipv4 is not None
    assert group.test_addresses.ipv4.prefix_length == 24
    policies = group.policies
    assert policies.mode is Mode.OBSERVE
    assert policies.test_ipv6 == group.test_addresses.ipv6 == "Disabled"
    assert policies.probe_method == "ARP"
    assert not policies.targets.routers
    assert not policies.targets.peers
    assert policies.targets.discovery
    assert policies.targets.addresses == (a("fe80::1"),)
    assert policies.failure_detection == FailureDetection(250, Switch.DISABLED)
    assert not policies.failback
    assert not policies.outbound_spreading
    assert policies.tunnels == "Ignore"
    assert (policies.existing, policies.deletion_policy) == (Existing.IGNORE, DeletionPolicy.RETAIN)


def test_a_member_offline_is_found_by_its_key_however_it_is_written() -> None:
    offline = [{"interface": name} for name in ("52:54:00:AA:BB:CC", "0000:3B:00.1", "Eth1")]
    group = parse_node_group(changed(NODE_GROUP, {"spec.offline": offline}))
    assert group.offline == ("52:54:00:aa:bb:cc", "0000:3b:00.1", "Eth1")


def test_the_spec_of_a_node_group_leaves_offline_to_people() -> None:
    assert "offline" not in node_group_spec(parse_node_group(NODE_GROUP))


def test_the_spec_of_a_node_group_is_plain_json() -> None:
    manifest = node_group_manifest(parse_node_group(changed(NODE_GROUP, {"spec.peers": ["198.18.0.1"]})))
    assert json.loads(json.dumps(manifest)) == manifest
    # A str subclass would pass json, and the YAML writer would refuse it.
    assert type(manifest["spec"]["mode"]) is str


def test_a_test_pool_is_there_only_when_written() -> None:
    assert parse_group(GROUP).test_addresses.ipv4 is None
    with_pool = parse_group(changed(GROUP, {TEST_POOL: {"ranges": ["198.18.3.0/30"], "prefixLength": 24}}))
    assert with_pool.test_addresses.ipv4 is not None
    assert with_pool.test_addresses.ipv4.per_node == 1


@pytest.mark.parametrize("junk", [None, [], "text", 5, {"interfaces": [None]}, {"interfaces": [[]]}])
def test_junk_is_refused_and_never_crashes(junk: object) -> None:
    for spec in (GROUP, NODE_GROUP):
        with pytest.raises(ValidationError):
            parse({**spec, "spec": junk})
    with pytest.raises(ValidationError):
        parse_group({**GROUP, "metadata": junk})
