"""Why: the one word behind every failure, repair, move and refusal.

The same word is the log field, the metric label, the Event reason and the condition reason.
"""

from enum import StrEnum


class Reason(StrEnum):
    """CamelCase, low cardinality, stable: operators write alerts on them."""

    # interfaces
    INTERFACE_APPEARED = "InterfaceAppeared"
    INTERFACE_MISSING = "InterfaceMissing"
    LINK_DOWN = "LinkDown"
    LINK_UP = "LinkUp"
    LINK_FLAPPING = "LinkFlapping"
    PROBES_LOST = "ProbesLost"
    PROBES_ANSWERED = "ProbesAnswered"
    TARGETS_LOST = "TargetsLost"
    TARGETS_FOUND = "TargetsFound"
    OFFLINE = "Offline"
    ONLINE = "Online"
    DRILL = "Drill"
    MINIMUM_REDUNDANCY = "MinimumRedundancy"
    RESTORED = "Restored"
    NOT_JUDGED = "NotJudged"
    NOT_HEARD = "NotHeard"

    # what makes an interface unfit as a member
    BOND_MEMBER = "BondMember"
    BRIDGE_PORT = "BridgePort"
    VRF_MEMBER = "VRFMember"
    UNSUITABLE_DEVICE = "UnsuitableDevice"
    POINT_TO_POINT = "PointToPoint"
    LOOPBACK = "Loopback"
    MEDIA_MISMATCH = "MediaMismatch"
    DUPLICATE_MAC = "DuplicateMAC"
    INTERFACE_CONFLICT = "InterfaceConflict"
    NOT_ONE_LINK = "NotOneLink"
    FAMILY_MISSING = "FamilyMissing"

    # standby
    STANDBY_ACTIVATED = "StandbyActivated"
    STANDBY_RELEASED = "StandbyReleased"
    FAILBACK_DISABLED = "FailbackDisabled"

    # groups
    GROUP_FAILED = "GroupFailed"
    GROUP_DEGRADED = "GroupDegraded"
    GROUP_OK = "GroupOk"
    DETECTION_TIME_RAISED = "DetectionTimeRaised"
    DETECTION_TIME_LOWERED = "DetectionTimeLowered"
    CONFIGURED = "Configured"
    WITHDRAWN = "Withdrawn"

    # targets
    TARGET_DEAD = "TargetDead"
    TARGET_SLOW = "TargetSlow"

    # addresses
    ADDRESS_ADDED = "AddressAdded"
    ADDRESS_ADOPTED = "AddressAdopted"
    ADDRESS_REMOVED = "AddressRemoved"
    FAILOVER = "Failover"
    FAILBACK = "Failback"
    REBALANCE = "Rebalance"
    MOVE_BUDGET = "MoveBudget"
    ADDRESS_CONFLICT = "AddressConflict"
    DHCP_MANAGED = "DHCPManaged"
    NOT_SELECTED = "NotSelected"
    GUEST_ADDRESS = "GuestAddress"
    PEER_ADDRESS = "PeerAddress"
    DUPLICATE_ADDRESS = "DuplicateAddress"
    TENTATIVE_ADDRESS = "TentativeAddress"
    OTHER_SCOPE = "OtherScope"
    TEST_ADDRESS_MISSING = "TestAddressMissing"
    TEST_ADDRESS_DUPLICATE = "TestAddressDuplicate"
    KERNEL_REFUSED = "KernelRefused"
    FOREIGN_CHANGE = "ForeignChange"
    SETTINGS_OVERRIDDEN = "SettingsOverridden"
    TUNNEL_PINNED = "TunnelPinned"
    DEVICE_PINNED = "DevicePinned"
    MEMBERS_DIFFER = "MembersDiffer"
    FULL_FRAMES_LOST = "FullFramesLost"
    PROXY_NEIGHBOR = "ProxyNeighbor"
    PROGRAM_PINNED = "ProgramPinned"
    FIREWALL_PINNED = "FirewallPinned"
    REVERSE_PATH_FILTERED = "ReversePathFiltered"
    ADDRESS_ELSEWHERE = "AddressElsewhere"
    SERVICE_ADDRESS = "ServiceAddress"
    VIRTUAL_ADDRESS = "VirtualAddress"
    OUTSIDER_ON_LINK = "OutsiderOnLink"
    ROUTES_NOT_FOLLOWED = "RoutesNotFollowed"
    MANY_ROUTES = "ManyRoutes"
    INTERFACE_GROUP_TAKEN = "InterfaceGroupTaken"
    MULTIPATH_HASH_POLICY = "MultipathHashPolicy"
    MASQUERADED = "Masqueraded"
    EGRESS_ADDRESS_MISSING = "EgressAddressMissing"

    # life
    AGENT_SUSPENDED = "AgentSuspended"
    STATE_ELSEWHERE = "StateElsewhere"
    STATE_NOT_KEPT = "StateNotKept"
    CONTROL_SOCKET_LOST = "ControlSocketLost"
    COMPARISON_INCOMPLETE = "ComparisonIncomplete"
    CHANGE_ON_TRIAL = "ChangeOnTrial"
    CHANGE_UNDONE = "ChangeUndone"


OBSTACLES = frozenset(
    {
        Reason.TUNNEL_PINNED,
        Reason.DEVICE_PINNED,
        Reason.MEMBERS_DIFFER,
        Reason.FULL_FRAMES_LOST,
        Reason.PROXY_NEIGHBOR,
        Reason.PROGRAM_PINNED,
        Reason.FIREWALL_PINNED,
        Reason.REVERSE_PATH_FILTERED,
        Reason.ADDRESS_ELSEWHERE,
        Reason.SERVICE_ADDRESS,
        Reason.ROUTES_NOT_FOLLOWED,
        Reason.DHCP_MANAGED,
        Reason.PEER_ADDRESS,
        Reason.DUPLICATE_ADDRESS,
        Reason.MASQUERADED,
        Reason.EGRESS_ADDRESS_MISSING,
        Reason.STATE_NOT_KEPT,
    }
)
"""What on a host stands in a group's way: it makes the condition HostSuitable False."""

ADVICE = frozenset(
    {
        Reason.MULTIPATH_HASH_POLICY,
        Reason.OUTSIDER_ON_LINK,
        Reason.VIRTUAL_ADDRESS,
        Reason.INTERFACE_GROUP_TAKEN,
        Reason.MANY_ROUTES,
        Reason.STATE_ELSEWHERE,
        Reason.CONTROL_SOCKET_LOST,
    }
)
"""What on a host could be better; HostSuitable says it and stays True: the group does all it is to do."""
