"""A TCP stream of ticks, and the longest time in which none arrived."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from tests.lab.namespaces import Namespace

TICK = b"12345678"


class Sender(StrEnum):
    """Who sends the ticks."""

    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True)
class StreamReport:
    """Arrival times at the receiver, and what broke the connection, if anything did."""

    sent: int
    received: int
    arrivals: tuple[float, ...]
    error: str | None

    @property
    def longest_gap(self) -> float:
        """Longest time between two arrivals, in seconds; infinite if fewer than two came."""
        return max((after - before for before, after in itertools.pairwise(self.arrivals)), default=float("inf"))

    def between(self, start: float, end: float) -> StreamReport:
        """Return the part that arrived in this span of monotonic time, with the arrivals next to it on either side."""
        first = max((i for i, a in enumerate(self.arrivals) if a <= start), default=0)
        last = min((i for i, a in enumerate(self.arrivals) if a >= end), default=len(self.arrivals))
        return StreamReport(self.sent, self.received, self.arrivals[first : last + 1], self.error)

    def __str__(self) -> str:
        return (
            f"{self.received}/{self.sent} ticks, longest gap {self.longest_gap * 1e3:.1f} ms, {self.error or 'alive'}"
        )


@dataclass
class TcpStream:
    """One connection from `client` to `address` on `server`, carrying a tick every `spacing` seconds.

    The server listens on the wildcard address, so it can start before `address` is on any interface; at a port of its
    own unless one is named.
    """

    client: Namespace
    server: Namespace
    address: str
    sender: Sender = Sender.CLIENT
    spacing: float = 0.005
    source: str | None = None
    port: int = 0
    seen_from: str = field(default="", init=False)  # the client's address, as the server has it
    _arrivals: list[float] = field(default_factory=list, repr=False)
    _bytes: int = 0
    _sent: int = 0
    _error: str | None = None
    _stopping: threading.Event = field(default_factory=threading.Event, repr=False)

    def __enter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        listener = self.server.socket(family, socket.SOCK_STREAM)
        with listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a named port is used again at once
            listener.bind(("", self.port))
            listener.listen(1)
            outgoing = self.client.socket(family, socket.SOCK_STREAM)
            if self.source:
                outgoing.bind((self.source, 0))
            outgoing.settimeout(10)
            outgoing.connect((self.address, listener.getsockname()[1]))
            outgoing.settimeout(None)
            incoming, (self.seen_from, *_) = listener.accept()
        for end in (incoming, outgoing):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._writer, self._reader = (outgoing, incoming) if self.sender is Sender.CLIENT else (incoming, outgoing)
        self._threads = [
            threading.Thread(target=work, name=f"tcp-{self.address}", daemon=True) for work in (self._write, self._read)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._stopping.is_set():
            return
        self._stopping.set()
        # The reader ends at its next second without a byte, or now if the connection is gone.
        writer, reader = self._threads
        reader.join()
        writer.join(1.0)
        if writer.is_alive():
            # Nobody takes what it sends, and the kernel would try on for a quarter of an hour.
            self._writer.shutdown(socket.SHUT_RDWR)
            writer.join()
        self._reader.close()
        self._writer.close()

    def stop(self) -> StreamReport:
        """Stop sending, take in what is still on the way (up to a second) and return the account."""
        self.__exit__()
        return self.report()

    def wait_received(self, count: int = 5, deadline: float = 10.0) -> Self:
        """Wait until `count` more arrivals: the stream flows."""
        before = len(self._arrivals)
        wait_for(lambda: len(self._arrivals) - before, lambda new: new >= count, deadline=deadline, what="TCP arrivals")
        return self

    def report(self) -> StreamReport:
        """Account for the stream so far."""
        return StreamReport(self._sent, self._bytes // len(TICK), tuple(self._arrivals), self._error)

    def _write(self) -> None:
        due = time.monotonic()
        while not self._stopping.is_set() and self._error is None:
            try:
                self._writer.sendall(TICK)
            except OSError as error:
                self._error = f"sender: {error.strerror}"
                return
            self._sent += 1
            due = max(due + self.spacing, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))

    def _read(self) -> None:
        self._reader.settimeout(0.2)
        end = None
        while end is None or time.monotonic() < end:
            if self._stopping.is_set() and end is None:
                end = time.monotonic() + 1.0
            if end is not None and self._bytes >= self._sent * len(TICK):
                return
            try:
                data = self._reader.recv(65536)
            except TimeoutError:
                continue
            except OSError as error:
                self._error = f"receiver: {error.strerror}"
                return
            if not data:
                self._error = "receiver: the sender closed the connection"
                return
            self._arrivals.append(time.monotonic())
            self._bytes += len(data)
