"""The command line. A command's module is imported when it runs: showing a status needs little."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from kubectl_ipmp.display import Display
from kubectl_ipmp.kubectl import NAMESPACE, Kubectl, PluginError

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = "kubectl ipmp"
COMPLETE = "__complete"
"""The command by which shells ask; people are not told of it."""
ALONE = ("check", "completion")
"""Modules that ask no cluster."""

EXIT_NO = 1
"""It could not be done, or is not so; the message says why."""
EXIT_BAD_INPUT = 2
"""Wrong options or manifests."""

CLUSTER_OPTIONS = (
    ("--kubeconfig", "FILE", "as in kubectl"),
    ("--context", "NAME", "as in kubectl"),
    ("--cluster", "NAME", "as in kubectl"),
    ("--user", "NAME", "as in kubectl"),
    ("--server", "URL", "as in kubectl"),
    ("--token", "TOKEN", "as in kubectl"),
    ("--as", "USER", "as in kubectl"),
    ("--request-timeout", "DURATION", "as in kubectl"),
)
"""Options that are handed to kubectl as they are."""

EPILOG = """\
Exit status: 0; 1 when it could not be done, or is not so (the message says why); 2 for wrong options and manifests.
Colours come on a terminal only, and not with NO_COLOR. Showing needs the verbs get and list on the two kinds.
"""


class CommandParser(argparse.ArgumentParser):
    """Says in one line what is wrong, and where to read on."""

    def error(self, message: str) -> NoReturn:
        """End with EXIT_BAD_INPUT."""
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: {message}\nTry '{self.prog} --help'.\n")


def duration(text: str) -> float:
    """Seconds, from what kubectl takes: 30s, 5m, 1h30m, or a number of seconds. Raises ArgumentTypeError."""
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text)
    if match is None or not any(match.groups()):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration, such as 30s, 5m or 1h30m")
    hours, minutes, seconds = (float(each or 0) for each in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def node_name(text: str) -> str:
    """A node's name as the API has it: lower case."""
    return text.lower()


