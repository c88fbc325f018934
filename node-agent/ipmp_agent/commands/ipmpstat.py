"""`ipmpstat`: what the agent of this node sees, in the columns and words of the Solaris command."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipmp_agent
from ipmp_agent.commands.client import AgentRefusedError, Client, ClientParser, UnreachableError, runtime_directory
from ipmp_agent.commands.names import Names
from ipmp_agent.commands.rows import MODES, ProbeRow, probe_columns, probe_json
from ipmp_agent.commands.table import TextTable, UnknownFieldError, choose, fitting, parsable
from ipmp_agent.core.actions import ProbeClosed
from ipmp_agent.disk.codec import decode
from ipmp_agent.publication import Publication
from ipmp_agent.views import status
from ipmp_api.status import to_dict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ipmp_agent.commands.table import Column
    from ipmp_agent.publication import GroupView

HEIGHT = 24
"""Lines of a terminal whose height is unknown."""

EPILOG = """\
Exactly one of -a, -g, -H, -i, -p and -t; --json alone prints the status of every group as Kubernetes shows it.
Exit status: 0, or 1 for a wrong option and when no agent answers.
"""


class StatError(Exception):
    """Ends the command with a message."""


def make_parser() -> argparse.ArgumentParser:
    """The command line, from which the man page and the completion are made, too."""
    parser = ClientParser(
        prog="ipmpstat",
        description="Show the IPMP groups of this node.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    modes = parser.add_argument_group("what to show")
    modes.add_argument("-a", action="append_const", dest="modes", const="a", help="data addresses")
    modes.add_argument("-g", action="append_const", dest="modes", const="g", help="groups")
    modes.add_argument(
        "-H", action="append_const", dest="modes", const="H", help="history: which addresses moved, when and why"
    )
    modes.add_argument("-i", action="append_const", dest="modes", const="i", help="interfaces")
    modes.add_argument("-p", action="append_const", dest="modes", const="p", help="probes, live, until Ctrl-C")
    modes.add_argument("-t", action="append_const", dest="modes", const="t", help="probe targets")
    parser.add_argument("-n", action="store_true", dest="numeric", help="addresses as numbers, never names")
    parser.add_argument("-o", metavar="FIELD[,...]", dest="fields", help='the fields to show, in this order; or "all"')
    parser.add_argument("-P", action="store_true", dest="parsable", help="for programs: no header, : between fields")
    parser.add_argument("--json", action="store_true", help="JSON; with -p one object a line")
    parser.add_argument(
        "-L", action="store_true", dest="latest", help="what the agent published last, without asking its data plane"
    )
    parser.add_argument(
        "--runtime-dir",
        type=Path,
        metavar="DIR",
        help="the agent's runtime directory (default: $IPMP_RUNTIME_DIR, else /run/ipmp)",
    )
    parser.add_argument("--version", action="version", version=f"ipmpstat {ipmp_agent.__version__}")
    return parser


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser()
    options = parser.parse_args(arguments)
    modes = options.modes or []
    if len(modes) > 1:
        parser.error("only one of -a, -g, -H, -i, -p and -t at a time")
    if not modes and not (options.json and not options.fields):
        parser.error("one of -a, -g, -H, -i, -p and -t is needed")
    if options.parsable and not options.fields:
        parser.error("-P needs -o: say which fields")
    if options.json and (options.parsable or options.fields):
        parser.error("--json has all fields: not with -P or -o")
    options.mode = modes[0] if modes else None
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _options(arguments)
    if arguments is None:
        # As a command, it ends like any Unix filter: quietly, when its reader goes or the user has seen enough.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        with Client(runtime_directory(options.runtime_dir)) as client:
            if options.mode == "p":
                _show_probes(client, options)
            else:
                _show_state(client, options)
    except (StatError, UnknownFieldError, UnreachableError, AgentRefusedError) as error:
        print(f"ipmpstat: {error}", file=sys.stderr)
        return 1
    return 0


def _publication(client: Client, options: argparse.Namespace) -> Publication:
    answer = client.ask(op="snapshot", live=not options.latest)
    try:
        return decode(Publication, answer["publication"])
    except ValueError as error:
        raise StatError(f"the agent speaks another version ({error}): use the ipmpstat that came with it") from error


def _show_state(client: Client, options: argparse.Namespace) -> None:
    publication = _publication(client, options)
    if options.mode is None:
        print(json.dumps({"groups": [_status(view, publication.time) for view in publication.groups]}, indent=2))
        return
    mode = MODES[options.mode]
    rows = list(mode.rows(publication))
    if options.json:
        print(json.dumps([mode.to_json(row) for row in rows], indent=2))
        return
    names = Names(numeric=options.numeric)
    names.find(address for row in rows for address in mode.addresses(row))
    printer = _Printer(mode.columns(names), options)
    for row in rows:
        printer.show(row)
    printer.finish()


def _status(view: GroupView, now: float) -> dict[str, Any]:
    """A group as Kubernetes shows it; when a condition changed is known only there."""
    found = to_dict(status.build(view, now=now))
    for condition in found["conditions"]:
        del condition["lastTransitionTime"]
    return {"group": view.snapshot.group, **found}


def _show_probes(client: Client, options: argparse.Namespace) -> None:
    started = time.monotonic()  # the agent's clock is the same one
    publication = _publication(client, options)
    if not any(view.snapshot.probing for view in publication.groups):
        raise StatError("no interface is probed; ipmpstat -t says why")
    names = Names(numeric=options.numeric)
    printer = None if options.json else _Printer(probe_columns(names), options)
    for row in _probe_rows(client, started):
        if printer is None:
            print(json.dumps(probe_json(row)), flush=True)
            continue
        names.find((row.probe.target,))
        printer.show(row)
    raise StatError("the agent has ended")


def _probe_rows(client: Client, started: float) -> Iterator[ProbeRow]:
    for found in client.stream(op="probes"):
        probe = decode(ProbeClosed, found["probe"])
        yield ProbeRow(found["interface"], probe, probe.sent_at - started)


class _Printer:
    """Prints rows as the options say."""

    def __init__(self, columns: Sequence[Column[Any]], options: argparse.Namespace) -> None:
        if options.fields:
            self._columns, warnings = choose(columns, options.fields, strict=options.parsable)
        else:
            self._columns, warnings = fitting(columns), []
        for warning in warnings:
            print(f"ipmpstat: warning: {warning}", file=sys.stderr)
        self._table: TextTable[Any] | None = None
        if not options.parsable:
            self._table = TextTable(self._columns, shutil.get_terminal_size((0, HEIGHT)).lines)

    def show(self, row: Any) -> None:
        """Print one row at once."""
        if self._table is None:
            print(parsable(self._columns, row), flush=True)
            return
        for line in self._table.lines(row):
            print(line, flush=True)

    def finish(self) -> None:
        """Say what could not be found out."""
        if self._table is not None and self._table.unobtainable:
            fields = ", ".join(sorted(self._table.unobtainable))
            print(f"ipmpstat: warning: could not find out: {fields}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
