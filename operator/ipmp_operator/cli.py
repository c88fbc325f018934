"""`ipmp-operator run`."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import ipmp_operator
from ipmp_service.command import (
    EXIT_BAD_INPUT,
    EXIT_FAULT,
    BadInputError,
    Parser,
    add_log_options,
    address,
    packages_of,
    seconds,
)
from ipmp_service.logs import Log

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def _own_namespace() -> str | None:
    try:
        return _NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    except OSError:
        return os.environ.get("POD_NAMESPACE")


def parser() -> argparse.ArgumentParser:
    """The command line's parser."""
    top = Parser(prog="ipmp-operator", description="The IPMP operator.", epilog=EXIT_CODES)
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
        type=address,
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
        "--group-selector",
        metavar="LABELS",
        help="look after the IPMPGroups with these labels alone: key=value and !key, joined by commas (default: all); "
        "each group needs exactly one operator, and each such operator its own --lease-name",
    )
    run.add_argument(
        "--agents",
        choices=("groups", "everywhere", "elsewhere"),
        default="groups",
        help="where agents run: on the nodes that this operator's groups select, on every node that the template "
        "allows, or where another operator has them (default: %(default)s)",
    )
    run.add_argument(
        "--withdraw-timeout",
        type=seconds,
        default=300.0,
        metavar="SECONDS",
        help="how long an agent may take to withdraw a deleted node group (default: 300)",
    )
    run.add_argument(
        "--node-conditions",
        action="store_true",
        help="say on each Node how its groups are, as conditions IPMPDegraded and IPMPFailed; needs the right to "
        "patch nodes/status",
    )
    run.add_argument(
        "--taint-failed-nodes",
        action="store_true",
        help="taint a Node on which a group has no usable member (ipmp.dev/failed:NoSchedule); needs the rights to get "
        "and patch nodes",
    )
    add_log_options(run)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    options = parser().parse_args(arguments)
    if not options.namespace:
        sys.stderr.write("ipmp-operator: outside a pod, say --namespace\n")
        return EXIT_BAD_INPUT
    try:
        with packages_of("operator"):
            from ipmp_operator.kube.groups import EVERY, parse_selector  # noqa: PLC0415
            from ipmp_operator.process import OperatorOptions, OperatorStartError, run  # noqa: PLC0415 - 32 MB
            from ipmp_operator.reconciler import AgentsRun, Marking, Sphere  # noqa: PLC0415
    except BadInputError as error:
        sys.stderr.write(f"ipmp-operator: {error}\n")
        return EXIT_BAD_INPUT

    try:
        groups = parse_selector(options.group_selector) if options.group_selector else EVERY
    except ValueError as error:
        sys.stderr.write(f"ipmp-operator: --group-selector: {error}\n")
        return EXIT_BAD_INPUT
    settings = OperatorOptions(
        template=options.daemonset_template,
        agent_image=options.agent_image,
        namespace=options.namespace,
        owner_deployment=options.owner_deployment,
        metrics_address=options.metrics_address,
        lease_name=options.lease_name if options.leader_elect else None,
        withdraw_seconds=options.withdraw_timeout,
        marking=Marking(options.node_conditions, options.taint_failed_nodes),
        sphere=Sphere(groups, AgentsRun(options.agents)),
        identity=os.environ.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}",
    )
    logging.getLogger("kopf").setLevel(logging.WARNING)  # it tells of every event
    with contextlib.closing(Log(options.log_format, options.log_level)):
        try:
            return run(settings)
        except OperatorStartError as error:
            log.critical("%s", error)
            return EXIT_BAD_INPUT
        except Exception:
            log.critical("the operator ends by a fault of its own", exc_info=True)
            return EXIT_FAULT
