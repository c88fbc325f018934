"""`ipmpstat`, letter by letter."""

from __future__ import annotations

import json
import socket
import time
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, Any, Self

import pytest

from ipmp_agent.commands import ipmpstat
from ipmp_agent.commands.client import AgentRefusedError, UnreachableError
from ipmp_agent.commands.rows import AddressRow
from ipmp_agent.core.actions import ProbeClosed
from ipmp_agent.core.events import Family
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.words import InterfaceWord, LinkWord, ProbeWord, TargetMode
from ipmp_agent.disk.codec import encode
from ipmp_agent.publication import PastFailover
from tests.unit.agent.building import WALL
from tests.unit.views.pictures import address, failed, interface, prober, publication, standby, view

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ipmp_agent.publication import Publication

V4 = prober(targets=("198.18.0.1", "198.18.0.2"), dead=("198.18.0.3",))
V6 = prober(Family.IPV6, mode=TargetMode.MULTICAST, test_address="fe80::1", targets=())
OFF = prober(mode=TargetMode.DISABLED, test_address=None, targets=())

PICTURE = publication(
    view(
        interface("nic0", flags="--mbM--", probers=(V4, V6)),
        failed("nic1", probers=(V4,)),
        standby("nic2", probe=ProbeWord.UNKNOWN, state=InterfaceWord.UNKNOWN),
        interface(
            "nic3", active=False, usable=False, offline=True, state=InterfaceWord.OFFLINE, link=LinkWord.UNKNOWN,
            probe=ProbeWord.DISABLED, flags="------h", probers=(OFF,),
        ),
        addresses=(
            address("198.18.0.100/24", "nic0"),
            address("2001:db8::100/64", "nic0"),
            address("198.18.0.101/24", None, refusal=Reason.ADDRESS_CONFLICT),
        ),
        history=(
            PastFailover(WALL, "nic0", "nic1", Reason.FAILBACK, (ip_interface("198.18.0.100/24"),), 0.0),
            PastFailover(
                WALL + 60.5,
                "nic1",
                "nic0",
                Reason.PROBES_LOST,
                (ip_interface("198.18.0.100/24"), ip_interface("2001:db8::100/64")),
                duration=0.25,
                first_loss=WALL + 59.25,
            ),
        ),
    ),
    view(
        failed("eth0", Reason.PROBES_LOST, present=False, flags="-----d-"),
        name="storage",
        probing=False,
        addresses=(address("198.18.9.9/32", "eth0"),),
    ),
)  # fmt: skip


class Agent:
    """In place of the connection to an agent."""

    def __init__(self) -> None:
        self.picture: Publication = PICTURE
        self.asked: list[dict[str, Any]] = []
        self.probes: list[dict[str, Any]] = []
        self.fault: Exception | None = None
        self.directory: Path | None = None

    def connect(self, directory: Path) -> Agent:
        self.directory = directory
        if self.fault:
            raise self.fault
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, **request: Any) -> dict[str, Any]:
        self.asked.append(request)
        return {"ok": True, "publication": json.loads(json.dumps(encode(self.picture)))}

    def stream(self, **request: Any) -> Iterator[dict[str, Any]]:
        self.asked.append(request)
        yield from json.loads(json.dumps(self.probes))


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Agent:
    stand_in = Agent()
    monkeypatch.setattr(ipmpstat, "Client", stand_in.connect)
    monkeypatch.setattr(time, "monotonic", lambda: 50.0)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("LINES", raising=False)
    return stand_in


