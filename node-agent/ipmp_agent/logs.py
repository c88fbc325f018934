"""The agent's log: one line a record, text or JSON, on standard error.

Records are written by a thread of their own: whoever reads the pipe may stand still, and no failover waits for it.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

BACKLOG = 4096
"""Records that may wait for the reader; later ones are dropped and counted."""

FIELDS = ("group", "interface", "reason")


class TextFormatter(logging.Formatter):
    """For people: time, level, group, interface, message, reason."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback if there is one."""
        where = " ".join(str(v) for f in FIELDS[:2] if (v := getattr(record, f, None)))
        reason = getattr(record, "reason", None)
        line = f"{_timestamp(record)} {record.levelname:<7} "
        line += f"{where}: " if where else ""
        line += record.getMessage()
        line += f" [{reason}]" if reason else ""
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JSONFormatter(logging.Formatter):
    """For machines: one object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object."""
        entry = {"time": _timestamp(record), "level": record.levelname.lower(), "message": record.getMessage()}
        entry |= {field: value for field in FIELDS if (value := getattr(record, field, None)) is not None}
        entry["logger"] = record.name
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def _timestamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class _DroppingHandler(logging.handlers.QueueHandler):
    """Queues records as they are; formatting is the writer's work. A full queue costs a record, never time."""

    def __init__(self, records: queue.Queue[logging.LogRecord | None], dropped: Callable[[], None]) -> None:
        super().__init__(records)
        self._dropped = dropped

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        record.message = record.getMessage()  # arguments may change before the writer comes to them
        record.args = None
        record.msg = record.message
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self._dropped()


class Log:
    """The log of one process, from its making to `close`."""

    def __init__(
        self, style: str, level: str, dropped: Callable[[], None] = lambda: None, stream: TextIO | None = None
    ) -> None:
        handler = logging.StreamHandler(stream or sys.stderr)
        handler.setFormatter(JSONFormatter() if style == "json" else TextFormatter())
        self._records: queue.Queue[logging.LogRecord | None] = queue.Queue(BACKLOG)
        self._listener = logging.handlers.QueueListener(self._records, handler)
        self._handler = _DroppingHandler(self._records, dropped)
        root = logging.getLogger()
        root.handlers = [self._handler]
        root.setLevel(level.upper())
        logging.getLogger("kubernetes").setLevel(logging.WARNING)
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        logging.raiseExceptions = False  # a broken pipe must not print tracebacks into itself
        self._listener.start()

    def close(self, timeout: float = 2.0) -> None:
        """Write what waits, for at most `timeout` seconds."""
        logging.getLogger().removeHandler(self._handler)
        deadline = time.monotonic() + timeout
        while not self._records.empty() and time.monotonic() < deadline:
            time.sleep(0.01)
        if self._records.empty():
            self._listener.stop()
