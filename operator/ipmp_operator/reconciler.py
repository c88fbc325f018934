"""From what is seen to what is written: one pass plans everything, then each object is written by itself.

A pass reads the caches and asks the core: for a plan where something changed that decides, else for the groups' status
alone. Whatever differs from the plan becomes a key in the work queue; a worker that
takes the key looks again and writes. An object that the API server refuses delays no other.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

from ipmp_api.frozen import frozen
from ipmp_api.types import GROUP_KIND, NODE_GROUP_KIND, WITHDRAW_FINALIZER
from ipmp_operator.core.backlog import LAST_RECONNECT
from ipmp_operator.core.node_marks import NodeMarks
from ipmp_operator.core.pacing import Pace
from ipmp_operator.core.plan import Memory, Plan, Release, View, plan, roll_up_groups, still_holds
from ipmp_operator.core.selection import agent_terms
from ipmp_operator.core.summaries import GroupSummaries, GroupSummary
from ipmp_operator.kube.daemonset import DaemonSet, digest, read_daemonset
from ipmp_operator.kube.groups import EVERY, GroupCache
from ipmp_operator.kube.node_marks import conditions_intent, read_marked_node, taints_patch
from ipmp_operator.kube.objects import (
    API,
    GROUPS_PATH,
    NODE_GROUPS_PATH,
    NODES_PATH,
    group_status,
    group_status_intent,
    node_group_intent,
    read_agent_pod,
    read_node,
    read_node_group,
)
from ipmp_operator.metrics import Metrics
from ipmp_operator.workqueue import WorkQueue
from ipmp_service.api_server import ApiError
from ipmp_service.events import Event, EventsOnce, Reference
from ipmp_service.reflector import Reflector

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ipmp_api.types import LabelSelector, NodeGroup
    from ipmp_operator.core.model import Holder, Node, Observed
    from ipmp_operator.core.node_marks import Marks
    from ipmp_operator.core.rollup import Rollup
    from ipmp_operator.kube.daemonset import Template
    from ipmp_operator.kube.objects import GroupObject
    from ipmp_service.api_server import ApiServer, Object

log = logging.getLogger(__name__)

WORKERS = 8
"""Threads that write."""

COALESCENCE = 0.05
"""Seconds from a change to the pass that plans it, so that a burst of changes is planned once."""

PASS_SHARE = 2.0
"""Rest between two passes, in durations of a pass, whose cost grows with the cluster: at most a third of one core."""

REST = 1.0
"""Seconds between two passes at least: what changes again and again is looked at once a second."""

RESYNC = 60.0
"""Seconds between lists of the groups, with a plan that takes nothing for done."""

STALLED = 300.0
"""Seconds without the end of any step after which the operator counts as dead."""


@frozen
class Pass:
    """Plan everything."""


@frozen
class Resync:
    """List the groups, then plan."""


@frozen
class Agents:
    """Write the DaemonSet."""


@frozen
class WriteNodeGroup:
    """Bring one IPMPNodeGroup to what the plan says."""

    holder: Holder


@frozen
class MarkNode:
    """Bring what one Node says to what was decided."""

    node: str


@frozen
class WriteStatus:
    """Write the status of one IPMPGroup."""

    group: str


@frozen
class Marking:
    """What the operator says on Nodes, for which it needs rights of its own."""

    conditions: bool = False
    taint: bool = False

    @property
    def any(self) -> bool:
        """Whether it says anything there."""
        return self.conditions or self.taint


class AgentsRun(Enum):
    """Where an operator has agents run: of several in one cluster, one looks after the DaemonSet."""

    GROUPS = "groups"  # on the nodes that its groups select
    EVERYWHERE = "everywhere"  # on all that the template allows: the groups of others count, too
    ELSEWHERE = "elsewhere"  # another operator has the DaemonSet


@frozen
class Sphere:
    """What an operator looks after: the groups with these labels, and the agents or not."""

    groups: LabelSelector = EVERY
    agents: AgentsRun = AgentsRun.GROUPS


Key = Pass | Resync | Agents | WriteNodeGroup | MarkNode | WriteStatus | GroupSummary


def _rank(key: Key) -> int:
    """Node groups come by the thousand: what is planned and told meanwhile does not wait for them."""
    return int(isinstance(key, WriteNodeGroup))


class Reconciler:
    """Owns the caches, the work queue and the memory between plans. `leading` is asked before each write."""

    def __init__(
        self,
        api: ApiServer,
        template: Template,
        identity: str,
        leading: Callable[[], bool],
        withdraw_seconds: float,
        marking: Marking,
        sphere: Sphere,
    ) -> None:
        self._api = api
        self._template = template
        self._owner: Object | None = None
        self._leading = leading
        self._withdraw_seconds = withdraw_seconds
        self._marking = marking
        self._node_marks = NodeMarks()
        self._marks: Mapping[str, Marks] = {}
        self._events = EventsOnce(api, "ipmp.dev/operator", identity)
        self._queue: WorkQueue[Key] = WorkQueue(self._work, self._attempted, WORKERS, _rank)
        self.metrics = Metrics(lambda: len(self._queue))
        self.groups = GroupCache(sphere.groups)
        self._agents_run = sphere.agents
        cache = partial(Reflector, api, longest=LAST_RECONNECT)
        read = read_marked_node if marking.any else read_node  # what is said on a Node is in its spec and status
        self._nodes: Reflector[str, Node] = cache(
            NODES_PATH, "nodes", read, self.changed, metadata_only=not marking.any
        )
        self._node_groups: Reflector[Holder, Observed] = cache(
            NODE_GROUPS_PATH,
            "node groups",
            lambda obj: read_node_group(obj, self._node_groups.get, self._expected),
            self.changed,
        )
        pods = f"/api/v1/namespaces/{template.namespace}/pods"
        labels = ",".join(f"{key}={value}" for key, value in sorted(template.pod_labels.items()))
        self._pods: Reflector[str, tuple[str, bool]] = cache(
            pods, "agents' pods", read_agent_pod, self.changed, query={"labelSelector": labels}
        )
        self._daemonsets_path = f"/apis/apps/v1/namespaces/{template.namespace}/daemonsets"
        self._daemonsets: Reflector[str, DaemonSet] = cache(
            self._daemonsets_path,
            "the DaemonSet",
            read_daemonset,
            self._daemonset_changed,
            query={"fieldSelector": f"metadata.name={template.name}"},
        )
        self._reflectors = (self._nodes, self._node_groups, self._pods, self._daemonsets)
        self._lock = threading.Lock()
        self._memory = Memory()
        self._summaries = GroupSummaries()
        self._plan: Plan | None = None
        self._view: View | None = None  # that the plan is right for
        self._anew = False  # plan whatever was seen: what was written may have been lost unseen
        self._not_before = 0.0
        self._last_end = time.monotonic()
        self._applied: tuple[str, str, int] | None = None  # the DaemonSet's intent, and its uid and generation since
        self._paces: dict[str, Pace] = {}  # of groups' statuses
        self._rollups: Mapping[str, Rollup] = {}  # of the last pass
        self._standing: frozenset[object] | None = None  # of each node group at the last pass: owner, deletion

    @property
    def synced(self) -> bool:
        """Whether every cache has been filled."""
        return self.groups.synced and all(reflector.synced.is_set() for reflector in self._reflectors)

    @property
    def stalled(self) -> bool:
        """Whether no step has ended for so long that something must be stuck: a resync alone ends one a minute."""
        return time.monotonic() > self._last_end + STALLED

    def start(self, owner: Object | None) -> None:
        """Fill the caches and begin to work; `owner` is the owner reference of the DaemonSet."""
        self._owner = owner
        self._last_end = time.monotonic()
        for reflector in self._reflectors:
            reflector.start()
        self._queue.start()
        self._queue.add(Resync())

    def stop(self, timeout: float) -> bool:
        """Finish what is in hand; whether that worked within `timeout` seconds."""
        for reflector in self._reflectors:
            reflector.stop()
        return self._queue.stop(timeout)

    def changed(self) -> None:
        """Ask for a pass: soon, and the later the longer passes take."""
        with self._lock:
            delay = max(COALESCENCE, self._not_before - time.monotonic())
        self._queue.add(Pass(), delay)

    def group_event(self, kind: str | None, obj: Object) -> None:
        """Take in an IPMPGroup event."""
        if self.groups.observe(kind, obj):
            self.changed()

    def _daemonset_changed(self) -> None:
        self._queue.add(Agents(), COALESCENCE)

    def _attempted(self, _key: Key, seconds: float, error: Exception | None) -> None:
        self._last_end = time.monotonic()
        reason = None if error is None else getattr(error, "reason", "Other")
        self.metrics.attempted(seconds, reason)

    def _work(self, key: Key) -> None:
        if not self._leading():
            self._queue.add(key, 1.0)  # the lease may yet be renewed; if not, the process ends
            return
        match key:
            case Pass():
                self._pass()
            case Resync():
                self._queue.add(Resync(), RESYNC)
                self.groups.refresh(self._api)
                self._anew = True
                self.changed()
            case Agents():
                self._write_agents()
            case WriteNodeGroup(holder):
                self._write_node_group(holder)
            case MarkNode(node):
                self._mark_node(node)
            case WriteStatus(group):
                self._write_status(group)
            case GroupSummary():
                self._post_summary(key)

    def _pass(self) -> None:
        if not self.synced:
            self._queue.add(Pass(), 0.2)
            return
        started = time.monotonic()
        view = self._look()
        anew, self._anew = self._anew, False
        if not anew and self._plan and self._view and still_holds(self._plan, self._view, view):
            self._plan = replace(self._plan, rollups=roll_up_groups(self._plan.shares, self._plan.desired, view))
            if self._standing is None or len(view.observed) != len(self._standing):
                self._standing = _standing(view.observed)  # those that were foreseen have come
        else:
            self._look_after_owners(view.observed)
            view = self._look(view.observed)
            self._plan = plan(view, self._memory, self._withdraw_seconds)
            self._memory = self._plan.memory
            self._enqueue_node_groups(self._plan, view.observed)
            self._queue.add(Agents())
            if self._plan.next_deadline is not None:
                self._queue.add(Pass(), max(0.1, self._plan.next_deadline - time.time()))
        self._view = view
        self._enqueue_statuses(self._plan)
        self._sum_up(self._plan)
        if self._marking.any:
            self._mark_nodes(view)
        ended = time.monotonic()
        self.metrics.plan_seconds.observe(ended - started)
        with self._lock:
            self._not_before = ended + max(REST, PASS_SHARE * (ended - started))
        log.debug("planned %d node groups in %.3f s", len(self._plan.desired), ended - started)

    def _look(self, observed: Mapping[Holder, Observed] | None = None) -> View:
        """Everything as it is now, or with node groups as they were a moment ago."""
        objects = self.groups.snapshot()
        return View(
            groups=[obj.group for obj in objects if obj.group is not None],
            invalid={obj.name: obj.invalid for obj in objects if obj.group is None},
            nodes=self._nodes.snapshot(),
            observed=self._node_groups.snapshot() if observed is None else observed,
            agents=frozenset(node for node, ready in self._pods.snapshot().values() if ready),
            now=time.time(),
        )

    def _look_after_owners(self, observed: Mapping[Holder, Observed]) -> None:
        """List the groups when a node group begins to go, is gone, or has another owner: its group may be gone unseen.

        Otherwise the operator would make again what the garbage collector deletes for a group that is no more; and it
        would give what `--cascade=orphan` leaves back to that group, with which it would be deleted.
        """
        standing = _standing(observed)
        if self._standing is None or not self._standing <= standing:
            self.groups.refresh(self._api)
        self._standing = standing

    def _enqueue_node_groups(self, planned: Plan, observed: Mapping[Holder, Observed]) -> None:
        owners = {obj.name: obj.uid for obj in self.groups.snapshot()}
        for holder, spec in planned.desired.items():
            seen = observed.get(holder)
            owner = owners.get(holder.group)
            if seen is None or seen.spec is not spec or not seen.finalizer or seen.owner_uid != owner:
                self._queue.add(WriteNodeGroup(holder))
        for holder in (*planned.delete, *planned.release):
            self._queue.add(WriteNodeGroup(holder))

    def _expected(self, holder: Holder) -> NodeGroup | None:
        """What a node group says once it is written as planned."""
        planned = self._plan
        return None if planned is None else planned.desired.get(holder)

    def _enqueue_statuses(self, planned: Plan) -> None:
        objects = [obj for obj in self.groups.snapshot() if obj.name in planned.rollups]
        now = time.monotonic()
        with self._lock:
            self._paces = {obj.name: self._paces.get(obj.name) or Pace() for obj in objects}
            for obj in objects:
                rollup, pace = planned.rollups[obj.name], self._paces[obj.name]
                if rollup != self._rollups.get(obj.name):
                    pace.changed(now)
                if _status_of(obj, rollup) != obj.status:
                    self._queue.add(WriteStatus(obj.name), pace.wait(now))
            self._rollups = planned.rollups
        self.metrics.show(planned)
        self.metrics.count_groups(_state(planned.rollups[obj.name]) for obj in objects)

    def _write_node_group(self, holder: Holder) -> None:
        planned = self._plan
        if planned is None:
            return
        if holder in planned.desired:
            self._apply_node_group(holder, planned)
        elif (reason := planned.release.get(holder)) is not None:
            self._release_node_group(holder, reason)
        elif holder in planned.delete:
            seen = self._node_groups.get(holder)
            if seen is not None and seen.deleting_since is None:
                _ignore_absent(lambda: self._api.delete(f"{NODE_GROUPS_PATH}/{holder.object_name}", seen.uid))

    def _apply_node_group(self, holder: Holder, planned: Plan) -> None:
        spec = planned.desired[holder]
        owner = self.groups.get(holder.group)
        seen = self._node_groups.get(holder)
        if owner is None or (seen is not None and seen.deleting_since is not None):
            return  # the next pass knows
        if seen is not None and seen.spec == spec and seen.finalizer and seen.owner_uid == owner.uid:
            return  # written meanwhile
        intent = node_group_intent(spec, owner.uid)
        self._api.apply(f"{NODE_GROUPS_PATH}/{holder.object_name}", intent)

    def _release_node_group(self, holder: Holder, reason: Release) -> None:
        path = f"{NODE_GROUPS_PATH}/{holder.object_name}"
        seen = self._node_groups.get(holder)
        if seen is None or not seen.finalizer:
            return

        def release() -> None:
            metadata = self._api.get(path)["metadata"]
            kept = [name for name in metadata.get("finalizers") or () if name != WITHDRAW_FINALIZER]
            if metadata["uid"] == seen.uid:
                version = metadata["resourceVersion"]  # a finalizer that somebody else adds meanwhile must not be lost
                self._api.merge(path, {"metadata": {"finalizers": kept, "resourceVersion": version}})

        _ignore_absent(release)
        log.info("node group %s released: %s", holder.object_name, reason.value)
        if reason is Release.TIMEOUT:
            self.metrics.withdraw_timeouts.inc()
            note = (
                f"the agent on node {holder.node} did not withdraw within {self._withdraw_seconds:.0f} s; "
                "what it added to the node may still be there"
            )
            regarding = Reference(API, NODE_GROUP_KIND, holder.object_name, seen.uid)
            self._events.post(Event(regarding, "Withdraw", reason.value, note))

    def _write_status(self, name: str) -> None:
        planned, obj = self._plan, self.groups.get(name)
        if planned is None or obj is None or name not in planned.rollups:
            return
        status = _status_of(obj, planned.rollups[name])
        if status == obj.status:
            return
        if (wait := self._pace(name)) > 0:
            self._queue.add(WriteStatus(name), wait)
            return
        intent = group_status_intent(obj, status)
        written: list[Object] = []
        _ignore_absent(lambda: written.append(self._api.apply(f"{GROUPS_PATH}/{name}/status", intent)))
        for answer in written:
            self.groups.observe("MODIFIED", answer)  # so that the next pass does not write it again
            self._post_verdicts(obj, planned.rollups[name])

    def _pace(self, name: str) -> float:
        """Seconds until the status of a group may be written; 0: it is written now."""
        now = time.monotonic()
        with self._lock:
            pace = self._paces.setdefault(name, Pace())
            wait = pace.wait(now)
            if wait <= 0:
                pace.written(now)
            return wait

    def _post_verdicts(self, obj: GroupObject, rollup: Rollup) -> None:
        """Post an event for each new verdict that wants a person to act."""
        before = {c.get("type"): c.get("message") for c in obj.status.get("conditions") or ()}
        for verdict in rollup.verdicts:
            wanted = (verdict.type == "Accepted" and not verdict.status) or verdict.reason == "PoolExhausted"
            if wanted and before.get(verdict.type) != verdict.message:
                regarding = Reference(API, GROUP_KIND, obj.name, obj.uid)
                self._events.post(Event(regarding, "Plan", verdict.reason, verdict.message))

    def _sum_up(self, planned: Plan) -> None:
        """Have people told of the groups whose nodes have changed in number, and look again when more may be due."""
        for told in self._summaries.take(planned.rollups, time.monotonic()):
            self._queue.add(told)
        if self._summaries.due is not None:
            self._queue.add(Pass(), max(0.1, self._summaries.due - time.monotonic()))

    def _post_summary(self, told: GroupSummary) -> None:
        obj = self.groups.get(told.group)
        if obj is not None:
            regarding = Reference(API, GROUP_KIND, obj.name, obj.uid)
            self._events.post(Event(regarding, "Summarize", told.reason, told.message, told.warning))

    def _mark_nodes(self, view: View) -> None:
        """Have each Node say how it is, where that is wanted, and look again when more may be due."""
        self._marks = self._node_marks.take(view.nodes, view.observed, view.agents, time.monotonic())
        now = datetime.now(UTC)
        for name, marks in self._marks.items():
            node = view.nodes[name]
            unsaid = self._marking.conditions and conditions_intent(node, marks, now) is not None
            if unsaid or (self._marking.taint and node.tainted is not marks.tainted):
                self._queue.add(MarkNode(name))
        if self._node_marks.due is not None:
            self._queue.add(Pass(), max(0.1, self._node_marks.due - time.monotonic()))

    def _mark_node(self, name: str) -> None:
        node, marks = self._nodes.get(name), self._marks.get(name)
        if node is None or marks is None:
            return
        path = f"{NODES_PATH}/{name}"
        intent = conditions_intent(node, marks, datetime.now(UTC).replace(microsecond=0))
        if self._marking.conditions and intent is not None:
            _ignore_absent(lambda: self._api.apply(f"{path}/status", intent))
        if self._marking.taint and node.tainted is not marks.tainted:
            _ignore_absent(lambda: self._taint(path, tainted=marks.tainted))

    def _taint(self, path: str, *, tainted: bool) -> None:
        patch = taints_patch(self._api.get(path), tainted=tainted)
        if patch is not None:
            self._api.merge(path, patch)

    def _write_agents(self) -> None:
        planned, everywhere = self._plan, self._agents_run is AgentsRun.EVERYWHERE
        if planned is None or self._agents_run is AgentsRun.ELSEWHERE:
            return
        existing = self._daemonsets.get(self._template.name)
        path = f"{self._daemonsets_path}/{self._template.name}"
        if not everywhere and not planned.selectors and not self._node_groups.snapshot():
            if existing is not None and not existing.deleting:
                _ignore_absent(lambda: self._api.delete(path, existing.uid))
                log.info("no groups are left: the agents' DaemonSet is deleted")
            return
        now = self._template.group_terms(existing.terms) if existing is not None else ()
        terms = None if everywhere else agent_terms(planned.selectors, planned.withdrawing, now)
        intent = self._template.intent(terms, self._owner)
        if existing is not None and self._applied == (digest(intent), existing.uid, existing.generation):
            return
        _, answer = read_daemonset(self._api.apply(path, intent))
        self._applied = (digest(intent), answer.uid, answer.generation)
        log.info("the agents' DaemonSet is applied, generation %d", answer.generation)


def _standing(observed: Mapping[Holder, Observed]) -> frozenset[object]:
    """Of every node group, what changes when its group may be gone."""
    return frozenset((seen.uid, seen.owner_uid, seen.deleting_since) for seen in observed.values())


def _status_of(obj: GroupObject, rollup: Rollup) -> Object:
    return group_status(rollup, obj.generation, obj.status, datetime.now(UTC).replace(microsecond=0))


def _state(rollup: Rollup) -> str:
    verdicts: Mapping[str, bool] = {verdict.type: verdict.status for verdict in rollup.verdicts}
    if not verdicts["Accepted"]:
        return "notaccepted"
    if verdicts["Degraded"]:
        return "degraded"
    return "ready" if verdicts["Ready"] else "notready"


def _ignore_absent(write: Callable[[], object]) -> None:
    """Write. An object that is gone is no error: that was wanted, or the next pass knows."""
    try:
        write()
    except ApiError as error:
        if not error.not_found:
            raise