GROUPS = """\
GROUP       GROUPNAME   STATE     FDT       INTERFACES
net         net         degraded  10.00s    nic0 (nic2) [nic1 nic3]
storage     storage     failed    --        [eth0]
"""
INTERFACES = """\
INTERFACE   ACTIVE  GROUP       FLAGS     LINK      PROBE     STATE
nic0        yes     net         --mbM--   up        ok        ok
nic1        no      net         -------   down      failed    failed
nic2        no      net         is-----   up        unknown   unknown
nic3        no      net         ------h   unknown   disabled  offline
eth0        no      storage     -----d-   up        failed    failed
"""
ADDRESSES = """\
ADDRESS                   STATE  GROUP       INBOUND     OUTBOUND
198.18.0.100              up     net         nic0        nic0
2001:db8::100             up     net         nic0        nic0
198.18.0.101              down   net         --          --
198.18.9.9                up     storage     eth0        --
"""
TARGETS = """\
INTERFACE   MODE      TESTADDR            TARGETS
nic0        routes    198.18.0.11         198.18.0.1 198.18.0.2
nic0        multicast fe80::1             --
nic1        routes    198.18.0.11         198.18.0.1 198.18.0.2
nic2        disabled  --                  --
nic3        disabled  --                  --
eth0        disabled  --                  --
"""
PAST = (
    "2023-11-14T22\\:14\\:20.250Z:2023-11-14T22\\:14\\:19.250Z:250.00ms:198.18.0.100 2001\\:db8\\:\\:100\n"
    "2023-11-14T22\\:13\\:20.000Z:::198.18.0.100\n"
)
HISTORY = """\
TIME                     GROUP    REASON      FROM    TO      OUTAGE     ADDRS
2023-11-14T22:14:20.500Z net      ProbesLost  nic1    nic0    1250.00ms  2
2023-11-14T22:13:20.000Z net      Failback    nic0    nic1    --         1
"""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-g"], GROUPS),
        (["-H"], HISTORY),
        (
            ["-HnP", "-o", "decided,firstloss,move,addresses"],
            PAST,
        ),
        (["-i"], INTERFACES),
        (["-an"], ADDRESSES),
        (["-tn"], TARGETS),
        (["-g", "-o", "state,group"], "STATE     GROUP\ndegraded  net\nfailed    storage\n"),
        (["-g", "-o", "all"], GROUPS),
        (["-P", "-g", "-o", "GROUP,FDT,INTERFACES"], "net:10.00s:nic0 (nic2) [nic1 nic3]\nstorage::[eth0]\n"),
        (
            ["-n", "-P", "-a", "-o", "address,inbound"],
            "198.18.0.100:nic0\n2001\\:db8\\:\\:100:nic0\n198.18.0.101:\n198.18.9.9:eth0\n",
        ),
        (["-P", "-n", "-a", "-o", "address"], "198.18.0.100\n2001:db8::100\n198.18.0.101\n198.18.9.9\n"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_output(agent: Agent, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str) -> None:
    assert ipmpstat.main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out == expected
    assert captured.err == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "one of -a, -g, -H, -i, -p and -t is needed"),
        (["-a", "-g"], "only one of"),
        (["-gi"], "only one of"),
        (["-g", "-P"], "-P needs -o"),
        (["-g", "-P", "-o", "all"], "all"),
        (["-g", "-P", "-o", "group,nonsense"], '"nonsense"'),
        (["-g", "-o", "nonsense"], "no valid output field"),
        (["-g", "--json", "-P", "-o", "group"], "--json has all fields"),
        (["-x"], "unrecognized arguments"),
    ],
)
def test_wrong_options_end_with_1_and_say_why(
    agent: Agent, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    try:
        code = ipmpstat.main(arguments)
    except SystemExit as ended:
        code = ended.code  # type: ignore[assignment]
    assert code == 1
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_unknown_field_is_left_out_with_a_warning(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    assert ipmpstat.main(["-g", "-o", "group,mood"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "GROUP\nnet\nstorage\n"
    assert captured.err == (
        'ipmpstat: warning: unknown output field "mood"; there is: group, groupname, state, fdt, interfaces\n'
    )


@pytest.mark.parametrize("fault", [UnreachableError("is IPMP in use on this node?"), AgentRefusedError("no")])
def test_agent_that_does_not_answer_ends_with_1(
    agent: Agent, capsys: pytest.CaptureFixture[str], fault: Exception
) -> None:
    agent.fault = fault
    assert ipmpstat.main(["-g"]) == 1
    assert capsys.readouterr().err == f"ipmpstat: {fault}\n"


def test_agent_of_another_version_is_named(
    agent: Agent, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "ask", lambda **_: {"publication": {"groups": [{}]}})
    assert ipmpstat.main(["-g"]) == 1
    assert "use the ipmpstat that came with it" in capsys.readouterr().err


def test_header_repeats_with_every_screenful(
    agent: Agent, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINES", "4")
    assert ipmpstat.main(["-i", "-o", "interface"]) == 0
    assert capsys.readouterr().out.split() == ["INTERFACE", "nic0", "nic1", "nic2", "INTERFACE", "nic3", "eth0"]


def test_terminal_of_unknown_height_has_24_lines(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.picture = publication(view(*(interface(f"nic{n}") for n in range(30))))
    assert ipmpstat.main(["-i", "-o", "interface"]) == 0
    lines = capsys.readouterr().out.split()
    assert [n for n, line in enumerate(lines) if line == "INTERFACE"] == [0, 24]


def test_no_groups_is_no_output(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.picture = publication()
    for mode in ("-g", "-i", "-a", "-t"):
        assert ipmpstat.main([mode]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("arguments", "live"), [(["-g"], True), (["-g", "-L"], False)])
def test_fresh_state_is_asked_for_unless_the_latest_will_do(agent: Agent, arguments: list[str], live: bool) -> None:
    ipmpstat.main(arguments)
    assert agent.asked == [{"op": "snapshot", "live": live}]


def test_runtime_directory_comes_from_option_environment_or_default(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IPMP_RUNTIME_DIR", raising=False)
    ipmpstat.main(["-g"])
    assert str(agent.directory) == "/run/ipmp"
    monkeypatch.setenv("IPMP_RUNTIME_DIR", "/run/other")
    ipmpstat.main(["-g"])
    assert str(agent.directory) == "/run/other"
    ipmpstat.main(["-g", "--runtime-dir", "/run/mine"])
    assert str(agent.directory) == "/run/mine"


def test_names_are_shown_where_there_are_any(
    agent: Agent, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def name_of(sockaddr: tuple[str, int], _: int) -> tuple[str, str]:
        if sockaddr[0] == "198.18.0.100":
            return "www.example", "0"
        raise OSError("no name")

    monkeypatch.setattr(socket, "getnameinfo", name_of)
    assert ipmpstat.main(["-a", "-o", "address"]) == 0
    assert capsys.readouterr().out.split()[1:3] == ["www.example", "2001:db8::100"]


def test_json_rows(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    def rows(mode: str) -> Any:
        assert ipmpstat.main([mode, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert rows("-g")[0] == {
        "group": "net",
        "state": "degraded",
        "failureDetectionTimeSeconds": 10.0,
        "active": ["nic0"],
        "inactive": ["nic2"],
        "unusable": ["nic1", "nic3"],
    }
    assert rows("-g")[1]["failureDetectionTimeSeconds"] is None
    assert rows("-i")[1] == {
        "interface": "nic1",
        "active": False,
        "group": "net",
        "flags": "-------",
        "link": "down",
        "probe": "failed",
        "state": "failed",
        "reason": "LinkDown",
    }
    assert rows("-a")[2] == {
        "address": "198.18.0.101/24",
        "state": "down",
        "group": "net",
        "inbound": None,
        "outbound": [],
    }
    assert rows("-t")[0] == {
        "interface": "nic0",
        "mode": "routes",
        "protocol": "icmp",
        "testAddress": "198.18.0.11",
        "targets": ["198.18.0.1", "198.18.0.2"],
    }


def test_history_says_what_moved_where_when_and_why(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    assert ipmpstat.main(["-H", "--json"]) == 0
    last, first = json.loads(capsys.readouterr().out)
    assert last == {
        "group": "net",
        "reason": "ProbesLost",
        "from": "nic1",
        "to": "nic0",
        "firstLoss": "2023-11-14T22:14:19.250Z",
        "decided": "2023-11-14T22:14:20.250Z",
        "announced": "2023-11-14T22:14:20.500Z",
        "outageSeconds": 1.25,
        "moveSeconds": 0.25,
        "addresses": ["198.18.0.100/24", "2001:db8::100/64"],
    }
    assert (first["firstLoss"], first["outageSeconds"]) == (None, None), "nothing had failed"


def test_json_alone_is_the_status_of_kubernetes(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    assert ipmpstat.main(["--json"]) == 0
    groups = json.loads(capsys.readouterr().out)["groups"]
    assert [group["group"] for group in groups] == ["net", "storage"]
    assert groups[0]["interfaces"][1]["reason"] == "LinkDown"
    assert groups[0]["conditions"][1]["type"] == "Ready"
    assert "lastTransitionTime" not in groups[0]["conditions"][1]


def row(number: int, rtt: float | None, sent_at: float) -> dict[str, Any]:
    probe = ProbeClosed(
        "0000:3b:00.1", Family.IPV4, ip_address("198.18.0.1"), number, sent_at,
        rtt, None if rtt is None else rtt / 2, 0.00125 if rtt else 0.0, 0.0005 if rtt else 0.0,
    )  # fmt: skip
    return {"group": "net", "interface": "nic0", "probe": encode(probe)}


PROBES = """\
TIME      INTERFACE   PROBE  NETRTT    RTT       RTTAVG    TARGET
0.11s     nic0        7      0.60ms    1.20ms    1.25ms    198.18.0.1
-0.50s    nic0        6      --        --        --        198.18.0.1
"""


def test_probes_are_shown_as_they_come_until_the_agent_ends(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.probes = [row(7, 0.0012, 50.11), row(6, None, 49.5)]
    assert ipmpstat.main(["-pn"]) == 1
    captured = capsys.readouterr()
    assert captured.out == PROBES
    assert captured.err == "ipmpstat: the agent has ended\n"
    assert agent.asked[-1] == {"op": "probes"}


def test_probes_for_programs_and_as_json(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.probes = [row(7, 0.0012, 50.11)]
    ipmpstat.main(["-p", "-n", "-P", "-o", "probe,target,rttdev"])
    assert capsys.readouterr().out == "7:198.18.0.1:0.50ms\n"
    ipmpstat.main(["-p", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found.pop("timeSeconds") == pytest.approx(0.11)
    assert found == {
        "interface": "nic0",
        "probe": 7,
        "networkRoundTripSeconds": 0.0006,
        "roundTripSeconds": 0.0012,
        "averageSeconds": 0.00125,
        "deviationSeconds": 0.0005,
        "target": "198.18.0.1",
    }


def test_probes_of_a_node_that_does_not_probe_end_at_once(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.picture = publication(view(interface("nic0"), probing=False))
    assert ipmpstat.main(["-p"]) == 1
    assert "no interface is probed" in capsys.readouterr().err


def test_address_that_is_on_no_interface_is_down_though_nobody_refused_it() -> None:
    waiting = address("198.18.0.102/24", None)
    assert AddressRow(view(interface("nic0"), addresses=(waiting,)), waiting).state == "down"
