"""Records for journald, as it reads them."""

from __future__ import annotations

import logging
import os
import socket
import struct
from typing import TYPE_CHECKING

import pytest

from ipmp_service import journal
from ipmp_service.logs import Log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


pytestmark = pytest.mark.usefixtures("logging_restored")


@pytest.fixture
def journald(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Its socket, and a standard error that is its stream."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "journal"))
        receiver.settimeout(30)
        monkeypatch.setattr(journal, "PATH", str(tmp_path / "journal"))
        found = os.fstat(2)
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        yield receiver


def entry(data: bytes) -> dict[str, str]:
    """What journald makes of a datagram."""
    found = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if equals:
            data = rest
        else:
            (length,) = struct.unpack("<Q", rest[:8])
            value, data = rest[8 : 8 + length], rest[9 + length :]
        found[name.decode()] = value.decode()
    return found


def test_records_have_fields_of_their_own(journald: socket.socket) -> None:
    out = Log("text", "info", before=("group", "interface"), after=("reason",), identifier="ipmp-agent")
    extra = {"group": "lab", "interface": "nic0", "reason": "LinkDown", "other": 1}
    logging.getLogger("some.module").error("failure of %s", "nic0", extra=extra)
    try:
        int("gone")
    except ValueError:
        logging.getLogger("some.module").exception("it broke")
    out.close(30)
    assert entry(journald.recv(1 << 16)) == {
        "MESSAGE": "failure of nic0",
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "ipmp-agent",
        "LOGGER": "some.module",
        "GROUP": "lab",
        "INTERFACE": "nic0",
        "REASON": "LinkDown",
    }
    broken = entry(journald.recv(1 << 16))
    assert broken["MESSAGE"].startswith("it broke\nTraceback")
    assert "ValueError: invalid literal" in broken["MESSAGE"]
    assert "GROUP" not in broken


@pytest.mark.parametrize(
    ("level", "number"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 2)],
)
def test_levels_have_the_priorities_of_syslog(level: int, number: int) -> None:
    assert journal.priority(level) == number


def test_what_journald_does_not_take_stands_on_standard_error(
    journald: socket.socket, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = os.fstat(2)  # of the capture
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    out = Log("text", "info", identifier="ipmp-agent")
    logging.getLogger("some.module").error("x" * (4 << 20))
    journald.close()
    logging.getLogger("some.module").error("nobody is there")
    out.close(30)
    long, away = capfd.readouterr().err.splitlines()
    assert long.endswith("xxx")
    assert away.endswith("nobody is there")


@pytest.mark.parametrize("stream", [None, "1:2", "", "pipe"])
def test_standard_error_that_is_no_stream_of_journald_has_lines(
    stream: str | None, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal below a service has the variable, too."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    if stream is not None:
        monkeypatch.setenv("JOURNAL_STREAM", stream)
    out = Log("text", "info", identifier="ipmp-agent")
    logging.getLogger("some.module").error("here")
    out.close(30)
    assert capfd.readouterr().err.endswith("ERROR   here\n")


def test_a_style_that_was_asked_for_is_kept(journald: socket.socket, capfd: pytest.CaptureFixture[str]) -> None:
    out = Log("json", "info", identifier="ipmp-agent")
    logging.getLogger("some.module").error("here")
    out.close(30)
    assert '"message": "here"' in capfd.readouterr().err
