"""The states of one member, as data: (state, event) -> state.

Two rules. Everything that may happen to a member's state is in TRANSITIONS; a pair that is not there raises and
changes nothing. And the table knows nothing of *why*: link, probes, offline requests and the group decide which event
to fire. The diagram in the documentation is drawn from this table.

FAILED_NO_TARGETS and OFFLINE_FAILED stand where the original keeps a FAILED flag beside the state: an interface without
targets, or out for maintenance, that is known to be broken.

What the state does not say, and the table does not show, is in these attributes of `Interface`:

    inactive         works and is not used; ended by `fire` whenever the member leaves a working state
    active_since     its place in the order of activation; kept by Multipathing
    answered         a probe of it was, in this life of the agent or the one before; never ended
    cause            why it failed; set and ended by `fire`, also while OFFLINE hides the failure
    doubted          it had failed when the agent started; ended by `fire` with the failure, or by Detection in time
    gone             it vanished, and its addresses with it; a refused one has kept them. Kept by Multipathing
    offline_reasons  who keeps it offline; while any does, a member that is present is OFFLINE. Kept by Offline
    quiet_until      probes do not condemn it before; ended by its first answer. Kept by Detection
    link             carrier and the flap rule: see Link
    duplicates, test_addresses, test_addresses_due    what it may probe from; kept by Detection
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from ipmp_agent.core import timers
from ipmp_agent.core.link import LinkState
from ipmp_agent.core.probing import ProbeState
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.words import GroupState, InterfaceWord, LinkWord, ProbeWord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ipmp_agent.core.events import Family, InterfaceFound
    from ipmp_agent.core.probing import Prober
    from ipmp_api.types import Address, Member, Role


class State(Enum):
    """What the group believes of a member."""

    ABSENT = "absent"  # no such NIC here, or one that is not fit
    RUNNING = "running"
    NO_TARGETS = "no targets"  # nobody to probe: taken for good
    FAILED = "failed"
    FAILED_NO_TARGETS = "failed, no targets"
    OFFLINE = "offline"
    OFFLINE_FAILED = "offline, failed"


class InterfaceEvent(Enum):
    """What may happen to a member."""

    APPEAR = "appears"
    VANISH = "vanishes"
    FAIL = "fails"
    REPAIR = "is repaired"
    TARGETS_LOST = "last target lost"
    TARGETS_FOUND = "first target found"
    PROBING_ENDED = "can no longer probe"
    GO_OFFLINE = "taken offline"
    GO_ONLINE = "brought online"


TRANSITIONS: dict[tuple[State, InterfaceEvent], State] = {
    (State.ABSENT, InterfaceEvent.APPEAR): State.RUNNING,
    (State.RUNNING, InterfaceEvent.FAIL): State.FAILED,
    (State.RUNNING, InterfaceEvent.TARGETS_LOST): State.NO_TARGETS,
    (State.RUNNING, InterfaceEvent.GO_OFFLINE): State.OFFLINE,
    (State.RUNNING, InterfaceEvent.VANISH): State.ABSENT,
    (State.NO_TARGETS, InterfaceEvent.FAIL): State.FAILED_NO_TARGETS,
    (State.NO_TARGETS, InterfaceEvent.TARGETS_FOUND): State.RUNNING,
    (State.NO_TARGETS, InterfaceEvent.PROBING_ENDED): State.RUNNING,
    (State.NO_TARGETS, InterfaceEvent.GO_OFFLINE): State.OFFLINE,
    (State.NO_TARGETS, InterfaceEvent.VANISH): State.ABSENT,
    (State.FAILED, InterfaceEvent.REPAIR): State.RUNNING,
    (State.FAILED, InterfaceEvent.TARGETS_LOST): State.FAILED_NO_TARGETS,
    (State.FAILED, InterfaceEvent.GO_OFFLINE): State.OFFLINE_FAILED,
    (State.FAILED, InterfaceEvent.VANISH): State.ABSENT,
    (State.FAILED_NO_TARGETS, InterfaceEvent.REPAIR): State.NO_TARGETS,
    (State.FAILED_NO_TARGETS, InterfaceEvent.TARGETS_FOUND): State.FAILED,
    (State.FAILED_NO_TARGETS, InterfaceEvent.PROBING_ENDED): State.FAILED,
    (State.FAILED_NO_TARGETS, InterfaceEvent.GO_OFFLINE): State.OFFLINE_FAILED,
    (State.FAILED_NO_TARGETS, InterfaceEvent.VANISH): State.ABSENT,
    (State.OFFLINE, InterfaceEvent.FAIL): State.OFFLINE_FAILED,
    (State.OFFLINE, InterfaceEvent.GO_ONLINE): State.RUNNING,
    (State.OFFLINE, InterfaceEvent.VANISH): State.ABSENT,
    (State.OFFLINE_FAILED, InterfaceEvent.REPAIR): State.OFFLINE,
    (State.OFFLINE_FAILED, InterfaceEvent.GO_ONLINE): State.FAILED,
    (State.OFFLINE_FAILED, InterfaceEvent.VANISH): State.ABSENT,
}

# Few enough to compare with each: to hash a member of an Enum is a call.
FUNCTIONING = (State.RUNNING, State.NO_TARGETS)
BROKEN = (State.FAILED, State.FAILED_NO_TARGETS)
OUT = (State.OFFLINE, State.OFFLINE_FAILED)

_WORDS = {
    State.ABSENT: InterfaceWord.FAILED,
    State.RUNNING: InterfaceWord.OK,
    State.NO_TARGETS: InterfaceWord.UNKNOWN,
    State.FAILED: InterfaceWord.FAILED,
    State.FAILED_NO_TARGETS: InterfaceWord.FAILED,
    State.OFFLINE: InterfaceWord.OFFLINE,
    State.OFFLINE_FAILED: InterfaceWord.OFFLINE,
}


class InvalidTransitionError(Exception):
    """An event that must not happen in this state; nothing was changed."""


def transition(state: State, event: InterfaceEvent) -> State:
    """The state after `event`. Raises InvalidTransitionError for a pair that is not in the table."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise InvalidTransitionError(f"an interface that is {state.value} cannot: {event.value}") from None


