"""NodeGroup -> IPMPNodeGroup -> NodeGroup, for any node group."""

import json
from dataclasses import fields
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ipmp_api.manifest import load_manifest
from ipmp_api.parse import parse_node_group
from ipmp_api.types import (
    Address,
    AddressSelection,
    AdministrativeState,
    AdoptWhen,
    DataAddress,
    DeletionPolicy,
    Existing,
    FailureDetection,
    InterfaceMatch,
    Member,
    Mode,
    NodeGroup,
    Origin,
    Policies,
    ProbeMethod,
    Role,
    Switch,
    TargetSources,
    TestAddressIPv6,
    Tunnels,
)
from tests.node_groups import node_group_manifest

LABEL = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
MAC = st.from_regex(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}", fullmatch=True)
PCI = st.from_regex(r"[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]", fullmatch=True)
NAME = st.from_regex(r"[a-zA-Z0-9_.@-]{1,15}", fullmatch=True).filter(lambda name: name not in {".", ".."})
IPV4 = st.integers(0x0B000000, 0x7EFFFFFF).map(IPv4Address)
IPV6 = st.integers(0x2001 << 112, (0x2002 << 112) - 1).map(IPv6Address)
ADDRESS: st.SearchStrategy[Address] = IPV4 | IPV6
MATCH = (
    st.builds(InterfaceMatch, name=NAME)
    | st.builds(InterfaceMatch, pci_address=PCI)
    | st.builds(InterfaceMatch, mac_address=MAC)
)
IPV4_INTERFACE = st.builds(lambda a, n: IPv4Interface(f"{a}/{n}"), IPV4, st.integers(1, 32))
INTERFACE_ADDRESS = IPV4_INTERFACE | st.builds(lambda a, n: IPv6Interface(f"{a}/{n}"), IPV6, st.integers(1, 128))
MEMBER = st.builds(Member, MATCH, st.sampled_from(Role), st.none() | IPV4_INTERFACE)
NETWORKS = st.lists(
    st.builds(lambda a, n: ip_network((int(a), n), strict=False), IPV4, st.integers(8, 32))
    | st.builds(lambda a, n: ip_network((int(a), n), strict=False), IPV6, st.integers(16, 128)),
    unique=True,
    max_size=3,
).map(tuple)
ADOPTION = st.builds(
    AddressSelection,
    when=st.sampled_from(AdoptWhen),
    prefixes=NETWORKS,
    exclude=NETWORKS,
    labels=st.lists(NAME, unique=True, max_size=2).map(tuple),
    protocols=st.lists(st.integers(0, 255), unique=True, max_size=2).map(tuple),
)
POLICY: dict[str, st.SearchStrategy[Any]] = {
    "mode": st.sampled_from(Mode),
    "test_ipv6": st.sampled_from(TestAddressIPv6),
    "probe_method": st.sampled_from(ProbeMethod),
    "targets": st.builds(
        TargetSources,
        st.sampled_from(Switch),
        st.sampled_from(Switch),
        st.sampled_from(Switch),
        st.lists(ADDRESS, unique=True, max_size=4).map(tuple),
    ),
    "failure_detection": st.builds(FailureDetection, st.integers(100, 3_600_000), st.sampled_from(Switch)),
    "failback": st.sampled_from(Switch),
    "outbound_spreading": st.sampled_from(Switch),
    "tunnels": st.sampled_from(Tunnels),
    "administrative_state": st.sampled_from(AdministrativeState),
    "announcement_refresh_seconds": st.none() | st.integers(10, 86_400),
    "existing": st.sampled_from(Existing),
    "adoption": ADOPTION,
    "pod_egress": NETWORKS,
    "deletion_policy": st.sampled_from(DeletionPolicy),
}
NODE_GROUPS = st.builds(
    NodeGroup,
    group_name=LABEL,
    node_name=st.lists(LABEL, min_size=1, max_size=3).map(".".join),
    members=st.lists(MEMBER, min_size=1, max_size=5, unique_by=lambda member: member.key.lower()).map(tuple),
    data_addresses=st.lists(
        st.builds(DataAddress, INTERFACE_ADDRESS, st.sampled_from(Origin)),
        max_size=5,
        unique_by=lambda data: str(data.address),
    ).map(tuple),
    peers=st.lists(ADDRESS, unique=True, max_size=3).map(tuple),
    peer_nodes=st.lists(LABEL, unique=True, max_size=3).map(tuple),
    policies=st.builds(Policies, **POLICY),
    offline=st.lists(NAME, unique=True, max_size=2).map(tuple),
)


def test_every_policy_is_tried() -> None:
    """One that is not would be lost on its way to a node, and no test would fail."""
    assert {field.name for field in fields(Policies)} == POLICY.keys()


@settings(max_examples=100)
@given(NODE_GROUPS)
def test_a_node_group_survives_its_manifest(group: NodeGroup) -> None:
    manifest = node_group_manifest(group)
    assert parse_node_group(manifest) == group
    # The state file is JSON, which YAML contains.
    (document,) = load_manifest(json.dumps(manifest))
    assert parse_node_group(document.content) == group
