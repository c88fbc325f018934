"""The two kinds of `ipmp.dev/v1alpha1` as immutable values.

`Group` is what people write (IPMPGroup); `NodeGroup` is what one agent obeys (IPMPNodeGroup.spec), compiled from a
group for one node. Both hold parsed, validated values only: nobody else reads raw dictionaries.
"""

from __future__ import annotations

from dataclasses import field, replace
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from ipmp_api.frozen import frozen

API_GROUP = "ipmp.dev"
API_VERSION = "v1alpha1"
GROUP_KIND = "IPMPGroup"
GROUP_PLURAL = "ipmpgroups"
NODE_GROUP_KIND = "IPMPNodeGroup"
NODE_GROUP_PLURAL = "ipmpnodegroups"
GROUP_LABEL = "ipmp.dev/group"
NODE_LABEL = "ipmp.dev/node"
WITHDRAW_FINALIZER = "ipmp.dev/withdraw"

Address = IPv4Address | IPv6Address
InterfaceAddress = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network


class Mode(StrEnum):
    """Whether the agent acts on what it sees."""

    MANAGE = "Manage"
    OBSERVE = "Observe"


class Role(StrEnum):
    """What a member is for while all members work."""

    ACTIVE = "Active"
    STANDBY = "Standby"


class Switch(StrEnum):
    """A choice that may get a third value one day, so not a boolean."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"

    def __bool__(self) -> bool:
        return self is Switch.ENABLED


class Existing(StrEnum):
    """What becomes of static global addresses found on the members."""

    ADOPT = "Adopt"
    IGNORE = "Ignore"


class AdoptWhen(StrEnum):
    """Which moment an address must have come in to be adopted."""

    START = "Start"
    ALWAYS = "Always"


class TestAddressIPv6(StrEnum):
    """Where the IPv6 test address of a member comes from."""

    __test__ = False  # not a test class, whatever its name says to pytest
    LINK_LOCAL = "LinkLocal"
    DISABLED = "Disabled"


class ProbeMethod(StrEnum):
    """How members are probed."""

    AUTO = "Auto"
    ICMP = "ICMP"
    ARP = "ARP"
    DISABLED = "Disabled"


class Tunnels(StrEnum):
    """Whether VXLAN devices pinned to a member follow their local address."""

    FOLLOW = "Follow"
    IGNORE = "Ignore"


class AdministrativeState(StrEnum):
    """What becomes of members that are administratively down (RFC 2863, ifAdminStatus)."""

    LEAVE = "Leave"
    UP = "Up"


class DeletionPolicy(StrEnum):
    """What deletion leaves in the kernel."""

    RESTORE = "Restore"
    RETAIN = "Retain"


class Origin(StrEnum):
    """Where a data address comes from."""

    ASSIGNED = "Assigned"
    POOL = "Pool"
    ADOPTED = "Adopted"


@frozen
class InterfaceMatch:
    """How a member is recognised: exactly one field is set."""

    name: str | None = None
    pci_address: str | None = None
    mac_address: str | None = None

    def __post_init__(self) -> None:
        if not (self.name or self.pci_address or self.mac_address):
            raise ValueError("an interface needs one of name, pciAddress, macAddress")

    @property
    def key(self) -> str:
        """The member's name in the agent, stable while the NIC comes, goes and is renamed."""
        return self.name or self.pci_address or self.mac_address or ""


@frozen
class AddressRange:
    """First and last address of a range, both included, of one family."""

    first: Address
    last: Address

    @property
    def size(self) -> int:
        """How many addresses the range holds."""
        return int(self.last) - int(self.first) + 1


@frozen
class Pool:
    """Addresses the operator gives to nodes."""

    name: str
    ranges: tuple[AddressRange, ...]
    per_node: int = 1
    prefix_length: int | None = None  # None: 32 or 128, by family
    exclude: tuple[AddressRange, ...] = ()


@frozen
class Assignment:
    """Data addresses named by hand for one node."""

    node_name: str
    addresses: tuple[InterfaceAddress, ...]


@frozen
class GroupInterface:
    """One entry of IPMPGroup.spec.interfaces."""

    match: InterfaceMatch
    role: Role = Role.ACTIVE


@frozen
class AddressSelection:
    """Which of the host's addresses are adopted: those that all of these let through."""

    when: AdoptWhen = AdoptWhen.START
    prefixes: tuple[Network, ...] = ()  # empty: any
    exclude: tuple[Network, ...] = ()
    labels: tuple[str, ...] = ()  # of IPv4 addresses; empty: any
    protocols: tuple[int, ...] = ()  # IFA_PROTO, 0 to 255; empty: any


