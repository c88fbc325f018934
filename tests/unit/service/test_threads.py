"""Threads that outlive their faults, and calls that may hang."""

from __future__ import annotations

import ast
import asyncio
import threading
from pathlib import Path

import pytest

from ipmp_service import threads
from ipmp_service.threads import aside, kept


def test_work_is_begun_anew_until_it_returns(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(threads, "PAUSE", 0.001)
    faults = [KeyError("a"), MemoryError(), RecursionError()]

    def work() -> None:
        if faults:
            raise faults.pop()

    thread = kept(work, "worker 7")
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert not faults
    assert caplog.text.count("thread worker 7 met a fault and begins anew") == 3


ROOT = Path(__file__).parents[3]
SOURCES = [*ROOT.glob("node-agent/ipmp_agent/**/*.py"), *ROOT.glob("operator/**/*.py"), *ROOT.glob("common/**/*.py")]
BY_THEMSELVES = {
    "common/ipmp_service/threads.py",  # makes those that are kept, and those for a moment
    "common/ipmp_service/logs.py",  # counts whatever befalls a record: a log of its own faults it has not
    "node-agent/ipmp_agent/commands/names.py",  # of a command, for a second
}


def test_every_thread_that_stays_is_begun_anew_after_a_fault() -> None:
    """One that dies would leave a process that looks well and does half of its work."""
    found = {
        str(path.relative_to(ROOT))
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "Thread"
    }
    assert found == BY_THEMSELVES, "make it with ipmp_service.threads.kept"


def test_what_is_done_aside_says_what_came_of_it() -> None:
    assert asyncio.run(aside(lambda: 7)) == 7
    with pytest.raises(ZeroDivisionError):
        asyncio.run(aside(lambda: 1 // 0))


def test_process_ends_while_a_question_still_hangs() -> None:
    released, entered = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        released.wait(30)

    async def work() -> None:
        asking = asyncio.ensure_future(aside(hang))
        assert await asyncio.to_thread(entered.wait, 10)
        asking.cancel()

    ended = threading.Thread(target=lambda: asyncio.run(work()), daemon=True)
    ended.start()
    try:
        ended.join(10)
        assert not ended.is_alive()
    finally:
        released.set()


def test_answer_that_comes_after_the_end_disturbs_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    released, answered = threading.Event(), threading.Event()

    def late() -> None:
        released.wait(30)
        answered.set()

    async def work() -> None:
        asking = asyncio.ensure_future(aside(late))
        await asyncio.sleep(0.05)
        asking.cancel()

    asyncio.run(work())
    before = set(threading.enumerate())
    released.set()
    assert answered.wait(10)
    for thread in before - {threading.current_thread()}:
        if thread.name == "aside":
            thread.join(10)
    assert "Traceback" not in capfd.readouterr().err
