import json
from pathlib import Path

import pytest

from ipmp_agent.simulate.__main__ import main

GROUP = """\
apiVersion: ipmp.dev/v1alpha1
kind: IPMPGroup
metadata:
  name: storage
spec:
  interfaces:
    - name: nic0
    - macAddress: 52:54:00:12:34:56
  dataAddresses:
    assigned:
      - {nodeName: node7, addresses: [198.18.0.100/24]}
  testAddresses:
    ipv6: Disabled
  probes:
    targets:
      addresses: [198.18.0.1]
"""
FAULTS = """\
kind: FaultScript
seed: 1
duration: 20
network:
  targets:
    198.18.0.1: 1
faults:
- {at: 5, silent: nic0, on: true}
- {at: 10, cable: 52:54:00:12:34:56, up: false}
"""
EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    group, faults = tmp_path / "group.yaml", tmp_path / "faults.yaml"
    group.write_text(GROUP)
    faults.write_text(FAULTS)
    return [group, faults]


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_json_is_one_object_a_line_with_the_fields_that_programs_rely_on(
    files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*files, "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = {tuple(line) for line in lines}
    assert kinds == {
        ("at", "interface", "state", "active", "reason"),
        ("at", "address", "interface"),
        ("at", "group", "state", "failureDetectionTimeMilliseconds"),
    }
    assert {line["interface"] for line in lines if "state" in line and "interface" in line} == {
        "nic0",
        "52:54:00:12:34:56",
    }
    assert all(line["at"] == round(line["at"], 6) for line in lines)
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)


def test_the_timeline_for_people_tells_faults_changes_and_what_the_log_says_and_ends_with_tables(
    files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*files) == 0
    out = capsys.readouterr().out
    assert "      5.000 ==> frames of nic0 vanish, its link stays up" in out
    assert "error: failure of nic0 detected" in out
    assert "198.18.0.100 nic0 -> 52:54:00:12:34:56" in out
    rows = {row[0]: row[1:] for line in out.splitlines() if (row := line.split())}
    assert rows["nic0"][:2] == ["1", "0"]
    moved, dead, _, stranded = rows["198.18.0.100"][:4]
    assert moved == "2"  # and back to the one that has a link, when the other has none
    assert float(dead) == 10  # both are dead from then on
    assert 0.5 < float(stranded) <= 1


def test_the_same_files_give_the_same_bytes(files: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for order in (files, files[::-1]):
        assert run(*order) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


def test_all_documents_may_be_in_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = tmp_path / "whole.yaml"
    whole.write_text(f"---\n{FAULTS}---\n{GROUP}---\n")
    assert run(whole) == 0
    assert "on node node7" in capsys.readouterr().out


def test_the_key_on_is_no_boolean(files: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    files[1].write_text(FAULTS.replace("- {at: 5, silent: nic0, on: true}", "- at: 5\n  silent: nic0\n  on: on\n"))
    assert run(*files) == 0
    assert "frames of nic0 vanish" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("group", "faults", "words"),
    [
        (GROUP, FAULTS.replace("silent: nic0", "silent: nic5"), "faults.yaml:1: faults[0].silent: Invalid value"),
        (GROUP, "kind: FaultScript\nduration: 1\nduration: 2\n", 'faults.yaml:3: key "duration" already set'),
        (GROUP, "kind: [", "faults.yaml:1: expected the node content"),
        (GROUP, "- 1", "faults.yaml:1: a document must be an object"),
        (GROUP, "", "exactly one document of kind FaultScript is needed, found 0"),
        (GROUP, f"{FAULTS}---\n{FAULTS}", "exactly one document of kind FaultScript is needed, found 2"),
        (FAULTS, "kind: Pod", "exactly one document of kind IPMPGroup"),
        (GROUP.replace("name: nic0", "nmae: nic0"), FAULTS, 'group.yaml:1: unknown field "spec.interfaces[0].nmae"'),
        (f"# a group\n---\n{GROUP}  on: 1\n", FAULTS, "group.yaml: line 19, column 3: key True is not a string"),
        (f"# a group\n\n{GROUP}".replace("198.18.0.1]", "198.18.0.300]"), FAULTS, "group.yaml:3: spec.probes.targets"),
    ],
)
def test_bad_input_ends_with_status_2_and_the_field(
    files: list[Path], group: str, faults: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for file, text in zip(files, (group, faults), strict=True):
        file.write_text(text)
    assert run(*files) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert not captured.out


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "nothing.yaml") == 2
    assert "nothing.yaml: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["a.yaml", "--replay", "b"]])
def test_files_and_a_recording_exclude_each_other(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "--replay" in capsys.readouterr().err


def test_help_shows_a_script_that_works(files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    example = shown[shown.index("  kind: FaultScript") : shown.index("\n\n  python -m")]
    script = tmp_path / "help.yaml"
    script.write_text(example)
    assert run(files[0], script) == 0


@pytest.mark.parametrize("script", sorted((EXAMPLES / "simulations").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_examples_do_as_their_first_lines_say(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = next(line for line in script.read_text().splitlines() if "python -m ipmp_agent.simulate" in line)
    named = command.partition("ipmp_agent.simulate ")[2].split()
    assert run(*(EXAMPLES.parent / name for name in named)) == 0
    assert "==> the end" in capsys.readouterr().out
