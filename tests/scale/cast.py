"""Who plays beside the operator: nodes, agents' pods and agents, over the real API and with whole statuses.

A played agent does to the API what a real one does: it reports each generation of its spec once, each failure of a
member, and a withdrawal. One watch shows the specs to all of them, where real agents have one each.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import yaml

from ipmp_api.status import AddressStatus, Condition, InterfaceStatus, NodeGroupStatus, TargetStatus, to_dict
from ipmp_operator.kube.objects import GROUPS_PATH, NODE_GROUPS_PATH, NODES_PATH
from ipmp_service.api_server import ApiError, ApiServer, Kubeconfig
from ipmp_service.reflector import Reflector
from tests.cluster.product import NAMESPACE
from tests.lab.namespaces import enter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tests.cluster.cluster import Cluster

THREADS = 8
AGAIN = 0.5
"""Seconds until what an API server that is away did not take is sent again."""
START = datetime(2026, 1, 1, tzinfo=UTC)
PODS_PATH = f"/api/v1/namespaces/{NAMESPACE}/pods"
WELL = {"Programmed": "True", "Ready": "True", "Degraded": "False", "InterfacesConsistent": "True"}
WELL |= {"ProbesEnabled": "True", "OfflineHonored": "True", "HostSuitable": "True"}


@dataclass(frozen=True, slots=True)
class Seen:
    """One node group as last seen."""

    uid: str
    generation: int
    deleting: bool
    spec: dict[str, Any]


@dataclass(slots=True)
class Writes:
    """What was written to node groups, as watched; `respecified` counts specs that were written again."""

    created: int = 0
    respecified: Counter[str] = field(default_factory=Counter)
    readdressed: set[str] = field(default_factory=set)
    reports: int = 0


class Cast:
    """Plays everybody but the operator, until it is closed."""

    def __init__(self, cluster: Cluster) -> None:
        self._path = cluster.control.namespace.path
        self._enter = partial(enter, self._path)
        self._call = cluster.control.namespace.call
        self.api = ApiServer(Kubeconfig(cluster.control.kubeconfig), "ipmp-scale", connections=3 * THREADS)
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(THREADS, initializer=self._enter)
        self._reported: dict[str, tuple[str, int, bool, bool]] = {}
        self._latest: dict[str, Seen] = {}  # ahead of the cache, which takes in what was heard a moment later
        self._waiting: set[str] = set()
        self._busy: set[str] = set()
        self._closed = False
        self._template = yaml.safe_load((cluster.directory / "daemonset.yaml").read_text(encoding="utf-8"))
        self.troubled: set[str] = set()
        """Nodes on which the last member of every group has failed."""
        self.nodes: set[str] = set()
        self.writes = Writes()
        self.last_report = 0.0
        """Monotonic time of the answer to the last report."""
        self.last_event = 0.0
        self.told: dict[str, tuple[float, dict[str, Any]]] = {}
        """By group, its status and when it was seen first, monotonic."""
        self._groups: Reflector[str, dict[str, Any]] = Reflector(
            self.api, GROUPS_PATH, "groups", self._hear_group, lambda: None
        )
        self._node_groups: Reflector[str, Seen] = Reflector(
            self.api, NODE_GROUPS_PATH, "node groups", self._hear, lambda: None
        )

    def start(self) -> None:
        """Begin to watch."""
        self._call(self._groups.start)
        self._call(self._node_groups.start)

    def close(self) -> None:
        """End; requests under way are left to end by themselves."""
        self._closed = True
        self._groups.stop()
        self._node_groups.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)

    # -- nodes and pods -------------------------------------------------------------------------------------------

    def add_nodes(self, names: Iterable[str], labels: Callable[[str], Mapping[str, str]] = lambda _: {}) -> None:
        """Create nodes, each with a pod of the agent that is ready."""
        names = list(names)
        self.nodes.update(names)
        self._each(lambda name: self._add_node(name, labels(name)), names, "nodes with their pods")

    def remove_nodes(self, names: Iterable[str]) -> None:
        """Delete nodes and their pods: nobody reports for them any more."""
        names = list(names)
        self.nodes.difference_update(names)
        self._each(self._remove_node, names, "nodes gone")

    def _add_node(self, name: str, labels: Mapping[str, str]) -> None:
        whole = {"kubernetes.io/os": "linux", "kubernetes.io/hostname": name, **labels}
        self.api.create(NODES_PATH, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": whole}})
        pod = self._template["spec"]["template"]
        spec = {"nodeName": name, "hostNetwork": True, "containers": [{"name": "agent", "image": "none"}]}
        spec |= {"serviceAccountName": pod["spec"]["serviceAccountName"], "automountServiceAccountToken": False}
        metadata = {"name": f"agent-{name}", "labels": pod["metadata"]["labels"]}
        self.api.create(PODS_PATH, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        status = {"phase": "Running", "conditions": [ready]}
        self.api.merge(f"{PODS_PATH}/agent-{name}/status", {"status": status})

    def _remove_node(self, name: str) -> None:
        for path in (f"{NODES_PATH}/{name}", f"{PODS_PATH}/agent-{name}"):
            uid = self.api.get(path)["metadata"]["uid"]
            options = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
            self.api._request("DELETE", path, body=options | {"preconditions": {"uid": uid}}).drain_conn()

    def _each(self, work: Callable[[str], None], names: list[str], what: str) -> None:
        """Do it for all of them, several at a time, and say how far it is."""
        told = time.monotonic()
        with ThreadPoolExecutor(THREADS, initializer=self._enter) as pool:
            for done, _ in enumerate(pool.map(work, names), 1):
                if time.monotonic() > told + 10:
                    told = time.monotonic()
                    print(f"  {done} of {len(names)} {what}", flush=True)

    # -- groups ---------------------------------------------------------------------------------------------------

    def create_group(self, manifest: dict[str, Any]) -> None:
        """Create an IPMPGroup."""
        self._call(self.api.create, GROUPS_PATH, manifest)

    def change_group(self, name: str, spec: dict[str, Any]) -> None:
        """Merge into the spec of an IPMPGroup."""
        self._call(self.api.merge, f"{GROUPS_PATH}/{name}", {"spec": spec})

    def delete_group(self, name: str) -> None:
        """Ask for the deletion of an IPMPGroup."""
        uid = self.group_objects()[name]["metadata"]["uid"]
        self._call(self.api.delete, f"{GROUPS_PATH}/{name}", uid)

    def group_objects(self) -> dict[str, dict[str, Any]]:
        """The groups as last seen."""
        return self._groups.snapshot()

    def node_groups(self) -> dict[str, Seen]:
        """The node groups as last seen."""
        return self._node_groups.snapshot()

    # -- agents ---------------------------------------------------------------------------------------------------

    def trouble(self, nodes: Iterable[str], *, failed: bool) -> None:
        """Have members fail, or come back, on these nodes; returns while the reports are on their way."""
        nodes = set(nodes)
        (self.troubled.update if failed else self.troubled.difference_update)(nodes)
        for name, seen in self.node_groups().items():
            if seen.spec["nodeName"] in nodes:
                self._due(name)

    @property
    def reporting(self) -> int:
        """Reports that wait or are under way."""
        with self._lock:
            return len(self._waiting | self._busy)

    def behind(self) -> int:
        """Node groups whose agent has yet to report what it says now."""
        there = self.node_groups()
        return sum(self._reported.get(name, ("", 0))[:2] != (seen.uid, seen.generation) for name, seen in there.items())

    def _hear_group(self, obj: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        name = obj["metadata"]["name"]
        status = obj.get("status") or {}
        if self.told.get(name, (0, None))[1] != status:
            self.told[name] = (time.monotonic(), status)
        return name, obj

    def _hear(self, obj: dict[str, Any]) -> tuple[str, Seen]:
        metadata = obj["metadata"]
        seen = Seen(metadata["uid"], metadata["generation"], "deletionTimestamp" in metadata, obj["spec"])
        name = metadata["name"]
        self._count(name, seen, self._latest.get(name))
        self._latest[name] = seen
        node = seen.spec["nodeName"]
        if node in self.nodes and self._reported.get(name) != self._key(seen, node):
            self._due(name)
        return name, seen

    def _count(self, name: str, seen: Seen, before: Seen | None) -> None:
        self.last_event = time.monotonic()
        if before is None or before.uid != seen.uid:
            self.writes.created += 1
        elif before.generation != seen.generation and before.deleting == seen.deleting:
            self.writes.respecified[name] += seen.generation - before.generation
            if addresses_of(before.spec) != addresses_of(seen.spec):
                self.writes.readdressed.add(name)

    def _key(self, seen: Seen, node: str) -> tuple[str, int, bool, bool]:
        return seen.uid, seen.generation, seen.deleting, node in self.troubled

    def _due(self, name: str) -> None:
        with self._lock:
            if name in self._waiting or self._closed:
                return
            self._waiting.add(name)
        self._pool.submit(self._report, name)

    def _report(self, name: str) -> None:
        """Write the status of one node group, as it is when its turn comes."""
        with self._lock:
            self._waiting.discard(name)
            if name in self._busy:
                later = True
            else:
                later = False
                self._busy.add(name)
        if later:
            time.sleep(0.01)
            self._due(name)
            return
        try:
            seen = self._latest[name]
            if seen.spec["nodeName"] not in self.nodes:
                return
            key = self._key(seen, seen.spec["nodeName"])
            if self._reported.get(name) == key:
                return
            status = to_dict(status_of(seen, failed=key[-1]))
            self.api.replace_status(f"{NODE_GROUPS_PATH}/{name}", seen.uid, status)
            self.writes.reports += 1
            self._reported[name] = key
            self.last_report = time.monotonic()
        except ApiError as error:
            if error.away:
                time.sleep(AGAIN)
                self._due(name)
        finally:
            with self._lock:
                self._busy.discard(name)


def addresses_of(spec: dict[str, Any]) -> tuple[str, ...]:
    """The data and test addresses that a node group gives to its node."""
    data = [entry["address"].partition("/")[0] for entry in spec.get("dataAddresses", ())]
    tests = [one["testAddressIPv4"] for one in spec["interfaces"] if "testAddressIPv4" in one]
    return tuple(data + [text.partition("/")[0] for text in tests])


def status_of(seen: Seen, *, failed: bool) -> NodeGroupStatus:
    """What the agent of this node says when all is well, or when its last member has failed."""
    spec, last = seen.spec, len(seen.spec["interfaces"]) - 1
    holds = WELL | ({"Degraded": "True"} if failed else {}) | ({"Withdrawn": "True"} if seen.deleting else {})
    on = spec["interfaces"][0]["name"]
    return NodeGroupStatus(
        state="degraded" if failed else "ok",
        interfaces=tuple(
            _interface(spec, at, one, failed=failed and at == last) for at, one in enumerate(spec["interfaces"])
        ),
        addresses=tuple(
            AddressStatus(entry["address"], "up", on, origin=entry["origin"]) for entry in spec.get("dataAddresses", ())
        ),
        failure_detection_time_milliseconds=spec["failureDetection"]["timeMilliseconds"],
        conditions=tuple(
            Condition(kind, status, _reason(kind, status), START, f"{kind} is {status}", seen.generation)
            for kind, status in holds.items()
        ),
        observed_generation=seen.generation,
        agent_version="0",
    )


def _reason(kind: str, status: str) -> str:
    return "InterfacesFailed" if (kind, status) == ("Degraded", "True") else "AsExpected"


def _interface(spec: dict[str, Any], at: int, one: dict[str, Any], *, failed: bool) -> InterfaceStatus:
    digest = hashlib.blake2b(f"{spec['nodeName']}/{one['name']}".encode(), digest_size=6).hexdigest()
    tests = [one["testAddressIPv4"].partition("/")[0]] if "testAddressIPv4" in one else []
    tests.append(f"fe80::{digest[:4]}:{digest[4:8]}:{digest[8:]}")
    octets = ["02", *(digest[i : i + 2] for i in range(0, 8, 2)), f"{at:02x}"]
    return InterfaceStatus(
        name=one["name"],
        role="Active",
        active=not failed,
        state="failed" if failed else "ok",
        link="down" if failed else "up",
        probe="failed" if failed else "ok",
        mac_address=":".join(octets),
        reason="LinkDown" if failed else None,
        since=START,
        speed_megabits=25_000,
        test_addresses=tuple(tests),
        targets=tuple(TargetStatus(address, "active") for address in spec.get("peers", ())[:5]),
    )
