"""Taking interfaces offline and back: nobody's entry is lost, and the agent has the last word."""

from __future__ import annotations

import pytest

from tests.unit.plugin.world import World, group, healthy, interface, node_group, obey


def offline(world: World) -> list[str]:
    return [each["interface"] for each in world.named("front.n1")["spec"].get("offline", [])]


def obedient() -> World:
    world = healthy()
    world.heed = obey
    return world


def test_offline_and_online(capsys: pytest.CaptureFixture[str]) -> None:
    world = obedient()
    assert world.run("offline", "n1", "eth1", "--wait") == 0
    assert "eth1 of group front on n1 is offline and carries no data address" in capsys.readouterr().out
    assert offline(world) == ["eth1"]
    assert world.run("online", "N1", "eth1", "--wait") == 0
    assert "is online" in capsys.readouterr().out
    assert offline(world) == []


def test_entry_of_somebody_else_stays() -> None:
    members = [interface(name) for name in ("eth1", "eth2", "eth3")]
    world = World(group(), node_group("n1", *members))
    world.heed = obey
    world.named("front.n1")["spec"]["offline"] = [{"interface": "eth3"}]
    obey(world.named("front.n1"))
    assert world.run("offline", "n1", "eth1") == 0
    assert offline(world) == ["eth3", "eth1"]
    assert world.run("online", "n1", "eth1") == 0
    assert offline(world) == ["eth3"]


@pytest.mark.parametrize("before", [None, [{"interface": "eth9"}]])
def test_entry_that_comes_between_reading_and_writing_stays(before: list[dict[str, str]] | None) -> None:
    world = obedient()
    if before is not None:
        world.named("front.n1")["spec"]["offline"] = before
    once = iter((True,))

    def somebody_writes() -> None:
        if next(once, False):
            whole = world.named("front.n1")
            whole["spec"]["offline"] = [*whole["spec"].get("offline", []), {"interface": "eth8"}]
            whole["metadata"]["resourceVersion"] += "x"

    world.before_patch = somebody_writes
    assert world.run("offline", "n1", "eth1") == 0
    assert offline(world) == [*[each["interface"] for each in before or []], "eth8", "eth1"]


def test_refusal_is_the_agents_and_leaves_nothing_behind(capsys: pytest.CaptureFixture[str]) -> None:
    world = World(group(), node_group("n1", interface("eth1"), interface("eth2", "failed", reason="LinkDown")))
    world.heed = obey
    assert world.run("offline", "n1", "eth1") == 1
    assert "refuses: eth1 stays online: no other interface of the group works" in capsys.readouterr().err
    assert offline(world) == []


def test_refused_entry_that_was_there_before_stays() -> None:
    world = World(group(), node_group("n1", interface("eth1"), interface("eth2", "failed", reason="LinkDown")))
    world.heed = obey
    world.named("front.n1")["spec"]["offline"] = [{"interface": "eth1"}]
    obey(world.named("front.n1"))
    assert world.run("offline", "n1", "eth1") == 1
    assert offline(world) == ["eth1"], "somebody else wants it"


def test_agent_that_says_nothing_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubectl_ipmp.maintenance.ANSWER", 0.1)
    world = healthy()
    assert world.run("offline", "n1", "eth1", "--timeout=0.1s") == 1
    assert "has not answered yet" in capsys.readouterr().err


def test_interface_known_by_another_key_is_found_by_either_name() -> None:
    world = obedient()
    whole = world.named("front.n1")
    whole["spec"]["interfaces"][0] = {"pciAddress": "0000:3b:00.1"}
    whole["spec"]["offline"] = [{"interface": "0000:3b:00.1"}]
    whole["status"]["interfaces"][0] |= {"state": "offline", "active": False}
    assert world.run("online", "n1", "eth1") == 0
    assert offline(world) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("offline", "n1", "eth7"), "there is: eth1, eth2"),
        (("offline", "n7", "eth1"), "groups are on: n1, n2"),
        (("online", "n1", "eth1"), "is not offline: it is ok"),
    ],
)
def test_what_cannot_be_is_said(arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert obedient().run(*arguments) == 1
    assert told in capsys.readouterr().err


def test_what_was_taken_offline_on_the_node_is_given_back_there(capsys: pytest.CaptureFixture[str]) -> None:
    world = obedient()
    world.named("front.n1")["status"]["interfaces"][0] |= {"state": "offline", "active": False}
    assert world.run("online", "n1", "eth1") == 1
    assert "ipmpadm online eth1" in capsys.readouterr().err


def test_list_that_others_write_all_the_time_ends_with_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_ipmp.maintenance.PAUSE", 0.0)
    world = obedient()

    def somebody_writes() -> None:
        world.named("front.n1")["metadata"]["resourceVersion"] += "x"

    world.before_patch = somebody_writes
    assert world.run("offline", "n1", "eth1") == 1
    assert "try again" in capsys.readouterr().err
    assert offline(world) == []