def parser() -> CommandParser:
    """All commands with their options."""
    top = CommandParser(
        prog=PROGRAM,
        description="IPMP groups of a cluster: how they are, why, and what to do on the day after.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _cluster_options(top, default=None)
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    _add_showing(commands)
    _add_maintenance(commands)
    check = _add(commands, "check", "say what is wrong with manifests; needs no cluster", "check:run")
    check.add_argument(
        "--file", "-f", action="append", type=Path, required=True, metavar="FILE", dest="files",
        help="manifests, a directory of such files, or - for standard input; may be given again",
    )  # fmt: skip
    _add_drill(commands)
    _add_help_from_afar(commands)
    version = _add(commands, "version", "versions of plugin, server and agents", "versions:run")
    version.add_argument("--client", action="store_true", help="of the plugin only: asks no cluster")
    _output(version)
    return top


def _add(commands: argparse._SubParsersAction[CommandParser], name: str, words: str, work: str) -> CommandParser:
    added = commands.add_parser(
        name, help=words, description=words[0].upper() + words[1:] + ".", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    _cluster_options(added, default=argparse.SUPPRESS)
    added.set_defaults(work=work)
    return added


def _cluster_options(to: argparse.ArgumentParser, default: object) -> None:
    """Options that may stand before and after the command."""
    which = to.add_argument_group("which cluster")
    for option, metavar, words in CLUSTER_OPTIONS:
        which.add_argument(option, metavar=metavar, help=words, default=default, dest=_destination(option))
    where = f"where IPMP is installed (default: {NAMESPACE})"
    which.add_argument("--namespace", "-n", metavar="NAME", default=default, help=where)
    colour = ("auto", "always", "never")
    to.add_argument("--color", choices=colour, default=default, help="(default: auto)")


def _destination(option: str) -> str:
    return f"kubectl_{option[2:].replace('-', '_')}"


def _output(to: argparse.ArgumentParser) -> None:
    to.add_argument("--output", "-o", choices=("text", "json"), default="text", help="(default: text)")


def _add_showing(commands: argparse._SubParsersAction[CommandParser]) -> None:
    status = _add(commands, "status", "groups, their nodes and interfaces as a tree", "status:run")
    _which(status)
    status.add_argument("--wait", action="store_true", help="until all of them are as --for says")
    waits = ("ready", "ok", "degraded", "failed")
    status.add_argument(
        "--for", choices=waits, default="ready", dest="state",
        help="ready: carries traffic; ok: and nothing is lost; degraded, failed: on some node (default: ready)",
    )  # fmt: skip
    _timeout(status)
    for name, words in (
        ("interfaces", "the members on every node"),
        ("addresses", "the data addresses: where each is, and what is not adopted"),
        ("targets", "what the members probe"),
        ("history", "the last moves of addresses, newest first"),
        ("events", "what operator and agents told, oldest first"),
    ):
        listing = _add(commands, name, words, f"listings:{name}")
        _which(listing)
        if name == "targets":
            listing.add_argument("--all", action="store_true", help="also those that are not in use")
    explain = _add(commands, "explain", "why a group on a node is as it is, and what to do", "explain:run")
    explain.add_argument("group", metavar="GROUP")
    explain.add_argument("node", metavar="NODE", type=node_name)
    _output(explain)


def _which(to: argparse.ArgumentParser) -> None:
    to.add_argument("groups", nargs="*", metavar="GROUP", help="these groups only")
    to.add_argument(
        "--node", action="append", default=[], type=node_name, dest="nodes", help="this node only; may be given again"
    )
    _output(to)


def _timeout(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--timeout", type=duration, default=300.0, metavar="DURATION", help="of --wait, such as 90s or 5m (default: 5m)"
    )


def _add_maintenance(commands: argparse._SubParsersAction[CommandParser]) -> None:
    for name, words, wait in (
        ("offline", "take an interface out of use", "until it carries no data address"),
        ("online", "give an interface back", "until it is usable"),
    ):
        maintain = _add(commands, name, words, f"maintenance:{name}")
        maintain.add_argument("node", metavar="NODE", type=node_name)
        maintain.add_argument("interface", metavar="IF", help="its name, or what the group calls it")
        maintain.add_argument("--group", help="the group, where several on the node have such an interface")
        maintain.add_argument("--wait", action="store_true", help=wait)
        _timeout(maintain)


def _add_drill(commands: argparse._SubParsersAction[CommandParser]) -> None:
    drill = _add(commands, "drill", "play a failure, measure it, and put the interface back", "drill:run")
    drill.add_argument("group", metavar="GROUP")
    drill.add_argument("node", metavar="NODE", nargs="?", type=node_name)
    drill.add_argument("interface", metavar="IF", nargs="?", help="(default: the one that carries most addresses)")
    drill.add_argument("--all-nodes", action="store_true", help="one after the other, up to the first that fails")
    drill.add_argument("--keep-going", action="store_true", help="on to the next node, whatever comes")
    drill.add_argument(
        "--kind", choices=("link", "silent"), default="link",
        help="link: its cable is pulled; silent: its link is up and nothing answers (default: link)",
    )  # fmt: skip
    drill.add_argument(
        "--duration", type=duration, default=10.0, help="how long it is treated as failed, 1s to 5m (default: 10s)"
    )
    _output(drill)


def _add_help_from_afar(commands: argparse._SubParsersAction[CommandParser]) -> None:
    bundle = _add(commands, "bundle", "one file with all that somebody needs who helps from afar", "bundle:run")
    bundle.add_argument(
        "--node", action="append", default=[], type=node_name, dest="nodes", help="this node only; may be given again"
    )
    bundle.add_argument(
        "--file", type=Path, metavar="FILE", help="where to write (default: ipmp-bundle-TIME.tar.gz, here)"
    )
    record = _add(commands, "record", "fetch what an agent recorded, for a replay", "record:run")
    record.add_argument("node", metavar="NODE", type=node_name)
    record.add_argument(
        "--file", type=Path, metavar="FILE", help="where to write (default: ipmp-NODE-TIME.jsonl, here)"
    )
    completion = _add(commands, "completion", "the completion of a shell for kubectl-ipmp", "completion:script")
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))


def main(arguments: Sequence[str] | None = None, make: type[Kubectl] = Kubectl) -> int:
    """Run a command; returns the exit status.

    Args:
        arguments: of the command line; None: those of the process.
        make: what calls kubectl.
    """
    top = parser()
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == [COMPLETE]:
        from kubectl_ipmp.completion import complete  # noqa: PLC0415 - as all commands

        return complete(words[1:], top, lambda options: _kubectl(options, make))
    options = top.parse_args(words)
    if options.command is None:
        top.print_help()
        return 0
    if arguments is None:
        # As a command, it ends like any Unix filter: quietly, when its reader goes or the user has seen enough.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    colour = {"always": True, "never": False}.get(options.color)
    display = Display(colour=colour)
    module, _, function = options.work.partition(":")
    work = getattr(import_module(f"kubectl_ipmp.{module}"), function)
    try:
        alone = module in ALONE
        code: int = work(options, display) if alone else work(options, _kubectl(options, make), display)
    except PluginError as error:
        for line in str(error).splitlines():
            print(f"{PROGRAM}: {line}", file=sys.stderr)
        return EXIT_BAD_INPUT if module == "check" else EXIT_NO
    except KeyboardInterrupt:
        return 130
    return code


def _kubectl(options: argparse.Namespace, make: type[Kubectl]) -> Kubectl:
    given = [(option, getattr(options, _destination(option))) for option, _, _ in CLUSTER_OPTIONS]
    namespace = options.namespace or os.environ.get("IPMP_NAMESPACE") or NAMESPACE
    return make([f"{option}={value}" for option, value in given if value], namespace)
