"""Failure and repair of the members of one group: links, probes, and what they say together.

A link that goes down fails a member at once. Lost probes fail a member only while another member proves that the link
works; otherwise the group has failed and nothing moves. Repair takes ten answers, or a link-up where nobody can probe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipmp_agent.core import adaptive, consistency, sources, timers, transitive
from ipmp_agent.core.actions import InterfaceVerdict, Severity
from ipmp_agent.core.events import IP_FAMILIES, Family, ProbeKind
from ipmp_agent.core.evidence import Culprit, failing_probers, find_culprit, first_loss
from ipmp_agent.core.interface import BROKEN, Interface, InterfaceEvent, State, group_state
from ipmp_agent.core.link import LinkState
from ipmp_agent.core.probing import Prober, ProbeState, choose_protocol
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.rtt import DetectionTime
from ipmp_agent.core.words import GroupState, TargetState
from ipmp_api.types import ProbeMethod

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from ipmp_agent.core.actions import Action
    from ipmp_agent.core.events import ProbeAnswered, ProbeNotSent, TargetHeard, TestAddressChanged
    from ipmp_agent.core.targets import Target
    from ipmp_api.types import Address, NodeGroup

    class GroupPort(Protocol):
        """What detection asks of the group it judges for."""

        def act(self, action: Action) -> None:
            """Order something."""

        def tell(
            self, reason: Reason, message: str, interface: Interface | None = ..., severity: Severity = ...
        ) -> None:
            """Let people know."""

        def lost(self) -> None:
            """A member that was in use no longer works."""

        def regained(self, interface: Interface, *, with_group: bool) -> None:
            """A member works again; `with_group`: it had failed with its group only, which comes back."""

        @property
        def recovering(self) -> bool:
            """Whether a failed group is coming back, one member after the other."""


class Detection:
    """Judges the members of one group."""

    def __init__(
        self, configuration: NodeGroup, interfaces: dict[str, Interface], rng: random.Random, owner: GroupPort
    ) -> None:
        self._configuration = configuration
        self._interfaces = interfaces  # shared with the group
        self._random = rng
        self._group = owner
        self._routers: tuple[Address, ...] = ()
        self._among_members = False  # members ask one another
        self._late_at = -timers.NEVER  # when this agent was last seen not to be run in time
        self._doubt_ends = timers.NEVER  # when who has not been found since the start is not there
        self.time = self._configured_time(configuration)

    @staticmethod
    def _configured_time(configuration: NodeGroup) -> DetectionTime:
        chosen = configuration.policies.failure_detection
        return DetectionTime(chosen.time_milliseconds / 1000, adaptive=bool(chosen.adaptive))

    @property
    def _members(self) -> tuple[Interface, ...]:
        return tuple(self._interfaces.values())

    @property
    def _group_failed(self) -> bool:
        return group_state(self._members) is GroupState.FAILED

    # --- configuration and life ---

    def configure(self, configuration: NodeGroup, now: float) -> None:
        """Take a new configuration; estimates and histories survive where they still apply."""
        old, self._configuration = self._configuration, configuration
        if configuration.policies.probe_method is not old.policies.probe_method:
            for prober in (prober for interface in self._members for prober in interface.probers.values()):
                prober.targets.forget_link_layer()
        if configuration.policies.failure_detection != old.policies.failure_detection:
            self.time = self._configured_time(configuration)
            self._reschedule(now)
        self._choose_all_protocols(now)
        self.review_all(now)

    def review_all(self, now: float) -> None:
        """Offer the present targets to everybody and look again at who can be judged."""
        for interface in self._members:
            self._offer_targets(interface, now)
        for interface in self._members:
            self._review(interface, now)
            self._try_repair_by_link(interface, now)

    def appear(self, interface: Interface, now: float) -> None:
        """A member is here: give it a link, probers and targets."""
        interface.link = LinkState()
        interface.link.taken_down = interface.facts is not None and interface.facts.taken_down
        interface.probers = {family: Prober(interface.key, family, now, self._random) for family in IP_FAMILIES}
        interface.transitive = Prober(interface.key, Family.LINK, now, self._random)
        interface.quiet_until = now + timers.QUIET_PERIOD
        interface.test_addresses_due = now + timers.TEST_ADDRESS_GRACE
        self._choose_all_protocols(now)
        self._offer_targets(interface, now)
        self._review(interface, now)

    def disappear(self, interface: Interface) -> None:
        """A member is gone, with everything that was known of it."""
        interface.probers = {}
        interface.transitive = None
        interface.test_addresses = {}
        interface.duplicates = set()
        interface.test_addresses_due = timers.NEVER
        interface.quiet_until = None

    def restore_failed(self, interface: Interface, reason: Reason, now: float) -> None:
        """The agent starts again and remembers this member as failed: it stays so until proven good."""
        interface.fire(InterfaceEvent.FAIL, reason, now)
        interface.doubted = True

    def all_found(self, now: float) -> None:
        """The agent has started: what is there has been told, and targets are still to be discovered.

        Silence says nothing in the quiet period, for or against a member, and a verdict takes a detection time.
        """
        self._doubt_ends = now + max(timers.QUIET_PERIOD, self.time.value)

    def go_offline(self, interface: Interface, reason: Reason, now: float) -> None:
        """Stop probing: what it says while it is worked on means nothing."""
        interface.fire(InterfaceEvent.GO_OFFLINE, reason, now)
        self._quiesce(interface)

    def go_online(self, interface: Interface, now: float) -> None:
        """Judge it again; a failure known or seen meanwhile counts."""
        interface.fire(InterfaceEvent.GO_ONLINE, interface.cause or Reason.ONLINE, now)
        interface.test_addresses_due = now + timers.TEST_ADDRESS_GRACE
        self._start_probers(interface, now)
        self._review(interface, now)
        self._try_repair_by_link(interface, now)
        self.await_answer(interface, now)

    def await_answer(self, interface: Interface, now: float) -> None:
        """A member is back: if it has been answered before, and another one works, it is used once it is again."""
        others = (other for other in self._members if other is not interface)
        if interface.functioning and interface.answered and interface.capable and any(o.functioning for o in others):
            interface.fire(InterfaceEvent.FAIL, Reason.NOT_HEARD, now)

    def _quiesce(self, interface: Interface) -> None:
        for prober in (*interface.probers.values(), interface.transitive):
            if prober is not None:
                prober.stop()
                prober.forget()

    def _start_probers(self, interface: Interface, now: float) -> None:
        for prober in interface.probers.values():
            if interface.watching and prober.enabled and not prober.running:
                prober.start(now, self.time.interval)

    # --- how, from where, and whom ---

    def _choose_all_protocols(self, now: float) -> None:
        twice = consistency.addresses_used_twice(self._members)
        for interface in self._members:
            self._choose_protocols(interface, twice, now)

    def _choose_protocols(self, interface: Interface, twice: set[Address], now: float) -> None:
        policies = self._configuration.policies
        for family, prober in interface.probers.items():
            source, addressed = sources.usable_test_address(interface, family, self._configuration, twice)
            protocol, why = choose_protocol(family, policies.probe_method, source, addressed=addressed)
            prober.use(protocol, source, why)
            prober.want_hosts = bool(policies.targets.discovery)
            if not prober.enabled:
                prober.stop()
        self._start_probers(interface, now)

    def test_address(self, interface: Interface, event: TestAddressChanged, now: float) -> None:
        """A test address is ready, or gone, or somebody else's."""
        if event.duplicate:
            interface.duplicates.add(event.family)
        else:
            interface.duplicates.discard(event.family)
        if event.address is None:
            interface.test_addresses.pop(event.family, None)
            interface.test_addresses_due = now + timers.TEST_ADDRESS_GRACE
        else:
            interface.test_addresses[event.family] = event.address
        self._choose_all_protocols(now)
        self.review_all(now)

    def routers(self, routers: tuple[Address, ...], now: float) -> None:
        """The routing table has these gateways on the link now."""
        self._routers = routers
        self.review_all(now)

    def _offer_targets(self, interface: Interface, now: float) -> None:
        own = self._own_addresses()
        named = sources.named_targets(self._configuration, self._routers)
        for family, prober in interface.probers.items():
            wanted = [(a, o) for a, o in named.items() if a.version == family.value and a not in own]
            prober.targets.offer(wanted, now, keep_routers=self._group_failed)
            if not prober.targets and prober.searching:
                self._copy_hosts(prober, now)

    def _own_addresses(self) -> set[Address]:
        return sources.own_addresses(self._configuration, self._members)

    def _copy_hosts(self, prober: Prober, now: float) -> None:
        for sibling in self._members:
            other = sibling.probers.get(prober.family)
            for host in other.targets.hosts if other else ():
                prober.targets.add_host(host, now)

    def _review(self, interface: Interface, now: float) -> None:
        """Move between having and not having somebody to probe."""
        state, judged = interface.state, interface.capable
        if not interface.enabled and state in {State.NO_TARGETS, State.FAILED_NO_TARGETS}:
            interface.fire(InterfaceEvent.PROBING_ENDED, Reason.NOT_JUDGED, now)
        elif judged and state in {State.NO_TARGETS, State.FAILED_NO_TARGETS}:
            interface.fire(InterfaceEvent.TARGETS_FOUND, Reason.TARGETS_FOUND, now)
        elif interface.enabled and not judged and state in {State.RUNNING, State.FAILED} and interface.link.usable:
            interface.fire(InterfaceEvent.TARGETS_LOST, Reason.TARGETS_LOST, now)
            for prober in interface.probers.values():
                prober.forget()

    # --- links ---

    def link_changed(self, interface: Interface, up: bool | None, now: float) -> None:
        """Carrier went, came, or can no longer be told."""
        if up is False:
            self._link_down(interface, now)
        elif interface.link.up is False:
            self._link_up(interface, now, known=up is True)
        else:
            interface.link.up = up

    def _link_down(self, interface: Interface, now: float) -> None:
        interface.link.went_down()
        self._quiesce(interface)  # old answers must not prove a repair
        if interface.state is State.OFFLINE:
            self._condemn(interface, Reason.LINK_DOWN, now)
        if not interface.functioning:
            what = f"the link of {interface.name} is down"
            if interface.link.taken_down:
                what = f"{interface.name} is taken down on this host"
            self._group.tell(Reason.LINK_DOWN, what, interface)
            return
        self._release_flapping(interface, now)
        if any(o.functioning and o.link.usable for o in self._members if o is not interface):
            self._fail(interface, Reason.LINK_DOWN, now)
        else:
            self._fail_group(interface, Reason.LINK_DOWN, now)

    def _release_flapping(self, failing: Interface | None, now: float) -> None:
        """The flap rule never keeps the last working link out: `failing` is about to be out as well."""
        others = [other for other in self._members if other is not failing]
        if any(other.functioning and other.link.usable for other in others):
            return
        for other in others:
            if other.link.held and other.link.usable:
                other.link.release()
                self._try_repair_by_link(other, now)

    def release_last_link(self, now: float) -> None:
        """No member works, for whatever reason: a link that came up too often is better than none."""
        if self._group_failed:
            self._release_flapping(None, now)

    def _link_up(self, interface: Interface, now: float, *, known: bool) -> None:
        was_held = interface.link.held
        stable = interface.link.came_up(now)
        if not known:
            interface.link.up = None
        self._start_probers(interface, now)
        self._review(interface, now)
        if interface.state is State.OFFLINE_FAILED and interface.cause is Reason.LINK_DOWN:
            interface.fire(InterfaceEvent.REPAIR, Reason.LINK_UP, now)
            self._group.act(InterfaceVerdict(interface.key, failed=False, reason=Reason.LINK_UP))
        elif stable or self._group_failed:
            interface.link.release()
            self._try_repair_by_link(interface, now)
        elif not was_held and not interface.capable and interface.state in BROKEN:
            self._group.tell(
                Reason.LINK_FLAPPING,
                f"{interface.name} has come up more than {timers.LINK_UPS_PERMITTED} times in the last minute: "
                "not used until it stabilizes",
                interface,
                Severity.ERROR,
            )
        if interface.failed and not interface.link.held:
            self._group.tell(Reason.LINK_UP, f"the link of {interface.name} is up: waiting for probes", interface)

    def _try_repair_by_link(self, interface: Interface, now: float) -> None:
        """A link that is up repairs a member that no probe can judge, unless probes condemned it."""
        if interface.state not in BROKEN or interface.link.up is False or interface.link.held or interface.capable:
            return
        if interface.doubted and self._may_still_be_judged(interface):
            return
        if interface.enabled and interface.cause is Reason.PROBES_LOST:
            return
        searching = any(prober.searching for prober in interface.probers.values())
        if searching and interface.cause is Reason.GROUP_FAILED and self._group_failed:
            return  # nobody answered, so the next target that is found has to
        self._repair(interface, Reason.LINK_UP, now)

    def _may_still_be_judged(self, interface: Interface) -> bool:
        """Whether a target, or a test address, may still come for one that had failed when the agent started."""
        if self._doubt_ends == timers.NEVER:
            return True  # the kernel's side has not even told all that is there
        wanted = self._configuration.policies.probe_method is not ProbeMethod.DISABLED
        return wanted and any(prober.targets or prober.want_hosts for prober in interface.probers.values())

    def _end_doubt(self, now: float) -> None:
        """No further target will be found. If no member works, one with a link is repaired, even if it lost probes."""
        self._doubt_ends = timers.NEVER
        doubted = [interface for interface in self._members if interface.doubted]
        for interface in sorted(doubted, key=lambda each: each.cause is Reason.PROBES_LOST):
            interface.doubted = False
            if not self._group_failed:
                self._try_repair_by_link(interface, now)
            elif interface.state in BROKEN and interface.link.usable and not interface.capable:
                self._repair(interface, Reason.LINK_UP, now)

    # --- verdicts ---

    def _condemn(self, interface: Interface, reason: Reason, now: float, since: float | None = None) -> None:
        interface.fire(InterfaceEvent.FAIL, reason, now)
        for prober in interface.probers.values():
            prober.targets.reset_round_trips()
        since = now if since is None else since
        self._group.act(InterfaceVerdict(interface.key, failed=True, reason=reason, since=since))

    def _tell_failure(self, interface: Interface, reason: Reason) -> None:
        why = "its probes are not answered"
        if reason is Reason.LINK_DOWN:
            why = "it is taken down on this host" if interface.link.taken_down else "its link is down"
        self._group.tell(reason, f"failure of {interface.name} detected: {why}", interface, Severity.ERROR)

    def _fail(self, interface: Interface, reason: Reason, now: float, since: float | None = None) -> None:
        was_active = interface.active
        self._condemn(interface, reason, now, since)
        self._tell_failure(interface, reason)
        if was_active:
            self._group.lost()

    def _fail_group(self, culprit: Interface, reason: Reason, now: float) -> None:
        for interface in self._members:
            if interface.functioning or interface.state is State.OFFLINE:
                self._condemn(interface, reason if interface is culprit else Reason.GROUP_FAILED, now)
            elif interface.unheard:
                interface.explain(Reason.GROUP_FAILED, now)
        for interface in self._members:
            for prober in interface.probers.values():
                prober.targets.flush_hosts()
                if interface is not culprit:
                    prober.forget()  # what was answered before does not prove that it works again
        if reason is Reason.LINK_DOWN:
            self._tell_failure(culprit, reason)
        for interface in self._members:
            self._review(interface, now)

    def _repair(self, interface: Interface, reason: Reason, now: float) -> None:
        group_had_failed, waited = self._group_failed, interface.unheard
        with_group = waited or group_had_failed or (interface.cause is Reason.GROUP_FAILED and self._group.recovering)
        interface.fire(InterfaceEvent.REPAIR, reason, now)
        if waited:  # it was never found to have failed
            self._group.tell(reason, f"{interface.name} is answered: it is used", interface)
        else:
            self._group.act(InterfaceVerdict(interface.key, failed=False, reason=reason))
            self._group.tell(reason, f"repair of {interface.name} detected", interface)
        self._group.regained(interface, with_group=with_group)
        if group_had_failed:
            self.review_all(now)  # a failed group kept routers whose routes had gone

    def acquit(self, interface: Interface, now: float) -> None:
        """A member was treated as failed and never was: use it at once. What is wrong with it is found as ever."""
        if interface.state in BROKEN:
            self._repair(interface, Reason.DRILL, now)

    def _judge(self, interface: Interface, now: float) -> None:
        if interface.functioning:
            if not any(prober.losing for prober in interface.probers.values()):
                return
            self._judge_targets(interface, now)
            condemning = failing_probers(interface, now, self.time.value)
            looks_limited = bool(condemning) or self.time.limited(now)
            if looks_limited and self._halve_the_rate(interface if condemning else None, now):
                return
            if condemning and adaptive.may_show_a_limit(self.time, interface, self._members):
                return
            if condemning and interface.quiet(now):
                self._distrust(interface, condemning, now)
            elif condemning:
                self._condemn_by_probes(interface, condemning, now)
        elif interface.state is State.FAILED and interface.link.usable and self._proven(interface):
            self._repair(interface, Reason.PROBES_ANSWERED, now)
        elif interface.unheard and not interface.quiet(now):
            self._judge_unheard(interface, now)

    def _halve_the_rate(self, suspect: Interface | None, now: float) -> bool:
        """Ask half as often if the targets limit the rate; what was lost until then blames nobody."""
        adaptation = adaptive.fit_limit(self.time, suspect, self._members, now)
        if adaptation is None:
            return False
        for interface in self._members:
            for prober in interface.probers.values():
                prober.forget()
        self._reschedule(now)
        self._group.tell(adaptation.reason, adaptation.message, severity=adaptation.severity)
        return True

    def _condemn_by_probes(self, interface: Interface, condemning: Sequence[Prober], now: float) -> None:
        """Fail a member whose newest probes are lost, or its group; or look on while it is open whose fault that is."""
        self._release_flapping(interface, now)
        found = self._culprit(interface, condemning)
        lost = min(prober.streak(ProbeState.LOST)[0] for prober in condemning)
        if found is Culprit.OPEN and lost < timers.PROBES_PER_DETECTION_TIME:
            for prober in condemning:
                prober.hurry(now, self.time.interval)
        elif found is Culprit.OPEN and lost < timers.OPEN_LOSSES:
            self._ask_others(interface, condemning, now)
        elif found is Culprit.TARGETS:
            self._fail_group(interface, Reason.GROUP_FAILED, now)
        else:
            self._fail(interface, Reason.PROBES_LOST, now, first_loss(condemning))

    def _ask_others(self, interface: Interface, condemning: Sequence[Prober], now: float) -> None:
        """Exchange targets that answer nobody for others, once."""
        for prober in condemning:
            if self._exchange(prober, now):
                prober.forget()
                what = f"no IPv{prober.family.value} target of {interface.name} answers anybody: others are asked"
                self._group.tell(Reason.TARGET_DEAD, what, interface, Severity.WARNING)

    def _exchange(self, prober: Prober, now: float) -> bool:
        if prober.exchanged:
            return False
        prober.exchanged = True
        siblings = [other.probers[prober.family] for other in self._members if prober.family in other.probers]
        if any(host not in prober.targets.hosts for other in siblings for host in other.targets.hosts):
            prober.targets.flush_hosts()
            self._copy_hosts(prober, now)
            return True
        return prober.targets.exchange(now)

    def _culprit(self, interface: Interface, condemning: Sequence[Prober]) -> Culprit:
        return find_culprit(interface, condemning, self._members, self.time.interval)

    def _distrust(self, interface: Interface, condemning: Sequence[Prober], now: float) -> None:
        """A member is too new to be condemned; but nothing is left to it while another one is answered."""
        if self._culprit(interface, condemning) is not Culprit.MEMBER:
            return
        was_active = interface.active
        interface.fire(InterfaceEvent.FAIL, Reason.NOT_HEARD, now)
        message = f"{interface.name} is not answered yet, and others are: it is not used until it is"
        self._group.tell(Reason.NOT_HEARD, message, interface, Severity.WARNING)
        if was_active:
            self._group.lost()

    def _judge_unheard(self, interface: Interface, now: float) -> None:
        """It waits for its first answer, and has had its time: it may have failed."""
        condemning = failing_probers(interface, now, self.time.value)
        if condemning and self._culprit(interface, condemning) is Culprit.MEMBER:
            interface.explain(Reason.PROBES_LOST, now)
            since = first_loss(condemning)
            self._group.act(InterfaceVerdict(interface.key, failed=True, reason=Reason.PROBES_LOST, since=since))
            self._tell_failure(interface, Reason.PROBES_LOST)

    def _judge_among_members(self, interface: Interface, now: float) -> None:
        prober = interface.transitive
        if interface.capable or prober is None:
            return
        if interface.functioning:
            margin = timers.JITTER_MINIMUM * self.time.interval
            if not interface.quiet(now) and transitive.is_to_blame(interface, self._members, margin):
                self._fail(interface, Reason.PROBES_LOST, now)
        elif (
            interface.state in BROKEN
            and prober.repaired()
            and (interface.doubted or interface.cause is not Reason.LINK_DOWN)
        ):
            self._repair(interface, Reason.PROBES_ANSWERED, now)

    @staticmethod
    def _proven(interface: Interface) -> bool:
        return any(prober.capable and prober.repaired() for prober in interface.probers.values())

    def _judge_targets(self, interface: Interface, now: float) -> None:
        for prober in interface.probers.values():
            target = prober.dead_target() if prober.capable else None
            if target is not None:
                self._group.tell(
                    Reason.TARGET_DEAD,
                    f"target {target.address} does not answer {interface.name}, others do: not probing it for a while",
                    interface,
                    Severity.WARNING,
                )
                self._set_aside(interface, prober, target, TargetState.DEAD, now)

    def _set_aside(self, interface: Interface, prober: Prober, target: Target, state: TargetState, now: float) -> None:
        if prober.targets.set_aside(target, state, now):
            prober.look_around = True
        self._review(interface, now)

    # --- time ---

    def next_deadline(self) -> float:
        """When the next prober or held link wants attention."""
        earliest = self._doubt_ends
        for interface in self._interfaces.values():
            times = [interface.test_addresses_due]
            if interface.link.up is not False:
                times.append(interface.link.release_at)
            for prober in interface.probers.values():
                times += (prober.probe_at, prober.measure_at)
            if self._among_members and interface.transitive is not None:
                times += (interface.transitive.probe_at, interface.transitive.measure_at)
            earliest = min(earliest, *times)
        return earliest

    def tick(self, now: float) -> None:
        """Judge and probe whatever is due."""
        asleep = 0.0
        if now >= self._doubt_ends:
            self._end_doubt(now)
        for interface in self._interfaces.values():
            if now >= interface.test_addresses_due:
                interface.test_addresses_due = timers.NEVER
            if now >= interface.link.release_at and interface.link.usable:
                interface.link.release()
                self._try_repair_by_link(interface, now)
            for prober in interface.probers.values():
                if now >= prober.probe_at or now >= prober.measure_at:
                    asleep = max(asleep, self._tick(interface, prober, self._judge, now))
            asking = interface.transitive if self._among_members else None
            if asking is not None and (now >= asking.probe_at or now >= asking.measure_at):
                asleep = max(asleep, self._tick(interface, asking, self._judge_among_members, now))
        if asleep >= self.time.value:
            self._group.tell(
                Reason.AGENT_SUSPENDED,
                f"the agent did not run for {asleep:.1f} s: no verdict is drawn from the probes of that time",
                severity=Severity.WARNING,
            )

    def arrange_transitive(self, now: float) -> None:
        """Let the members ask one another exactly while there is nobody else to ask."""
        wanted = self._configuration.policies.probe_method is not ProbeMethod.DISABLED
        wanted = wanted and not any(interface.capable for interface in self._members)
        if wanted or self._among_members:
            self._among_members = wanted
            transitive.arrange(self._members, now, self.time.interval, wanted=wanted)

    def _tick(
        self, interface: Interface, prober: Prober, judge: Callable[[Interface, float], None], now: float
    ) -> float:
        """Judge and probe if that is due. Returns the seconds by which it came too late to judge."""
        late = 0.0
        if now >= prober.probe_at:
            if now - prober.probe_at > timers.LATE_AGENT * self.time.interval:
                self._late_at = now
            late = prober.skip_if_late(now, self.time.interval)
            if not late:
                for closed in prober.begin_tick(now, self.time.interval):
                    self._group.act(closed)
                judge(interface, now)
            if now > prober.targets.rested_at:
                prober.targets.promote(now)
            if not prober.running:
                return late
            for action in prober.send_next(now):
                self._group.act(action)
        measuring = self.time.raised and not self.time.limited(now)
        probe = prober.send_rtt(now, self.time.configured_interval, raised=measuring)
        if probe is not None:
            self._group.act(probe)
        return late

    def _reschedule(self, now: float) -> None:
        for interface in self._members:
            for prober in (*interface.probers.values(), interface.transitive):
                if prober is not None:
                    prober.reschedule(now, self.time.interval)

    # --- answers ---

    def target_heard(self, interface: Interface, event: TargetHeard) -> None:
        """Ask targets at the link layer that answer there, and never answered ICMP to any member."""
        prober = interface.probers.get(event.family)
        target = prober.targets.find(event.target) if prober is not None else None
        if self._configuration.policies.probe_method is not ProbeMethod.AUTO or prober is None or target is None:
            return
        siblings = [each.probers[event.family].targets for each in self._members if event.family in each.probers]
        known = [found for targets in siblings if (found := targets.find(event.target)) is not None]
        decided = any(each.by_link_layer for each in known)
        nobody_answered = not prober.targets.echoing and prober.streak(ProbeState.LOST)[0] >= timers.PROBES_UNHEEDED
        unheeded = nobody_answered or prober.streak(ProbeState.LOST, target)[0] >= timers.PROBES_UNHEEDED
        if not decided and (any(each.echoed for each in known) or not unheeded):
            return
        # Five targets in a row may be of that kind, and five losses in a row condemn.
        for each in {target, *(prober.targets.active if nobody_answered else ())}:
            each.by_link_layer = True
        if not decided:
            how = "ARP" if event.family is Family.IPV4 else "neighbour solicitation"
            words = f"target {event.target} answers {how} and never ICMP: it is asked by {how}"
            self._group.tell(Reason.TARGETS_FOUND, words)

    def not_sent(self, interface: Interface, event: ProbeNotSent, now: float) -> None:
        """The kernel refused a probe."""
        prober = interface.transitive if event.family is Family.LINK else interface.probers.get(event.family)
        if prober is not None:
            prober.not_sent(event.sequence, now)

    def answered(self, interface: Interface, event: ProbeAnswered, now: float) -> None:
        """A reply came: history, estimate, detection time."""
        prober = interface.transitive if event.family is Family.LINK else interface.probers.get(event.family)
        if prober is None or not interface.watching:
            return
        if event.kind is ProbeKind.DISCOVERY:
            self._discovered(event, now)
            return
        if event.rtt - event.network_rtt > timers.LATE_AGENT * self.time.interval:
            self._late_at = now
        measure = interface.functioning
        if event.kind is ProbeKind.RTT:
            target = prober.targets.find(event.target)
            if target is not None and measure:
                target.rtt.sample_if_lower(event.network_rtt)
        else:
            probe = prober.answered(event, self.time.interval, measure=measure)
            if probe is None:
                return
            target = probe.target
            interface.quiet_until = None
            self._group.act(prober.closed(probe, event.rtt, event.network_rtt))
            if event.family is not Family.LINK:
                interface.answered = True
            if interface.state is State.FAILED and interface.unheard:
                self._repair(interface, Reason.PROBES_ANSWERED, now)
        if target is not None and measure and event.family is not Family.LINK:
            self._adapt(interface, prober, target, now)

    def _discovered(self, event: ProbeAnswered, now: float) -> None:
        if event.target in self._own_addresses():
            return  # another member hears what is sent to all hosts, and answers
        for interface in self._members:
            prober = interface.probers.get(event.family)
            if prober is not None and prober.want_hosts and prober.targets.add_host(event.target, now):
                self._review(interface, now)

    def _adapt(self, interface: Interface, prober: Prober, target: Target, now: float) -> None:
        late = now - self._late_at <= self.time.value
        adaptation = adaptive.adapt(self.time, interface, prober, target, self._members, now, late=late)
        if adaptation is None:
            return
        self._group.tell(adaptation.reason, adaptation.message, interface, adaptation.severity)
        if adaptation.reason is Reason.TARGET_SLOW:
            self._set_aside(interface, prober, target, TargetState.SLOW, now)
        else:
            self._reschedule(now)
