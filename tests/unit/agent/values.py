"""One of each kind of value that is written to disk."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

from ipmp_agent.core.events import (
    AddressContested,
    AddressRefused,
    ConfigurationChanged,
    Family,
    InterfaceFound,
    MacAddress,
    ProbeAnswered,
    ProbeKind,
    SavedInterface,
    StateRestored,
    TargetHeard,
)
from ipmp_agent.core.reasons import Reason
from ipmp_api.types import (
    InterfaceMatch,
    Member,
    NodeGroup,
    Policies,
    Switch,
)
from tests.unit.agent.building import unprobed_group

VALUES = [
    unprobed_group(),
    NodeGroup(
        "g",
        "n",
        (Member(InterfaceMatch(pci_address="0000:3b:00.1"), test_ipv4=ip_interface("198.18.0.11/24")),),  # type: ignore[arg-type]
        peers=(ip_address("fe80::1"), ip_address("198.18.0.2")),
        policies=Policies(failback=Switch.DISABLED, pod_egress=(ip_network("10.0.0.0/8"),)),
        offline=("0000:3b:00.1",),
    ),
    InterfaceFound("nic0", "eth7", 3, "02:00:00:00:00:01", link=None, speed_megabits=25000, refusal=Reason.BOND_MEMBER),
    TargetHeard("nic0", Family.IPV4, ip_address("198.18.0.1")),
    AddressContested(ip_interface("198.18.0.10/24"), "02:00:00:00:00:99"),
    AddressContested(ip_interface("2001:db8::1/64"), None),
    AddressRefused(ip_interface("2001:db8::1/64"), Reason.ADDRESS_CONFLICT, "02:… has it"),
    ProbeAnswered("nic0", Family.IPV6, ip_address("fe80::2"), 65535, ProbeKind.RTT, 0.1 + 0.2, 1e-9),
    ProbeAnswered("nic0", Family.LINK, MacAddress("02:00:00:00:00:02"), 1, ProbeKind.DETECTION, 0.5, 0.25),
    StateRestored((SavedInterface("nic0", failed=True, inactive=False, offline=True, reason=Reason.LINK_DOWN),)),
    ConfigurationChanged(unprobed_group()),
]
