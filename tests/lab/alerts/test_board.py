"""Every query of the board, run against a real Prometheus while an interface is down and after it is repaired."""

from __future__ import annotations

import contextlib
import json
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from helm.board.__main__ import PATH
from ipmp_operator.core.model import NodeGroupReport
from ipmp_operator.metrics import Metrics
from ipmp_service.http import HealthServer
from tests.lab import Agent, Lab, wait_for
from tests.lab.agent import NODE_NAME
from tests.lab.alerts.monitoring import AGENT, Monitoring, Target
from tests.lab.scene import usual_group
from tests.lab.status import all_heard, group_view
from tests.unit.operator.build import World, api_group, nodes, pool, pools

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BOARD: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
PANELS = {panel["title"]: panel for panel in BOARD["panels"] if panel["type"] != "row"}
EXEMPLARS = [target["expr"] for panel in PANELS.values() for target in panel["targets"] if target.get("exemplar")]
OPERATOR = "127.0.0.1:9490"
VARIABLES = {"cluster": ".*", "node": "lab1|n.*", "group": ".*", "interface": "nic.*", "__rate_interval": "5m"}
"""As Grafana puts them in: all, and what somebody chose."""


def filled(expression: str) -> str:
    """A query with the variables put in."""
    return re.sub(r"\$(\w+)", lambda found: VARIABLES[found[1]], expression)


@dataclass(frozen=True, slots=True)
class Shown:
    """What one panel shows: the samples of its queries in order."""

    answers: Sequence[Sequence[dict[str, Any]]]

    def value(self, query: int = 0, **labels: str) -> float:
        """Value of the one series with these labels."""
        (found,) = self.series(query, **labels)
        return float(found["value"][1])

    def series(self, query: int = 0, **labels: str) -> list[dict[str, Any]]:
        """The series with these labels."""
        return [one for one in self.answers[query] if labels.items() <= one["metric"].items()]

    def total(self, query: int = 0, **labels: str) -> float:
        """Sum of the series with these labels."""
        return sum(float(one["value"][1]) for one in self.series(query, **labels))


def every(shown: Shown, holds: Callable[[float], bool], query: int = 0) -> bool:
    """Whether a query has series, and all are so."""
    values = [float(one["value"][1]) for one in shown.answers[query]]
    return bool(values) and all(map(holds, values))


