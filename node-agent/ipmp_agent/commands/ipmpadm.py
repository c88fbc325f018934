"""`ipmpadm`: take an interface of a group out of use for maintenance, give it back, and play its failure."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import ipmp_agent
from ipmp_agent.commands.client import AgentRefusedError, Client, ClientParser, UnreachableError, runtime_directory
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.words import DrillKind
from ipmp_agent.disk.codec import decode
from ipmp_agent.publication import Publication

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ipmp_agent.core.drill import DrillSnapshot
    from ipmp_agent.publication import GroupView

EPILOG = """\
An interface goes offline only while another one of its group works: its data addresses move there at once. It stays
offline over restarts of the agent, until it is brought online again.
A drill treats an interface as failed for some seconds, measures what happens, and ends by itself, whatever becomes of
this command. Nothing is drilled unless another interface works, and a drill ends at once when none does any more.
Exit status: 0, or 1 when it was refused (the message says why), for a drill that was not passed, for a wrong option and
when no agent answers.
"""

POLL = 0.2
"""Seconds between two looks at a drill."""


def make_parser() -> argparse.ArgumentParser:
    """The command line, from which the man page and the completion are made, too."""
    parser = ClientParser(
        prog="ipmpadm",
        description="Take an interface of an IPMP group out of use, give it back, or play its failure.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ipmpadm {ipmp_agent.__version__}")
    commands = parser.add_subparsers(dest="operation", required=True, metavar="offline|online|drill")
    operations = {"offline": "take out of use", "online": "give back", "drill": "play its failure, and measure"}
    for operation, words in operations.items():
        command = commands.add_parser(operation, help=words, description=words.capitalize() + ".")
        command.add_argument("interface", help="its name, as in ipmpstat -i")
        command.add_argument("--group", help="the group, where several have an interface of this name")
        if operation == "offline":
            command.add_argument(
                "--force", action="store_true", help="also the last one that works: its addresses are lost"
            )
        if operation == "drill":
            kinds = [kind.value for kind in DrillKind]
            command.add_argument(
                "--kind", choices=kinds, default=kinds[0],
                help="link: its cable is pulled; silent: its link is up and nothing answers (default: %(default)s)",
            )  # fmt: skip
            command.add_argument(
                "--seconds", type=float, default=10.0, metavar="S", help="how long (default: %(default)g)"
            )
            command.add_argument("--json", action="store_true", help="the result for programs")
        command.add_argument(
            "--runtime-dir",
            type=Path,
            metavar="DIR",
            help="the agent's runtime directory (default: $IPMP_RUNTIME_DIR, else /run/ipmp)",
        )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = make_parser().parse_args(arguments)
    try:
        with Client(runtime_directory(options.runtime_dir)) as client:
            if options.operation == "drill":
                return _drill(client, options)
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


def _drill(client: Client, options: argparse.Namespace) -> int:
    begun = client.ask(
        op="drill", interface=options.interface, group=options.group, kind=options.kind, seconds=options.seconds
    )
    while True:
        time.sleep(POLL)
        publication = decode(Publication, client.ask(op="snapshot", live=True)["publication"])
        view = publication.group(begun["group"])
        drill = view.snapshot.drill if view else None
        if view is None or drill is None:
            raise AgentRefusedError("the group or its agent was replaced during the drill: look at ipmpstat -i")
        if drill.over:
            break
    result = outcome(view, drill)
    if options.json:
        print(json.dumps(result))
    else:
        _show(result)
    return 0 if result["passed"] else 1


def outcome(view: GroupView, drill: DrillSnapshot) -> dict[str, Any]:
    """The result of a drill that is over, for programs. Durations in seconds; None: it did not happen.

    `gap` is from the failure to the announcement of the addresses elsewhere: how long they were not to be reached.
    """
    names = view.names()
    moves = [each for each in view.history if each.reason is Reason.DRILL and each.source == drill.interface]
    took = moves[-1].duration if moves and drill.moved is not None else None
    return {
        "group": view.snapshot.group,
        "interface": names.get(drill.interface, drill.interface),
        "kind": drill.kind.value,
        "seconds": drill.seconds,
        "passed": not drill.faults,
        "faults": list(drill.faults),
        "addresses": drill.addresses,
        "detected": drill.failed,
        "moved": took,
        "gap": None if drill.failed is None or took is None else drill.failed + took,
        "answered": drill.proven,
        "repaired": None if drill.repaired is None or drill.ended is None else drill.repaired - drill.ended,
        "returned": None if drill.returned is None or drill.ended is None else drill.returned - drill.ended,
    }


def _show(result: dict[str, Any]) -> None:
    def figure(key: str) -> str:
        return "never" if result[key] is None else f"{result[key] * 1000:.1f} ms"

    verdict = "passed" if result["passed"] else "NOT PASSED"
    print(f"{result['interface']} of group {result['group']}, {result['kind']}, {result['seconds']:g} s: {verdict}")
    for fault in result["faults"]:
        print(f"  {fault}")
    print(f"  failure found after        {figure('detected')}")
    if result["addresses"]:
        print(f"  {result['addresses']} addresses announced in  {figure('moved')}")
        print(f"  gap                        {figure('gap')}")
        print(f"  answered elsewhere after   {figure('answered')}")
    print(f"  found to work again after  {figure('repaired')}")
    print(f"  used as before after       {figure('returned')}")


if __name__ == "__main__":
    sys.exit(main())
