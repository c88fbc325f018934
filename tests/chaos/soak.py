"""A long, bad time: `python -m tests.chaos.soak --minutes N --seed N`.

Two hosts whose every cable loses 2 % of the frames. One link flaps now and then, agents are starved and stopped.
Nothing else is wrong, so no probe may condemn a member, and agents must not grow.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections import Counter

from tests.chaos.wires import pause
from tests.chaos.world import Lasting, Size, World, key_of, size
from tests.lab.filters import Direction, PortFilter
from tests.lab.load import busy_machine

LOSS = PortFilter(drop=frozenset(Direction), percent=2)
FALSE = "ProbesLost"
"""The reason of a failure that nothing here explains: cables are seen by their links."""
WARM = 300.0
"""Seconds until memory is compared with: caches are full by then."""


def read_options(program: str, words: str | None) -> argparse.Namespace:
    """The options of a soak; from now on SIGTERM ends it as an exception does."""
    parser = argparse.ArgumentParser(
        f"python -m {program}", description=words, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    return options


def main() -> int:
    """Run, and say what came of it; 1 when a member was condemned or an agent grew."""
    options = read_options("tests.chaos.soak", __doc__)
    chance, did = random.Random(options.seed), Counter[str]()
    with World("two", milliseconds=1000) as world:
        ends = tuple((nic.switch.name, nic.port, LOSS) for side in world.sides for nic in side.nics)
        world.disturb()  # cables are pulled: addresses move
        world.last("loss", Lasting(filters=ends))
        began = time.monotonic()
        end = began + 60 * options.minutes
        warm, told = _sizes(world), began
        is_warm = False
        while time.monotonic() < end:
            what = chance.choice(["flap", "stop", "starve", "nothing", "nothing"])
            did[what] += 1
            _do(world, what, chance)
            if not is_warm and time.monotonic() > began + min(WARM, 30 * options.minutes):
                is_warm, warm = True, _sizes(world)
            if time.monotonic() > told + 60:
                told = time.monotonic()
                print(f"{told - began:6.0f} s: {_said(world)}, {_condemned(world)} condemned", flush=True)
        grown = [
            text
            for before, side in zip(warm, world.sides, strict=True)
            if (text := before.grown(size(side.agent.running.pid)))
        ]
        condemned = _condemned(world)
        print(f"{options.minutes:.0f} minutes, seed {options.seed}, {dict(did)}, load {os.getloadavg()[1]:.1f}")
        print(f"condemned by probes: {condemned}; warm {[one.resident >> 20 for one in warm]} MiB, now {_said(world)}")
        world.check()
        return 1 if condemned or grown else 0


def _do(world: World, what: str, chance: random.Random) -> None:
    side = world.side(chance.randrange(2))
    if what == "flap":
        nic = side.nics[1]
        for _ in range(chance.randint(1, 3)):
            world.last(
                "flap",
                Lasting(
                    down=frozenset({(nic.switch.name, nic.port)}), dead=frozenset({(side.number, key_of(side, nic))})
                ),
            )
            pause(chance.uniform(0.05, 1))
            world.mend("flap")
            pause(chance.uniform(0.05, 1))
    elif what == "stop":
        side.agent.suspend()
        pause(chance.uniform(0.05, 3))
        side.agent.resume()
    elif what == "starve":
        with busy_machine():
            pause(chance.uniform(0.5, 4))
    pause(chance.uniform(0.5, 3))


def _sizes(world: World) -> list[Size]:
    return [size(side.agent.running.pid) for side in world.sides]


def _said(world: World) -> str:
    return ", ".join(f"{one.resident / 2**20:.1f} MiB {one.descriptors} fds" for one in _sizes(world))


def _condemned(world: World) -> int:
    """How often a probe condemned a member."""
    entries = [entry for side in world.sides for entry in side.agent.log()]
    return sum(entry.get("reason") == FALSE and entry.get("level") == "error" for entry in entries)


if __name__ == "__main__":
    sys.exit(main())
