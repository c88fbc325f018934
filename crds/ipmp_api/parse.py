"""From manifests to values and back. Nobody else reads raw dictionaries."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ipmp_api.addresses import parse_address, parse_block, parse_interface_address, parse_network, parse_range
from ipmp_api.errors import REQUIRED, UNKNOWN, UNSUPPORTED, FieldError, ValidationError
from ipmp_api.fields import GROUP_SPEC, NAME, NODE_GROUP_SPEC
from ipmp_api.schema import Struct, filled, validate
from ipmp_api.types import (
    API_GROUP,
    API_VERSION,
    GROUP_KIND,
    NODE_GROUP_KIND,
    AddressSelection,
    AdministrativeState,
    AdoptWhen,
    Assignment,
    DataAddress,
    DataAddresses,
    DeletionPolicy,
    Existing,
    FailureDetection,
    Group,
    GroupInterface,
    InterfaceMatch,
    LabelRequirement,
    LabelSelector,
    Member,
    Mode,
    NodeGroup,
    Origin,
    Policies,
    Pool,
    ProbeMethod,
    Role,
    Switch,
    TargetSources,
    TestAddresses,
    TestAddressIPv6,
    Tunnels,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Interface

TEST_POOL_NAME = "testAddresses.ipv4"
"""No name of a pool has a dot, so no pool is called like this one."""

_ENVELOPE = ("apiVersion", "kind", "metadata", "spec", "status")
_OWN = frozenset(("groupName", "nodeName", "interfaces", "dataAddresses", "peers", "peerNodes", "offline"))
"""Fields in which the node groups of one group differ."""
_GROUPS = 256
"""Groups of which a reader remembers what all their node groups say."""
_HARDWARE_ADDRESS = re.compile(r"[0-9A-Fa-f]+(:[0-9A-Fa-f]{2})+(\.[0-7])?", re.ASCII)


def parse_group(manifest: Mapping[str, Any], *, strict: bool = True) -> Group:
    """Parse an IPMPGroup.

    Args:
        manifest: the object as read from YAML or the API server; stays as it is.
        strict: refuse unknown fields. Give False for objects of an API server, which has refused them already and
            whose CRDs may be newer than this program.

    Raises:
        ValidationError: names every wrong field.
    """
    metadata, spec = _checked(manifest, GROUP_KIND, GROUP_SPEC, strict=strict)
    test_ipv6 = TestAddressIPv6(spec["testAddresses"]["ipv6"])
    policies = _policies(spec, test_ipv6, spec["dataAddresses"])
    pool = spec["testAddresses"].get("ipv4", {}).get("pool")
    return Group(
        name=metadata["name"],
        interfaces=tuple(GroupInterface(_match(i), Role(i["role"])) for i in spec["interfaces"]),
        node_selector=_selector(spec["nodeSelector"]),
        data_addresses=DataAddresses(
            existing=policies.existing,
            pools=tuple(_pool(p, p["name"]) for p in spec["dataAddresses"].get("pools", ())),
            assigned=tuple(
                Assignment(a["nodeName"], tuple(parse_interface_address(text) for text in a["addresses"]))
                for a in spec["dataAddresses"].get("assigned", ())
            ),
        ),
        test_addresses=TestAddresses(_pool(pool, TEST_POOL_NAME) if pool else None, test_ipv6),
        policies=policies,
        uid=str(metadata.get("uid", "")),
        generation=int(metadata.get("generation", 0)),
        creation_timestamp=str(metadata.get("creationTimestamp", "")),
    )


def parse_node_group(manifest: Mapping[str, Any], *, strict: bool = True) -> NodeGroup:
    """Parse an IPMPNodeGroup; arguments and errors as of `parse_group`."""
    _, spec = _checked(manifest, NODE_GROUP_KIND, NODE_GROUP_SPEC, strict=strict)
    return _node_group(spec, _policies(spec, TestAddressIPv6(spec["testAddresses"]["ipv6"]), spec))


class NodeGroupReader:
    """Parses IPMPNodeGroups of a cluster, of which thousands say the same but for what is their node's own.

    What all of a group say is checked and read once. Of the rest it is enough that we would write the same again: five
    times as fast, for one that starts and reads all of them. Whatever is otherwise goes to `parse_node_group`.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[dict[str, Any], Policies]] = {}  # by group, of the last one that was checked

    def read(self, manifest: Mapping[str, Any]) -> NodeGroup:
        """Parse one that an API server gave. Raises ValidationError."""
        spec = manifest.get("spec")
        if not isinstance(spec, dict):
            return parse_node_group(manifest, strict=False)
        common = {name: value for name, value in spec.items() if name not in _OWN}
        name = str(spec.get("groupName"))
        known = self._known.get(name)
        if known is not None and known[0] == common:
            written = _as_written(manifest, spec, known[1])
            if written is not None:
                return written
        value = parse_node_group(manifest, strict=False)
        if known is not None and known[1] == value.policies:
            return replace(value, policies=known[1])  # one for all: there are thousands
        if len(self._known) >= _GROUPS:
            self._known.clear()
        self._known[name] = common, value.policies
        return value


