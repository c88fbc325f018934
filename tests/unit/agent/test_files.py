"""Manifests: what is wrong is named by file and field, and a reload that fails changes nothing."""

from __future__ import annotations

import io
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipmp_agent.commands.ipmp_agent import main
from ipmp_agent.disk.state import SavedState
from ipmp_agent.process.files import FileSource, read
from ipmp_service.command import BadInputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ipmp_api.types import NodeGroup

GROUP = """\
apiVersion: ipmp.dev/v1alpha1
kind: IPMPGroup
metadata: {{name: {name}}}
spec:
  interfaces: [{{name: {first}}}, {{name: {second}}}]
  dataAddresses: {{assigned: [{{nodeName: node1, addresses: [198.18.0.{last}/24]}}]}}
"""


HOSTILE = (
    *(
        f"kind: IPMPGroup\na: {scalar}\n"
        for scalar in ("0x_", "9" * 5000, "!!int x", "!!float x", "!!bool x", '"\\ud800"')
    ),
    *(f"a: !!timestamp {text}\n" for text in ("x", "2001-99-99", "2001-01-01T99:00:00Z")),
    "[" * 5000,
    "{a: " * 3000,
    "\ud800",
    "\0",
    "kind: IPMPGroup\nspec: &a {a: *a}\n",
    "kind: IPMPGroup\nspec: " + "{a: " * 60 + "1" + "}" * 60,
    "kind: List\nitems: [5]\n",
    "kind: List\nitems: [{kind: IPMPGroup}, {kind: ConfigMap}]\n",
    "kind: 5\n",
    "kind: {a: b}\n",
    "kind: .nan\nspec: .inf\nmetadata: -.inf\n",
)


def group_text(name: str = "lab", first: str = "nic0", second: str = "nic1") -> str:
    """An address of its own for each group of one letter, which two groups cannot share."""
    return GROUP.format(name=name, first=first, second=second, last=100 + (ord(name) if len(name) == 1 else 0))


def problems(*paths: Path) -> tuple[str, ...]:
    with pytest.raises(BadInputError) as caught:
        read(paths, "node1")
    return caught.value.problems


