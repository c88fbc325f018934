"""The scenes, in the order in which they are played. Each returns what was seen of times and numbers."""

from __future__ import annotations

import random
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.scale.meters import OPERATOR, peak_mebibytes
from tests.scale.stage import MANY, probers_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.scale.stage import Stage

GROUP = "data"
RESTING = 20.0
FAILOVERS = 5
GROUPS = 20
TURNOVER = 25
"""One node of so many goes, and as many come."""
SHARE = 5
"""One node of so many has the GROUPS groups."""


@dataclass(frozen=True)
class Scene:
    """One scene: its letter, what it shows, and how it is played."""

    letter: str
    what: str
    play: Callable[[Stage], dict[str, Any]]


def manifest(name: str = GROUP, number: int = 0, selector: dict[str, Any] | None = None) -> dict[str, Any]:
    """A group over two interfaces, with a data address and two test addresses on each node."""
    pool = {"name": "v4", "ranges": [f"10.{number}.0.1-10.{number}.127.254"], "prefixLength": 16}
    tests = {"ranges": [f"10.{number}.128.1-10.{number}.255.254"], "prefixLength": 16}
    spec: dict[str, Any] = {
        "interfaces": [{"name": f"net{2 * number}"}, {"name": f"net{2 * number + 1}"}],
        "dataAddresses": {"pools": [pool]},
        "testAddresses": {"ipv4": {"pool": tests}},
    }
    if selector:
        spec["nodeSelector"] = {"matchLabels": selector}
    return {"apiVersion": "ipmp.dev/v1alpha1", "kind": "IPMPGroup", "metadata": {"name": name}, "spec": spec}


def apply(stage: Stage) -> dict[str, Any]:
    """A group is applied, and the agents report for the first time."""
    began = time.monotonic()
    stage.cast.create_group(manifest())
    stage.wait(lambda: len(stage.cast.node_groups()) == stage.size, "all specs", lambda: len(stage.cast.node_groups()))
    written = time.monotonic()
    told = stage.wait_settled({GROUP: stage.size})
    return {"all specs written, s": written - began, "all told to be ready, s": told - began}


def rest(stage: Stage) -> dict[str, Any]:
    """Nothing happens."""
    time.sleep(RESTING)
    return {}


def change(stage: Stage) -> dict[str, Any]:
    """One field of the group changes, and with it every node group."""
    began = time.monotonic()
    stage.cast.change_group(GROUP, {"failureDetection": {"timeMilliseconds": 2000}})
    told = _wait_changed(stage, 2000)
    return {"all told to be ready, s": told - began, "may respecify": set(stage.cast.node_groups())}


def switch(stage: Stage) -> dict[str, Any]:
    """A switch fails: a member fails on every node at once, and comes back."""
    facts = {}
    for failed, state in ((True, "degraded"), (False, "ready")):
        stage.cast.trouble(stage.cast.nodes, failed=failed)
        told = _wait_told(stage, state)
        facts[f"all told to be {state} after the last report, s"] = told - stage.cast.last_report
        stage.wait_quiet()
    return facts


def failover(stage: Stage) -> dict[str, Any]:
    """One member of one node fails and comes back, a few times."""
    times = []
    for node in random.Random(1).sample(sorted(stage.cast.nodes), min(FAILOVERS, stage.size)):
        for failed in (True, False):
            before = stage.cast.last_report
            stage.cast.trouble([node], failed=failed)
            told = stage.wait(lambda: stage.tells(GROUP, degraded=int(failed)), "one failover to be told")  # noqa: B023
            assert stage.cast.last_report > before, "the report came"
            times.append(told - stage.cast.last_report)
            stage.wait_quiet()
    return {"told after its report, median s": statistics.median(times), "worst s": max(times)}