WHILE_DOWN: dict[str, Callable[[Shown], object]] = {
    "Groups on their nodes": lambda s: [s.value(state=word) for word in ("ok", "degraded", "failed")] == [0, 1, 0],
    "Interfaces failed": lambda s: s.value() == 1,
    "Without redundancy": lambda s: s.value() == 1,
    "Addresses on no interface": lambda s: s.value() == 0,
    "Agents": lambda s: (s.value(0), s.value(1)) == (1, 1),
    "Operators that lead": lambda s: s.value() == 1,
    "Groups refused": lambda s: s.value() == 1,
    "Alerts that fire": lambda s: s.series(alertname="IPMPInterfaceFailed", node="lab1", interface="nic0"),
    "Conditions that want somebody": lambda s: s.series(node="lab1", group="lab", type="Degraded"),
    "Interfaces": lambda s: (
        s.series(0, interface="nic0", state="failed")
        and s.series(0, interface="nic1", state="ok")
        and (s.value(1, interface="nic0"), s.value(1, interface="nic1")) == (0, 1)
        and (s.value(2, interface="nic0"), s.value(2, interface="nic1")) == (0, 4)
        and every(s, lambda value: value >= 1, 3)
        and [one["metric"]["reason"] for one in s.series(4)] == ["ProbesLost"]
    ),
    "Nodes on which an interface has failed": lambda s: (
        (s.value(interface="nic0"), s.value(interface="nic1")) == (1, 0)
    ),
    "States of interfaces": lambda s: (s.value(interface="nic0"), s.value(interface="nic1")) == (3, 0),
    "Moves of addresses": lambda s: s.total(reason="ProbesLost") >= 1,
    "Failures and repairs": lambda s: s.total(0, reason="ProbesLost") >= 1 and s.total(1) == 0,
    "Undone and foreign changes": lambda s: s.value(0, node="lab1", group="lab") == 0 and s.series(1) and s.series(2),
    "Outages: from the first loss to the announcement": lambda s: (
        0 < s.value(0, reason="ProbesLost") <= s.value(1, reason="ProbesLost")
    ),
    "Failovers: from the verdict to the announcement": lambda s: 0 < s.value(0) <= s.value(1) <= s.value(2),
    "Round trips": lambda s: 0 < s.value(0, interface="nic1") <= s.value(1, interface="nic1") < math.inf,
    "Probes lost": lambda s: 0 <= s.value(interface="nic1") < s.value(interface="nic0") <= 1,
    "Probes sent": lambda s: s.value(interface="nic0") > 0 and s.value(interface="nic1") > 0,
    "Targets in use": lambda s: every(s, lambda value: value >= 1),
    "Failure detection time": lambda s: s.value(0) >= s.value(1) == 1,
    "Probes missed and refused": lambda s: every(s, lambda value: value >= 0, 0) and s.value(1, node="lab1") >= 0,
    "Lateness of agents": lambda s: s.value(node="lab1") >= 0,
    "Errors that were survived": lambda s: s.total(0) == 0 and s.series(1),
    "Changes of carrier and overruns": lambda s: s.series(0) and s.series(1) and s.value(2) == 0,
    "Memory of agents": lambda s: 1e6 < s.value(node="lab1") < 1e9,
    "Processor of agents": lambda s: s.value(node="lab1") > 0,
    "Versions": lambda s: (s.value(component="agent"), s.value(component="operator")) == (1, 1),
    "Reconcile steps": lambda s: s.value(result="success") > 0 and s.value(result="error") > 0,
    "Reconcile errors": lambda s: s.value(reason="Conflict") > 0 and s.value(reason="Forbidden") == 0,
    "Durations": lambda s: s.value(0, result="success") > 0 and s.value(1) > 0,
    "Steps that wait": lambda s: s.value() == 3,
    "Groups": lambda s: s.value(state="notaccepted") == 1,
    "Nodes of the groups": lambda s: s.value(group="data", state="ready") == 1,
    "Use of pools": lambda s: s.value(group="data", pool="v4") == 1,
}
"""What each panel must show while nic0 forwards nothing, and addresses have moved to nic1."""

REPAIRED: dict[str, Callable[[Shown], object]] = {
    "Groups on their nodes": lambda s: [s.value(state=word) for word in ("ok", "degraded", "failed")] == [1, 0, 0],
    "Interfaces failed": lambda s: s.value() == 0,
    "Without redundancy": lambda s: s.value() == 0,
    "Interfaces": lambda s: s.series(0, interface="nic0", state="ok") and not s.series(4),
    "States of interfaces": lambda s: s.value(interface="nic0") == 0,
    "Failures and repairs": lambda s: s.total(1, reason="ProbesAnswered") >= 1,
}
"""What has changed once nic0 forwards again."""


def operator_page() -> Metrics:
    """The operator's own page: a group whose pool is full, and one that wants the interfaces of the other."""
    world = World(groups=[api_group(dataAddresses=pools(pool(ranges="198.18.0.1"))), api_group("late")])
    world.add_nodes(nodes(2))
    world.agents = frozenset(world.nodes)
    world.settle()
    for holder, seen in world.there.items():
        world.there[holder] = replace(seen, status=NodeGroupReport("ok", observed_generation=seen.generation))
    metrics = Metrics(lambda: 3.0)
    metrics.leader.set(1)
    metrics.show(world.plan())
    metrics.count_groups(["notaccepted", "degraded"])
    return metrics


