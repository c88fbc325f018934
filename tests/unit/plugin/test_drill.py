"""`kubectl ipmp drill`: what is asked of the agents, and the report."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubectl_ipmp import drill
from kubectl_ipmp.kubectl import KubectlError
from tests.unit.plugin.world import World, condition, group, healthy, interface, node_group


class Agents(World):
    """Also an agent on every node, that drills as told."""

    def __init__(self, *objects: dict[str, Any], results: dict[str, Any] | None = None) -> None:
        super().__init__(*objects)
        self.results = results or {}
        self.drilled: list[tuple[str, ...]] = []

    def answer(self, given: tuple[str, ...]) -> str:
        if "pods" in given:
            node = given[given.index("--field-selector") + 1].partition("=")[2]
            return json.dumps({"items": [{"metadata": {"name": f"agent-{node}"}, "status": {"phase": "Running"}}]})
        if "exec" not in given:
            return super().answer(given)
        pod, command = given[given.index("exec") + 1], given[given.index("--") + 1 :]
        self.drilled.append((pod, *command))
        found = self.results.get(pod, {})
        if isinstance(found, str):
            raise KubectlError(f"ipmpadm: {found}\ncommand terminated with exit code 1")
        passed = {"interface": command[2], "kind": "link", "passed": True, "faults": [], "detected": 0.0}
        text = json.dumps(passed | {"gap": 0.0042, "answered": 0.13, "returned": 1.4} | found)
        if found.get("passed", True):
            return text
        raise KubectlError("command terminated with exit code 1", text)


def agents(**results: Any) -> Agents:
    return Agents(*healthy().objects, results={key.replace("_", "-"): value for key, value in results.items()})


def test_the_interface_that_carries_most_is_drilled(capsys: pytest.CaptureFixture[str]) -> None:
    world = agents()
    assert world.run("drill", "front", "n1") == 0
    (words,) = world.drilled
    assert words == (
        "agent-n1", "ipmpadm", "drill", "eth1", "--group=front", "--kind=link", "--seconds=10", "--json",
    )  # fmt: skip
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row == ["n1", "eth1", "link", "ok", "0.0ms", "4.2ms", "0.13s", "1.40s"]


def test_end_of_a_trial_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill, "LOOK", 0.0)
    trial = condition("Programmed", reason="ChangeOnTrial")
    world = agents()
    programmed = world.named("front.n1")["status"]["conditions"]
    programmed[:] = [trial, *(each for each in programmed if each["type"] != "Programmed")]
    asked = world.answer

    def answer(given: tuple[str, ...]) -> str:
        assert "exec" not in given or trial["reason"] == "Configured", "drilled during the trial"
        looks.append(given)
        trial["reason"] = "Configured" if len(looks) > 6 else trial["reason"]
        return asked(given)

    looks: list[tuple[str, ...]] = []
    monkeypatch.setattr(world, "answer", answer)
    assert world.run("drill", "front", "n1") == 0
    assert len(world.drilled) == 1


def test_all_nodes_come_one_after_the_other() -> None:
    world = agents()
    assert world.run("drill", "front", "--all-nodes", "--kind", "silent", "--duration", "5s") == 0
    assert [words[0] for words in world.drilled] == ["agent-n1", "agent-n2"]
    assert all("--kind=silent" in words and "--seconds=5" in words for words in world.drilled)


def test_first_failure_ends_it_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    world = agents(agent_n1={"passed": False, "faults": ["the addresses stayed on the interface"]})
    assert world.run("drill", "front", "--all-nodes") == 1
    assert len(world.drilled) == 1
    out = capsys.readouterr().out
    assert "n1: the addresses stayed on the interface" in out
    assert "1 node not drilled" in out
    assert world.run("drill", "front", "--all-nodes", "--keep-going") == 1
    assert len(world.drilled) == 3


def test_refusal_is_the_agents(capsys: pytest.CaptureFixture[str]) -> None:
    world = agents(agent_n1="no drill of eth1: no other interface of the group works")
    assert world.run("drill", "front", "n1", "-o", "json") == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert found["faults"] == ["no drill of eth1: no other interface of the group works"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("drill", "front"), "name a node, or give --all-nodes"),
        (("drill", "front", "n1", "eth1", "--all-nodes"), "an interface is of one node"),
        (("drill", "back", "n1"), "there is no group back"),
        (("drill", "front", "n9"), "is not on node n9"),
    ],
)
def test_what_cannot_be_is_said(arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert agents().run(*arguments) == 1
    assert told in capsys.readouterr().err


def test_node_without_a_working_interface_has_nothing_to_drill(capsys: pytest.CaptureFixture[str]) -> None:
    broken = interface("eth1", "failed"), interface("eth2", "failed")
    assert Agents(group(), node_group("n1", *broken)).run("drill", "front", "n1") == 1
    assert "nothing to drill" in capsys.readouterr().err
