"""A failover to watch: a lab of network namespaces, the agent, traffic, and five acts with their measured gaps.

Needs root and `nft`; touches nothing outside the namespaces it makes, and removes them.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests import invariants
from tests.lab.scene import V4, V6, Scene

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.topology import Nic

PICTURE = f"""
     peer0                 peer1
       |                     |
  [ switch 0 ]=========[ switch 1 ]     one IP link, 198.18.0.0/24 and 2001:db8:0:1::/64
       |                     |
      nic0                 nic1
       +-------- host -------+          {V4} and {V6} are watched:
                                        a ping every 2 ms and a TCP stream to each
"""
REPOSITORY = Path(__file__).parents[2]
MANIFEST = REPOSITORY / "examples/lab.yaml"
SPACING = 0.002
LEAD = 0.5  # seconds of good service before each act, so that its gaps are its own
REST = 1.5  # seconds to watch after an act's end: repeats and retransmissions


@dataclass(frozen=True)
class Result:
    """What an act cost and whether it did what it should: the row of the last table."""

    title: str
    ping_gaps: dict[str, float]
    pings_lost: dict[str, int]
    stream_gaps: dict[str, float]
    trouble: str | None


class Stage:
    """Tells what happens, with the seconds since the curtain rose."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.began = time.monotonic()
        self.results: list[Result] = []
        self._bold, self._plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")

    def say(self, text: str) -> None:
        """Print one line of the account."""
        print(f"{time.monotonic() - self.began:7.2f} s  {text}", flush=True)

    def show(self, *modes: str) -> None:
        """Print what `ipmpstat` says in these modes."""
        for mode in modes:
            print(f"\n           $ ipmpstat -n {mode}")
            for line in self.scene.agent.ipmpstat("-n", mode).splitlines():
                print(f"           {line}")
        print(flush=True)

    def act(self, title: str, fault: Callable[[], float | None], ending: Callable[[float], None]) -> None:
        """Play one act: `fault` breaks or mends something, `ending` waits for what must follow and says so."""
        scene = self.scene
        print(f"\n{self._bold}Act {len(self.results) + 1}: {title}{self._plain}", flush=True)
        time.sleep(LEAD)
        start = time.monotonic()
        trouble = None
        try:
            ending(fault() or start)
            scene.flows()
            time.sleep(REST)
            scene.settle()
        except AssertionError as error:
            trouble = str(error)
            self.say(f"FAILED: {trouble}")
        end = time.monotonic() - 0.1  # the newest pings are still on their way
        pings = {one: train.report().between(start - 0.05, end) for one, train in scene.pings.items()}
        streams = {one: stream.report().between(start - 0.05, end) for one, stream in scene.streams.items()}
        broken = [f"TCP to {one}: {report.error}" for one, report in streams.items() if report.error]
        for one in scene.watched:
            self.say(
                f"{one:<19} {pings[one].lost:>4} pings lost, longest gap {pings[one].longest_outage * 1e3:6.0f} ms;"
                f" TCP {'broken' if streams[one].error else 'alive'}, gap {streams[one].longest_gap * 1e3:4.0f} ms"
            )
        self.results.append(
            Result(
                title,
                {one: report.longest_outage for one, report in pings.items()},
                {one: report.lost for one, report in pings.items()},
                {one: report.longest_gap for one, report in streams.items()},
                trouble or "; ".join(broken) or None,
            )
        )

    def table(self) -> None:
        """Print a row for each act."""
        print(f"\n{'':<34}{'longest ping gap, ms':>22}{'longest TCP gap, ms':>22}")
        print(f"{'':<34}{'IPv4':>11}{'IPv6':>11}{'IPv4':>11}{'IPv6':>11}   result")
        for result in self.results:
            gaps = [*(result.ping_gaps[one] for one in (V4, V6)), *(result.stream_gaps[one] for one in (V4, V6))]
            cells = "".join(f"{gap * 1e3:>11.0f}" for gap in gaps)
            print(f"{result.title:<34}{cells}   {'as it should' if result.trouble is None else 'FAILED'}")
        print(f"(pings every {SPACING * 1e3:g} ms, no loss shows as 0; TCP ticks every 5 ms, repeated after 200 ms)")


class Play:
    """The acts, on one stage."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.stage = Stage(scene)

    def announced(self, away_from: Nic, since: float, address: str) -> None:
        """Wait until an address is announced elsewhere, and say when it was."""
        other = self.scene.other(away_from)
        first = self.scene.sniffer.wait_announced(address, other.mac, since=since)
        self.stage.say(f"+{(first.time - since) * 1e3:6.1f} ms  {address} announced at {other.name} ({other.mac})")

    def moved_away(self, broken: Nic) -> Callable[[float], None]:
        """Return an ending: both addresses have left this NIC, and the group says degraded."""

        def ending(start: float) -> None:
            for address in (V4, V6):
                self.announced(broken, start, address)
                self.scene.wait_moved(address, broken)
            self.scene.wait_state("degraded")
            self.stage.show("-i", "-a")

        return ending

    def repaired(self, _: float) -> None:
        """Wait until the group is ok again."""
        start = time.monotonic()
        self.scene.wait_state("ok")
        self.stage.say(f"+{(time.monotonic() - start) * 1e3:6.0f} ms  ten probes in a row answered: repaired")
        self.stage.show("-i", "-a")

    def still(self, cause: str, seconds: float) -> Callable[[float], None]:
        """Return an ending: for so many seconds no address moves."""
        homes = self.scene.homes()

        def ending(_: float) -> None:
            time.sleep(seconds)
            invariants.nothing_moved(homes, self.scene.homes(), cause)
            self.stage.say("every address is where it was")

        return ending

    def restart(self) -> None:
        """Kill the agent and start it again."""
        self.scene.agent.kill()
        self.stage.say("agent killed: the kernel keeps what it has")
        time.sleep(1)
        self.scene.agent.start()
        self.stage.say("agent started: it takes over what it finds")

    def run(self) -> list[Result]:
        """Play all acts."""
        stage, nic = self.stage, self.scene.holder(V4)
        stage.say(f"{V4} is on {nic.name}, {V6} on {self.scene.holder(V6).name}")
        stage.show("-g", "-i", "-a", "-t")
        stage.act(f"the cable of {nic.name} is pulled", nic.unplug, self.moved_away(nic))
        stage.act("it is plugged in again", nic.plug, self.repaired)
        nic = self.scene.holder(V4)
        stage.act(f"{nic.name} falls silent, carrier up", nic.silence, self.moved_away(nic))
        stage.act("frames pass again", nic.restore, self.repaired)
        target = self.scene.lab.peer(1)
        stage.act("a probe target dies", target.ignore_probes, self.still("a dead target", 2))
        stage.act("the agent is killed and restarted", self.restart, self.still("a restart", 1))
        return stage.results


def main() -> int:
    """Play; 0 if every act went as it should."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.demo", description=__doc__)
    parser.parse_args()
    print(PICTURE)
    print("starting the lab, the agent and the traffic ...", flush=True)
    with Scene(manifest=MANIFEST, spacing=SPACING) as scene:
        print(
            f"agent: ipmp-agent run --file {MANIFEST.relative_to(REPOSITORY)} --node-name {scene.agent.node_name} ...\n"
        )
        play = Play(scene)
        results = play.run()
        play.stage.table()
    return verdict(results)


def verdict(results: list[Result]) -> int:
    """Return the exit status of a play, and say what went wrong."""
    failed = [result for result in results if result.trouble]
    for result in failed:
        print(f"\n{result.title}: {result.trouble}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
