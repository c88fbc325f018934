"""Each row of the table in docs/gitops.md: what kstatus, `kubectl wait` and Argo CD's script make of a real group."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.build import build_judge
from tests.cluster.operating import (
    FAKES,
    group_manifest,
    node_groups,
    operating,
    report,
    wait_condition,
    wait_data,
)
from tests.cluster.product import NAMESPACE

if TYPE_CHECKING:
    from tests.cluster.cluster import Cluster

PAGE = (Path(__file__).resolve().parents[2] / "docs/gitops.md").read_text(encoding="utf-8")
ROWS = {
    cells[0]: tuple(cells[1:])
    for line in re.findall(r"^\| (.+) \|$", PAGE, re.MULTILINE)
    if len(cells := line.split(" | ")) == 4 and cells[0] != "the group"
}
(SCRIPT,) = re.findall(r"^```lua\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def literal(value: Any) -> str:
    """A value of JSON as Lua has it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"[{literal(key)}] = {literal(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "{" + ", ".join(map(literal, value)) + "}"
    if isinstance(value, str):
        return '"' + "".join(f"\\{byte:03}" for byte in value.encode()) + '"'
    return "nil" if value is None else str(value).lower()


def argo(group: dict[str, Any]) -> tuple[str, str]:
    """Status and message that the script gives a group."""
    program = f'obj = {literal(group)}\nlocal h = (function()\n{SCRIPT}\nend)()\nio.write(h.status, "\\n", h.message)'
    done = subprocess.run(["lua5.1", "-"], input=program, capture_output=True, text=True, check=True)
    status, _, message = done.stdout.partition("\n")
    return status, message


def kstatus(thing: dict[str, Any]) -> str:
    """What kstatus says of an object."""
    text = json.dumps(thing)
    return subprocess.run([build_judge()], input=text, capture_output=True, text=True, check=True).stdout.strip()


class Judged:
    """A group on the fake nodes, and the rows of the table that were seen of it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.seen: set[str] = set()

    def nodes(self, **status: Any) -> None:
        """Report for every node that it has applied what is wanted; with `status`, the first one is so."""
        for node, one in node_groups(self.cluster).items():
            more = status if node == "fake-0000" else {}
            clean = {"state": "ok", "interfaces": [], "conditions": []}
            report(self.cluster, f"data.{node}", **clean | {"observedGeneration": one["metadata"]["generation"]} | more)

    def is_judged(self, row: str, *, ready: str | None = None) -> None:
        """Wait until `Ready` has this reason, and see that all three say what the row says."""
        self.seen.add(row)
        said, by_kstatus, by_argo = ROWS[row]

        def look() -> dict[str, Any]:
            found: dict[str, Any] = self.cluster.get("ipmpgroup", "data")
            return found

        def arrived(group: dict[str, Any]) -> bool:
            reasons = [one["reason"] for one in group["status"].get("conditions", ()) if one["type"] == "Ready"]
            current = group["status"]["observedGeneration"] == group["metadata"]["generation"]
            return reasons == [ready] and current if ready else not reasons

        group = self.cluster.wait(look, arrived, what=f"Ready with reason {ready}")
        assert kstatus(group) == by_kstatus
        status, message = argo(group)
        assert status == by_argo
        assert message
        limit = "--timeout=0s" if said != "True" else "--timeout=30s"
        wait = self.cluster.try_kubectl("wait", "--for=condition=Ready", "ipmp/data", limit)
        assert (wait.returncode == 0) is (said == "True"), wait.stderr


@pytest.fixture
def judged(fakes: Cluster) -> Judged:
    fakes.apply(group_manifest())
    return Judged(fakes)


def agents_ready(cluster: Cluster, *, ready: bool) -> None:
    """Make the agent's pod of one fake node ready, or not."""
    (pod,) = cluster.get("pods", "--namespace", NAMESPACE, "--field-selector", "spec.nodeName=fake-0000")
    conditions = [{"type": "Ready", "status": str(ready)}]
    patch = json.dumps({"status": {"conditions": conditions}})
    where = ("--namespace", NAMESPACE, "pod", pod["metadata"]["name"])
    cluster.kubectl("patch", *where, "--subresource=status", "--type=strategic", "--patch", patch)


def test_every_row_of_the_table(judged: Judged) -> None:
    cluster = judged.cluster
    judged.is_judged("nobody has looked at it yet")
    with operating(cluster):
        wait_data(cluster, FAKES)
        # Without a status of its node group, a node has not applied it; without agents nobody would know.
        judged.is_judged("a node has yet to apply the change", ready="Progressing")
        judged.nodes()
        judged.is_judged("all is well", ready="Ready")
        failed = {"name": "net0", "role": "Active", "active": False, "state": "failed", "link": "down", "probe": "ok"}
        now = {"lastTransitionTime": "2026-01-01T00:00:00Z", "message": ""}
        lacking = {"type": "Degraded", "status": "True", "reason": "GroupDegraded", **now}
        judged.nodes(state="degraded", interfaces=[failed], conditions=[lacking])
        wait_condition(cluster, "data", "Degraded", "True")
        judged.is_judged("a node has lost one of its members", ready="Ready")
        judged.nodes(state="failed", interfaces=[failed], conditions=[lacking])
        judged.is_judged("a node has lost all its members", ready="NodesFailed")
        judged.nodes()
        judged.is_judged("all is well", ready="Ready")
        agents_ready(cluster, ready=False)
        judged.is_judged("more than one agent in ten is not ready", ready="AgentsUnavailable")
        agents_ready(cluster, ready=True)
        judged.is_judged("all is well", ready="Ready")
        twice = [{"nodeName": node, "addresses": ["198.18.7.9/24"]} for node in ("fake-0000", "fake-0001")]
        cluster.apply(group_manifest(dataAddresses={"assigned": twice}))
        judged.is_judged("a new spec is refused", ready="Invalid")
        cluster.apply(group_manifest(nodeSelector={"matchLabels": {"nobody": "has-it"}}))
        judged.is_judged("the selector selects no node", ready="NoNodes")
    assert judged.seen == set(ROWS)
