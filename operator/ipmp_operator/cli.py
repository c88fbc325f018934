"""`ipmp-operator run`."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import ipmp_operator
from ipmp_operator import logs

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_FAULT = 1
EXIT_BAD_INPUT = 2
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

DESCRIPTION = """\
Reconciles IPMPGroups: gives every node that a group selects its IPMPNodeGroup with
addresses and peers, keeps the agents' DaemonSet, and sums the nodes up in the group's
status. Talks to the API server of its pod's service account, or else of the current
context of the kubeconfig."""

EXIT_CODES = """\
exit status: 0 ended by a signal, 1 fault or another leads (start it again),
2 bad option or template"""

log = logging.getLogger(__name__)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: {message}\nTry '{self.prog} --help'.\n")


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 0.0.0.0:9090 or [::]:9090")
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)  # noqa: S104 - no host means every one


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number of seconds")
    return seconds


def _own_namespace() -> str | None:
    try:
        return _NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    except OSError:
        return os.environ.get("POD_NAMESPACE")


def parser() -> argparse.ArgumentParser:
    """The command line's parser."""
    top = _Parser(prog="ipmp-operator", description="The IPMP operator.", epilog=EXIT_CODES)
    top.add_argument("--version", action="version", version=f"ipmp-operator {ipmp_operator.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="run")
    run = commands.add_parser(
        "run",
        help="run the operator",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument(
        "--daemonset-template", type=Path, required=True, metavar="FILE", help="manifest of the agents' DaemonSet"
    )
    run.add_argument("--agent-image", metavar="IMAGE", help="the agents' image (default: the template's)")
    run.add_argument(
        "--namespace",
        default=_own_namespace(),
        metavar="NAME",
        help="where the DaemonSet and the lease are (default: the pod's own)",
    )
    run.add_argument(
        "--owner-deployment",
        metavar="NAME",
        help="the Deployment that the DaemonSet goes with when it is deleted (default: none)",
    )
    run.add_argument(
        "--metrics-address",
        type=_address,
        metavar="HOST:PORT",
        help="serve /metrics, /healthz and /readyz here (default: nowhere)",
    )
    run.add_argument(
        "--leader-elect",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="work only while holding the lease, so that several replicas can run (default: yes)",
    )
    run.add_argument("--lease-name", default="ipmp-operator", metavar="NAME", help="(default: %(default)s)")
    run.add_argument(
        "--withdraw-timeout",
        type=_seconds,
        default=300.0,
        metavar="SECONDS",
        help="how long an agent may take to withdraw a deleted node group (default: 300)",
    )
    run.add_argument("--log-format", choices=("text", "json"), default="text", help="(default: %(default)s)")
    run.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info", help="(default: %(default)s)"
    )
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    options = parser().parse_args(arguments)
    if not options.namespace:
        sys.stderr.write("ipmp-operator: outside a pod, say --namespace\n")
        return EXIT_BAD_INPUT
    logs.set_up(options.log_format, options.log_level)
    from ipmp_operator.running import Options, StartError, run  # noqa: PLC0415 - --help needs neither kopf nor kubernetes

    settings = Options(
        template=options.daemonset_template,
        agent_image=options.agent_image,
        namespace=options.namespace,
        owner_deployment=options.owner_deployment,
        metrics_address=options.metrics_address,
        lease_name=options.lease_name if options.leader_elect else None,
        withdraw_seconds=options.withdraw_timeout,
        identity=os.environ.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}",
    )
    try:
        return run(settings)
    except StartError as error:
        log.critical("%s", error)
        return EXIT_BAD_INPUT
