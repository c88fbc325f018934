"""What the plugin shows of a cluster's objects."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ipmp_agent.core import reasons
from ipmp_agent.core.reasons import Reason
from ipmp_agent.views import status
from kubectl_ipmp.advice import ADVICE, advice
from kubectl_ipmp.display import Display, ago, parse_time
from tests.unit.plugin.world import World, condition, group, healthy, interface, node_group

if TYPE_CHECKING:
    from pathlib import Path

BROKEN = interface("eth1", "failed", reason="LinkDown", link="down")


def degraded() -> World:
    return World(
        group("front", condition("Degraded", "True", "NodesDegraded", "1 nodes lack usable members")),
        node_group("n1", BROKEN, interface("eth2")),
        node_group("n2"),
    )


def test_status_is_a_tree(capsys: pytest.CaptureFixture[str]) -> None:
    assert degraded().run("status") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "front  degraded: 2 nodes, 1 ok, 1 degraded"
    assert any("n1  degraded: 1 of 2 interfaces usable" in line for line in lines)
    (broken,) = [line for line in lines if "LinkDown" in line]
    assert "eth1  failed   link down" in broken
    (carrier,) = [line for line in lines if "carries 198.18.0.10" in line and "eth2" in line]
    assert "ok" in carrier


def test_status_of_one_group_and_node_shows_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    world = degraded()
    world.objects += [group("back"), node_group("n1", name="back")]
    assert world.run("status", "front", "--node", "N2") == 0
    out = capsys.readouterr().out
    assert "n2" in out
    assert "n1" not in out
    assert "back" not in out


def test_status_reads_twice_and_writes_nothing() -> None:
    world = healthy()
    world.run("--context=edge", "status", "--request-timeout", "3s")
    assert sorted(world.calls) == sorted(
        ("--context=edge", "--request-timeout=3s", "get", "--raw", f"/apis/ipmp.dev/v1alpha1/{kind}")
        for kind in ("ipmpgroups", "ipmpnodegroups")
    )


@pytest.mark.parametrize("command", ["interfaces", "addresses", "targets", "history", "events", "status"])
def test_json_is_json(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert degraded().run(command, "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) is not None


def test_tables_have_a_row_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    degraded().run("interfaces")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0][:4] == ["GROUP", "NODE", "INTERFACE", "STATE"]
    assert [row[:4] for row in rows[1:3]] == [["front", "n1", "eth1", "failed"], ["front", "n1", "eth2", "ok"]]
    degraded().run("addresses", "--node", "n1")
    out = capsys.readouterr().out
    assert "198.18.0.10/24" in out
    assert "DHCPManaged" in out
    degraded().run("targets", "--node=n2")
    assert "198.18.0.2" not in capsys.readouterr().out
    degraded().run("targets", "--all", "--node=n2")
    assert "198.18.0.2" in capsys.readouterr().out
    degraded().run("history")
    assert "4.2ms" in capsys.readouterr().out


def test_events_are_of_the_groups_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    world = healthy()
    for name, time in (("front.n1", "2026-01-01T00:00:02Z"), ("other.n1", "2026-01-01T00:00:01Z")):
        about = {"kind": "IPMPNodeGroup", "name": name}
        event = {"regarding": about, "eventTime": time, "reason": "LinkDown", "note": f"of {name}", "type": "Warning"}
        world.events.append(event | {"series": {"count": 3, "lastObservedTime": time}})
    world.run("events")
    out = capsys.readouterr().out
    assert out.index("of other.n1") < out.index("of front.n1"), "oldest first"
    world.run("events", "front")
    assert "of other.n1" not in capsys.readouterr().out


def test_explain_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    world = degraded()
    bad = condition("ProbesEnabled", "False", "TargetsLost", "eth1 has no targets")
    world.named("front.n1")["status"]["conditions"].append(bad)
    assert world.run("explain", "front", "n1") == 0
    out = capsys.readouterr().out
    assert "eth1 is failed" in out
    assert ADVICE["LinkDown"] in out
    assert "eth1 has no targets" in out
    assert ADVICE["TargetsLost"] in out
    assert "Programmed is True" in out
    assert world.run("explain", "front", "n1", "-o", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["interfaces"][0]["advice"] == ADVICE["LinkDown"]


def test_explain_of_a_node_without_the_group_says_why_it_may_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert healthy().run("explain", "front", "n9") == 0
    out = capsys.readouterr().out
    assert "front is not on n9" in out
    assert "nodeSelector" in out


def test_explain_of_silence_sends_to_the_agent(capsys: pytest.CaptureFixture[str]) -> None:
    world = healthy()
    world.named("front.n1")["status"] = {"observedGeneration": -1}
    assert world.run("explain", "front", "n1") == 0
    assert "No agent has reported yet" in capsys.readouterr().out


def test_every_reason_of_a_condition_that_wants_somebody_has_advice() -> None:
    told = reasons.OBSTACLES | reasons.ADVICE | {*status.INCONSISTENT, *status.UNPROBED, *status.KERNEL}
    assert sorted(reason for reason in told if reason.value not in ADVICE) == []


def test_reasons_whose_message_names_no_remedy_have_advice() -> None:
    told = {Reason.GROUP_FAILED, Reason.GROUP_DEGRADED, Reason.CHANGE_UNDONE, Reason.MINIMUM_REDUNDANCY}
    told |= {Reason.LINK_DOWN, Reason.LINK_FLAPPING, Reason.PROBES_LOST, Reason.TARGETS_LOST, Reason.NOT_HEARD}
    told |= {Reason.INTERFACE_MISSING, Reason.OFFLINE, Reason.DUPLICATE_MAC, Reason.BOND_MEMBER, Reason.BRIDGE_PORT}
    assert sorted(reason for reason in told if reason.value not in ADVICE) == []


def test_a_reason_without_advice_sends_to_its_message() -> None:
    assert "the message says" in advice("SomethingNew")


def test_no_group_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert World().run("status") == 0
    assert "apply one" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Error from server (NotFound): the server could not find the requested resource", "install the chart"),
        ("Error from server (Forbidden): ipmpgroups.ipmp.dev is forbidden", "verbs get and list"),
        ("The connection to the server 10.0.0.1:6443 was refused", "10.0.0.1:6443"),
    ],
)
def test_what_the_server_refuses_is_said_with_what_to_do(
    said: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world = healthy()
    world.refusal = said
    assert world.run("status") == 1
    shown = capsys.readouterr()
    assert told in shown.err
    assert shown.out == ""


@pytest.mark.parametrize("arguments", [("status", "bak"), ("interfaces", "--node=n9"), ("explain", "bak", "n1")])
def test_a_name_that_is_not_there_is_answered_by_those_that_are(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert healthy().run(*arguments) == 1
    err = capsys.readouterr().err
    assert "front" in err or "n1, n2" in err


# -- waiting


def test_wait_ends_when_it_is_so() -> None:
    assert healthy().run("status", "--wait", "--for=ok", "--timeout=1s") == 0
    assert degraded().run("status", "--wait", "--for=degraded", "--timeout=1s") == 0
    assert degraded().run("status", "--wait", "--timeout=1s") == 0, "degraded carries traffic"


def test_wait_that_is_over_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert degraded().run("status", "--wait", "--for=ok", "--timeout=0.1s") == 1
    assert "n1 is degraded" in capsys.readouterr().err


def test_wait_for_a_refused_group_ends_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    refused = condition("Accepted", "False", "Invalid", "spec.interfaces: too few")
    world = World(group("front", refused, condition("Ready", "False", "Invalid")))
    assert world.run("status", "--wait", "--timeout=1h") == 1
    assert "spec.interfaces: too few" in capsys.readouterr().err


def test_wait_takes_no_old_status_for_a_new_one(capsys: pytest.CaptureFixture[str]) -> None:
    world = healthy()
    world.named("front")["metadata"]["generation"] = 2
    assert world.run("status", "--wait", "--timeout=0.1s") == 1
    assert "not looked at it yet" in capsys.readouterr().err


# -- how it looks


def test_colours_are_for_terminals_and_not_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32m" in Display(Terminal()).state("ok")
    assert "\x1b" not in Display(io.StringIO()).state("ok")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in Display(Terminal()).state("ok")
    assert "\x1b" in Display(io.StringIO(), colour=True).state("failed")


def test_a_table_is_as_wide_with_colours_as_without() -> None:
    plain, coloured = io.StringIO(), io.StringIO()
    for stream, colour in ((plain, False), (coloured, True)):
        Display(stream, colour=colour).table(("A", "B", "C"), [("ok", "failed", "x"), ("degraded", "ok", "y")])
    text = coloured.getvalue()
    for code in ("\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"):
        text = text.replace(code, "")
    assert text == plain.getvalue()
    assert coloured.getvalue() != plain.getvalue()


def test_a_terminal_without_unicode_gets_ascii() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    display = Display(stream)
    display.line(f"{display.branches[0]}é")
    stream.flush()
    assert stream.buffer.getvalue() == b"|- ?\n"


@pytest.mark.parametrize(
    ("seconds", "said"), [(3, "3s"), (119, "119s"), (600, "10m"), (3 * 3600 + 120, "3h2m"), (3 * 86400, "3d0h")]
)
def test_how_long_ago_is_said_as_kubectl_does(seconds: int, said: str) -> None:
    begin = parse_time("2026-01-01T00:00:00Z")
    now = parse_time(f"2026-01-0{1 + seconds // 86400}T{seconds % 86400 // 3600:02}:{seconds % 3600 // 60:02}:00Z")
    assert begin is not None
    assert now is not None
    assert ago("2026-01-01T00:00:00Z", now.replace(second=seconds % 60)) == said
    assert ago(None) == "-"


# -- kubectl as a process


def test_without_kubectl_it_is_said_what_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kubectl_ipmp", "status"],
        env={"KUBECTL": str(tmp_path / "kubectl"), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "put it into the PATH, or name it with $KUBECTL" in done.stderr
    assert "Traceback" not in done.stderr


def test_words_of_a_kubectl_that_fails_are_shown(tmp_path: Path) -> None:
    program = tmp_path / "kubectl"
    program.write_text("#!/bin/sh\necho error: no context edge >&2\nexit 1\n")
    program.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "kubectl_ipmp", "--context", "edge", "status"],
        env={"KUBECTL": str(program)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "kubectl ipmp: error: no context edge" in done.stderr


def test_showing_imports_neither_yaml_nor_the_api() -> None:
    code = (
        "import sys; from kubectl_ipmp import cli, listings, status, explain, maintenance; "
        "print([n for n in ('yaml', 'ipmp_api', 'kubernetes', 'urllib3', 'dataclasses') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
