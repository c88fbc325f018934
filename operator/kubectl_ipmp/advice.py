"""What to do, for each reason that an interface, an address or a condition may have when something is not well."""

from __future__ import annotations

UNKNOWN = "the message says what is known; look at kubectl ipmp events, and at the log of the agent on the node"

ADVICE = {
    # interfaces
    "InterfaceMissing": "look for the NIC on the node (ip link, dmesg), or take it out of spec.interfaces",
    "InterfaceAppeared": "wait: it is new, and used once it is known to work",
    "LinkDown": "look at the cable, the optic and the switch port; ip link set IF up if somebody took it down",
    "LinkFlapping": "the link comes and goes: change cable or optic; until then take it out: kubectl ipmp offline",
    "ProbesLost": "the link is up and nothing answers: look at the switch behind it, its VLAN and its MAC filters; "
    "compare with the other interfaces by kubectl ipmp targets --all",
    "TargetsLost": "nobody answers probes on it: name hosts of the link in spec.probes.targets.addresses",
    "Offline": "somebody took it out of use: kubectl ipmp online NODE IF gives it back",
    "MinimumRedundancy": "no other interface of the group works: repair one first",
    "NotJudged": "nothing probes it: name targets in spec.probes.targets.addresses, or set spec.probes.method",
    "NotHeard": "wait: it has not been heard yet; if it stays so, look at the switch behind it",
    "Restored": "wait: it worked when an earlier agent ran, and is being judged",
    # members that do not fit
    "BondMember": "it belongs to a bond or team: take it out there, or name another interface",
    "BridgePort": "it is the port of a bridge: take it out there, or name another interface",
    "VRFMember": "it belongs to a VRF: take it out there, or name another interface",
    "UnsuitableDevice": "name an Ethernet interface instead",
    "PointToPoint": "name an interface on a link with neighbours instead",
    "Loopback": "name an Ethernet interface instead",
    "MediaMismatch": "give the group interfaces of one kind of link",
    "DuplicateMAC": "give each member a MAC address of its own (ip link set IF address)",
    "InterfaceConflict": "two groups name one interface: take it out of one of them",
    "NotOneLink": "the members are on different links: connect their switches, or correct VLANs and cabling",
    "FamilyMissing": "the members do not all carry the same families: give each an address of both, or of one",
    # groups
    "GroupFailed": "no interface works: look at what they share, the switches and the VLAN; are the targets alive?",
    "GroupDegraded": "see the interfaces above",
    "NodesFailed": "kubectl ipmp status shows the nodes; explain one of them",
    "NodesDegraded": "kubectl ipmp status shows the nodes; explain one of them",
    "NodesNotProgrammed": "kubectl ipmp status shows the nodes; explain one of them",
    "AgentsUnavailable": "look at the agents' pods: kubectl get pods --all-namespaces "
    "--selector app.kubernetes.io/name=ipmp",
    "AgentUnavailable": "look at the agent's pod on that node, and at the node",
    "NodeNotReady": "the node does not answer: repair it first",
    "NotReported": "wait for the agent's first report; if it does not come, look at its pod",
    "NoNodes": "compare spec.nodeSelector with kubectl get nodes --show-labels",
    "Progressing": "wait: nodes are still applying the last change",
    "Invalid": "correct the field that the message names: kubectl ipmp check --file",
    "PoolExhausted": "add ranges to the pool, or select fewer nodes",
    "Drill": "wait: a failure is being played (kubectl ipmp drill), and ends by itself",
    "ChangeOnTrial": "wait: the change is undone by itself if the node loses by it what it reached",
    "ChangeUndone": "the change cut the node off and was undone: the message names who fell silent. Correct "
    "interfaces, VLAN or addresses, and apply it again",
    "Configured": "nothing",
    "Withdrawn": "nothing",
    "AgentSuspended": "the agent did not run for a while (a suspended machine?): nothing, if it was meant",
    # addresses
    "AddressConflict": "another host or group has the address: the message names its MAC address; remove it there",
    "DuplicateAddress": "another host has the address: remove it there",
    "DHCPManaged": "use static addresses on members, or leave those of DHCP: spec.dataAddresses.existing: Ignore",
    "PeerAddress": "lay the address without a peer (ip address add ADDRESS/LENGTH), or name another interface",
    "TestAddressMissing": "enlarge spec.testAddresses.ipv4.pool, or see why the kernel refused the address",
    "TestAddressDuplicate": "another host has the test address: exclude it from the pool, or remove it there",
    "KernelRefused": "the kernel refused what the group wants: the message says what; the log of the agent says more",
    "ForeignChange": "another program takes away what the group lays: docs/host-network.md has drop-ins for networkd "
    "and NetworkManager",
    "SettingsOverridden": "another program sets the kernel's settings of members: find it (sysctl.d, tuned)",
    "NotSelected": "nothing, if it is meant: spec.dataAddresses.adoption selects",
    "GuestAddress": "nothing, if it is meant: a VIP daemon moves this address by itself",
    "TentativeAddress": "wait: the kernel is still looking for a duplicate",
    "OtherScope": "nothing: addresses of a link or a host do not move",
    "MoveBudget": "wait: addresses moved often, and move again when the budget allows; look for a flapping link",
    # the host
    "StateElsewhere": "the state directory is another host's: give each node its own",
    "StateNotKept": "make room on the disk of the agent's state directory, or make it writable",
    "ControlSocketLost": "something cleans the agent's runtime directory: leave it out there",
    "ComparisonIncomplete": "the kernel's tables changed while they were read: wait; the log of the agent says more",
    "TunnelPinned": "let the tunnel follow the routes, or take dev IF out of it (docs/host.md)",
    "DevicePinned": "a device hangs on one member and fails with it: make one on each, and a group of those",
    "MembersDiffer": "give all members the MTU and the settings that the message names (docs/host.md)",
    "FullFramesLost": "give every switch port of the link the members' MTU, or the members that of the ports",
    "ProxyNeighbor": "route what the proxy entries stand for by a data address, and take them away (docs/host.md)",
    "ProgramPinned": "attach the bpf program to every member, or to none (docs/host.md)",
    "FirewallPinned": "let the firewall's rules treat all members alike (docs/host.md)",
    "ReversePathFiltered": "let packets come in by any member: loosen the strict reverse path filter (docs/host.md)",
    "AddressElsewhere": "take the address off the interface that is no member",
    "ServiceAddress": "lay the address on a member, or have the group assign it (docs/host.md)",
    "VirtualAddress": "leave the daemon's addresses out of the group: spec.dataAddresses.adoption",
    "OutsiderOnLink": "take the interface off the members' link, or make it a member",
    "RoutesNotFollowed": "the message names routes that do not follow the addresses: lay them otherwise (docs/host.md)",
    "ManyRoutes": "lay fewer routes by members, or raise the agents' memory limit (docs/operations.md)",
    "InterfaceGroupTaken": "nothing must be done; a firewall cannot use the interface group of the members",
    "MultipathHashPolicy": "set net.ipv4.fib_multipath_hash_policy and its IPv6 sibling to 1 to spread flows",
    "Masqueraded": "keep the pods' traffic out of masquerading where podEgress gives the source (docs/cni.md)",
    "EgressAddressMissing": "give the node a data address of that family, or take the network out of podEgress",
}
"""Each names what to do, and ends a line."""


def advice(reason: str) -> str:
    """What to do about a reason."""
    return ADVICE.get(reason, UNKNOWN)
