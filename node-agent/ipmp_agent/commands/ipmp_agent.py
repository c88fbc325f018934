"""`ipmp-agent`: runs the agent, checks manifests, removes what a stopped agent left, draws recordings."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import ipmp_agent
from ipmp_agent.disk import state
from ipmp_agent.disk.directories import Directory, InUseError, holder
from ipmp_agent.disk.recording import LIMIT
from ipmp_agent.measurements import Measurements
from ipmp_agent.process import vacancy
from ipmp_agent.process.hangup import Hangup
from ipmp_agent.views import status
from ipmp_api.fields import NODE_NAME
from ipmp_api.schema import validate
from ipmp_service.command import (
    EXIT_BAD_INPUT,
    EXIT_FAULT,
    BadInputError,
    Parser,
    add_log_options,
    address,
    packages_of,
)
from ipmp_service.logs import Log

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ipmp_agent.process.agent import Source

STATE_DIRECTORY = Path("/var/lib/ipmp")
RUNTIME_DIRECTORY = Path("/run/ipmp")

STANDARD_INPUT = Path("-")

NO_NODE = "node"
"""Manifests are checked for this one where none is named."""

EXIT_CODES = """\
Exit status: 0 when told to stop; 1 when something failed at run time (a capability is missing, another agent runs in
the same directory, an address is in use); 2 for wrong options and manifests.
"""

RUN = """\
Runs the agent in the foreground. With --file it obeys manifests; without, it obeys the IPMPNodeGroups of its node, and
takes the API server from the pod's service account, or from --kubeconfig ($KUBERNETES_SERVICE_HOST and
$KUBERNETES_SERVICE_PORT may point it past a service address).

With --stand-in it hands over to the agent of the node's pod as soon as that asks, waits while one is there, and takes
over when there has been none for five seconds.

SIGHUP reads the files again; SIGTERM and SIGINT end the agent. Addresses and routes stay in the kernel when it ends,
and the next one takes them over: `ipmp-agent withdraw` removes them.
"""

log = logging.getLogger(__name__)


def _node_name(text: str) -> str:
    """A node's name; kubelets make theirs of the host's name in lower case."""
    name = text.lower()
    if validate(NODE_NAME, name, "", strict=True):
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a node: DNS labels joined by '.'")
    return name


def _mebibytes(text: str) -> int:
    """A size that holds an incident, and that a node's disk can take."""
    size = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if not 2 <= size <= 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of mebibytes from 2 to 65536")
    return size


