"""What is accepted and what is refused, once, for the parser and for the real API server."""

import copy
from dataclasses import dataclass
from typing import Any

GROUP: dict[str, Any] = {
    "apiVersion": "ipmp.dev/v1alpha1",
    "kind": "IPMPGroup",
    "metadata": {"name": "front"},
    "spec": {"interfaces": [{"name": "eth1"}, {"name": "eth2"}]},
}
NODE_GROUP: dict[str, Any] = {
    "apiVersion": "ipmp.dev/v1alpha1",
    "kind": "IPMPNodeGroup",
    "metadata": {"name": "front.n1"},
    "spec": {"groupName": "front", "nodeName": "n1", "interfaces": [{"name": "eth1"}, {"name": "eth2"}]},
}
UNSET = object()


def changed(manifest: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return a copy with values set at dotted paths, on which objects are made; UNSET removes."""
    result = copy.deepcopy(manifest)
    for path, value in values.items():
        *parents, last = path.split(".")
        at = result
        for name in parents:
            at = at.setdefault(name, {})
        if value is UNSET:
            del at[last]
        else:
            at[last] = value
    return result


@dataclass(frozen=True)
class Refused:
    """A change that makes a good manifest a bad one: the field that is blamed, and words of the message."""

    name: str
    values: dict[str, Any]
    field: str
    words: str
    base: str = "IPMPGroup"

    @property
    def manifest(self) -> dict[str, Any]:
        return changed(GROUP if self.base == "IPMPGroup" else NODE_GROUP, self.values)


INTERFACES = "spec.interfaces"
POOLS = "spec.dataAddresses.pools"
ASSIGNED = "spec.dataAddresses.assigned"
TEST_POOL = "spec.testAddresses.ipv4.pool"
TARGETS = "spec.probes.targets.addresses"
SELECTOR = "spec.nodeSelector"
NO_HOST = "which no host can own on a network"


def _interface(name: str, entry: dict[str, Any], field: str, words: str) -> Refused:
    return Refused(name, {INTERFACES: [{"name": "eth1"}, entry]}, field, words)


def _pool(name: str, pool: dict[str, Any], field: str, words: str) -> Refused:
    return Refused(name, {POOLS: [{"name": "a", "ranges": ["198.18.1.0/24"]} | pool]}, f"{POOLS}[0]{field}", words)


def _range(name: str, text: str, words: str) -> Refused:
    return _pool(name, {"ranges": ["198.18.9.0/24", text]}, ".ranges[1]", words)


def _assigned(name: str, address: str, words: str) -> Refused:
    values = {ASSIGNED: [{"nodeName": "n1", "addresses": ["198.18.1.1", address]}]}
    return Refused(name, values, f"{ASSIGNED}[0].addresses[1]", words)


def _test_pool(name: str, pool: dict[str, Any], field: str, words: str) -> Refused:
    return Refused(
        name, {TEST_POOL: {"ranges": ["198.18.3.0/24"], "prefixLength": 24} | pool}, f"{TEST_POOL}{field}", words
    )


REFUSED = (
    # names
    Refused("name too long", {"metadata.name": "a" * 32}, "metadata.name", "may not be more than 31"),
    Refused("name with a dot", {"metadata.name": "front.one"}, "metadata.name", "front.one is not a DNS label"),
    Refused(
        "node group of another name", {"metadata.name": "front.n2"}, "metadata.name", "here front.n1", "IPMPNodeGroup"
    ),
    # shapes
    Refused("no interfaces", {INTERFACES: UNSET}, INTERFACES, "Required value"),
    Refused("empty interfaces", {INTERFACES: []}, INTERFACES, "should have at least 1 items"),
    Refused(
        "17 interfaces",
        {INTERFACES: [{"name": f"eth{n}"} for n in range(17)]},
        INTERFACES,
        "must have at most 16 items",
    ),
    Refused("unknown field", {"spec.colour": "red"}, "spec.colour", 'unknown field "spec.colour"'),
    Refused(
        "unknown field deep", {"spec.probes.targets.router": "Enabled"}, "spec.probes.targets.router", "unknown field"
    ),
    Refused("a number for a word", {"spec.failback": 5}, "spec.failback", "must be of type string"),
    Refused(
        "a word for a number",
        {"spec.failureDetection.timeMilliseconds": "1s"},
        "spec.failureDetection.timeMilliseconds",
        "must be of type integer",
    ),
    Refused("a word for a list", {INTERFACES: "eth1"}, INTERFACES, "must be of type array"),
    # words
    Refused("mode", {"spec.mode": "Passive"}, "spec.mode", 'supported values: "Manage", "Observe"'),
    Refused("failback", {"spec.failback": "enabled"}, "spec.failback", 'supported values: "Enabled", "Disabled"'),
    Refused("probe method", {"spec.probes.method": "UDP"}, "spec.probes.method", "supported values:"),
    Refused("discovery", {"spec.probes.targets.discovery": "On"}, "spec.probes.targets.discovery", "supported values:"),
    Refused("IPv6 test address", {"spec.testAddresses.ipv6": "Global"}, "spec.testAddresses.ipv6", "supported values:"),
    Refused(
        "administrative state",
        {"spec.administrativeState": "Down"},
        "spec.administrativeState",
        'supported values: "Leave", "Up"',
    ),
    # times
    Refused(
        "FDT too short",
        {"spec.failureDetection.timeMilliseconds": 99},
        "spec.failureDetection.timeMilliseconds",
        "should be greater than or equal to 100",
    ),
    Refused(
        "FDT too long",
        {"spec.failureDetection.timeMilliseconds": 3600001},
        "spec.failureDetection.timeMilliseconds",
        "should be less than or equal to 3600000",
    ),
    Refused(
        "announcements too often",
        {"spec.announcements": {"refreshSeconds": 9}},
        "spec.announcements.refreshSeconds",
        "should be greater than or equal to 10",
    ),
    Refused(
        "announcements too seldom",
        {"spec.announcements": {"refreshSeconds": 86401}},
        "spec.announcements.refreshSeconds",
        "should be less than or equal to 86400",
    ),
    # interfaces
    _interface(
        "no matcher",
        {"role": "Standby"},
        f"{INTERFACES}[1]",
        "exactly one of name, pciAddress and macAddress says which interface is meant; given: none",
    ),
    _interface(
        "two matchers",
        {"name": "eth2", "macAddress": "52:54:00:12:34:56"},
        f"{INTERFACES}[1]",
        "given: name eth2 macAddress 52:54:00:12:34:56",
    ),
    _interface("interface twice", {"name": "eth1"}, INTERFACES, "the same interface is listed twice: eth1"),
    _interface(
        "role", {"name": "eth2", "role": "Backup"}, f"{INTERFACES}[1].role", 'supported values: "Active", "Standby"'
    ),
    _interface(
        "interface name too long", {"name": "a234567890123456"}, f"{INTERFACES}[1].name", "may not be more than 15"
    ),
    _interface("interface name with slash", {"name": "eth/1"}, f"{INTERFACES}[1].name", "eth/1 is no interface name"),
    _interface("interface name of dots", {"name": ".."}, f"{INTERFACES}[1].name", ".. is no interface name"),
    _interface("interface name empty", {"name": ""}, f"{INTERFACES}[1].name", "at least 1 chars long"),
    _interface(
        "MAC with dashes",
        {"macAddress": "52-54-00-12-34-56"},
        f"{INTERFACES}[1].macAddress",
        "52-54-00-12-34-56 is no MAC address",
    ),
    _interface(
        "group MAC",
        {"macAddress": "01:00:5e:00:00:01"},
        f"{INTERFACES}[1].macAddress",
        "01:00:5e:00:00:01 is no MAC address",
    ),
    _interface(
        "PCI without domain", {"pciAddress": "3b:00.1"}, f"{INTERFACES}[1].pciAddress", "3b:00.1 is no PCI address"
    ),
    Refused(
        "MAC twice in two cases",
        {INTERFACES: [{"macAddress": "52:54:00:AA:34:56"}, {"macAddress": "52:54:00:aa:34:56"}]},
        INTERFACES,
        "listed twice: 52:54:00:aa:34:56",
    ),
    # ranges
    _range("no range", "198.18.1", "198.18.1 is not an address, a CIDR block or first-last"),
    _range("three addresses", "198.18.1.1-198.18.1.2-198.18.1.3", "is not an address, a CIDR block or first-last"),
    _range("leading zeros", "198.018.1.0/24", "is not an address"),
    _range("netmask", "198.18.1.0/255.255.255.0", "is not an address"),
    _range("mapped IPv4", "::ffff:198.18.1.1", "is not an address"),
    _range("zone", "fe80::1%eth0", "is not an address"),
    _range("host bits", "198.18.1.5/24", "198.18.1.5/24 has bits set behind its prefix; the block is 198.18.1.0/24"),
    _range("IPv6 host bits", "2001:db8::5/64", "the block is 2001:db8::/64"),
    _range("two families", "198.18.1.1-2001:db8::1", "198.18.1.1-2001:db8::1 mixes IPv4 and IPv6"),
    _range("wrong order", "198.18.1.9-198.18.1.8", "198.18.1.9-198.18.1.8 ends before it begins"),
    _range("wrong order above the last octet", "198.18.2.1-198.18.1.8", "ends before it begins"),
    _range("loopback", "127.0.0.5", f"127.0.0.5 holds addresses {NO_HOST}"),
    _range("link-local", "169.254.7.0/24", NO_HOST),
    _range("multicast", "224.0.0.0/4", NO_HOST),
    _range("broadcast", "255.255.255.255", NO_HOST),
    _range("everything", "0.0.0.0/0", NO_HOST),
    _range("IPv6 link-local", "fe80::1-fe80::9", NO_HOST),
    _range("IPv6 up to multicast", "2001:db8::-ff02::1", NO_HOST),
    # pools
    _pool("pool without name", {"name": None}, ".name", "Required value"),
    _pool("pool name", {"name": "Front"}, ".name", "Front is not a DNS label"),
    _pool("pool without ranges", {"ranges": []}, ".ranges", "should have at least 1 items"),
    _pool("nine ranges", {"ranges": [f"198.18.1.{n}" for n in range(9)]}, ".ranges", "must have at most 8 items"),
    _pool("bad exclusion", {"exclude": ["198.18.1.7-"]}, ".exclude[0]", "198.18.1.7- is not an address"),
    _pool("families mixed", {"ranges": ["198.18.1.0/24", "2001:db8::/64"]}, ".ranges", "a pool is of one family"),
    _pool("range twice", {"ranges": ["198.18.1.0/24", "198.18.1.0/24"]}, ".ranges[1]", "Duplicate value"),
    _pool("prefix length", {"prefixLength": 33}, ".prefixLength", "prefix length 33 is more than the 32 bits"),
    _pool("prefix length 0", {"prefixLength": 0}, ".prefixLength", "should be greater than or equal to 1"),
    _pool("perNode 0", {"perNode": 0}, ".perNode", "should be greater than or equal to 1"),
    _pool("perNode 4097", {"perNode": 4097}, ".perNode", "should be less than or equal to 4096"),
    Refused(
        "pool twice",
        {POOLS: [{"name": "a", "ranges": ["198.18.1.1"]}, {"name": "a", "ranges": ["198.18.1.2"]}]},
        f"{POOLS}[1]",
        "Duplicate value",
    ),
    Refused(
        "pools give too many",
        {POOLS: [{"name": n, "ranges": [f"10.{i}.0.0/16"], "perNode": 2049} for i, n in enumerate("ab")]},
        POOLS,
        "the pools give 4098 addresses to one node; at most 4096",
    ),
    # assigned
    _assigned("no address", "198.18.1.1000", "198.18.1.1000 is not an IPv4 or IPv6 address"),
    _assigned("prefix too long", "198.18.1.2/33", "198.18.1.2/33 is not an IPv4 or IPv6 address"),
    _assigned("prefix length zero", "198.18.1.2/0", "198.18.1.2/0 has prefix length 0"),
    _assigned("assigned loopback", "127.0.0.1/8", f"127.0.0.1/8 is an address {NO_HOST}"),
    _assigned("assigned multicast", "ff02::1", NO_HOST),
    _assigned("assigned link-local", "fe80::1/64", NO_HOST),
    _assigned("assigned unspecified", "0.0.0.0", NO_HOST),
    _assigned("assigned broadcast", "255.255.255.255", NO_HOST),
    _assigned("same text twice", "198.18.1.1", "Duplicate value"),
    Refused(
        "node twice",
        {ASSIGNED: [{"nodeName": "n1", "addresses": ["198.18.1.1"]}, {"nodeName": "n1", "addresses": ["198.18.1.2"]}]},
        f"{ASSIGNED}[1]",
        "Duplicate value",
    ),
    Refused(
        "node name",
        {ASSIGNED: [{"nodeName": "N1", "addresses": ["198.18.1.1"]}]},
        f"{ASSIGNED}[0].nodeName",
        "N1 is not the name of a node",
    ),
    # test addresses
    _test_pool("IPv6 test pool", {"ranges": ["2001:db8::/120"]}, ".ranges[0]", "2001:db8::/120 is not IPv4"),
    _test_pool("test pool without ranges", {"ranges": None}, ".ranges", "Required value"),
    _test_pool("test pool with perNode", {"perNode": 1}, ".perNode", "unknown field"),
    # targets
    Refused("no target address", {TARGETS: ["gateway"]}, f"{TARGETS}[0]", "gateway is not an IPv4 or IPv6 address"),
    Refused("multicast target", {TARGETS: ["198.18.0.1", "224.0.0.1"]}, f"{TARGETS}[1]", "224.0.0.1 cannot be probed"),
    Refused("target twice", {TARGETS: ["198.18.0.1", "198.18.0.1"]}, f"{TARGETS}[1]", "Duplicate value"),
    # selector
    Refused(
        "label key", {f"{SELECTOR}.matchLabels": {"a b": "c"}}, f"{SELECTOR}.matchLabels", "a b is not a label key"
    ),
    Refused(
        "label value",
        {f"{SELECTOR}.matchLabels": {"rack": "-"}},
        f"{SELECTOR}.matchLabels[rack]",
        "- is not a label value",
    ),
    Refused(
        "selector operator",
        {f"{SELECTOR}.matchExpressions": [{"key": "a", "operator": "Is"}]},
        f"{SELECTOR}.matchExpressions[0].operator",
        "supported values:",
    ),
    Refused(
        "In without values",
        {f"{SELECTOR}.matchExpressions": [{"key": "a", "operator": "In"}]},
        f"{SELECTOR}.matchExpressions[0]",
        "operator In needs at least one value in values",
    ),
    Refused(
        "Exists with values",
        {f"{SELECTOR}.matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]},
        f"{SELECTOR}.matchExpressions[0]",
        "operator Exists needs no values",
    ),
    # node groups
    Refused(
        "offline twice",
        {"spec.offline": [{"interface": "eth1"}, {"interface": "eth1"}]},
        "spec.offline[1]",
        "Duplicate value",
        "IPMPNodeGroup",
    ),
    Refused(
        "IPv6 as IPv4 test address",
        {INTERFACES: [{"name": "eth1", "testAddressIPv4": "2001:db8::1/64"}]},
        f"{INTERFACES}[0].testAddressIPv4",
        "2001:db8::1/64 is not an IPv4 address",
        "IPMPNodeGroup",
    ),
    Refused(
        "data address",
        {"spec.dataAddresses": [{"address": "eth1"}]},
        "spec.dataAddresses[0].address",
        "eth1 is not an IPv4 or IPv6 address",
        "IPMPNodeGroup",
    ),
    Refused("node of a peer", {"spec.peerNodes": ["N2"]}, "spec.peerNodes[0]", "N2 is not", "IPMPNodeGroup"),
    Refused("peer", {"spec.peers": ["n2"]}, "spec.peers[0]", "n2 is not an IPv4 or IPv6 address", "IPMPNodeGroup"),
)


def most() -> dict[str, Any]:
    """Return the largest group there may be: what the API server's rules cost at most."""
    pools = [
        {
            "name": f"pool-{p}",
            "ranges": [f"2001:db8:{p}:{r}:1111:1111:1111:1111-2001:db8:{p}:{r}:ffff:ffff:ffff:ffff" for r in range(8)],
            "exclude": [
                f"2001:db8:{p}:{e // 4}:{4096 * (e % 4 + 2):x}:2222:2222:2222-"
                f"2001:db8:{p}:{e // 4}:{4096 * (e % 4 + 2):x}:3333:3333:3333"
                for e in range(32)
            ],
            "perNode": 512,
        }
        for p in range(8)
    ]
    assigned = [
        {
            "nodeName": f"node-{n:04}.cluster.example.org",
            "addresses": [f"2001:db8:a:{n}::{a:x}/64" for a in range(1, 17)],
        }
        for n in range(1024)
    ]
    values: dict[str, Any] = {
        INTERFACES: [{"macAddress": f"52:54:00:12:34:{n:02x}"} for n in range(16)],
        POOLS: pools,
        ASSIGNED: assigned,
        TEST_POOL: {
            "ranges": [f"198.18.{n}.1-198.18.{n}.2" for n in range(8)],
            "exclude": [f"198.18.100.{n}" for n in range(32)],
            "prefixLength": 16,
        },
    }
    return changed(GROUP, values)


# What only the parser can refuse: beyond the API server's cost budget, so the operator says it in a condition; or
# what kubectl and the API server say in ways of their own before they look at a schema.
REFUSED_BY_PARSER = (
    _range("IPv6 wrong order", "2001:db8:1::-2001:db8:0:ffff:ffff:ffff:ffff:ffff", "ends before it begins"),
    _range("around loopback", "126.0.0.0-128.0.0.0", NO_HOST),
    _pool(
        "ranges overlap",
        {"ranges": ["198.18.1.0/24", "198.18.0.1-198.18.1.0"]},
        ".ranges",
        "198.18.0.1-198.18.1.0 holds addresses of a range before it",
    ),
    _pool(
        "exclusions overlap",
        {"exclude": ["198.18.1.0/28", "198.18.1.15"]},
        ".exclude",
        "198.18.1.15 holds addresses excluded before",
    ),
    _pool(
        "too small",
        {"ranges": ["198.18.1.0/30"], "perNode": 3},
        ".perNode",
        "the pool has 2 addresses after exclude, and one node needs 3",
    ),
    _pool(
        "too small by exclusion",
        {
            "ranges": ["198.18.1.0/29", "198.18.2.1-198.18.2.4"],
            "exclude": ["198.18.1.0-198.18.1.3", "198.18.2.2-198.18.2.3"],
            "perNode": 6,
        },
        ".perNode",
        "the pool has 5 addresses after exclude, and one node needs 6",
    ),
    _pool(
        "IPv6 too small",
        {"ranges": ["2001:db8::/126", "2001:db8::ffff:ffff-2001:db8::1:0:0"], "perNode": 6},
        ".perNode",
        "the pool has 5 addresses after exclude, and one node needs 6",
    ),
    _pool(
        "IPv6 excluded",
        {"ranges": ["2001:db8::/64"], "exclude": ["2001:db8::-2001:db8::ffff:ffff:ffff:fffd"]} | {"perNode": 3},
        ".perNode",
        "the pool has 2 addresses after exclude, and one node needs 3",
    ),
    _pool(
        "all excluded",
        {"exclude": ["198.18.0.0/16"]},
        ".perNode",
        "the pool has 0 addresses after exclude, and one node needs 1",
    ),
    _test_pool(
        "test pool too small",
        {"ranges": ["198.18.3.1"]},
        "",
        "the pool has 1 addresses after exclude, and one node needs 2: one for each interface",
    ),
    Refused(
        "address of two nodes",
        {
            ASSIGNED: [
                {"nodeName": "n1", "addresses": ["198.18.1.1/24"]},
                {"nodeName": "n2", "addresses": ["198.18.1.1"]},
            ]
        },
        ASSIGNED,
        "198.18.1.1 is assigned twice",
    ),
    Refused("wrong kind", {"kind": "IPMPGroups"}, "kind", 'supported values: "IPMPGroup"'),
    Refused("wrong version", {"apiVersion": "v1"}, "apiVersion", 'supported values: "ipmp.dev/v1alpha1"'),
    Refused("no spec", {"spec": UNSET}, "spec", "Required value"),
    Refused("no name", {"metadata": UNSET}, "metadata.name", "Required value"),
    Refused("unknown at the top", {"specs": {}}, "specs", 'unknown field "specs"'),
)

ACCEPTED = (
    ("least", GROUP),
    ("31 characters", changed(GROUP, {"metadata.name": "a" * 31})),
    ("null is absent", changed(GROUP, {"spec.mode": None, "spec.probes": None, "spec.nodeSelector.matchLabels": None})),
    ("bounds of the FDT", changed(GROUP, {"spec.failureDetection.timeMilliseconds": 100})),
    ("one standby", changed(GROUP, {INTERFACES: [{"name": "eth1", "role": "Standby"}]})),
    (
        "16 interfaces, every matcher, a name of three dots",
        changed(
            GROUP,
            {
                INTERFACES: [{"name": f"eth{n}"} for n in range(13)]
                + [{"name": "..."}, {"pciAddress": "0000:3B:00.1"}, {"macAddress": "52:54:00:12:34:56"}]
            },
        ),
    ),
    ("names differ by case", changed(GROUP, {INTERFACES: [{"name": "eth1"}, {"name": "Eth1"}]})),
    (
        "every kind of range",
        changed(
            GROUP,
            {
                POOLS: [
                    {"name": "a", "ranges": ["198.18.1.0/31", "198.18.2.1-198.18.2.3", "198.18.3.4"], "perNode": 6},
                    {
                        "name": "b",
                        "ranges": ["2001:DB8::/127", "2001:db8::5-2001:db8::1:5", "2001:db8:1::/48"],
                        "perNode": 4000,
                    },
                    {
                        "name": "c",
                        "ranges": ["198.18.4.0/29"],
                        "exclude": ["198.18.4.1", "198.18.4.4/30"],
                        "perNode": 2,
                        "prefixLength": 32,
                    },
                    {
                        "name": "d",
                        "ranges": ["2001:db8:2::/64"],
                        "exclude": ["2001:db8:2::/65", "198.18.0.0/16"],
                        "prefixLength": 128,
                    },
                    {"name": "e", "ranges": ["::198.18.1.1", "2001:db8:0:1::198.18.1.1"], "perNode": 2},
                ],
            },
        ),
    ),
    (
        "exactly enough, across a border of the third part",
        changed(GROUP, {POOLS: [{"name": "a", "ranges": ["2001:db8::ffff:fffe-2001:db8::1:0:1"], "perNode": 4}]}),
    ),
    (
        "IPv6 but two excluded",
        changed(
            GROUP,
            {
                POOLS: [
                    {
                        "name": "a",
                        "ranges": ["2001:db8::/64"],
                        "exclude": ["2001:db8::-2001:db8::ffff:ffff:ffff:fffd"],
                        "perNode": 2,
                    }
                ]
            },
        ),
    ),
    (
        "selector",
        changed(
            GROUP,
            {
                f"{SELECTOR}.matchLabels": {"example.org/rack": "r1", "empty": ""},
                f"{SELECTOR}.matchExpressions": [
                    {"key": "a", "operator": "NotIn", "values": ["x", "y"]},
                    {"key": "b", "operator": "DoesNotExist"},
                ],
            },
        ),
    ),
    ("link-local target", changed(GROUP, {TARGETS: ["fe80::1", "198.18.0.1"]})),
    (
        "test pool with a name and no prefix length",
        changed(GROUP, {TEST_POOL: {"name": "t", "ranges": ["198.18.3.0/30"]}}),
    ),
    ("test pool", changed(GROUP, {TEST_POOL: {"ranges": ["198.18.3.0/30"], "prefixLength": 24}})),
    ("node group", NODE_GROUP),
    (
        "node group in full",
        changed(
            NODE_GROUP,
            {
                INTERFACES: [{"name": "eth1", "testAddressIPv4": "198.18.3.1/24"}, {"name": "eth2", "role": "Standby"}],
                "spec.dataAddresses": [{"address": "198.18.1.1/24", "origin": "Pool"}, {"address": "2001:db8::1"}],
                "spec.peers": ["198.18.3.7", "fe80::7"],
                "spec.peerNodes": ["n2", "n3.example.org"],
                "spec.offline": [{"interface": "eth1"}],
            },
        ),
    ),
)
