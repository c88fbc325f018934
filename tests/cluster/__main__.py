"""The real Kubernetes of the tests, to build and to play with."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tests.cluster.build import build, build_judge
from tests.cluster.cluster import Cluster, all_clusters, clusters_directory, remove_cluster, stale_clusters
from tests.cluster.image import build_image
from tests.cluster.playground import NAME, play
from tests.cluster.product import agent_pod

FAULTS = {
    "unplug": "pull the cable of a NIC: its carrier is lost",
    "plug": "plug the cable in again",
    "silence": "drop every frame of a NIC at the switch, carrier up",
    "restore": "forward its frames again",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("build", help="build Kubernetes, containerd, helm, ... into the cache: 8 minutes, once")
    commands.add_parser("image", help="build the project's image of the present sources into the cache")
    up = commands.add_parser("up", help="a cluster with two workers, the chart and an IPMPGroup, left up")
    up.add_argument("--emulated-version", metavar="1.N", help="behave as this older Kubernetes")
    commands.add_parser("down", help="remove that cluster, and those that killed test runs left, without a trace")
    commands.add_parser("status", help="what runs")
    for tool in ("kubectl", "helm"):
        passed = commands.add_parser(tool, help=f"run {tool} as admin", add_help=False, prefix_chars="\0")
        passed.add_argument("arguments", nargs="*")
    shell = commands.add_parser(
        "shell", help="a shell with this cluster's kubectl, helm and kubectl ipmp", prefix_chars="\0"
    )
    shell.add_argument("arguments", nargs="*", metavar="argument", help="for bash, such as -c COMMAND")
    node = commands.add_parser("node", help="run a command on a node", prefix_chars="\0")
    node.add_argument("node")
    node.add_argument("arguments", nargs="+", metavar="command")
    stat = commands.add_parser("ipmpstat", help="run ipmpstat in the agent of a node", prefix_chars="\0")
    stat.add_argument("node")
    stat.add_argument("arguments", nargs="*", metavar="argument")
    for fault, text in FAULTS.items():
        inject = commands.add_parser(fault, help=text)
        inject.add_argument("node")
        inject.add_argument("nic")
    return parser


def _existing() -> Cluster:
    if not (clusters_directory() / f"ipmp-{NAME}" / "cluster.json").exists():
        raise SystemExit("there is no cluster: `make cluster` brings one up")
    return Cluster(NAME)


def _node_of(cluster: Cluster, name: str) -> str:
    if name not in cluster.nodes:
        raise SystemExit(f"there is no node {name}: the nodes are {', '.join(cluster.nodes)}")
    return name


def _down() -> None:
    tags = {*stale_clusters(), *(tag for tag in all_clusters() if tag == f"ipmp-{NAME}")}
    for tag in sorted(tags):
        remove_cluster(tag)
        print(f"{tag} removed")
    if not tags:
        print("there is no cluster")


def _status(cluster: Cluster) -> None:
    for name in cluster.processes:
        process = cluster.processes[name]
        print(f"{name:26} {'pid ' + str(process.pid) if process.alive() else 'ended'}")
    print(cluster.kubectl("get", "nodes", "-o", "wide"))


def _become(cluster: Cluster, tool: str, *arguments: str) -> NoReturn:
    command = cluster.control.command(tool, *arguments)
    os.execvpe(command[0], command, os.environ | {"KUBECONFIG": str(cluster.control.kubeconfig)})


def _shell(cluster: Cluster, *arguments: str) -> NoReturn:
    """Become a shell on the API server's host, where the commands of docs/ do what they say."""
    *enter, kubectl = cluster.control.command("kubectl")
    path = f"{Path(kubectl).parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"KUBECONFIG": str(cluster.control.kubeconfig), "PATH": path}
    os.execvpe(enter[0], [*enter, "bash", *arguments], environment)


def _ipmpstat(cluster: Cluster, node: str, *arguments: str) -> NoReturn:
    pod = agent_pod(cluster, _node_of(cluster, node))
    if not pod:
        raise RuntimeError(f"no agent runs on {node}: is there an IPMPGroup that selects it?")
    place = ("--namespace", pod["metadata"]["namespace"], pod["metadata"]["name"])
    _become(cluster, "kubectl", "exec", *place, "--", "ipmpstat", *arguments)


def _inject(cluster: Cluster, fault: str, node: str, nic: str) -> None:
    nics = cluster.network.nodes[_node_of(cluster, node)].nics
    if nic not in nics:
        raise SystemExit(f"{node} has no NIC {nic}: it has {', '.join(nics)}")
    getattr(nics[nic], fault)()
    cluster.network.close()


def _terminated(number: int, frame: FrameType | None) -> None:
    """Turn SIGTERM into an exception, so that what was begun is removed as with Ctrl-C."""
    raise SystemExit(128 + number)


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; problems that a person can solve end with a message and code 1."""
    arguments = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        _run(arguments)
    except RuntimeError as error:
        sys.exit(f"error: {error}")


def _run(arguments: argparse.Namespace) -> None:
    match arguments.command:
        case "build":
            build()
            build_judge()
        case "image":
            image = build_image()
            print(f"{image.name} {image.archive}")
        case "up":
            play(arguments.emulated_version)
        case "down":
            _down()
        case "status":
            _status(_existing())
        case "kubectl" | "helm" as tool:
            _become(_existing(), tool, *arguments.arguments)
        case "shell":
            _shell(_existing(), *arguments.arguments)
        case "ipmpstat":
            _ipmpstat(_existing(), arguments.node, *arguments.arguments)
        case "node":
            cluster = _existing()
            sys.stdout.write(cluster.nodes[_node_of(cluster, arguments.node)].run(*arguments.arguments))
        case fault:
            _inject(_existing(), fault, arguments.node, arguments.nic)


if __name__ == "__main__":
    main()
