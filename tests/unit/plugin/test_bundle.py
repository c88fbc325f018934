"""The support bundle: what is in it, what is not, and a part that fails."""

from __future__ import annotations

import copy
import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from kubectl_ipmp import bundle
from kubectl_ipmp.kubectl import KubectlError
from tests.unit.plugin.world import World, healthy

if TYPE_CHECKING:
    from pathlib import Path

POD: dict[str, Any] = {
    "metadata": {"name": "ipmp-agent-x", "managedFields": [{"manager": "jane"}]},
    "spec": {
        "nodeName": "n1",
        "containers": [
            {
                "name": "agent",
                "command": ["ipmp-agent", "run"],
                "env": [
                    {"name": "HTTPS_PROXY", "value": "http://jane:hunter2@proxy:3128"},
                    {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                ],
            }
        ],
    },
    "status": {"phase": "Running", "containerStatuses": [{"name": "agent", "restartCount": 1}]},
}
LOG = "user jane.doe@example.org Authorization: Bearer abcdef token=s3cret http://jane:hunter2@proxy/ link down"


class Cluster(World):
    """Also pods, logs and what agents' containers print."""

    broken = ""
    pod: Any = None

    def answer(self, given: tuple[str, ...]) -> str:
        words = " ".join(given)
        if self.broken and self.broken in words:
            raise KubectlError(f"Error: {self.broken} is broken")
        if "exec" in given:
            return f"{' '.join(given[given.index('--') + 1 :])} on {given[given.index('exec') + 1]}\n"
        if "logs" in given:
            return LOG
        if "get" in given and "--raw" not in given:
            return json.dumps({"items": [self.pod or POD] if "pods" in given else []})
        if given[0] == "version":
            return '{"clientVersion": {"gitVersion": "v1"}, "serverVersion": {"gitVersion": "v2"}}'
        if "--raw" in given and "ipmp.dev" not in words and "events" not in words:
            return '{"items": []}'
        return super().answer(given)

    def _read(self, path: str) -> Any:
        return {"items": self.events} if path.endswith("/events") else super()._read(path)


def cluster() -> Cluster:
    made = Cluster()
    made.objects = [each for each in healthy().objects if each["metadata"]["name"] != "front.n2"]
    return made


def members(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        found = {}
        for each in archive.getmembers():
            file = archive.extractfile(each)
            assert file is not None
            found[each.name] = file.read().decode()
    return {name.partition("/")[2]: text for name, text in found.items()}


def test_all_is_in_it_and_nothing_secret(tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    assert cluster().run("bundle", "--file", str(path)) == 0
    found = members(path)
    assert json.loads(found["failed.json"]) == {}
    assert set(bundle.ON_NODE) == {name.split("/")[2] for name in found if name.startswith("nodes/")}
    assert found["nodes/n1/nft.txt"] == "nft list ruleset on ipmp-agent-x\n"
    assert "link down" in found["logs/ipmp-agent-x.agent.log"]
    assert "logs/ipmp-agent-x.agent.previous.log" in found
    whole = "".join(found.values())
    for secret in ("hunter2", "jane", "abcdef", "s3cret", "someone@example.org", "managedFields"):
        assert secret not in whole, secret
    assert all(json.loads(text) is not None for name, text in found.items() if name.startswith(("objects", "ipmp-")))


@pytest.mark.parametrize("broken", ["nft", "logs", "version", "ipmpnodegroups", "get pods", "exec"])
def test_part_that_fails_is_named_and_the_others_are_there(
    broken: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = cluster()
    made.broken = broken
    path = tmp_path / "b.tar.gz"
    assert made.run("bundle", "--file", str(path)) == 1
    found = members(path)
    failed = json.loads(found["failed.json"])
    assert failed
    assert all(broken.split(maxsplit=1)[0] in why or "broken" in why for why in failed.values())
    assert "objects/ipmpgroups.json" in found
    out = capsys.readouterr().out
    assert all(f"not in it: {part}" in out for part in failed)
    assert "NOT HERE" in found["README.txt"]


def test_node_without_an_agent_is_named(tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    assert cluster().run("bundle", "--node", "n9", "--file", str(path)) == 1
    assert "nodes/n9" in json.loads(members(path)["failed.json"])


def test_file_that_is_there_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "b.tar.gz"
    path.write_text("mine")
    assert cluster().run("bundle", "--file", str(path)) == 1
    assert "is there already" in capsys.readouterr().err
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    "text",
    [
        '{"automountServiceAccountToken": false}',
        '{"token": null, "tokens": [1]}',
        "eth0: <BROADCAST,UP> mtu 1500 link/ether 52:54:00:12:34:56",
        "default via 198.18.0.1 dev eth0 proto static metric 100",
        "http://198.18.0.1:8080/healthz",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert bundle.redact(text) == text


# -- record


def test_recording_is_fetched_from_where_the_agent_writes_it(tmp_path: Path) -> None:
    made = cluster()
    made.pod = copy.deepcopy(POD)
    made.pod["spec"]["containers"][0]["command"].append("--record=/var/lib/ipmp/recording.jsonl")
    path = tmp_path / "r.jsonl"
    assert made.run("record", "n1", "--file", str(path)) == 0
    assert path.read_text(encoding="utf-8") == "cat /var/lib/ipmp/recording.jsonl on ipmp-agent-x\n"
    older = tmp_path / "r.jsonl.1"
    assert older.read_text(encoding="utf-8") == "cat /var/lib/ipmp/recording.jsonl.1 on ipmp-agent-x\n"


def test_recording_whose_first_file_is_not_full_is_one_file(tmp_path: Path) -> None:
    made = cluster()
    made.pod = copy.deepcopy(POD)
    made.pod["spec"]["containers"][0]["command"].append("--record=/r")
    made.broken = "/r.1"
    assert made.run("record", "n1", "--file", str(tmp_path / "r")) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_where_nothing_is_recorded_it_is_said_how_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert cluster().run("record", "n1") == 1
    assert "--set agent.record.enabled=true" in capsys.readouterr().err
