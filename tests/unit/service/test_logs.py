"""A process's log: its lines, and that nobody waits for who reads them."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import threading
from typing import Any

import pytest

from ipmp_service import logs
from ipmp_service.logs import Log

pytestmark = pytest.mark.usefixtures("logging_restored")


def logged(style: str, *records: tuple[str, dict[str, Any]]) -> list[str]:
    stream = io.StringIO()
    out = Log(style, "info", before=("place", "part"), after=("reason",), stream=stream)
    for message, extra in records:
        logging.getLogger("some.module").error(message, extra=extra)
    logging.getLogger("some.module").debug("too much")
    out.close(30)
    return stream.getvalue().splitlines()


FAILURE = ("it broke", {"place": "here", "part": 7, "reason": "Wear", "other": "x"})


def test_text_has_fields_around_the_message() -> None:
    line, plain = logged("text", FAILURE, ("well", {}))
    assert line.endswith("Z ERROR   here 7: it broke [Wear]")
    assert plain.endswith("Z ERROR   well")


def test_json_is_one_object_a_line() -> None:
    line, plain = logged("json", FAILURE, ("two\nlines", {}))
    entry = json.loads(line)
    assert len(entry.pop("time")) == len("2026-01-01T00:00:00.000000Z")
    assert entry == {
        "level": "error",
        "message": "it broke",
        "place": "here",
        "part": 7,
        "reason": "Wear",
        "logger": "some.module",
    }
    assert json.loads(plain)["message"] == "two\nlines"


@pytest.mark.parametrize("style", ["text", "json"])
def test_traceback_is_told(style: str) -> None:
    stream = io.StringIO()
    out = Log(style, "info", stream=stream)
    try:
        int("gone")
    except ValueError:
        logging.getLogger("some.module").exception("it broke")
    out.close(30)
    assert "ValueError: invalid literal" in stream.getvalue()


def test_record_that_cannot_be_written_costs_itself_alone() -> None:
    dropped: list[int] = []
    stream = io.StringIO()
    out = Log("json", "info", before=("place",), dropped=lambda: dropped.append(1), stream=stream)
    logging.getLogger("some.module").error("first", extra={"place": object()})
    logging.getLogger("some.module").error("second")
    out.close(30)
    assert len(dropped) == 1
    assert json.loads(stream.getvalue())["message"] == "second"


def test_reader_that_stands_still_costs_records_and_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "BACKLOG", 10)
    release, dropped = threading.Event(), []

    class Stuck(io.StringIO):
        def write(self, text: str) -> int:
            assert release.wait(30)
            return super().write(text)

    stream = Stuck()
    out = Log("text", "info", dropped=lambda: dropped.append(1), stream=stream)
    for number in range(100):
        logging.getLogger("some.module").error("%d", number)
    assert len(dropped) >= 85
    release.set()
    out.close(30)
    assert len(stream.getvalue().splitlines()) == 100 - len(dropped)


def test_process_ends_although_nobody_reads_its_log() -> None:
    script = (
        "import logging; from ipmp_service.logs import Log; out = Log('text', 'info');"
        "[logging.error('x' * 1000) for _ in range(1000)]; out.close(0.1); print('done', flush=True)"
    )
    reader, writer = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=writer, timeout=60, check=False
        )
    finally:
        os.close(reader)
        os.close(writer)
    assert (done.returncode, done.stdout) == (0, b"done\n")


def test_signal_may_log_while_its_thread_logs() -> None:
    script = (
        "import logging, signal; from ipmp_service.logs import Log; out = Log('text', 'info');"
        "signal.signal(signal.SIGALRM, lambda *_: logging.error('signal'));"
        "signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005);"
        "[logging.error('main') for _ in range(20000)];"
        "signal.setitimer(signal.ITIMER_REAL, 0); out.close(30)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert "signal" in done.stderr
