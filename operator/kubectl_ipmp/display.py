"""Text on a terminal or in a pipe: colours where they are wanted, tables, and how long ago something was."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COLOURS = {
    "ok": "32",
    "ready": "32",
    "up": "32",
    "degraded": "33",
    "unknown": "33",
    "offline": "33",
    "slow": "33",
    "failed": "31",
    "down": "31",
    "dead": "31",
    "not ready": "31",
    "not accepted": "31",
}
"""SGR codes of the words of states: green, yellow, red."""

MINUTE, HOUR, DAY = 60, 3600, 86400


class Display:
    """Where a command prints.

    Args:
        stream: standard output.
        colour: None: where the stream is a terminal that is not dumb, and NO_COLOR is empty (https://no-color.org).
    """

    def __init__(self, stream: TextIO | None = None, *, colour: bool | None = None) -> None:
        self.stream = stream or sys.stdout
        wanted = self.stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.colour = wanted if colour is None else colour
        encoding = (getattr(self.stream, "encoding", None) or "ascii").lower().replace("-", "")
        self.branches = ("├─ ", "└─ ", "│  ") if encoding.startswith("utf") else ("|- ", "`- ", "|  ")

    def line(self, text: str = "") -> None:
        """Print one line; what the stream cannot write becomes a question mark."""
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        self.stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")

    def state(self, word: str, width: int = 0) -> str:
        """The word of a state, padded to a width in columns, in its colour."""
        code = COLOURS.get(word)
        padded = word.ljust(width)
        return f"\x1b[{code}m{word}\x1b[0m{padded[len(word) :]}" if self.colour and code else padded

    def bold(self, text: str) -> str:
        """The text, bold."""
        return f"\x1b[1m{text}\x1b[0m" if self.colour else text

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Columns as kubectl prints them; a cell that is the word of a state has its colour."""
        whole = [list(head), *(list(row) for row in rows)]
        widths = [max(len(row[column]) for row in whole) for column in range(len(head))]
        last = len(head) - 1
        for row in whole:
            cells = [self.state(cell, 0 if at == last else widths[at] + 3) for at, cell in enumerate(row)]
            self.line("".join(cells).rstrip())


def parse_time(text: str | None) -> datetime | None:
    """An RFC 3339 time; None for none, and for what is no time."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def ago(text: str | None, now: datetime | None = None) -> str:
    """How long ago a time was, in at most two units, as kubectl says it; "-" for none."""
    found = parse_time(text)
    if found is None:
        return "-"
    seconds = max(0, int(((now or datetime.now(UTC)) - found).total_seconds()))
    if seconds < 2 * MINUTE:
        return f"{seconds}s"
    if seconds < 2 * HOUR:
        return f"{seconds // MINUTE}m"
    if seconds < 2 * DAY:
        return f"{seconds // HOUR}h{seconds % HOUR // MINUTE}m"
    return f"{seconds // DAY}d{seconds % DAY // HOUR}h"


def milliseconds(microseconds: int | None) -> str:
    """A duration that people can read."""
    if microseconds is None:
        return "-"
    if microseconds < 10_000:
        return f"{microseconds / 1000:.1f}ms"
    return f"{microseconds / 1000:.0f}ms" if microseconds < 1_000_000 else f"{microseconds / 1e6:.1f}s"