def test_groups_of_files_and_directories_are_compiled(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(group_text("a") + "---\n" + group_text("b", "x0", "x1"))
    directory = tmp_path / "d"
    directory.mkdir()
    (directory / "c.yml").write_text(group_text("c", "y0", "y1"))
    (directory / "notes.txt").write_text("{")
    found = read((tmp_path / "one.yaml", directory), "node1")
    assert [g.group_name for g in found] == ["a", "b", "c"]
    assert [str(a.address) for a in found[0].data_addresses] == ["198.18.0.197/24"]


def test_every_wrong_field_is_named_with_its_file_and_document(tmp_path: Path) -> None:
    path = tmp_path / "group.yaml"
    text = group_text().replace("nic1", "nic1, role: Primary").replace("spec:", "spec:\n  failback: Never")
    path.write_text(group_text("ok") + "---\n" + text)
    found = problems(path)
    assert len(found) == 2
    assert all(line.startswith(f"{path}:8: spec.") for line in found)
    assert any("spec.failback" in line and '"Never"' in line for line in found)
    assert any("spec.interfaces[1].role" in line and '"Primary"' in line for line in found)


def test_what_is_no_yaml_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "group.yaml"
    path.write_text(group_text() + "  : [\n")
    (line,) = problems(path)
    assert line.startswith(f"{path}: line ")


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    (tmp_path / "bare").mkdir()
    found = problems(tmp_path / "no.yaml", tmp_path / "empty.yaml", tmp_path / "bare")
    assert found == (
        f"{tmp_path / 'bare'}: no manifests here (*.yaml, *.yml, *.json)",
        f"{tmp_path / 'no.yaml'}: No such file or directory",
        f"{tmp_path / 'empty.yaml'}: holds no manifest; a List whose items are [] says that there is no group",
    ) or set(found) == {
        f"{tmp_path / 'bare'}: no manifests here (*.yaml, *.yml, *.json)",
        f"{tmp_path / 'no.yaml'}: No such file or directory",
        f"{tmp_path / 'empty.yaml'}: holds no manifest; a List whose items are [] says that there is no group",
    }


def test_last_group_of_a_file_is_taken_away_by_an_empty_list_and_by_nothing_less(tmp_path: Path) -> None:
    path = tmp_path / "group.yaml"
    path.write_text(group_text())
    source = FileSource((path,), "node1")
    handed: list[tuple[NodeGroup, ...]] = []
    source.start(handed.append, SavedState())
    path.write_text("# somebody's editor failed\n")
    source.reload()
    assert len(handed) == 1
    path.write_text("apiVersion: v1\nkind: List\nitems: []\n")
    source.reload()
    assert handed[1:] == [()]


def test_same_group_twice_and_same_interface_twice_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(group_text("a"))
    (tmp_path / "b.yaml").write_text(group_text("b", "nic1", "nic2"))
    (tmp_path / "c.yaml").write_text(group_text("a", "z0", "z1"))
    found = problems(tmp_path)
    assert found == (
        f"{tmp_path / 'b.yaml'}:1: spec.interfaces[0]: Duplicate value: 'nic1': is already in group a",
        f"{tmp_path / 'c.yaml'}:1: metadata.name: Duplicate value: 'a': also at {tmp_path / 'a.yaml'}:1",
    )


def test_reload_hands_over_the_new_and_keeps_the_old_when_it_is_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "group.yaml"
    path.write_text(group_text())
    source = FileSource((path,), "node1")
    handed: list[tuple[NodeGroup, ...]] = []
    source.start(handed.append, SavedState())
    path.write_text(group_text().replace("nic1", ""))
    source.reload()
    assert len(handed) == 1
    assert "not reloaded" in caplog.text
    assert "spec.interfaces[1]" in caplog.text
    path.write_text(group_text("lab", "nic0", "nic2"))
    source.reload()
    assert [m.key for m in handed[1][0].members] == ["nic0", "nic2"]


def test_of_two_reloads_at_once_the_later_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "group.yaml"
    path.write_text(group_text())
    source = FileSource((path,), "node1")
    handed: list[tuple[NodeGroup, ...]] = []
    source.start(handed.append, SavedState())
    has_read, go_on, slowly = threading.Event(), threading.Event(), [True]

    def slow(*arguments: Any) -> tuple[NodeGroup, ...]:
        found = read(*arguments)
        if slowly:
            slowly.clear()
            has_read.set()
            assert go_on.wait(10)
        return found

    monkeypatch.setattr("ipmp_agent.process.files.read", slow)
    reloads = [threading.Thread(target=source.reload) for _ in range(2)]
    reloads[0].start()
    assert has_read.wait(10)
    path.write_text(group_text("lab", "nic0", "nic2"))
    reloads[1].start()
    reloads[1].join(0.1)  # it may wait for the first one
    go_on.set()
    for reload in reloads:
        reload.join(10)
    assert [m.key for m in handed[-1][0].members] == ["nic0", "nic2"]


def test_check_says_ok_or_every_fault_and_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "group.yaml"
    path.write_text(group_text())
    assert main(["check", "--file", str(path), "--node-name", "node1"]) == 0
    assert capsys.readouterr().out == "lab: 2 interfaces, 1 data addresses on node1: ok\n"
    path.write_text(group_text().replace("198.18.0.100/24", "198.18.0.300/24"))
    assert main(["check", "--file", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"ipmp-agent: {path}:1: spec.dataAddresses.assigned[0].addresses[0]: Invalid value:")


def test_run_refuses_a_wrong_manifest_with_the_same_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "group.yaml"
    path.write_text(group_text().replace("nic1", ""))
    assert main(["check", "--file", str(path)]) == 2
    words = capsys.readouterr().err
    assert main(["run", "--file", str(path), "--node-name", "n", "--state-dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err == words


def test_whatever_a_file_holds_check_ends_with_words_and_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "group.yaml"
    for text in HOSTILE:
        path.write_bytes(text.encode(errors="surrogatepass"))
        assert main(["check", "--file", str(path)]) == 2, text[:80]
        captured = capsys.readouterr()
        assert captured.out == ""
        assert all(line.startswith(f"ipmp-agent: {path}:") for line in captured.err.splitlines()), text[:80]


def test_a_reload_of_anything_changes_nothing_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "group.yaml"
    path.write_text(group_text())
    source = FileSource((path,), "node1")
    handed: list[tuple[NodeGroup, ...]] = []
    source.start(handed.append, SavedState())
    for text in HOSTILE:
        path.write_bytes(text.encode(errors="surrogatepass"))
        caplog.clear()
        source.reload()
        assert "not reloaded" in caplog.text
    assert len(handed) == 1


def test_a_directory_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert problems(tmp_path) == (f"{tmp_path}: Permission denied",)


def test_check_reads_standard_input_and_run_does_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(group_text().encode())))
    assert main(["check", "--file", "-", "--node-name", "node1"]) == 0
    assert capsys.readouterr().out == "lab: 2 interfaces, 1 data addresses on node1: ok\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"[")))
    assert main(["check", "--file", "-"]) == 2
    assert capsys.readouterr().err.startswith("ipmp-agent: -: line 1")
    assert main(["run", "--file", "-", "--node-name", "node1"]) == 2
    assert "name a file" in capsys.readouterr().err


def test_the_name_of_a_node_is_lower_case_and_what_is_none_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "group.yaml"
    path.write_text(group_text())
    assert main(["check", "--file", str(path), "--node-name", "NODE1"]) == 0
    assert capsys.readouterr().out == "lab: 2 interfaces, 1 data addresses on node1: ok\n"
    monkeypatch.setenv("NODE_NAME", "Node1")
    assert main(["check", "--file", str(path)]) == 0
    assert capsys.readouterr().out == "lab: 2 interfaces, 1 data addresses on node1: ok\n"
    for name in ("node_1", "-a", ".", "a" * 300, "ä"):
        for command in ("check", "run"):
            with pytest.raises(SystemExit) as ended:
                main([command, "--file", str(path), f"--node-name={name}"])
            assert ended.value.code == 2
            assert "is not the name of a node" in capsys.readouterr().err


def test_a_file_that_assigns_addresses_to_others_only_is_said_to(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NODE_NAME", raising=False)
    path = tmp_path / "group.yaml"
    path.write_text(group_text())
    assert main(["check", "--file", str(path), "--node-name", "other"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "lab: 2 interfaces, 0 data addresses on other: ok\n"
    assert captured.err.startswith(f"ipmp-agent: {path}:1: group lab assigns addresses to node1 and none to other: ")
    assert main(["check", "--file", str(path)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("lab: 2 interfaces, 0 data addresses for no node in particular")
    assert captured.err == ""
    read((path,), "other")
    assert "none to other" in caplog.text


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("198.18.0.0/24", "network address"),
        ("198.18.0.255/24", "broadcast address"),
        ("198.18.0.0/30", "network address"),
        ("198.18.0.3/30", "broadcast address"),
        ("2001:db8::/64", "subnet-router anycast address"),
        ("2001:db8::4/126", "subnet-router anycast address"),
        ("198.18.0.0/31", None),
        ("198.18.0.1/31", None),
        ("198.18.0.0/32", None),
        ("198.18.0.255", None),
        ("198.18.0.255/23", None),
        ("2001:db8::/127", None),
        ("2001:db8::/128", None),
        ("2001:db8::", None),
        ("2001:db8::ffff:ffff:ffff:ffff/64", None),
    ],
)
def test_no_address_is_assigned_that_no_host_answers_for(tmp_path: Path, address: str, what: str | None) -> None:
    path = tmp_path / "group.yaml"
    path.write_text(group_text().replace("198.18.0.100/24", f"'{address}'"))
    if what is None:
        (group,) = read((path,), "node1")
        assert len(group.data_addresses) == 1
    else:
        (problem,) = problems(path)
        assert f"is the {what} of its prefix" in problem


def test_one_address_in_two_groups_is_a_conflict_of_the_second(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(group_text("a"))
    (tmp_path / "b.yaml").write_text(group_text("b", "z0", "z1").replace("198.18.0.198/24", "198.18.0.197/32"))
    (found,) = problems(tmp_path)
    where = f"{tmp_path / 'b.yaml'}:1: spec.dataAddresses"
    assert found == f"{where}: Duplicate value: '198.18.0.197': AddressConflict: group a has it already"