@dataclass(frozen=True, slots=True)
class Watched:
    """A lab whose agent and operator's page are scraped."""

    lab: Lab
    agent: Agent
    monitoring: Monitoring

    def show(self, titles: Sequence[str]) -> dict[str, Shown]:
        """What these panels show now."""
        expressions = [[filled(target["expr"]) for target in PANELS[title]["targets"]] for title in titles]
        answers = iter(self.monitoring.queries([one for each in expressions for one in each]))
        return {title: Shown([next(answers) for _ in each]) for title, each in zip(titles, expressions, strict=True)}

    def wait_shown(self, expected: dict[str, Callable[[Shown], object]]) -> None:
        """Wait until each panel shows what it means; a scrape and a rule may be a moment behind."""

        def wrong() -> dict[str, Any]:
            shown = self.show(list(expected))
            return {title: shown[title].answers for title, meant in expected.items() if not holds(meant, shown[title])}

        wait_for(wrong, lambda found: not found, deadline=60, what="panels that show what they mean", interval=1)


def holds(meant: Callable[[Shown], object], shown: Shown) -> bool:
    """Whether a panel shows what it means; not while a series is missing."""
    try:
        return bool(meant(shown))
    except ValueError:
        return False


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab())
        agent = stack.enter_context(Agent(lab, usual_group(lab)))
        page = operator_page()
        well = (True, "ok")
        address, port = OPERATOR.split(":")
        registry = page.registry
        server = lab.host.namespace.call(
            HealthServer, (address, int(port)), lambda: registry, lambda: well, lambda: well
        )
        stack.callback(server.close)
        targets = (AGENT, Target("ipmp-operator", OPERATOR, NODE_NAME))
        monitoring = stack.enter_context(Monitoring(lab.host.namespace, tmp_path_factory.mktemp("watched"), targets))
        agent.wait_for(all_heard, what="an answer to a probe on every member")
        scene = Watched(lab, agent, monitoring)
        wait_for(lambda: monitoring.query('ipmp_group_state{state="ok"} == 1'), what="a scrape of a group at rest")
        wait_for(lambda: monitoring.query("ipmp_operator_leader == 1"), what="a scrape of the operator's page")
        page.attempted(0.02, None)
        page.attempted(0.02, "Conflict")
        page.plan_seconds.observe(0.02)
        yield scene


def test_every_panel_is_held_to_its_meaning() -> None:
    assert list(WHILE_DOWN) == list(PANELS)
    assert len(EXEMPLARS) == 2


def test_every_query_shows_what_its_panel_means_through_a_failover(watched: Watched) -> None:
    nic = watched.lab.host.nics["nic0"]
    nic.silence()
    watched.wait_shown(WHILE_DOWN)
    (marks,) = BOARD["annotations"]["list"]
    (marked,) = watched.monitoring.queries([filled(marks["expr"])])
    assert {(one["metric"]["node"], one["metric"]["interface"]) for one in marked} == {("lab1", "nic0")}
    (outage,) = [one for one in watched.agent.status()["groups"][0]["history"] if one["reason"] == "ProbesLost"]
    for query in EXEMPLARS:
        (shown,) = watched.monitoring.exemplars(filled(query))
        assert shown["labels"] == {"interface": "nic0", "reason": "ProbesLost"}
        assert float(shown["timestamp"]) == pytest.approx(outage["time"], abs=0.001), "the history has the rest of it"
    nic.restore()
    watched.agent.wait_for(lambda status: group_view(status).state == "ok", what="the repair", deadline=30)
    watched.wait_shown(REPAIRED)


def test_variables_find_what_there_is(watched: Watched) -> None:
    for variable in BOARD["templating"]["list"][1:]:
        series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]).groups()  # type: ignore[union-attr]
        (found,) = watched.monitoring.queries([filled(series)])
        values = {one["metric"].get(label) for one in found} - {None}
        assert values == {"cluster": set(), "node": {"lab1"}, "group": {"lab"}, "interface": {"nic0", "nic1"}}[label]
