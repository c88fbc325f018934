"""A process's log: a line for each record, text or JSON, on standard error; to journald an entry with fields.

Records are written by a thread of their own: whoever reads the pipe may stand still, and nobody who logs waits for it.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BACKLOG = 4096
"""Records that may wait for the reader; later ones are dropped and counted."""

QUIET = {"kubernetes": logging.WARNING, "urllib3": logging.ERROR}
"""Libraries that tell of every request; what comes of those is in our own log."""


class TextFormatter(logging.Formatter):
    """For people: time, level, the extra fields `before`, message, and those `after` in brackets."""

    def __init__(self, before: Sequence[str] = (), after: Sequence[str] = ()) -> None:
        super().__init__()
        self._before = before
        self._after = after

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback if there is one."""
        before, after = _fields(record, self._before), _fields(record, self._after)
        line = f"{_timestamp(record)} {record.levelname:<7} "
        line += f"{' '.join(map(str, before.values()))}: " if before else ""
        line += record.getMessage()
        line += f" [{' '.join(map(str, after.values()))}]" if after else ""
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JSONFormatter(logging.Formatter):
    """For machines: one object a line, with these extra fields where a record has them."""

    def __init__(self, fields: Sequence[str] = ()) -> None:
        super().__init__()
        self._extra = fields

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object."""
        entry = {"time": _timestamp(record), "level": record.levelname.lower(), "message": record.getMessage()}
        entry |= _fields(record, self._extra)
        entry["logger"] = record.name
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def _fields(record: logging.LogRecord, names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(record, name, None)) is not None}


def _timestamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class _DroppingHandler(logging.Handler):
    """Queues records as they are; formatting is the writer's work. A full queue costs a record, never time."""

    # QueueHandler brings pickle and socket servers, half a MiB, and waits where its queue is full.

    def __init__(self, records: queue.SimpleQueue[Any], dropped: Callable[[], None]) -> None:
        super().__init__()
        self._records = records
        self._dropped = dropped

    def emit(self, record: logging.LogRecord) -> None:
        if self._records.qsize() >= BACKLOG:
            self._dropped()
            return
        try:
            record.msg = record.getMessage()  # arguments may change before the writer comes to them
        except Exception:  # noqa: BLE001 - arguments that do not fit the message: where to tell?
            self._dropped()
            return
        record.args = None
        self._records.put(record)


class Log:
    """The log of one process, from its making to `close`.

    Args:
        style: `text` or `json`.
        level: the least level that is written, such as `info`.
        before: extra fields of records that text has before the message.
        after: extra fields that text has after it, in brackets.
        dropped: called for every record that was not written.
        stream: where to write, in place of standard error.
        identifier: by which journald knows the process, where standard error is a stream to it and the style is text.
    """

    def __init__(
        self,
        style: str,
        level: str,
        *,
        before: Sequence[str] = (),
        after: Sequence[str] = (),
        dropped: Callable[[], None] = lambda: None,
        stream: TextIO | None = None,
        identifier: str = "",
    ) -> None:
        self._formatter = JSONFormatter((*before, *after)) if style == "json" else TextFormatter(before, after)
        self._write: Callable[[str], object] = stream.write if stream else _write_to_standard_error
        self._write_record: Callable[[logging.LogRecord], None] = self._write_line
        if identifier and style == "text" and stream is None and "JOURNAL_STREAM" in os.environ:
            self._write_record = _to_journal((*before, *after), identifier, self._write_line) or self._write_line
        self._dropped = dropped
        # A signal handler may log while its thread is in here: of the queues, this one alone bears that.
        self._records: queue.SimpleQueue[logging.LogRecord | None] = queue.SimpleQueue()
        self._handler = _DroppingHandler(self._records, dropped)
        self._thread = threading.Thread(target=self._write_records, name="log", daemon=True)
        root = logging.getLogger()
        root.handlers = [self._handler]
        root.setLevel(level.upper())
        for name, quiet in QUIET.items():
            logging.getLogger(name).setLevel(quiet)
        logging.raiseExceptions = False  # a broken pipe must not print tracebacks into itself
        self._thread.start()

    def close(self, timeout: float = 2.0) -> None:
        """Write what waits, for at most `timeout` seconds."""
        logging.getLogger().removeHandler(self._handler)
        self._records.put(None)
        self._thread.join(timeout)

    def _write_records(self) -> None:
        while (record := self._records.get()) is not None:
            try:
                self._write_record(record)
            except Exception:  # noqa: BLE001 - a reader that went, a record that cannot be formatted: where to tell?
                self._dropped()

    def _write_line(self, record: logging.LogRecord) -> None:
        self._write(f"{self._formatter.format(record)}\n")


def _to_journal(
    fields: Sequence[str], identifier: str, otherwise: Callable[[logging.LogRecord], None]
) -> Callable[[logging.LogRecord], None] | None:
    """What hands a record to journald, and `otherwise` what it does not take; None: standard error is not its."""
    from ipmp_service import journal  # noqa: PLC0415 - nothing that a container needs

    if not journal.is_journal(os.environ):
        return None
    formatter = journal.JournalFormatter(identifier, fields)

    def write(record: logging.LogRecord) -> None:
        data = journal.entry(formatter.fields(record))
        try:
            journal.send(data)
        except OSError:
            otherwise(record)

    return write


def _write_to_standard_error(text: str) -> None:
    # Past sys.stderr: a process ends by taking its lock, which a writer has whom the reader of the pipe lets stand.
    data = text.encode(errors="backslashreplace")
    while data:
        data = data[os.write(2, data) :]
