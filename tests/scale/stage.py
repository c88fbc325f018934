"""A control plane with a cast and the operator of some sources, and what every scene asks of it."""

from __future__ import annotations

import contextlib
import re
import time
import tomllib
from typing import TYPE_CHECKING, Any, Self

from tests.cluster.cluster import Cluster
from tests.cluster.controlplane import API_SERVER
from tests.cluster.operating import OperatorProcess, prepare
from tests.lab.waiting import NotInTimeError
from tests.scale.cast import Cast, addresses_of
from tests.scale.meters import OPERATOR, Meters
from tests.sources import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.scale.meters import Bill

PACKAGES = ("crds", "common", "operator")
CONTROLLERS = "garbage-collector-controller"
"""All others would do their own work on thousands of nodes; this one deletes what a group owned."""
QUIET = 3.0
"""Seconds without any event of a node group after which a scene has come to rest."""
SIGN_OF_LIFE = 15.0
MANY = "ipmp.test/many"
"""The label of the nodes that many groups select."""


class Stage:
    """Up inside, gone after, also where that ends by a fault.

    Args:
        nodes: how many.
        tree: the sources of the operator and of the chart.
        marked: how many of the nodes carry the label MANY.
        other: sources of an operator that comes after all, if any.
    """

    def __init__(self, nodes: int, tree: Path = ROOT, marked: int = 0, other: Path | None = None) -> None:
        self.tree = tree
        self.other = other
        self.size = nodes
        self.marked = marked
        self._next = 0
        self.cluster = Cluster()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self._stack.callback(self.cluster.remove)
            self.cluster.up(controllers=CONTROLLERS)
            prepare(self.cluster, self.tree / "helm/ipmp")
            self.cast = Cast(self.cluster)
            self._stack.callback(self.cast.close)
            self.cast.start()
            self.add_nodes(self.size)
            self.operator = self._operator()
            self._stack.callback(self._end_operator)
            self.operator.wait_leading()
            self.meters = Meters(self.cluster, lambda: self.operator.process.pid)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # -- what happens ---------------------------------------------------------------------------------------------

    def add_nodes(self, count: int) -> list[str]:
        """Create so many new nodes with ready agents; returns their names."""
        names = [f"node-{number:05}" for number in range(self._next, self._next + count)]
        self._next += count
        self.cast.add_nodes(names, lambda name: {MANY: "yes"} if name < self._last_marked else {})
        return names

    @property
    def nodes_of_many(self) -> int:
        """How many nodes carry the label MANY."""
        return sum(name < self._last_marked for name in self.cast.nodes)

    @property
    def _last_marked(self) -> str:
        return f"node-{self.marked:05}"

    def succeed_operator(self, tree: Path | None = None) -> OperatorProcess:
        """Kill the operator and start its successor, which takes the lease over at once: it has the same name."""
        self.tree = tree or self.tree
        self.meters.leave(OPERATOR)
        self.operator.kill()
        self.operator = self._operator()
        return self.operator

    def restart_api_server(self) -> None:
        """Kill the API server, and start it again."""
        self.meters.leave(API_SERVER)
        self.cluster.processes.stop(API_SERVER, patience=0)
        self.cluster.processes.start(API_SERVER)
        try:
            self.cluster.control.wait_ready(deadline=180)
        except RuntimeError as error:
            log = self.cluster.processes.logs / f"{API_SERVER}.log"
            error.add_note(log.read_text(encoding="utf-8")[-3000:])
            raise

    def _end_operator(self) -> None:
        self.operator.kill()

    def _operator(self) -> OperatorProcess:
        """As in a pod of its image."""
        paths = [self.tree / name for name in PACKAGES]
        if not _has_kubernetes(self.tree):
            paths.insert(0, self._without_kubernetes())
        environment = image_environment(self.tree)
        environment["PYTHONPATH"] = ":".join(map(str, paths))
        # An image has its bytecode; these have it from their second start.
        environment |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(self.cluster.directory / "bytecode")}
        return OperatorProcess(self.cluster, environment=environment, pod=True).start()

    def _without_kubernetes(self) -> Path:
        """A path that hides the package `kubernetes`, which is installed here for kubeconfigs: kopf takes it if it can.

        It costs 16 MiB and a third of a second of the processor.
        """
        path = self.cluster.directory / "image"
        path.mkdir(exist_ok=True)
        (path / "kubernetes.py").write_text("raise ImportError('not in the image')\n", encoding="ascii")
        return path

    # -- what is waited for ---------------------------------------------------------------------------------------

    def wait(
        self,
        holds: Callable[[], bool],
        what: str,
        describe: Callable[[], object] = lambda: "",
        *,
        interval: float = 0.02,
    ) -> float:
        """Wait until it holds, and say how far it is meanwhile; returns when it was seen, monotonic."""
        began = told = time.monotonic()
        deadline = 120 + 0.5 * self.size
        while not holds():
            now = time.monotonic()
            if self.operator.process.poll() is not None:
                raise RuntimeError(f"the operator ended:\n{self.operator.said()[-4000:]}")
            if now > began + deadline:
                raise NotInTimeError(f"{what} not within {deadline:.0f} s: {describe()}")
            if now > told + SIGN_OF_LIFE:
                told = now
                print(f"  {now - began:.0f} s until now for {what}: {describe()}", flush=True)
            time.sleep(interval)
        return time.monotonic()

    def wait_settled(self, groups: dict[str, int]) -> float:
        """Wait until every group tells of so many ready nodes, and nothing more is written; returns when it told so."""
        wanted = sum(groups.values())

        def told() -> bool:
            return all(self.tells(name, ready=count) for name, count in groups.items()) and self.cast.behind() == 0

        def describe() -> object:
            found = {name: self.counts(name).get("ready") for name in list(groups)[:3]}
            return f"{len(self.cast.node_groups())} of {wanted} there, {self.cast.behind()} to report, ready {found}"

        self.wait(lambda: len(self.cast.node_groups()) == wanted, f"{wanted} node groups", describe, interval=0.1)
        at = self.wait(told, "all that are ready to be told", describe)
        self.wait_quiet()
        self.wait(told, "all that are ready to be told", describe)
        return at

    def wait_quiet(self) -> None:
        """Wait until no node group has changed for a moment."""
        self.wait(
            lambda: self.cast.reporting == 0 and time.monotonic() > self.cast.last_event + QUIET,
            "rest",
            lambda: f"{self.cast.reporting} reports under way",
        )

    def counts(self, group: str) -> dict[str, int]:
        """Nodes by state, as the group tells them."""
        told: dict[str, int] = self.cast.told.get(group, (0.0, {}))[1].get("nodes", {})
        return told

    def tells(self, group: str, **counts: int) -> bool:
        """Whether the group tells these numbers of nodes, of its newest generation."""
        _, status = self.cast.told.get(group, (0.0, {}))
        obj = self.cast.group_objects().get(group)
        current = obj is not None and status.get("observedGeneration") == obj["metadata"]["generation"]
        return current and all(status["nodes"].get(name, 0) == count for name, count in counts.items())

    # -- what must hold -------------------------------------------------------------------------------------------

    def look_for_faults(self) -> list[str]:
        """What is wrong with what stands in the node groups, in words."""
        given: dict[str, list[str]] = {}
        faults = []
        there = self.cast.node_groups()
        for name, seen in there.items():
            addresses = addresses_of(seen.spec)
            if not addresses and not seen.deleting:
                faults.append(f"{name} has no address")
            for address in addresses:
                given.setdefault(address, []).append(name)
            strangers = set(seen.spec.get("peerNodes", ())) - self.cast.nodes
            if strangers and not seen.deleting:
                faults.append(f"{name} names peers that are gone: {sorted(strangers)}")
        faults += [f"{address} is in {names}" for address, names in given.items() if len(names) > 1]
        faults += [f"{name} lost addresses that it had" for name in sorted(self.cast.writes.readdressed)]
        if "Traceback" in self.operator.said():
            faults.append(f"the operator logged an exception: {self.operator.log}")
        return faults

    def bill(self, play: Callable[[Stage], dict[str, Any]]) -> Bill:
        """Play a scene; returns what it cost and what came of it."""
        writes = self.cast.writes
        before = writes.created, writes.respecified.total(), writes.reports
        respecified = writes.respecified.copy()
        self.meters.start()
        facts = play(self)
        bill = self.meters.stop()
        bill.created, bill.respecified, bill.reports = (
            now - then
            for now, then in zip((writes.created, writes.respecified.total(), writes.reports), before, strict=True)
        )
        # One that takes the place of a peer that went may go itself a moment later: the same spec, for a second cause.
        without_cause = (writes.respecified - respecified).keys() - facts.pop("may respecify", set())
        bill.faults += [f"{name} was written again without a cause" for name in sorted(without_cause)]
        bill.facts = facts
        bill.faults += self.look_for_faults()
        return bill


def image_environment(tree: Path) -> dict[str, str]:
    """The variables that the image of these sources sets, but for its paths."""
    text = (tree / "Dockerfile").read_text(encoding="utf-8")
    found = re.findall(r"^(?:ENV|   ) *([A-Z_]+)=(\S+)", text, re.MULTILINE)
    return {name: value for name, value in found if name.startswith(("PYTHON", "MALLOC"))}


def _has_kubernetes(tree: Path) -> bool:
    """Whether the image of these sources holds the package `kubernetes`."""
    project = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return any(need.startswith("kubernetes") for need in project["optional-dependencies"]["operator"])


def probers_of(stage: Stage, nodes: set[str]) -> set[str]:
    """The node groups that name one of these nodes, or an address that it has, among their peers."""
    there = stage.cast.node_groups()
    lost = {address for seen in there.values() if seen.spec["nodeName"] in nodes for address in addresses_of(seen.spec)}
    return {
        name
        for name, seen in there.items()
        if lost & set(seen.spec.get("peers", ())) or nodes & set(seen.spec.get("peerNodes", ()))
    }
