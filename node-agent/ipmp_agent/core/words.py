"""The words of the product for states: of a group, a member, its link, its probes and its targets."""

from enum import StrEnum


class GroupState(StrEnum):
    """ok: all members usable; degraded: some; failed: none."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"


class InterfaceWord(StrEnum):
    """The external state of a member, as ipmpstat says it."""

    OK = "ok"
    FAILED = "failed"
    OFFLINE = "offline"
    UNKNOWN = "unknown"  # nobody can tell: no targets, or not answered yet


class LinkWord(StrEnum):
    """What the driver says of the link."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"


class ProbeWord(StrEnum):
    """What probes say of a member."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"  # nobody to probe
    DISABLED = "disabled"  # no usable test address


class TargetMode(StrEnum):
    """Where a prober's targets come from."""

    ROUTES = "routes"  # pins, gateways, peers
    MULTICAST = "multicast"  # discovered hosts
    TRANSITIVE = "transitive"  # the other members
    DISABLED = "disabled"


class TargetState(StrEnum):
    """Life of a target."""

    ACTIVE = "active"
    UNUSED = "unused"
    SLOW = "slow"
    DEAD = "dead"


class DrillKind(StrEnum):
    """What a drill plays."""

    LINK = "link"  # the cable is pulled
    SILENT = "silent"  # the link is up, and nothing is answered
