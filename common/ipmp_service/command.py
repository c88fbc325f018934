"""What the command lines of our programs have in common."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import math
import re
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EXIT_FAULT = 1
"""Something failed at run time: starting again may help."""
EXIT_BAD_INPUT = 2
"""Wrong options or files: starting again does not help."""


class BadInputError(Exception):
    """Options or files that cannot be used; `problems` has a line for every one."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@contextlib.contextmanager
def packages_of(extra: str, *later: str) -> Iterator[None]:
    """Imports of what an extra of our package brings. Raises BadInputError, which says how to install it.

    Args:
        extra: its name.
        later: packages of it that are not imported yet, and will be.
    """
    try:
        yield
        package = next((name for name in later if importlib.util.find_spec(name) is None), "")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package.startswith("ipmp_"):
            raise
    if package:
        raise BadInputError((f"the Python package {package} is not installed: pip install 'ipmp[{extra}]'",))


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, and where to read on."""

    def error(self, message: str) -> NoReturn:
        """End with EXIT_BAD_INPUT."""
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: {message}\nTry '{self.prog} --help'.\n")


def address(text: str) -> tuple[str, int]:
    """HOST:PORT; an IPv6 host is in brackets, and no host means every IPv4 address. Raises ArgumentTypeError."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*):([0-9]{1,5})", text)
    if match is None or int(match[2]) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080")
    return match[1].strip("[]"), int(match[2])


def seconds(text: str) -> float:
    """A positive number of seconds. Raises ArgumentTypeError."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number of seconds")
    return number


def add_log_options(parser: argparse.ArgumentParser) -> None:
    """--log-format and --log-level, as `logs.Log` takes them."""
    parser.add_argument("--log-format", choices=("text", "json"), default="text", help="(default: %(default)s)")
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info", help="(default: %(default)s)"
    )