class Interface:
    """One member of the group: its state, its use, its link and its probers."""

    __slots__ = (
        "active_since",
        "answered",
        "cause",
        "doubted",
        "duplicates",
        "facts",
        "gone",
        "inactive",
        "key",
        "link",
        "member",
        "offline_reasons",
        "probers",
        "quiet_until",
        "reason",
        "since",
        "state",
        "test_addresses",
        "test_addresses_due",
        "transitive",
    )

    def __init__(self, member: Member, now: float, reason: Reason) -> None:
        self.member = member
        self.key = member.key
        self.state = State.ABSENT
        self.since = now
        self.reason: Reason | None = reason
        self.cause: Reason | None = None  # of the failure it is in
        self.doubted = False  # it had failed when the agent started: who is to judge it may still be found
        self.inactive = False
        self.active_since: int | None = None  # order of activation in the group; None: not active
        self.answered = False  # a probe of it once was
        self.facts: InterfaceFound | None = None  # None: absent
        self.gone = False  # it vanished, and its addresses with it
        self.offline_reasons: set[Reason] = set()  # who keeps it offline
        self.link = LinkState()
        self.probers: dict[Family, Prober] = {}  # by IP family
        self.transitive: Prober | None = None  # asks the other members, while there is no target
        self.quiet_until: float | None = None  # losses are ignored until then, or until the first reply
        self.test_addresses: dict[Family, Address] = {}
        self.test_addresses_due = timers.NEVER  # what is missing then is mentioned; NEVER: that time has come
        self.duplicates: set[Family] = set()  # somebody else on the link has the test address

    def fire(self, event: InterfaceEvent, reason: Reason, now: float) -> None:
        """Change state by the table. Raises InvalidTransitionError and changes nothing for a pair not in it."""
        self.state = transition(self.state, event)
        self.reason = reason
        self.since = now
        if not self.functioning:
            self.inactive = False
        if event is InterfaceEvent.FAIL:
            self.cause = reason
        elif event in {InterfaceEvent.REPAIR, InterfaceEvent.VANISH}:
            self.cause = None
            self.doubted = False

    def explain(self, reason: Reason, now: float) -> None:
        """Why it has failed is known better now."""
        self.cause = self.reason = reason
        self.since = now

    @property
    def role(self) -> Role:
        """Active or Standby, as configured."""
        return self.member.role

    @property
    def name(self) -> str:
        """The kernel's name, or the key while there is no such NIC."""
        return self.facts.name if self.facts else self.key

    @property
    def present(self) -> bool:
        """Here, and fit to be a member."""
        return self.facts is not None and self.facts.refusal is None

    @property
    def functioning(self) -> bool:
        """Believed to work."""
        return self.state in FUNCTIONING

    @property
    def failed(self) -> bool:
        """Known to be broken, whether or not it is out for maintenance."""
        return self.state in BROKEN or self.state is State.OFFLINE_FAILED

    @property
    def unheard(self) -> bool:
        """Not used before its first answer, and not known to be broken."""
        return self.state in BROKEN and self.cause is Reason.NOT_HEARD

    @property
    def offline(self) -> bool:
        """Out for maintenance, or for its duplicate MAC."""
        return self.state in OUT

    @property
    def active(self) -> bool:
        """Works and is used."""
        return self.functioning and not self.inactive

    @property
    def enabled(self) -> bool:
        """Whether any prober has what it needs to send, targets aside."""
        return any(prober.enabled for prober in self.probers.values())

    @property
    def capable(self) -> bool:
        """Whether probes can judge this member now."""
        return any(prober.capable for prober in self.probers.values())

    @property
    def watching(self) -> bool:
        """Whether this member is to be probed: it is here, its link is not down and it is not out."""
        return self.state not in OUT and self.state is not State.ABSENT and self.link.usable

    @property
    def heard(self) -> bool:
        """Whether another member answered its last transitive probe."""
        newest = self.transitive.newest_judged() if self.transitive and self.transitive.running else None
        return newest is not None and newest.state is ProbeState.ANSWERED

    def quiet(self, now: float) -> bool:
        """Whether it is too new to be condemned by probes."""
        return self.quiet_until is not None and now < self.quiet_until

    @property
    def word(self) -> InterfaceWord:
        """The state as ipmpstat says it."""
        if self.unheard:
            return InterfaceWord.UNKNOWN
        return InterfaceWord.OK if self.functioning and self.heard else _WORDS[self.state]

    @property
    def reason_now(self) -> Reason | None:
        """The reason of its state. A link that has come up since is not called down."""
        if self.state not in BROKEN:
            return self.reason
        if not self.link.usable:
            return Reason.LINK_DOWN
        if self.cause is not Reason.LINK_DOWN:
            return self.reason
        return Reason.LINK_FLAPPING if self.link.held and not self.capable else Reason.NOT_HEARD

    @property
    def link_word(self) -> LinkWord:
        """The link as ipmpstat says it."""
        if not self.present or self.link.up is None:
            return LinkWord.UNKNOWN
        return LinkWord.UP if self.link.up else LinkWord.DOWN

    @property
    def probe_word(self) -> ProbeWord:
        """What probes say, as ipmpstat says it."""
        among_members = self.transitive is not None and self.transitive.running
        if not self.present or not (self.enabled or among_members):
            return ProbeWord.DISABLED
        if self.state in BROKEN:
            return ProbeWord.FAILED
        return ProbeWord.OK if self.capable or self.heard else ProbeWord.UNKNOWN


def group_state(interfaces: Sequence[Interface]) -> GroupState:
    """ok: every member is usable; degraded: some; failed: none."""
    usable = sum(interface.functioning for interface in interfaces)
    if not usable:
        return GroupState.FAILED
    return GroupState.OK if usable == len(interfaces) else GroupState.DEGRADED
