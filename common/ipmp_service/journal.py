"""Records for journald with fields of their own, by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL)."""

from __future__ import annotations

import logging
import os
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PATH = "/run/systemd/journal/socket"

PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""Of syslog, by the least level that has them; below them all it is 7."""


def is_journal(environment: Mapping[str, str], descriptor: int = 2) -> bool:
    """Whether this descriptor is the stream to journald that the service manager gave this process."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def priority(level: int) -> int:
    """The syslog priority of a level of `logging`."""
    return next((number for least, number in PRIORITIES if level >= least), 7)


def entry(fields: Iterable[tuple[str, str]]) -> bytes:
    """One entry as bytes. A value with a line break stands behind its length, 64 bits with the lowest byte first."""
    parts = []
    for name, value in fields:
        data = value.encode(errors="backslashreplace")
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)


class JournalFormatter(logging.Formatter):
    """Records as entries: message, priority, logger, and these extra fields in capitals where a record has them."""

    def __init__(self, identifier: str, fields: Sequence[str] = ()) -> None:
        super().__init__()
        self._identifier = identifier
        self._extra = fields

    def fields(self, record: logging.LogRecord) -> list[tuple[str, str]]:
        """What an entry has of a record."""
        message = record.getMessage()
        if record.exc_info:
            message += f"\n{self.formatException(record.exc_info)}"
        found = [
            ("MESSAGE", message),
            ("PRIORITY", str(priority(record.levelno))),
            ("SYSLOG_IDENTIFIER", self._identifier),
            ("LOGGER", record.name),
        ]
        extra = ((name, getattr(record, name, None)) for name in self._extra)
        return found + [(name.upper(), str(value)) for name, value in extra if value is not None]


def send(data: bytes) -> None:
    """Hand over an entry, waiting for journald where it is behind. Raises OSError: away, or more than it takes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as way:
        way.sendto(data, PATH)
