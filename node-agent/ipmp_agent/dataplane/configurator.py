"""Brings the running groups to the wanted configuration, and mends what the kernel refused.

Off the hot path: failovers go on while a group is being configured. The newest configuration wins; a group that cannot
be configured or withdrawn is tried again, and none stops another.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from ipmp_agent.core import timers
from ipmp_agent.core.actions import Notify, Severity
from ipmp_agent.core.events import DrillRequested, OfflineRequested, OnlineRequested, StateRestored
from ipmp_agent.core.reasons import Reason
from ipmp_agent.disk.state import Change, SavedGroup, SavedState
from ipmp_api.types import Mode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipmp_agent.core.snapshot import InterfaceSnapshot
    from ipmp_agent.core.words import DrillKind
    from ipmp_agent.dataplane.loop import DataPlane
    from ipmp_agent.dataplane.running import RunningGroup
    from ipmp_agent.dataplane.trials import Trials
    from ipmp_agent.disk.state import Refusal
    from ipmp_agent.publication import Occurrence
    from ipmp_api.types import NodeGroup

RETRY_MINIMUM = 1.0
RETRY_MAXIMUM = 60.0
"""Seconds until a group that could not be configured or withdrawn is tried again, doubling."""

log = logging.getLogger(__name__)


class Configurator:
    """Applies configurations one after the other. All methods belong to the loop of the data plane."""

    def __init__(self, plane: DataPlane, saved: SavedState, trials: Trials) -> None:
        self._plane = plane
        self._trials = trials
        self._saved: dict[str, SavedGroup] = dict(saved.groups)  # neither taken over nor withdrawn yet
        self._wanted: dict[str, NodeGroup] | None = None
        self._news = asyncio.Event()
        self._kernel_in_use = asyncio.Lock()
        self._retry = RETRY_MINIMUM
        self.applied = asyncio.Event()  # a configuration has been gone through

    def want(self, configurations: Iterable[NodeGroup]) -> None:
        """The complete list of groups from now on; one that runs and is not in it is withdrawn."""
        self._wanted = {configuration.group_name: configuration for configuration in configurations}
        self._retry = RETRY_MINIMUM
        self._news.set()

    def stopped(self) -> None:
        """This agent was asked to end. Called before the last state is saved."""
        self._trials.stopped()
        self._keep_in_mind()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._apply_forever())
            tasks.create_task(self._mend_forever())
            tasks.create_task(self._trials.run(self._decided))

    # --- configuration

    async def _apply_forever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._news.wait()
            self._news.clear()
            if self._wanted is None:
                continue  # a verdict over what an earlier agent left: nobody has said yet what is to be
            if await self._apply(self._wanted):
                self._retry = RETRY_MINIMUM
            elif not self._news.is_set():
                loop.call_later(self._retry, self._news.set)
                self._retry = min(2 * self._retry, RETRY_MAXIMUM)

    async def _apply(self, wanted: dict[str, NodeGroup]) -> bool:
        """Bring every group where it should be; False when one of them must be tried again."""
        plane = self._plane
        wanted = self._trials.permitted(wanted)
        # What stays as an earlier agent left it is taken over at once: nobody need be asked about it.
        same = [n for n, new in wanted.items() if n not in plane.groups and self._current(n) == new]
        done = {name: await self._attempt(name, wanted[name]) for name in same}
        if await self._trials.begin([Change(new, self._current(name)) for name, new in wanted.items()]):
            self._keep_in_mind()
            await plane.secure()
        leaving = [name for name in (*plane.groups, *self._saved) if name not in wanted or self._lets_go(name)]
        stuck = [name for name in dict.fromkeys(leaving) if not await self._attempt(name, None)]
        # What a group set that could not be withdrawn must not be noted as what the host had.
        theirs = [current for name in stuck if (current := self._current(name)) is not None]
        taken = {member.key for configuration in theirs for member in configuration.members}
        for name, configuration in wanted.items():
            if name not in done:
                free = taken.isdisjoint(member.key for member in configuration.members)
                done[name] = free and await self._attempt(name, configuration)
        failed = {*stuck, *(name for name, succeeded in done.items() if not succeeded)}
        self._trials.applied(wanted, failed)
        self._keep_in_mind()
        self._mark()
        plane.configured = True
        plane.measurements.configured_at = plane.publish().time
        self.applied.set()
        return not failed

    def _current(self, name: str) -> NodeGroup | None:
        """What a group was configured by last, in this process or the one before."""
        known = self._plane.groups.get(name) or self._saved.get(name)
        return known.configuration if known else None

    def _lets_go(self, name: str) -> bool:
        """Whether a group that was refused still has something in the kernel."""
        current = self._current(name)
        return self._trials.lets_go(name) and current is not None and current.policies.mode is Mode.MANAGE

    def _keep_in_mind(self) -> None:
        """Have everything in the state file that the running groups do not put there."""
        self._plane.unfinished(self._trials.saved(SavedState(dict(self._saved))))

    async def _attempt(self, name: str, configuration: NodeGroup | None) -> bool:
        async with self._kernel_in_use:
            try:
                if configuration is None:
                    await self._withdraw(name)
                elif name not in self._plane.groups:
                    await self._start(configuration)
                else:
                    await self._change(self._plane.groups[name], configuration)
            except Exception:
                self._plane.measurements.errors["configure"] += 1
                what = "withdraw" if configuration is None else "configure"
                log.exception("could not %s; will try again", what, extra={"group": name})
                return False
        return True

    async def _start(self, configuration: NodeGroup) -> None:
        """Take over what an earlier agent left, or start with what is there."""
        plane, name = self._plane, configuration.group_name
        saved = self._saved.get(name)
        group = plane.add(configuration, saved.history if saved else ())

        async def secure() -> bool:
            if not group.released:
                before = saved or SavedGroup(configuration)
                self._saved[name] = replace(before, configuration=configuration, kernel=plane.kernel.memory(name))
                self._keep_in_mind()
            return await plane.secure()

        try:
            await plane.kernel.configure(configuration, saved.kernel if saved else None, secure)
        except BaseException:
            plane.remove(name)
            raise
        self._saved.pop(name, None)
        self._keep_in_mind()
        group.obeyed()
        plane.release(group, saved.restored() if saved else StateRestored(()))
        log.info("running with %d interfaces", len(configuration.members), extra={"group": name})

    async def _change(self, group: RunningGroup, configuration: NodeGroup) -> None:
        """The core first, so that what leaves the group is moved off while the kernel's side still knows it."""
        before = group.configuration
        if configuration == before and group.ready:
            return
        plane = self._plane
        for_kernel = replace(configuration, offline=()) != replace(before, offline=()) or not group.ready
        # Before the kernel's side manages the group it carries out no order, and none is given twice.
        observed = before.policies.mode is Mode.OBSERVE
        plane.submit(group, group.take(configuration.in_mode(Mode.OBSERVE) if observed else configuration))
        if for_kernel:
            group.await_kernel()
            await plane.kernel.configure(configuration, None, plane.secure)
            group.obeyed()
        if group.configuration != configuration:
            plane.submit(group, group.take(configuration))
        log.info("configuration changed", extra={"group": group.name})

    async def _withdraw(self, name: str) -> None:
        """Stop a group and take it out of the kernel."""
        plane = self._plane
        running = plane.groups.get(name)
        if running is not None:
            self._saved[name] = running.to_save(plane.kernel.memory(name))
            plane.remove(name)
        else:
            saved = self._saved[name]
            await plane.kernel.configure(saved.configuration, saved.kernel, plane.secure)
        self._keep_in_mind()  # killed here, the next agent finishes it
        await plane.kernel.withdraw(name, restore=self._trials.restores(name))
        del self._saved[name]
        log.info("withdrawn from the kernel", extra={"group": name})

    # --- trial

    def _decided(self, refusal: Refusal | None) -> None:
        """Go on from a verdict over what was on trial."""
        self._keep_in_mind()
        if refusal is not None:
            for name in refusal.changes:
                self._plane.measurements.group(name).undone += 1
                notice = Notify(Reason.CHANGE_UNDONE, self._trials.complaint(name), Severity.ERROR)
                self._plane.tell(name, notice)
        self._mark()
        self._plane.publish()
        self._retry = RETRY_MINIMUM
        self._news.set()

    def _mark(self) -> None:
        """Have the running groups say what is on trial and what was undone."""
        for name, group in self._plane.groups.items():
            group.put_on_trial(self._trials.complaint(name), on_trial=self._trials.is_on_trial(name))

    # --- trouble

    async def _mend_forever(self) -> None:
        """Reconcile groups in which the kernel refused something. It looks after them regularly by itself."""
        plane = self._plane
        while True:
            await plane.trouble_noticed.wait()
            await asyncio.sleep(timers.REPAIR_FOREIGN)  # once for a burst, and never a busy loop
            names = tuple(plane.trouble)
            plane.trouble.clear()
            plane.trouble_noticed.clear()
            for name in names:
                async with self._kernel_in_use:
                    await self._mend(name)

    async def _mend(self, name: str) -> None:
        group = self._plane.groups.get(name)
        if group is None or not group.ready:
            return
        try:
            await self._plane.kernel.reconcile(name)
        except Exception:
            self._plane.measurements.errors["reconcile"] += 1
            log.exception("could not reconcile the kernel", extra={"group": name})

    # --- maintenance

    def take_offline(self, interface: str, group: str | None, *, force: bool) -> str:
        """Take a member out of use; returns what was done. Raises ValueError with the reason of a refusal."""
        running, member = self._find(interface, group)
        if running.core.keeps_offline(member.interface):
            raise ValueError(f"{member.name} is already offline")
        told = self._plane.submit(running, OfflineRequested(member.interface, force))
        if not running.core.keeps_offline(member.interface):
            raise ValueError(_words(running, member, told))
        return f"{member.name} of group {running.name} is offline" if member.present else _words(running, member, told)

    def bring_online(self, interface: str, group: str | None) -> str:
        """Give a member back; returns what was done. Raises ValueError with the reason of a refusal."""
        running, member = self._find(interface, group)
        if not running.core.keeps_offline(member.interface):
            raise ValueError(f"{member.name} is not offline")
        if not {member.interface, member.name}.isdisjoint(running.configuration.offline):
            where = f"spec.offline of the IPMPNodeGroup {running.configuration.name}"
            raise ValueError(f"{member.name} is kept offline by {where}: remove it there")
        told = self._plane.submit(running, OnlineRequested(member.interface))
        if running.core.keeps_offline(member.interface):
            raise ValueError(_words(running, member, told))
        return f"{member.name} of group {running.name} is online" if member.present else _words(running, member, told)

    def drill(self, interface: str, group: str | None, kind: DrillKind, seconds: float) -> tuple[str, str]:
        """Treat a member as failed for a time; returns the group and the member's key.

        Raises ValueError with the reason of a refusal.
        """
        running, member = self._find(interface, group)
        if running.on_trial:
            raise ValueError(f"group {running.name} is on trial after a change: wait until the change is kept")
        before = running.core.snapshot().drill
        told = self._plane.submit(running, DrillRequested(member.interface, kind, seconds))
        after = running.core.snapshot().drill
        if after is None or after is before or after.over:
            raise ValueError(_words(running, member, told))
        return running.name, member.interface

    def _find(self, interface: str, group: str | None) -> tuple[RunningGroup, InterfaceSnapshot]:
        if group is not None and group not in self._plane.groups:
            raise ValueError(f"no group {group} here; there is: {', '.join(self._plane.groups) or 'none'}")
        for running in self._plane.groups.values():
            if group is not None and running.name != group:
                continue
            for member in running.core.snapshot().interfaces:
                if interface in (member.name, member.interface):
                    return running, member
        where = f"group {group}" if group else "any group"
        raise ValueError(f"{interface} is not in {where}; ipmpstat -i lists the interfaces")


def _words(running: RunningGroup, member: InterfaceSnapshot, told: tuple[Occurrence, ...]) -> str:
    """What became of a request, or why it was refused, in the words of the core."""
    words = [o.message for o in told if o.group == running.name and o.interface in (member.name, member.interface)]
    return words[-1] if words else f"{member.name} stays {member.state.value}"
