"""False failovers while nothing is broken: random loss, an agent that stands still, a busy machine.

Every failover counted here is a mistake; the goal is none. Beside the agent runs keepalived with the advertisement
interval given, which has to live through the same loss and the same load: its changes of master are counted likewise.

Needs root, nftables and keepalived. Run: python benchmarks/stability.py [--minutes 10]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a file, it finds its neighbours all the same

from benchmarks.peers.keepalived import Pair
from tests import invariants
from tests.lab import Lab
from tests.lab.load import busy_machine
from tests.lab.scene import DATA_ADDRESSES, Scene

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab import Agent

LOSS_PERCENT = 2.0
STANDSTILLS, STANDSTILL, BREATH = 20, 5.0, 2.0
VIRTUAL = "198.18.0.150/24"


@dataclass(frozen=True)
class Outcome:
    """One trial: how many moves and failures ours made, how many changes of master keepalived made."""

    title: str
    seconds: float
    moves: int
    failures: int
    lost: int
    changes: int | None


def failures(agent: Agent) -> int:
    """Interface and group failures since the agent started, from its metrics."""
    lines = agent.metrics().splitlines()
    return round(
        sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("ipmp_interface_failures_total{"))
    )


def trial(title: str, milliseconds: int, advert: float | None, work: Callable[[Scene, Lab | None], None]) -> Outcome:
    """Run one trial on a fresh lab, with keepalived's pair beside it unless the trial is about our process alone."""
    with ExitStack() as stack:
        scene = stack.enter_context(Scene(changes={"milliseconds": milliseconds}))
        pair: Pair | None = None
        beside: Lab | None = None
        if advert is not None:
            beside = stack.enter_context(Lab(("eth0",), hosts=("left", "right"), peers=1))
            for i, name in enumerate(("left", "right")):
                beside.hosts[name].namespace.ip("address", "add", f"198.18.0.{11 + i}/24", "dev", "eth0")
            pair = stack.enter_context(Pair(beside, VIRTUAL, advert))
        homes, transitions = scene.homes(), pair.transitions if pair else 0
        start = time.monotonic()
        work(scene, beside)
        seconds = time.monotonic() - start
        moves = sum(len(scene.sniffer.moves(one.partition("/")[0])) for one in DATA_ADDRESSES)
        after = scene.homes()
        moves = max(moves, sum(1 for one in homes if homes[one] != after[one]))
        lost = sum(train.report().between(start, start + seconds - 0.5).lost for train in scene.pings.values())
        invariants.no_unhandled_exception(scene.agent.log_path.read_text(encoding="utf-8", errors="replace"))
        return Outcome(
            title, seconds, moves, failures(scene.agent), lost, pair.transitions - transitions if pair else None
        )


def lossy(seconds: float) -> Callable[[Scene, Lab | None], None]:
    """Lose a share of all frames at every member, in either direction."""

    def work(scene: Scene, beside: Lab | None) -> None:
        for lab in filter(None, (scene.lab, beside)):
            for host in lab.hosts.values():
                if not host.name.startswith("peer"):
                    for nic in host.nics.values():
                        nic.lose(LOSS_PERCENT)
        time.sleep(seconds)

    return work


def standing_still(times: int) -> Callable[[Scene, Lab | None], None]:
    """Stop the agent for five seconds, again and again."""

    def work(scene: Scene, _: Lab | None) -> None:
        for _number in range(times):
            scene.agent.suspend()
            time.sleep(STANDSTILL)
            scene.agent.resume()
            time.sleep(BREATH)

    return work


def starved(seconds: float) -> Callable[[Scene, Lab | None], None]:
    """Two busy loops per core."""

    def work(_: Scene, __: Lab | None) -> None:
        with busy_machine():
            time.sleep(seconds)

    return work


def main() -> int:
    """Run the trials; 1 if there was a false failover."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="length of the loss trial (default 10)")
    parser.add_argument("--standstills", type=int, default=STANDSTILLS, help=f"5 s stops (default {STANDSTILLS})")
    parser.add_argument("--detection-time", type=int, default=1000, metavar="MS", help="FDT (default 1000)")
    parser.add_argument("--advert", type=float, default=0.1, help="keepalived's advert_int in seconds (default 0.1)")
    arguments = parser.parse_args()
    if missing := [name for name in ("ip", "nft", "keepalived") if not shutil.which(name)]:
        parser.error(f"not on the PATH: {', '.join(missing)}")
    seconds = arguments.minutes * 60
    plans: list[tuple[str, float | None, Callable[[Scene, Lab | None], None]]] = [
        (f"{LOSS_PERCENT:g} % loss on all members", arguments.advert, lossy(seconds)),
        (f"agent stopped {arguments.standstills} times for 5 s", None, standing_still(arguments.standstills)),
        ("two busy loops per core", arguments.advert, starved(min(seconds, 60))),
    ]
    outcomes = []
    for title, advert, work in plans:
        print(f"{title} ...", flush=True)
        outcomes.append(trial(title, arguments.detection_time, advert, work))
    print(f"\n{'':<34}{'seconds':>9}{'moves':>8}{'failures':>10}{'pings lost':>12}{'keepalived changes':>20}")
    for one in outcomes:
        changes = "-" if one.changes is None else str(one.changes)
        print(f"{one.title:<34}{one.seconds:>9.0f}{one.moves:>8}{one.failures:>10}{one.lost:>12}{changes:>20}")
    print(
        f"FDT {arguments.detection_time} ms against advert_int {arguments.advert:g} s; the goal is 0 moves, 0 failures"
    )
    return 1 if any(one.moves or one.failures for one in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