def make_parser() -> argparse.ArgumentParser:
    """The command line, from which the man page and the completion are made, too."""
    parser = Parser(
        prog="ipmp-agent",
        description="IP network multipathing for one node.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ipmp-agent {ipmp_agent.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="run|check|withdraw|report")
    _add_run(commands)
    _add_check(commands)
    _add_withdraw(commands)
    _add_report(commands)
    return parser


def _add_command(commands: argparse._SubParsersAction[Parser], name: str, words: str, text: str) -> Parser:
    return commands.add_parser(
        name,
        help=words,
        description=text,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_files(parser: argparse.ArgumentParser, *, required: bool, standard_input: bool) -> None:
    parser.add_argument(
        "--file",
        action="append",
        type=Path,
        required=required,
        metavar="FILE",
        dest="files",
        help="a file with IPMPGroup manifests, or a directory of such files; may be given again"
        + ("; - is standard input" if standard_input else ""),
    )


def _add_directories(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--state-dir",
        type=Path,
        default=STATE_DIRECTORY,
        metavar="DIR",
        help="what the agent must know after a restart (default: %(default)s)",
    )
    parser.add_argument(
        "--runtime-dir",
        type=Path,
        default=Path(os.environ.get("IPMP_RUNTIME_DIR") or RUNTIME_DIRECTORY),
        metavar="DIR",
        help="where ipmpstat finds the agent (default: $IPMP_RUNTIME_DIR, else /run/ipmp)",
    )


def _add_run(commands: argparse._SubParsersAction[Parser]) -> None:
    parser = _add_command(commands, "run", "run the agent", RUN)
    _add_files(parser, required=False, standard_input=False)
    parser.add_argument(
        "--node-name",
        type=_node_name,
        default=os.environ.get("NODE_NAME") or None,
        help="this node's name, which is made lower case (default: $NODE_NAME)",
    )
    parser.add_argument(
        "--stand-in",
        action="store_true",
        help="stand in for the agent of this node's pod, before it comes and while it is away, with the last"
        " configuration that it had; with --file, for a node that has had none yet",
    )
    parser.add_argument("--kubeconfig", type=Path, metavar="FILE", help="how to reach the API server, outside a pod")
    _add_directories(parser)
    parser.add_argument(
        "--metrics-address", type=address, metavar="HOST:PORT", help="serve /metrics, /healthz and /readyz here"
    )
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="record what the agent decides from, for a replay and a report; what is there becomes FILE.1",
    )
    parser.add_argument(
        "--record-size",
        type=_mebibytes,
        default=LIMIT >> 20,
        metavar="MIB",
        help="of FILE and FILE.1 together: what is older goes (default: %(default)s)",
    )
    parser.add_argument(
        "--no-trial",
        action="store_false",
        dest="trials",
        help="keep a change of configuration also if gateways, targets or the API server fall silent by it",
    )
    add_log_options(parser)
    parser.set_defaults(work=_run)


def _add_check(commands: argparse._SubParsersAction[Parser]) -> None:
    text = "Says what is wrong with manifests: every wrong field, in the words of the API server. Changes nothing."
    parser = _add_command(commands, "check", "check manifests", text)
    _add_files(parser, required=True, standard_input=True)
    parser.add_argument(
        "--node-name",
        type=_node_name,
        default=os.environ.get("NODE_NAME") or None,
        help="compile for this node (default: $NODE_NAME, else for none in particular)",
    )
    parser.set_defaults(work=_check)


def _add_withdraw(commands: argparse._SubParsersAction[Parser]) -> None:
    text = (
        "Takes everything out of the kernel that a stopped agent left there, or puts it back where it was found, by\n"
        "each group's deletionPolicy. What it did not manage it keeps in mind: run it again."
    )
    parser = _add_command(commands, "withdraw", "remove what a stopped agent left in the kernel", text)
    _add_directories(parser)
    add_log_options(parser)
    parser.set_defaults(work=_withdraw)


def _add_report(commands: argparse._SubParsersAction[Parser]) -> None:
    text = (
        "Draws what `run --record` wrote, as one HTML page that needs no network: the states, links and probes of the\n"
        "interfaces, the addresses that moved between them, and the verdicts. Needs pip install 'ipmp[report]'."
    )
    parser = _add_command(commands, "report", "draw a recording", text)
    parser.add_argument("recording", type=Path, metavar="RECORDING", help="what `ipmp-agent run --record` wrote")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the page, such as incident.html"
    )
    parser.set_defaults(work=_report)


