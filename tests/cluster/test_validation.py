"""What the API server refuses, in words a person understands, and the same words where there is no API server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_api.errors import ValidationError
from ipmp_api.parse import parse_group
from tests.cluster.product import group_manifest

if TYPE_CHECKING:
    from tests.cluster.cluster import Cluster

NET0 = {"name": "net0"}
POOL = {"name": "v4", "ranges": ["198.18.0.10-198.18.0.19"]}

# Name of the case: fields of the spec, and for each refusal the field and words of the message, the value among them.
REFUSED: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "no interface": ({"interfaces": []}, {"spec.interfaces": "at least 1 items"}),
    "too many interfaces": (
        {"interfaces": [{"name": f"net{i}"} for i in range(17)]},
        {"spec.interfaces": "must have at most 16 items"},
    ),
    "no matcher": ({"interfaces": [{}]}, {"spec.interfaces[0]": "given: none"}),
    "two matchers": (
        {"interfaces": [NET0, {"name": "net1", "macAddress": "52:54:00:12:34:56"}]},
        {"spec.interfaces[1]": "given: name net1 macAddress 52:54:00:12:34:56"},
    ),
    "an interface twice": ({"interfaces": [NET0, NET0]}, {"spec.interfaces": "listed twice: net0"}),
    "interface name with a slash": ({"interfaces": [{"name": "a/b"}]}, {"spec.interfaces[0].name": "a/b is no"}),
    "group MAC address": (
        {"interfaces": [{"macAddress": "01:00:5e:00:00:01"}]},
        {"spec.interfaces[0].macAddress": "01:00:5e:00:00:01 is no MAC address of an interface"},
    ),
    "PCI address": ({"interfaces": [{"pciAddress": "3b:00"}]}, {"spec.interfaces[0].pciAddress": "3b:00 is no"}),
    "role": ({"interfaces": [NET0 | {"role": "Spare"}]}, {"spec.interfaces[0].role": '"Spare"'}),
    "mode": ({"mode": "Watch"}, {"spec.mode": '"Watch"'}),
    "detection time too short": (
        {"failureDetection": {"timeMilliseconds": 99}},
        {"spec.failureDetection.timeMilliseconds": "99"},
    ),
    "detection time too long": (
        {"failureDetection": {"timeMilliseconds": 3600001}},
        {"spec.failureDetection.timeMilliseconds": "3600001"},
    ),
    "detection time in words": (
        {"failureDetection": {"timeMilliseconds": "1s"}},
        {"spec.failureDetection.timeMilliseconds": "must be of type integer"},
    ),
    "assigned address": (
        {"dataAddresses": {"assigned": [{"nodeName": "n1", "addresses": ["198.18.0.300"]}]}},
        {"spec.dataAddresses.assigned[0].addresses[0]": "198.18.0.300 is not an IPv4 or IPv6 address"},
    ),
    "multicast as data address": (
        {"dataAddresses": {"assigned": [{"nodeName": "n1", "addresses": ["224.0.0.1/32"]}]}},
        {"spec.dataAddresses.assigned[0].addresses[0]": "224.0.0.1/32 is an address which no host can own"},
    ),
    "target": (
        {"probes": {"targets": {"addresses": ["router"]}}},
        {"spec.probes.targets.addresses[0]": "router is not an IPv4 or IPv6 address"},
    ),
    "pool without ranges": (
        {"dataAddresses": {"pools": [{"name": "v4", "ranges": []}]}},
        {"spec.dataAddresses.pools[0].ranges": "at least 1 items"},
    ),
    "two pools of one name": (
        {"dataAddresses": {"pools": [POOL, POOL]}},
        {"spec.dataAddresses.pools[1]": 'Duplicate value: {"name":"v4"}'},
    ),
    "range in the wrong order": (
        {"dataAddresses": {"pools": [POOL | {"ranges": ["198.18.0.9-198.18.0.1"]}]}},
        {"spec.dataAddresses.pools[0].ranges[0]": "198.18.0.9-198.18.0.1 ends before it begins"},
    ),
    "pool of two families": (
        {"dataAddresses": {"pools": [POOL | {"ranges": ["198.18.0.0/24", "2001:db8::/64"]}]}},
        {"spec.dataAddresses.pools[0].ranges": "mixes IPv4 and IPv6"},
    ),
    "more than one fault": (
        {"mode": "Watch", "failback": "Later"},
        {"spec.mode": '"Watch"', "spec.failback": '"Later"'},
    ),
}


def refusal(cluster: Cluster, manifest: dict[str, Any]) -> str:
    done = cluster.try_kubectl("create", "--dry-run=server", "-f", "-", text=json.dumps(manifest))
    assert done.returncode != 0, f"accepted: {done.stdout}"
    return done.stderr


@pytest.mark.parametrize("case", REFUSED)
def test_api_server_and_agent_refuse_with_field_and_value_in_the_same_words(installed: Cluster, case: str) -> None:
    spec, wanted = REFUSED[case]
    manifest = group_manifest("bad", **spec)
    said = refusal(installed, manifest)
    with pytest.raises(ValidationError) as refused:
        parse_group(manifest)
    told = {error.field: str(error) for error in refused.value.errors}
    assert told.keys() == wanted.keys()
    for field, words in wanted.items():
        assert field in said
        assert words in said
        assert words in told[field].replace('": "', '":"')
    for error in refused.value.errors:
        assert error.message in said


def test_unknown_field_is_refused_by_name(installed: Cluster) -> None:
    said = refusal(installed, group_manifest("bad", failbak="Disabled"))
    assert 'unknown field "spec.failbak"' in said


@pytest.mark.parametrize("name", ["a" * 32, "web.front"])
def test_name_that_is_no_label_of_31_characters_is_refused(installed: Cluster, name: str) -> None:
    said = refusal(installed, group_manifest(name))
    assert "metadata.name" in said
    assert name in said


TWICE = [{"nodeName": "n1", "addresses": ["198.18.0.9/24"]}, {"nodeName": "n2", "addresses": ["198.18.0.9/24"]}]
BEYOND: dict[str, tuple[dict[str, Any], str, str]] = {
    "assigned twice": ({"assigned": TWICE}, "spec.dataAddresses.assigned", "198.18.0.9/24 is assigned twice"),
    "pool too small": (
        {"pools": [POOL | {"perNode": 11}]},
        "spec.dataAddresses.pools[0].perNode",
        "the pool has 10 addresses after exclude, and one node needs 11",
    ),
    "ranges overlap": (
        {"pools": [POOL | {"ranges": ["198.18.0.0/24", "198.18.0.7"]}]},
        "spec.dataAddresses.pools[0].ranges",
        "198.18.0.7 holds addresses of a range before it",
    ),
}


@pytest.mark.parametrize("case", BEYOND)
def test_what_is_beyond_the_api_server_is_refused_in_a_condition(installed: Cluster, case: str) -> None:
    """Before it does harm, and in the words of `ipmp-agent check`."""
    addresses, field, words = BEYOND[case]
    manifest = group_manifest("beyond", dataAddresses=addresses)
    with pytest.raises(ValidationError) as refused:
        parse_group(manifest)
    installed.apply(manifest)
    try:
        seen = installed.wait(
            lambda: installed.get("ipmpgroup", "beyond").get("status", {}).get("conditions", ()), what="conditions"
        )
        conditions = {one["type"]: one for one in seen}
        accepted = conditions["Accepted"]
        assert accepted["status"] == "False"
        assert words in accepted["message"]
        assert field in accepted["message"]
        assert refused.value.errors[0].message in accepted["message"]
        assert (conditions["Ready"]["status"], conditions["Stalled"]["status"]) == ("False", "True")
        assert installed.get("ipmpnodegroups", "--selector", "ipmp.dev/group=beyond") == []
    finally:
        installed.kubectl("delete", "ipmpgroup", "beyond", "--timeout=30s")
