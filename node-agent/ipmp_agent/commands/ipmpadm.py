"""`ipmpadm`: take an interface of a group out of use for maintenance, and give it back."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import ipmp_agent
from ipmp_agent.commands.client import AgentRefusedError, Client, ClientParser, UnreachableError, runtime_directory

if TYPE_CHECKING:
    from collections.abc import Sequence

EPILOG = """\
An interface goes offline only while another one of its group works: its data addresses move there at once. It stays
offline over restarts of the agent, until it is brought online again.
Exit status: 0, or 1 when it was refused (the message says why), for a wrong option and when no agent answers.
"""


def _parser() -> argparse.ArgumentParser:
    parser = ClientParser(
        prog="ipmpadm",
        description="Take an interface of an IPMP group out of use, or give it back.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ipmpadm {ipmp_agent.__version__}")
    commands = parser.add_subparsers(dest="operation", required=True, metavar="offline|online")
    for operation, words in (("offline", "take out of use"), ("online", "give back")):
        command = commands.add_parser(operation, help=words, description=words.capitalize() + ".")
        command.add_argument("interface", help="its name, as in ipmpstat -i")
        command.add_argument("--group", help="the group, where several have an interface of this name")
        if operation == "offline":
            command.add_argument(
                "--force", action="store_true", help="also the last one that works: its addresses are lost"
            )
        command.add_argument(
            "--runtime-dir",
            type=Path,
            metavar="DIR",
            help="the agent's runtime directory (default: $IPMP_RUNTIME_DIR, else /run/ipmp)",
        )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        with Client(runtime_directory(options.runtime_dir)) as client:
            answer = client.ask(
                op=options.operation,
                interface=options.interface,
                group=options.group,
                force=getattr(options, "force", False),
            )
    except (UnreachableError, AgentRefusedError) as error:
        print(f"ipmpadm: {error}", file=sys.stderr)
        return 1
    print(answer["message"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
