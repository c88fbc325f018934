"""How long `kubectl ipmp status` takes to start, read and print, beside `kubectl version --client` in the same run.

The plugin is the single file that `make plugin` writes; its kubectl is a stand-in that answers at once, so that what
is measured is the plugin and the start of two programs, and no API server. Runs of each in turn; the shortest tells
what the programs need, the median what this machine gives them just now.

Needs no root. Run: python benchmarks/plugin.py
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a file, it finds its neighbours all the same

from kubectl_ipmp import single_file
from tests.cluster.cache import cache_directory
from tests.unit.plugin.world import group, node_group

ANSWERS = """#!/bin/sh
case "$*" in *ipmpnodegroups*) exec cat "{0}/nodes" ;; *) exec cat "{0}/groups" ;; esac
"""


def peer() -> str | None:
    """A real kubectl: of the PATH, else of the cluster tests."""
    found = sorted(cache_directory().glob("cluster/*/kubectl"))
    return shutil.which("kubectl") or (str(found[0]) if found else None)


def seconds(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """By the clock from the start of a command to its end, and of processors, with its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    clock = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="of each (default %(default)d)")
    parser.add_argument("--nodes", type=int, default=10, help="in the cluster that is shown (default %(default)d)")
    parser.add_argument("--short", action="store_true", help="three runs of each: does it work")
    arguments = parser.parse_args()
    runs = 3 if arguments.short else arguments.runs
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        plugin = single_file.build(directory / "plugin")["kubectl-ipmp"]
        nodes = [node_group(f"node{number}") for number in range(arguments.nodes)]
        for file, items in (("groups", [group()]), ("nodes", nodes)):
            (directory / file).write_text(json.dumps({"items": items}), encoding="utf-8")
        stand_in = directory / "kubectl"
        stand_in.write_text(ANSWERS.format(directory), encoding="utf-8")
        stand_in.chmod(0o755)
        environment = os.environ | {"KUBECTL": str(stand_in)}
        commands = {
            "kubectl ipmp status": [sys.executable, str(plugin), "status"],
            "kubectl-ipmp version --client": [sys.executable, str(plugin), "version", "--client"],
            "python -c pass": [sys.executable, "-I", "-S", "-c", "pass"],
        }
        if real := peer():
            commands["kubectl version --client"] = [real, "version", "--client"]
        found: dict[str, list[tuple[float, float]]] = {title: [] for title in commands}
        for _ in range(runs):
            for title, command in commands.items():
                found[title].append(seconds(command, environment))
    print(
        f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {runs} runs of each"
    )
    print(f"{'milliseconds':<32} {'shortest':>9} {'median':>9} {'processor, least':>17}")
    for title, times in found.items():
        clock, processor = zip(*times, strict=True)
        print(
            f"{title:<32} {min(clock) * 1e3:>9.0f} {statistics.median(clock) * 1e3:>9.0f} {min(processor) * 1e3:>17.0f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
