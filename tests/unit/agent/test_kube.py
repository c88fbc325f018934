"""The agent and its API server, over real HTTP: what is handed in, what goes out, and what no fault may do."""

from __future__ import annotations

import logging
import resource
import threading
import time
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core.actions import Severity
from ipmp_agent.core.reasons import Reason
from ipmp_agent.disk.state import SavedGroup, SavedState
from ipmp_agent.kube import peers, report
from ipmp_agent.kube.source import ClusterSource, connect
from ipmp_agent.publication import Occurrence
from ipmp_agent.views import status
from ipmp_service import api_server, backoff
from ipmp_service.api_server import CredentialsError
from tests.unit.agent.api_server import EVENTS, GROUPS, FakeApiServer, manifest
from tests.unit.agent.building import WALL, unprobed_group
from tests.unit.views.pictures import failed, interface, publication, view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ipmp_agent.kube.report import Reporter
    from ipmp_agent.publication import GroupView
    from ipmp_api.types import NodeGroup

FINE = view(interface("nic0"), interface("nic1"), name="lab")
BROKEN = view(interface("nic0"), failed("nic1"), name="lab")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait milliseconds where the agent waits seconds."""
    monkeypatch.setattr(backoff, "MINIMUM", 0.001)
    monkeypatch.setattr(backoff, "MAXIMUM", 0.01)
    monkeypatch.setattr(report, "SPACING", 0.001)
    monkeypatch.setattr(report, "FAULT_PAUSE", 0.001)


@pytest.fixture
def server() -> Iterator[FakeApiServer]:
    running = FakeApiServer()
    yield running
    running.close()


class Agent:
    """The kube side of an agent; what it wants is in `wanted`."""

    def __init__(self, kubeconfig: Path, saved: SavedState | None = None) -> None:
        self.source = ClusterSource("node1", kubeconfig, status)
        self.wanted: list[tuple[NodeGroup, ...]] = []
        self.reporter: Reporter = self.source.start(self.wanted.append, saved or SavedState())

    @property
    def names(self) -> list[str]:
        return [group.group_name for group in self.wanted[-1]] if self.wanted else []


@pytest.fixture
def kubeconfig(server: FakeApiServer, tmp_path: Path) -> Path:
    path = tmp_path / "kubeconfig"
    path.write_text(server.kubeconfig())
    return path


@pytest.fixture
def start(server: FakeApiServer, kubeconfig: Path) -> Iterator[Callable[..., Agent]]:
    agents: list[Agent] = []

    def begin(saved: SavedState | None = None) -> Agent:
        agents.append(Agent(kubeconfig, saved))
        return agents[-1]

    yield begin
    for agent in agents:
        agent.source.close()


def until(condition: Callable[[], Any], what: Callable[[], Any] = lambda: "") -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.002)


def conditions(server: FakeApiServer, name: str = "lab.node1") -> dict[str, dict[str, Any]]:
    return {c["type"]: c for c in (server.objects[name].get("status") or {}).get("conditions", ())}


# --- configuration in


def test_own_node_groups_are_listed_and_watched(server: FakeApiServer, start: Callable[..., Agent]) -> None:
    server.put(manifest())
    agent = start()
    until(lambda: agent.names == ["lab"] and server.watches)
    assert agent.wanted[-1] == (unprobed_group(),)
    method, path, query, headers, _ = server.requests[0]
    assert (method, path) == ("GET", GROUPS)
    assert query["fieldSelector"] == "spec.nodeName=node1"
    assert headers["authorization"] == "Bearer secret"
    watch = next(request for request in server.requests if "watch" in request[2])
    assert watch[2]["resourceVersion"] == "101"
    assert watch[2]["allowWatchBookmarks"] == "true"
    server.put(manifest("b"), "ADDED")
    until(lambda: agent.names == ["lab", "b"])
    server.delete("lab.node1")
    until(lambda: agent.names == ["b"])


def test_group_that_is_being_deleted_is_no_longer_wanted(server: FakeApiServer, start: Callable[..., Agent]) -> None:
    server.put(manifest())
    agent = start()
    until(lambda: agent.names == ["lab"] and server.watches)
    server.put(manifest(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}))
    until(lambda: agent.wanted[-1] == ())


def test_deletion_during_a_broken_watch_is_noticed(server: FakeApiServer, start: Callable[..., Agent]) -> None:
    server.put(manifest())
    server.put(manifest("b"))
    agent = start()
    until(lambda: agent.names == ["lab", "b"] and server.watches)
    server.delete("b.node1", silently=True)
    server.send({"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}})
    until(lambda: agent.names == ["lab"])
    assert len([r for r in server.seen("GET", GROUPS) if "watch" not in r[2]]) == 2


def test_watch_goes_on_where_it_ended(server: FakeApiServer, start: Callable[..., Agent]) -> None:
    agent = start()
    until(lambda: server.watches)
    bookmark = {"metadata": {"resourceVersion": "555", "name": ""}}
    server.send({"type": "BOOKMARK", "object": bookmark})
    server.end_watches()
    until(lambda: len([r for r in server.requests if "watch" in r[2]]) >= 2)
    assert [r for r in server.requests if "watch" in r[2]][1][2]["resourceVersion"] == "555"
    assert agent.wanted == [()], "a bookmark is no change"


@pytest.mark.parametrize("fault", [500, 503, 429, 401, 403])
def test_failing_server_is_tried_until_it_answers(
    server: FakeApiServer, start: Callable[..., Agent], fault: int, caplog: pytest.LogCaptureFixture
) -> None:
    server.put(manifest())
    server.faults["GET"] = [fault] * 5
    agent = start()
    until(lambda: agent.names == ["lab"])
    assert caplog.text.count("watching node groups failed") == 1


def test_server_that_ends_every_watch_at_once_meets_patience(
    server: FakeApiServer, start: Callable[..., Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten watches a second would be an attack by a cluster of a thousand nodes."""
    monkeypatch.setattr(backoff, "MINIMUM", 3600.0)
    monkeypatch.setattr(backoff, "MAXIMUM", 3600.0)
    start()
    until(lambda: server.watches)
    server.end_watches()
    until(lambda: not server.watches)
    count = len(server.requests)
    threading.Event().wait(0.1)
    assert len(server.requests) == count


