"""`python -m ipmp_agent.simulate`: see what the agent would do, without an agent, a network or waiting."""

# ruff: noqa: T201 - a command prints
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ipmp_agent.simulate.documents import load
from ipmp_agent.simulate.picture import Picture
from ipmp_agent.simulate.replay import Replay
from ipmp_agent.simulate.report import require_plotly, write
from ipmp_agent.simulate.simulation import Simulation
from ipmp_agent.simulate.summary import Summary
from ipmp_agent.simulate.timeline import to_json, to_text
from ipmp_service.command import BadInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ipmp_agent.simulate.timeline import Entry

DIFFERS, BAD_INPUT, INTERRUPTED = 1, 2, 130
DIFFERENCES_SHOWN = 10

DESCRIPTION = """\
Replay faults against the core of the agent in virtual time and print what it does.

The files hold, as YAML documents in any order, one IPMPGroup and one FaultScript. An hour with two
interfaces takes seconds, and the same input always gives the same output.
"""

EPILOG = """\
example: nic0 loses its link for half a minute, then its frames silently
  kind: FaultScript
  seed: 1
  duration: 150                       # seconds
  network:
    targets: {198.18.0.1: 1}          # address: round trip in milliseconds
  faults:
    - {at: 30, cable: nic0, up: false}
    - {at: 60, cable: nic0, up: true}
    - {at: 120, silent: nic0, on: true}

  python -m ipmp_agent.simulate examples/lab.yaml faults.yaml

faults: cable, silent, target, loss, latency, offline, online, remove, add, suspend; see docs/simulator.md.

exit status: 0 done; 1 a replay decided otherwise than the agent had; 2 the input is wrong, with every wrong field.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        "python -m ipmp_agent.simulate",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", metavar="FILE", nargs="*", type=Path, help="YAML: an IPMPGroup and a FaultScript")
    parser.add_argument("--json", action="store_true", help="one object a line for each change, and nothing else")
    parser.add_argument(
        "--replay", metavar="RECORDING", type=Path, help="run what `ipmp-agent run --record` wrote through the core"
    )
    parser.add_argument(
        "--report", metavar="FILE", type=Path, help="also draw it, as one HTML page that needs no network"
    )
    options = parser.parse_args(arguments)
    if bool(options.files) == bool(options.replay):
        parser.error("give the files of a simulation, or --replay with a recording")
    try:
        if options.report:
            require_plotly()
        if options.replay:
            return _replay(options.replay, options.report, json=options.json)
        return _simulate(options.files, options.report, json=options.json)
    except BadInputError as error:
        for problem in error.problems:
            print(f"simulate: {problem}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _printer(*, json: bool) -> Callable[[Entry], None]:
    as_line = to_json if json else to_text

    def show(entry: Entry) -> None:
        line = as_line(entry)
        if line is not None:
            print(line)

    return show


def _simulate(files: Sequence[Path], target: Path | None, *, json: bool) -> int:
    group, script = load(files)
    progress = _progress(script.duration) if sys.stderr.isatty() else None
    simulation = Simulation(group, script, progress, probes=target is not None)
    picture = Picture(group, 0.0, 0.0)
    show = _printer(json=json)
    keys = [member.key for member in group.members]
    summary = Summary(keys, truth=True)
    if not json:
        print(f"group {group.group_name} on node {group.node_name}: {', '.join(keys)}")
        print(f"{len(group.data_addresses)} data addresses, {script.duration:g} s, seed {script.seed}\n")
    for entry in simulation.run():
        summary.take(entry)
        if target:
            picture.take(entry)
        show(entry)
    if not json:
        print(f"{script.duration:11.3f} ==> the end\n")
        for line in summary.lines(script.duration, simulation.snapshot()):
            print(line)
    if target:
        picture.end(script.duration)
        write(target, f"Simulation: {', '.join(file.name for file in files)}", [picture])
    return 0


def _replay(path: Path, target: Path | None, *, json: bool) -> int:
    played = Replay(path, _progress() if sys.stderr.isatty() else None, Picture if target else None)
    show = _printer(json=json)
    for entry in played.run():
        show(entry)
    if not json:
        print(*played.tables(), sep="\n")
    if target:
        write(target, f"Incident: {path.name}", played.pictures(), played.began)
    for difference in played.differences[:DIFFERENCES_SHOWN]:
        print(f"simulate: {difference}", file=sys.stderr)
    if played.differences:
        print(f"simulate: {len(played.differences)} decisions differ from the recorded ones", file=sys.stderr)
        return DIFFERS
    return 0


def _progress(duration: float | None = None) -> Callable[[float], None]:
    end = f" of {duration:.0f} s" if duration else " s"

    def show(now: float) -> None:
        print(f"{now:.0f}{end} ", end="\r", file=sys.stderr, flush=True)

    return show


if __name__ == "__main__":
    sys.exit(main())
