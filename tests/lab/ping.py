"""A ping train: echo requests at an even spacing, and an exact account of which were answered, and when."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from tests.lab import clock
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from tests.lab.namespaces import Namespace

ECHO_REQUEST_V4, ECHO_REPLY_V4, ECHO_REQUEST_V6, ECHO_REPLY_V6 = 8, 0, 128, 129
SOL_RAW, ICMP_FILTER, ICMP6_FILTER = 255, 1, 1
_HEADER = struct.Struct("!BBHHHQ")  # type, code, checksum, identifier, sequence (RFC 792, RFC 4443); our index
RECEIVE_SIZE = 2048


@dataclass(frozen=True)
class Outage:
    """A run of pings without an answer: from the last one answered before it to the first one answered after it."""

    start: float
    end: float
    lost: int

    @property
    def seconds(self) -> float:
        """Time without service, to within one spacing; infinite if it never came back."""
        return self.end - self.start


@dataclass(frozen=True)
class PingReport:
    """Send time of each ping, and the arrival time of its answer or None."""

    spacing: float
    sent: tuple[float, ...]
    answered: tuple[float | None, ...]
    refused: int = 0
    duplicates: int = 0

    @property
    def lost(self) -> int:
        """Pings without an answer, those the sender's own kernel refused included."""
        return sum(1 for arrival in self.answered if arrival is None)

    @property
    def outages(self) -> list[Outage]:
        """Runs of lost pings, in order."""
        found: list[Outage] = []
        last_good, run = (self.sent[0] if self.sent else 0.0), 0
        for sent, arrival in zip(self.sent, self.answered, strict=True):
            if arrival is None:
                run += 1
                continue
            if run:
                found.append(Outage(last_good, sent, run))
            last_good, run = sent, 0
        if run:
            found.append(Outage(last_good, float("inf"), run))
        return found

    @property
    def longest_outage(self) -> float:
        """Seconds of the longest outage; 0 if no ping was lost."""
        return max((outage.seconds for outage in self.outages), default=0.0)

    def between(self, start: float, end: float) -> PingReport:
        """Return the part whose pings were sent in this span of monotonic time."""
        kept = [(s, a) for s, a in zip(self.sent, self.answered, strict=True) if start <= s <= end]
        return PingReport(self.spacing, tuple(s for s, _ in kept), tuple(a for _, a in kept), self.refused)

    def __str__(self) -> str:
        return f"{len(self.sent)} sent, {self.lost} lost, longest outage {self.longest_outage * 1e3:.1f} ms"


@dataclass
class PingTrain:
    """Pings `target` from `namespace` every `spacing` seconds while its context is open.

    Args:
        interface: leave by this interface of the namespace, whatever its routes say.
        linger: how long to wait for the last answers when stopping.
    """

    namespace: Namespace
    target: str
    spacing: float = 0.01
    interface: str | None = None
    linger: float = 0.5
    _sent: list[float] = field(default_factory=list, repr=False)
    _answers: dict[int, float] = field(default_factory=dict, repr=False)
    _refused: int = 0
    _duplicates: int = 0
    _stopping: threading.Event = field(default_factory=threading.Event, repr=False)

    def __enter__(self) -> Self:
        self._v6 = ipaddress.ip_address(self.target).version == 6
        self._identifier = int.from_bytes(os.urandom(2))
        self._thread = self.namespace.thread(self._run, f"ping-{self.target}")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def stop(self) -> PingReport:
        """Stop sending, wait for the last answers and return the account."""
        self.__exit__()
        return self.report()

    def wait_answered(self, count: int = 3, deadline: float = 10.0) -> Self:
        """Wait until `count` more pings are answered: service is there."""
        before = len(self._answers)
        wait_for(
            lambda: len(self._answers) - before,
            lambda new: new >= count,
            deadline=deadline,
            what=f"{count} answers from {self.target}",
        )
        return self

    def report(self) -> PingReport:
        """Account for every ping so far; one sent a moment ago counts as lost until its answer is in."""
        sent = tuple(self._sent)
        answered = tuple(self._answers.get(i) for i in range(len(sent)))
        return PingReport(self.spacing, sent, answered, self._refused, self._duplicates)

    # -- the thread ----------------------------------------------------------------------------------------------

    def _open(self) -> socket.socket:
        if self._v6:
            line = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
            blocked = [0xFFFFFFFF] * 8
            blocked[ECHO_REPLY_V6 // 32] &= ~(1 << ECHO_REPLY_V6 % 32)
            line.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, struct.pack("8I", *blocked))
        else:
            line = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
            line.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("I", 0xFFFFFFFF & ~(1 << ECHO_REPLY_V4)))
        if self.interface:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.interface.encode())
        clock.ask_for_timestamps(line)
        line.setblocking(False)
        return line

    def _run(self) -> None:
        with self._open() as line:
            due = time.monotonic()
            while not self._stopping.is_set():
                self._send(line)
                # A sender that was held up goes on from now: a burst would not measure anything.
                due = max(due + self.spacing, time.monotonic())
                self._listen(line, due)
            end = time.monotonic() + self.linger
            while len(self._answers) < len(self._sent) and time.monotonic() < end:
                self._listen(line, min(end, time.monotonic() + 0.02))

    def _send(self, line: socket.socket) -> None:
        index = len(self._sent)
        packet = _HEADER.pack(
            ECHO_REQUEST_V6 if self._v6 else ECHO_REQUEST_V4, 0, 0, self._identifier, index & 0xFFFF, index
        )
        if not self._v6:
            packet = packet[:2] + struct.pack("!H", _checksum(packet)) + packet[4:]
        self._sent.append(time.monotonic())
        try:
            line.sendto(packet, (self.target, 0))
        except OSError:
            # No route, no neighbour, no buffer: the ping is lost, which is what is being measured.
            self._refused += 1

    def _listen(self, line: socket.socket, until: float) -> None:
        while (left := until - time.monotonic()) > 0:
            if not select.select([line], [], [], left)[0]:
                return
            with contextlib.suppress(BlockingIOError):
                self._take(*clock.receive(line, RECEIVE_SIZE))

    def _take(self, packet: bytes, arrival: float) -> None:
        if not self._v6:
            packet = packet[(packet[0] & 0xF) * 4 :]
        if len(packet) < _HEADER.size:
            return
        _, _, _, identifier, _, index = _HEADER.unpack_from(packet)
        if identifier != self._identifier or index >= len(self._sent):
            return
        if index in self._answers:
            self._duplicates += 1
        else:
            self._answers[index] = arrival


def _checksum(packet: bytes) -> int:
    """Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
