"""The fields of both specs: name, type, bounds, default, rules and meaning, once.

This is the table that the CRDs, the check of manifests and docs/api.md come from. A field enters it together with the
behaviour behind it; `parse.py` reads each field with the default of its type in `types.py`, so that a line here is all
that makes the API accept one more. Defaults are those of `types.py`.
"""

from __future__ import annotations

from ipmp_api import pool_rules, rules
from ipmp_api.schema import Dictionary, Number, Sequence, Struct, Text, choice
from ipmp_api.types import (
    AdministrativeState,
    AdoptWhen,
    DeletionPolicy,
    Existing,
    FailureDetection,
    Mode,
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

GROUP_NAME_MAX = 31
"""Characters: Solaris' LIFGRNAMSIZ, without its terminating zero."""
NODE_NAME_MAX = 253 - GROUP_NAME_MAX - 1
"""Characters: `<group>.<node>` is the name of an object."""
INTERFACES_MAX = 16
ADDRESS_MAX = 45
"""Characters, of an IPv6 address that ends in a dotted quad; so the next two."""
INTERFACE_ADDRESS_MAX = ADDRESS_MAX + len("/128")
RANGE_MAX = 2 * ADDRESS_MAX + 1
POOLS_MAX = 8
TARGETS_MAX = 16
PEERS_MAX = 16
ASSIGNED_NODES_MAX = 1024
ASSIGNED_ADDRESSES_MAX = 64
SOURCE_CIDRS_MAX = 16
PREFIXES_MAX = 32
LABELS_MAX = 16
PROTOCOLS_MAX = 16

_POLICIES = Policies()
_TARGETS = TargetSources()
_DETECTION = FailureDetection()

NAME = Text("Name of the group.", GROUP_NAME_MAX, rules=(rules.DNS_LABEL,))
NODE_NAME = Text("Name of the node.", NODE_NAME_MAX, rules=(rules.DNS_NAME,))

_MODE = choice("Observe detects and reports everything, and changes nothing.", Mode, _POLICIES.mode)
_FAILBACK = choice(
    "Whether a repaired interface gets its addresses back. Disabled: it stays inactive, unless fewer interfaces are "
    "active than the group has Active ones.",
    Switch,
    _POLICIES.failback,
)
_OUTBOUND_SPREADING = choice(
    "Whether outbound flows leave by all members in use. Disabled: by one of them. With the kernel's default "
    "of 0 for net.ipv4.fib_multipath_hash_policy and net.ipv6.fib_multipath_hash_policy all flows between two hosts "
    "leave by one member: 1 spreads them.",
    Switch,
    _POLICIES.outbound_spreading,
)
_TUNNELS = choice(
    "Follow: a VXLAN device that is pinned to an interface of the group, and whose local address is a data address, is "
    "pinned to the interface that holds the address.",
    Tunnels,
    _POLICIES.tunnels,
)
_ADMINISTRATIVE_STATE = choice(
    "What becomes of an interface that is administratively down. Leave: it counts as failed, and is said to be taken "
    "down. Up: it is set up, whenever it is found down, unless it is offline.",
    AdministrativeState,
    _POLICIES.administrative_state,
)
_ANNOUNCEMENTS = Struct(
    "How the link is told where data addresses are (gratuitous ARP, unsolicited neighbour advertisements), besides at "
    "once when one moves.",
    {
        "refreshSeconds": Number(
            "Announce every data address again after so many seconds, for neighbours and switches that forget; absent: "
            "not.",
            10,
            86_400,
        )
    },
    filled=True,
)
_POD_EGRESS = Struct(
    "Which traffic of pods gets a data address as its source where it leaves by the group: a source that survives a "
    "failover, while a connection behind MASQUERADE does not.",
    {
        "sourceCIDRs": Sequence(
            "The networks of the pods, of either family. What goes from one of them to another keeps its source.",
            Text("A CIDR block.", INTERFACE_ADDRESS_MAX, rules=(rules.NETWORK,)),
            SOURCE_CIDRS_MAX,
            unique=True,
        )
    },
    filled=True,
)
_EXISTING = choice(
    "What becomes of static global addresses that the host has on the interfaces. Adopt: they stay as they are, move "
    "when their interface fails, and return as they were; one that its owner deletes is let go. Those of DHCP, of "
    "router advertisements and of keepalived are left alone, and so is what adoption does not select. Ignore: all are "
    "left alone, and those adopted before go back.",
    Existing,
    _POLICIES.existing,
)
_ADOPTION = Struct(
    "Which of the host's addresses are adopted: those that every field lets through. What is not adopted is listed in "
    "the status, with the reason.",
    {
        "when": choice(
            "Start: those that are there when the group starts, without host addresses (/32, /128) inside the prefix "
            "of another one of their interface, which VIP daemons lay; later only the first address of a prefix. "
            "Always: whatever is there or comes, the VIPs of other programs too.",
            AdoptWhen,
            _POLICIES.adoption.when,
        ),
        "prefixes": Sequence(
            "The address is in one of these; none: any address.",
            Text("A CIDR block.", INTERFACE_ADDRESS_MAX, rules=(rules.NETWORK,)),
            PREFIXES_MAX,
            unique=True,
        ),
        "exclude": Sequence(
            "The address is in none of these.",
            Text("A CIDR block.", INTERFACE_ADDRESS_MAX, rules=(rules.NETWORK,)),
            PREFIXES_MAX,
            unique=True,
        ),
        "labels": Sequence(
            "The address has one of these labels, as `ip address` shows them, which no IPv6 address has; none: any.",
            Text("A label, such as eth0:1.", 15),
            LABELS_MAX,
            unique=True,
        ),
        "protocols": Sequence(
            "The address has one of these protocol numbers (IFA_PROTO): who laid it. None: any. 18, keepalived's, is "
            "never adopted.",
            Number("A protocol number.", 0, 255),
            PROTOCOLS_MAX,
            unique=True,
        ),
    },
    filled=True,
)
_DELETION_POLICY = choice(
    "What deletion leaves in the kernel. Restore: every address and route where it was found, and nothing else. "
    "Retain: the last state.",
    DeletionPolicy,
    _POLICIES.deletion_policy,
)
_FAILURE_DETECTION = Struct(
    "How fast probes find a failure.",
    {
        "timeMilliseconds": Number(
            "Failure detection time (FDT): within it a failure that only probes can see is found. A probe is sent in "
            "each seventh of it; five lost in a row are a failure. Repair takes twice as long.",
            100,
            3_600_000,
            _DETECTION.time_milliseconds,
        ),
        "adaptive": choice(
            "Raise the failure detection time while targets answer too slowly for it.", Switch, _DETECTION.adaptive
        ),
    },
    filled=True,
)
_TEST_IPV6 = choice(
    "IPv6 test address of each interface: its link-local address, or none.", TestAddressIPv6, _POLICIES.test_ipv6
)
_PROBES = Struct(
    "How the interfaces are probed.",
    {
        "method": choice(
            "Auto: ICMP from a test address where there is one, else ARP and neighbour solicitation.",
            ProbeMethod,
            _POLICIES.probe_method,
        ),
        "targets": Struct(
            "The systems that are probed.",
            {
                "routers": choice("Probe the gateways on the link.", Switch, _TARGETS.routers),
                "peers": choice("Probe members of the same group on other nodes.", Switch, _TARGETS.peers),
                "discovery": choice("Find hosts on the link by multicast.", Switch, _TARGETS.discovery),
                "addresses": Sequence(
                    "Targets named by hand, used before all others.",
                    Text("An address on the link.", ADDRESS_MAX, rules=(rules.ADDRESS, rules.TARGET_ADDRESS)),
                    TARGETS_MAX,
                    unique=True,
                ),
            },
            filled=True,
        ),
    },
    filled=True,
)
_MATCHERS = {
    "name": Text(
        "Kernel name or alternative name of the interface. Names may change at boot: prefer pciAddress where NICs do.",
        15,
        rules=(rules.INTERFACE_NAME,),
    ),
    "pciAddress": Text(
        "PCI address, domain:bus:device.function, such as 0000:3b:00.1.", 16, rules=(rules.PCI_ADDRESS,)
    ),
    "macAddress": Text("Permanent or present MAC address.", 17, rules=(rules.MAC_ADDRESS,)),
}
_ROLE = choice("Standby: carries data addresses only while another interface cannot.", Role, Role.ACTIVE)
_RANGES_SAY = (
    "addresses, CIDR blocks, or first-last. A block stands for its hosts: without its network and broadcast address "
    "(IPv4) or its subnet-router anycast address (IPv6)."
)
_RANGE = Text(
    "An address, a CIDR block, or first-last.",
    RANGE_MAX,
    rules=(
        pool_rules.RANGE,
        pool_rules.RANGE_HOST_BITS,
        pool_rules.RANGE_FAMILY,
        pool_rules.RANGE_ORDER,
        pool_rules.RANGE_ORDER_IPV6,
        pool_rules.RANGE_HOSTS,
        pool_rules.RANGE_HOSTS_WITHIN,
    ),
)
_EXCLUDE = Sequence(
    "Addresses, whole CIDR blocks or first-last that are not given away.",
    Text(
        "An address, a CIDR block, or first-last.",
        RANGE_MAX,
        rules=(
            pool_rules.RANGE,
            pool_rules.RANGE_HOST_BITS,
            pool_rules.RANGE_FAMILY,
            pool_rules.RANGE_ORDER,
            pool_rules.RANGE_ORDER_IPV6,
        ),
    ),
    pool_rules.EXCLUDE_MAX,
    unique=True,
)
_POOL = Struct(
    "Addresses that the operator gives to nodes.",
    {
        "name": Text(
            "Name of the pool, for the allocations to last while ranges change.", 63, rules=(rules.DNS_LABEL,)
        ),
        "ranges": Sequence(
            "What the pool holds, all of one family: " + _RANGES_SAY,
            _RANGE,
            pool_rules.RANGES_MAX,
            min_items=1,
            unique=True,
        ),
        "perNode": Number("How many addresses each node gets.", 1, rules.PER_NODE_MAX, Pool("", ()).per_node),
        "prefixLength": Number("Prefix length of each address; absent: 32 or 128, by family.", 1, 128),
        "exclude": _EXCLUDE,
    },
    required=("name", "ranges"),
    rules=(
        pool_rules.ONE_FAMILY,
        pool_rules.RANGES_APART,
        pool_rules.EXCLUDE_APART,
        pool_rules.PREFIX_LENGTH,
        pool_rules.POOL_SIZE,
    ),
)
_TEST_POOL = Struct(
    "One address for each interface on each node.",
    {
        "name": Text("Name of the pool, for people.", 63, rules=(rules.DNS_LABEL,)),
        "ranges": Sequence(
            "What the pool holds: " + _RANGES_SAY,
            Text(_RANGE.description, RANGE_MAX, rules=(*_RANGE.rules, pool_rules.RANGE_IPV4)),
            pool_rules.RANGES_MAX,
            min_items=1,
            unique=True,
        ),
        "prefixLength": Number("Prefix length of the link; absent: 32. Probes do not depend on it.", 1, 32),
        "exclude": _EXCLUDE,
    },
    required=("ranges",),
    rules=(pool_rules.RANGES_APART, pool_rules.EXCLUDE_APART),
)
_SELECTOR = Struct(
    "The Linux nodes that have this group; empty: all of them.",
    {
        "matchLabels": Dictionary(
            "Labels that a node must have.",
            Text("Value of the label.", 63, min_length=0, rules=(rules.LABEL_VALUE,)),
            32,
            rules=(rules.LABEL_KEYS,),
        ),
        "matchExpressions": Sequence(
            "Conditions on labels that must hold, all of them.",
            Struct(
                "One condition.",
                {
                    "key": Text("Label key.", 317, rules=(rules.LABEL_NAME,)),
                    "operator": Text("How the label is compared.", choices=("In", "NotIn", "Exists", "DoesNotExist")),
                    "values": Sequence(
                        "Values, for In and NotIn.",
                        Text("Value of the label.", 63, min_length=0, rules=(rules.LABEL_VALUE,)),
                        64,
                        unique=True,
                    ),
                },
                required=("key", "operator"),
                rules=(rules.SELECTOR_VALUES,),
            ),
            16,
        ),
    },
    filled=True,
)

GROUP_SPEC = Struct(
    "What the group is to be.",
    {
        "nodeSelector": _SELECTOR,
        "mode": _MODE,
        "interfaces": Sequence(
            "The members: interfaces of a node that are on one IP link.",
            Struct(
                "One member, told by exactly one of name, pciAddress and macAddress.",
                {**_MATCHERS, "role": _ROLE},
                rules=(rules.ONE_MATCHER,),
            ),
            INTERFACES_MAX,
            min_items=1,
            rules=(rules.NO_MATCHER_TWICE,),
        ),
        "dataAddresses": Struct(
            "The addresses that move between the members.",
            {
                "existing": _EXISTING,
                "adoption": _ADOPTION,
                "pools": Sequence(
                    "Addresses that the operator gives to nodes.",
                    _POOL,
                    POOLS_MAX,
                    key="name",
                    rules=(pool_rules.PER_NODE_TOTAL,),
                ),
                "assigned": Sequence(
                    "Addresses named by hand.",
                    Struct(
                        "The addresses of one node.",
                        {
                            "nodeName": NODE_NAME,
                            "addresses": Sequence(
                                "Its data addresses.",
                                Text(
                                    "An address, with or without prefix length.",
                                    INTERFACE_ADDRESS_MAX,
                                    rules=(
                                        rules.INTERFACE_ADDRESS,
                                        rules.HOST_INTERFACE_ADDRESS,
                                        rules.INTERFACE_PREFIX_LENGTH,
                                        rules.UNRESERVED,
                                    ),
                                ),
                                ASSIGNED_ADDRESSES_MAX,
                                min_items=1,
                                unique=True,
                            ),
                        },
                        required=("nodeName", "addresses"),
                    ),
                    ASSIGNED_NODES_MAX,
                    key="nodeName",
                    rules=(rules.ASSIGNED_ONCE,),
                ),
            },
            filled=True,
        ),
        "testAddresses": Struct(
            "The addresses that probes are sent from; they never move.",
            {
                "ipv4": Struct(
                    "IPv4 test addresses; absent: IPv4 is probed with ARP, which needs none.",
                    {"pool": _TEST_POOL},
                    required=("pool",),
                ),
                "ipv6": _TEST_IPV6,
            },
            filled=True,
        ),
        "probes": _PROBES,
        "failureDetection": _FAILURE_DETECTION,
        "failback": _FAILBACK,
        "outboundSpreading": _OUTBOUND_SPREADING,
        "tunnels": _TUNNELS,
        "podEgress": _POD_EGRESS,
        "administrativeState": _ADMINISTRATIVE_STATE,
        "announcements": _ANNOUNCEMENTS,
        "deletionPolicy": _DELETION_POLICY,
    },
    required=("interfaces",),
    rules=(pool_rules.TEST_POOL_SIZE,),
)

NODE_GROUP_SPEC = Struct(
    "What one agent obeys: the group, compiled for its node. The operator writes all but offline.",
    {
        "groupName": Text("Name of the IPMPGroup.", GROUP_NAME_MAX, rules=(rules.DNS_LABEL,)),
        "nodeName": NODE_NAME,
        "mode": _MODE,
        "interfaces": Sequence(
            "The members.",
            Struct(
                "One member.",
                {
                    **_MATCHERS,
                    "role": _ROLE,
                    "testAddressIPv4": Text(
                        "Its IPv4 test address with prefix length.",
                        INTERFACE_ADDRESS_MAX,
                        rules=(rules.IPV4_INTERFACE_ADDRESS,),
                    ),
                },
                rules=(rules.ONE_MATCHER,),
            ),
            INTERFACES_MAX,
            min_items=1,
            rules=(rules.NO_MATCHER_TWICE,),
        ),
        "dataAddresses": Sequence(
            "The data addresses of the node.",
            Struct(
                "One data address.",
                {
                    "address": Text(
                        "Address with prefix length.",
                        INTERFACE_ADDRESS_MAX,
                        rules=(rules.INTERFACE_ADDRESS, rules.HOST_INTERFACE_ADDRESS),
                    ),
                    "origin": choice("Where it comes from.", Origin, Origin.ASSIGNED),
                },
                required=("address",),
            ),
            rules.PER_NODE_MAX + ASSIGNED_ADDRESSES_MAX,
            key="address",
        ),
        "peers": Sequence(
            "Addresses of members of the same group on other nodes, as probe targets.",
            Text("An address.", ADDRESS_MAX, rules=(rules.ADDRESS, rules.TARGET_ADDRESS)),
            PEERS_MAX,
            unique=True,
        ),
        "peerNodes": Sequence(
            "Other nodes of the same group, as probe targets: the agent asks what their agents report, and probes the "
            "link-local address of a member there.",
            NODE_NAME,
            PEERS_MAX,
            unique=True,
        ),
        "testAddresses": Struct("Test addresses.", {"ipv6": _TEST_IPV6}, filled=True),
        "probes": _PROBES,
        "failureDetection": _FAILURE_DETECTION,
        "failback": _FAILBACK,
        "outboundSpreading": _OUTBOUND_SPREADING,
        "tunnels": _TUNNELS,
        "podEgress": _POD_EGRESS,
        "administrativeState": _ADMINISTRATIVE_STATE,
        "announcements": _ANNOUNCEMENTS,
        "existing": _EXISTING,
        "adoption": _ADOPTION,
        "deletionPolicy": _DELETION_POLICY,
        "offline": Sequence(
            "Members taken out for maintenance; written by people. The agent refuses, in a condition, what would leave "
            "no usable member.",
            Struct(
                "One member.",
                {"interface": Text("The interface, as the group names it.", 17)},
                required=("interface",),
            ),
            INTERFACES_MAX,
            key="interface",
        ),
    },
    required=("groupName", "nodeName", "interfaces"),
)

assert TestAddresses().ipv6 is _POLICIES.test_ipv6  # noqa: S101 - two types state one default
