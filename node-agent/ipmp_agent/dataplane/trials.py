"""Keeps a change of configuration only if the node can still reach what it reached before it.

A valid manifest can cut a node off, and with it the way by which somebody would mend it. So the node's gateways, the
group's targets and the API server are asked before the kernel is touched, and for some seconds after. If one that
answered falls silent, the groups that changed go back to what they were; a new one lets go of the kernel and only
observes. That stays until a spec of theirs changes. What is on trial and what was refused is in the state file: an
agent that is killed meanwhile does not forget it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from ipmp_agent.core import timers
from ipmp_agent.core.reasons import OBSTACLES, Reason
from ipmp_agent.core.trial import Aftermath, Blame, Trial, TrialVerdict
from ipmp_agent.disk.state import Change, Refusal, SavedState, SavedTrial
from ipmp_api.types import Mode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

    from ipmp_agent.dataplane.loop import KernelPort
    from ipmp_api.types import Address, NodeGroup

API_SERVER = "the API server"

API_TIMEOUT = 3.0
"""Seconds for one question to the API server, whatever hangs."""

RETRY_CUT_SHORT = 4 * 3600.0
"""Seconds until a change is tried again whose trials were only cut short: others may have killed the agent."""

log = logging.getLogger(__name__)


class Trials:
    """What is on trial on this node, and what was refused. All methods belong to the loop of the data plane.

    Args:
        kernel: knows the gateways, and asks who answers.
        api_server: whether the API server answers a fresh connection; None: this agent has none. It may hang.
        saved: what an earlier agent left.
        unplugged: whether all members of a group are without a link.
        enabled: otherwise every change is kept at once.
    """

    def __init__(
        self,
        kernel: KernelPort,
        api_server: Callable[[], Awaitable[bool | None]],
        saved: SavedState,
        unplugged: Callable[[str], bool],
        *,
        enabled: bool = True,
    ) -> None:
        self._kernel = kernel
        self._api_server = api_server
        self._unplugged = unplugged
        self._plugged: set[str] = set()  # groups on trial that have had a link since their change
        self._enabled = enabled
        self._loop = asyncio.get_running_loop()
        self._watching = asyncio.Event()  # there is something to look at
        self._asking: asyncio.Future[bool | None] | None = None
        self._has_no_api_server = False  # as it said when it was asked last
        self._refusals = list(saved.refusals) if enabled else []
        # By id() of the refusal, since two may be equal; `_refusals` keeps each alive for as long as its aftermath.
        self._aftermaths: dict[int, Aftermath] = {}
        self._cut_off: dict[str, tuple[str, ...]] = {}  # who answers, but not by these members
        self._tried: dict[str, int] = {}  # trials so far of a group that is tried again
        self._record: SavedTrial | None = None
        self._trial: Trial | None = None
        self._unapplied = False  # the kernel is not yet as all that is on trial would have it
        in_force = {name: group.configuration for name, group in saved.groups.items()}
        # The agent before this one undid them: nobody knows for how long what was lost stayed away after that.
        self._look_for_blame([r for r in self._refusals if self._is_undone(r, in_force)], since=-math.inf)
        for refusal in self._refusals:
            self._wake_for(refusal)
        if enabled and saved.trial is not None:
            self._resume(saved.trial)

    def _resume(self, cut_short: SavedTrial) -> None:
        now = self._loop.time()
        # After a reboot links come up, and switches wait before they forward: that silence is not the change's.
        patience = now + timers.QUIET_PERIOD if cut_short.rebooted else now
        # A change can have killed the agent, or left it hanging; it cannot have asked it to end, or the host.
        attempts = cut_short.attempts if cut_short.stopped or cut_short.rebooted else cut_short.attempts + 1
        self._record = replace(cut_short, attempts=attempts, rebooted=False, stopped=False)
        self._trial = Trial(frozenset(cut_short.reached), now, patience)
        self._unapplied = True
        self._watching.set()

    # --- what others ask

    def saved(self, state: SavedState) -> SavedState:
        """This state with what a restart must know of trials."""
        return replace(state, trial=self._record, refusals=tuple(self._refusals))

    def stopped(self) -> None:
        """This agent was asked to end: what is on trial goes on with the next one."""
        if self._record is not None:
            self._record = replace(self._record, stopped=True)

    def is_on_trial(self, group: str) -> bool:
        """Whether the configuration of a group may still be undone."""
        return self._record is not None and group in self._record.changes

    def lets_go(self, group: str) -> bool:
        """Whether a group was refused that had nothing in the kernel before."""
        refusal = self._refusal(group)
        return refusal is not None and refusal.changes[group].before is None

    def restores(self, group: str) -> bool:
        """Whether a group that goes puts everything back whatever its policy says, for it never proved itself."""
        change = self._record.changes.get(group) if self._record is not None else None
        return self.lets_go(group) or (change is not None and change.before is None)

    def complaint(self, group: str) -> str:
        """Why a group is not as it is wanted; empty if it is."""
        refusal = self._refusal(group)
        if refusal is None:
            return ""
        if refusal.lost:
            why = f"before its change {_listed(refusal.lost)} answered this node, and not after it"
        else:
            why = f"its change had {timers.TRIALS} trials, and the agent ended before the last of them did"
        if others := [name for name in refusal.changes if name != group]:
            why += f" (changed together with {_listed(others)})"
        now = "nothing of it is in the kernel, it only observes" if self.lets_go(group) else "the change is undone"
        end = "its spec changes" if refusal.final else "that answers again"
        if refusal.until is not None:
            end += f", or it is tried again in {math.ceil((refusal.until - self._loop.time()) / 3600)} hours"
        on_host = f". On this host: {' '.join(refusal.found)}" if refusal.found else ""
        return f"{why}: {now}, until {end}{on_host}"

    def _refusal(self, group: str) -> Refusal | None:
        return next((refusal for refusal in self._refusals if group in refusal.changes), None)

    # --- what may be applied

    def permitted(self, wanted: Mapping[str, NodeGroup]) -> dict[str, NodeGroup]:
        """What is to be applied of what is wanted: what was refused is replaced by what was there before."""
        for refusal in tuple(self._refusals):
            stands = all(_is_same(change.wanted, wanted.get(name)) for name, change in refusal.changes.items())
            if not stands or _is_taken(refusal, wanted):
                log.info("not refused any more, for there is a new configuration: %s", _listed(refusal.changes))
                self._permit(refusal)
        instead = {name: self._instead(name, configuration) for name, configuration in wanted.items()}
        # Two groups may now want one member, and the first that is configured has it: a group that went back to the
        # member comes before one that only observes it.
        return dict(sorted(instead.items(), key=lambda item: item[1].policies.mode is Mode.OBSERVE))

    def _permit(self, refusal: Refusal) -> None:
        self._refusals.remove(refusal)
        self._aftermaths.pop(id(refusal), None)

    def _instead(self, group: str, wanted: NodeGroup) -> NodeGroup:
        refusal = self._refusal(group)
        if refusal is None:
            return wanted
        before = refusal.changes[group].before
        if before is None:
            return wanted.in_mode(Mode.OBSERVE)
        return replace(before, peers=wanted.peers)

    async def begin(self, changes: Collection[Change]) -> bool:
        """Ask who answers, before these changes are carried out. A change that joins others shares their trial.

        Returns:
            Whether anything is on trial that was not before: to be kept on disk before the kernel is touched.
        """
        if not self._enabled:
            return False
        tried = {c.wanted.group_name: _managed(c) for c in changes if self._is_tried(c)}
        if not tried:
            return False
        if self._record is None:
            reached = await self._look(await self._worth_asking(tried.values()))
            if not reached:
                return False  # where nobody answers nothing can be lost
            self._trial = Trial(reached, self._loop.time())
            attempts = 1 + max(self._tried.pop(name, 0) for name in tried)
            self._record = SavedTrial({}, tuple(sorted(reached)), attempts)
        elif self._trial is not None and (more := _pinned(tried.values()) - self._trial.before):
            trial, reached = self._trial, await self._look(more)
            if self._trial is not trial:
                return await self.begin(changes)  # that trial has ended meanwhile
            trial.joined(reached or frozenset())
            self._record = replace(self._record, reached=tuple(sorted(trial.before)))
        known = self._record.changes
        tried = {name: replace(c, before=known[name].before) if name in known else c for name, c in tried.items()}
        self._record = replace(self._record, changes={**known, **tried})
        self._unapplied = True
        self._watching.set()
        return True

    def _is_tried(self, change: Change) -> bool:
        """Whether a change may cost the node anything."""
        wanted = change.wanted
        if self._refusal(wanted.group_name) is not None or wanted.policies.mode is Mode.OBSERVE:
            return False
        return not _is_same(wanted, change.before)

    def applied(self, wanted: Mapping[str, NodeGroup], failed: Collection[str]) -> None:
        """Start the clocks: this is what the kernel is like now, but for the groups that failed."""
        now = self._loop.time()
        if self._record is not None and self._trial is not None:
            # A group that was deleted, only observes, or was changed back by hand has nothing on trial any more.
            changes = {
                name: change
                for name, change in self._record.changes.items()
                if _is_same(change.wanted, wanted.get(name)) and not _is_same(change.wanted, change.before)
            }
            if changes != self._record.changes:
                self._record = replace(self._record, changes=changes)
            if not changes:
                self._record = self._trial = None
            elif self._unapplied and changes.keys().isdisjoint(failed):
                self._unapplied = False
                self._plugged.clear()
                self._lost_links()
                self._trial.applied(now)
                # An equal copy, and another object: `_judge` compares by identity, so a look that is under way, and
                # began before the change was applied, counts as overtaken.
                self._record = replace(self._record)
        in_force = {name: configuration for name, configuration in wanted.items() if name not in failed}
        self._look_for_blame([r for r in self._refusals if self._is_undone(r, in_force)], since=now)

    def _look_for_blame(self, undone: Iterable[Refusal], since: float) -> None:
        for refusal in undone:
            if not refusal.final and id(refusal) not in self._aftermaths:
                self._aftermaths[id(refusal)] = Aftermath(frozenset(refusal.lost), since)
                self._watching.set()

    def _is_undone(self, refusal: Refusal, in_force: Mapping[str, NodeGroup]) -> bool:
        """Whether nothing of refused changes is in the kernel any more: a refusal may come while they are applied."""
        return all(
            _is_same(self._instead(name, change.wanted), in_force.get(name)) for name, change in refusal.changes.items()
        )

    # --- verdicts

    async def run(self, decided: Callable[[Refusal | None], None]) -> None:
        """Look until cancelled, while there is anything to look at.

        Args:
            decided: called when a change is kept or may be tried again, or with what has been refused just now.
        """
        while True:
            await self._watching.wait()
            began = self._loop.time()
            for refusal in tuple(self._refusals):
                if self._is_over(refusal) or await self._look_after(refusal):
                    decided(None)
            verdict, refused = await self._judge()
            if verdict is not TrialVerdict.OPEN:
                decided(refused)
            if self._record is None and not self._aftermaths:
                self._watching.clear()
                continue
            await asyncio.sleep(max(0.0, began + timers.TRIAL_LOOK - self._loop.time()))

    async def _judge(self) -> tuple[TrialVerdict, Refusal | None]:
        trial, record = self._trial, self._record
        if trial is None or record is None:
            return TrialVerdict.OPEN, None
        if record.attempts > timers.TRIALS:
            return TrialVerdict.LOST, self._refuse(record, frozenset())
        asked = trial.before
        answered = await self._look_again(asked)
        if answered is None or self._trial is not trial or self._record is None:
            return TrialVerdict.OPEN, None
        now = self._loop.time()
        if self._lost_links():
            trial.unplugged(now)
        verdict = trial.looked(answered, now) if self._record is record else trial.overtaken(asked, answered, now)
        if verdict is TrialVerdict.LOST:
            return verdict, self._refuse(self._record, trial.lost)
        if verdict is TrialVerdict.KEPT and self._unapplied:
            return TrialVerdict.OPEN, None
        if verdict is TrialVerdict.KEPT:
            log.info("kept, since everything still answers: the change of %s", _listed(record.changes))
            self._record = self._trial = None
        return verdict, None

    def _lost_links(self) -> bool:
        """Whether a group on trial has lost every link it had: its silence says nothing of its change.

        One that had none from the start is silent by its change, which may have chosen members without a cable.
        """
        changes = self._record.changes if self._record is not None else {}
        dark = {name for name in changes if self._unplugged(name)}
        self._plugged |= changes.keys() - dark
        return not dark.isdisjoint(self._plugged)

    def _refuse(self, record: SavedTrial, lost: frozenset[str]) -> Refusal:
        final = not lost or record.attempts >= timers.TRIALS
        refusal = Refusal(
            record.changes,
            tuple(sorted(lost)),
            record.attempts,
            final,
            self._by_some_only(lost) + self._in_the_way(record.changes),
            until=None if lost else self._loop.time() + RETRY_CUT_SHORT,
        )
        self._refusals.append(refusal)
        self._wake_for(refusal)
        self._record = self._trial = None
        return refusal

    def _by_some_only(self, lost: Iterable[str]) -> tuple[str, ...]:
        """What was lost by some members only, in words: the switch may tie addresses to ports."""
        return tuple(
            f"{name} answers, but not what leaves by {_listed(self._cut_off[name])}: the switch port of every member"
            " has to let every data address pass."
            for name in sorted(lost)
            if name in self._cut_off
        )

    def _wake_for(self, refusal: Refusal) -> None:
        if refusal.until is not None:
            self._loop.call_at(refusal.until, self._watching.set)

    def _is_over(self, refusal: Refusal) -> bool:
        """Try again, hours later, what was only cut short; returns whether that begins now."""
        if refusal.until is None or self._loop.time() < refusal.until or refusal not in self._refusals:
            return False
        log.info("another trial, for the last ones were only cut short: %s", _listed(refusal.changes))
        self._permit(refusal)
        return True

    def _in_the_way(self, groups: Iterable[str]) -> tuple[str, ...]:
        """What on this host may be why something fell silent: as long as the change is there, it is known best."""
        try:
            every = [each for group in groups for each in self._kernel.findings(group)]
        except Exception:
            log.exception("could not look for what stands in the way of a change")
            return ()
        telling = OBSTACLES | {Reason.SETTINGS_OVERRIDDEN}
        return tuple(dict.fromkeys(each.message for each in every if each.reason in telling))

    async def _look_after(self, refusal: Refusal) -> bool:
        """See who is to blame for what was lost; returns whether that is decided now."""
        aftermath = self._aftermaths.get(id(refusal))
        if aftermath is None:
            return False
        answered = await self._look_again(aftermath.lost)
        if answered is None or self._aftermaths.get(id(refusal)) is not aftermath:
            return False
        blame = aftermath.looked(answered, self._loop.time())
        if blame is Blame.OPEN:
            return False
        self._permit(refusal)
        if blame is Blame.CHANGE:
            self._refusals.append(replace(refusal, final=True))
            log.warning(
                "%s answers again since the change of %s is undone: it is not tried again until a spec changes",
                _listed(refusal.lost),
                _listed(refusal.changes),
            )
        else:
            log.info("%s answers again: another trial for %s", _listed(refusal.lost), _listed(refusal.changes))
            self._tried.update(dict.fromkeys(refusal.changes, refusal.attempts))
        return True

    # --- looks

    async def _worth_asking(self, changes: Iterable[Change]) -> frozenset[str]:
        """The gateways, the pinned targets and the API server. Peers are no measure: they come and go."""
        asked: set[Address] = set()
        try:
            asked.update(await self._kernel.gateways())
        except Exception:
            log.exception("could not read the gateways: nobody asks them about this change")
        return frozenset({API_SERVER}) | _names(asked) | _pinned(changes)

    async def _look(self, names: frozenset[str]) -> frozenset[str] | None:
        """Those of these that answer now; None where they could not be asked, since that is nobody's silence.

        Who is to be reached by several members answers if each of them reaches him: the next flow may leave by any.
        """
        try:
            heard, api_server = await asyncio.gather(
                self._kernel.answering({ip_address(name) for name in names - {API_SERVER}}),
                self._api_server_answers(asked=API_SERVER in names),
            )
            cut_off = await self._kernel.cut_off(heard)
        except Exception:
            log.exception("could not ask who answers this node")
            return None
        for name in names:
            self._cut_off.pop(name, None)
        self._cut_off.update({str(address): members for address, members in cut_off.items()})
        return frozenset(str(each) for each in heard - cut_off.keys()) | ({API_SERVER} if api_server else set())

    async def _look_again(self, names: frozenset[str]) -> frozenset[str] | None:
        """Those of these that answer now, of whom it is told that they did or did not; None where that cannot be said.

        An agent without an API server took this over from one that had it: nothing is decided by its silence, but where
        others are silent, too, and the next agent that has one goes on from here.
        """
        answered = await self._look(names)
        if answered is None or API_SERVER not in names or not self._has_no_api_server:
            return answered
        return None if names - {API_SERVER} <= answered else answered

    async def _api_server_answers(self, *, asked: bool) -> bool:
        if not asked:
            return False
        if self._asking is None or self._asking.done():  # one that hangs keeps its thread: take no second one
            self._asking = asyncio.ensure_future(self._api_server())
        done, _ = await asyncio.wait((self._asking,), timeout=API_TIMEOUT)
        answer = self._asking.result() if done else False
        self._has_no_api_server = answer is None
        return bool(answer)


def _pinned(changes: Iterable[Change]) -> frozenset[str]:
    """The targets that people named for these groups."""
    return _names(address for change in changes for address in change.wanted.policies.targets.addresses)


def _names(addresses: Iterable[Address]) -> frozenset[str]:
    """The addresses as names, without link-local ones: an answer from those says nothing of routes."""
    return frozenset(str(address) for address in addresses if not address.is_link_local)


def _managed(change: Change) -> Change:
    """The change, seen from the kernel: a group that only observed had nothing there."""
    if change.before is not None and change.before.policies.mode is Mode.OBSERVE:
        return replace(change, before=None)
    return change


def _is_same(one: NodeGroup, other: NodeGroup | None) -> bool:
    """Whether two configurations ask the same of the kernel; peers come and go with the nodes of the cluster."""
    return other is not None and replace(one, peers=()) == replace(other, peers=())


def _is_taken(refusal: Refusal, wanted: Mapping[str, NodeGroup]) -> bool:
    """Whether another group wants a member that a group would go back to."""
    back = {m.key for change in refusal.changes.values() if change.before for m in change.before.members}
    others = [each for name, each in wanted.items() if name not in refusal.changes]
    managing = [each for each in others if each.policies.mode is Mode.MANAGE]
    return any(member.key in back for each in managing for member in each.members)


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