def node_group_spec(group: NodeGroup) -> dict[str, Any]:
    """The IPMPNodeGroup spec of which `parse_node_group` makes the same value again.

    Holds every field the CRD has, so that server-side apply owns them; `offline`, which people own, only when set.
    """
    return {
        **_own(group),
        "mode": group.policies.mode.value,
        "testAddresses": {"ipv6": group.policies.test_ipv6.value},
        "probes": {
            "method": group.policies.probe_method.value,
            "targets": {
                "routers": group.policies.targets.routers.value,
                "peers": group.policies.targets.peers.value,
                "discovery": group.policies.targets.discovery.value,
                "addresses": [str(address) for address in group.policies.targets.addresses],
            },
        },
        "failureDetection": {
            "timeMilliseconds": group.policies.failure_detection.time_milliseconds,
            "adaptive": group.policies.failure_detection.adaptive.value,
        },
        "failback": group.policies.failback.value,
        "outboundSpreading": group.policies.outbound_spreading.value,
        "podEgress": {"sourceCIDRs": [str(network) for network in group.policies.pod_egress]},
        "tunnels": group.policies.tunnels.value,
        "administrativeState": group.policies.administrative_state.value,
        "announcements": _announcements(group),
        "existing": group.policies.existing.value,
        "adoption": {
            "when": group.policies.adoption.when.value,
            "prefixes": [str(network) for network in group.policies.adoption.prefixes],
            "exclude": [str(network) for network in group.policies.adoption.exclude],
            "labels": list(group.policies.adoption.labels),
            "protocols": list(group.policies.adoption.protocols),
        },
        "deletionPolicy": group.policies.deletion_policy.value,
    }


def _own(group: NodeGroup) -> dict[str, Any]:
    """Of a spec, what is its node's own."""
    spec: dict[str, Any] = {
        "groupName": group.group_name,
        "nodeName": group.node_name,
        "interfaces": [_interface(member) for member in group.members],
        "dataAddresses": [{"address": str(a.address), "origin": a.origin.value} for a in group.data_addresses],
        "peers": [str(peer) for peer in group.peers],
        "peerNodes": list(group.peer_nodes),
    }
    if group.offline:
        spec["offline"] = [{"interface": interface} for interface in group.offline]
    return spec


def _as_written(manifest: Mapping[str, Any], spec: dict[str, Any], policies: Policies) -> NodeGroup | None:
    """A node group with these policies, where its own part is what we would write; None: it must be checked."""
    try:
        value = _node_group(spec, policies)
        named = manifest["metadata"]["name"] == f"{value.group_name}.{value.node_name}"
        return value if named and _own(value) == {name: spec[name] for name in spec if name in _OWN} else None
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError):
        return None


def _node_group(spec: dict[str, Any], policies: Policies) -> NodeGroup:
    return NodeGroup(
        group_name=spec["groupName"],
        node_name=spec["nodeName"],
        members=tuple(Member(_match(i), Role(i["role"]), _test_ipv4(i)) for i in spec["interfaces"]),
        data_addresses=tuple(
            DataAddress(parse_interface_address(a["address"]), Origin(a["origin"]))
            for a in spec.get("dataAddresses", ())
        ),
        peers=tuple(parse_address(text) for text in spec.get("peers", ())),
        peer_nodes=tuple(spec.get("peerNodes", ())),
        policies=policies,
        offline=tuple(_key(entry["interface"]) for entry in spec.get("offline", ())),
    )