def main(arguments: Sequence[str] | None = None, hangup: Hangup | None = None) -> int:
    """Run a command; returns the exit status.

    Args:
        arguments: of the command line; None: those of the process.
        hangup: what hears SIGHUP already.
    """
    options = make_parser().parse_args(arguments, argparse.Namespace(hangup=hangup or Hangup()))
    try:
        code: int = options.work(options)
    except BadInputError as error:
        for problem in error.problems:
            print(f"ipmp-agent: {problem}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except (InUseError, OSError) as error:
        print(f"ipmp-agent: {error}", file=sys.stderr)
        return EXIT_FAULT
    return code


def _check(options: argparse.Namespace) -> int:
    def warn(words: str) -> None:
        if options.node_name:
            print(f"ipmp-agent: {words}", file=sys.stderr)

    from ipmp_agent.process import files  # noqa: PLC0415 - YAML, and a MiB, that an agent in a pod does not need

    for group in files.read(options.files, options.node_name or NO_NODE, warn):
        members, addresses = len(group.members), len(group.data_addresses)
        where = f"on {group.node_name}"
        if group.node_name == NO_NODE and not options.node_name:
            where = "for no node in particular (--node-name names one)"
        print(f"{group.group_name}: {members} interfaces, {addresses} data addresses {where}: ok")
    return 0


def _require_run_options(options: argparse.Namespace) -> None:
    """Raises BadInputError for options of `run` that argparse cannot judge."""
    if not options.node_name:
        raise BadInputError(("name this node with --node-name or $NODE_NAME",))
    if STANDARD_INPUT in (options.files or ()):
        raise BadInputError(("run reads its files again at SIGHUP, which standard input is not: name a file",))
    if options.stand_in and options.kubeconfig:
        raise BadInputError(("--stand-in goes by what the pod's agent left: leave --kubeconfig out",))


def _run(options: argparse.Namespace) -> int:
    _require_run_options(options)
    with packages_of("agent", "prometheus_client"):
        from ipmp_agent.process.agent import Agent, AgentOptions, StartError  # noqa: PLC0415 - `check` needs no kernel

    source = _source(options)
    measurements = Measurements()

    def dropped() -> None:
        measurements.errors["log"] += 1

    records = _log(options, dropped)
    settings = AgentOptions(
        options.state_dir,
        options.runtime_dir,
        options.metrics_address,
        options.record,
        options.record_size << 20,
        stand_in=options.stand_in,
        asks=not (options.files or options.stand_in),
        trials=options.trials,
    )
    stands_by = False
    try:
        stands_by = options.stand_in and vacancy.is_taken()
        if not stands_by:
            stands_by = Agent(settings, source, measurements, options.hangup).run()
    except InUseError as error:
        stands_by = options.stand_in
        log.log(logging.INFO if stands_by else logging.CRITICAL, "%s", error)
        if not stands_by:
            return EXIT_FAULT
    except (StartError, OSError) as error:
        log.critical("%s", error)
        return EXIT_FAULT
    except Exception:
        log.critical("the agent ends by a fault of its own; addresses and routes stay as they are", exc_info=True)
        return EXIT_FAULT
    finally:
        records.close()
    if stands_by:
        vacancy.begin_anew()
    return 0


def _log(options: argparse.Namespace, dropped: Callable[[], None] = lambda: None) -> Log:
    fields = ("group", "interface")
    return Log(
        options.log_format,
        options.log_level,
        before=fields,
        after=("reason",),
        dropped=dropped,
        identifier="ipmp-agent",
    )


def _source(options: argparse.Namespace) -> Source:
    files = None
    if options.files:
        from ipmp_agent.process.files import FileSource  # noqa: PLC0415 - as in `check`

        files = FileSource(options.files, options.node_name)
    if options.stand_in:
        from ipmp_agent.process.standin import StandInSource  # noqa: PLC0415 - for nobody else

        return StandInSource(options.state_dir, files)
    if files is not None:
        return files
    # An agent with files needs no API client.
    with packages_of("agent"):
        from ipmp_agent.kube.source import ClusterSource  # noqa: PLC0415
        from ipmp_service.api_server import CredentialsError  # noqa: PLC0415

    try:
        return ClusterSource(options.node_name, options.kubeconfig, status)
    except CredentialsError as error:
        raise BadInputError((str(error),)) from error


def _withdraw(options: argparse.Namespace) -> int:
    records = _log(options)
    try:
        return _withdraw_all(options.state_dir, options.runtime_dir)
    except InUseError:
        log.critical("the agent (pid %s) still runs: stop it first", holder(options.state_dir))
        return EXIT_FAULT
    except OSError as error:
        log.critical("%s", error)
        return EXIT_FAULT
    finally:
        records.close()


def _withdraw_all(directory: Path, beside: Path) -> int:
    with packages_of("agent"):
        from ipmp_agent.dataplane.withdrawal import withdraw  # noqa: PLC0415
        from ipmp_agent.process.agent import require_capabilities  # noqa: PLC0415 - `check` needs no kernel

    if not state.exists(directory, beside):
        log.info("nothing to withdraw: no state file in %s", directory)
        return 0
    lock = Directory(directory, "--state-dir", 0o700)
    try:
        require_capabilities()
        left = asyncio.run(withdraw(directory, beside=beside))
    finally:
        lock.release()
    return EXIT_FAULT if left.groups else 0


def _report(options: argparse.Namespace) -> int:
    from ipmp_agent.simulate.report import report  # noqa: PLC0415 - the simulator, which an agent does not need

    report(options.recording, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