def test_agent_starts_from_what_it_knew_while_the_server_hangs(
    server: FakeApiServer, start: Callable[..., Agent]
) -> None:
    server.hanging.set()
    agent = start(SavedState({"lab": SavedGroup(unprobed_group())}))
    assert agent.wanted == [(unprobed_group(),)]
    agent.reporter.published(publication(FINE))
    agent.reporter.occurred(occurrence())


def test_group_that_was_deleted_while_the_agent_was_down_goes_with_the_first_list(
    server: FakeApiServer, start: Callable[..., Agent]
) -> None:
    agent = start(SavedState({"lab": SavedGroup(unprobed_group())}))
    until(lambda: agent.wanted == [(unprobed_group(),), ()])


@pytest.mark.parametrize("answer", [{}, {"kind": "Status", "status": "Success"}, {"items": None}, None])
def test_list_that_is_none_withdraws_nothing(server: FakeApiServer, start: Callable[..., Agent], answer: Any) -> None:
    server.put(manifest())
    server.lists = [answer] * 3
    agent = start(SavedState({"lab": SavedGroup(unprobed_group())}))
    until(lambda: server.watches)
    assert len(server.requests) == 5
    server.lists = [answer] * 3
    server.send({"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}})
    until(lambda: not server.lists and server.watches)
    assert agent.names == ["lab"]
    assert () not in agent.wanted


@pytest.mark.parametrize("spec", [None, [], "x", {"interfaces": "x"}, {"interfaces": [None]}, {"dataAddresses": {}}])
def test_node_group_of_whatever_shape_holds_up_no_other(
    server: FakeApiServer, start: Callable[..., Agent], spec: Any
) -> None:
    server.put(manifest())
    server.put(manifest("b"))
    agent = start()
    until(lambda: agent.names == ["lab", "b"] and server.watches)
    agent.reporter.published(publication(FINE))
    server.put(manifest(metadata={"generation": 2}, spec=spec))
    server.put(manifest("c"), "ADDED")
    until(lambda: agent.names == ["lab", "b", "c"])
    assert agent.wanted[-1][0] == unprobed_group()
    until(lambda: conditions(server).get("Programmed", {}).get("reason") == "InvalidSpec", lambda: conditions(server))


def test_spec_that_cannot_be_used_leaves_the_last_good_one_and_is_reported(
    server: FakeApiServer, start: Callable[..., Agent]
) -> None:
    server.put(manifest())
    server.put(manifest("b"))
    agent = start()
    until(lambda: agent.names == ["lab", "b"] and server.watches)
    agent.reporter.published(publication(FINE))
    until(lambda: conditions(server).get("Programmed", {}).get("status") == "True")
    broken = manifest(metadata={"generation": 2})
    broken["spec"]["failureDetection"]["timeMilliseconds"] = -1
    broken["status"] = server.objects["lab.node1"]["status"]
    server.put(broken)
    until(lambda: conditions(server)["Programmed"]["reason"] == "InvalidSpec", lambda: conditions(server))
    assert "spec.failureDetection.timeMilliseconds" in conditions(server)["Programmed"]["message"]
    assert server.objects["lab.node1"]["status"]["observedGeneration"] == 1
    assert agent.wanted[-1][0] == unprobed_group()


# --- status out


def test_status_is_written_once_and_again_only_when_it_changes(
    server: FakeApiServer, start: Callable[..., Agent]
) -> None:
    server.put(manifest(metadata={"generation": 4}))
    agent = start()
    until(lambda: agent.names == ["lab"])
    for moment in range(20):
        agent.reporter.published(publication(FINE, time=WALL + moment))
    until(lambda: server.seen("PATCH"))
    agent.reporter.published(publication(BROKEN, time=WALL + 60))
    until(lambda: server.objects["lab.node1"]["status"]["state"] == "degraded")
    patches = server.seen("PATCH")
    assert len(patches) == 2
    _, path, query, headers, body = patches[0]
    assert path == f"{GROUPS}/lab.node1/status"
    assert query == {"fieldManager": "ipmp-agent/node1"}
    assert headers["content-type"] == "application/json-patch+json"
    test, add = body
    assert test == {"op": "test", "path": "/metadata/uid", "value": "uid-lab"}
    assert (add["path"], add["value"]["observedGeneration"]) == ("/status", 4)
    first, second = (
        {c["type"]: c["lastTransitionTime"] for c in patch[4][1]["value"]["conditions"]} for patch in patches
    )
    assert second["Ready"] == first["Ready"]
    assert second["Degraded"] == "2023-11-14T22:14:20Z"


def test_status_that_is_there_already_is_not_written_again_after_a_restart(
    server: FakeApiServer, start: Callable[..., Agent]
) -> None:
    server.put(manifest())
    first = start()
    first.reporter.published(publication(FINE))
    until(lambda: server.seen("PATCH"))
    until(lambda: "status" in server.objects["lab.node1"])
    second = start()
    second.reporter.published(publication(FINE, time=WALL + 3600))
    second.reporter.published(publication(BROKEN, time=WALL + 3600))
    until(lambda: server.objects["lab.node1"]["status"]["state"] == "degraded")
    assert len(server.seen("PATCH")) == 2


def test_status_written_after_faults_is_the_newest(server: FakeApiServer, start: Callable[..., Agent]) -> None:
    server.put(manifest())
    agent = start()
    until(lambda: agent.names == ["lab"])
    server.faults["PATCH"] = [500, 503, 409, 429]
    agent.reporter.published(publication(FINE))
    until(lambda: len(server.seen("PATCH")) >= 2)
    agent.reporter.published(publication(BROKEN))
    until(lambda: server.objects["lab.node1"].get("status", {}).get("state") == "degraded")


def test_nothing_is_reported_before_the_data_plane_has_a_configuration(
    server: FakeApiServer, start: Callable[..., Agent]
) -> None:
    """Else an agent that starts would call a group withdrawn that it has not looked at yet."""
    server.put(manifest(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}))
    agent = start()
    until(lambda: agent.wanted == [()])
    agent.reporter.published(publication(configured=False))
    agent.reporter.published(publication(pending=("lab",)))
    agent.reporter.occurred(occurrence())
    until(lambda: server.events)
    assert server.seen("PATCH") == []
    agent.reporter.published(publication())
    until(lambda: conditions(server).get("Withdrawn", {}).get("status") == "True")


def test_withdrawn_is_said_beside_the_last_status(server: FakeApiServer, start: Callable[..., Agent]) -> None:
    server.put(manifest())
    agent = start()
    agent.reporter.published(publication(FINE))
    until(lambda: server.objects["lab.node1"].get("status"))
    until(lambda: server.watches)
    leaving = manifest(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    leaving["status"] = server.objects["lab.node1"]["status"]
    server.put(leaving)
    agent.reporter.published(publication())
    until(lambda: conditions(server).get("Withdrawn", {}).get("status") == "True")
    assert conditions(server)["Ready"]["status"] == "True"
    assert server.objects["lab.node1"]["status"]["state"] == "ok"


def test_put_off_status_of_a_group_on_its_way_out_is_no_busy_loop(
    server: FakeApiServer, start: Callable[..., Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put(manifest())
    agent = start()
    agent.reporter.published(publication(FINE))
    until(lambda: server.objects["lab.node1"].get("status"))
    until(lambda: server.watches)
    server.put(manifest(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}))
    until(lambda: agent.wanted[-1] == ())
    agent.reporter.published(publication(pending=("lab",)))
    until(lambda: agent.reporter._patience() is None)


def test_object_deleted_under_the_hand_is_written_until_the_watch_tells_of_it(
    server: FakeApiServer, start: Callable[..., Agent]
) -> None:
    server.put(manifest())
    agent = start()
    until(lambda: agent.names == ["lab"] and server.watches)
    gone = manifest(metadata={"resourceVersion": "200"})
    server.delete("lab.node1", silently=True)
    agent.reporter.published(publication(FINE))
    until(lambda: len(server.seen("PATCH")) > 1)
    server.send({"type": "DELETED", "object": gone})
    until(lambda: agent.reporter._patience() is None)


def test_status_is_not_written_to_a_later_object_of_the_name(
    server: FakeApiServer, start: Callable[..., Agent]
) -> None:
    server.put(manifest())
    agent = start()
    until(lambda: agent.names == ["lab"] and server.watches)
    later = manifest(metadata={"uid": "another"})
    server.objects["lab.node1"] = later  # deleted and created anew, and the watch has yet to tell
    agent.reporter.published(publication(FINE))
    until(lambda: len(server.seen("PATCH")) > 1)
    assert "status" not in later
    server.put(later)
    until(lambda: later.get("status"))


def test_status_that_finds_the_api_of_node_groups_away_is_written_later(
    server: FakeApiServer, start: Callable[..., Agent]
) -> None:
    server.put(manifest())
    agent = start()
    until(lambda: agent.names == ["lab"])
    server.faults["PATCH"] = [404]
    agent.reporter.published(publication(FINE))
    until(lambda: server.objects["lab.node1"].get("status"))


def test_publishing_never_waits_for_a_server_that_hangs(server: FakeApiServer, start: Callable[..., Agent]) -> None:
    server.put(manifest())
    agent = start()
    until(lambda: agent.names == ["lab"])
    server.hanging.set()
    agent.reporter.published(publication(FINE))
    until(lambda: server.seen("PATCH"))
    for moment in range(10_000):
        agent.reporter.published(publication(BROKEN, time=WALL + moment))
        agent.reporter.occurred(occurrence(f"number {moment}"))
    assert len(agent.reporter._waiting) == report.EVENT_BACKLOG
    assert len(server.seen("PATCH")) == 1
    server.hanging.clear()
    server.released.set()
    until(lambda: server.objects["lab.node1"].get("status", {}).get("state") == "degraded")


def current(agent: Agent, picture: GroupView) -> bool:
    """Publish, as the data plane does again and again; whether the server had all of it a moment ago."""
    agent.reporter.published(publication(picture))
    return agent.reporter.lag() < 1.0


def test_lag_grows_while_the_server_does_not_take_what_there_is_and_ends_when_it_does(
    server: FakeApiServer, start: Callable[..., Agent]
) -> None:
    server.put(manifest())
    agent = start()
    assert not agent.source.reporting().connected, "nobody has answered yet"
    until(lambda: agent.names == ["lab"])
    until(lambda: agent.reporter.lag() > 1.0)  # nothing has been reported yet
    until(lambda: current(agent, FINE))
    assert agent.source.reporting().connected
    server.faults["PATCH"] = [500] * 10_000
    agent.reporter.published(publication(BROKEN))
    until(lambda: agent.reporter.lag() > 1.0)
    assert agent.source.reporting().connected, "it answers, and refuses"
    server.faults["PATCH"] = []
    until(lambda: current(agent, BROKEN))
    assert conditions(server)["Degraded"]["status"] == "True"


def test_server_that_hangs_is_lag_too(server: FakeApiServer, start: Callable[..., Agent]) -> None:
    server.put(manifest())
    agent = start()
    until(lambda: agent.names == ["lab"])
    agent.reporter.published(publication(FINE))
    until(lambda: conditions(server))
    server.hanging.set()
    agent.reporter.published(publication(BROKEN))
    until(lambda: agent.reporter.lag() > 1.0)
    server.hanging.clear()
    server.released.set()


# --- events out


def occurrence(message: str = "failure of nic1 detected", moment: float = WALL, group: str = "lab") -> Occurrence:
    return Occurrence(moment, group, Reason.LINK_DOWN, message, Severity.ERROR, "nic1")


def test_event_names_group_reason_and_node(server: FakeApiServer, start: Callable[..., Agent]) -> None:
    server.put(manifest())
    agent = start()
    until(lambda: agent.names == ["lab"])
    agent.reporter.occurred(occurrence())
    until(lambda: server.events)
    (event,) = server.events
    assert event["metadata"].pop("name").startswith("lab.node1.")
    assert event == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": "default"},
        "eventTime": "2023-11-14T22:13:20.000000Z",
        "reportingController": "ipmp.dev/node-agent",
        "reportingInstance": "node1",
        "type": "Warning",
        "action": "Multipathing",
        "reason": "LinkDown",
        "note": "failure of nic1 detected",
        "regarding": {
            "apiVersion": "ipmp.dev/v1alpha1",
            "kind": "IPMPNodeGroup",
            "name": "lab.node1",
            "uid": "uid-lab",
        },
        "related": {"apiVersion": "ipmp.dev/v1alpha1", "kind": "IPMPGroup", "name": "lab"},
    }
    assert server.seen("POST")[0][1] == EVENTS


def test_repeated_event_becomes_a_series_and_a_later_one_is_new(
    server: FakeApiServer, start: Callable[..., Agent]
) -> None:
    server.put(manifest())
    agent = start()
    until(lambda: agent.names == ["lab"])
    for moment in (0, 10, 20, 2000):
        agent.reporter.occurred(occurrence(moment=WALL + moment))
    agent.reporter.occurred(occurrence("repair of nic1 detected"))
    until(lambda: len(server.events) == 3)
    assert server.events[0]["series"] == {"count": 3, "lastObservedTime": "2023-11-14T22:13:40.000000Z"}
    assert "series" not in server.events[1]


def test_event_outlives_a_server_that_fails_and_one_that_is_refused_does_not_block(
    server: FakeApiServer, start: Callable[..., Agent]
) -> None:
    server.put(manifest())
    agent = start()
    until(lambda: agent.names == ["lab"])
    server.faults["POST"] = [503, 500, 403]
    agent.reporter.occurred(occurrence("refused in the end"))
    agent.reporter.occurred(occurrence("posted"))
    until(lambda: server.events)
    assert [event["note"] for event in server.events] == ["posted"]
    assert [request[4]["note"] for request in server.seen("POST")] == ["refused in the end"] * 3 + ["posted"]


def about_node(server: FakeApiServer) -> list[dict[str, Any]]:
    return [event for event in server.events if event["regarding"]["kind"] == "Node"]


def test_node_is_told_which_member_is_unusable_and_when_all_are_back(
    server: FakeApiServer, start: Callable[..., Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "NODE_SETTLE", 0.0)
    monkeypatch.setattr(report, "NODE_SPACING", 0.0)
    server.put(manifest())
    agent = start()
    until(lambda: agent.names == ["lab"])
    agent.reporter.published(publication(FINE))
    until(lambda: conditions(server))
    assert about_node(server) == []
    agent.reporter.published(publication(BROKEN))
    until(lambda: about_node(server))
    (event,) = about_node(server)
    # As the kubelet names its Node: `kubectl describe node` shows what has this uid.
    assert event["regarding"] == {"apiVersion": "v1", "kind": "Node", "name": "node1", "uid": "node1"}
    assert event["related"] == {"apiVersion": "ipmp.dev/v1alpha1", "kind": "IPMPGroup", "name": "lab"}
    assert (event["type"], event["reason"]) == ("Warning", "GroupDegraded")
    assert event["note"] == "IPMP group lab: nic1: LinkDown"
    agent.reporter.published(publication(FINE))
    until(lambda: len(about_node(server)) == 2)
    assert about_node(server)[1]["type"] == "Normal"
    assert about_node(server)[1]["note"] == "IPMP group lab: every interface is usable"


def test_flapping_member_is_one_event_on_the_node(
    server: FakeApiServer, start: Callable[..., Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "NODE_SETTLE", 0.0)
    monkeypatch.setattr(report, "NODE_SPACING", 3600.0)
    server.put(manifest())
    agent = start()
    until(lambda: agent.names == ["lab"])
    agent.reporter.published(publication(FINE))
    until(lambda: conditions(server))
    for _ in range(20):
        for picture, degraded in ((BROKEN, "True"), (FINE, "False")):
            agent.reporter.published(publication(picture))
            until(lambda degraded=degraded: conditions(server)["Degraded"]["status"] == degraded)  # type: ignore[misc]
    assert len(about_node(server)) == 1


# --- credentials and time


def test_no_credentials_say_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(CredentialsError, match="outside a cluster give --kubeconfig or --file"):
        connect("node1", None)
    with pytest.raises(CredentialsError, match="cannot use --kubeconfig"):
        connect("node1", tmp_path / "none")


@pytest.mark.parametrize("fault", [None, 401, 503])
def test_server_that_says_anything_at_all_answers(server: FakeApiServer, kubeconfig: Path, fault: int | None) -> None:
    server.faults["GET"] = [fault] if fault else []
    assert connect("node1", kubeconfig).answers()


def test_server_that_is_silent_does_not_answer_and_one_that_is_down_can_be_reached(
    server: FakeApiServer, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected = connect("node1", kubeconfig)
    monkeypatch.setattr(api_server, "ANSWER_TIMEOUT", 0.2)
    server.hanging.set()
    assert not connected.answers()
    server.close()
    assert connected.answers(), "its host refused the connection: the way there is whole"


def test_that_no_socket_is_to_be_had_is_not_taken_for_a_silent_server(server: FakeApiServer, kubeconfig: Path) -> None:
    connected = connect("node1", kubeconfig)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        # No number is free below the limit, and none becomes free: standard input and output have them.
        resource.setrlimit(resource.RLIMIT_NOFILE, (2, before[1]))
        with pytest.raises(OSError, match="Too many open files"):
            connected.answers()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert connected.answers()


def test_each_question_whether_the_server_answers_takes_a_connection_of_its_own(
    server: FakeApiServer, kubeconfig: Path
) -> None:
    connected = connect("node1", kubeconfig)
    connected.list_all(GROUPS, {})
    assert connected.answers()
    assert connected.answers()
    assert len(server.connections) == 3


def test_fault_in_the_report_itself_does_not_end_it(
    server: FakeApiServer, start: Callable[..., Agent], caplog: pytest.LogCaptureFixture
) -> None:
    server.put(manifest())
    agent = start()
    until(lambda: agent.names == ["lab"])
    object.__setattr__(FINE, "since", dict(FINE.since))
    broken = view(interface("nic0"), name="lab")
    object.__setattr__(broken, "since", {})
    with caplog.at_level(logging.ERROR):
        agent.reporter.published(publication(broken))
        until(lambda: "could not report" in caplog.text)
    agent.reporter.published(publication(FINE))
    until(lambda: server.objects["lab.node1"].get("status"))


# --- where peers answer


def peer(node: str, *link_locals: str, **changes: Any) -> dict[str, Any]:
    """What the agent of another node reports, its last member the one that works."""
    members = [{"name": f"nic{at}", "state": "failed", "testAddresses": [text]} for at, text in enumerate(link_locals)]
    if members:
        members[-1]["state"] = "ok"
        members[-1]["testAddresses"].insert(0, "198.18.3.1")  # type: ignore[attr-defined]
    obj = manifest(metadata={"name": f"lab.{node}", "uid": f"uid-{node}"}, status={"interfaces": members} | changes)
    obj["spec"]["nodeName"] = node
    return obj


def with_peers(*nodes: str, **policies: Any) -> dict[str, Any]:
    """Our node group with these peers, which are probed."""
    probes = {"method": "Auto", "targets": {"peers": "Enabled", "routers": "Enabled", "discovery": "Disabled"}}
    obj = manifest()
    obj["spec"] |= {"peers": ["198.18.0.9"], "peerNodes": list(nodes), "probes": probes} | policies
    return obj


def peers_of(agent: Agent) -> list[str]:
    return [str(address) for group in agent.wanted[-1] for address in group.peers] if agent.wanted else []


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for peers without the waits of a rollout."""
    monkeypatch.setattr(peers, "FIRST", 0.01)
    monkeypatch.setattr(peers, "GROWTH", 1.0)


def asked_for(server: FakeApiServer, name: str) -> int:
    return sum(request[2].get("fieldSelector") == f"metadata.name={name}" for request in list(server.requests))


def test_peers_are_asked_where_they_answer_until_they_say_so(
    server: FakeApiServer, start: Callable[..., Agent], eager: None
) -> None:
    server.put(with_peers("n2", "n3"))
    server.put(peer("n2"))
    agent = start()
    until(lambda: asked_for(server, "lab.n2") > 2 and asked_for(server, "lab.n3") > 2)
    assert peers_of(agent) == ["198.18.0.9"]
    server.put(peer("n2", "fe80::1", "fe80::2%eth0"))
    until(lambda: peers_of(agent) == ["198.18.0.9", "fe80::2"], lambda: peers_of(agent))
    server.put(peer("n3", "fe80::3"))
    until(lambda: peers_of(agent) == ["198.18.0.9", "fe80::2", "fe80::3"], lambda: peers_of(agent))
    assert all(group.peer_nodes == () for group in agent.wanted[-1])
    before = asked_for(server, "lab.n2")
    server.put(with_peers("n3"))
    until(lambda: peers_of(agent) == ["198.18.0.9", "fe80::3"], lambda: peers_of(agent))
    assert asked_for(server, "lab.n2") == before, "what is known is not asked for again"


def test_what_the_last_run_knew_of_peers_counts_until_they_were_asked(
    server: FakeApiServer, start: Callable[..., Agent], eager: None
) -> None:
    last = replace(unprobed_group(), peers=(ip_address("198.18.0.8"), ip_address("fe80::7")))
    server.put(with_peers("n2"))
    server.put(peer("n2", "fe80::2"))
    server.faults["GET"] = []
    agent = start(SavedState({"lab": SavedGroup(last)}))
    until(lambda: peers_of(agent) == ["198.18.0.9", "fe80::2"], lambda: peers_of(agent))
    told = [[str(address) for group in groups for address in group.peers] for groups in agent.wanted]
    assert set(map(tuple, told)) <= {
        ("198.18.0.8", "fe80::7"),
        ("198.18.0.9", "fe80::7"),
        ("198.18.0.9", "fe80::2"),
    }, "never without an address over IPv6"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"testAddresses": {"ipv6": "Disabled"}}, id="no IPv6 test address"),
        pytest.param({"probes": {"method": "Auto", "targets": {"peers": "Disabled"}}}, id="no peers"),
    ],
)
def test_peers_that_nobody_would_probe_are_not_asked(
    server: FakeApiServer, start: Callable[..., Agent], eager: None, changes: dict[str, Any]
) -> None:
    server.put(with_peers("n2", **changes))
    server.put(peer("n2", "fe80::2"))
    agent = start()
    until(lambda: peers_of(agent) == ["198.18.0.9"] and server.watches)
    assert asked_for(server, "lab.n2") == 0


@pytest.mark.parametrize(
    "status",
    [
        None,
        [],
        {"interfaces": 7},
        {"interfaces": [7, {"testAddresses": "x"}, {"testAddresses": [None, "::1", "fe80"]}]},
    ],
)
def test_report_of_a_peer_that_makes_no_sense_holds_up_no_other(
    server: FakeApiServer, start: Callable[..., Agent], eager: None, status: Any
) -> None:
    server.put(with_peers("n2", "n3"))
    server.put(peer("n2") | {"status": status})
    server.put(peer("n3", "fe80::3"))
    agent = start()
    until(lambda: peers_of(agent) == ["198.18.0.9", "fe80::3"], lambda: peers_of(agent))