def _checked(
    manifest: Mapping[str, Any], kind: str, schema: Struct, *, strict: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metadata and the spec with defaults. Raises ValidationError with every fault of the whole object."""
    errors = list(_envelope_errors(manifest, kind, strict=strict))
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict) or metadata.get("name") is None:
        errors.append(FieldError("metadata.name", None, "", REQUIRED))
        metadata = {}
    elif kind == GROUP_KIND:
        errors.extend(validate(NAME, metadata["name"], "metadata.name", strict=strict))
    if manifest.get("spec") is None:
        errors.append(FieldError("spec", None, "", REQUIRED))
        spec = {}
    else:
        spec = filled(schema, manifest["spec"])
        errors.extend(validate(schema, spec, "spec", strict=strict))
        errors.extend(_name_errors(kind, metadata, spec))
    if errors:
        raise ValidationError(tuple(errors))
    return metadata, spec


def _envelope_errors(manifest: Mapping[str, Any], kind: str, *, strict: bool) -> list[FieldError]:
    errors = []
    for name, wanted in (("apiVersion", f"{API_GROUP}/{API_VERSION}"), ("kind", kind)):
        if name not in manifest:
            errors.append(FieldError(name, None, f'write "{wanted}"', REQUIRED))
        elif manifest[name] != wanted:
            errors.append(FieldError(name, manifest[name], f'supported values: "{wanted}"', UNSUPPORTED))
    if strict:
        known = ", ".join(_ENVELOPE)
        errors.extend(
            FieldError(str(name), manifest[name], f'unknown field "{name}"; the fields here are {known}', UNKNOWN)
            for name in manifest
            if name not in _ENVELOPE
        )
    return errors


def _name_errors(kind: str, metadata: Mapping[str, Any], spec: Any) -> list[FieldError]:
    if kind != NODE_GROUP_KIND or not isinstance(spec, dict) or "name" not in metadata:
        return []
    name = f"{spec.get('groupName')}.{spec.get('nodeName')}"
    if metadata["name"] == name:
        return []
    return [FieldError("metadata.name", metadata["name"], f"the name must be <groupName>.<nodeName>, here {name}")]


def _match(interface: dict[str, Any]) -> InterfaceMatch:
    pci, mac = interface.get("pciAddress"), interface.get("macAddress")
    return InterfaceMatch(interface.get("name"), pci and pci.lower(), mac and mac.lower())


def _key(interface: str) -> str:
    """The key of a member written by hand: PCI and MAC addresses have no case, names do."""
    return interface.lower() if _HARDWARE_ADDRESS.fullmatch(interface) else interface


def _interface(member: Member) -> dict[str, Any]:
    match = member.match
    values = {
        "name": match.name,
        "pciAddress": match.pci_address,
        "macAddress": match.mac_address,
        "role": member.role.value,
        "testAddressIPv4": str(member.test_ipv4) if member.test_ipv4 else None,
    }
    return {name: value for name, value in values.items() if value is not None}


def _announcements(group: NodeGroup) -> dict[str, Any]:
    refresh = group.policies.announcement_refresh_seconds
    return {} if refresh is None else {"refreshSeconds": refresh}


def _test_ipv4(interface: dict[str, Any]) -> IPv4Interface | None:
    text = interface.get("testAddressIPv4")
    if text is None:
        return None
    address = parse_interface_address(text)
    assert address.version == 4  # noqa: S101 - the schema's rule
    return address


def _pool(pool: dict[str, Any], name: str) -> Pool:
    return Pool(
        name=name,
        ranges=tuple(parse_range(text) for text in pool["ranges"]),
        per_node=pool.get("perNode", 1),
        prefix_length=pool.get("prefixLength"),
        exclude=tuple(parse_block(text) for text in pool.get("exclude", ())),
    )


def _selector(selector: dict[str, Any]) -> LabelSelector:
    return LabelSelector(
        match_labels=tuple(sorted(selector.get("matchLabels", {}).items())),
        match_expressions=tuple(
            LabelRequirement(e["key"], e["operator"], tuple(e.get("values", ())))
            for e in selector.get("matchExpressions", ())
        ),
    )


def _adoption(selection: dict[str, Any]) -> AddressSelection:
    return AddressSelection(
        when=AdoptWhen(selection["when"]),
        prefixes=tuple(parse_network(text) for text in selection.get("prefixes", ())),
        exclude=tuple(parse_network(text) for text in selection.get("exclude", ())),
        labels=tuple(selection.get("labels", ())),
        protocols=tuple(selection.get("protocols", ())),
    )


def _policies(spec: dict[str, Any], test_ipv6: TestAddressIPv6, addresses: dict[str, Any]) -> Policies:
    """Read what a group hands down; a field that the API has not yet gets its default."""
    targets, detection = spec["probes"]["targets"], spec["failureDetection"]
    return Policies(
        mode=Mode(spec["mode"]),
        existing=Existing(addresses["existing"]),
        adoption=_adoption(addresses["adoption"]),
        test_ipv6=test_ipv6,
        probe_method=ProbeMethod(spec["probes"]["method"]),
        targets=TargetSources(
            routers=Switch(targets["routers"]),
            peers=Switch(targets["peers"]),
            discovery=Switch(targets["discovery"]),
            addresses=tuple(parse_address(text) for text in targets.get("addresses", ())),
        ),
        failure_detection=FailureDetection(detection["timeMilliseconds"], Switch(detection["adaptive"])),
        failback=Switch(spec["failback"]),
        outbound_spreading=Switch(spec["outboundSpreading"]),
        pod_egress=tuple(parse_network(text) for text in spec["podEgress"].get("sourceCIDRs", ())),
        tunnels=Tunnels(spec["tunnels"]),
        administrative_state=AdministrativeState(spec["administrativeState"]),
        announcement_refresh_seconds=spec["announcements"].get("refreshSeconds"),
        deletion_policy=DeletionPolicy(spec["deletionPolicy"]),
    )
