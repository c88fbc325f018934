"""Where the process `ipmp-agent` begins: it hears SIGHUP before it imports what takes a second on a busy machine."""

from __future__ import annotations

import os
import sys

from ipmp_agent.process import vacancy
from ipmp_agent.process.hangup import Hangup


def main() -> int:
    """Run a command; returns the exit status."""
    hangup = Hangup()
    if sys.argv[1:2] == ["run"]:  # any other command ends with its terminal
        hangup.catch()
    if os.environ.pop(vacancy.STANDS_BY, ""):
        vacancy.wait(lambda words: print(f"ipmp-agent: {words}", file=sys.stderr, flush=True))
    from ipmp_agent.commands import ipmp_agent  # noqa: PLC0415 - the signal comes first

    return ipmp_agent.main(hangup=hangup)
