"""One reader for all node groups of a cluster says of each what the parser says, however they differ."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ipmp_api import parse
from ipmp_api.errors import ValidationError
from ipmp_api.parse import NodeGroupReader, node_group_spec, parse_node_group
from ipmp_api.types import NodeGroup
from tests.unit.api.manifests import NODE_GROUP, REFUSED, UNSET, Refused, changed

OWN = {
    "spec.dataAddresses": [
        {"address": "198.18.0.7/24", "origin": "Pool"},
        {"address": "2001:db8::7/64", "origin": "Adopted"},
    ],
    "spec.interfaces": [
        {"name": "eth1", "testAddressIPv4": "198.18.0.8/24", "role": "Active"},
        {"macAddress": "02:00:00:00:00:09", "role": "Standby"},
    ],
    "spec.peers": ["198.18.0.9", "fe80::9"],
    "spec.peerNodes": ["n2", "n3"],
}


def written(node: str, group: str = "front", values: dict[str, Any] | None = None) -> dict[str, Any]:
    """A node group as the operator writes it."""
    names = {"metadata.name": f"{group}.{node}", "spec.groupName": group, "spec.nodeName": node}
    manifest = changed(NODE_GROUP, names | (values or {}))
    return manifest | {"spec": node_group_spec(parse_node_group(manifest))}


def outcome(read: Any, manifest: dict[str, Any]) -> object:
    """The value, or the words of the refusal."""
    try:
        return read(manifest)
    except ValidationError as error:
        return str(error)


def agree(reader: NodeGroupReader, manifest: dict[str, Any]) -> bool:
    """Whether the reader says what the parser says, or reads what we would write again to the letter."""
    read = outcome(reader.read, manifest)
    same: bool = read == outcome(lambda one: parse_node_group(one, strict=False), manifest)
    return same or (isinstance(read, NodeGroup) and node_group_spec(read) == manifest["spec"])


def primed() -> NodeGroupReader:
    """A reader that has seen what the group's node groups say."""
    reader = NodeGroupReader()
    reader.read(written("n0"))
    return reader


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of those that were checked in full."""
    names: list[str] = []
    whole = parse.parse_node_group

    def noted(manifest: Any, *, strict: bool = True) -> Any:
        names.append(manifest["metadata"]["name"])
        return whole(manifest, strict=strict)

    monkeypatch.setattr(parse, "parse_node_group", noted)
    return names


def test_what_we_wrote_is_checked_once_for_a_group(checked: list[str]) -> None:
    manifests = [written(f"n{at}", group, OWN) for at in range(20) for group in ("front", "back")]
    checked.clear()
    reader = NodeGroupReader()
    read = [reader.read(manifest) for manifest in manifests]
    assert checked == ["front.n0", "back.n0"]
    assert read == [parse_node_group(manifest) for manifest in manifests]
    assert len({id(one.policies) for one in read}) == 2


def test_another_policy_is_read_and_then_known(checked: list[str]) -> None:
    reader, change = primed(), {"spec.failureDetection": {"timeMilliseconds": 500}}
    manifests = [written(f"n{at}", values=change) for at in range(3)]
    checked.clear()
    assert [reader.read(one).policies.failure_detection.time_milliseconds for one in manifests] == [500] * 3
    assert checked == ["front.n0"]


def test_one_that_others_changed_is_checked_and_shares_the_policies(checked: list[str]) -> None:
    reader, manifest = primed(), written("n1")
    manifest["spec"]["offline"] = [{"interface": "0A:00:00:00:00:01"}]  # written by hand, in another form than ours
    checked.clear()
    value = reader.read(manifest)
    assert checked == ["front.n1"]
    assert value.offline == ("0a:00:00:00:00:01",)
    assert value.policies is reader.read(written("n2")).policies


def test_a_reader_of_many_groups_forgets_and_reads_on() -> None:
    reader = NodeGroupReader()
    for at in range(600):
        manifest = written("n1", f"group-{at}")
        assert reader.read(manifest) == parse_node_group(manifest)


def _of_node_groups() -> list[Refused]:
    return [one for one in REFUSED if one.base == "IPMPNodeGroup"]


@pytest.mark.parametrize("refused", _of_node_groups(), ids=lambda refused: refused.name)
def test_what_the_api_server_lets_in_nowhere_is_refused_or_read_as_it_stands(refused: Refused) -> None:
    assert agree(primed(), changed(written("n1"), refused.values))


def places(value: Any, path: str) -> list[str]:
    """Dotted paths of everything in an object."""
    deeper = value.items() if isinstance(value, dict) else ()
    return [path, *(one for key, inner in deeper for one in places(inner, f"{path}.{key}"))]


@pytest.mark.parametrize("junk", [UNSET, None, 7, "", "x", [], [7], [None], {}, ["x"], [{}], [{"address": 7}], True])
def test_whatever_a_field_holds_the_reader_says_what_the_parser_says(junk: Any) -> None:
    reader, whole = primed(), written("n1", values=OWN)
    for place in places(whole["spec"], "spec"):
        manifest = changed(whole, {place: junk})
        before = copy.deepcopy(manifest)
        assert agree(reader, manifest), place
        assert manifest == before
