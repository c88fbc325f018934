"""When the kernel saw a packet, on the clock that the meters and the faults share (monotonic seconds)."""

from __future__ import annotations

import socket
import struct
import time

SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("qq")


def ask_for_timestamps(receiver: socket.socket) -> None:
    """Make the kernel stamp each packet on arrival, so that a late thread does not make a late packet."""
    receiver.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)


def receive(receiver: socket.socket, size: int) -> tuple[bytes, float]:
    """Receive one packet and the monotonic time of its arrival."""
    packet, ancillary, _, _ = receiver.recvmsg(size, socket.CMSG_SPACE(_TIMESPEC.size))
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack(value)
            # The stamp is on the wall clock; its age is the same on every clock, but for a step in these microseconds.
            age = (time.time_ns() - seconds * 10**9 - nanoseconds) / 1e9
            return packet, time.monotonic() - age
    return packet, time.monotonic()