def busy(stage: Stage) -> dict[str, Any]:
    """A switch fails while every node group is being written."""
    before = stage.cast.writes.respecified.total()
    stage.cast.change_group(GROUP, {"failureDetection": {"timeMilliseconds": 3000}})
    stage.wait(lambda: stage.cast.writes.respecified.total() > before + stage.size // 20, "the first writes")
    stage.cast.trouble(stage.cast.nodes, failed=True)
    told = _wait_told(stage, "degraded")
    after = told - stage.cast.last_report
    stage.cast.trouble(stage.cast.nodes, failed=False)
    _wait_changed(stage, 3000)
    return {"all told to be degraded after the last report, s": after, "may respecify": set(stage.cast.node_groups())}


def _wait_told(stage: Stage, state: str) -> float:
    """Wait until the group tells of all its nodes that they are in this state; returns when."""

    def told() -> bool:
        return stage.tells(GROUP, **{state: stage.size})

    return stage.wait(told, f"all to be told {state}", lambda: stage.counts(GROUP))


def _wait_changed(stage: Stage, milliseconds: int) -> float:
    """Wait until every node group has this failure detection time and all is told; returns when."""

    def left() -> int:
        there = stage.cast.node_groups().values()
        return sum(seen.spec["failureDetection"]["timeMilliseconds"] != milliseconds for seen in there)

    stage.wait(lambda: left() == 0, "the change everywhere", lambda: f"{left()} left", interval=0.25)
    return stage.wait_settled({GROUP: stage.size})


def killed(stage: Stage) -> dict[str, Any]:
    """The operator is killed, and another one starts on node groups that have been reported."""
    began = time.monotonic()
    stage.succeed_operator().wait_leading(deadline=600)
    leads = time.monotonic()
    cpu, peak = stage.meters.used(OPERATOR), peak_mebibytes(stage.operator.process.pid)
    stage.wait_settled({GROUP: stage.size})
    return {"leads, s": leads - began, "CPU of it until it leads, s": cpu, "its peak until then, MiB": peak}


def successor(stage: Stage) -> dict[str, Any]:
    """The other commit's operator starts on what stands there: twice, for the first time it compiles itself."""
    if stage.other is None:
        return {}
    facts: dict[str, Any] = {}
    for at in ("first", "then"):
        began = time.monotonic()
        stage.succeed_operator(stage.other).wait_leading(deadline=600)
        facts |= {
            f"{at}: leads, s": time.monotonic() - began,
            f"{at}: CPU until it leads, s": stage.meters.used(OPERATOR),
        }
        facts[f"{at}: peak, MiB"] = peak_mebibytes(stage.operator.process.pid)
    return facts | {"may respecify": set(stage.cast.node_groups())}


def server(stage: Stage) -> dict[str, Any]:
    """The API server is killed and started again while a change is being written."""
    before = stage.cast.writes.respecified.total()
    stage.cast.change_group(GROUP, {"failureDetection": {"timeMilliseconds": 4000}})
    stage.wait(lambda: stage.cast.writes.respecified.total() > before + stage.size // 4, "a quarter of the writes")
    stage.restart_api_server()
    began = time.monotonic()
    told = _wait_changed(stage, 4000)
    return {
        "all told to be ready after the server was, s": told - began,
        "may respecify": set(stage.cast.node_groups()),
    }


def turnover(stage: Stage) -> dict[str, Any]:
    """Nodes go for good, then as many new ones come."""
    count = max(1, stage.size // TURNOVER)
    gone = set(random.Random(2).sample(sorted(stage.cast.nodes), count))
    lost = probers_of(stage, gone)
    before = stage.cast.writes.respecified.total()
    stage.cast.remove_nodes(gone)
    stage.wait_settled({GROUP: stage.size - count})
    went = stage.cast.writes.respecified.total() - before
    stage.add_nodes(count)
    stage.wait_settled({GROUP: stage.size})
    came = stage.cast.writes.respecified.total() - before - went
    facts = {"rewritten as they went": went, "rewritten as others came": came, "lost a peer": len(lost)}
    return facts | {"may respecify": lost}


def deletion(stage: Stage) -> dict[str, Any]:
    """The group is deleted, and the agents withdraw."""
    began = time.monotonic()
    stage.cast.delete_group(GROUP)
    stage.wait(
        lambda: not stage.cast.node_groups() and GROUP not in stage.cast.group_objects(),
        "everything to be withdrawn",
        lambda: f"{len(stage.cast.node_groups())} left",
    )
    return {"withdrawn, s": time.monotonic() - began}


def many(stage: Stage) -> dict[str, Any]:
    """Many groups over the same nodes."""
    began = time.monotonic()
    names = [f"group-{number}" for number in range(1, GROUPS + 1)]
    for number, name in enumerate(names, 1):
        stage.cast.create_group(manifest(name, number, {MANY: "yes"}))
    told = stage.wait_settled(dict.fromkeys(names, stage.nodes_of_many))
    return {"all told to be ready, s": told - began}


SCENES = (
    Scene("a", "apply", apply),
    Scene("b", "rest", rest),
    Scene("c", "one change", change),
    Scene("d", "switch failure", switch),
    Scene("e", "one failover", failover),
    Scene("f", "operator killed", killed),
    Scene("g", "API server restarted", server),
    Scene("h", "nodes gone and new", turnover),
    Scene("w", "switch failure while writing", busy),
    Scene("s", "the other commit's operator starts", successor),
    Scene("i", "deletion", deletion),
    Scene("j", f"{GROUPS} groups", many),
)