@frozen
class DataAddresses:
    """IPMPGroup.spec.dataAddresses."""

    existing: Existing = Existing.ADOPT
    pools: tuple[Pool, ...] = ()
    assigned: tuple[Assignment, ...] = ()


@frozen
class TestAddresses:
    """IPMPGroup.spec.testAddresses."""

    __test__ = False
    ipv4: Pool | None = None
    ipv6: TestAddressIPv6 = TestAddressIPv6.LINK_LOCAL


@frozen
class TargetSources:
    """IPMPGroup.spec.probes.targets: where probe targets come from."""

    routers: Switch = Switch.ENABLED
    peers: Switch = Switch.ENABLED
    discovery: Switch = Switch.DISABLED
    addresses: tuple[Address, ...] = ()


@frozen
class FailureDetection:
    """IPMPGroup.spec.failureDetection."""

    time_milliseconds: int = 1000  # FDT; 100 to 3,600,000
    adaptive: Switch = Switch.ENABLED


@frozen
class Policies:
    """The choices that a group hands down to its node groups unchanged."""

    mode: Mode = Mode.MANAGE
    existing: Existing = Existing.ADOPT
    adoption: AddressSelection = field(default_factory=AddressSelection)
    test_ipv6: TestAddressIPv6 = TestAddressIPv6.LINK_LOCAL
    probe_method: ProbeMethod = ProbeMethod.AUTO
    targets: TargetSources = field(default_factory=TargetSources)
    failure_detection: FailureDetection = field(default_factory=FailureDetection)
    failback: Switch = Switch.ENABLED
    outbound_spreading: Switch = Switch.ENABLED
    pod_egress: tuple[Network, ...] = ()
    tunnels: Tunnels = Tunnels.FOLLOW
    administrative_state: AdministrativeState = AdministrativeState.LEAVE
    announcement_refresh_seconds: int | None = None  # 10 to 86,400; None: announced when they move only
    deletion_policy: DeletionPolicy = DeletionPolicy.RESTORE


@frozen
class LabelRequirement:
    """One matchExpressions entry of a label selector."""

    key: str
    operator: str  # In, NotIn, Exists, DoesNotExist
    values: tuple[str, ...] = ()


@frozen
class LabelSelector:
    """A Kubernetes label selector; the empty one selects every node."""

    match_labels: tuple[tuple[str, str], ...] = ()
    match_expressions: tuple[LabelRequirement, ...] = ()


@frozen
class Group:
    """IPMPGroup: what people write."""

    name: str
    interfaces: tuple[GroupInterface, ...]
    node_selector: LabelSelector
    data_addresses: DataAddresses = field(default_factory=DataAddresses)
    test_addresses: TestAddresses = field(default_factory=TestAddresses)
    policies: Policies = field(default_factory=Policies)
    uid: str = ""
    generation: int = 0
    creation_timestamp: str = ""


@frozen
class Member:
    """One interface of a compiled node group."""

    match: InterfaceMatch
    role: Role = Role.ACTIVE
    test_ipv4: IPv4Interface | None = None

    @property
    def key(self) -> str:
        """The member's name in the agent: the value it is matched by."""
        return self.match.key


@frozen
class DataAddress:
    """One data address and where it comes from."""

    address: InterfaceAddress
    origin: Origin = Origin.ASSIGNED


@frozen
class NodeGroup:
    """IPMPNodeGroup.spec: what one agent obeys for one group."""

    group_name: str
    node_name: str
    members: tuple[Member, ...]
    data_addresses: tuple[DataAddress, ...] = ()
    peers: tuple[Address, ...] = ()  # resolved by the operator; empty in file mode
    peer_nodes: tuple[str, ...] = ()  # the nodes of the peers, whose agents report where they answer over IPv6
    policies: Policies = field(default_factory=Policies)
    offline: tuple[str, ...] = ()  # interfaces taken out for maintenance, by people

    @property
    def name(self) -> str:
        """The IPMPNodeGroup's object name, `<group>.<node>`."""
        return f"{self.group_name}.{self.node_name}"

    def in_mode(self, mode: Mode) -> NodeGroup:
        """The same group, managed or only observed."""
        return replace(self, policies=replace(self.policies, mode=mode))
