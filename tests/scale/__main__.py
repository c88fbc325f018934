"""Thousands of nodes for the operator: `python -m tests.scale --nodes N [--scenes a,b,...] [--beside COMMIT]`.

A real etcd and API server (and the garbage collector), nobody else of Kubernetes; nodes, agents' pods and agents are
played by this program over the API. Prints what each scene cost the operator, the API server and etcd, in CPU seconds:
wall times depend on what else the machine does. Ends with 1 where anything was written wrongly.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.build import build
from tests.cluster.controlplane import API_SERVER
from tests.scale.scenes import SCENES, SHARE
from tests.scale.stage import Stage
from tests.sources import sources

if TYPE_CHECKING:
    from tests.scale.meters import Bill

GROUP_STATUS = "APPLY ipmpgroups/status"


def main() -> int:
    """Play, and print."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # the finalizers run, and the cluster goes
    build()
    chosen = [scene for scene in SCENES if scene.letter in options.scenes]
    bills: dict[str, dict[str, Bill]] = {}
    faults = 0
    alone = "s" in options.scenes  # the other one comes after this one, to what it has written
    for commit in (None, *filter(None, [options.beside if not alone else None])):
        build_name = commit or "here"
        bills[build_name] = {}
        with contextlib.ExitStack() as stack:
            tree = stack.enter_context(sources(commit))
            other = stack.enter_context(sources(options.beside)) if "s" in options.scenes else None
            stage = stack.enter_context(Stage(options.nodes, tree, options.nodes // SHARE, other))
            for scene in chosen:
                print(f"{build_name}, {scene.letter}: {scene.what} ({time.strftime('%H:%M:%S')})", flush=True)
                bill = bills[build_name][scene.letter] = stage.bill(scene.play)
                show(bill)
        faults += sum(len(bill.faults) for bill in bills[build_name].values()) if commit is None else 0
    summarize(bills, options.nodes)
    if options.json:
        whole = {name: {letter: vars(bill) for letter, bill in found.items()} for name, found in bills.items()}
        options.json.write_text(json.dumps(whole, indent=1), encoding="utf-8")
    return 1 if faults else 0


def _options() -> argparse.Namespace:
    letters = "\n".join(f"  {scene.letter}  {scene.what}" for scene in SCENES)
    parser = argparse.ArgumentParser(
        "python -m tests.scale",
        description=__doc__,
        epilog=f"scenes:\n{letters}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--nodes", type=int, default=500, help="(default: %(default)s)")
    every = ",".join(scene.letter for scene in SCENES if scene.letter != "s")
    parser.add_argument(
        "--scenes",
        type=lambda text: text.replace(",", ""),
        default=every,
        metavar="a,b,...",
        help="all but a, i and j need a before them; s is the last (default: all but s)",
    )
    parser.add_argument("--beside", metavar="COMMIT", help="then play the same with the operator of another commit")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    return parser.parse_args()


def show(bill: Bill) -> None:
    """Print one bill."""
    cpu = ", ".join(f"{name} {seconds:.1f}" for name, seconds in bill.cpu.items())
    print(f"  {bill.seconds:.0f} s; CPU s: {cpu}")
    print(f"  operator: peak {bill.peak:.0f} MiB, then {bill.after:.0f}; API server {bill.server_memory:.0f} MiB")
    print(f"  specs created {bill.created}, written again {bill.respecified}; reports {bill.reports}")
    print("  requests: " + ", ".join(f"{name} {count}" for name, count in sorted(bill.requests.items())))
    for name, value in bill.facts.items():
        print(f"  {name}: {value:.2f}" if isinstance(value, float) else f"  {name}: {value}")
    for fault in bill.faults[:20]:
        print(f"  WRONG: {fault}")
    sys.stdout.flush()


def summarize(bills: dict[str, dict[str, Bill]], nodes: int) -> None:
    """Print a table of all scenes, the builds beside each other, with the ratios of the first to the second."""
    print(f"\n{nodes} nodes, {os.cpu_count()} cores, Linux {platform.release()}, load {os.getloadavg()[1]:.1f}")
    head = ("CPU of the operator", "of the API server", "of etcd", "peak, MiB", "specs again", "group writes")
    print(f"{'scene':30} {'build':>9} " + " ".join(f"{title:>20}" for title in head))
    names = list(bills)
    for scene in SCENES:
        rows = []
        for name in names:
            bill = bills[name].get(scene.letter)
            if bill is not None:
                rows.append(_figures(bill))
                cells = " ".join(f"{value:>20.1f}" for value in rows[-1])
                print(f"{scene.letter + ' ' + scene.what:30} {name:>9} {cells}")
        if len(rows) == 2:
            _show_ratio(*rows)
    sums = [[sum(column) for column in zip(*map(_figures, bills[name].values()), strict=True)] for name in names]
    for name, total in zip(names, sums, strict=True):
        print(f"{'all, peaks aside':30} {name:>9} " + " ".join(f"{value:>20.1f}" for value in total))
    if len(sums) == 2:
        _show_ratio(*sums)


def _figures(bill: Bill) -> list[float]:
    cpu = [bill.cpu["operator"], bill.cpu[API_SERVER], bill.cpu["etcd"]]
    return [*cpu, bill.peak, bill.respecified, bill.requests[GROUP_STATUS]]


def _show_ratio(here: list[float], there: list[float]) -> None:
    cells = [f"{one / other:>20.2f}" if other else f"{'-':>20}" for one, other in zip(here, there, strict=True)]
    print(f"{'':30} {'ratio':>9} " + " ".join(cells))


if __name__ == "__main__":
    sys.exit(main())
