"""What the command lines have in common."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from ipmp_service import command


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9478", ("127.0.0.1", 9478)),
        ("[::1]:0", ("::1", 0)),
        ("[::]:9090", ("::", 9090)),
        (":9478", ("", 9478)),
        ("h:65535", ("h", 65535)),
    ],
)
def test_address_is_read(text: str, expected: tuple[str, int]) -> None:
    assert command.address(text) == expected


@pytest.mark.parametrize(
    "text", ["9478", "h:99999", "::1:9090", "[::1", "h:", "[h]:1", "a:b:1", "h:-1", "h:\u0663", ""]
)
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"is not HOST:PORT, such as .* or \[::1\]:"):
        command.address(text)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon", ""])
def test_what_is_no_time_is_refused(text: str) -> None:
    assert command.seconds("0.5") == 0.5
    with pytest.raises(argparse.ArgumentTypeError, match="no positive number of seconds"):
        command.seconds(text)


def test_wrong_option_ends_with_2_and_one_line_of_reason(capsys: pytest.CaptureFixture[str]) -> None:
    parser = command.Parser(prog="program")
    command.add_log_options(parser)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--log-level", "loud"])
    assert ended.value.code == command.EXIT_BAD_INPUT
    first, second = capsys.readouterr().err.splitlines()
    assert "invalid choice: 'loud'" in first
    assert second == "Try 'program --help'."


@pytest.mark.parametrize(
    ("module", "arguments", "package", "extra"),
    [
        (
            "ipmp_agent.commands.ipmp_agent",
            ["run", "--file", "x.yaml", "--node-name", "a"],
            "prometheus_client",
            "agent",
        ),
        ("ipmp_agent.commands.ipmp_agent", ["run", "--node-name", "a"], "urllib3", "agent"),
        ("ipmp_operator.cli", ["run", "--namespace", "x", "--daemonset-template", "x.yaml"], "kopf", "operator"),
    ],
)
def test_program_without_its_extra_says_how_to_install_it(
    module: str, arguments: list[str], package: str, extra: str
) -> None:
    program = f"import sys; sys.modules[{package!r}] = None; from {module} import main; sys.exit(main({arguments!r}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == command.EXIT_BAD_INPUT
    assert done.stderr.endswith(f": the Python package {package} is not installed: pip install 'ipmp[{extra}]'\n")
    assert "Traceback" not in done.stderr


def test_missing_part_of_our_own_is_a_fault_and_no_advice() -> None:
    with pytest.raises(ModuleNotFoundError), command.packages_of("agent"):
        raise ModuleNotFoundError("gone", name="ipmp_agent.gone")
